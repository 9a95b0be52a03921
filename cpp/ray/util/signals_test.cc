#include "ray/util/signals.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

namespace ray {
namespace {

bool IsBlocked(int signal) {
  sigset_t set;
  pthread_sigmask(SIG_SETMASK, nullptr, &set);
  return sigismember(&set, signal) == 1;
}

TEST(SignalsTest, SignalFdGivesWhatIsPending) {
  auto fd = OpenSignalFd({SIGUSR1, SIGUSR2});
  ASSERT_TRUE(fd.ok());
  EXPECT_EQ(ReadSignalFd(*fd), 0);
  ASSERT_EQ(::kill(::getpid(), SIGUSR2), 0);
  EXPECT_EQ(ReadSignalFd(*fd), SIGUSR2);
  EXPECT_EQ(ReadSignalFd(*fd), 0);
  ::close(*fd);
}

TEST(SignalsTest, ClosedPipeIsAnErrno) {
  IgnoreSigPipe();
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  ::close(fds[0]);
  EXPECT_EQ(::write(fds[1], "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
  ::close(fds[1]);
}

TEST(SignalsTest, ScopedBlockIsInheritedAndUndone) {
  bool blocked_in_thread = false;
  {
    ScopedBlockSignals block;
    std::thread([&] { blocked_in_thread = IsBlocked(SIGINT); }).join();
  }
  EXPECT_TRUE(blocked_in_thread);
  EXPECT_FALSE(IsBlocked(SIGINT));
}

TEST(SignalsDeathTest, CrashReportKeepsTheSignal) {
  EXPECT_EXIT(
      {
        InstallCrashReport();
        ::raise(SIGSEGV);
      },
      testing::KilledBySignal(SIGSEGV), "\\*\\*\\* SIGSEGV \\*\\*\\*");
}

}  // namespace
}  // namespace ray
