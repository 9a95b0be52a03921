// Values between Python's structs (core.h) and the core's.
#pragma once

#include <string>

#include "ray/bindings/core.h"
#include "ray/core_worker/core_worker.h"

namespace ray::bindings {

// A ValueIn as the core wants it. REQUIRES: `in` outlives it.
core::ValueView ViewOf(const ValueIn& in);
// A damaged value becomes an OBJECT_LOST error.
void FillValue(std::string metadata, BufferPtr blob, ValueOut* out);
GetStatus ToGetStatus(core::ReadResult result);

}  // namespace ray::bindings
