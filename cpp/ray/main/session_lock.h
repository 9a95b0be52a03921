// The lock by which both executables keep their session's folder.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "ray/util/logging.h"
#include "ray/util/status.h"

namespace ray {

// Whoever clears away the folders of ended sessions leaves this one alone as long as this process lives: it may be in another container or on another host
// that shares the folder, where our process id says nothing. Shared, so that all processes of the session hold it; python/ray/_runtime/session_dir.py has
// the other side. REQUIRES: the folder is there.
inline Status HoldSession(const std::string& session_dir) {
  const std::string path = session_dir + "/lock";
  // Stays open to the end of the process, and is not inherited.
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return Status::FromErrno(errno, path);
  int result;
  do {
    result = ::flock(fd, LOCK_SH);
  } while (result != 0 && errno == EINTR);
  // Without locks in that file system nothing is cleared away there.
  if (result != 0) RAY_LOG(WARNING) << Status::FromErrno(errno, "locking " + path).ToString();
  // Whoever clears away held it meanwhile: what is locked then is a file that has gone.
  struct stat locked, there;
  if (::fstat(fd, &locked) != 0) return Status::FromErrno(errno, path);
  if (::stat(path.c_str(), &there) != 0) return Status::FromErrno(errno, path);
  if (locked.st_dev != there.st_dev || locked.st_ino != there.st_ino) return Status::FromErrno(ENOENT, path);
  return {};
}

}  // namespace ray
