#include "ray/async/loop.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <climits>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ray/util/check.h"
#include "ray/util/signals.h"

namespace ray::async {
namespace {

constexpr int kMaxEvents = 64;
constexpr Duration kSignalCheck = std::chrono::seconds(1);
constexpr Duration kStoppedSlice = std::chrono::milliseconds(100);
constexpr uint32_t kHotLeads = 16;         // leads in close succession, after which the I/O thread watches instead of standing in
constexpr int64_t kHotGapNs = 250'000;     // what is close
constexpr int64_t kSlowYieldNs = 200'000;  // somebody had more to do than to answer us
constexpr int64_t kFollowSpinNs = 20'000;  // a round of the I/O thread is over sooner than a sleep

static_assert(std::endian::native == std::endian::little, "the futex word is the low half of Waiter::state_");

uint32_t* FutexWord(std::atomic<uintptr_t>* state) { return reinterpret_cast<uint32_t*>(state); }

// 0 when woken or when the word had changed; else the errno (EINTR, ETIMEDOUT). The deadline is on CLOCK_MONOTONIC.
int FutexWait(std::atomic<uintptr_t>* state, uint32_t expected, Time deadline) {
  timespec until{deadline.ns / 1'000'000'000, deadline.ns % 1'000'000'000};
  long rc = syscall(SYS_futex, FutexWord(state), FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
                    deadline.is_infinite() ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
  return rc == 0 || errno == EAGAIN ? 0 : errno;
}

void FutexWake(std::atomic<uintptr_t>* state) { syscall(SYS_futex, FutexWord(state), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX); }

void SignalEvent(int fd) {
  uint64_t one = 1;
  [[maybe_unused]] ssize_t n = ::write(fd, &one, sizeof one);  // can only fail when the counter is full, and then the event is pending
}

void DrainEvent(int fd) {
  uint64_t count;
  [[maybe_unused]] ssize_t n = ::read(fd, &count, sizeof count);
}

// Rounded up: waking a moment early would only make another round.
int TimeoutMillis(Time now, Time until) {
  if (until.is_infinite()) return -1;
  if (until <= now) return 0;
  return static_cast<int>(std::min<int64_t>(((until - now).count() + 999'999) / 1'000'000, INT_MAX));
}

bool IsMainThread() {
  thread_local const bool is_main = syscall(SYS_gettid) == getpid();
  return is_main;
}

void Pause() {
#if defined(__x86_64__)
  for (int i = 0; i < 8; ++i) __builtin_ia32_pause();
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

// Moves the calling thread to the next processor that it may run on. The kernel keeps two processes that wake each other in turn on one processor
// for good, also when another is idle.
void HopToAnotherCpu() {
  cpu_set_t allowed;
  int here = sched_getcpu();
  if (here < 0 || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (int i = 1; i < CPU_SETSIZE; ++i) {
    int cpu = (here + i) % CPU_SETSIZE;
    if (cpu == here || !CPU_ISSET(cpu, &allowed)) continue;
    cpu_set_t target;
    CPU_ZERO(&target);
    CPU_SET(cpu, &target);
    if (sched_setaffinity(0, sizeof target, &target) == 0) sched_setaffinity(0, sizeof allowed, &allowed);
    return;
  }
}

// Whether to poll before sleeping: as long as that pays off. Each miss doubles the number of sleeps that go without (up to 1024), one success
// makes polling the rule again; so a loaded machine, where the peer needs this very processor, is left alone.
// Polling also fails for ever when the peer happens to sit on our processor. So where it failed all along while answers came quickly, the thread
// moves once and tries again; ever more rarely if that does not help.
class SpinPolicy {
 public:
  bool ShouldSpin() { return skip_left_ == 0 || (--skip_left_, false); }
  void Succeeded() {
    ++wins_since_hurt_;
    skip_ = 0;
    if (hopped_) hop_after_ = kHopAfter;
    hopped_ = false;
  }
  // Polling cost `lost`, more than it can win: for so long as makes that a small share of the time there is none, whatever else succeeds. On an idle machine
  // that happens now and then; where it happens again before polling has won much, others have work: the share becomes ever smaller.
  void Hurt(int64_t now, int64_t lost) {
    hurt_factor_ = wins_since_hurt_ < kWinsToForget ? std::min(hurt_factor_ * 2, kMaxHurtFactor) : kMinHurtFactor;
    wins_since_hurt_ = 0;
    none_before_ = now + lost * hurt_factor_;
  }
  bool IsHurt(int64_t now) const { return now < none_before_; }
  void Missed(int64_t now) {
    if (skip_ == 0) missing_since_ = now;
    skip_left_ = skip_ = std::min<uint32_t>(std::max<uint32_t>(1, skip_ * 2), kMaxSkip);
    if (skip_ < kMaxSkip) return;
    // Some 1000 waits lie behind: were they short?
    if (now - missing_since_ < kMaxSkip * kShortNs && now - last_hop_ > hop_after_) {
      if (hopped_) hop_after_ = std::min(hop_after_ * 2, kHopRarely);
      last_hop_ = now;
      hopped_ = true;
      skip_ = skip_left_ = 0;
      HopToAnotherCpu();
    } else {
      missing_since_ = now;
    }
  }

 private:
  static constexpr uint32_t kMaxSkip = 1024;
  static constexpr int64_t kShortNs = 100'000, kHopAfter = 100'000'000, kHopRarely = 10'000'000'000;
  uint32_t skip_ = 0;
  uint32_t skip_left_ = 0;
  int64_t missing_since_ = 0;
  static constexpr int64_t kMinHurtFactor = 100, kMaxHurtFactor = 1600;
  static constexpr uint32_t kWinsToForget = 200;
  int64_t hurt_factor_ = kMinHurtFactor;
  uint32_t wins_since_hurt_ = 0;
  int64_t none_before_ = 0;
  int64_t last_hop_ = 0, hop_after_ = kHopAfter;
  bool hopped_ = false;  // and no success since
};

struct Watched {
  int fd;
  FdCallback callback;
  bool dead = false;  // touched on the loop only
};

struct Posted {
  const char* name;  // for the debugger
  std::function<void()> fn;
};

}  // namespace

// No wake-up is lost, because:
//  * everything that can ask for attention is a descriptor in the inner set (sockets, event_fd for posts and set waiters, timer_fd for timers) and
//    level-triggered: whoever polls next sees it;
//  * somebody always polls: either a leader has the right, or the inner set is armed in the outer one, on which the I/O thread sleeps, or the
//    I/O thread watches, that is sleeps with a time-out. Release() re-establishes this under mu before the right is free;
//  * `need_wake` is set before the last look at the posts that precedes a sleep or a release (and n_posts raised before need_wake is read);
//  * a leader publishes itself in its Waiter before it sleeps, with the same exchange that would tell it that the waiter is set.
struct EpollLoop::Impl {
  struct Follower {
    Waiter* waiter;
    bool granted = false;  // the right was handed to it
  };

  EpollLoop* self = nullptr;
  LoopOptions options;
  SystemClock clock;
  int inner = -1, outer = -1;
  int event_fd = -1;  // in inner: posts, set waiters of leaders
  int timer_fd = -1;  // in inner
  int io_fd = -1;     // in outer: for the I/O thread itself
  std::thread thread;
  std::mutex join_mu;

  std::mutex mu;
  std::condition_variable released;  // for Stop
  bool held = false;                 // the polling right
  bool armed = false;                // inner is armed in outer
  uint64_t polls = 0;                // times a user thread took the right
  std::deque<Follower*> followers;   // in order of arrival
  std::atomic<uint32_t> n_followers{0};
  std::atomic<bool> watching{false};    // written under mu; inner is disarmed, the I/O thread looks once per watch_interval
  std::atomic<bool> io_serving{false};  // the I/O thread has the right
  int64_t last_lead = 0;                // when a user thread took the right last
  uint32_t hot_leads = 0;               // how often in close succession
  std::atomic<bool> stopping{false};    // written under mu

  std::mutex posts_mu;
  std::vector<Posted> posts;
  std::atomic<uint32_t> n_posts{0};
  std::atomic<bool> need_wake{true};

  std::mutex timers_mu;
  std::map<std::pair<int64_t, TimerId>, std::function<void()>> timers;
  std::unordered_map<TimerId, int64_t> timer_due;
  TimerId next_timer = 1;
  int64_t timer_armed_at = INT64_MAX;  // what timer_fd is set to

  std::mutex fds_mu;
  std::unordered_map<int, std::unique_ptr<Watched>> fds;

  std::atomic<int64_t> user_code_since{0};  // 0: not in user code
  std::atomic<bool> executes{false};        // some thread has told when it runs user code: it comes back to read
  std::atomic<bool> flush_pending{false};
  std::atomic<bool> expecting{false};  // ExpectSoon, since the I/O thread polled last
  std::atomic<bool> io_timed{false};   // the I/O thread sleeps with a time-out, so it will notice flush_pending by itself

  // On the loop only.
  SpinPolicy spin;
  std::vector<std::unique_ptr<Watched>> graveyard;  // unwatched in this round; their events may still be in the batch
  std::vector<std::function<void()>> flushers;
  std::vector<Posted> running;

  static thread_local const Impl* current;

  ~Impl() {
    for (int fd : {inner, outer, event_fd, timer_fd, io_fd}) {
      if (fd >= 0) ::close(fd);
    }
  }

  // --- arming; under mu ---

  void SetArmed(bool on) {
    if (armed == on) return;
    armed = on;
    epoll_event event{};
    event.events = on ? uint32_t{EPOLLIN} : 0;
    event.data.fd = inner;
    RAY_CHECK(epoll_ctl(outer, EPOLL_CTL_MOD, inner, &event) == 0) << errno;
  }

  void WakePoller() {
    SignalEvent(event_fd);
    if (watching.load()) SignalEvent(io_fd);
  }

  // --- the polling right ---

  // Gives the right to a follower, or frees it and leaves the inner set to the I/O thread.
  void Release() {
    need_wake.store(true);
    if (n_posts.load() > 0) WakePoller();  // came after the last look
    if (ReleaseRight()) SignalEvent(io_fd);
  }

  // True: the I/O thread is to watch from now on, and does not know yet.
  bool ReleaseRight() {
    std::lock_guard lock(mu);
    while (!followers.empty() && !stopping) {
      Follower* next = followers.front();
      followers.pop_front();
      n_followers.fetch_sub(1);
      uintptr_t expected = Waiter::kFollowing;
      // A waiter already set leaves by itself. The follower cannot go before we drop mu.
      if (!next->waiter->state_.compare_exchange_strong(expected, Waiter::kIdle)) continue;
      next->granted = true;
      SetArmed(false);
      FutexWake(&next->waiter->state_);
      return false;
    }
    held = false;
    if (stopping) {
      released.notify_all();
    } else if (!watching && hot_leads >= kHotLeads) {
      // A thread that waits again and again reads for itself. Armed, the set would wake the I/O thread for each answer that is faster than the
      // next wait, and the two would get in each other's way.
      hot_leads = 0;
      watching = true;
      return true;
    } else if (!watching) {
      SetArmed(true);
    }
    return false;
  }

  // The right was free and is a user thread's now.
  void TakeRightLocked() {
    held = true;
    int64_t now = clock.Now().ns;
    hot_leads = now - last_lead < kHotGapNs ? hot_leads + 1 : 0;
    last_lead = now;
    SetArmed(false);
    need_wake.store(false);
  }

  // While the I/O thread is at work what we wait for may come at any moment, and if not, the right does.
  void SpinForIoThread(const Waiter* waiter) {
    if (!io_serving.load(std::memory_order_relaxed) || n_followers.load(std::memory_order_relaxed) > 0) return;
    int64_t end = clock.Now().ns + kFollowSpinNs;
    do {
      Pause();
    } while (io_serving.load(std::memory_order_relaxed) && !waiter->IsSet() && clock.Now().ns < end);
  }

  // After Stop nobody polls: only the waiter itself can end the wait.
  WaitResult WaitStopped(Waiter* waiter, Time deadline) {
    Time slice = clock.Now() + kStoppedSlice;
    uintptr_t expected = Waiter::kIdle;
    if (waiter->state_.compare_exchange_strong(expected, Waiter::kFollowing)) {
      FutexWait(&waiter->state_, Waiter::kFollowing, std::min(deadline, slice));
      expected = Waiter::kFollowing;
      waiter->state_.compare_exchange_strong(expected, Waiter::kIdle);
    }
    if (waiter->IsSet()) return WaitResult::kDone;
    return clock.Now() >= deadline ? WaitResult::kDeadline : WaitResult::kInterrupted;
  }

  // Returns true with the right, or false with the result of the wait.
  bool LeadOrFollow(Waiter* waiter, Time deadline, Time signal_check, bool may_spin, WaitResult* result) {
    if (may_spin) SpinForIoThread(waiter);
    std::unique_lock lock(mu);
    ++polls;
    for (;;) {
      if (stopping) {
        lock.unlock();
        *result = WaitStopped(waiter, deadline);
        return false;
      }
      if (!held) {
        TakeRightLocked();
        return true;
      }
      uintptr_t expected = Waiter::kIdle;
      if (!waiter->state_.compare_exchange_strong(expected, Waiter::kFollowing)) {
        *result = WaitResult::kDone;
        return false;
      }
      Follower me{waiter};
      followers.push_back(&me);
      n_followers.fetch_add(1);
      lock.unlock();
      if (flush_pending.load()) WakePoller();  // what we wait for may hang on what we corked
      int err = FutexWait(&waiter->state_, Waiter::kFollowing, std::min(deadline, signal_check));
      lock.lock();
      if (auto it = std::find(followers.begin(), followers.end(), &me); it != followers.end()) {
        followers.erase(it);
        n_followers.fetch_sub(1);
      }
      expected = Waiter::kFollowing;
      waiter->state_.compare_exchange_strong(expected, Waiter::kIdle);
      if (waiter->IsSet()) {
        *result = WaitResult::kDone;
      } else if (err != 0) {
        *result = err == ETIMEDOUT && deadline <= signal_check ? WaitResult::kDeadline : WaitResult::kInterrupted;
      } else if (me.granted) {
        return true;
      } else {
        continue;
      }
      lock.unlock();
      if (me.granted) Release();
      return false;
    }
  }

  // Whether to poll before sleeping; `expects`: with yields.
  bool MaySpin(bool expects) {
    if (expects && options.expect_spin.count() > 0) return !spin.IsHurt(clock.Now().ns) && spin.ShouldSpin();
    return options.max_spin.count() > 0 && spin.ShouldSpin();
  }

  WaitResult Lead(Waiter* waiter, Time deadline, Time signal_check, bool may_spin) {
    epoll_event events[kMaxEvents];
    bool expects = false;  // in this wait
    Round(nullptr, 0);     // posts and corked sends of the caller
    for (;;) {
      if (waiter->IsSet()) return WaitResult::kDone;
      if (stopping) return WaitResult::kInterrupted;
      int n = 0;
      if (expecting.load(std::memory_order_relaxed) && options.expect_spin.count() > 0) {
        expecting.store(false, std::memory_order_relaxed);
        expects = true;
      }
      if (may_spin && n_posts.load() == 0 && MaySpin(expects)) {
        n = Spin(events, expects ? options.expect_spin : options.max_spin, /*yields=*/expects, [&] { return waiter->IsSet(); });
        if (waiter->IsSet()) {
          if (n > 0) Round(events, n);
          continue;
        }
      }
      if (n == 0) {
        Time now{};
        Time until = std::min(deadline, signal_check);
        if (!until.is_infinite() && (now = clock.Now()) >= until) {
          n = epoll_wait(inner, events, kMaxEvents, 0);
          Round(events, n);
          if (waiter->IsSet()) return WaitResult::kDone;
          return now >= deadline ? WaitResult::kDeadline : WaitResult::kInterrupted;
        }
        if (!self->BeToldOf(waiter)) continue;
        need_wake.store(true);
        bool look_only = n_posts.load() > 0 || stopping;
        n = epoll_wait(inner, events, kMaxEvents, look_only ? 0 : TimeoutMillis(now, until));
        bool interrupted = n < 0 && errno == EINTR;
        need_wake.store(false);
        self->TakeBack(waiter);
        if (interrupted) return waiter->IsSet() ? WaitResult::kDone : WaitResult::kInterrupted;
      }
      Round(events, n);
    }
  }

  // Polls until there is something to do or `limit` has passed; returns the number of events. `yields`: others may run in between. REQUIRES: the right.
  template <typename Done>
  int Spin(epoll_event* events, Duration limit, bool yields, Done done) {
    int64_t end = 0;
    for (;;) {
      int n = epoll_wait(inner, events, kMaxEvents, 0);
      if (n > 0) {
        if (end != 0) spin.Succeeded();  // ready at once says nothing about spinning
        return n;
      }
      if (n_posts.load(std::memory_order_relaxed) > 0 || done() || stopping.load(std::memory_order_relaxed)) {
        spin.Succeeded();
        return 0;
      }
      int64_t now = clock.Now().ns;
      if (end == 0) {
        end = now + limit.count();
      } else if (now >= end) {
        spin.Missed(now);
        return 0;
      }
      if (!yields) {
        Pause();
        continue;
      }
      sched_yield();
      if (const int64_t after = clock.Now().ns; after - now > kSlowYieldNs) {
        spin.Hurt(after, after - now);
        return 0;
      }
    }
  }

  // Runs the callbacks of `n` events, the posts and the flushers. REQUIRES: the right.
  void Round(const epoll_event* events, int n) {
    current = this;
    bool timers_fired = false;
    for (int i = 0; i < n && !stopping; ++i) {
      void* ptr = events[i].data.ptr;
      if (ptr == &event_fd) {
        DrainEvent(event_fd);
      } else if (ptr == &timer_fd) {
        DrainEvent(timer_fd);
        timers_fired = true;
      } else if (auto* watched = static_cast<Watched*>(ptr); !watched->dead) {
        watched->callback(events[i].events);
      }
    }
    if (timers_fired) RunTimers();
    // Bounded: a function that posts itself again must not keep the sockets waiting.
    for (int batch = 0; batch < 4 && n_posts.load() > 0; ++batch) RunPosts();
    flush_pending.store(false);
    for (size_t i = 0; i < flushers.size(); ++i) flushers[i]();
    graveyard.clear();
    current = nullptr;
  }

  void RunPosts() {
    {
      std::lock_guard lock(posts_mu);
      running.swap(posts);
      n_posts.store(0);
    }
    for (Posted& posted : running) {
      if (stopping) break;
      posted.fn();
      posted.fn = nullptr;
    }
    running.clear();
  }

  void RunTimers() {
    int64_t now = clock.Now().ns;
    {
      std::lock_guard lock(timers_mu);
      timer_armed_at = INT64_MAX;
    }
    while (!stopping) {
      std::function<void()> fn;
      {
        std::lock_guard lock(timers_mu);
        auto it = timers.begin();
        if (it == timers.end()) return;
        if (it->first.first > now) {
          ArmTimerFdLocked(it->first.first);
          return;
        }
        fn = std::move(it->second);
        timer_due.erase(it->first.second);
        timers.erase(it);
      }
      fn();
    }
  }

  // timer_fd may fire early (its timer was cancelled), never late.
  void ArmTimerFdLocked(int64_t due) {
    if (due >= timer_armed_at) return;
    timer_armed_at = due;
    itimerspec spec{};
    spec.it_value = {due / 1'000'000'000, std::max<long>(due % 1'000'000'000, 1)};  // all zero would disarm
    RAY_CHECK(timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &spec, nullptr) == 0) << errno;
  }

  // --- the I/O thread ---

  void IoLoop() {
    epoll_event events[kMaxEvents];
    uint64_t polls_seen = 0;
    while (!stopping) {
      bool timed = watching || flush_pending.load();
      if (!timed) {
        io_timed.store(false);
        timed = flush_pending.load();  // RequestFlush raises flush_pending before it reads io_timed
      }
      if (timed) io_timed.store(true);
      Time now = clock.Now();
      epoll_event ready[2];
      int n = epoll_wait(outer, ready, 2, timed ? TimeoutMillis(now, now + options.watch_interval) : -1);
      bool inner_ready = false;
      for (int i = 0; i < n; ++i) {
        if (ready[i].data.fd == io_fd)
          DrainEvent(io_fd);
        else
          inner_ready = true;
      }
      bool timed_out = n == 0;
      {
        std::lock_guard lock(mu);
        if (stopping) break;
        bool polled = polls != polls_seen;
        polls_seen = polls;
        if (held) {
          if (timed_out && watching && !polled) watching = false;  // a leader sleeps: it arms the set when it leaves
          if (inner_ready) {
            SetArmed(false);
            // Woken for nothing: the next request came between the executor's reply and its next look. In such a burst it reads for itself.
            if (executes.load(std::memory_order_relaxed)) watching = true;
          }
          if (timed_out && flush_pending.load()) SignalEvent(event_fd);
          continue;
        }
        if (timed_out && watching && polled && !flush_pending.load()) continue;  // the executor reads for itself
        if (inner_ready && !watching && n_posts.load() == 0 && InFreshUserCode()) {
          SetArmed(false);
          watching = true;
          continue;
        }
        if (timed_out && !polled) watching = false;  // long user code: from now on every frame wakes us
        if (!inner_ready && !timed_out && n_posts.load() == 0) continue;
        held = true;
        io_serving.store(true, std::memory_order_relaxed);
        need_wake.store(false);
      }
      n = epoll_wait(inner, events, kMaxEvents, 0);
      Round(events, n);
      ServeWhileNobodyElseDoes(events);
      Release();
      io_serving.store(false, std::memory_order_relaxed);
    }
    std::lock_guard lock(mu);
    released.notify_all();
  }

  bool InFreshUserCode() const {
    int64_t since = user_code_since.load(std::memory_order_relaxed);
    return since != 0 && clock.Now().ns - since < options.watch_interval.count();
  }

  // In a process whose user threads never wait (raylet, GCS) the I/O thread is the one that polls before sleeping.
  void ServeWhileNobodyElseDoes(epoll_event* events) {
    for (;;) {
      const bool expects = expecting.load(std::memory_order_relaxed) && options.expect_spin.count() > 0;
      if (!expects && options.max_spin.count() == 0) return;
      expecting.store(false, std::memory_order_relaxed);
      {
        std::lock_guard lock(mu);
        if (polls != 0) return;
      }
      if (stopping || !MaySpin(expects)) return;
      int n = Spin(events, expects ? options.expect_spin : options.max_spin, expects,
                   [this] { return n_followers.load(std::memory_order_relaxed) > 0; });
      if (n == 0 && n_posts.load() == 0) return;
      Round(events, n);
    }
  }
};

thread_local const EpollLoop::Impl* EpollLoop::Impl::current = nullptr;

void Waiter::Notify() {
  uintptr_t old = state_.exchange(kSet, std::memory_order_acq_rel);
  if (old == kFollowing) {
    FutexWake(&state_);  // only the address is used: fine even if the waiter is gone
  } else if (old > kFollowing) {
    reinterpret_cast<UserLoop*>(old)->OnSet();
  }
}

Result<std::unique_ptr<EpollLoop>> EpollLoop::Make(LoopOptions options) {
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  impl->inner = epoll_create1(EPOLL_CLOEXEC);
  impl->outer = epoll_create1(EPOLL_CLOEXEC);
  impl->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  impl->io_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  impl->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (impl->inner < 0 || impl->outer < 0 || impl->event_fd < 0 || impl->io_fd < 0 || impl->timer_fd < 0) {
    return Status::FromErrno(errno, "creating the event loop's descriptors");
  }
  auto add = [](int set, int fd, epoll_data_t data) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data = data;
    return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0;
  };
  Impl& m = *impl;
  if (!add(m.inner, m.event_fd, {.ptr = &m.event_fd}) || !add(m.inner, m.timer_fd, {.ptr = &m.timer_fd}) ||
      !add(m.outer, m.io_fd, {.fd = m.io_fd}) || !add(m.outer, m.inner, {.fd = m.inner})) {
    return Status::FromErrno(errno, "filling the event loop's sets");
  }
  m.armed = true;
  return std::unique_ptr<EpollLoop>(new EpollLoop(std::move(impl)));
}

EpollLoop::EpollLoop(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) { impl_->self = this; }

EpollLoop::~EpollLoop() {
  Impl& m = *impl_;
  {
    std::lock_guard lock(m.mu);
    RAY_CHECK(!m.held && m.followers.empty()) << "an event loop destroyed in use";
    RAY_CHECK(!m.thread.joinable() || m.stopping) << "an event loop destroyed without Stop";
    m.stopping = true;
  }
  if (m.thread.joinable()) m.thread.join();  // Stop was called on the loop
  // What is dropped may drop more by posting from destructors; the descriptors are still ours.
  for (;;) {
    std::vector<Posted> posts;
    decltype(m.timers) timers;
    decltype(m.fds) fds;
    {
      std::lock_guard lock(m.posts_mu);
      posts.swap(m.posts);
    }
    {
      std::lock_guard lock(m.timers_mu);
      timers.swap(m.timers);
    }
    {
      std::lock_guard lock(m.fds_mu);
      fds.swap(m.fds);
    }
    if (posts.empty() && timers.empty() && fds.empty()) break;
  }
  m.flushers.clear();
}

Status EpollLoop::Start() {
  ScopedBlockSignals block;  // the new thread inherits it
  impl_->thread = std::thread([this] {
    pthread_setname_np(pthread_self(), impl_->options.name.substr(0, 15).c_str());
    impl_->IoLoop();
  });
  return Status::Ok();
}

void EpollLoop::Run() { impl_->IoLoop(); }

void EpollLoop::Stop() {
  Impl& m = *impl_;
  {
    std::lock_guard lock(m.mu);
    m.stopping = true;
    for (Impl::Follower* follower : m.followers) {
      uintptr_t expected = Waiter::kFollowing;
      if (follower->waiter->state_.compare_exchange_strong(expected, Waiter::kIdle)) FutexWake(&follower->waiter->state_);
    }
  }
  SignalEvent(m.event_fd);
  SignalEvent(m.io_fd);
  if (InLoop()) return;
  {
    std::lock_guard lock(m.join_mu);
    if (m.thread.joinable()) m.thread.join();
  }
  std::unique_lock lock(m.mu);
  m.released.wait(lock, [&] { return !m.held; });
}

void EpollLoop::OnSet() { SignalEvent(impl_->event_fd); }

void EpollLoop::Post(const char* name, std::function<void()> fn) {
  Impl& m = *impl_;
  {
    std::lock_guard lock(m.posts_mu);
    m.posts.push_back({name, std::move(fn)});
    m.n_posts.fetch_add(1);
  }
  // Whoever is on the loop looks at the posts again before it sleeps or leaves.
  if (m.need_wake.load() && m.need_wake.exchange(false)) m.WakePoller();
}

TimerId EpollLoop::AddTimer(Duration delay, std::function<void()> fn) {
  Impl& m = *impl_;
  int64_t due = (m.clock.Now() + std::max(delay, Duration::zero())).ns;
  std::lock_guard lock(m.timers_mu);
  TimerId id = m.next_timer++;
  m.timers.emplace(std::pair(due, id), std::move(fn));
  m.timer_due.emplace(id, due);
  m.ArmTimerFdLocked(due);
  return id;
}

void EpollLoop::CancelTimer(TimerId id) {
  Impl& m = *impl_;
  std::function<void()> dropped;  // destroyed without the lock
  std::lock_guard lock(m.timers_mu);
  auto due = m.timer_due.find(id);
  if (due == m.timer_due.end()) return;
  auto it = m.timers.find({due->second, id});
  dropped = std::move(it->second);
  m.timers.erase(it);
  m.timer_due.erase(due);
}

const Clock& EpollLoop::clock() const { return impl_->clock; }

bool EpollLoop::InLoop() const { return Impl::current == impl_.get(); }

void EpollLoop::ExpectSoon() { impl_->expecting.store(true, std::memory_order_relaxed); }

Status EpollLoop::WatchFd(int fd, uint32_t events, FdCallback callback) {
  Impl& m = *impl_;
  auto watched = std::make_unique<Watched>(Watched{fd, std::move(callback)});
  epoll_event event{};
  event.events = events;
  event.data.ptr = watched.get();
  std::lock_guard lock(m.fds_mu);
  if (m.fds.contains(fd)) return Status::AlreadyExists("the descriptor is watched");
  if (epoll_ctl(m.inner, EPOLL_CTL_ADD, fd, &event) != 0) return Status::FromErrno(errno, "watching a descriptor");
  m.fds.emplace(fd, std::move(watched));
  return Status::Ok();
}

Status EpollLoop::ModifyFd(int fd, uint32_t events) {
  Impl& m = *impl_;
  std::lock_guard lock(m.fds_mu);
  auto it = m.fds.find(fd);
  if (it == m.fds.end()) return Status::NotFound("the descriptor is not watched");
  epoll_event event{};
  event.events = events;
  event.data.ptr = it->second.get();
  if (epoll_ctl(m.inner, EPOLL_CTL_MOD, fd, &event) != 0) return Status::FromErrno(errno, "watching a descriptor");
  return Status::Ok();
}

void EpollLoop::UnwatchFd(int fd) {
  Impl& m = *impl_;
  std::lock_guard lock(m.fds_mu);
  auto it = m.fds.find(fd);
  if (it == m.fds.end()) return;
  epoll_ctl(m.inner, EPOLL_CTL_DEL, fd, nullptr);
  it->second->dead = true;
  m.graveyard.push_back(std::move(it->second));
  m.fds.erase(it);
}

WaitResult EpollLoop::Wait(Waiter* waiter, Time deadline, bool may_spin) {
  if (waiter->IsSet()) return WaitResult::kDone;
  RAY_CHECK(!InLoop()) << "a wait on the loop would wait for itself";
  Impl& m = *impl_;
  Time signal_check = IsMainThread() ? m.clock.Now() + kSignalCheck : Time::Infinite();
  WaitResult result;
  if (!m.LeadOrFollow(waiter, deadline, signal_check, may_spin, &result)) return result;
  result = m.Lead(waiter, deadline, signal_check, may_spin);
  m.Release();
  return result;
}

void EpollLoop::PollOnce() {
  Impl& m = *impl_;
  {
    std::lock_guard lock(m.mu);
    if (m.held || m.stopping) return;
    ++m.polls;
    m.TakeRightLocked();
    m.hot_leads = kHotLeads;  // its loop comes again; were the set armed, the I/O thread would wake up beside it each time
  }
  epoll_event events[kMaxEvents];
  int n = epoll_wait(m.inner, events, kMaxEvents, 0);
  m.Round(events, n);
  m.Release();
}

int EpollLoop::poll_fd() const { return impl_->inner; }

void EpollLoop::EnterUserCode() {
  impl_->user_code_since.store(impl_->clock.Now().ns, std::memory_order_relaxed);
  if (!impl_->executes.load(std::memory_order_relaxed)) impl_->executes.store(true, std::memory_order_relaxed);
}
void EpollLoop::LeaveUserCode() { impl_->user_code_since.store(0, std::memory_order_relaxed); }

void EpollLoop::AddFlusher(std::function<void()> fn) {
  Post("AddFlusher", [this, fn = std::move(fn)]() mutable { impl_->flushers.push_back(std::move(fn)); });
}

void EpollLoop::RequestFlush() {
  Impl& m = *impl_;
  if (InLoop() || m.flush_pending.exchange(true)) return;
  if (!m.io_timed.load()) SignalEvent(m.io_fd);
}

}  // namespace ray::async
