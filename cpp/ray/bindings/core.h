// Everything that Cython sees of the C++ core: plain structs and one class. No protobuf, no templates of ours, no callbacks into
// Python: whatever the core wants from Python is fetched by a thread that calls TryNextTask or waits on a CompletionQueue.
//
// Threads: every method may be called by any user thread, without the GIL (those marked [gil-ok] never block and may be called with it).
// Objects, actors and tasks are named by the core's own ids, which are plain bytes; a nil owner means "this process". Other ids are their raw bytes in
// std::string, packed addresses 56 bytes: node id + worker id.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "ray/common/address.h"
#include "ray/common/buffer.h"
#include "ray/util/status.h"

namespace ray::async {
class EpollLoop;
}
namespace ray::core {
class CoreWorker;
struct NextItem;
struct ReceivedTask;
}  // namespace ray::core

namespace ray::bindings {

struct CoreOptions {
  bool is_driver = false;
  bool is_observer = false;     // a driver that has no job: it can look, and run nothing
  std::string session_dir;      // sockets are in <session_dir>/sockets
  std::string worker_id;        // 28 bytes; empty: a fresh one
  uint64_t startup_token = 0;   // forked workers
  std::string job_id;           // workers: 4 bytes. Drivers: empty, AddJob is called with the fields below
  std::string ray_namespace;    // drivers
  std::string entrypoint;       // drivers
  std::string job_config_json;  // drivers
  std::string log_file;         // of the C++ core; empty: stderr
  std::string log_level = "INFO";
  std::string python_version;
  std::string rpc_faults;  // FaultConfig, for tests; empty: none
  uint64_t rpc_faults_seed = 0;
  int64_t max_inline_bytes = 100 << 10;  // blobs up to this stay in the owner's memory
  int64_t lineage_cap_bytes = 1 << 30;
  int64_t oom_retries = -1;  // of tasks whose workers were ended for want of memory; -1: without end
  int64_t oom_backoff_ms = 1000;
  int64_t gcs_timeout_ms = 60'000;  // for each answer of the GCS that a user waits for
  int64_t max_ended_tasks = 10'000;
};

struct CoreInfo {  // constant after Start
  std::string worker_id, node_id, job_id, node_ip, session_dir, session_name, gcs_address, config_json, address /* 56 bytes */;
  bool job_known = false;  // workers: whether the raylet told the next two
  std::string job_namespace, job_config_json;
};

using Ref = ObjectRefInfo;

// A value to write, not copied until it is stored. metadata "RAW": `data` is the blob. "PYTHON": `data` is the pickle and `buffers` its
// out-of-band buffers. A decimal error number: `data` is the blob, or for "3" the pickle.
struct ValueIn {
  std::string metadata;
  const char* data = nullptr;
  size_t size = 0;
  std::vector<std::pair<const char*, size_t>> buffers;
  std::vector<Ref> nested;  // refs and actor-handle refs inside the value
};

// A value as read. PYTHON: `pickle` and `buffers` are windows into `blob`, which every Python buffer made of them must keep alive.
struct ValueOut {
  std::string metadata;
  BufferPtr blob;
  std::pair<const char*, size_t> pickle{nullptr, 0};
  std::vector<std::pair<const char*, size_t>> buffers;
};

// Fields of an ErrorDetail, for making the exception.
struct ErrorFields {
  int32_t error_type = -1;
  std::string message, actor_id, cause /* blob, metadata "3", may be empty */, class_name, actor_name, ray_namespace, owner_address,
      task_id, task_name, node_ip, argument_of;
  bool actor_init_failed = false, never_ran = false, preempted = false;
  int64_t pid = 0;
  double timeout_s = 0;
};
Status ParseError(const ValueOut& value, ErrorFields* out);  // [gil-ok]
Status ParsePythonBlob(ValueOut* value);                     // [gil-ok] fills pickle and buffers from blob

struct TemplateOptions {  // static part of a task or method; see TaskTemplate in types.proto
  int32_t type = 1;       // 1 normal, 2 actor creation, 3 actor task
  std::string function_id, function_name, method_name, name, runtime_env, concurrency_group;
  std::map<std::string, double> resources;
  int32_t num_returns = 1;  // -1 dynamic, -2 streaming
  int32_t max_retries = 3;
  bool retry_exceptions = false;
  std::string retry_exception_allowlist;
  int32_t max_calls = 0;
  int32_t strategy_kind = 0;  // StrategyKind
  std::string strategy_node_id, strategy_placement_group_id;
  bool strategy_soft = false, strategy_capture_child_tasks = false;
  bool strategy_spill_on_unavailable = false, strategy_fail_on_unavailable = false;
  int32_t strategy_bundle_index = -1;
  std::vector<std::map<std::string, std::string>> strategy_selectors;  // alternatives, in order
  std::map<std::string, std::string> strategy_preferred;
  int32_t priority = 0;
  int64_t generator_backpressure = -1;
  double timeout_s = 0;
  bool out_of_order = false, retry_timeouts = false, omit_task_events = false;
  int32_t objects_per_yield = 0;
  int64_t shared_backpressure = 0;
};

struct ActorOptions {  // see ActorCreation
  std::string name, ray_namespace, class_name, method_table;
  bool detached = false, is_async = false, allow_out_of_order = false;
  int32_t max_restarts = 0, max_task_retries = 0, max_concurrency = 1, max_pending_calls = -1;
  std::vector<std::pair<std::string, int32_t>> concurrency_groups;
  std::map<std::string, double> placement_resources;
};

struct ActorFields {  // an actor as the GCS knows it
  std::string actor_id, class_name, name, ray_namespace, method_table, function_id, job_id, node_id, owner, repr_name;
  std::string node_ip;  // of its process, or of the last one that it had
  int32_t state = 0;    // ActorState
  int64_t pid = 0;
  int32_t num_restarts = 0, max_task_retries = 0, max_pending_calls = -1, max_concurrency = 1;
  bool detached = false, is_async = false, allow_out_of_order = false;
};

// A worker with what it was leased for (ray.util.chaos).
struct ChaosTargetFields {
  std::string lease_id, worker_id, running, actor_id, class_name, actor_name, ray_namespace;
  int64_t pid = 0, held_ms = 0;
  bool actor_alive = false;
};

struct NodeFields {
  std::string node_id, node_name, ip, hostname, raylet_socket, store_socket, death_reason, drain_reason;
  bool alive = false, is_head = false, driver_only = false, draining = false;
  int32_t death_kind = 0;  // DeathKind of gcs_node.proto
  int64_t drain_deadline_ms = 0, start_time_ms = 0, end_time_ms = 0;
  std::map<std::string, double> total, available;
  std::map<std::string, std::string> labels;
  int32_t port = 0;
};

struct ObjectPlace {
  std::vector<std::string> node_ids;
  int64_t size = -1;  // unknown
  bool spilled = false;
};

struct BundleFields {
  std::map<std::string, double> resources;
  std::map<std::string, std::string> label_selector;
  std::string node_id;  // empty: nowhere
};

struct PlacementGroupFields {  // see PlacementGroupInfo
  std::string id, name, ray_namespace, job_id, creator_actor_id, soft_target_node_id, topology_label;
  int32_t strategy = 1;  // PlacementStrategy
  int32_t state = 0;     // PlacementGroupState
  bool detached = false;
  std::vector<BundleFields> bundles;
  int64_t created_at_ms = 0, placed_at_ms = 0, highest_retry_delay_ms = 0;
  uint32_t attempts = 0;
  bool infeasible = false;
};

struct JobFields {
  std::string job_id, ray_namespace, entrypoint, config_json;
  int64_t driver_pid = 0, start_time_ms = 0, end_time_ms = 0;
};

// What one process knows of where something stands; see explain.proto. Addresses are packed; empty: the GCS (or nobody).
struct WaitQuestion {
  std::string address;
  int32_t kind = 0;  // SubjectKind
  std::string id;
  bool of_node = false;
};
struct TaskRowFields {  // v1::TaskRow
  bool owned = false, in_wait = false;
  int32_t type = 0, error_type = 0;
  int64_t submitted_at_ms = 0, started_at_ms = 0, ended_at_ms = 0;
  std::string function_name, parent_task_id, error_message, runtime_env, placement_group_id;
  std::vector<std::map<std::string, std::string>> label_selectors;
};
struct TaskTotalsFields {  // v1::TaskTotals
  uint64_t forgotten_finished = 0, forgotten_failed = 0, left_out = 0;
  uint32_t silent = 0;
};
struct WaitFactFields {
  int32_t kind = 0, state = 0;  // SubjectKind, WaitState
  std::string id, name, detail, node_id, worker_id, owner;
  int64_t age_ms = -1, ahead = -1, pid = 0;
  uint32_t attempt = 0, more = 0;
  std::map<std::string, double> need, available, total;
  std::vector<WaitQuestion> next;
  // Of a reference:
  uint32_t local = 0, submitted = 0, contained = 0, borrowers = 0;
  int64_t size = -1;
  bool owned = false, in_store = false, by_driver = false;
  std::string site;
  bool has_row = false, has_totals = false;
  TaskRowFields row;
  TaskTotalsFields totals;
};
struct WaitAnswer {
  Status status;
  std::vector<WaitFactFields> facts;
};

// What the executor is to do next.
struct TaskIn {
  enum Kind : int32_t { kRun = 1, kCancel = 2 /* async actors: cancel task_id */, kExit = 3 /* leave; exit_reason says why */ };
  int32_t kind = kRun;
  uint64_t token = 0;         // names the run in the calls below
  uint64_t template_key = 0;  // equal for calls of one template; see TemplateOf
  TaskId task_id;
  std::string exit_reason;
  uint32_t attempt = 0;
  bool has_args = false;
  ValueOut args;                     // pickled (args, kwargs)
  std::vector<ValueOut> ref_values;  // values of the top-level refs, in placeholder order
  std::vector<Ref> refs;             // the refs themselves
  uint32_t n_returns = 0;
  bool is_actor_creation = false;
  bool has_instances = false;
  bool unprepared = false;                       // PrepareTask is to be called, which fills in the arguments
  std::shared_ptr<core::ReceivedTask> received;  // the core's own; null for kExit
};

// What few runs are asked for.
struct TaskDetails {
  std::string actor_id, job_id, ray_namespace, caller_address;
  ActorOptions actor;                                                                      // creation only
  std::vector<std::pair<std::string, std::vector<std::pair<int32_t, double>>>> instances;  // "GPU" -> [(index, amount)]
  bool was_restarted = false;
};

struct TaskOut {
  std::vector<ValueIn> returns;  // one per return id (a failed task: one, used for all)
  bool is_application_error = false, is_retryable_error = false, cancelled = false, worker_exiting = false;
  bool more_follows = false;  // see core::TaskResult
  int64_t generator_items = 0;
  std::string repr_name;   // actor creation
  std::string error_text;  // is_application_error: its traceback, for lists of tasks
  uint64_t run_ns = 0;
};

struct Event {  // for the driver's printing thread
  enum Kind : int32_t { kLog = 1, kMessage = 2, kUnreadError = 3 };
  int32_t kind = kLog;
  std::string name, text, node_ip, message_kind;
  int64_t pid = 0;
  bool is_stderr = false;
  ValueOut error;  // kUnreadError: a task's error whose last ref went without anybody having read it
};

// Completions without a thread hop: its descriptor becomes readable (an asyncio loop adds it as a reader). The Core outlives it.
class CompletionQueue {
 public:
  virtual ~CompletionQueue() = default;
  virtual int fd() const = 0;  // [gil-ok]
  // `token`, which nothing else waits for here, comes once the object is ready (or failed). [gil-ok]
  virtual void WatchObject(const Ref& ref, uint64_t token) = 0;
  virtual void WatchGenerator(const ObjectId& generator_id, uint64_t token) = 0;  // [gil-ok] once the next item (or the end) is known
  virtual void Unwatch(uint64_t token) = 0;                         // [gil-ok] what waits for it is forgotten; it may have come
  virtual std::vector<uint64_t> Drain() = 0;                        // [gil-ok] tokens ready; clears the descriptor
  virtual std::vector<uint64_t> WaitDrain(int64_t timeout_ms) = 0;  // blocks; empty at the timeout or after Close
  virtual void Close() = 0;                                         // [gil-ok] what waits is forgotten
};

enum class GetStatus : int32_t { kReady = 0, kTimeout = 1, kInterrupted = 2 /* run signal handlers, call again */ };

// See ray/util/process_title.h. [gil-ok]
bool PrepareProcessTitle();
void SetProcessTitle(const char* title, size_t size);

class Core {
 public:
  // Connects to the raylet of session_dir, registers, and for drivers adds the job. UNAVAILABLE when nobody answers.
  static Status Start(const CoreOptions& options, std::unique_ptr<Core>* out);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  // Leaves in good order: drivers finish the job; blocked callers get CANCELLED. Idempotent.
  void Shutdown(const std::string& reason);
  const CoreInfo& info() const { return info_; }

  // --- objects
  Status Put(const ValueIn& value, ObjectId* object_id);
  // Owned values of ≤ max_inline_bytes never block. out[i].metadata is empty where not ready. timeout_ms -1: none.
  GetStatus Get(const std::vector<Ref>& refs, int64_t timeout_ms, std::vector<ValueOut>* out);
  bool TryGet(const Ref& ref, ValueOut* out);  // [gil-ok] value ready in this process (memory or a mapped object)
  bool IsReady(const ObjectId& object_id);     // [gil-ok] what Wait would count as ready, known without asking anybody
  // ready[i] set for at most num_returns, the first ones in order. kTimeout when fewer are ready.
  GetStatus Wait(const std::vector<Ref>& refs, int32_t num_returns, int64_t timeout_ms, bool fetch_local, std::vector<bool>* ready);
  // [gil-ok] Fails where the process has no descriptor left.
  Status NewCompletionQueue(std::unique_ptr<CompletionQueue>* out);
  // For an event loop that waits for completions: the descriptor is readable while there is something to read for this process, Poll reads it.
  int PollFd();                                 // [gil-ok]
  void Poll();                                  // [gil-ok]
  void AddLocalRef(const ObjectId& object_id);  // [gil-ok] another Python handle to a known ref
  // A ref that came inside a value (or out of band: `outer_id` nil, then it is registered at once). [gil-ok]
  void AddBorrowedRef(const Ref& ref, const ObjectId& outer_id, uint64_t task_token);
  void RemoveLocalRef(const ObjectId& object_id);  // [gil-ok]
  Address OwnerOf(const ObjectId& object_id);      // [gil-ok] nil: unknown here
  // Of each object, in turn. `only_known`: what this process knows, without the owners.
  Status GetLocations(const std::vector<Ref>& refs, int64_t timeout_ms, bool only_known, std::vector<ObjectPlace>* out);
  void NoteCreationSite(const ObjectId& id, const std::string& site);  // [gil-ok]
  // Asks each what it knows, all at once; one answer for each question.
  void Explain(const std::vector<WaitQuestion>& questions, int64_t timeout_ms, std::vector<WaitAnswer>* out);

  // --- tasks and actors
  Status RegisterTemplate(const TemplateOptions& options, uint64_t* handle);  // [gil-ok] equal options, one handle
  // Once for each RegisterTemplate, after its last use. Also after Shutdown. [gil-ok]
  void ReleaseTemplate(uint64_t handle);
  // `args` has metadata "" when there are none; refs: top-level refs in placeholder order; args.nested: refs inside.
  Status SubmitTask(uint64_t handle, const ValueIn& args, const std::vector<Ref>& refs, std::vector<ObjectId>* return_ids);
  // `methods` maps nothing: templates of methods are registered apart. A taken name: ALREADY_EXISTS. [blocks if named]
  Status CreateActor(uint64_t handle, const ActorOptions& options, const ValueIn& args, const std::vector<Ref>& refs,
                     std::string* actor_id);
  // RESOURCE_EXHAUSTED beyond max_pending_calls.
  Status SubmitActorTask(const ActorId& actor_id, uint64_t handle, const ValueIn& args, const std::vector<Ref>& refs,
                         std::vector<ObjectId>* return_ids);
  // Before a handle that came from elsewhere is used. `owner` = its creator (counts as a borrowed ref of ObjectId::ForActorHandle, which the
  // caller adds with AddBorrowedRef unless the handle is weak). [gil-ok]
  void RegisterActorHandle(const std::string& actor_id, const std::string& owner, const ActorOptions& options);
  Status KillActor(const std::string& actor_id, bool no_restart);
  Status CancelTask(const Ref& ref, bool force, bool recursive);
  Status GetNamedActor(const std::string& name, const std::string& ray_namespace, ActorFields* out);
  Status ListActors(bool named_only, bool all_namespaces, const std::string& ray_namespace, std::vector<ActorFields>* out);

  // --- placement groups
  // Of `group`, what its creator decides. A taken name: ALREADY_EXISTS. [blocks if named]
  Status CreatePlacementGroup(const PlacementGroupFields& group, std::string* id);
  void RemovePlacementGroup(const std::string& id);  // [gil-ok]
  // kReady: *placed tells whether it is placed, or gone.
  GetStatus WaitPlacementGroup(const std::string& id, int64_t timeout_ms, bool* placed);
  // An object that becomes `value` once the group is placed.
  Status PlacementGroupReady(const std::string& id, const ValueIn& value, ObjectId* object_id);
  // By id, or by name where it is empty. NOT_FOUND.
  Status GetPlacementGroup(const std::string& id, const std::string& name, const std::string& ray_namespace, PlacementGroupFields* out);
  Status ListPlacementGroups(std::vector<PlacementGroupFields>* out);

  // --- streaming generators, consumer side
  // The next item's ref: kReady with *object_id set; nil *object_id = end of stream. kTimeout.
  GetStatus NextGeneratorItem(const ObjectId& generator_id, int64_t timeout_ms, ObjectId* object_id);
  void ReleaseGenerator(const ObjectId& generator_id);  // [gil-ok] unconsumed items go; the producer is told to stop

  // --- executor side (workers)
  // Blocks, serving sockets meanwhile, until there may be something to do. False: nothing came in timeout_ms (-1: none) or a signal arrived.
  bool WaitForTask(int64_t timeout_ms);
  // The next thing to do, if there is one. `out` is fresh. [gil-ok] never blocks
  bool TryNextTask(TaskIn* out);
  // For one that is `unprepared`. False: an argument failed and the run is over.
  bool PrepareTask(TaskIn* out);
  // WaitForTask also ends (false) when something happens at `fd`, which stays open until the end. Edge-triggered. [gil-ok]
  Status AlsoWaitFor(int fd);
  bool TakeFdEvent();  // [gil-ok] something happened there since the last call
  // [gil-ok]
  void DetailsOf(const TaskIn& task, TaskDetails* out);
  // The static part of a run, for the first with its template_key. False: the run has ended. [gil-ok]
  bool TemplateOf(uint64_t token, TemplateOptions* out);
  // Sends the result. Large returns are written to the store (may block on memory). Must be called once per run.
  Status FinishTask(const TaskIn& task, const TaskOut& out);
  // One more item of a streaming task; blocks while the consumer is behind. *stop: nobody consumes any more.
  Status ReportGeneratorItem(uint64_t token, int64_t index, const ValueIn& value, bool* stop);
  bool IsCancelled(const TaskIn& task);  // [gil-ok] or out of time
  // Which thread to interrupt with SIGINT when the running normal task is cancelled: the calling one.
  void SetInterruptThread();
  void AnnounceExit(const std::string& reason, bool intended);  // actor exit: also tells the GCS not to restart
  // The calling thread now runs `task` (null: none): parent of what it submits. [gil-ok]
  void SetCurrentTask(const TaskIn* task);

  // --- GCS
  Status KvGet(const std::string& ns, const std::string& key, bool* found, std::string* value);
  // `of_job`: the key goes with the last job that has put it.
  Status KvPut(const std::string& ns, const std::string& key, const std::string& value, bool overwrite, bool of_job, bool* added);
  Status KvDel(const std::string& ns, const std::string& key, bool by_prefix, int64_t* deleted);
  Status KvExists(const std::string& ns, const std::string& key, bool* exists);
  Status KvKeys(const std::string& ns, const std::string& prefix, std::vector<std::string>* keys);
  Status ListNodes(std::vector<NodeFields>* out);
  Status ListJobs(std::vector<JobFields>* out);
  Status NodeStats(const std::string& node_id, int64_t timeout_ms, std::string* json);  // "": of this node, and without a time-out

  // --- faults on purpose: calls to the raylet of a node
  Status ListChaosTargets(const std::string& node_id, std::vector<ChaosTargetFields>* out);  // of this job
  Status KillLeasedWorker(const std::string& node_id, const std::string& lease_id, const std::string& running, const std::string& reason,
                          bool* killed);
  Status KillNode(const std::string& node_id, const std::string& reason);  // OK: it was told; it does not answer

  // --- events for the driver's printing thread
  bool NextEvent(int64_t timeout_ms, Event* out);  // blocks; false at the timeout or after Shutdown
 private:
  Core(std::unique_ptr<core::CoreWorker> worker, async::EpollLoop* loop, const CoreOptions& options);
  std::string Namespace(const std::string& given);
  void Fill(core::NextItem* item, TaskIn* out);  // `out` is fresh

  const std::unique_ptr<core::CoreWorker> worker_;
  async::EpollLoop* const loop_;  // the worker's
  std::mutex mu_;
  std::string namespace_;                   // guarded by mu_; workers: of the first task
  std::atomic<bool> has_namespace_{false};  // workers: it is set and stays
  CoreInfo info_;
};

}  // namespace ray::bindings
