// The names of the sockets in <session>/sockets.
#pragma once

#include <string>

#include "ray/common/ids.h"

namespace ray {

// Where a worker or driver listens. Short, for there are many and paths are limited.
inline std::string WorkerSocketName(const WorkerId& worker) { return "w-" + worker.Hex().substr(0, 16) + ".sock"; }

}  // namespace ray
