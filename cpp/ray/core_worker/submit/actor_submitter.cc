#include "ray/core_worker/submit/actor_submitter.h"

#include "ray/core_worker/services/sync_call.h"
#include "ray/core_worker/submit/dependency_resolver.h"
#include "ray/util/logging.h"
#include "ray/v1/worker_object.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/wait_fact.h"

namespace ray::core {
namespace {

constexpr Duration kReconnect = std::chrono::milliseconds(100);
constexpr Duration kProbe = std::chrono::seconds(5);
constexpr Duration kLastWords = std::chrono::seconds(1);  // of a process that has gone, until its connection is ended here

int32_t RetriesLeft(const PendingTask& task) {
  int32_t max = task.spec.tmpl->max_retries;
  return max < 0 ? -1 : std::max(0, max - static_cast<int32_t>(task.spec.attempt));
}

}  // namespace

ActorSubmitter::~ActorSubmitter() {
  // A connection that has not been taken down holds the queue that holds it.
  MutexLock lock(&mu_);
  for (const auto& [actor, queue] : queues_) {
    MutexLock queue_lock(&queue->mu);
    queue->channel = nullptr;
  }
}

bool ActorSubmitter::AddActor(const ActorId& actor, ActorPhase phase, int64_t max_pending_calls, const std::string& class_name) {
  MutexLock lock(&mu_);
  QueuePtr& queue = queues_[actor];
  if (queue != nullptr) return false;
  queue = std::make_shared<Queue>(phase, max_pending_calls);
  queue->id = actor;
  queue->class_name = class_name;
  return true;
}

void ActorSubmitter::OnHandlesGone(const ActorId& actor) {
  if (QueuePtr queue = Find(actor)) MaybeForget(queue);
}

void ActorSubmitter::MaybeForget(const QueuePtr& queue) {
  if (deps_.objects->references().Contains(ObjectId::ForActorHandle(queue->id))) return;
  MutexLock lock(&mu_);
  ErrorValue death;
  {
    MutexLock queue_lock(&queue->mu);
    if (queue->core.phase() != ActorPhase::kDead) return;
    death = queue->death;
  }
  auto it = queues_.find(queue->id);
  if (it == queues_.end() || it->second != queue) return;
  queues_.erase(it);
  // Weak handles may be left: what they call fails for the true reason for a while yet.
  if (!deaths_.emplace(queue->id, std::move(death)).second) return;
  forgotten_.push_back(queue->id);
  if (forgotten_.size() <= kDeathsKept) return;
  deaths_.erase(forgotten_.front());
  forgotten_.pop_front();
}

bool ActorSubmitter::Knows(const ActorId& actor) { return Find(actor) != nullptr; }

ActorSubmitter::QueuePtr ActorSubmitter::Find(const ActorId& actor) {
  MutexLock lock(&mu_);
  auto it = queues_.find(actor);
  return it == queues_.end() ? nullptr : it->second;
}

template <typename Event>
void ActorSubmitter::Run(const QueuePtr& queue, Event event) {
  std::vector<Later> later;
  bool connect;
  {
    MutexLock lock(&queue->mu);
    ActorEffects effects;
    event(queue->core, &effects);
    connect = CarryOutLocked(queue, effects, &later);
  }
  if (connect) Connect(queue);
  if (!later.empty()) Settle(queue, later);
}

bool ActorSubmitter::CarryOutLocked(const QueuePtr& queue, const ActorEffects& effects, std::vector<Later>* later) {
  bool connect = false;
  for (const ActorEffect& e : effects) {
    if (e.kind == ActorEffect::kConnect) {
      connect = true;
      continue;
    }
    if (e.kind == ActorEffect::kAwaitEnd) {
      deps_.loop->AddTimer(kLastWords, [connection = queue->channel->connection()] {
        connection->Close(Status::Unavailable("the actor's process has gone"));
      });
      continue;
    }
    PendingTaskPtr task = PendingTask::FromNumber(e.call)->shared_from_this();
    if (e.kind == ActorEffect::kSend) {
      task->spec.sequence = e.sequence;
      task->spec.epoch = e.epoch;
      task->lease.store(1, std::memory_order_relaxed);  // sent
      auto& channel = queue->channel;
      channel->Push(task->spec, nullptr,
                    [this, queue, channel, task, epoch = e.epoch, sequence = e.sequence](Status status, rpc::Reply reply) {
                      OnAnswer(queue, channel, task, epoch, sequence, std::move(status), std::move(reply));
                    });
      continue;
    }
    const uint32_t attempt = task->spec.attempt;
    if (e.kind == ActorEffect::kRetried) ++task->spec.attempt;  // before it is sent again, which may be the next effect
    TaskWorker worker;
    if (task->lease.exchange(0, std::memory_order_relaxed) != 0)
      worker = queue->channel != nullptr ? queue->channel->worker() : TaskWorker{queue->address, queue->pid};
    later->push_back({std::move(task), e.kind, attempt, worker});
  }
  return connect;
}

void ActorSubmitter::Connect(const QueuePtr& queue) {
  Address address;
  bool again;
  {
    MutexLock lock(&queue->mu);
    address = queue->address;
    again = queue->channel != nullptr && queue->channel->peer() == address;
  }
  auto connection = deps_.peers->Get(address);
  if (!connection.ok()) {
    MutexLock lock(&queue->mu);
    // Not each time that it is tried again.
    if (queue->trouble != connection.status().message()) {
      queue->trouble = connection.status().message();
      RAY_LOG(INFO) << "actor " << queue->id << " cannot be reached yet: " << connection.status().ToString();
    }
    ReconnectLaterLocked(queue);
    return;
  }
  if (!again || !deps_.peers->IsRemote(address)) return UseConnection(queue, address, *connection);
  // A tunnel to the process that was lost: whether anybody is there shows when it answers. Calls go there only then, so that a node of whose death nobody knows
  // yet (the GCS may be away) uses up none of their retries.
  rpc::CallOptions options;
  options.timeout = kProbe;
  (*connection)
      ->Call(
          MethodId::kGetLocations, v1::GetLocationsRequest(), {},
          [this, queue, address, connection = *connection](const Status& status, const rpc::Reply&) {
            if (status.ok()) return UseConnection(queue, address, connection);
            MutexLock lock(&queue->mu);
            ReconnectLaterLocked(queue);
          },
          options);
}

void ActorSubmitter::UseConnection(const QueuePtr& queue, const Address& address, const rpc::ConnectionPtr& connection) {
  uint64_t epoch = 0;
  Run(queue, [&](ActorQueueCore& core, ActorEffects* out) {
    if (queue->address.worker_id != address.worker_id || core.phase() != ActorPhase::kDisconnected) return;  // other news came meanwhile
    queue->channel = std::make_shared<TaskChannel>(connection, TaskWorker{address, queue->pid}, deps_.push_numbers);
    queue->trouble.clear();
    core.Connected(out);
    epoch = core.epoch();
  });
  if (epoch == 0) return;
  connection->OnClose([this, queue, epoch](const Status&) { OnConnectionLost(queue, epoch); });
}

void ActorSubmitter::OnConnectionLost(const QueuePtr& queue, uint64_t epoch) {
  bool dead = false;
  Run(queue, [&](ActorQueueCore& core, ActorEffects* out) {
    core.ConnectionLost(epoch, out);
    if (core.phase() == ActorPhase::kDisconnected) ReconnectLaterLocked(queue);
    dead = core.phase() == ActorPhase::kDead;
    if (dead) queue->channel = nullptr;
  });
  if (dead) MaybeForget(queue);
}

// The GCS will say what became of it; should only the connection have broken, a new one settles the matter.
void ActorSubmitter::ReconnectLaterLocked(const QueuePtr& queue) {
  if (queue->reconnecting) return;
  queue->reconnecting = true;
  deps_.loop->AddTimer(kReconnect, [this, queue] {
    bool again;
    {
      MutexLock lock(&queue->mu);
      queue->reconnecting = false;
      again = queue->core.phase() == ActorPhase::kDisconnected;
    }
    if (again) Connect(queue);
  });
}

Status ActorSubmitter::Submit(const ActorId& actor, const PendingTaskPtr& task) {
  QueuePtr queue = Find(actor);
  if (queue == nullptr) {  // only a weak handle is left, and that does not keep what is known of a dead actor
    deps_.tasks->Add(task);
    FailForgotten(actor, task);
    return Status::Ok();
  }
  {
    MutexLock lock(&queue->mu);
    if (queue->core.Full()) {
      return Status::ResourceExhausted("the actor has " + std::to_string(queue->core.pending()) +
                                       " pending calls of this process, as many as max_pending_calls allows");
    }
  }
  deps_.tasks->Add(task);
  EnqueueAndResolve(queue, task, /*charged=*/false);
  return Status::Ok();
}

void ActorSubmitter::Resubmit(const ActorId& actor, const PendingTaskPtr& task) {
  if (QueuePtr queue = Find(actor)) {
    EnqueueAndResolve(queue, task, /*charged=*/true);
  } else {
    FailForgotten(actor, task);
  }
}

void ActorSubmitter::FailForgotten(const ActorId& actor, const PendingTaskPtr& task) {
  ErrorValue death = MakeErrorValue(ErrorType::kActorDied, "the actor " + actor.Hex() + " is dead, and no handle kept it in mind here");
  {
    MutexLock lock(&mu_);
    if (auto known = deaths_.find(actor); known != deaths_.end()) death = known->second;
  }
  deps_.tasks->Fail(*task, death);
}

void ActorSubmitter::EnqueueAndResolve(const QueuePtr& queue, const PendingTaskPtr& task, bool charged) {
  bool ready = task->spec.refs.empty();
  Enqueue(queue, task, ready, charged);
  if (ready) return;
  ResolveArguments(deps_.objects, task, [this, queue, task](const ErrorValue* error) {
    if (error != nullptr) {
      ErrorValue copy = MakeDependencyError(*error, task->spec.tmpl->DisplayName());
      Run(queue, [&](ActorQueueCore& core, ActorEffects* out) { core.Remove(task->number(), out); });
      deps_.tasks->Fail(*task, copy);
    } else {
      Run(queue, [&](ActorQueueCore& core, ActorEffects* out) { core.Ready(task->number(), out); });
    }
  });
}

void ActorSubmitter::OnAnswer(const QueuePtr& queue, const std::shared_ptr<TaskChannel>& channel, const PendingTaskPtr& task,
                              uint64_t epoch, uint64_t sequence, Status status, rpc::Reply reply) {
  channel->OnAnswer();
  if (!status.ok() && status.code() == StatusCode::kUnavailable && channel->connection()->closed()) return OnConnectionLost(queue, epoch);
  {
    MutexLock lock(&queue->mu);
    if (!queue->core.Answered(epoch, sequence)) return;
  }
  static thread_local v1::PushTaskReply message;
  if (status.ok() && !message.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size()))) {
    status = Status::DataLoss("an answer to a call that cannot be parsed");
  }
  if (!status.ok()) {
    deps_.tasks->Fail(*task, MakeErrorValue(DetailOf(status, ErrorType::kActorUnavailable)), channel->worker());
    return;
  }
  if (deps_.tasks->Answered(task, message, reply.parts, channel->worker()) != TaskVerdict::kRetry) return;
  ++task->spec.attempt;
  Enqueue(queue, task, /*ready=*/true, /*charged=*/true);
}

void ActorSubmitter::Enqueue(const QueuePtr& queue, const PendingTaskPtr& task, bool ready, bool charged) {
  bool taken = false;
  Run(queue, [&](ActorQueueCore& core, ActorEffects* out) {
    // Cancel looks for it under the same lock after it has set the flag: it either finds it here, or it does not get here.
    if (task->cancelled) return;
    taken = true;
    task->lease.store(0, std::memory_order_relaxed);
    // The loss of a result may be known before that of the process. Sent there it would cost a retry more.
    if (charged && deps_.peers->IsDead(queue->address)) core.OnProcessGone();
    core.Submit(task->number(), ready, task->spec.tmpl->out_of_order, RetriesLeft(*task), charged, out);
  });
  if (!taken) deps_.tasks->Fail(*task, CancelledError(task->spec.task_id));
}

void ActorSubmitter::Settle(const QueuePtr& queue, const std::vector<Later>& later) {
  ErrorValue death;
  {
    MutexLock lock(&queue->mu);
    death = queue->death;
  }
  for (const Later& l : later) {
    if (l.kind == ActorEffect::kRetried) {
      deps_.tasks->Lost(l.task, {TaskLoss::kCrash, "its actor died or cannot be reached", l.attempt, l.worker});
    } else if (l.kind == ActorEffect::kFailDead) {
      deps_.tasks->Fail(*l.task, death, l.worker);
    } else {
      v1::ErrorDetail detail;
      detail.set_error_type(static_cast<int32_t>(ErrorType::kActorUnavailable));
      detail.set_actor_id(queue->id.Binary());
      detail.set_class_name(queue->class_name);
      detail.set_message("its process was lost or it restarts");
      deps_.tasks->Fail(*l.task, MakeErrorValue(detail), l.worker);
    }
  }
}

void ActorSubmitter::Cancel(const ActorId& actor, const PendingTaskPtr& task, bool recursive) {
  QueuePtr queue = Find(actor);
  bool removed = queue == nullptr;
  rpc::ConnectionPtr connection;
  if (queue != nullptr) {
    Run(queue, [&](ActorQueueCore& core, ActorEffects* out) {
      removed = core.Remove(task->number(), out);
      if (queue->channel != nullptr && core.phase() == ActorPhase::kAlive) connection = queue->channel->connection();
    });
  }
  if (removed) {
    deps_.tasks->Fail(*task, CancelledError(task->spec.task_id));
  } else if (connection != nullptr) {
    v1::CancelTaskRequest request;
    request.set_task_id(task->spec.task_id.Binary());
    request.set_recursive(recursive);
    request.set_request_id(NewRequestId());
    connection->Call(MethodId::kCancelTask, request, {}, [](Status, rpc::Reply) {});
  }
}

void ActorSubmitter::OnActorInfo(const v1::ActorInfo& info) {
  ActorId actor = ActorId::FromBinaryOrNil(info.actor_id());
  QueuePtr queue = Find(actor);
  if (queue == nullptr) return;
  if (info.state() == v1::ACTOR_STATE_DEAD) {
    v1::ErrorDetail cause = info.death_cause();
    if (cause.class_name().empty()) cause.set_class_name(info.creation().class_name());
    OnDead(actor, cause);
    return;
  }
  Run(queue, [&](ActorQueueCore& core, ActorEffects* out) {
    switch (info.state()) {
      case v1::ACTOR_STATE_DEPENDENCIES_UNREADY: core.OnPending(true); break;
      case v1::ACTOR_STATE_PENDING_CREATION: core.OnPending(false); break;
      case v1::ACTOR_STATE_RESTARTING: core.OnRestarting(info.num_restarts(), info.moved(), out); break;
      case v1::ACTOR_STATE_ALIVE:
        if (!core.OnAlive(info.num_restarts(), info.moved(), out)) break;
        queue->address = FromProto(info.address());
        queue->pid = info.pid();
        break;
      default: break;
    }
  });
}

void ActorSubmitter::OnDead(const ActorId& actor, const v1::ErrorDetail& cause) {
  QueuePtr queue = Find(actor);
  if (queue == nullptr) return;
  v1::ErrorDetail detail = cause;
  if (detail.error_type() == 0) detail.set_error_type(static_cast<int32_t>(ErrorType::kActorDied));
  if (detail.actor_id().empty()) detail.set_actor_id(actor.Binary());
  if (detail.class_name().empty()) detail.set_class_name(queue->class_name);
  Run(queue, [&](ActorQueueCore& core, ActorEffects* out) {
    if (!core.dead()) queue->death = MakeErrorValue(detail);
    core.OnDead(out);
    if (core.phase() == ActorPhase::kDead) queue->channel = nullptr;  // else answers may still come
  });
  MaybeForget(queue);
}

std::optional<uint64_t> ActorSubmitter::IncarnationOf(const ActorId& actor) {
  QueuePtr queue = Find(actor);
  if (queue == nullptr) return std::nullopt;
  MutexLock lock(&queue->mu);
  return queue->core.incarnation();
}

void ActorSubmitter::OnEnding(const ActorId& actor, uint64_t incarnation) {
  QueuePtr queue = Find(actor);
  if (queue == nullptr) return;
  MutexLock lock(&queue->mu);
  queue->core.OnEnding(incarnation);
}

void ActorSubmitter::Explain(const ActorId& actor, const PendingTask& task, v1::WaitFact* out) {
  SetAge(task.submitted_at, deps_.loop->clock().Now(), out);
  QueuePtr queue = Find(actor);
  if (queue == nullptr) {
    out->set_state(v1::WAIT_STATE_WAITING_FOR_ACTOR);
    out->set_detail("its actor is unknown here");
    AddPointer(v1::SUBJECT_KIND_ACTOR, actor.View(), Address(), out);
    return;
  }
  MutexLock lock(&queue->mu);
  const auto place = queue->core.PlaceOf(task.number());
  if (place) out->set_ahead(static_cast<int64_t>(place->behind));
  if (queue->core.phase() != ActorPhase::kAlive) {
    out->set_state(v1::WAIT_STATE_WAITING_FOR_ACTOR);
    out->set_detail(queue->core.phase() != ActorPhase::kDisconnected ? "its actor is not alive"
                    : queue->trouble.empty()                         ? "the connection to its actor broke"
                                                                     : "its actor cannot be reached from its owner: " + queue->trouble);
    AddPointer(v1::SUBJECT_KIND_ACTOR, actor.View(), Address(), out);
    return;
  }
  out->set_node_id(queue->address.node_id.Binary());
  out->set_worker_id(queue->address.worker_id.Binary());
  out->set_pid(queue->pid);
  if (place && place->sent) {
    out->set_state(place->behind == 0 ? v1::WAIT_STATE_RUNNING : v1::WAIT_STATE_QUEUED_AT_WORKER);
    out->set_detail("it was sent to its actor");
    AddPointer(v1::SUBJECT_KIND_TASK, task.spec.task_id.View(), queue->address, out);
    return;
  }
  out->set_state(v1::WAIT_STATE_WAITING_FOR_ARGUMENTS);
  if (!place || place->held_up_by == 0 || place->held_up_by == task.number()) return;
  // That one is in the same queue, and so alive.
  out->set_detail("an earlier call of the same process waits for its arguments, and calls keep their order");
  AddPointer(v1::SUBJECT_KIND_TASK, PendingTask::FromNumber(place->held_up_by)->spec.task_id.View(), deps_.self, out);
}

std::optional<TaskWorker> ActorSubmitter::SentTo(const PendingTask& task) {
  const QueuePtr queue = Find(task.spec.task_id.actor_id());
  if (queue == nullptr) return std::nullopt;
  MutexLock lock(&queue->mu);
  const auto place = queue->core.PlaceOf(task.number());
  if (queue->channel == nullptr || !place || !place->sent) return std::nullopt;
  return queue->channel->worker();
}

std::unordered_map<CallNo, TaskWorker> ActorSubmitter::Sent() {
  std::vector<QueuePtr> queues;
  {
    MutexLock lock(&mu_);
    for (const auto& [actor, queue] : queues_) queues.push_back(queue);
  }
  std::unordered_map<CallNo, TaskWorker> sent;
  for (const QueuePtr& queue : queues) {
    MutexLock lock(&queue->mu);
    if (queue->channel == nullptr) continue;
    for (const CallNo call : queue->core.Sent()) sent.emplace(call, queue->channel->worker());
  }
  return sent;
}

}  // namespace ray::core
