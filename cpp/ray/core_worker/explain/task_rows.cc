// Of the ExplainService: the rows of lists of tasks.
#include <algorithm>
#include <unordered_map>

#include "ray/core_worker/explain/explain_service.h"
#include "ray/wire/wait_fact.h"

namespace ray::core {
namespace {

void SetWorker(const TaskWorker& worker, v1::WaitFact* out) {
  if (worker.address.IsNil()) return;
  out->set_node_id(worker.address.node_id.Binary());
  out->set_worker_id(worker.address.worker_id.Binary());
  out->set_pid(worker.pid);
}

v1::WaitFact EndedRow(const EndedTask& ended, const WallTimes& times) {
  const bool failed = ended.error_type != EndedTask::kFinished;
  v1::WaitFact fact;
  v1::TaskRow* row =
      SetTask(*ended.tmpl, ended.id, ended.parent, ended.attempt, failed ? v1::WAIT_STATE_FAILED : v1::WAIT_STATE_FINISHED, &fact);
  SetWorker(ended.worker, &fact);
  row->set_owned(true);
  row->set_submitted_at_ms(times.Millis(ended.submitted));
  if (ended.run > Duration::zero()) row->set_started_at_ms(times.Millis(ended.ended - ended.run));
  row->set_ended_at_ms(times.Millis(ended.ended));
  if (failed) {
    row->set_error_type(ended.error_type);
    row->set_error_message(*ended.error);
  }
  return fact;
}

// `facts` begin with the totals.
void AddLeftOut(const RowRoom& room, std::vector<v1::WaitFact>* facts) {
  v1::TaskTotals* totals = facts->front().mutable_totals();
  totals->set_left_out(totals->left_out() + room.left_out());
}

}  // namespace

std::vector<v1::WaitFact> ExplainService::Tasks(const TaskId& only) const {
  RowRoom room(kMaxTaskBytes);
  std::vector<v1::WaitFact> facts = OwnTasks(only, &room);
  deps_.receiver->AddRows(only, &room, &facts);
  AddLeftOut(room, &facts);
  return facts;
}

std::vector<v1::WaitFact> ExplainService::OwnTasks(const TaskId& only, RowRoom* room) const {
  // In this order: what is sent meanwhile shows as not sent yet, never as gone.
  std::unordered_map<uint64_t, TaskWorker> sent;
  if (only.IsNil()) {
    sent = deps_.submitter->Sent();
    sent.merge(deps_.actor_submitter->Sent());
  } else if (const PendingTaskPtr task = deps_.tasks->Find(only)) {
    const auto worker =
        task->spec.tmpl->type == TaskType::kActorTask ? deps_.actor_submitter->SentTo(*task) : deps_.submitter->SentTo(*task);
    if (worker) sent.emplace(task->number(), *worker);
  }
  const std::vector<ActorService::Creation> creations = deps_.actors->PendingCreations();
  const TaskList list = deps_.tasks->List(only, kMaxTasks);

  std::vector<v1::WaitFact> facts;
  facts.reserve(list.live.size() + list.ended.size() + creations.size() + 1);
  v1::WaitFact& about = facts.emplace_back();
  about.set_kind(v1::SUBJECT_KIND_TASKS);
  about.mutable_totals()->set_forgotten_finished(list.forgotten_finished);
  about.mutable_totals()->set_forgotten_failed(list.forgotten_failed);
  about.mutable_totals()->set_left_out(list.left_out);

  const auto add = [&](const PendingTask& task, uint32_t attempt, const TaskWorker* worker) {
    const v1::WaitState state = task.unresolved.load() > 0 ? v1::WAIT_STATE_WAITING_FOR_ARGUMENTS
                                : worker != nullptr        ? v1::WAIT_STATE_QUEUED_AT_WORKER
                                                           : v1::WAIT_STATE_WAITING_FOR_LEASE;
    const TaskSpec& spec = task.spec;
    v1::WaitFact fact;
    v1::TaskRow* row = SetTask(*spec.tmpl, spec.task_id, spec.parent_task_id, attempt, state, &fact);
    row->set_owned(true);
    row->set_submitted_at_ms(times_.Millis(task.submitted_at));
    if (worker != nullptr) SetWorker(*worker, &fact);
    if (room->Take(fact)) facts.push_back(std::move(fact));
  };
  for (const PendingTaskPtr& task : list.live) {
    const auto at = sent.find(task->number());
    const bool is_sent = at != sent.end() && task->lease.load() != 0;  // the number may have been that of one which has ended since
    add(*task, task->spec.attempt, is_sent ? &at->second : nullptr);
  }
  for (const ActorService::Creation& creation : creations) {
    if (only.IsNil() || creation.task->spec.task_id == only) add(*creation.task, creation.attempt, nullptr);
  }
  for (const EndedTask& ended : list.ended) {
    v1::WaitFact fact = EndedRow(ended, times_);
    if (room->Take(fact)) facts.push_back(std::move(fact));
  }
  return facts;
}

std::optional<v1::LeaveTasksRequest> ExplainService::TasksToLeave() const {
  RowRoom room(kMaxTaskBytes);
  std::vector<v1::WaitFact> facts = OwnTasks(TaskId::Nil(), &room);
  if (facts.size() <= 1) return std::nullopt;  // nothing but the totals
  AddLeftOut(room, &facts);
  v1::LeaveTasksRequest request;
  request.set_worker_id(deps_.self.worker_id.Binary());
  v1::ExplainReply tasks;
  for (v1::WaitFact& fact : facts) {
    if (fact.has_row() && fact.state() == v1::WAIT_STATE_FINISHED) {
      request.set_finished(request.finished() + 1);
    } else if (fact.has_row()) {
      request.set_failed(request.failed() + 1);
    }
    if (fact.has_row() && fact.state() != v1::WAIT_STATE_FINISHED && fact.state() != v1::WAIT_STATE_FAILED) {
      fact.set_state(v1::WAIT_STATE_FAILED);
      fact.mutable_row()->set_ended_at_ms(times_.Millis(deps_.loop->clock().Now()));
      fact.mutable_row()->set_error_type(static_cast<int32_t>(ErrorType::kWorkerDied));
      fact.mutable_row()->set_error_message("its owner left before it had ended");
    }
    *tasks.add_facts() = std::move(fact);
  }
  tasks.SerializeToString(request.mutable_tasks());
  return request;
}

}  // namespace ray::core
