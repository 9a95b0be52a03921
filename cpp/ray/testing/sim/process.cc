#include "ray/testing/sim/process.h"

#include <algorithm>
#include <utility>

#include "ray/testing/sim/network.h"
#include "ray/testing/sim/user_thread.h"
#include "ray/util/check.h"

namespace ray::sim {
namespace {

constexpr int64_t kMillion = 1'000'000;
constexpr int64_t kWallBegin = 1'800'000'000'000;  // milliseconds; any will do
constexpr Duration kMaxTurnDelay = std::chrono::microseconds(20);
constexpr Duration kMaxTimerDelay = std::chrono::microseconds(100);
constexpr Duration kMaxSignal = std::chrono::seconds(1);

}  // namespace

Time SimClock::Now() const {
  const int64_t passed = (world_->now() - born_).count();
  return Time{begin_.count() + passed + static_cast<int64_t>(static_cast<__int128>(passed) * skew_.ppm / kMillion)};
}

int64_t SimClock::WallMillis() const {
  const int64_t passed = world_->now().ns + skew_.offset.count();
  return kWallBegin + passed / kMillion;
}

Duration SimClock::WorldTime(Duration duration) const {
  if (skew_.ppm == 0) return duration;
  return Duration(static_cast<int64_t>(static_cast<__int128>(duration.count()) * kMillion / (kMillion + skew_.ppm)) + 1);
}

// ---- the loop ----

void SimLoop::Post(const char* name, std::function<void()> fn) {
  if (ended_) return;
  posts_.emplace_back(name, std::move(fn));
  ScheduleTurn();
}

void SimLoop::ScheduleTurn() {
  if (turn_scheduled_ || posts_.empty()) return;
  turn_scheduled_ = true;
  const Time soon = world_->now() + world_->random().Between(Duration::zero(), kMaxTurnDelay);
  world_->At(std::max(soon, still_until_), [this] {
    turn_scheduled_ = false;
    Turn();
  });
}

// One post a turn, so that other processes, timers and frames come between any two.
void SimLoop::Turn() {
  if (still_until_ > world_->now()) return ScheduleTurn();
  if (posts_.empty()) return;
  RunNow([this] {
    const auto [name, fn] = std::move(posts_.front());
    posts_.pop_front();
    fn();
  });
  ScheduleTurn();
}

void SimLoop::Run(std::function<void()> fn, uint64_t source) {
  if (ended_) return;
  if (still_until_ <= world_->now() && !held_up_.contains(source)) return RunNow(fn);
  held_up_[source].push_back(std::move(fn));
  ResumeLater(source);
}

void SimLoop::ResumeLater(uint64_t source) {
  world_->At(still_until_, [this, source] {
    const auto held_up = held_up_.find(source);
    if (ended_ || held_up == held_up_.end()) return;
    if (still_until_ > world_->now()) return ResumeLater(source);
    const std::function<void()> fn = std::move(held_up->second.front());
    held_up->second.pop_front();
    if (held_up->second.empty()) held_up_.erase(held_up);
    RunNow(fn);
  });
}

void SimLoop::RunNow(const std::function<void()>& fn) {
  if (ended_) return;
  RAY_CHECK(world_->running_ == nullptr) << "something runs on a loop already";
  world_->running_ = process_;
  fn();
  for (size_t i = 0; i < flushers_.size(); ++i) flushers_[i]();
  world_->running_ = nullptr;
}

async::TimerId SimLoop::AddTimer(Duration delay, std::function<void()> fn) {
  if (ended_) return 0;
  const auto id = std::make_shared<EventId>(0);
  const Duration late = world_->random().Between(Duration::zero(), kMaxTimerDelay);
  *id = world_->After(clock_->WorldTime(std::max(delay, Duration::zero())) + late, [this, id, fn = std::move(fn)]() mutable {
    // Where the process stands still the timer may yet be cancelled.
    Run([this, id, fn = std::move(fn)] {
      if (timers_.erase(*id) != 0) fn();
    });
  });
  timers_.insert(*id);
  return *id;
}

void SimLoop::CancelTimer(async::TimerId id) {
  if (timers_.erase(id) != 0) world_->Cancel(id);
}

void SimLoop::RequestFlush() {
  if (InLoop()) return;
  Post("flush", [] {});  // flushers run after whatever runs
}

// ---- user threads ----

EventId SimLoop::WakeAt(Time at, UserThread* thread) {
  return world_->At(std::max(at, still_until_), [this, thread] {
    if (ended_) return;
    if (still_until_ > world_->now()) {
      WakeAt(still_until_, thread);
    } else {
      thread->Resume();
    }
  });
}

// The waiter stays where it is until its thread runs again, so who was meant can be seen.
void SimLoop::OnSet() {
  for (Waiting* waiting : waiting_) {
    if (waiting->wake != 0 || !waiting->waiter->IsSet()) continue;
    waiting->wake = WakeAt(world_->now() + world_->random().Between(Duration::zero(), kMaxTurnDelay), waiting->thread);
  }
}

async::WaitResult SimLoop::Wait(async::Waiter* waiter, Time deadline, bool) {
  UserThread* const thread = UserThread::Current();
  RAY_CHECK(thread != nullptr && thread->process() == process_ && !InLoop()) << "only user threads of the process may wait";
  if (ended_) throw UserThread::Unwinding{};
  struct Registered : Waiting {
    Registered(SimLoop* loop, UserThread* thread, async::Waiter* waiter) : Waiting{thread, waiter}, loop(loop) {
      loop->waiting_.push_back(this);
    }
    ~Registered() {
      std::erase(loop->waiting_, this);
      loop->world_->Cancel(wake);
      loop->world_->Cancel(late);
      loop->world_->Cancel(signal);
      loop->TakeBack(waiter);
    }
    SimLoop* const loop;
    EventId late = 0, signal = 0;
  } here(this, thread, waiter);
  Time signal = Time::Infinite();
  if (world_->random().Chance(signals_)) {
    signal = world_->now() + world_->random().Between(Duration::zero(), kMaxSignal);
    here.signal = WakeAt(signal, thread);
  }
  while (BeToldOf(waiter)) {
    const Time now = clock_->Now();
    if (now >= deadline) return async::WaitResult::kDeadline;
    if (world_->now() >= signal) return async::WaitResult::kInterrupted;
    if (!deadline.is_infinite()) {
      here.late =
          WakeAt(world_->now() + clock_->WorldTime(deadline - now) + world_->random().Between(Duration::zero(), kMaxTimerDelay), thread);
    }
    thread->Park();
    world_->Cancel(std::exchange(here.late, 0));
    TakeBack(waiter);
  }
  return async::WaitResult::kDone;
}

void SimLoop::Sleep(Duration duration) {
  async::Waiter never;
  const Time end = clock_->Now() + duration;
  while (Wait(&never, end) == async::WaitResult::kInterrupted) {
  }
}

void SimLoop::End() {
  ended_ = true;
  const auto posts = std::exchange(posts_, {});  // their ends may come back here
  const auto held_up = std::exchange(held_up_, {});
  for (const EventId id : std::exchange(timers_, {})) world_->Cancel(id);
  const auto flushers = std::exchange(flushers_, {});
}

// ---- the process ----

Process::Process(World* world, uint32_t id, std::string name, HostId host)
    : world_(world),
      id_(id),
      name_(std::move(name)),
      host_(host),
      clock_(world, world->SkewOf(host), world->random().Between(Duration::zero(), std::chrono::hours(1000))),
      loop_(world, this, &clock_) {}

Process::~Process() { Kill(Death::kEndOfWorld); }

void Process::Kill(Death death, int wait_status) {
  if (!alive_) return;
  alive_ = false;
  if (death != Death::kEndOfWorld) world_->Record("process ends", {}, id_, static_cast<uint64_t>(death));
  for (const auto& hook : std::exchange(network_hooks, {})) hook(death);
  loop_.End();
  for (const auto& thread : threads_) thread->Unwind();
  threads_.clear();
  while (!parts_.empty()) {
    const auto part = std::move(parts_.back());
    parts_.pop_back();
  }
  for (const auto& [id, connection] : std::exchange(connections, {})) connection->Drop();
  if (faults != nullptr) faults->Drop();
  const auto on_death = std::exchange(on_death_, {});
  if (death == Death::kEndOfWorld) return;
  for (const auto& fn : on_death) fn(wait_status);
}

void Process::StartThread(std::function<void()> body) {
  if (!alive_) return;
  threads_.push_back(std::make_unique<UserThread>(world_, this, std::move(body)));
  loop_.WakeAt(world_->now() + world_->random().Between(Duration::zero(), kMaxTurnDelay), threads_.back().get());
}

void Process::EndAtOnce(int exit_code) {
  ending_ = true;
  loop_.End();
  EndSoon(exit_code);
}

void Process::EndSoon(int exit_code) {
  world_->After(Duration::zero(), [this, exit_code] { Kill(Death::kExited, exit_code << 8); });
}

}  // namespace ray::sim
