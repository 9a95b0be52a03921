#include "ray/util/fs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>

namespace ray {
namespace {

Status WriteAll(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status::FromErrno(errno, "write " + path);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return Status::Ok();
}

std::string Parent(const std::string& path) {
  size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Status SyncDir(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return Status::FromErrno(errno, "open " + path);
  // Some file systems cannot sync a folder (EINVAL); they have nothing to lose then.
  Status status = ::fsync(fd) == 0 || errno == EINVAL ? Status::Ok() : Status::FromErrno(errno, "sync " + path);
  ::close(fd);
  return status;
}

}  // namespace

Result<std::string> ReadFile(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Status::FromErrno(errno, "open " + path);
  std::string bytes;
  char chunk[16384];
  ssize_t n;
  while ((n = ::read(fd, chunk, sizeof(chunk))) != 0) {  // to the end: files in /proc tell no size
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    bytes.append(chunk, static_cast<size_t>(n));
  }
  int err = errno;
  ::close(fd);
  if (n < 0) return Status::FromErrno(err, "read " + path);
  return bytes;
}

Status WriteFileAtomic(const std::string& path, std::string_view bytes, mode_t mode) {
  static std::atomic<uint64_t> counter{0};
  std::string temp = path + ".tmp." + std::to_string(::getpid()) + '.' + std::to_string(counter.fetch_add(1));
  int fd = ::open(temp.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
  if (fd < 0) return Status::FromErrno(errno, "create " + temp);
  Status status = ::fchmod(fd, mode) == 0 ? WriteAll(fd, bytes, temp) : Status::FromErrno(errno, "chmod " + temp);
  if (status.ok() && ::fsync(fd) != 0) status = Status::FromErrno(errno, "sync " + temp);
  if (::close(fd) != 0 && status.ok()) status = Status::FromErrno(errno, "close " + temp);
  if (status.ok() && ::rename(temp.c_str(), path.c_str()) != 0) status = Status::FromErrno(errno, "rename " + temp);
  if (!status.ok()) {
    ::unlink(temp.c_str());
    return status;
  }
  return SyncDir(Parent(path));
}

Status MakeDirs(const std::string& path, mode_t mode) {
  if (path.empty()) return Status::InvalidArgument("a folder needs a name");
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), mode) == 0) {
      if (::chmod(part.c_str(), mode) != 0) return Status::FromErrno(errno, "chmod " + part);
    } else if (errno != EEXIST) {
      return Status::FromErrno(errno, "create folder " + part);
    }
    if (end == std::string::npos) break;
  }
  struct stat st;
  if (::stat(path.c_str(), &st) != 0) return Status::FromErrno(errno, "stat " + path);
  if (!S_ISDIR(st.st_mode)) return Status::AlreadyExists(path + " exists and is no folder");
  if (st.st_uid != ::geteuid()) return Status::PermissionDenied(path + " belongs to another user");
  return Status::Ok();
}

Status RemoveTree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return Status::FromErrno(error.value(), "remove " + path);
  return Status::Ok();
}

}  // namespace ray
