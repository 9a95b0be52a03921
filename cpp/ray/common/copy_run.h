// CopyRun: copies of an object in stores, told apart by the run of its task that made them.
//
// A task may run again, and make objects of the same ids where their copies were freed before. What was said of the older copies may still be on its way then, or said once more.
#pragma once

#include <cstdint>

#include "ray/common/ids.h"

namespace ray {

struct CopyRun {
  static constexpr uint32_t kAny = UINT32_MAX;

  ObjectId id;
  uint32_t attempt = kAny;  // those that this run made, or an earlier one
  friend bool operator==(const CopyRun&, const CopyRun&) = default;
};

}  // namespace ray
