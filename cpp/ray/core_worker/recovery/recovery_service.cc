#include "ray/core_worker/recovery/recovery_service.h"

#include <algorithm>
#include <utility>

#include "ray/core_worker/tasks/pending_task.h"
#include "ray/util/logging.h"
#include "ray/wire/convert.h"
#include "ray/wire/error_detail.h"
#include "ray/wire/value_layout.h"

namespace ray::core {
namespace {

// What keeping the task costs, about.
uint64_t BytesOf(const PendingTask& task) {
  uint64_t bytes = sizeof(PendingTask) + (task.held.size() + task.return_ids.size()) * sizeof(ObjectId);
  if (task.spec.args != nullptr) bytes += task.spec.args->size();
  for (const TaskArg& arg : task.spec.refs) {
    bytes += sizeof(TaskArg) + arg.nested.size() * sizeof(ObjectRefInfo);
    if (arg.value != nullptr) bytes += arg.value->size();
  }
  return bytes;
}

// What is held beyond top-level refs: refs inside the arguments, and arguments that are an object.
std::span<const ObjectId> InsideArguments(const PendingTask& task) { return std::span(task.held).subspan(task.held_refs); }

ErrorValue UnrecoverableError(const ObjectId& id, ErrorType reason, const Address& owner) {
  v1::ErrorDetail detail;
  detail.set_error_type(static_cast<int32_t>(reason));
  detail.set_message("object " + id.Hex() + " is lost, and the task that made it cannot be run again");
  detail.set_owner_address(ToProto(owner).SerializeAsString());
  return MakeErrorValue(detail);
}

}  // namespace

void RecoveryService::OnStored(const ObjectId& id) {
  MutexLock lock(&mu_);
  core_.Stored(id);
  any_lost_.store(core_.lost() != 0, std::memory_order_relaxed);
}

void RecoveryService::OnFreed(std::span<const ObjectId> ids, std::span<const ObjectId> in_store) {
  // Objects that are lost at the moment were not in the store when they went.
  const std::span<const ObjectId> concerned = any_lost_.load() ? ids : std::span<const ObjectId>();
  if (concerned.empty() && in_store.empty()) return;
  RecoveryEffects effects;
  {
    MutexLock lock(&mu_);
    for (const ObjectId& id : in_store) core_.Settled(id, &effects);
    for (const ObjectId& id : concerned) core_.Settled(id, &effects);
    any_lost_.store(core_.lost() != 0);
  }
  CarryOut(std::move(effects));
}

void RecoveryService::OnLost(const ObjectId& id) {
  RAY_LOG(WARNING) << "object " << id << " is lost";
  RecoveryEffects effects;
  {
    MutexLock lock(&mu_);
    core_.Lost(id, &effects);
    any_lost_.store(core_.lost() != 0);
  }
  // It may have been freed while nobody looked for it here.
  if (!deps_.objects->references().Contains(id)) OnFreed({}, {&id, 1});
  CarryOut(std::move(effects));
}

void RecoveryService::OnAgain(const TaskId& task) {
  MutexLock lock(&mu_);
  core_.Again(task);
}

void RecoveryService::OnDone(const PendingTask& task, int32_t retries_left, int64_t items) {
  std::vector<ObjectId> needs;
  for (const TaskArg& arg : task.spec.refs) {
    if (arg.value == nullptr) needs.push_back(arg.ref.id);
    for (const ObjectRefInfo& nested : arg.nested) needs.push_back(nested.id);
  }
  const std::span<const ObjectId> inside = InsideArguments(task);
  needs.insert(needs.end(), inside.begin(), inside.end());
  uint64_t bytes = BytesOf(task);
  ObjectId args_object;
  if (StoredValue args; task.spec.args_object && deps_.objects->Lookup(task.spec.args_object->id, &args)) {
    args_object = task.spec.args_object->id;
    bytes += args.size;
  }
  End({.id = task.spec.task_id,
       .task = std::const_pointer_cast<PendingTask>(task.shared_from_this()),
       .bytes = bytes,
       .args_object = args_object,
       .retries_left = retries_left,
       .retries_allowed = task.spec.tmpl->max_retries != 0,
       .needs = needs,
       .items = items});
}

void RecoveryService::OnFailed(const PendingTask& task, const ErrorValue& error) {
  ErrorType reason = ErrorType::kObjectUnreconstructableMaxAttempts;
  if (ErrorTypeOfMetadata(error.metadata) == static_cast<int32_t>(ErrorType::kTaskCancelled)) {
    reason = ErrorType::kObjectUnreconstructableTaskCancelled;
  } else if (task.is_streaming()) {
    reason = ErrorType::kGeneratorTaskFailedForReconstruction;
  }
  End({.id = task.spec.task_id, .ran = false, .failure = reason});
}

void RecoveryService::End(RecoveryCore::End end) {
  RecoveryEffects effects;
  std::vector<ObjectId> lost;
  {
    MutexLock lock(&mu_);
    lost = core_.LostOf(end.id);
    if (lost.empty()) {
      core_.Ended(end, &effects);
      if (effects.empty()) return;
    }
  }
  if (!lost.empty()) {
    std::erase_if(lost, [&](const ObjectId& id) { return !deps_.objects->IsReady(id) && deps_.objects->references().Contains(id); });
    MutexLock lock(&mu_);
    for (const ObjectId& id : lost) core_.Settled(id, &effects);
    core_.Ended(end, &effects);
    any_lost_.store(core_.lost() != 0);
  }
  CarryOut(std::move(effects));
}

void RecoveryService::CarryOut(RecoveryEffects effects) {
  for (size_t i = 0; i < effects.size(); ++i) {  // grows
    const RecoveryEffect effect = effects[i];
    if (effect.kind == RecoveryEffect::Kind::kFail) {
      const ErrorValue error = UnrecoverableError(effect.object, effect.reason, deps_.objects->self());
      deps_.objects->StoreError(effect.object, error.metadata, error.blob);
      continue;
    }
    if (effect.kind == RecoveryEffect::Kind::kHold) {
      deps_.objects->KeepArguments(effect.object);
      continue;
    }
    if (effect.kind == RecoveryEffect::Kind::kRelease) {
      deps_.objects->RemoveSubmitted({&effect.object, 1});
      continue;
    }
    if (effect.kind == RecoveryEffect::Kind::kPassed) {
      const Begun begun = deps_.begin_again(effect.object.task_id());
      if (begun == Begun::kAgain) continue;
      const bool never = begun == Begun::kNever;
      MutexLock lock(&mu_);
      core_.NotAgain(effect.object,
                     never ? ErrorType::kObjectUnreconstructableRetriesDisabled : ErrorType::kObjectUnreconstructableMaxAttempts, &effects);
      any_lost_.store(core_.lost() != 0);
      continue;
    }
    RAY_LOG(INFO) << "running task " << effect.task->spec.tmpl->DisplayName() << " (" << effect.task->spec.task_id
                  << ") again: what it made is lost";
    if (PendingTaskPtr again = Prepare(*effect.task, &effects)) deps_.run(again, effect.retries_left);
  }
}

PendingTaskPtr RecoveryService::Prepare(const PendingTask& task, RecoveryEffects* effects) {
  // A task of its own: queues may still be busy with the end of the last run, and know it by its address.
  auto again = std::make_shared<PendingTask>();
  again->spec = task.spec;
  ++again->spec.attempt;
  again->return_ids = task.return_ids;
  again->cls = task.cls;
  again->submitted_at = task.submitted_at;
  bool possible = true;
  auto hold = [&](const ObjectId& id, bool ours, bool always) {
    if (deps_.objects->HoldIfKnown(id)) {
      again->held.push_back(id);
      return;
    }
    if (!ours) {
      possible = false;
      return;
    }
    {
      MutexLock lock(&mu_);
      if (!always && !core_.Knows(id)) return;  // inside an argument: the program may do without
    }
    again->held.push_back(id);
    if (!deps_.objects->Revive(id)) return;
    MutexLock lock(&mu_);
    core_.Lost(id, effects);
    any_lost_.store(core_.lost() != 0);
  };
  for (const TaskArg& arg : again->spec.refs) {
    if (arg.value == nullptr) hold(arg.ref.id, arg.ref.owner == deps_.objects->self(), true);
  }
  again->held_refs = again->held.size();
  const ObjectId stored_args = again->spec.args_object ? again->spec.args_object->id : ObjectId::Nil();
  for (const ObjectId& id : InsideArguments(task)) hold(id, true, id == stored_args);
  for (const TaskArg& arg : again->spec.refs) {
    for (const ObjectRefInfo& nested : arg.nested) hold(nested.id, true, false);
  }
  if (possible) return again;
  deps_.objects->RemoveSubmitted(again->held);
  RecoveryEffects failed;
  MutexLock lock(&mu_);
  core_.Ended({.id = task.spec.task_id, .ran = false, .failure = ErrorType::kObjectUnreconstructableBorrowed}, &failed);
  any_lost_.store(core_.lost() != 0);
  effects->insert(effects->end(), failed.begin(), failed.end());
  return nullptr;
}

bool RecoveryService::IsLost(const ObjectId& id) const {
  if (id.IsPut() || !any_lost_.load()) return false;
  MutexLock lock(&mu_);
  const std::vector<ObjectId> lost = core_.LostOf(id.task_id());
  return std::ranges::find(lost, id) != lost.end();
}

bool RecoveryService::IsAnyHeldBehind(const ObjectId& item) const {
  MutexLock lock(&mu_);
  return core_.IsAnyHeldBehind(item);
}

size_t RecoveryService::TEST_size() const {
  MutexLock lock(&mu_);
  return core_.size();
}

}  // namespace ray::core
