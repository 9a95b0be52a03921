// Process: one process of the simulated cluster. It has a clock, a loop, connections (network.h) and a program, the product's own objects, all of which end
// with it. SimLoop is its async::Loop: posts run in their order, timers by the process's own clock; between processes the World decides.
//
//   Process* p = world.NewProcess("raylet", host);
//   p->Run([&] { ... });                         // on its loop, now
//   p->Own(std::make_shared<Program>(p->loop()));  // destroyed when it dies
//   p->StartThread([&] { ... p->loop()->Wait(...); ... });  // user code, which may wait
//   p->Kill(Death::kKilled);                     // kill -9, between two events
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "ray/async/loop.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/faulty_connection.h"
#include "ray/testing/sim/world.h"

namespace ray::sim {

class SimConnection;
class UserThread;

// Monotonic line and wall clock of one process: those of its host when it started.
class SimClock final : public Clock {
 public:
  SimClock(const World* world, ClockSkew skew, Duration begin) : world_(world), skew_(skew), born_(world->now()), begin_(begin) {}
  Time Now() const override;
  int64_t WallMillis() const override;
  // How long the World takes until this clock has gone on by `duration`.
  Duration WorldTime(Duration duration) const;
  // The wall clock is set.
  void JumpWall(Duration by) { skew_.offset += by; }

 private:
  const World* const world_;
  ClockSkew skew_;
  const Time born_;
  const Duration begin_;
};

class SimLoop final : public async::UserLoop {
 public:
  SimLoop(World* world, Process* process, SimClock* clock) : world_(world), process_(process), clock_(clock) {}

  void Post(const char* name, std::function<void()> fn) override;
  async::TimerId AddTimer(Duration delay, std::function<void()> fn) override;
  void CancelTimer(async::TimerId id) override;
  const Clock& clock() const override { return *clock_; }
  bool InLoop() const override { return world_->running_ == process_; }
  void AddFlusher(std::function<void()> fn) override { flushers_.push_back(std::move(fn)); }
  void RequestFlush() override;
  // On a user thread of the process: the World goes on meanwhile.
  using UserLoop::Wait;
  async::WaitResult Wait(async::Waiter* waiter, Time deadline, bool may_spin) override;
  void EnterUserCode() override {}
  void LeaveUserCode() override {}
  void Sleep(Duration duration);
  // The share of waits that a signal interrupts, within a second.
  void SetSignals(double share) { signals_ = share; }

  // Runs `fn` on the loop now, and what it corked leaves. REQUIRES: nothing runs on any loop. Not run if the process is dead. Later if it stands still: then
  // what came from one source runs in its order, and what came from several in any, as where a process reads its sockets again. 0: timers and the rest.
  void Run(std::function<void()> fn, uint64_t source = 0);
  // Nothing runs on it until then: the process is stopped, or starved.
  void StandStill(Time until) { still_until_ = std::max(still_until_, until); }
  // Everything that waits is dropped; nothing runs any more.
  void End();

 private:
  friend class Process;
  // A user thread in Wait.
  struct Waiting {
    UserThread* thread;
    async::Waiter* waiter;
    EventId wake = 0;  // 0: nothing has woken it yet
  };
  void OnSet() override;
  EventId WakeAt(Time at, UserThread* thread);
  void ScheduleTurn();
  void Turn();
  void ResumeLater(uint64_t source);
  void RunNow(const std::function<void()>& fn);

  World* const world_;
  Process* const process_;
  SimClock* const clock_;
  std::deque<std::pair<const char*, std::function<void()>>> posts_;
  std::set<EventId> timers_;
  std::vector<std::function<void()>> flushers_;
  Time still_until_{0};
  std::map<uint64_t, std::deque<std::function<void()>>> held_up_;  // by source, while it stands still
  std::vector<Waiting*> waiting_;
  double signals_ = 0;
  bool turn_scheduled_ = false;
  bool ended_ = false;
};

enum class Death { kExited, kKilled, kHostCrashed, kEndOfWorld };

class Process {
 public:
  Process(World* world, uint32_t id, std::string name, HostId host);
  ~Process();

  uint32_t id() const { return id_; }
  int64_t pid() const { return 1000 + id_; }
  HostId host() const { return host_; }
  const std::string& name() const { return name_; }
  World* world() const { return world_; }
  SimLoop* loop() { return &loop_; }
  SimClock* clock() { return &clock_; }
  bool alive() const { return alive_; }

  void Run(std::function<void()> fn) { loop_.Run(std::move(fn)); }
  // A thread of it for user code (user_thread.h) begins, in a moment.
  void StartThread(std::function<void()> body);
  // Kept until the process dies; destroyed in reverse, off every loop, when its connections are gone and nothing it sends leaves any more.
  void Own(std::shared_ptr<void> part) { parts_.push_back(std::move(part)); }
  // `fn` runs once the process is dead and its parts are destroyed.
  void OnDeath(std::function<void(int wait_status)> fn) { on_death_.push_back(std::move(fn)); }
  // It ends now. REQUIRES: nothing runs on its loop; from there, use EndSoon. The host's crash is not seen by peers on others until they notice.
  void Kill(Death death, int wait_status = 9);
  // exit(): after what runs now.
  void EndSoon(int exit_code);
  // _exit(): from now on nothing of it is done or sent any more.
  void EndAtOnce(int exit_code);
  // Whether what it sends still leaves.
  bool sends() const { return alive_ && !ending_; }

  // Of the network. Its connections, until they have ended; those of a dead process are none.
  std::map<uint64_t, std::shared_ptr<SimConnection>> connections;
  std::shared_ptr<rpc::FaultInjector> faults;  // of what it sends; null: none
  std::vector<std::function<void(Death)>> network_hooks;

 private:
  World* const world_;
  const uint32_t id_;
  const std::string name_;
  const HostId host_;
  bool alive_ = true, ending_ = false;
  SimClock clock_;
  SimLoop loop_;
  std::vector<std::unique_ptr<UserThread>> threads_;
  std::vector<std::shared_ptr<void>> parts_;
  std::vector<std::function<void(int)>> on_death_;
};

}  // namespace ray::sim
