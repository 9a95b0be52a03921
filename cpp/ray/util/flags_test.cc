#include "ray/util/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ray {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class FlagsTest : public testing::Test {
 protected:
  FlagsTest() : flags_("prog", "Does things.") {
    flags_.Group("Where");
    flags_.Add("session-dir", "folder of sockets", &dir_);
    flags_.Add("watch-pid", "end with it", &pids_);
    flags_.Add("label", "a label", &labels_);
    flags_.Add("verbose", "say more", &verbose_);
    flags_.ConfigGroup("Pool");
    flags_.Add("idle-timeout", "how long an idle worker is kept", &timeout_);
    flags_.Add("threads", "how many", &threads_);
    flags_.Add("ratio", "a ratio", &ratio_);
    flags_.AddBytes("capacity", "of the store", &capacity_);
  }

  Result<std::optional<std::string>> Parse(std::vector<const char*> args) {
    args.insert(args.begin(), "prog");
    return flags_.Parse(static_cast<int>(args.size()), args.data());
  }
  std::string Error(std::vector<const char*> args) {
    auto result = Parse(std::move(args));
    if (result.ok()) return "ok";
    EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
    return result.status().message();
  }

  FlagParser flags_;
  std::string dir_ = "/default";
  std::vector<int64_t> pids_;
  std::vector<std::string> labels_ = {"a"};
  bool verbose_ = false;
  Duration timeout_ = milliseconds(1500);
  uint16_t threads_ = 4;
  double ratio_ = 0.5;
  uint64_t capacity_ = 64 << 20;
};

TEST_F(FlagsTest, DefaultsStayWhenNothingIsGiven) {
  auto result = Parse({});
  ASSERT_TRUE(result.ok());
  EXPECT_FALSE(result->has_value());
  EXPECT_EQ(dir_, "/default");
  EXPECT_THAT(labels_, ElementsAre("a"));
}

TEST_F(FlagsTest, BothFormsAndAllTypes) {
  auto result = Parse({"--session-dir=/x=y", "--watch-pid", "7", "--watch_pid=8", "--label", "--b", "--verbose", "--idle_timeout", "250us",
                       "--threads=9", "--ratio", "-0.25", "--capacity=1.5G"});
  ASSERT_TRUE(result.ok()) << result.status().ToString();
  EXPECT_EQ(dir_, "/x=y");
  EXPECT_THAT(pids_, ElementsAre(7, 8));
  ASSERT_TRUE(Parse({"--watch-pid=-1,9", "--watch-pid", "10"}).ok());
  EXPECT_THAT(pids_, ElementsAre(7, 8, -1, 9, 10));
  EXPECT_FALSE(Parse({"--watch-pid=1,"}).ok());
  EXPECT_THAT(labels_, ElementsAre("--b"));
  EXPECT_TRUE(verbose_);
  EXPECT_EQ(timeout_, microseconds(250));
  EXPECT_EQ(threads_, 9);
  EXPECT_EQ(ratio_, -0.25);
  EXPECT_EQ(capacity_, uint64_t{3} << 29);
}

TEST_F(FlagsTest, Bools) {
  verbose_ = true;
  ASSERT_TRUE(Parse({"--no-verbose"}).ok());
  EXPECT_FALSE(verbose_);
  EXPECT_THAT(Error({"--no-threads"}), HasSubstr("--no-threads: there is no such flag"));
}

TEST_F(FlagsTest, ErrorsNameTheFlag) {
  EXPECT_THAT(Error({"--nonsense=1"}), HasSubstr("--nonsense: there is no such flag"));
  EXPECT_THAT(Error({"stray"}), HasSubstr("\"stray\" is no flag"));
  EXPECT_THAT(Error({"--threads"}), HasSubstr("--threads: needs a value"));
  EXPECT_THAT(Error({"--verbose=maybe"}), HasSubstr("--verbose: \"maybe\" is not true or false"));
  EXPECT_THAT(Error({"--idle-timeout=5"}), HasSubstr("--idle-timeout: \"5\" is not a time"));
  EXPECT_THAT(Error({"--ratio=x"}), HasSubstr("--ratio: \"x\" is not a number"));
  EXPECT_THAT(Error({"--capacity=4Q"}), HasSubstr("--capacity: \"4Q\" is not a number of bytes"));
  EXPECT_THAT(Error({"--watch-pid=1x"}), HasSubstr("--watch-pid: \"1x\" is not a whole number"));
}

TEST_F(FlagsTest, IntegersKeepTheirRange) {
  EXPECT_THAT(Error({"--threads=65536"}), HasSubstr("--threads: \"65536\" is not between 0 and 65535"));
  EXPECT_EQ(threads_, 4);
}

TEST_F(FlagsTest, GivenTwice) { EXPECT_THAT(Error({"--ratio=1", "--ratio=2"}), HasSubstr("--ratio: given twice")); }

TEST_F(FlagsTest, Required) {
  std::string name;
  flags_.Add("name", "of the node", &name).Required();
  EXPECT_THAT(Error({}), HasSubstr("--name: is required"));
  EXPECT_TRUE(Parse({"--name=n"}).ok());
}

TEST_F(FlagsTest, HelpShowsGroupsTypesAndDefaults) {
  std::string help = Parse({"--help"}).value().value();
  EXPECT_THAT(
      help,
      HasSubstr("Usage: prog [flags]\n\nDoes things.\n\nWhere:\n  --session-dir <text>  (default /default)\n        folder of sockets\n"));
  EXPECT_THAT(help, HasSubstr("--watch-pid <integer>  (repeatable)"));
  EXPECT_THAT(help, HasSubstr("--[no-]verbose  (default false)"));
  EXPECT_THAT(help, Not(HasSubstr("idle-timeout")));
  std::string config = Parse({"--help-config"}).value().value();
  EXPECT_THAT(config, HasSubstr("Pool:\n  --idle-timeout <time>  (default 1500ms)\n"));
  EXPECT_THAT(config, HasSubstr("--capacity <bytes>  (default 64M)"));
  EXPECT_THAT(config, Not(HasSubstr("session-dir")));
}

TEST(UnitsTest, Durations) {
  EXPECT_EQ(ParseDuration("0").value(), Duration::zero());
  EXPECT_EQ(ParseDuration("1.5s").value(), milliseconds(1500));
  EXPECT_EQ(ParseDuration("2h").value(), std::chrono::hours(2));
  for (const char* bad : {"", "s", "5", "-1s", "1 s", "1e400s", "1.2.3s", "99999999999999h"}) EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
  EXPECT_EQ(FormatDuration(std::chrono::seconds(90)), "90s");
  EXPECT_EQ(FormatDuration(std::chrono::seconds(120)), "2m");
  EXPECT_EQ(FormatDuration(Duration::zero()), "0");
}

TEST(UnitsTest, Bytes) {
  EXPECT_EQ(ParseBytes("4096").value(), 4096u);
  EXPECT_EQ(ParseBytes("2T").value(), uint64_t{2} << 40);
  EXPECT_FALSE(ParseBytes("-1").ok());
  EXPECT_EQ(FormatBytes(100), "100");
  EXPECT_EQ(FormatBytes(102400), "100K");
}

}  // namespace
}  // namespace ray
