// Child processes: started with an exact environment and exact descriptors, tied to our life, and always reaped.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ray/util/status.h"

namespace ray {

struct SpawnOptions {
  std::vector<std::string> argv;                // argv[0] is looked up in PATH unless it contains a slash
  std::optional<std::vector<std::string>> env;  // "NAME=value" each; nullopt: ours
  std::string cwd;                              // empty: ours
  std::vector<std::pair<int, int>> fds;         // {our descriptor, its number in the child}; all others save 0, 1, 2 are closed there
  bool new_session = false;                     // setsid: signals of our terminal do not reach it
  int death_signal = 0;                         // sent to the child when the *thread* that spawned it ends (PDEATHSIG), so spawn from one
                                                // that lives as long as the process; 0: none
};

// How a process ended.
struct ExitStatus {
  bool signaled = false;
  int code = 0;  // exit code or signal number
  bool success() const { return !signaled && code == 0; }
  std::string ToString() const;  // "exit code 3", "signal 9 (Killed)"
};

// Owns a child: kills and reaps it when destroyed. Movable; not thread-safe.
class Subprocess {
 public:
  // The child has executed argv[0] when this returns OK; otherwise the status says which step failed. Signals are at their defaults in the child.
  static Result<Subprocess> Spawn(const SpawnOptions& options);

  Subprocess(Subprocess&& other) noexcept;
  Subprocess& operator=(Subprocess&& other) noexcept;
  ~Subprocess();

  pid_t pid() const { return pid_; }
  // Readable once the child has ended (for an event loop). Stays ours. -1 after Release.
  int pidfd() const { return pidfd_; }
  // No-op once it has ended.
  void Kill(int signal);
  // Nullopt while it runs. Reaps.
  std::optional<ExitStatus> Poll();
  // Blocks until the end. Reaps; later calls return the same.
  ExitStatus Wait();
  // Gives the child up: it goes on running, and the caller reaps it.
  pid_t Release();

 private:
  Subprocess(pid_t pid, int pidfd) : pid_(pid), pidfd_(pidfd) {}
  std::optional<ExitStatus> Reap(int options);
  void Abandon();

  pid_t pid_ = -1;
  int pidfd_ = -1;
  std::optional<ExitStatus> ended_;
};

// A descriptor that becomes readable when the process ends, which need not be our child. NOT_FOUND: it is gone already. The caller closes it.
Result<int> OpenPidFd(pid_t pid);

}  // namespace ray
