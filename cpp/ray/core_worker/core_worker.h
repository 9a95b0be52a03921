// CoreWorker: one worker or driver of a cluster: facade over its services, and their wiring.
//
// Start connects to the node's raylet and registers; services are made the moment the raylet has told who and where we are. Shutdown undoes it: what others
// hold of ours is handed over (a driver's once its job has ended), blocked callers leave, then connections go, then the loop. The raylet's connection is our life line: without it a worker ends at
// once (nobody would reap it), a driver's blocked calls fail.
// Thread-safe. Methods marked [blocks] must not be called on the loop or with the GIL.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ray/async/loop.h"
#include "ray/core_worker/actors/actor_service.h"
#include "ray/core_worker/execute/task_receiver.h"
#include "ray/core_worker/explain/explain_service.h"
#include "ray/core_worker/lifecycle/platform.h"
#include "ray/core_worker/objects/object_service.h"
#include "ray/core_worker/peers/peer_pool.h"
#include "ray/core_worker/placement_groups/placement_group_service.h"
#include "ray/core_worker/recovery/recovery_service.h"
#include "ray/core_worker/services/event_queue.h"
#include "ray/core_worker/services/sync_call.h"
#include "ray/core_worker/submit/actor_submitter.h"
#include "ray/core_worker/submit/task_submitter.h"
#include "ray/core_worker/submit/template_table.h"
#include "ray/core_worker/tasks/generator_streams.h"
#include "ray/core_worker/tasks/task_manager.h"
#include "ray/rpc/core/answer_log.h"
#include "ray/rpc/core/fault_core.h"

namespace ray::core {

struct CoreWorkerConfig {
  bool is_driver = false;
  bool is_observer = false;  // a driver that has no job: it can look, and run nothing
  std::string session_dir;
  WorkerId worker_id;
  uint64_t startup_token = 0;                              // forked workers
  JobId job_id;                                            // workers; drivers get theirs from AddJob
  std::string ray_namespace, entrypoint, job_config_json;  // drivers
  std::string python_version;
  rpc::FaultConfig faults;  // of what this process sends, for tests; empty: none
  size_t max_inline_bytes = 100 << 10;
  int64_t oom_retries = -1;  // of a task whose worker was ended for want of memory; -1: without end
  Duration oom_backoff = std::chrono::seconds(1);
  Duration gcs_timeout = std::chrono::seconds(60);  // for each answer of the GCS that a user waits for
  size_t max_ended_tasks = 10'000;                  // of ours that have finished, and that have failed, kept for lists of tasks; 0: none
  uint64_t lineage_cap_bytes = uint64_t{1} << 30;   // of tasks that could be run again for what is lost; 0: none is
};

struct CoreWorkerInfo {  // constant after Start
  Address address;
  JobId job_id;
  std::string node_ip, session_dir, session_name, gcs_address, config_json;
  NodeId adopter;            // node whose raylet takes over objects that outlive their owner; nil: none does
  bool node_leaves = false;  // drivers: the node goes with this process
  bool job_known = false;    // workers: whether the raylet told the next two
  std::string job_namespace, job_config_json;
};

class CoreWorker {
 public:
  // [blocks] UNAVAILABLE when no raylet answers there.
  static Result<std::unique_ptr<CoreWorker>> Start(const CoreWorkerConfig& config, std::unique_ptr<Platform> platform);
  ~CoreWorker();
  // [blocks] Idempotent.
  void Shutdown(const std::string& reason);
  const CoreWorkerInfo& info() const { return info_; }
  // Why blocked calls end: the raylet died, or Shutdown. As an error value.
  ErrorValue ClosedError() const;

  // job_id and key are filled in here. The handle is valid until ReleaseTemplate was called once for each RegisterTemplate that gave it.
  uint64_t RegisterTemplate(TaskTemplate tmpl);
  void ReleaseTemplate(uint64_t handle);
  // `args`: the pickle; empty metadata: none. Its nested refs and `refs` must be held by the caller during the call. The returns have one handle each.
  // [blocks] if the arguments go to the store.
  Status SubmitTask(uint64_t handle, const ValueView& args, std::span<const ObjectRefInfo> refs, std::vector<ObjectId>* return_ids);
  Status SubmitActorTask(const ActorId& actor, uint64_t handle, const ValueView& args, std::span<const ObjectRefInfo> refs,
                         std::vector<ObjectId>* return_ids);
  // [blocks] if named. creation.actor_id and owner are filled in here.
  Status CreateActor(uint64_t handle, ActorCreation creation, const ValueView& args, std::span<const ObjectRefInfo> refs, ActorId* actor);
  // The task that makes `ref`. Settled ones are left alone.
  Status CancelTask(const ObjectRefInfo& ref, bool force, bool recursive);
  // [blocks] Tells the raylet, and the GCS if this is an actor, that the process leaves by itself.
  void AnnounceExit(const std::string& reason, bool intended);

  // [blocks] A call to the raylet or, through it, the GCS.
  template <typename ReplyMessage>
  Status CallRaylet(MethodId method, const rpc::MessageLite& request, ReplyMessage* reply) {
    return SyncCall(loop_, peers_->raylet(), method, request, {}, reply, config_.gcs_timeout);
  }
  // [blocks] A call to the raylet of some node. UNAVAILABLE: it is dead.
  template <typename ReplyMessage>
  Status CallRayletOf(const NodeId& node, MethodId method, const rpc::MessageLite& request, ReplyMessage* reply, Duration timeout) {
    RAY_ASSIGN_OR_RETURN(const rpc::ConnectionPtr raylet, peers_->GetRaylet(node));
    return SyncCall(loop_, raylet, method, request, {}, reply, timeout);
  }
  async::UserLoop& loop() { return *loop_; }
  ObjectService& objects() { return *objects_; }
  TaskReceiver& receiver() { return *receiver_; }
  ActorService& actors() { return *actors_; }
  PlacementGroupService& placement_groups() { return *groups_; }
  ExplainService& explain() { return *explain_; }
  GeneratorStreams& streams() { return *streams_; }
  EventQueue& events() { return events_; }
  // Id of the actor that lives here; nil: none (yet).
  ActorId own_actor() const;
  void SetOwnActor(const ActorId& actor);

 private:
  CoreWorker(const CoreWorkerConfig& config, std::unique_ptr<Platform> platform);
  Status Connect();
  Status AddJob(const rpc::ConnectionPtr& raylet);
  Status Register(const rpc::ConnectionPtr& raylet);
  void MakeTunnels();       // on the loop
  void MakeServices();      // on the loop
  void RegisterHandlers();  // on the loop
  void HoldUntilReady(rpc::Request request, rpc::Responder responder);
  void ServeHeld();
  void OnRayletClosed(const Status& status);
  void LeaveTasks(const v1::LeaveTasksRequest& tasks);  // with a raylet that stays
  void SettleLoop();                                    // returns when the loop has run what is posted now
  Result<PendingTaskPtr> BuildTask(const TaskTemplatePtr& tmpl, const TaskId& id, const ValueView& args,
                                   std::span<const ObjectRefInfo> refs);
  void SubmitReady(const PendingTaskPtr& task);  // a normal task, once its arguments are
  void RunAgain(const PendingTaskPtr& task, int32_t retries_left);
  void Cancel(const PendingTaskPtr& task, bool force, bool recursive);
  bool CancelOwned(const TaskId& id, bool force, bool recursive);
  TemplateTable::Template Find(uint64_t handle) const;
  ClassNo ClassAt(uint64_t handle, const TaskTemplate& tmpl, int64_t depth);

  // A request that came before the services were there.
  struct Held {
    rpc::Request request;
    std::string control;
    rpc::Responder responder;
  };

  const CoreWorkerConfig config_;
  rpc::AnswerLog item_answers_{1024};           // to ReportGeneratorItem; with faults only
  std::shared_ptr<rpc::FaultInjector> faults_;  // null: none
  std::atomic<uint64_t> push_numbers_{0};       // with faults only
  CoreWorkerInfo info_;
  EventQueue events_;
  // In the order of construction; destroyed in reverse, after the loop has stopped.
  const std::unique_ptr<Platform> platform_;
  async::UserLoop* const loop_;
  std::shared_ptr<rpc::Dispatcher> dispatcher_;
  std::shared_ptr<rpc::TunnelHub> tunnels_;
  std::shared_ptr<PeerPool> peers_;
  std::unique_ptr<ValueStore> store_;
  std::unique_ptr<DeathNotes> deaths_;
  std::shared_ptr<ObjectService> objects_;
  std::unique_ptr<RecoveryService> recovery_;
  std::unique_ptr<GeneratorStreams> streams_;
  std::unique_ptr<TaskManager> tasks_;
  std::unique_ptr<PlacementGroupService> groups_;
  std::unique_ptr<TaskSubmitter> submitter_;
  std::unique_ptr<ActorSubmitter> actor_submitter_;
  std::unique_ptr<ActorService> actors_;
  std::unique_ptr<TaskReceiver> receiver_;
  std::unique_ptr<ExplainService> explain_;

  bool ready_ = false;      // on the loop: services are made
  std::vector<Held> held_;  // on the loop
  std::atomic<bool> leaving_{false}, shut_down_{false}, raylet_lost_{false};
  mutable Mutex mu_;
  TemplateTable templates_ GUARDED_BY(mu_);
  ActorId own_actor_ GUARDED_BY(mu_);
};

}  // namespace ray::core
