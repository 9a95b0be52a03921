#include "ray/rpc/tcp/knock.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ray/testing/promise/promise.h"

namespace ray::rpc {
namespace {

class KnockTest : public testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*async::EpollLoop::Make({}));
    ASSERT_TRUE(loop_->Start().ok());
  }
  void TearDown() override { loop_->Stop(); }

  // A socket with a port of its own; not listening yet.
  int Bound(std::string* address) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof at;
    EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&at), length), 0);
    EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&at), &length), 0);
    *address = "127.0.0.1:" + std::to_string(ntohs(at.sin_port));
    return fd;
  }
  KnockResult Ask(const std::string& address) {
    TestPromise<KnockResult> promise;
    auto answer = promise.get_future();
    loop_->Post("test", [&] {
      Knock(loop_.get(), address, std::chrono::seconds(10), [promise](KnockResult result) { promise.set_value(result); });
    });
    return answer.get();
  }

  std::unique_ptr<async::EpollLoop> loop_;
};

TEST_F(KnockTest, TellsWhetherSomebodyListens) {
  std::string address;
  const int fd = Bound(&address);
  EXPECT_EQ(Ask(address), KnockResult::kRefused) << "it has the port, but does not listen";
  ASSERT_EQ(listen(fd, 1), 0);
  EXPECT_EQ(Ask(address), KnockResult::kOpen) << "though nobody accepts";
  close(fd);
  EXPECT_EQ(Ask(address), KnockResult::kRefused);
}

TEST_F(KnockTest, WhatIsNoAddressInNumbersIsUnknown) {
  EXPECT_EQ(Ask("nowhere.invalid:1"), KnockResult::kUnknown);
  EXPECT_EQ(Ask("no address"), KnockResult::kUnknown);
}

}  // namespace
}  // namespace ray::rpc
