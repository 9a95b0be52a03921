#include "ray/util/sd_notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

namespace ray {

Status SdNotify(const std::string& notify_socket, std::string_view state) {
  if (notify_socket.empty()) return Status::Ok();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if ((notify_socket[0] != '/' && notify_socket[0] != '@') || notify_socket.size() >= sizeof(address.sun_path)) {
    return Status::InvalidArgument("NOTIFY_SOCKET is no socket: " + notify_socket);
  }
  std::memcpy(address.sun_path, notify_socket.data(), notify_socket.size());
  if (notify_socket[0] == '@') address.sun_path[0] = '\0';  // in the abstract name space
  int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Status::FromErrno(errno, "socket");
  auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + notify_socket.size());
  ssize_t sent = ::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address), length);
  int err = errno;
  ::close(fd);
  return sent < 0 ? Status::FromErrno(err, "notify " + notify_socket) : Status::Ok();
}

}  // namespace ray
