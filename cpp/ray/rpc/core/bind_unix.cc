#include "ray/rpc/core/bind_unix.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace ray::rpc {
namespace {

// A socket on which nobody listens any more.
bool IsLeft(int dir_fd, const std::string& name, const sockaddr* at, socklen_t length) {
  struct stat there {};
  if (::fstatat(dir_fd, name.c_str(), &there, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISSOCK(there.st_mode)) return false;
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (probe < 0) return false;
  const bool left = ::connect(probe, at, length) != 0 && errno == ECONNREFUSED;
  ::close(probe);
  return left;
}

}  // namespace

Status BindUnix(int fd, int dir_fd, const std::string& name, const sockaddr_un& address, socklen_t length) {
  const auto* at = reinterpret_cast<const sockaddr*>(&address);
  if (::bind(fd, at, length) == 0) return {};
  if (errno != EADDRINUSE) return Status::FromErrno(errno, "binding " + name);
  if (!IsLeft(dir_fd, name, at, length)) return Status::AlreadyExists(name + " is taken");
  ::unlinkat(dir_fd, name.c_str(), 0);
  if (::bind(fd, at, length) != 0) return Status::FromErrno(errno, "binding " + name);
  return {};
}

}  // namespace ray::rpc
