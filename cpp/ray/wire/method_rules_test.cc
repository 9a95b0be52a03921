#include "ray/wire/method_rules.h"

#include <gtest/gtest.h>

namespace ray {
namespace {

struct Method {
  MethodId id;
  std::string_view name;
};
constexpr Method kMethods[] = {
#define RAY_X(name, number, service, method) {MethodId::name, service "." method},
    RAY_METHODS(RAY_X)
#undef RAY_X
};

// That each method of each service has a rule, and each rule a method, is checked when method_rules.cc compiles.
TEST(MethodRulesTest, EveryMethodStatesOneThatHoldsTogether) {
  for (const Method& method : kMethods) {
    const auto rule = RuleOf(method.id);
    ASSERT_TRUE(rule.has_value()) << method.name;
    EXPECT_TRUE(rule->repeat != Repeat::kKeyed || !rule->key.empty()) << method.name;
    EXPECT_TRUE(rule->MayRepeat() || !rule->why.empty()) << method.name;
  }
  EXPECT_FALSE(RuleOf(static_cast<MethodId>(0)).has_value());
  EXPECT_FALSE(RuleOf(static_cast<MethodId>(999)).has_value());
}

// Every request to the GCS is sent again over a new link (GcsCalls), so each must bear it, and say of what it speaks.
TEST(MethodRulesTest, TheGcsBearsRepeats) {
  for (const Method& method : kMethods) {
    if (!IsGcsMethod(method.id)) continue;
    const auto rule = RuleOf(method.id);
    EXPECT_TRUE(rule->MayRepeat()) << method.name;
    EXPECT_TRUE(rule->repeat == Repeat::kReadOnly || !rule->key.empty()) << method.name;
  }
}

TEST(MethodRulesTest, WhatTheyAllow) {
  EXPECT_EQ(RuleOf(MethodId::kKvGet)->repeat, Repeat::kReadOnly);
  EXPECT_EQ(RuleOf(MethodId::kKvPut)->key, "request_id");
  EXPECT_TRUE(RuleOf(MethodId::kRequestLease)->waits);
  EXPECT_TRUE(RuleOf(MethodId::kRequestLease)->MayLose());
  EXPECT_TRUE(RuleOf(MethodId::kLeaveObject)->MayLose());
  EXPECT_FALSE(RuleOf(MethodId::kReturnLease)->MayLose()) << "nobody answers, so nobody sends it again";
  EXPECT_TRUE(RuleOf(MethodId::kReturnLease)->MayRepeat());
  EXPECT_FALSE(RuleOf(MethodId::kStoreRelease)->MayRepeat());
}

}  // namespace
}  // namespace ray
