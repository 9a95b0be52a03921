#include "ray/util/process_title.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <string>

#include "ray/util/fs.h"

namespace ray {
namespace {

std::string Shown() {
  std::string text = *ReadFile("/proc/self/cmdline");
  return text.substr(0, text.find('\0'));
}

TEST(ProcessTitleTest, ShowsWhatWasSetLast) {
  const char* before = getenv("PATH");
  const std::string path = before == nullptr ? "" : before;
  ASSERT_TRUE(PrepareProcessTitle());
  SetProcessTitle("ray::IDLE");
  EXPECT_EQ(Shown(), "ray::IDLE");
  SetProcessTitle("ray::a_function_of_some_length");
  EXPECT_EQ(Shown(), "ray::a_function_of_some_length");
  SetProcessTitle("ray::f");
  EXPECT_EQ(Shown(), "ray::f");
  SetProcessTitle(std::string(5000, 'x'));
  EXPECT_GE(Shown().size(), 10u);
  SetProcessTitle("ray::IDLE");
  EXPECT_EQ(Shown(), "ray::IDLE");
  const char* after = getenv("PATH");
  EXPECT_EQ(after == nullptr ? "" : std::string(after), path);  // the environment is where it was, for whoever looks
}

}  // namespace
}  // namespace ray
