#include "ray/core_worker/submit/dependency_resolver.h"

#include "ray/wire/value_layout.h"

namespace ray::core {
namespace {

void Complete(ObjectService* objects, const PendingTaskPtr& task, const std::function<void(const ErrorValue*)>& done) {
  for (TaskArg& arg : task->spec.refs) {
    if (arg.value != nullptr) continue;  // from its first run
    StoredValue value;
    if (!objects->Lookup(arg.ref.id, &value)) {
      // Ready, yet its value is not kept here: a stored object of another owner. The executor asks that owner.
      arg.in_store = true;
      continue;
    }
    if (value.IsError()) {
      ErrorValue error{value.metadata, value.blob};
      if (value.blob == nullptr) {  // a large one, in the store
        ReadValue read;
        if (objects->TryGet(arg.ref, &read)) error.blob = read.blob;
        if (error.blob == nullptr) error = MakeErrorValue(ErrorType::kDependencyResolutionFailed, "an argument of the task failed");
      }
      done(&error);
      return;
    }
    arg.in_store = value.in_store;
    if (value.in_store) continue;
    arg.metadata = value.metadata;
    arg.value = value.blob;
    arg.nested = objects->NestedOf(arg.ref.id);
  }
  done(nullptr);
}

}  // namespace

void ResolveArguments(ObjectService* objects, const PendingTaskPtr& task, std::function<void(const ErrorValue*)> done) {
  if (task->spec.refs.empty()) {
    done(nullptr);
    return;
  }
  task->unresolved = static_cast<uint32_t>(task->spec.refs.size()) + 1;
  auto shared = std::make_shared<std::function<void(const ErrorValue*)>>(std::move(done));
  auto one = [objects, task, shared] {
    if (task->unresolved.fetch_sub(1) == 1) Complete(objects, task, *shared);
  };
  for (const TaskArg& arg : task->spec.refs) {
    if (arg.value != nullptr || objects->IsReady(arg.ref.id)) {
      task->unresolved.fetch_sub(1);  // never the last: one is ours
    } else {
      objects->WatchObject(arg.ref, one);
    }
  }
  one();
}

}  // namespace ray::core
