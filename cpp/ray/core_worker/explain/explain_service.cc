#include "ray/core_worker/explain/explain_service.h"

#include <utility>

#include "ray/wire/convert.h"
#include "ray/wire/wait_fact.h"

namespace ray::core {

void ExplainService::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::ExplainRequest>(MethodId::kExplain,
                                                [this](const v1::ExplainRequest& message, rpc::Request&, rpc::Responder responder) {
                                                  if (!responder.valid()) return;
                                                  v1::ExplainReply reply;
                                                  for (v1::WaitFact& fact : Local(message.kind(), message.id()))
                                                    *reply.add_facts() = std::move(fact);
                                                  responder.Send(reply);
                                                });
}

std::vector<v1::WaitFact> ExplainService::Local(v1::SubjectKind kind, std::string_view id) const {
  if (kind == v1::SUBJECT_KIND_REFERENCES) return References();
  if (kind == v1::SUBJECT_KIND_TASKS) return Tasks(TaskId::FromBinaryOrNil(id));
  std::vector<v1::WaitFact> facts;
  v1::WaitFact fact;
  const auto take = [&](bool known) {
    if (known) facts.push_back(fact);
    fact.Clear();
  };
  switch (kind) {
    case v1::SUBJECT_KIND_OBJECT: take(Object(ObjectId::FromBinaryOrNil(id), &fact)); break;
    case v1::SUBJECT_KIND_TASK:
      take(OwnTask(TaskId::FromBinaryOrNil(id), &fact));
      take(deps_.receiver->Explain(TaskId::FromBinaryOrNil(id), &fact));
      break;
    case v1::SUBJECT_KIND_ACTOR: take(Actor(ActorId::FromBinaryOrNil(id), &fact)); break;
    default: break;  // nothing that a worker keeps
  }
  return facts;
}

void ExplainService::NoteSite(const ObjectId& id, std::string site) {
  MutexLock lock(&mu_);
  if (sites_.insert_or_assign(id, std::move(site)).second) site_order_.push_back(id);
  if (site_order_.size() <= kMaxSites) return;
  sites_.erase(site_order_.front());
  site_order_.pop_front();
}

std::vector<v1::WaitFact> ExplainService::References() const {
  std::vector<v1::WaitFact> facts;
  size_t left_out = 0;
  for (const ReferenceTable::Held& held : deps_.objects->references().All(kMaxReferences, &left_out)) {
    v1::WaitFact& fact = facts.emplace_back();
    const bool owned = held.owner.worker_id == deps_.self.worker_id;
    StoredValue value;
    const bool known = deps_.objects->Lookup(held.id, &value);
    SetSubject(v1::SUBJECT_KIND_REFERENCES, held.id.View(),
               !known            ? v1::WAIT_STATE_PENDING
               : value.IsError() ? v1::WAIT_STATE_FAILED
                                 : v1::WAIT_STATE_READY,
               &fact);
    fact.set_node_id(deps_.self.node_id.Binary());
    fact.set_worker_id(deps_.self.worker_id.Binary());
    fact.set_pid(deps_.pid);
    ToProto(held.owner, fact.mutable_owner());
    if (!known && owned) {
      if (const PendingTaskPtr task = deps_.tasks->Find(held.id.task_id())) fact.set_attempt(task->spec.attempt);
    }
    v1::Holds& holds = *fact.mutable_holds();
    holds.set_local(held.local);
    holds.set_submitted(held.submitted);
    holds.set_contained(held.contained);
    holds.set_borrowers(held.borrowers);
    holds.set_owned(owned);
    holds.set_in_store(known && value.in_store);
    holds.set_size(known ? static_cast<int64_t>(value.size) : -1);
    holds.set_by_driver(deps_.is_driver);
    MutexLock lock(&mu_);
    if (const auto site = sites_.find(held.id); site != sites_.end()) holds.set_site(site->second);
  }
  if (!facts.empty()) facts.front().set_more(static_cast<uint32_t>(left_out));
  return facts;
}

bool ExplainService::Object(const ObjectId& id, v1::WaitFact* out) const {
  if (!deps_.objects->Explain(id, Address(), out)) return false;
  if (out->state() != v1::WAIT_STATE_PENDING) return true;
  const bool lost = deps_.recovery->IsLost(id);
  if (lost) out->set_state(v1::WAIT_STATE_RECONSTRUCTING);
  if (id.IsPut()) return true;
  const PendingTaskPtr task = deps_.tasks->Find(id.task_id());
  if (task == nullptr) {
    out->set_detail("the task that makes it is not known here any more, or waits to run again");
    return true;
  }
  out->set_name(task->spec.tmpl->DisplayName());
  out->set_attempt(task->spec.attempt);
  SetAge(task->submitted_at, deps_.loop->clock().Now(), out);
  out->set_detail(lost ? "it was lost, and its task runs again" : "its task has not ended");
  AddPointer(v1::SUBJECT_KIND_TASK, id.task_id().View(), deps_.self, out);
  return true;
}

bool ExplainService::OwnTask(const TaskId& id, v1::WaitFact* out) const {
  const PendingTaskPtr task = deps_.tasks->Find(id);
  SetSubject(v1::SUBJECT_KIND_TASK, id.View(), v1::WAIT_STATE_WAITING_FOR_ARGUMENTS, out);
  ToProto(deps_.self, out->mutable_owner());
  if (task == nullptr) {  // only its results tell of it
    const ObjectId result = ObjectId::ForReturn(id, 0);
    if (!deps_.objects->IsOwned(result) || !deps_.objects->IsReady(result)) return false;
    out->set_state(v1::WAIT_STATE_FINISHED);
    AddPointer(v1::SUBJECT_KIND_OBJECT, result.View(), deps_.self, out);
    return true;
  }
  const TaskSpec& spec = task->spec;
  out->set_name(spec.tmpl->DisplayName());
  out->set_attempt(spec.attempt);
  if (task->unresolved.load() > 0) {
    SetAge(task->submitted_at, deps_.loop->clock().Now(), out);
    AddArguments(*task, out);
    if (out->next_size() > 0) return true;  // else they have just come
  }
  if (spec.tmpl->type == TaskType::kActorTask) {
    deps_.actor_submitter->Explain(id.actor_id(), *task, out);
  } else {
    deps_.submitter->Explain(*task, out);
  }
  return true;
}

void ExplainService::AddArguments(const PendingTask& task, v1::WaitFact* out) const {
  for (const TaskArg& arg : task.spec.refs) {
    if (!deps_.objects->IsReady(arg.ref.id)) AddPointer(v1::SUBJECT_KIND_OBJECT, arg.ref.id.View(), deps_.self, out);
  }
}

bool ExplainService::Actor(const ActorId& id, v1::WaitFact* out) const {
  const PendingTaskPtr creation = deps_.actors->CreationOf(id);
  if (creation == nullptr || creation->unresolved.load() == 0) return false;  // past that, others know where it stands
  SetSubject(v1::SUBJECT_KIND_ACTOR, id.View(), v1::WAIT_STATE_DEPENDENCIES_UNREADY, out);
  ToProto(deps_.self, out->mutable_owner());
  out->set_name(creation->spec.creation->class_name);
  SetAge(creation->submitted_at, deps_.loop->clock().Now(), out);
  out->set_detail("its constructor waits for its arguments");
  AddArguments(*creation, out);
  return true;
}

std::vector<ExplainAnswer> ExplainService::Ask(std::span<const ExplainQuestion> questions, Duration timeout) {
  struct State {
    Mutex mu;
    std::vector<ExplainAnswer> answers GUARDED_BY(mu);
    async::Waiter all;
  };
  auto state = std::make_shared<State>();
  auto answered = std::make_shared<Barrier>(questions.size() + 1, [state] { state->all.Notify(); });
  {
    MutexLock lock(&state->mu);
    state->answers.assign(questions.size(), {Status::DeadlineExceeded("it did not answer in time"), {}});
  }
  rpc::CallOptions options;
  options.timeout = timeout;
  for (size_t i = 0; i < questions.size(); ++i) {
    const ExplainQuestion& question = questions[i];
    const auto settle = [state, answered, i](Status status, std::vector<v1::WaitFact> facts) {
      {
        MutexLock lock(&state->mu);
        state->answers[i] = {std::move(status), std::move(facts)};
      }
      answered->Arrive();
    };
    if (question.address == deps_.self) {
      settle(Status::Ok(), Local(question.kind, question.id));
      continue;
    }
    MethodId method = MethodId::kExplain;
    Result<rpc::ConnectionPtr> connection = Status::Unavailable("not connected to the raylet");
    if (question.address.IsNil()) {
      method = MethodId::kExplainGcs;
      if (auto raylet = deps_.peers->raylet()) connection = std::move(raylet);
    } else if (question.address.worker_id.IsNil()) {
      connection = deps_.peers->GetRaylet(question.address.node_id);
    } else {
      connection = deps_.peers->Get(question.address);
    }
    if (!connection.ok()) {
      settle(connection.status(), {});
      continue;
    }
    v1::ExplainRequest request;
    request.set_kind(question.kind);
    request.set_id(question.id);
    request.set_of_node(question.of_node);
    rpc::CallTyped<v1::ExplainReply>(
        **connection, method, request, {},
        [settle](Status status, v1::ExplainReply& reply, PartList) {
          settle(std::move(status), {reply.facts().begin(), reply.facts().end()});
        },
        options);
  }
  answered->Arrive();
  const Time deadline = deps_.loop->clock().Now() + timeout;
  while (deps_.loop->Wait(&state->all, deadline) == async::WaitResult::kInterrupted && deps_.loop->clock().Now() < deadline) {
  }
  MutexLock lock(&state->mu);
  return state->answers;
}

}  // namespace ray::core
