// The Core of core.h: what a worker runs.
#include "ray/bindings/core.h"

#include <sys/epoll.h>

#include <utility>

#include "ray/bindings/fields.h"
#include "ray/bindings/values.h"
#include "ray/core_worker/core_worker.h"
#include "ray/wire/convert.h"

namespace ray::bindings {

namespace {

const std::string& NamespaceOf(const TaskSpec& spec) {
  return spec.tmpl->ray_namespace.empty() && spec.creation != nullptr ? spec.creation->ray_namespace : spec.tmpl->ray_namespace;
}

}  // namespace

bool Core::WaitForTask(int64_t timeout_ms) {
  return worker_->receiver().WaitForWork(timeout_ms < 0 ? Time::Infinite() : loop_->clock().Now() + std::chrono::milliseconds(timeout_ms));
}
bool Core::TryNextTask(TaskIn* out) {
  core::NextItem item;
  while (worker_->receiver().TryNext(&item)) {
    if (core::TaskReceiver::CanBlock(item)) {
      out->received = std::move(item.task);
      out->unprepared = true;
      return true;
    }
    if (worker_->receiver().Prepare(item)) {
      Fill(&item, out);
      return true;
    }
  }
  return false;
}
bool Core::PrepareTask(TaskIn* out) {
  core::NextItem item{core::NextItem::kRun, std::move(out->received), {}};
  if (!worker_->receiver().Prepare(item)) return false;
  out->unprepared = false;
  Fill(&item, out);
  return true;
}
Status Core::AlsoWaitFor(int fd) {
  return loop_->WatchFd(fd, EPOLLIN | EPOLLET, [this](uint32_t) { worker_->receiver().OnOtherEvent(); });
}
bool Core::TakeFdEvent() { return worker_->receiver().TakeOtherEvent(); }

void Core::DetailsOf(const TaskIn& in, TaskDetails* out) {
  const core::ReceivedTask& task = *in.received;
  const TaskSpec& spec = task.spec;
  if (spec.tmpl->type != TaskType::kNormal) out->actor_id = spec.task_id.actor_id().Binary();
  out->job_id = spec.tmpl->job_id.Binary();
  out->ray_namespace = NamespaceOf(spec);
  out->caller_address = PackAddress(spec.owner);
  if (spec.creation != nullptr) {
    out->actor = OptionsOf(*spec.creation);
    out->was_restarted = spec.attempt > 0;
  }
  for (const auto& assigned : task.instances) {
    std::vector<std::pair<int32_t, double>> indices;
    for (int i = 0; i < assigned.indices_size() && i < assigned.amounts_size(); ++i) {
      indices.emplace_back(assigned.indices(i), static_cast<double>(assigned.amounts(i)) / static_cast<double>(ResourceSet::kUnit));
    }
    out->instances.emplace_back(assigned.resource(), std::move(indices));
  }
}

bool Core::TemplateOf(uint64_t token, TemplateOptions* out) {
  TaskTemplatePtr tmpl = worker_->receiver().TemplateOf(token);
  if (tmpl != nullptr) *out = OptionsOf(*tmpl);
  return tmpl != nullptr;
}
Status Core::FinishTask(const TaskIn& task, const TaskOut& out) {
  core::TaskResult result;
  result.returns.reserve(out.returns.size());
  for (const ValueIn& value : out.returns) result.returns.push_back(ViewOf(value));
  result.application_error = out.is_application_error;
  result.retryable_error = out.is_retryable_error;
  result.cancelled = out.cancelled;
  result.worker_exiting = out.worker_exiting;
  result.more_follows = out.more_follows;
  result.generator_items = out.generator_items;
  result.repr_name = out.repr_name;
  result.error_text = out.error_text;
  result.run_ns = out.run_ns;
  return worker_->receiver().Finish(task.received, result);
}
Status Core::ReportGeneratorItem(uint64_t token, int64_t index, const ValueIn& value, bool* stop) {
  return worker_->receiver().ReportItem(token, index, ViewOf(value), stop);
}
bool Core::IsCancelled(const TaskIn& task) { return core::TaskReceiver::IsCancelled(*task.received); }
void Core::SetInterruptThread() { worker_->receiver().SetInterruptThread(); }
void Core::AnnounceExit(const std::string& reason, bool intended) { worker_->AnnounceExit(reason, intended); }
void Core::SetCurrentTask(const TaskIn* task) { core::TaskReceiver::SetCurrent(task == nullptr ? nullptr : task->received.get()); }

void Core::Fill(core::NextItem* item, TaskIn* out) {
  if (item->kind == core::NextItem::kExit) {
    out->kind = TaskIn::kExit;
    out->exit_reason = std::move(item->reason);
    return;
  }
  core::ReceivedTask& task = *item->task;
  const TaskSpec& spec = task.spec;
  out->token = task.token;
  out->task_id = spec.task_id;
  out->received = std::move(item->task);
  if (item->kind == core::NextItem::kCancel) {
    out->kind = TaskIn::kCancel;
    return;
  }
  out->kind = TaskIn::kRun;
  out->template_key = spec.tmpl->key;
  out->attempt = spec.attempt;
  if (!task.args.metadata.empty()) {
    out->has_args = true;
    FillValue(std::move(task.args.metadata), std::move(task.args.blob), &out->args);
  }
  out->ref_values.resize(task.ref_values.size());
  for (size_t i = 0; i < task.ref_values.size(); ++i) {
    FillValue(std::move(task.ref_values[i].metadata), std::move(task.ref_values[i].blob), &out->ref_values[i]);
    out->refs.push_back(spec.refs[i].ref);
  }
  if (spec.tmpl->type != TaskType::kActorCreation) out->n_returns = spec.tmpl->NumReturnIds();
  out->has_instances = !task.instances.empty();
  if (spec.creation != nullptr) {
    out->is_actor_creation = true;
    worker_->SetOwnActor(spec.creation->actor_id);
  }
  if (has_namespace_.load(std::memory_order_acquire)) return;
  std::lock_guard lock(mu_);
  if (namespace_.empty()) namespace_ = NamespaceOf(spec);  // what a worker submits is of the namespace of its job
  has_namespace_.store(!namespace_.empty(), std::memory_order_release);
}

}  // namespace ray::bindings
