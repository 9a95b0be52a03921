#include "ray/rpc/grpc/task_engine.h"

#include <grpc/event_engine/event_engine.h>
#include <grpc/grpc.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "ray/util/check.h"
#include "ray/util/signals.h"

namespace ray::rpc {
namespace {

using grpc_event_engine::experimental::EndpointConfig;
using grpc_event_engine::experimental::EventEngine;
using grpc_event_engine::experimental::MemoryAllocator;
using grpc_event_engine::experimental::MemoryAllocatorFactory;
using TimePoint = std::chrono::steady_clock::time_point;

// What the thread works on. It holds a reference of its own, since gRPC may drop the engine in one of the engine's tasks.
struct Tasks {
  std::mutex mu;
  std::condition_variable changed;
  bool stopping = false;
  intptr_t last = 0;
  std::map<std::pair<TimePoint, intptr_t>, absl::AnyInvocable<void()>> queue;  // earliest first, then oldest

  static void Work(const std::shared_ptr<Tasks>& tasks) {
    std::unique_lock lock(tasks->mu);
    while (!tasks->stopping) {
      if (tasks->queue.empty()) {
        tasks->changed.wait(lock);
      } else if (TimePoint due = tasks->queue.begin()->first.first; due > std::chrono::steady_clock::now()) {
        tasks->changed.wait_until(lock, due);
      } else {
        auto task = tasks->queue.extract(tasks->queue.begin());
        lock.unlock();
        task.mapped()();
        task = {};
        lock.lock();
      }
    }
  }
};

// gRPC 1.51 asks its engine for timers and deferred calls only; sockets and names go through its older layer.
class TaskEngine final : public EventEngine {
 public:
  TaskEngine() {
    ScopedBlockSignals block;
    thread_ = std::thread([tasks = tasks_] {
      pthread_setname_np(pthread_self(), "grpc-tasks");
      Tasks::Work(tasks);
    });
  }
  ~TaskEngine() override {
    {
      std::lock_guard lock(tasks_->mu);
      tasks_->stopping = true;
    }
    tasks_->changed.notify_one();
    if (IsWorkerThread()) {
      thread_.detach();
    } else {
      thread_.join();
    }
  }

  bool IsWorkerThread() override { return std::this_thread::get_id() == thread_.get_id(); }
  void Run(Closure* closure) override { RunAfter(Duration::zero(), closure); }
  void Run(absl::AnyInvocable<void()> closure) override { RunAfter(Duration::zero(), std::move(closure)); }
  TaskHandle RunAfter(Duration when, Closure* closure) override {
    return RunAfter(when, absl::AnyInvocable<void()>([closure] { closure->Run(); }));
  }
  TaskHandle RunAfter(Duration when, absl::AnyInvocable<void()> closure) override {
    // gRPC means "never" by very long times, which must not overflow.
    TimePoint due = std::chrono::steady_clock::now() +
                    std::clamp<std::chrono::steady_clock::duration>(when, Duration::zero(), std::chrono::hours(24 * 365));
    bool first;
    intptr_t number;
    {
      std::lock_guard lock(tasks_->mu);
      number = ++tasks_->last;
      auto it = tasks_->queue.emplace(std::make_pair(due, number), std::move(closure)).first;
      first = it == tasks_->queue.begin();
    }
    if (first) tasks_->changed.notify_one();
    return {static_cast<intptr_t>(due.time_since_epoch().count()), number};
  }
  bool Cancel(TaskHandle handle) override {
    decltype(Tasks::queue)::node_type task;  // destroyed without the lock
    std::lock_guard lock(tasks_->mu);
    task = tasks_->queue.extract({TimePoint(TimePoint::duration(handle.keys[0])), handle.keys[1]});
    return !task.empty();
  }

  absl::StatusOr<std::unique_ptr<Listener>> CreateListener(Listener::AcceptCallback, absl::AnyInvocable<void(absl::Status)>,
                                                           const EndpointConfig&, std::unique_ptr<MemoryAllocatorFactory>) override {
    return absl::UnimplementedError("no listeners here");
  }
  ConnectionHandle Connect(OnConnectCallback, const ResolvedAddress&, const EndpointConfig&, MemoryAllocator, Duration) override {
    RAY_CHECK(false) << "no connections here";
    return {};
  }
  bool CancelConnect(ConnectionHandle) override { return false; }
  std::unique_ptr<DNSResolver> GetDNSResolver(const DNSResolver::ResolverOptions&) override { return nullptr; }

 private:
  const std::shared_ptr<Tasks> tasks_ = std::make_shared<Tasks>();
  std::thread thread_;
};

}  // namespace

void UseTaskEngine() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc_event_engine::experimental::SetEventEngineFactory([] { return std::make_unique<TaskEngine>(); });
    // One reference for good: gRPC's own shutdown, with the last one, may poll for ten seconds, and all that it would give back ends with the process.
    grpc_init();
  });
}

}  // namespace ray::rpc
