// The CompletionQueue of core.h over an eventfd.
#pragma once

#include <memory>

#include "ray/bindings/core.h"
#include "ray/core_worker/core_worker.h"

namespace ray::bindings {

// Fails where the process has no descriptor left. `worker` outlives it.
Status MakeCompletionQueue(core::CoreWorker* worker, std::unique_ptr<CompletionQueue>* out);

}  // namespace ray::bindings
