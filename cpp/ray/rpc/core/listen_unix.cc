#include "ray/rpc/core/listen_unix.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace ray::rpc {
namespace {

// Who holds it otherwise does so for a system call or two.
constexpr int kTries = 200;
constexpr timespec kPause{0, 10'000'000};

// Holds the folder, against everybody who would listen in it, until the end of the scope. Nothing is left of it in the folder.
class FolderLock {
 public:
  explicit FolderLock(int dir_fd) : fd_(::openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    int rc = fd_ < 0 ? -1 : 0;
    if (fd_ >= 0) {
      // Whoever may read the folder may hold it for ever, and there is no flock with a deadline.
      for (int i = 0; (rc = ::flock(fd_, LOCK_EX | LOCK_NB)) != 0 && (errno == EINTR || errno == EWOULDBLOCK) && i < kTries; ++i) {
        ::nanosleep(&kPause, nullptr);
      }
      if (rc != 0 && errno == EWOULDBLOCK) {
        status_ = Status::Unavailable("another process holds the folder of the socket (flock)");
        return;
      }
    }
    if (rc != 0) status_ = Status::FromErrno(errno, "locking the folder of sockets");
  }
  ~FolderLock() {
    if (fd_ >= 0) ::close(fd_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  const Status& status() const { return status_; }

 private:
  const int fd_;
  Status status_;
};

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

Status ListenUnix(int fd, int dir_fd, const std::string& name, const sockaddr_un& address, socklen_t length, int backlog) {
  // Until it listens: one that is bound and does not yet looks like one that is left.
  const FolderLock lock(dir_fd);
  RAY_RETURN_NOT_OK(lock.status());
  const auto* at = reinterpret_cast<const sockaddr*>(&address);
  if (::bind(fd, at, length) != 0) {
    if (errno != EADDRINUSE) return Status::FromErrno(errno, "binding " + name);
    if (!IsLeft(dir_fd, name, at, length)) return Status::AlreadyExists(name + " is taken");
    ::unlinkat(dir_fd, name.c_str(), 0);
    if (::bind(fd, at, length) != 0) return Status::FromErrno(errno, "binding " + name);
  }
  if (::fchmodat(dir_fd, name.c_str(), 0600, 0) == 0 && ::listen(fd, backlog) == 0) return {};
  Status status = Status::FromErrno(errno, "listening on " + name);
  ::unlinkat(dir_fd, name.c_str(), 0);
  return status;
}

}  // namespace ray::rpc
