#include "ray/rpc/core/listen_unix.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <latch>
#include <thread>
#include <vector>

namespace ray::rpc {
namespace {

class ListenUnixTest : public testing::Test {
 protected:
  ListenUnixTest() {
    EXPECT_NE(::mkdtemp(dir_.data()), nullptr);
    dir_fd_ = ::open(dir_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    address_.sun_family = AF_UNIX;
    std::snprintf(address_.sun_path, sizeof address_.sun_path, "%s/s", dir_.c_str());
  }
  ~ListenUnixTest() override {
    ::close(dir_fd_);
    std::filesystem::remove_all(dir_);
  }
  static int Socket() { return ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); }
  Status Listen(int fd) const { return ListenUnix(fd, dir_fd_, "s", address_, sizeof address_, 8); }
  // What a process leaves that did not end in good order.
  void LeaveSocket() const {
    const int fd = Socket();
    EXPECT_TRUE(Listen(fd).ok());
    ::close(fd);
  }
  bool Connects() const {
    const int fd = Socket();
    const bool connected = ::connect(fd, reinterpret_cast<const sockaddr*>(&address_), sizeof address_) == 0;
    ::close(fd);
    return connected;
  }

  std::string dir_ = "/tmp/listen_unixXXXXXX";
  int dir_fd_ = -1;
  sockaddr_un address_{};
};

TEST_F(ListenUnixTest, WhoListensIsLeftAloneAndWhoHasEndedReplaced) {
  LeaveSocket();
  EXPECT_FALSE(Connects());
  const int first = Socket(), second = Socket();
  EXPECT_TRUE(Listen(first).ok());
  EXPECT_EQ(Listen(second).code(), StatusCode::kAlreadyExists);
  EXPECT_TRUE(Connects());
  ::close(first);
  EXPECT_TRUE(Listen(second).ok());
  EXPECT_TRUE(Connects());
  ::close(second);
}

TEST_F(ListenUnixTest, AFolderThatSomebodyHoldsIsNotWaitedForForEver) {
  const int held = ::open(dir_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(::flock(held, LOCK_EX), 0);
  EXPECT_EQ(Listen(fd).code(), StatusCode::kUnavailable);
  ::close(held);
  EXPECT_TRUE(Listen(fd).ok());
  ::close(fd);
}

TEST_F(ListenUnixTest, WhatIsNoSocketStays) {
  const int file = ::openat(dir_fd_, "s", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  ASSERT_GE(file, 0);
  ::close(file);
  const int fd = Socket();
  EXPECT_EQ(Listen(fd).code(), StatusCode::kAlreadyExists);
  EXPECT_TRUE(std::filesystem::is_regular_file(dir_ + "/s"));
  ::close(fd);
}

TEST_F(ListenUnixTest, OfAllThatFindADeadSocketOneListens) {
  constexpr int kStarters = 8;
  for (int round = 0; round < 50; ++round) {
    LeaveSocket();
    std::vector<int> fds(kStarters);
    std::vector<Status> outcomes(kStarters);
    std::latch together(kStarters);
    std::vector<std::thread> starters;
    for (size_t i = 0; i < kStarters; ++i) {
      fds[i] = Socket();
      starters.emplace_back([&, i] {
        together.arrive_and_wait();
        outcomes[i] = Listen(fds[i]);
      });
    }
    for (std::thread& starter : starters) starter.join();
    int listening = 0;
    for (const Status& outcome : outcomes) {
      listening += outcome.ok();
      EXPECT_TRUE(outcome.ok() || outcome.code() == StatusCode::kAlreadyExists) << outcome.ToString();
    }
    EXPECT_EQ(listening, 1);
    EXPECT_TRUE(Connects());
    for (const int fd : fds) ::close(fd);
    ::unlinkat(dir_fd_, "s", 0);
  }
}

}  // namespace
}  // namespace ray::rpc
