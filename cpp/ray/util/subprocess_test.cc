#include "ray/util/subprocess.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

namespace ray {
namespace {

struct Pipe {
  Pipe() { EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0); }
  ~Pipe() {
    CloseWrite();
    ::close(fds[0]);
  }
  void CloseWrite() {
    if (fds[1] >= 0) ::close(fds[1]);
    fds[1] = -1;
  }
  // Until the last writer is gone.
  std::string ReadAll() {
    CloseWrite();
    std::string out;
    char chunk[4096];
    for (ssize_t n; (n = ::read(fds[0], chunk, sizeof(chunk))) > 0;) out.append(chunk, static_cast<size_t>(n));
    return out;
  }
  int fds[2];
};

SpawnOptions Shell(const std::string& script) {
  SpawnOptions options;
  options.argv = {"/bin/bash", "-c", script};
  return options;
}

TEST(SubprocessTest, RunsAndReportsTheExitCode) {
  auto child = Subprocess::Spawn(Shell("exit 3"));
  ASSERT_TRUE(child.ok()) << child.status().ToString();
  ExitStatus status = child->Wait();
  EXPECT_EQ(status.ToString(), "exit code 3");
  EXPECT_FALSE(status.success());
  EXPECT_EQ(child->Wait().code, 3);
  EXPECT_EQ(child->Poll()->code, 3);
}

TEST(SubprocessTest, FailureToExecuteIsAStatus) {
  auto child = Subprocess::Spawn({.argv = {"/no/such/program"}});
  EXPECT_EQ(child.status().code(), StatusCode::kNotFound);
  EXPECT_EQ(child.status().message(), "execute /no/such/program: No such file or directory");
  SpawnOptions bad_cwd = Shell("true");
  bad_cwd.cwd = "/no/such/folder";
  EXPECT_NE(Subprocess::Spawn(bad_cwd).status().message().find("change folder"), std::string::npos);
  EXPECT_EQ(Subprocess::Spawn({}).status().code(), StatusCode::kInvalidArgument);
}

TEST(SubprocessTest, PassesEnvironmentAndFolder) {
  Pipe out;
  SpawnOptions options = Shell("echo \"$A|$HOME|$(pwd)\"");
  options.env = {"A=b c", "PATH=/usr/bin:/bin"};
  options.cwd = "/";
  options.fds = {{out.fds[1], 1}};
  auto child = Subprocess::Spawn(options);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(out.ReadAll(), "b c||/\n");
  EXPECT_TRUE(child->Wait().success());
}

TEST(SubprocessTest, PassesExactlyTheDescriptors) {
  Pipe a, b;
  int leaked = ::open("/dev/null", O_RDONLY);  // without CLOEXEC
  // Crossed on purpose: each target number is the other's source.
  std::string to_a = std::to_string(b.fds[1]), to_b = std::to_string(a.fds[1]);
  SpawnOptions options =
      Shell("x=closed; [ -e /proc/$$/fd/" + std::to_string(leaked) + " ] && x=leaked; echo $x >&" + to_a + "; echo to-b >&" + to_b);
  options.fds = {{a.fds[1], b.fds[1]}, {b.fds[1], a.fds[1]}};
  auto child = Subprocess::Spawn(options);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(a.ReadAll(), "closed\n");
  EXPECT_EQ(b.ReadAll(), "to-b\n");
  ::close(leaked);
}

TEST(SubprocessTest, SignalsAreAtTheirDefaults) {
  auto* old = ::signal(SIGTERM, SIG_IGN);
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &term, nullptr);
  auto child = Subprocess::Spawn(Shell("kill -TERM $$; exit 0"));
  ::pthread_sigmask(SIG_UNBLOCK, &term, nullptr);
  ::signal(SIGTERM, old);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(child->Wait().ToString(), "signal 15 (Terminated)");
}

TEST(SubprocessTest, PidFdTellsTheEnd) {
  Pipe in;
  SpawnOptions options = Shell("read x");
  options.fds = {{in.fds[0], 0}};
  auto child = Subprocess::Spawn(options);
  ASSERT_TRUE(child.ok());
  EXPECT_FALSE(child->Poll().has_value());
  pollfd p{child->pidfd(), POLLIN, 0};
  EXPECT_EQ(::poll(&p, 1, 0), 0);
  child->Kill(SIGKILL);
  EXPECT_EQ(::poll(&p, 1, 10000), 1);
  EXPECT_EQ(child->Poll()->code, SIGKILL);
  child->Kill(SIGKILL);  // harmless
}

TEST(SubprocessTest, DestructionKillsAndReaps) {
  pid_t pid;
  {
    auto child = Subprocess::Spawn({.argv = {"sleep", "1000"}});
    ASSERT_TRUE(child.ok());
    pid = child->pid();
    Subprocess moved = std::move(*child);
    EXPECT_EQ(child->pid(), -1);
    EXPECT_EQ(::kill(pid, 0), 0);
  }
  EXPECT_EQ(::kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
  EXPECT_EQ(OpenPidFd(pid).status().code(), StatusCode::kNotFound);
}

TEST(SubprocessTest, DeathSignalFollowsTheSpawningThread) {
  std::optional<Result<Subprocess>> child;
  std::thread([&] { child.emplace(Subprocess::Spawn({.argv = {"sleep", "1000"}, .death_signal = SIGKILL})); }).join();
  ASSERT_TRUE(child->ok());
  EXPECT_EQ((*child)->Wait().code, SIGKILL);
}

TEST(SubprocessTest, ReleaseLeavesItRunning) {
  auto child = Subprocess::Spawn({.argv = {"sleep", "1000"}});
  ASSERT_TRUE(child.ok());
  pid_t pid = child->Release();
  EXPECT_EQ(::kill(pid, 0), 0);
  ::kill(pid, SIGKILL);
  EXPECT_EQ(::waitpid(pid, nullptr, 0), pid);
}

}  // namespace
}  // namespace ray
