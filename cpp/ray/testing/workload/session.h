// Session: what user code in a simulated process has of the product: counted refs, values that may contain refs, tasks and actors. It stands where the Python
// layer does, over the product's CoreWorker, and keeps to the same rules: a ref that is read from a value is borrowed, from the value that it was in or from the
// arguments of the task that reads it.
//
// On user threads (testing/sim/user_thread.h) only. Refs must be gone before their session.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ray/core_worker/core_worker.h"
#include "ray/testing/sim/process.h"

namespace ray::sim {

// The share of waits in the simulated processes that a signal interrupts: user code goes on with them, as Python does when its handlers have run.
inline constexpr double kSignals = 0.02;
// The largest value that travels inline, instead of the product's 100 KiB, and the largest of those that do not, so that large objects cost a simulation little.
inline constexpr size_t kMaxInline = 1 << 10, kMaxLarge = 24 << 10;
inline constexpr double kLarge = 0.2;  // their share

// A counted handle of an object, or of an actor.
class Ref {
 public:
  Ref() = default;
  // Takes over a count that there is.
  Ref(core::CoreWorker* worker, ObjectRefInfo info) : worker_(worker), info_(info) {}
  Ref(const Ref& other) : worker_(other.worker_), info_(other.info_) {
    if (worker_ != nullptr) worker_->objects().AddLocalRef(info_.id);
  }
  Ref(Ref&& other) noexcept : worker_(std::exchange(other.worker_, nullptr)), info_(other.info_) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(worker_, other.worker_);
    std::swap(info_, other.info_);
    return *this;
  }
  ~Ref() {
    if (worker_ != nullptr) worker_->objects().RemoveLocalRef(info_.id);
  }
  const ObjectRefInfo& info() const { return info_; }
  const ObjectId& id() const { return info_.id; }
  bool valid() const { return worker_ != nullptr; }

 private:
  core::CoreWorker* worker_ = nullptr;
  ObjectRefInfo info_;
};

struct Value {
  std::string text;
  std::vector<Ref> refs;
};

struct Got {
  enum Kind { kValue, kError, kTimeout };
  Kind kind = kTimeout;
  Value value;                               // kValue
  ErrorType error = ErrorType::kWorkerDied;  // kError
  std::string message;
  bool large = false;  // it went through the store
  bool ok() const { return kind == kValue; }
};

// The raylet of the node has gone, or the session was closed: user code ends.
struct SessionOver {};

struct TaskOptions {
  int32_t max_retries = 3;
  bool retry_exceptions = false;
  int64_t cpus = 1;  // whole ones
  bool spread = false;
  PlacementGroupId group;  // not nil: in a bundle of it, of which it needs one kSlot, and no CPU
  int32_t bundle = -1;     // any
  bool capture = false;    // what it submits goes into the group as well
};

// What bundles of simulated placement groups are made of, so that groups which stay leave the CPUs to others.
inline constexpr char kSlot[] = "slot";

struct ActorOptions {
  int32_t max_restarts = 0, max_task_retries = 0;
  PlacementGroupId group;  // as of tasks; else it needs no resources
  int32_t bundle = -1;
  std::string name;
  bool detached = false;
};

struct ActorHandle {
  ActorId id;
  Ref ref;
};

class Session {
 public:
  Session(core::CoreWorker* worker, Process* process) : worker_(worker), process_(process) {}
  Process* process() const { return process_; }
  core::CoreWorker* worker() const { return worker_; }
  // By the clock of the World: for histories.
  Time now() const { return process_->world()->now(); }
  Random& random() { return process_->world()->random(); }
  void Sleep(Duration duration) { process_->loop()->Sleep(duration); }

  Ref Put(const Value& value);
  Ref Call(const std::string& function, const Value& args, std::span<const Ref> refs = {}, TaskOptions options = {});
  ActorHandle Create(const std::string& cls, const Value& args, const ActorOptions& options);
  // Under the name that the options have. Nothing: it is taken, or the GCS did not answer in time (`*unknown`), and the actor may come to be later.
  std::optional<ActorHandle> CreateNamed(const std::string& cls, const Value& args, const ActorOptions& options, bool* unknown);
  // Which actor has the name, to be called from now on; nothing: none has, or the GCS did not answer in time (`*unknown`).
  std::optional<ActorId> GetNamed(const std::string& name, bool* unknown);
  // A task that yields; `backpressure`: how many items it may be ahead, -1: any number.
  Ref CallStream(const std::string& function, const Value& args, TaskOptions options, int64_t backpressure);
  // The next item; an invalid ref: there is none. Throws SessionOver.
  Ref NextItem(const Ref& stream, const std::string& what);
  // No more of it is wanted.
  void ReleaseStream(const Ref& stream) { worker_->streams().Release(stream.id().task_id()); }
  // As ray.wait; empty where too few were ready in time. Throws SessionOver.
  std::vector<bool> Wait(std::span<const Ref> refs, size_t count, Duration timeout);
  // `max_retries`: max_task_retries of the actor.
  Ref CallActor(const ActorId& actor, const std::string& method, const Value& args, std::span<const Ref> refs, int32_t max_retries);
  // Of `bundles`, each of so many kSlot.
  PlacementGroupId CreateGroup(v1::PlacementStrategy strategy, const std::vector<int64_t>& bundles);
  void RemoveGroup(const PlacementGroupId& group) { worker_->placement_groups().Remove(group); }
  // What is known of it when it is placed or gone, or the time is over.
  core::GroupState WaitForGroup(const PlacementGroupId& group, Duration timeout);
  // Becomes `value` once it is placed.
  Ref GroupReady(const PlacementGroupId& group, const Value& value);
  Status Kill(const ActorId& actor, bool no_restart) { return worker_->actors().Kill(actor, no_restart); }
  Status Cancel(const Ref& ref, bool force) { return worker_->CancelTask(ref.info(), force, /*recursive=*/true); }
  // Throws SessionOver. `what`, for people.
  Got Get(const Ref& ref, std::optional<Duration> timeout = {}, const std::string& what = {});

  // Of a value as it was read: `outer` had it inside, or it came with the arguments of the running task `token` (0: none).
  Got Read(const core::ReadValue& value, const ObjectId& outer, uint64_t token);
  // An actor's, from a ref of its handle.
  ActorHandle HandleOf(const Ref& ref);
  // What blocks in Get, for people, with what the process itself can tell of it.
  std::vector<std::string> waiting() const;

 private:
  friend class CodeWorker;
  class Waits;
  // As it is stored: the bytes, and the refs inside.
  struct Packed {
    std::string bytes;
    std::vector<ObjectRefInfo> nested;
    core::ValueView View(std::string_view metadata) const { return {metadata, bytes, {}, nested}; }
  };
  // With `filling`, which makes some so large that they go through the store. Where one is read and has other bytes than were written, the run ends.
  // `run`: of the task, each of which fills in others.
  static Packed Pack(const Value& value, uint32_t filling, uint32_t run = 0);
  Packed Pack(const Value& value) { return Pack(value, FillingOf(random().Next())); }
  // The same number gives the same size: each run of a task makes as much as the last one did.
  static uint32_t FillingOf(uint64_t number);
  static std::vector<ObjectRefInfo> InfosOf(std::span<const Ref> refs);
  uint64_t Template(TaskTemplate tmpl);
  Status TryCreate(const std::string& cls, const Value& args, const ActorOptions& options, ActorId* actor);

  core::CoreWorker* const worker_;
  Process* const process_;
  std::map<std::string, uint64_t> templates_;  // by content
  struct Waiting {
    ObjectId object;
    std::string what;
    Time since;
  };
  std::map<uint64_t, Waiting> waits_;
  uint64_t last_wait_ = 0;
};

}  // namespace ray::sim
