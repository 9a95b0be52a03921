// ListenUnix: has a Unix socket listen under its name, in place of a process that has ended, but never of one that listens.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <string>

#include "ray/util/status.h"

namespace ray::rpc {

// Binds `fd` to `name` in the folder `dir_fd`, which is `address`, as it is written for bind, and listens; only this user may connect. A socket left by a process
// that has ended is replaced; ALREADY_EXISTS if somebody listens there, or it is no socket. Of several that come at the same time, in whatever processes, one has the name.
Status ListenUnix(int fd, int dir_fd, const std::string& name, const sockaddr_un& address, socklen_t length, int backlog);

}  // namespace ray::rpc
