// ZygoteLauncher: forks workers from one warm Python process per node.
//
// The zygote is `<python> -m ray._runtime.zygote --fd 3 --lifeline 4`; descriptor 3 is one end of a SOCK_SEQPACKET pair that carries one JSON
// object a packet (docs/architecture/scheduling.md lists them). It ends when the socket closes, so it cannot outlive the raylet. If it dies
// it is started again, with back-off; forks that it had not answered are asked again, and living workers (reaped by the raylet, a subreaper,
// from then on) stay. Descriptor 4 reads from a pipe into which nobody writes: when its other end closes, which is here alone, the kernel
// kills each worker, whatever it does at that moment.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "ray/async/loop.h"
#include "ray/raylet/workers/worker_launcher.h"
#include "ray/util/status.h"

namespace ray::raylet {

struct ZygoteConfig {
  std::string python;  // path of the interpreter
  std::string module = "ray._runtime.zygote";
  std::string session_dir;
  std::string log_dir;                                    // zygote.err and the workers' files
  Duration min_backoff = std::chrono::milliseconds(100);  // before a restart; doubles up to the maximum
  Duration max_backoff = std::chrono::seconds(5);
  int max_failures = 5;  // starts in a row that never became ready; then pending forks fail, and the next Launch tries anew
};

class ZygoteLauncher final : public WorkerLauncher {
 public:
  ZygoteLauncher(ZygoteConfig config, async::EpollLoop* loop);
  ~ZygoteLauncher() override;
  // Starts the zygote ahead of the first Launch. `on_ready`, once: OK as soon as it can fork, else why it never will.
  void Start(std::function<void(const Status&)> on_ready);
  void SetEvents(LauncherEvents events) override { events_ = std::move(events); }
  void Launch(const LaunchRequest& request) override;
  void Signal(int64_t pid, int signal) override;
  void OnChildEnded(int64_t pid) override;
  void OnChildReaped(int64_t pid, int wait_status) override;
  void Stop() override;

 private:
  struct Child {
    int pidfd = -1;
    int64_t zygote = -1;       // its parent
    bool leads_group = false;  // what it has started is to end with it
  };
  void EnsureStarted();
  Status Spawn();
  Status MakeLifeline();
  // False: there is no more to read for now.
  bool Read();
  void OnMessage(std::string_view text);
  void OnGone();  // the socket closed
  void Send(const LaunchRequest& request);
  void Exited(int64_t pid, int wait_status);
  // That zygote has ended, and all that it said has been read: tells of those whose end it cannot tell any more.
  void TellLostChildren(int64_t zygote);
  // `refused`: not by the zygote, but by the machine.
  void RetryLater(const std::string& why, bool refused = false);

  const ZygoteConfig config_;
  async::EpollLoop* const loop_;
  LauncherEvents events_;
  std::function<void(const Status&)> on_ready_;  // empty: told
  int fd_ = -1;
  int lifeline_ = -1, lifeline_read_ = -1;  // the workers live as long as the first is open
  int64_t pid_ = -1;                        // of the latest zygote
  bool reaped_ = true;                      // it has ended, and its number may be another's
  bool ready_ = false;
  bool stopped_ = false;
  int failures_ = 0;
  async::TimerId retry_ = 0;
  std::map<uint64_t, LaunchRequest> pending_;  // not answered yet
  std::set<uint64_t> sent_;                    // of those, what this zygote has been told
  std::map<int64_t, Child> children_;
};

}  // namespace ray::raylet
