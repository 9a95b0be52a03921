#include "ray/wire/methods.h"

#include <gtest/gtest.h>

#include <set>

namespace ray {
namespace {

TEST(MethodsTest, NumbersAndNamesAreUnique) {
  std::set<int> numbers;
  std::set<std::string_view> names;
  int count = 0;
#define RAY_X(name, number, service, method)          \
  numbers.insert(number);                             \
  names.insert(service "/" method);                   \
  static_assert(number > 0 && number < kMaxMethodId); \
  ++count;
  RAY_METHODS(RAY_X)
#undef RAY_X
  EXPECT_EQ(numbers.size(), static_cast<size_t>(count));
  EXPECT_EQ(names.size(), static_cast<size_t>(count));
}

TEST(MethodsTest, NamesRoundTrip) {
#define RAY_X(name, number, service, method)                 \
  EXPECT_EQ(MethodName(MethodId::name), service "/" method); \
  EXPECT_EQ(MethodFromPath("/ray.v1." service "/" method), MethodId::name);
  RAY_METHODS(RAY_X)
#undef RAY_X
}

TEST(MethodsTest, UnknownOnes) {
  EXPECT_EQ(MethodName(static_cast<MethodId>(0)), "unknown");
  EXPECT_EQ(MethodName(static_cast<MethodId>(999)), "unknown");
  for (const char* path : {"", "GcsKv/KvGet", "/ray.v1.GcsKv", "/ray.v1.GcsKv/kvget", "/ray.v2.GcsKv/KvGet"}) {
    EXPECT_FALSE(MethodFromPath(path).has_value()) << path;
  }
}

TEST(MethodsTest, WhoServes) {
  EXPECT_TRUE(IsGcsMethod(MethodId::kKvGet));
  EXPECT_TRUE(IsGcsMethod(MethodId::kRegisterNode));
  EXPECT_FALSE(IsGcsMethod(MethodId::kPushTask));
  EXPECT_FALSE(IsGcsMethod(MethodId::kRequestLease));
}

}  // namespace
}  // namespace ray
