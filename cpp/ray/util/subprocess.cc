#include "ray/util/subprocess.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ray/util/check.h"

extern char** environ;  // NOLINT: POSIX

namespace ray {
namespace {

// What the child tells through the error pipe when it cannot execute.
struct ChildError {
  int step;
  int err;
};
constexpr const char* kSteps[] = {"set up", "change folder", "pass descriptors", "execute"};
enum Step { kSetUp, kChdir, kDescriptors, kExec };

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (const auto& s : strings) out.push_back(const_cast<char*>(s.c_str()));  // NOLINT: exec does not write
  out.push_back(nullptr);
  return out;
}

// Everything that the child needs, allocated before the fork: after it only async-signal-safe calls are allowed, since another thread may
// have held the allocator's lock.
struct ChildPlan {
  std::vector<char*> argv;
  char** env;
  const char* cwd;
  const std::vector<std::pair<int, int>>* fds;
  std::vector<int> moved;
  bool new_session;
  int death_signal;
  pid_t parent;
  int error_fd;
};

[[noreturn]] void Fail(const ChildPlan& plan, Step step, int err) {
  ChildError error{step, err};
  [[maybe_unused]] ssize_t n = ::write(plan.error_fd, &error, sizeof(error));
  ::_exit(127);
}

[[noreturn]] void RunChild(ChildPlan& plan) {
  if (plan.new_session) ::setsid();
  if (plan.death_signal != 0) {
    if (::prctl(PR_SET_PDEATHSIG, plan.death_signal) != 0) Fail(plan, kSetUp, errno);
    if (::getppid() != plan.parent) ::_exit(127);  // the parent ended before prctl took effect
  }
  for (int s = 1; s < NSIG; ++s) {
    if (s != SIGKILL && s != SIGSTOP) ::signal(s, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (*plan.cwd != '\0' && ::chdir(plan.cwd) != 0) Fail(plan, kChdir, errno);

  // First all sources above every target, so that no dup2 overwrites one that is still needed; then into place.
  int above = 3;
  for (const auto& [from, to] : *plan.fds) above = std::max(above, to + 1);
  int error_fd = ::fcntl(plan.error_fd, F_DUPFD_CLOEXEC, above);
  if (error_fd < 0) Fail(plan, kDescriptors, errno);
  plan.error_fd = error_fd;
  for (size_t i = 0; i < plan.fds->size(); ++i) {
    plan.moved[i] = ::fcntl((*plan.fds)[i].first, F_DUPFD_CLOEXEC, above);
    if (plan.moved[i] < 0) Fail(plan, kDescriptors, errno);
  }
  unsigned int next = 3;
  ::syscall(SYS_close_range, next, static_cast<unsigned int>(above - 1), 0u);
  for (size_t i = 0; i < plan.fds->size(); ++i) {
    if (::dup2(plan.moved[i], (*plan.fds)[i].second) < 0) Fail(plan, kDescriptors, errno);
  }
  constexpr unsigned int kCloseRangeCloexec = 4;
  ::syscall(SYS_close_range, static_cast<unsigned int>(above), ~0u, kCloseRangeCloexec);

  ::execvpe(plan.argv[0], plan.argv.data(), plan.env);
  Fail(plan, kExec, errno);
}

}  // namespace

std::string ExitStatus::ToString() const {
  if (!signaled) return "exit code " + std::to_string(code);
  const char* name = ::strsignal(code);
  return "signal " + std::to_string(code) + " (" + (name != nullptr ? name : "unknown") + ")";
}

Result<int> OpenPidFd(pid_t pid) {
  int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0u));
  if (fd < 0) return Status::FromErrno(errno, "watch process " + std::to_string(pid));
  return fd;
}

Result<Subprocess> Subprocess::Spawn(const SpawnOptions& options) {
  if (options.argv.empty()) return Status::InvalidArgument("a process needs a program");
  int error_pipe[2];
  if (::pipe2(error_pipe, O_CLOEXEC) != 0) return Status::FromErrno(errno, "pipe");
  std::vector<char*> env = options.env ? Pointers(*options.env) : std::vector<char*>();
  ChildPlan plan{.argv = Pointers(options.argv),
                 .env = options.env ? env.data() : environ,
                 .cwd = options.cwd.c_str(),
                 .fds = &options.fds,
                 .moved = std::vector<int>(options.fds.size()),
                 .new_session = options.new_session,
                 .death_signal = options.death_signal,
                 .parent = ::getpid(),
                 .error_fd = error_pipe[1]};
  // No handler of ours may run in the child before it has reset them.
  sigset_t all, old;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &old);
  pid_t pid = ::fork();  // posix_spawn knows no PDEATHSIG
  int fork_error = errno;
  if (pid == 0) RunChild(plan);
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
  ::close(error_pipe[1]);
  if (pid < 0) {
    ::close(error_pipe[0]);
    // What EAGAIN means of other calls is not what it means here.
    if (fork_error == EAGAIN) {
      return Status::ResourceExhausted("fork: the limit of processes is reached (`ulimit -u`, or pids.max of the control group)");
    }
    return Status::FromErrno(fork_error, "fork");
  }
  Result<int> pidfd = OpenPidFd(pid);  // cannot be another's: only we reap it
  Subprocess child(pid, pidfd.ok() ? *pidfd : -1);
  ChildError error{};
  ssize_t n;
  while ((n = ::read(error_pipe[0], &error, sizeof(error))) < 0 && errno == EINTR) {
  }
  ::close(error_pipe[0]);
  if (n == sizeof(error)) return Status::FromErrno(error.err, std::string(kSteps[error.step]) + ' ' + options.argv[0]);
  if (!pidfd.ok()) return pidfd.status();
  return child;
}

Subprocess::Subprocess(Subprocess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), pidfd_(std::exchange(other.pidfd_, -1)), ended_(std::exchange(other.ended_, std::nullopt)) {}

Subprocess& Subprocess::operator=(Subprocess&& other) noexcept {
  if (this != &other) {
    Abandon();
    pid_ = std::exchange(other.pid_, -1);
    pidfd_ = std::exchange(other.pidfd_, -1);
    ended_ = std::exchange(other.ended_, std::nullopt);
  }
  return *this;
}

Subprocess::~Subprocess() { Abandon(); }

void Subprocess::Abandon() {
  if (pid_ > 0 && !ended_) {
    Kill(SIGKILL);
    Wait();
  }
  if (pidfd_ >= 0) ::close(pidfd_);
  pid_ = pidfd_ = -1;
}

void Subprocess::Kill(int signal) {
  // Not yet reaped, so the pid is still its own.
  if (pid_ > 0 && !ended_) ::kill(pid_, signal);
}

std::optional<ExitStatus> Subprocess::Reap(int options) {
  if (ended_ || pid_ <= 0) return ended_;
  int status = 0;
  pid_t got;
  while ((got = ::waitpid(pid_, &status, options)) < 0 && errno == EINTR) {
  }
  if (got == 0) return std::nullopt;
  // ECHILD: somebody else reaped it (SIGCHLD ignored); it is over, but how is not known.
  ended_ = got < 0               ? ExitStatus{false, -1}
           : WIFSIGNALED(status) ? ExitStatus{true, WTERMSIG(status)}
                                 : ExitStatus{false, WEXITSTATUS(status)};
  return ended_;
}

std::optional<ExitStatus> Subprocess::Poll() { return Reap(WNOHANG); }

ExitStatus Subprocess::Wait() {
  std::optional<ExitStatus> status = Reap(0);
  RAY_CHECK(status.has_value()) << "no process to wait for";
  return *status;
}

pid_t Subprocess::Release() {
  if (pidfd_ >= 0) ::close(pidfd_);
  pidfd_ = -1;
  return std::exchange(pid_, -1);
}

}  // namespace ray
