// Files and folders, as far as the product needs them. Free functions, safe from any thread; errors name the path.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "ray/util/status.h"

namespace ray {

Result<std::string> ReadFile(const std::string& path);

// Makes `path` hold `bytes`: a reader sees the old content or the new, never a part, not even after a crash of the machine.
Status WriteFileAtomic(const std::string& path, std::string_view bytes, mode_t mode = 0600);

// Creates the folder and its missing parents, each with exactly `mode` whatever the umask. A folder that exists is left as it is;
// PERMISSION_DENIED when the last one belongs to another user, so that nobody can lay a trap in a shared /tmp.
Status MakeDirs(const std::string& path, mode_t mode = 0700);

// Removes a file or a whole folder; symbolic links are removed, not followed. A path that is not there is fine.
Status RemoveTree(const std::string& path);

}  // namespace ray
