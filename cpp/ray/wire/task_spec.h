// TaskSpec: one task as its owner, the wire and its executor see it, and the interning of what repeats.
//
// The static part of a task (function, options, resources) is a TaskTemplate; it travels once per connection, later frames name it by a number.
// TemplateSender and TemplateReceiver are the two ends of one connection. Plain values; the two ends are not thread-safe: the sender's caller holds a
// lock over Encode and the sending of the frame (a definition must leave before its uses), the receiver runs on the loop.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ray/common/address.h"
#include "ray/common/buffer.h"
#include "ray/common/ids.h"
#include "ray/common/resources.h"
#include "ray/util/status.h"

namespace ray {

namespace v1 {
class TaskSpec;
class TaskTemplate;
class ActorCreation;
class SchedulingStrategy;
}  // namespace v1

enum class TaskType : int32_t { kNormal = 1, kActorCreation = 2, kActorTask = 3 };

// Fields as in types.proto.
struct SchedulingStrategy {
  using Labels = std::map<std::string, std::string>;
  enum Kind : int32_t { kDefault = 0, kSpread = 1, kNodeAffinity = 2, kPlacementGroup = 3, kNodeLabel = 4 };  // v1::StrategyKind
  int32_t kind = kDefault;
  NodeId node_id;
  bool soft = false, spill_on_unavailable = false, fail_on_unavailable = false;
  PlacementGroupId placement_group_id;
  int32_t bundle_index = -1;
  bool capture_child_tasks = false;
  std::vector<Labels> selectors;
  Labels preferred;
  int32_t priority = 0;
  // Equal for equal strategies.
  std::string Key() const;
};

inline constexpr size_t kMaxTaskRefs = 500'000;  // among the arguments of one task
inline constexpr int32_t kDynamicReturns = -1;
inline constexpr int32_t kStreamingReturns = -2;

// Fields as in types.proto. Immutable once shared.
struct TaskTemplate {
  uint64_t key = 0;  // names equal templates within this process; not sent
  TaskType type = TaskType::kNormal;
  JobId job_id;
  std::string function_id, function_name, method_name, name;
  ResourceSet resources;
  int32_t num_returns = 1;
  int32_t max_retries = 0;
  bool retry_exceptions = false;
  std::string retry_exception_allowlist;
  int32_t max_calls = 0;
  std::string runtime_env;
  ActorId actor_id;
  std::string concurrency_group;
  SchedulingStrategy strategy;
  int64_t generator_backpressure = -1;
  std::string ray_namespace;
  double timeout_s = 0;
  bool out_of_order = false;
  bool retry_timeouts = false;
  bool omit_task_events = false;
  int32_t objects_per_yield = 0;
  int64_t shared_backpressure = 0;

  const std::string& DisplayName() const { return name.empty() ? function_name : name; }
  // Objects that one call gives before it runs: dynamic and streaming tasks have one, the generator's.
  uint32_t NumReturnIds() const { return num_returns < 0 ? 1 : static_cast<uint32_t>(num_returns); }
};
using TaskTemplatePtr = std::shared_ptr<const TaskTemplate>;

// What only an actor's creation needs; fields as in types.proto.
struct ActorCreation {
  ActorId actor_id;
  std::string name, ray_namespace;
  bool detached = false;
  int32_t max_restarts = 0, max_task_retries = 0, max_concurrency = 1;
  bool is_async = false, allow_out_of_order = false;
  std::vector<std::pair<std::string, int32_t>> concurrency_groups;
  ResourceSet placement_resources;
  std::string class_name, method_table;
  Address owner;
  int32_t max_pending_calls = -1;
};

struct TaskArg {
  ObjectRefInfo ref;
  std::string metadata;  // inlined
  BufferPtr value;       // not null: inlined
  std::vector<ObjectRefInfo> nested;
  bool in_store = false;
};

struct TaskSpec {
  TaskTemplatePtr tmpl;
  TaskId task_id;
  Address owner;
  uint32_t attempt = 0;
  uint64_t sequence = 0, epoch = 0;
  std::vector<TaskArg> refs;
  std::vector<ObjectRefInfo> nested;
  BufferPtr args;  // pickled arguments in the PYTHON layout; null: none, or args_object
  std::optional<ObjectRefInfo> args_object;
  TaskId parent_task_id;
  std::shared_ptr<const ActorCreation> creation;
  int64_t depth = 0;
};

void ToProto(const SchedulingStrategy& strategy, v1::SchedulingStrategy* out);
SchedulingStrategy FromProto(const v1::SchedulingStrategy& message);
void ToProto(const ActorCreation& creation, v1::ActorCreation* out);
ActorCreation FromProto(const v1::ActorCreation& message);

// How many values may travel with a task or with its reply, so that with kMaxTaskRefs the frame stays below what every carrier takes: one that cannot be
// sent would leave a gap in the numbers of an actor's calls, and a template untold. Further values go the way of large ones.
class InlineBudget {
 public:
  // No further value is to travel.
  bool spent() const { return values_ >= 50'000 || bytes_ >= size_t{128} << 20; }
  // One more value does, with so many refs inside.
  void Add(size_t bytes, size_t nested) {
    ++values_;
    bytes_ += bytes + nested * kBytesOfRef;
  }

 private:
  static constexpr size_t kBytesOfRef = 128;  // at most, in the control part
  size_t values_ = 0, bytes_ = 0;
};

// Equal for templates that say the same, whatever their keys.
std::string ContentOf(const TaskTemplate& tmpl);

// Everything, self-contained (template_id 0); payload parts are appended to `parts`.
void EncodeWhole(const TaskSpec& spec, v1::TaskSpec* out, PartList* parts);

class TemplateSender {
 public:
  // At most so many templates are known at the other side; a further one takes the number of the one that was told first.
  explicit TemplateSender(uint32_t max_known = 1024) : max_known_(max_known) {}
  // Overwrites `out`, whose memory may be reused from call to call.
  void Encode(const TaskSpec& spec, v1::TaskSpec* out, PartList* parts);

 private:
  const uint32_t max_known_;
  std::unordered_map<uint64_t, uint32_t> ids_;  // template key -> number on this connection
  std::deque<uint64_t> told_;                   // keys, the first to be told first
};

class TemplateReceiver {
 public:
  // INVALID_ARGUMENT for a number that was never defined, a wrong id, or parts that do not fit.
  Result<TaskSpec> Decode(const v1::TaskSpec& message, PartList parts);

 private:
  struct Known {
    TaskTemplatePtr tmpl;
    Address owner;
  };
  std::unordered_map<uint32_t, Known> known_;
};

}  // namespace ray
