#include "ray/util/signals.h"

#include <execinfo.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "ray/util/check.h"

namespace ray {
namespace {

// Async-signal-safe, once backtrace has been called before (it loads a library the first time).
void ReportCrash(int signal) {
  const char* name = signal == SIGSEGV ? "SIGSEGV" : signal == SIGBUS ? "SIGBUS" : signal == SIGFPE ? "SIGFPE" : "SIGILL";
  [[maybe_unused]] ssize_t n = ::write(STDERR_FILENO, "*** ", 4);
  n = ::write(STDERR_FILENO, name, std::strlen(name));
  n = ::write(STDERR_FILENO, " ***\n", 5);
  void* frames[64];
  backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
  // The disposition was reset on entry (SA_RESETHAND): returning repeats the fault, and that ends the process with a core dump; one sent by
  // kill would not repeat by itself.
  ::raise(signal);
}

}  // namespace

void IgnoreSigPipe() { ::signal(SIGPIPE, SIG_IGN); }

Result<int> OpenSignalFd(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (int s : signals) sigaddset(&set, s);
  if (int err = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); err != 0) return Status::FromErrno(err, "block signals");
  int fd = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) return Status::FromErrno(errno, "signalfd");
  return fd;
}

int ReadSignalFd(int fd) {
  signalfd_siginfo info;
  return ::read(fd, &info, sizeof(info)) == sizeof(info) ? static_cast<int>(info.ssi_signo) : 0;
}

void InstallCrashReport() {
  void* frame;
  backtrace(&frame, 1);
  struct sigaction action {};
  action.sa_handler = ReportCrash;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
  for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) ::sigaction(s, &action, nullptr);
}

ScopedBlockSignals::ScopedBlockSignals() {
  static_assert(sizeof(sigset_t) <= sizeof(old_));
  sigset_t all;
  sigfillset(&all);
  RAY_CHECK(::pthread_sigmask(SIG_SETMASK, &all, reinterpret_cast<sigset_t*>(old_)) == 0);
}

ScopedBlockSignals::~ScopedBlockSignals() { ::pthread_sigmask(SIG_SETMASK, reinterpret_cast<sigset_t*>(old_), nullptr); }

}  // namespace ray
