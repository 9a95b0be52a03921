#include "ray/scheduling/labels.h"

#include <gtest/gtest.h>

namespace ray::scheduling {
namespace {

using Text = std::map<std::string, std::string>;

TEST(LabelSelectorTest, EachForm) {
  const Labels labels{{"zone", "east"}, {"empty", ""}};
  const std::vector<std::tuple<std::string, std::string, bool>> cases{
      {"zone", "east", true},
      {"zone", "west", false},
      {"zone", "!east", false},
      {"zone", "!west", true},
      {"zone", "in(west,east)", true},
      {"zone", "in( west , east )", true},
      {"zone", "in(west)", false},
      {"zone", "!in(west,east)", false},
      {"zone", "!in(west)", true},
      {"zone", "*", true},
      {"zone", "!*", false},
      {"none", "x", false},
      {"none", "!x", true},
      {"none", "!in(x,y)", true},
      {"none", "*", false},
      {"none", "!*", true},
      {"empty", "", true},
      {"none", "", false},
  };
  for (const auto& [key, text, matches] : cases) {
    EXPECT_EQ(LabelSelector(Text{{key, text}}).Matches(labels), matches) << key << ": " << text;
  }
}

TEST(LabelSelectorTest, AllConstraintsHold) {
  const LabelSelector selector(Text{{"zone", "in(a,b)"}, {"tier", "!gold"}});
  EXPECT_TRUE(selector.Matches({{"zone", "a"}}));
  EXPECT_TRUE(selector.Matches({{"zone", "b"}, {"tier", "silver"}}));
  EXPECT_FALSE(selector.Matches({{"zone", "b"}, {"tier", "gold"}}));
  EXPECT_FALSE(selector.Matches({{"tier", "silver"}}));
  EXPECT_EQ(selector.ToString(), "{tier: !gold, zone: in(a,b)}");
  EXPECT_TRUE(LabelSelector().Matches({}));
}

}  // namespace
}  // namespace ray::scheduling
