#include "ray/rpc/grpc/security.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "ray/rpc/grpc/host_port.h"
#include "ray/util/fs.h"

namespace ray::rpc {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kOld = "old-token-of-the-cluster", kNew = "new-token-of-the-cluster";

class ManualClock final : public Clock {
 public:
  Time Now() const override { return now; }
  int64_t WallMillis() const override { return now.ns / 1'000'000 + wall_ahead; }
  int64_t wall_ahead = 0;
  Time now{int64_t{1} << 40};
};

TEST(HostPortTest, IsReadAndWritten) {
  for (const char* text : {"127.0.0.1:0", "[::1]:6379", "head.example:65535"}) {
    auto parsed = ParseHostPort(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(parsed->ToString(), text);
  }
  for (const char* text :
       {"", "host", ":1", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:x", "1.2.3.4:-1", "::1:80", "[::1]", "[::1]80", "[host]:80"}) {
    EXPECT_EQ(ParseHostPort(text).status().code(), StatusCode::kInvalidArgument) << text;
  }
}

TEST(HostPortTest, Loopback) {
  for (const char* text : {"127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"}) EXPECT_TRUE(ParseHostPort(text)->IsLoopback()) << text;
  for (const char* text : {"0.0.0.0:1", "10.0.0.1:1", "[::]:1", "[fe80::1]:1", "localhost.example:1"}) {
    EXPECT_FALSE(ParseHostPort(text)->IsLoopback()) << text;
  }
}

TEST(TokenCoreTest, OldTokenIsGoodForTheGrace) {
  TokenCore core(std::chrono::seconds(10));
  const Time t{1000};
  EXPECT_FALSE(core.Accepts("", t)) << "no token is set";
  core.Set(kOld, t);
  EXPECT_TRUE(core.Accepts(kOld, t));
  core.Set(kNew, t);
  core.Set(kNew, t + std::chrono::seconds(5));  // again: no change
  EXPECT_TRUE(core.Accepts(kNew, t));
  EXPECT_TRUE(core.Accepts(kOld, t + std::chrono::milliseconds(9999)));
  EXPECT_FALSE(core.Accepts(kOld, t + std::chrono::seconds(10)));
  EXPECT_FALSE(core.Accepts("", t));
  EXPECT_FALSE(core.Accepts(kNew + "x", t));
  EXPECT_FALSE(core.Accepts(kNew.substr(1), t));
}

class SecurityTest : public testing::Test {
 protected:
  SecurityTest() {
    char name[] = "/tmp/ray_security_test_XXXXXX";
    folder_ = ::mkdtemp(name);
    config_.token_file = folder_ + "/token";
  }
  ~SecurityTest() override { (void)RemoveTree(folder_); }
  void Write(const std::string& text, mode_t mode = 0600) { ASSERT_TRUE(WriteFileAtomic(config_.token_file, text, mode).ok()); }
  static std::string Bearer(const std::string& token) { return "Bearer " + token; }

  std::string folder_;
  ManualClock clock_;
  SecurityConfig config_;
};

TEST_F(SecurityTest, BadTokenFilesAreNamedWithoutTheirContent) {
  EXPECT_THAT(Security::Make(config_, &clock_).status().message(), HasSubstr(config_.token_file)) << "missing";
  for (const std::string text :
       {"", "short", "two lines of a token\nare one too many\n", "with blanks in between it", "\x01 control characters.."}) {
    Write(text);
    const Status status = Security::Make(config_, &clock_).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(status.message(), HasSubstr(config_.token_file));
    if (!text.empty()) {
      EXPECT_THAT(status.message(), Not(HasSubstr(text)));
    }
  }
  Write(kOld + "\n", 0640);
  EXPECT_EQ(Security::Make(config_, &clock_).status().code(), StatusCode::kPermissionDenied);
}

TEST_F(SecurityTest, ListenersNeedATokenOrLoopback) {
  Write(kOld);
  auto with_token = *Security::Make(config_, &clock_);
  auto without = *Security::Make({}, &clock_);
  auto disabled = *Security::Make({.disabled = true}, &clock_);
  for (const auto& security : {with_token, without, disabled}) EXPECT_TRUE(security->CheckListener("unix:/x").ok());
  for (const char* address : {"127.0.0.1:0", "0.0.0.0:0"}) EXPECT_TRUE(with_token->CheckListener(address).ok());
  EXPECT_FALSE(with_token->CheckListener("nonsense").ok());
  EXPECT_THAT(without->CheckListener("127.0.0.1:0").message(), HasSubstr("--auth-token-file"));
  EXPECT_THAT(without->CheckListener("10.0.0.1:0").message(), HasSubstr("--auth-token-file"));
  EXPECT_TRUE(disabled->CheckListener("127.0.0.1:0").ok());
  EXPECT_TRUE(disabled->CheckListener("[::1]:0").ok());
  EXPECT_THAT(disabled->CheckListener("0.0.0.0:0").message(), HasSubstr("--auth-mode=disabled"));
}

TEST_F(SecurityTest, EveryCallerNeedsTheToken) {
  Write(kOld + "\n");
  auto security = *Security::Make(config_, &clock_);
  EXPECT_TRUE(security->Check(Bearer(kOld)).ok());
  for (const std::string& bad : {std::string(), kOld, Bearer(""), Bearer(kNew), Bearer(kOld + " "), "bearer " + kOld, "Basic " + kOld}) {
    const Status status = security->Check(bad);
    EXPECT_EQ(status.code(), StatusCode::kUnauthenticated) << bad;
    EXPECT_THAT(status.message(), Not(HasSubstr(kOld)));
  }
  EXPECT_THAT(security->Check(std::nullopt).message(), HasSubstr("RAY_AUTH_TOKEN"));
  EXPECT_EQ(security->Token(), kOld);
  EXPECT_TRUE((*Security::Make({.disabled = true}, &clock_))->Check(std::nullopt).ok());
  EXPECT_EQ((*Security::Make({}, &clock_))->Check(Bearer("")).code(), StatusCode::kUnauthenticated) << "no token: nobody may enter";
}

TEST_F(SecurityTest, TokenChangesWithoutRestart) {
  Write(kOld);
  auto security = *Security::Make(config_, &clock_);
  Write(kNew);
  EXPECT_TRUE(security->Check(Bearer(kNew)).ok()) << "one that looks wrong is reason enough to look at the file";
  EXPECT_EQ(security->Token(), kNew);
  EXPECT_TRUE(security->Check(Bearer(kOld)).ok()) << "within the grace";
  clock_.now = clock_.now + config_.token_grace;
  EXPECT_FALSE(security->Check(Bearer(kOld)).ok());

  // A file that cannot be used changes nothing.
  Write(kOld, 0644);
  clock_.now = clock_.now + std::chrono::seconds(2);
  EXPECT_EQ(security->Token(), kNew);
  EXPECT_TRUE(security->Check(Bearer(kNew)).ok());
  EXPECT_FALSE(security->Check(Bearer(kOld)).ok());
}

TEST_F(SecurityTest, TheGraceOutlivesTheProcess) {
  config_.state_file = config_.token_file + ".state";
  Write(kOld);
  auto first = *Security::Make(config_, &clock_);
  Write(kNew);
  EXPECT_TRUE(first->Check(Bearer(kNew)).ok());
  first.reset();
  // Another machine's idea of "now" since it started: only the wall clock goes on.
  clock_.wall_ahead = clock_.now.ns / 1'000'000 + 1000;
  clock_.now = Time{1};
  auto second = *Security::Make(config_, &clock_);
  EXPECT_TRUE(second->Check(Bearer(kOld)).ok());
  EXPECT_TRUE(second->Check(Bearer(kNew)).ok());
  second.reset();
  // However often it is started, and whatever the wall clock says, the grace is over when it is over.
  clock_.now = clock_.now + config_.token_grace / 2;
  auto third = *Security::Make(config_, &clock_);
  EXPECT_TRUE(third->Check(Bearer(kOld)).ok());
  clock_.now = clock_.now + config_.token_grace / 2;
  EXPECT_FALSE(third->Check(Bearer(kOld)).ok());
  third.reset();
  auto fourth = *Security::Make(config_, &clock_);
  EXPECT_FALSE(fourth->Check(Bearer(kOld)).ok());
}

TEST_F(SecurityTest, ATokenThatWasChangedMeanwhileHasItsGrace) {
  config_.state_file = config_.token_file + ".state";
  Write(kOld);
  (*Security::Make(config_, &clock_)).reset();
  Write(kNew);
  auto second = *Security::Make(config_, &clock_);
  EXPECT_TRUE(second->Check(Bearer(kOld)).ok());
  EXPECT_TRUE(second->Check(Bearer(kNew)).ok());
  // A state that is damaged, or open to others, is none.
  second.reset();
  ASSERT_TRUE(WriteFileAtomic(config_.state_file, "tokens 1\n" + kOld + "\n\nsoon\n").ok());
  EXPECT_FALSE((*Security::Make(config_, &clock_))->Check(Bearer(kOld)).ok());
  ASSERT_TRUE(WriteFileAtomic(config_.state_file, "tokens 1\n" + kOld + "\n\n0\n", 0644).ok());
  auto third = *Security::Make(config_, &clock_);
  EXPECT_FALSE(third->Check(Bearer(kOld)).ok());
  EXPECT_TRUE(third->Check(Bearer(kNew)).ok());
}

}  // namespace
}  // namespace ray::rpc
