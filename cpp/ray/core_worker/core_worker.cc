#include "ray/core_worker/core_worker.h"

#include <utility>

#include "ray/core_worker/submit/dependency_resolver.h"
#include "ray/rpc/core/faulty_connection.h"
#include "ray/util/logging.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/pubsub.pb.h"
#include "ray/v1/raylet_worker.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/value_layout.h"
#include "ray/wire/version.h"

namespace ray::core {

// --- life ---

Result<std::unique_ptr<CoreWorker>> CoreWorker::Start(const CoreWorkerConfig& config, std::unique_ptr<Platform> platform) {
  std::unique_ptr<CoreWorker> worker(new CoreWorker(config, std::move(platform)));
  Status status = worker->Connect();
  if (!status.ok()) {
    worker->Shutdown("start failed");
    return status;
  }
  return worker;
}

Status CoreWorker::Connect() {
  info_.session_dir = config_.session_dir;
  info_.job_id = config_.job_id;
  info_.address.worker_id = config_.worker_id;
  dispatcher_ = std::make_shared<rpc::Dispatcher>();
  dispatcher_->RegisterFallback(
      [this](rpc::Request request, rpc::Responder responder) { HoldUntilReady(std::move(request), std::move(responder)); });
  if (!config_.faults.empty()) faults_ = std::make_shared<rpc::FaultInjector>(config_.faults, loop_);
  RAY_RETURN_NOT_OK(platform_->Open(dispatcher_, faults_));
  peers_ = PeerPool::Make([this](const std::string& socket) { return platform_->Connect(socket); }, loop_);
  // Before registering: whoever is told of us may call at once.
  RAY_RETURN_NOT_OK(platform_->Listen(WorkerSocketName(config_.worker_id)));
  auto raylet = platform_->Connect("raylet.sock");
  if (!raylet.ok()) return Status::Unavailable("no raylet answers in " + config_.session_dir + ": " + raylet.status().message());
  peers_->SetRaylet(*raylet);
  if (config_.is_driver && !config_.is_observer) RAY_RETURN_NOT_OK(AddJob(*raylet));
  RAY_RETURN_NOT_OK(Register(*raylet));
  (*raylet)->OnClose([this](const Status& status) { OnRayletClosed(status); });
  return Status::Ok();
}

Status CoreWorker::AddJob(const rpc::ConnectionPtr& raylet) {
  v1::AddJobRequest request;
  v1::JobInfo* job = request.mutable_job();
  job->set_driver_worker_id(config_.worker_id.Binary());
  job->set_driver_pid(platform_->pid());
  job->set_ray_namespace(config_.ray_namespace);
  job->set_entrypoint(config_.entrypoint);
  job->set_config_json(config_.job_config_json);
  job->set_start_time_ms(loop_->clock().WallMillis());
  v1::AddJobReply reply;
  RAY_RETURN_NOT_OK(SyncCall(loop_, raylet, MethodId::kAddJob, request, {}, &reply, std::chrono::seconds(30)));
  RAY_ASSIGN_OR_RETURN(info_.job_id, JobId::FromBinary(reply.job_id()));
  return Status::Ok();
}

Status CoreWorker::Register(const rpc::ConnectionPtr& raylet) {
  v1::RegisterWorkerRequest request;
  request.set_worker_id(config_.worker_id.Binary());
  request.set_job_id(info_.job_id.Binary());
  request.set_is_driver(config_.is_driver);
  request.set_pid(platform_->pid());
  request.set_startup_token(config_.startup_token);
  request.set_protocol_version(std::string(kProtocolVersion));
  request.set_python_version(config_.python_version);
  struct State {
    async::Waiter waiter;
    Status status;
  };
  auto state = std::make_shared<State>();
  // The services are made right in the callback, on the loop: the next frame, from whomever, finds them.
  rpc::CallTyped<v1::RegisterWorkerReply>(*raylet, MethodId::kRegisterWorker, request, {},
                                          [this, state](Status status, v1::RegisterWorkerReply& reply, PartList) {
                                            if (status.ok()) {
                                              info_.address.node_id = NodeId::FromBinaryOrNil(reply.node_id());
                                              info_.node_ip = reply.node_ip();
                                              if (!reply.session_dir().empty()) info_.session_dir = reply.session_dir();
                                              info_.session_name = reply.session_name();
                                              info_.gcs_address = reply.gcs_address();
                                              info_.config_json = reply.config_json();
                                              info_.adopter = NodeId::FromBinaryOrNil(reply.adopter_node_id());
                                              info_.node_leaves = reply.node_leaves();
                                              info_.job_known = reply.job_known();
                                              info_.job_namespace = reply.job_namespace();
                                              info_.job_config_json = reply.job_config_json();
                                              MakeServices();
                                              RegisterHandlers();
                                              ready_ = true;
                                              ServeHeld();
                                            }
                                            state->status = std::move(status);
                                            state->waiter.Notify();
                                          },
                                          {.timeout = std::chrono::seconds(30)});
  while (loop_->Wait(&state->waiter, Time::Infinite()) != async::WaitResult::kDone) {
  }
  return state->status;
}

void CoreWorker::MakeTunnels() {
  rpc::TunnelHub::Deps deps;
  deps.loop = loop_;
  deps.self = info_.address;
  deps.dispatcher = dispatcher_;
  const rpc::ConnectionPtr raylet = peers_->raylet();
  deps.send = [raylet](MethodId method, std::string_view control, const PartList& parts) { raylet->NotifyRaw(method, control, parts); };
  deps.faults = faults_;
  deps.flush = [raylet] { raylet->Flush(); };
  deps.on_peer_gone = [this](const Address& peer) {
    if (!peer.worker_id.IsNil()) peers_->MarkDead(peer.worker_id);
  };
  tunnels_ = rpc::TunnelHub::Make(std::move(deps));
  peers_->SetNode(info_.address.node_id, tunnels_);
}

void CoreWorker::MakeServices() {
  MakeTunnels();
  store_ = platform_->MakeStore(config_.worker_id);
  deaths_ = std::make_unique<DeathNotes>(loop_);
  ObjectService::Deps deps;
  deps.loop = loop_;
  deps.store = store_.get();
  deps.peers = peers_;
  deps.self = info_.address;
  deps.job_id = info_.job_id;
  deps.options.max_inline_bytes = config_.max_inline_bytes;
  deps.handover.adopter = info_.adopter;
  deps.handover.node_leaves = info_.node_leaves;
  deps.current_task = [] { return TaskReceiver::CurrentTask(); };
  if (!config_.is_driver) deps.on_blocked = [this](bool blocked) { receiver_->OnBlocked(blocked); };
  if (config_.is_driver) {
    deps.on_unread_error = [this](BufferPtr blob) { events_.Add({.kind = UserEvent::kUnreadError, .blob = std::move(blob)}); };
  }
  deps.on_handles_gone = [this](const std::vector<ActorId>& created, const std::vector<ActorId>& borrowed) {
    actors_->OnHandlesGone(created, borrowed);
  };
  deps.on_stored = [this](const ObjectId& id) { recovery_->OnStored(id); };
  deps.on_lost = [this](const ObjectId& id) { recovery_->OnLost(id); };
  deps.on_freed = [this](std::span<const ObjectId> ids, std::span<const ObjectId> in_store) { recovery_->OnFreed(ids, in_store); };
  objects_ = ObjectService::Make(std::move(deps));
  peers_->OnNodeDied([this](const NodeId& node) { objects_->OnNodeDied(node); });
  recovery_ = std::make_unique<RecoveryService>(
      RecoveryService::Deps{.objects = objects_.get(),
                            .cap_bytes = config_.lineage_cap_bytes,
                            .run = [this](const PendingTaskPtr& task, int32_t retries_left) { RunAgain(task, retries_left); },
                            .begin_again = [this](const TaskId& task) { return tasks_->BeginAgain(task); }});
  streams_ = std::make_unique<GeneratorStreams>(objects_.get(), [this](const ObjectId& item) { return recovery_->IsAnyHeldBehind(item); });
  TaskManager::RetryNews on_retry;
  if (config_.is_driver) {
    on_retry = [this](std::string text, BufferPtr error) {
      events_.Add({.kind = UserEvent::kMessage, .text = std::move(text), .message_kind = "retry", .blob = std::move(error)});
    };
  }
  tasks_ = std::make_unique<TaskManager>(TaskManager::Deps{.objects = objects_.get(),
                                                           .streams = streams_.get(),
                                                           .recovery = recovery_.get(),
                                                           .clock = &loop_->clock(),
                                                           .oom_retries = config_.oom_retries,
                                                           .on_retry = std::move(on_retry),
                                                           .max_ended_tasks = config_.max_ended_tasks});
  groups_ = std::make_unique<PlacementGroupService>(PlacementGroupService::Deps{.loop = loop_,
                                                                                .peers = peers_.get(),
                                                                                .objects = objects_.get(),
                                                                                .self = info_.address,
                                                                                .job_id = info_.job_id,
                                                                                .gcs_timeout = config_.gcs_timeout});
  std::atomic<uint64_t>* push_numbers = faults_ != nullptr ? &push_numbers_ : nullptr;
  submitter_ = std::make_unique<TaskSubmitter>(TaskSubmitter::Deps{.loop = loop_,
                                                                   .peers = peers_.get(),
                                                                   .tasks = tasks_.get(),
                                                                   .deaths = deaths_.get(),
                                                                   .groups = groups_.get(),
                                                                   .objects = objects_.get(),
                                                                   .self = info_.address,
                                                                   .config = {},
                                                                   .oom_backoff = config_.oom_backoff,
                                                                   .push_numbers = push_numbers});
  groups_->SetHandler([this](const PlacementGroupId& group) { submitter_->OnGroupChanged(group); });
  actor_submitter_ = std::make_unique<ActorSubmitter>(ActorSubmitter::Deps{.loop = loop_,
                                                                           .peers = peers_.get(),
                                                                           .tasks = tasks_.get(),
                                                                           .objects = objects_.get(),
                                                                           .self = info_.address,
                                                                           .push_numbers = push_numbers});
  actors_ = std::make_unique<ActorService>(ActorService::Deps{.loop = loop_,
                                                              .peers = peers_.get(),
                                                              .objects = objects_.get(),
                                                              .submitter = actor_submitter_.get(),
                                                              .tasks = tasks_.get(),
                                                              .self = info_.address,
                                                              .gcs_timeout = config_.gcs_timeout});
  TaskReceiver::Deps receive;
  receive.loop = loop_;
  receive.peers = peers_.get();
  receive.objects = objects_.get();
  receive.self = info_.address;
  receive.pid = platform_->pid();
  receive.exit = [this](int code) { platform_->Exit(code); };
  if (faults_ != nullptr) receive.kept_answers = 10'000;
  receive.cancel_owned = [this](const TaskId& id, bool force, bool recursive) { return CancelOwned(id, force, recursive); };
  receive.cancel_children = [this](const TaskId& parent, bool force) {
    for (const PendingTaskPtr& child : tasks_->ChildrenOf(parent)) CancelOwned(child->spec.task_id, force, true);
  };
  receive.announce_end = [this](const std::string& reason, bool intended) {
    if (auto raylet = peers_->raylet()) {
      v1::AnnounceExitRequest notice;
      notice.set_reason(reason);
      notice.set_intended(intended);
      raylet->Notify(MethodId::kAnnounceExit, notice);
      raylet->Flush();
    }
  };
  receiver_ = std::make_unique<TaskReceiver>(std::move(receive));
  ExplainService::Deps explain;
  explain.loop = loop_;
  explain.peers = peers_.get();
  explain.objects = objects_.get();
  explain.tasks = tasks_.get();
  explain.recovery = recovery_.get();
  explain.submitter = submitter_.get();
  explain.actor_submitter = actor_submitter_.get();
  explain.actors = actors_.get();
  explain.receiver = receiver_.get();
  explain.self = info_.address;
  explain.pid = platform_->pid();
  explain.is_driver = config_.is_driver;
  explain_ = std::make_unique<ExplainService>(explain);
}

void CoreWorker::RegisterHandlers() {
  objects_->RegisterHandlers(dispatcher_.get());
  dispatcher_->RegisterTyped<v1::PublishNotice>(MethodId::kPublish, [this](const v1::PublishNotice& notice, rpc::Request&, rpc::Responder) {
    if (notice.has_actor()) actors_->OnPublish(notice.actor());
    if (notice.has_placement_group()) groups_->OnPublish(notice.placement_group());
  });
  receiver_->RegisterHandlers(dispatcher_.get());
  explain_->RegisterHandlers(dispatcher_.get());
  dispatcher_->RegisterTyped<v1::ReportGeneratorItemRequest>(
      MethodId::kReportGeneratorItem,
      [this](const v1::ReportGeneratorItemRequest& message, rpc::Request& request, rpc::Responder responder) {
        // Streams lose no answers, so nobody asks again: then an item costs nothing more.
        if (faults_ != nullptr && responder.valid() &&
            !item_answers_.Begin(message.task_id() + std::to_string(message.attempt()) + ':' + std::to_string(message.index()), &responder))
          return;
        size_t part = 0;
        TaskId task = TaskId::FromBinaryOrNil(message.task_id());
        const Address executor{message.node_id().empty() ? info_.address.node_id : NodeId::FromBinaryOrNil(message.node_id()),
                               WorkerId::FromBinaryOrNil(message.worker_id())};
        ReturnValue item = ReturnFromProto(message.item(), request.parts, &part, executor);
        item.attempt = message.attempt();
        auto answer = std::make_shared<rpc::Responder>(std::move(responder));
        streams_->Report(task, message.index(), std::move(item), [answer](Pace pace) {
          v1::ReportGeneratorItemReply reply;
          reply.set_stop(pace == Pace::kStop);
          reply.set_again(pace == Pace::kBeginAgain);
          if (answer->valid()) answer->Send(reply);
        });
      });
  dispatcher_->RegisterTyped<v1::WorkerDiedNotice>(
      MethodId::kWorkerDied, [this](const v1::WorkerDiedNotice& notice, rpc::Request&, rpc::Responder) {
        WorkerId worker = WorkerId::FromBinaryOrNil(notice.worker_id());
        if (!notice.detail().empty())
          deaths_->Add(worker, {notice.detail(), notice.out_of_memory(), notice.intended(), notice.with_node()});
        peers_->MarkDead(worker);
      });
  dispatcher_->RegisterTyped<v1::NodeDiedNotice>(MethodId::kNodeDied,
                                                 [this](const v1::NodeDiedNotice& notice, rpc::Request&, rpc::Responder) {
                                                   const NodeId node = NodeId::FromBinaryOrNil(notice.node_id());
                                                   for (const WorkerId& worker : peers_->WorkersOf(node))
                                                     deaths_->Add(worker, {notice.reason(), false, false, true});
                                                   submitter_->OnNodeDied(node);
                                                   peers_->MarkNodeDead(node);
                                                   tunnels_->CloseNode(node, "node " + node.Hex() + " is dead: " + notice.reason());
                                                 });
  dispatcher_->RegisterTyped<v1::TunnelFrames>(MethodId::kTunnel, [this](const v1::TunnelFrames& envelope, rpc::Request& request,
                                                                         rpc::Responder) { tunnels_->OnFrames(envelope, request.parts); });
  dispatcher_->RegisterTyped<v1::TunnelClosed>(
      MethodId::kTunnelClosed, [this](const v1::TunnelClosed& message, rpc::Request&, rpc::Responder) { tunnels_->OnClosed(message); });
  dispatcher_->RegisterTyped<v1::ReclaimLeasesNotice>(MethodId::kReclaimLeases, [this](const v1::ReclaimLeasesNotice& notice, rpc::Request&,
                                                                                       rpc::Responder) { submitter_->Reclaim(notice); });
  dispatcher_->RegisterTyped<v1::LogLinesNotice>(MethodId::kLogLines, [this](const v1::LogLinesNotice& notice, rpc::Request&,
                                                                             rpc::Responder) {
    UserEvent event{
        .kind = UserEvent::kLog, .name = notice.name(), .node_ip = notice.node_ip(), .pid = notice.pid(), .is_stderr = notice.is_stderr()};
    for (const std::string& line : notice.lines()) {
      event.text = line;
      events_.Add(event);
    }
  });
  dispatcher_->RegisterTyped<v1::DriverMessageNotice>(
      MethodId::kDriverMessage, [this](const v1::DriverMessageNotice& notice, rpc::Request&, rpc::Responder) {
        events_.Add({.kind = UserEvent::kMessage, .text = notice.message(), .message_kind = notice.kind()});
      });
}

void CoreWorker::HoldUntilReady(rpc::Request request, rpc::Responder responder) {
  if (ready_) {
    if (responder.valid()) responder.Fail(Status::Unimplemented(std::string(MethodName(request.method)) + " is not served by workers"));
    return;
  }
  Held held{std::move(request), {}, std::move(responder)};
  held.control = std::string(held.request.control);
  held_.push_back(std::move(held));
}

void CoreWorker::ServeHeld() {
  auto held = std::move(held_);
  held_.clear();
  for (Held& h : held) {
    h.request.control = h.control;
    dispatcher_->Dispatch(std::move(h.request), std::move(h.responder));
  }
}

void CoreWorker::OnRayletClosed(const Status& status) {
  if (shut_down_) return;
  if (!config_.is_driver) {
    RAY_LOG(INFO) << "the raylet is gone: " << status.ToString();
    return platform_->Exit(1);
  }
  raylet_lost_ = true;
  RAY_LOG(ERROR) << "the raylet is gone: " << status.ToString();
  streams_->FailAll(ClosedError());
  objects_->Shutdown();
  events_.Add(
      {.kind = UserEvent::kMessage, .text = "The raylet of this node has died; the session cannot go on.", .message_kind = "raylet_died"});
}

ErrorValue CoreWorker::ClosedError() const {
  return MakeErrorValue(ErrorType::kLocalRayletDied, raylet_lost_ ? "The node's raylet has died." : "The session was shut down.");
}

void CoreWorker::Shutdown(const std::string& reason) {
  if (leaving_.exchange(true)) return;
  if (!config_.is_driver && objects_ != nullptr) objects_->HandOverObjects(/*wait_for_tasks=*/true);
  shut_down_ = true;
  const std::optional<v1::LeaveTasksRequest> tasks = explain_ == nullptr ? std::nullopt : explain_->TasksToLeave();  // as they are now
  // Blocked callers leave.
  if (streams_ != nullptr) streams_->FailAll(ClosedError());
  if (objects_ != nullptr) objects_->Shutdown();
  if (receiver_ != nullptr) receiver_->Shutdown();
  if (submitter_ != nullptr) submitter_->Shutdown();
  if (tasks) LeaveTasks(*tasks);
  rpc::ConnectionPtr raylet = peers_ == nullptr ? nullptr : peers_->raylet();
  if (raylet != nullptr && !raylet->closed()) {
    if (config_.is_driver && !info_.job_id.IsNil()) {
      v1::FinishJobRequest request;
      request.set_job_id(info_.job_id.Binary());
      v1::JobEmpty reply;
      Status status = SyncCall(loop_, raylet, MethodId::kFinishJob, request, {}, &reply, std::chrono::seconds(1));
      if (!status.ok()) RAY_LOG(INFO) << "finishing the job: " << status.ToString();
      // To what outlives the job: its own workers end with it.
      if (objects_ != nullptr) objects_->HandOverObjects(/*wait_for_tasks=*/false);
    }
    v1::AnnounceExitRequest notice;
    notice.set_reason(reason);
    notice.set_intended(true);
    raylet->Notify(MethodId::kAnnounceExit, notice);
    raylet->Flush();
  }
  events_.Close();  // not before: ahead of its answer to FinishJob the raylet sends what the workers printed last
  if (store_ != nullptr) store_->Close();
  if (peers_ != nullptr) peers_->Close();
  if (tunnels_ != nullptr) tunnels_->Shutdown();
  platform_->CloseConnections();
  // Connections are taken down on the loop, and their close callbacks after that. Undone they would hold each other for ever.
  SettleLoop();
  SettleLoop();
  platform_->StopLoop();
}

void CoreWorker::LeaveTasks(const v1::LeaveTasksRequest& tasks) {
  if (raylet_lost_) return;
  // A node that goes with this process has nobody who asks it any more.
  rpc::ConnectionPtr keeper = peers_->raylet();
  if (info_.node_leaves) {
    if (info_.adopter.IsNil()) return;
    auto adopter = peers_->GetRaylet(info_.adopter);
    keeper = adopter.ok() ? *adopter : nullptr;
  }
  if (keeper == nullptr || keeper->closed()) return;
  v1::ExplainEmpty reply;
  Status status = SyncCall(loop_, keeper, MethodId::kLeaveTasks, tasks, {}, &reply, std::chrono::seconds(1));
  if (!status.ok()) RAY_LOG(INFO) << "leaving what is known of our tasks: " << status.ToString();
}

void CoreWorker::SettleLoop() {
  if (loop_->InLoop()) return;
  auto done = std::make_shared<async::Waiter>();
  loop_->Post("settle", [done] { done->Notify(); });
  const Time deadline = loop_->clock().Now() + std::chrono::seconds(1);
  while (loop_->Wait(done.get(), deadline) == async::WaitResult::kInterrupted && loop_->clock().Now() < deadline) {
  }
}

CoreWorker::CoreWorker(const CoreWorkerConfig& config, std::unique_ptr<Platform> platform)
    : config_(config), platform_(std::move(platform)), loop_(platform_->loop()) {}

CoreWorker::~CoreWorker() {
  if (!platform_->ended()) {
    Shutdown("destroyed");
    return;
  }
  // Tunnels and what waits on them hold one another.
  if (tunnels_ != nullptr) tunnels_->Drop();
}

void CoreWorker::AnnounceExit(const std::string& reason, bool intended) {
  ActorId actor = own_actor();
  if (!actor.IsNil() && intended) {
    Status status = actors_->AnnounceExiting(actor, config_.worker_id);
    if (!status.ok()) RAY_LOG(WARNING) << "telling the GCS that the actor leaves: " << status.ToString();
  }
  if (auto raylet = peers_->raylet()) {
    v1::AnnounceExitRequest notice;
    notice.set_reason(reason);
    notice.set_intended(intended);
    raylet->Notify(MethodId::kAnnounceExit, notice);
    raylet->Flush();
  }
}

ActorId CoreWorker::own_actor() const {
  MutexLock lock(&mu_);
  return own_actor_;
}

void CoreWorker::SetOwnActor(const ActorId& actor) {
  MutexLock lock(&mu_);
  own_actor_ = actor;
}

// --- tasks ---

uint64_t CoreWorker::RegisterTemplate(TaskTemplate tmpl) {
  tmpl.job_id = info_.job_id;
  MutexLock lock(&mu_);
  return templates_.Acquire(std::move(tmpl));
}

void CoreWorker::ReleaseTemplate(uint64_t handle) {
  MutexLock lock(&mu_);
  templates_.Release(handle);
}

ClassNo CoreWorker::ClassAt(uint64_t handle, const TaskTemplate& tmpl, int64_t depth) {
  const ClassNo cls = submitter_->ClassOf(tmpl, depth);
  MutexLock lock(&mu_);
  templates_.SetClass(handle, cls, depth);
  return cls;
}

TemplateTable::Template CoreWorker::Find(uint64_t handle) const {
  MutexLock lock(&mu_);
  const TemplateTable::Template* found = templates_.Find(handle);
  return found == nullptr ? TemplateTable::Template{} : *found;
}

Result<PendingTaskPtr> CoreWorker::BuildTask(const TaskTemplatePtr& tmpl, const TaskId& id, const ValueView& args,
                                             std::span<const ObjectRefInfo> refs) {
  if (refs.size() > kMaxTaskRefs) {
    return Status::InvalidArgument("a call with " + std::to_string(refs.size()) + " object refs as arguments, more than the " +
                                   std::to_string(kMaxTaskRefs) + " that one can have; pass them in a list");
  }
  auto task = std::make_shared<PendingTask>();
  TaskSpec& spec = task->spec;
  spec.tmpl = tmpl;
  spec.task_id = id;
  spec.owner = info_.address;
  spec.parent_task_id = TaskReceiver::CurrentTask();
  spec.depth = TaskReceiver::CurrentDepth() + 1;
  task->submitted_at = loop_->clock().Now();
  spec.refs.reserve(refs.size());
  task->held.reserve(refs.size() + args.nested.size() + 2);
  for (const ObjectRefInfo& ref : refs) {
    TaskArg arg;
    arg.ref = ref;
    if (arg.ref.owner.IsNil()) arg.ref.owner = info_.address;
    task->held.push_back(ref.id);
    spec.refs.push_back(std::move(arg));
  }
  task->held_refs = task->held.size();
  for (const ObjectRefInfo& ref : args.nested) task->held.push_back(ref.id);
  if (tmpl->num_returns != 0) {
    for (uint32_t i = 0; i < tmpl->NumReturnIds(); ++i) task->return_ids.push_back(ObjectId::ForReturn(id, i));
  }
  if (args.metadata.empty()) return task;
  std::vector<ConstBytes> buffers(args.buffers.begin(), args.buffers.end());
  size_t size = PythonBlobSize(args.data.size(), buffers);
  if (size <= config_.max_inline_bytes) {
    uint8_t* bytes = nullptr;
    spec.args = MakePackedBuffer(size, &bytes);
    WritePythonBlob(args.data, buffers, bytes);
    return task;
  }
  // The hold of the task replaces the handle once it is counted.
  ObjectId stored;
  RAY_RETURN_NOT_OK(objects_->Put(args, &stored));
  spec.args_object = ObjectRefInfo{stored, info_.address};
  task->held.push_back(stored);
  return task;
}

Status CoreWorker::SubmitTask(uint64_t handle, const ValueView& args, std::span<const ObjectRefInfo> refs,
                              std::vector<ObjectId>* return_ids) {
  const TemplateTable::Template t = Find(handle);
  if (t.tmpl == nullptr || t.tmpl->type != TaskType::kNormal) return Status::InvalidArgument("not a template of a task");
  if (shut_down_ || raylet_lost_)
    return Status(StatusCode::kUnavailable, "the session is over", static_cast<int32_t>(ErrorType::kLocalRayletDied));
  RAY_ASSIGN_OR_RETURN(PendingTaskPtr task, BuildTask(t.tmpl, TaskId::Of(info_.job_id, ActorId::Nil()), args, refs));
  task->cls = task->spec.depth == t.depth ? t.cls : ClassAt(handle, *t.tmpl, task->spec.depth);
  tasks_->Add(task);
  if (task->spec.args_object) objects_->RemoveLocalRef(task->spec.args_object->id);
  *return_ids = task->return_ids;
  SubmitReady(task);
  return Status::Ok();
}

void CoreWorker::SubmitReady(const PendingTaskPtr& task) {
  if (task->spec.refs.empty()) {
    submitter_->Submit(task);
    return;
  }
  ResolveArguments(objects_.get(), task, [this, task](const ErrorValue* error) {
    if (error != nullptr) {
      tasks_->Fail(*task, MakeDependencyError(*error, task->spec.tmpl->DisplayName()));
    } else if (tasks_->Find(task->spec.task_id) != nullptr) {  // else it was cancelled meanwhile
      submitter_->Submit(task);
    }
  });
}

void CoreWorker::RunAgain(const PendingTaskPtr& task, int32_t retries_left) {
  if (shut_down_) return;
  tasks_->AddAgain(task, retries_left);
  if (task->spec.tmpl->type == TaskType::kActorTask) {
    actor_submitter_->Resubmit(task->spec.task_id.actor_id(), task);
  } else {
    SubmitReady(task);
  }
}

Status CoreWorker::SubmitActorTask(const ActorId& actor, uint64_t handle, const ValueView& args, std::span<const ObjectRefInfo> refs,
                                   std::vector<ObjectId>* return_ids) {
  const TemplateTable::Template t = Find(handle);
  if (t.tmpl == nullptr || t.tmpl->type != TaskType::kActorTask) return Status::InvalidArgument("not a template of a method");
  if (shut_down_ || raylet_lost_)
    return Status(StatusCode::kUnavailable, "the session is over", static_cast<int32_t>(ErrorType::kLocalRayletDied));
  RAY_ASSIGN_OR_RETURN(PendingTaskPtr task, BuildTask(t.tmpl, TaskId::Of(info_.job_id, actor), args, refs));
  // A call keeps its actor in scope until it is answered.
  task->held.push_back(ObjectId::ForActorHandle(actor));
  *return_ids = task->return_ids;
  Status status = actor_submitter_->Submit(actor, task);
  if (task->spec.args_object) objects_->RemoveLocalRef(task->spec.args_object->id);
  return status;
}

Status CoreWorker::CreateActor(uint64_t handle, ActorCreation creation, const ValueView& args, std::span<const ObjectRefInfo> refs,
                               ActorId* actor) {
  const TemplateTable::Template t = Find(handle);
  if (t.tmpl == nullptr || t.tmpl->type != TaskType::kActorCreation) return Status::InvalidArgument("not a template of an actor");
  *actor = ActorId::Of(info_.job_id);
  creation.actor_id = *actor;
  creation.owner = info_.address;
  RAY_ASSIGN_OR_RETURN(PendingTaskPtr task, BuildTask(t.tmpl, TaskId::ForActorCreation(*actor), args, refs));
  task->return_ids.clear();
  task->spec.creation = std::make_shared<const ActorCreation>(std::move(creation));
  Status status = actors_->Create(task);
  if (task->spec.args_object) objects_->RemoveLocalRef(task->spec.args_object->id);
  return status;
}

void CoreWorker::Cancel(const PendingTaskPtr& task, bool force, bool recursive) {
  if (task->unresolved.load() > 0) {  // nobody else has it
    if (task->spec.tmpl->type == TaskType::kActorTask) {
      actor_submitter_->Cancel(task->spec.task_id.actor_id(), task, recursive);
    } else {
      tasks_->Fail(*task, CancelledError(task->spec.task_id));
    }
  } else if (task->spec.tmpl->type == TaskType::kActorTask) {
    actor_submitter_->Cancel(task->spec.task_id.actor_id(), task, recursive);
  } else {
    submitter_->Cancel(task, force, recursive);
  }
}

bool CoreWorker::CancelOwned(const TaskId& id, bool force, bool recursive) {
  PendingTaskPtr task = tasks_->Cancel(id);
  if (task == nullptr) return false;
  Cancel(task, force && task->spec.tmpl->type == TaskType::kNormal, recursive);
  return true;
}

Status CoreWorker::CancelTask(const ObjectRefInfo& ref, bool force, bool recursive) {
  TaskId id = ref.id.task_id();
  if (PendingTaskPtr task = tasks_->Find(id); task != nullptr && force && task->spec.tmpl->type == TaskType::kActorTask) {
    return Status::InvalidArgument("force=True is not allowed for actor tasks");
  }
  if (CancelOwned(id, force, recursive)) return Status::Ok();
  Address owner = ref.owner.IsNil() ? objects_->OwnerOf(ref.id) : ref.owner;
  if (owner.IsNil() || owner == info_.address) return Status::Ok();  // it is over
  RAY_ASSIGN_OR_RETURN(rpc::ConnectionPtr connection, peers_->Get(owner));
  v1::CancelTaskRequest request;
  request.set_request_id(NewRequestId());
  request.set_task_id(id.Binary());
  request.set_force(force);
  request.set_recursive(recursive);
  connection->Call(MethodId::kCancelTask, request, {}, [](Status, rpc::Reply) {});
  return Status::Ok();
}

}  // namespace ray::core
