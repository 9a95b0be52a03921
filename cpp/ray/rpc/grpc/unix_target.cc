#include "ray/rpc/grpc/unix_target.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace ray::rpc {

Result<UnixTarget> UnixTarget::Make(const std::string& address) {
  constexpr std::string_view kPrefix = "unix:";
  constexpr size_t kMaxPath = 107;
  if (!address.starts_with(kPrefix) || address.size() - kPrefix.size() <= kMaxPath) return UnixTarget(address, -1);
  std::string path = address.substr(kPrefix.size());
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return Status::InvalidArgument("the socket name is too long: " + path);
  int fd = ::open(path.substr(0, slash + 1).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return Status::FromErrno(errno, "opening the folder of " + path);
  std::string shorter = "unix:/proc/self/fd/" + std::to_string(fd) + path.substr(slash);
  UnixTarget target(std::move(shorter), fd);
  if (target.address_.size() - kPrefix.size() > kMaxPath) return Status::InvalidArgument("the socket name is too long: " + path);
  return target;
}

UnixTarget::UnixTarget(UnixTarget&& other) noexcept
    : address_(std::move(other.address_)), folder_fd_(std::exchange(other.folder_fd_, -1)) {}

UnixTarget& UnixTarget::operator=(UnixTarget&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(folder_fd_, other.folder_fd_);
  return *this;
}

UnixTarget::~UnixTarget() {
  if (folder_fd_ >= 0) ::close(folder_fd_);
}

}  // namespace ray::rpc
