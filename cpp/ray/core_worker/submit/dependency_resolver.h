// Dependency resolution: a task is queued only when every top-level ref among its arguments is ready. Small values then travel inside its frame,
// stored ones as refs; an argument that is an error becomes the result of the task, which does not run.
#pragma once

#include <functional>

#include "ray/core_worker/objects/object_service.h"
#include "ray/core_worker/tasks/pending_task.h"
#include "ray/wire/error_detail.h"

namespace ray::core {

// `done(null)` once task->spec.refs is complete, or with the error of the first failed argument; exactly once, on this thread before the return if all
// are ready, else on the one that completes the last. Values that are in the task's
// frame already (it ran before) are left alone. REQUIRES: the refs are held (submitted).
void ResolveArguments(ObjectService* objects, const PendingTaskPtr& task, std::function<void(const ErrorValue* error)> done);

}  // namespace ray::core
