#include "ray/raylet/explain/explain_service.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ray/wire/convert.h"
#include "ray/wire/wait_fact.h"

namespace ray::raylet {
namespace {

// Processes of other jobs do not know it. Nil: the id does not tell.
JobId JobOf(const v1::ExplainRequest& message) {
  switch (message.kind()) {
    case v1::SUBJECT_KIND_OBJECT: return ObjectId::FromBinaryOrNil(message.id()).task_id().job_id();
    case v1::SUBJECT_KIND_TASKS:
    case v1::SUBJECT_KIND_TASK: return TaskId::FromBinaryOrNil(message.id()).job_id();
    case v1::SUBJECT_KIND_ACTOR: return ActorId::FromBinaryOrNil(message.id()).job_id();
    default: return {};
  }
}

}  // namespace

struct ExplainService::Gathering {
  explicit Gathering(rpc::Responder r) : responder(std::move(r)) {}
  // Whoever still had something to say holds it.
  ~Gathering() {
    if (room.left_out() > 0) AddTotals()->set_left_out(room.left_out());
    responder.Send(reply);
  }
  void Add(v1::WaitFact fact) {
    if (!fact.has_row() || room.Take(fact)) *reply.add_facts() = std::move(fact);
  }
  v1::TaskTotals* AddTotals() {
    v1::WaitFact* fact = reply.add_facts();
    fact->set_kind(v1::SUBJECT_KIND_TASKS);
    return fact->mutable_totals();
  }
  rpc::Responder responder;
  v1::ExplainReply reply;
  RowRoom room{size_t{128} << 20};  // of what processes tell: half of what a message may have
};

void ExplainService::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::ExplainRequest>(MethodId::kExplain,
                                                [this](const v1::ExplainRequest& message, rpc::Request&, rpc::Responder responder) {
                                                  if (responder.valid()) Explain(message, std::move(responder));
                                                });
  dispatcher->RegisterTyped<v1::LeaveTasksRequest>(MethodId::kLeaveTasks,
                                                   [this](const v1::LeaveTasksRequest& message, rpc::Request&, rpc::Responder responder) {
                                                     left_tasks_.Add(message);
                                                     if (responder.valid()) responder.Send(v1::ExplainEmpty());
                                                   });
}

void ExplainService::Explain(const v1::ExplainRequest& message, rpc::Responder responder) {
  const auto gathering = std::make_shared<Gathering>(std::move(responder));
  v1::WaitFact fact;
  switch (message.kind()) {
    case v1::SUBJECT_KIND_LEASE:
      if (deps_.leases->Explain(LeaseId::FromBinaryOrNil(message.id()), &fact)) gathering->Add(std::move(fact));
      break;
    case v1::SUBJECT_KIND_ACTOR:
      if (deps_.leases->Explain(ActorId::FromBinaryOrNil(message.id()), &fact)) gathering->Add(std::move(fact));
      break;
    case v1::SUBJECT_KIND_OBJECT: {
      const ObjectId id = ObjectId::FromBinaryOrNil(message.id());
      if (deps_.adoption->Explain(id, &fact)) gathering->Add(std::move(fact));
      AskStore(id, gathering);
      break;
    }
    case v1::SUBJECT_KIND_TASKS:
      if (message.of_node()) left_tasks_.Tell(message.id(), &gathering->reply);
      break;
    default: break;  // nothing that a raylet keeps
  }
  if (message.of_node()) AskProcesses(message, gathering);
}

void ExplainService::AskStore(const ObjectId& id, const std::shared_ptr<Gathering>& gathering) {
  const std::string pull = deps_.objects->ExplainPull(id);
  deps_.objects->Describe(id, [this, id, pull, gathering, alive = alive_](std::string text, bool readable) mutable {
    // Back on the loop, also for the end of `gathering`, which answers.
    deps_.loop->Post("explain.store", [this, id, pull, text, readable, gathering = std::move(gathering), alive] {
      if (!*alive || (text.empty() && pull.empty())) return;
      v1::WaitFact fact;
      SetSubject(v1::SUBJECT_KIND_OBJECT, id.View(), v1::WAIT_STATE_PULLING, &fact);
      fact.set_node_id(deps_.self.Binary());
      fact.set_detail(readable || pull.empty() ? text : pull);
      if (readable) {
        fact.set_state(v1::WAIT_STATE_READY);
      } else if (pull.empty()) {
        fact.set_state(v1::WAIT_STATE_SPILLED);
      }
      gathering->Add(std::move(fact));
    });
  });
}

void ExplainService::AskProcesses(const v1::ExplainRequest& message, const std::shared_ptr<Gathering>& gathering) {
  std::set<JobId> jobs{JobOf(message)};
  const bool tasks = message.kind() == v1::SUBJECT_KIND_TASKS;
  if (message.kind() == v1::SUBJECT_KIND_REFERENCES || (tasks && message.id().empty())) jobs = deps_.workers->Jobs();
  std::vector<rpc::ConnectionPtr> processes;
  for (const JobId& job : jobs) {
    if (job.IsNil()) continue;
    std::vector<rpc::ConnectionPtr> its = deps_.workers->ConnectionsOf(job);
    processes.insert(processes.end(), its.begin(), its.end());
  }
  v1::ExplainRequest question = message;
  question.set_of_node(false);
  rpc::CallOptions options;
  options.timeout = deps_.process_timeout;
  for (const rpc::ConnectionPtr& process : processes) {
    rpc::CallTyped<v1::ExplainReply>(
        *process, MethodId::kExplain, question, {},
        [gathering, tasks](const Status& status, v1::ExplainReply& reply, PartList) {
          if (tasks && status.code() == StatusCode::kDeadlineExceeded) gathering->AddTotals()->set_silent(1);
          if (!status.ok()) return;  // it leaves, or hangs: nothing is known of what it knows
          for (v1::WaitFact& fact : *reply.mutable_facts()) gathering->Add(std::move(fact));
        },
        options);
  }
}

}  // namespace ray::raylet
