// How far log files may grow, as the environment says.
#pragma once

#include "ray/util/logging.h"

namespace ray {

// Sets the limits of rotation from RAY_ROTATION_MAX_BYTES (default 512 MiB; 0: never) and RAY_ROTATION_BACKUP_COUNT (default 5).
// What is not a number >= 0 counts as missing.
void ReadRotationLimits(LogOptions* options);

}  // namespace ray
