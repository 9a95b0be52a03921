#include "ray/object_manager/shm/arena.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace ray::object_manager {

Result<std::unique_ptr<Arena>> Arena::Make(uint64_t size) {
  int fd = ::memfd_create("ray-objects", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return Status::FromErrno(errno, "memfd_create");
  std::unique_ptr<Arena> arena(new Arena(fd, size));
  if (::ftruncate(fd, static_cast<off_t>(size)) != 0)
    return Status::FromErrno(errno, "sizing the object store to " + std::to_string(size) + " bytes");
  if (::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return Status::FromErrno(errno, "sealing the object store's file");
  return arena;
}

Arena::~Arena() { ::close(fd_); }

uint64_t Arena::PageBytes() const {
  struct stat info;
  return ::fstat(fd_, &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
}

Status Arena::AllocatePages(uint64_t begin, uint64_t end) {
  int rc;
  do {
    rc = ::fallocate(fd_, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin), static_cast<off_t>(end - begin));
  } while (rc != 0 && errno == EINTR);
  return rc == 0 ? Status() : Status::FromErrno(errno, "fallocate");
}

Status Arena::ReleasePages(uint64_t begin, uint64_t end) {
  if (::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin), static_cast<off_t>(end - begin)) == 0)
    return {};
  return Status::FromErrno(errno, "returning pages of the object store");
}

Result<std::unique_ptr<Mapping>> Mapping::Make(int fd, uint64_t size, Mode mode) {
  int protection = mode == Mode::kRead ? PROT_READ : PROT_READ | PROT_WRITE;
  void* data = ::mmap(nullptr, size, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (data == MAP_FAILED) return Status::FromErrno(errno, "mapping " + std::to_string(size) + " bytes of the object store");
  ::madvise(data, size, MADV_DONTDUMP);  // a core dump of a worker need not hold the node's objects
  return std::unique_ptr<Mapping>(new Mapping(static_cast<uint8_t*>(data), size));
}

Mapping::~Mapping() { ::munmap(data_, size_); }

}  // namespace ray::object_manager
