#include "ray/raylet/router/function_cache.h"

#include <gtest/gtest.h>

namespace ray::raylet {
namespace {

TEST(FunctionCache, KeepsWhatWasUsedLast) {
  FunctionCache cache({.max_bytes = 30, .max_value_bytes = 10});
  cache.Put("a", std::string(10, 'a'));
  cache.Put("b", std::string(10, 'b'));
  cache.Put("c", std::string(10, 'c'));
  ASSERT_NE(cache.Find("a"), nullptr);  // "b" is the oldest now
  cache.Put("d", std::string(10, 'd'));
  EXPECT_EQ(cache.Find("b"), nullptr);
  ASSERT_NE(cache.Find("a"), nullptr);
  EXPECT_EQ(*cache.Find("a"), std::string(10, 'a'));
  EXPECT_EQ(cache.bytes(), 30u);
}

TEST(FunctionCache, RefusesWhatWouldPushOutTheRest) {
  FunctionCache cache({.max_bytes = 30, .max_value_bytes = 10});
  cache.Put("a", "1");
  cache.Put("large", std::string(11, 'x'));
  EXPECT_EQ(cache.Find("large"), nullptr);
  EXPECT_EQ(cache.bytes(), 1u);
}

TEST(FunctionCache, CountsARepeatedValueOnce) {
  FunctionCache cache;
  cache.Put("a", "12");
  cache.Put("a", "12");
  EXPECT_EQ(cache.bytes(), 2u);
}

}  // namespace
}  // namespace ray::raylet
