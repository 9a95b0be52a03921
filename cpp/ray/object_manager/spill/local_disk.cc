#include "ray/object_manager/spill/local_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "ray/common/errors.h"
#include "ray/util/fs.h"
#include "ray/util/logging.h"
#include "ray/util/mutex.h"

namespace ray::object_manager {
namespace {

constexpr char kPrefix[] = "ray_spilled_objects_";
constexpr size_t kBufferBytes = 1 << 20;  // copied at a time; stays in the processor's cache

struct Fd {
  explicit Fd(int fd) : fd(fd) {}
  ~Fd() {
    if (fd >= 0) ::close(fd);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int Take() { return std::exchange(fd, -1); }
  int fd;
};

Status OutOfDisk(std::string message) {
  return Status(StatusCode::kResourceExhausted, std::move(message), static_cast<int32_t>(ErrorType::kOutOfDisk));
}

Status Failure(int err, const std::string& what) {
  if (err == ENOSPC || err == EDQUOT) return OutOfDisk(what + ": no space left");
  return Status::FromErrno(err, what);
}

Status CopyBytes(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t size, const std::string& what,
                 const std::atomic<bool>& stopping) {
  std::vector<char> buffer(std::min<uint64_t>(size, kBufferBytes));
  while (size > 0) {
    if (stopping.load(std::memory_order_relaxed)) return Status::Cancelled(what + ": the store stops");
    const ssize_t n = ::pread(from, buffer.data(), std::min<uint64_t>(size, buffer.size()), static_cast<off_t>(from_offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failure(errno, what);
    if (n == 0) return Status::DataLoss(what + ": the file is too short");
    for (ssize_t done = 0; done < n;) {
      const ssize_t m = ::pwrite(to, buffer.data() + done, static_cast<size_t>(n - done), static_cast<off_t>(to_offset) + done);
      if (m < 0 && errno == EINTR) continue;
      if (m < 0) return Failure(errno, what);
      done += m;
    }
    from_offset += static_cast<uint64_t>(n);
    to_offset += static_cast<uint64_t>(n);
    size -= static_cast<uint64_t>(n);
  }
  return {};
}

}  // namespace

class LocalDisk::Folder {
 public:
  Folder(std::string parent, const std::string& node, double max_disk_use)
      : parent_(std::move(parent)), path_(parent_ + "/" + kPrefix + node), max_disk_use_(max_disk_use) {}

  // Makes and locks the folder, unless it is there, and sees that the disk has room for so much more. Thread-safe.
  Status Prepare(uint64_t bytes) {
    RAY_RETURN_NOT_OK(MakeFolder());
    struct statvfs disk;
    if (::statvfs(path_.c_str(), &disk) != 0) return Status::FromErrno(errno, path_);
    const double unit = static_cast<double>(disk.f_frsize);
    const double used = unit * static_cast<double>(disk.f_blocks - disk.f_bfree), available = unit * static_cast<double>(disk.f_bavail);
    if (used + static_cast<double>(bytes) <= max_disk_use_ * (used + available)) return {};
    return OutOfDisk(std::to_string(bytes) + " bytes more would fill the disk of " + parent_ + " above " +
                     std::to_string(static_cast<int>(max_disk_use_ * 100)) + " %: it has " +
                     std::to_string(static_cast<uint64_t>(available)) + " bytes left");
  }

  std::string FileName(uint64_t file) const { return path_ + "/" + std::to_string(file); }

  Status Write(uint64_t file, const std::vector<MemoryFile>& ranges) {
    uint64_t size = 0;
    for (const MemoryFile& range : ranges) size += range.size;
    RAY_RETURN_NOT_OK(Prepare(size));
    const std::string name = FileName(file);
    Fd fd(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (fd.fd < 0) return Failure(errno, name);
    uint64_t offset = 0;
    for (const MemoryFile& range : ranges) {
      if (Status s = CopyBytes(range.fd, range.offset, fd.fd, offset, range.size, name, stopping_); !s.ok()) {
        ::unlink(name.c_str());
        return s;
      }
      offset += range.size;
    }
    return {};
  }

  Status Read(uint64_t file, uint64_t offset, const MemoryFile& to) const {
    const std::string name = FileName(file);
    Fd fd(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.fd < 0) return Failure(errno, name);
    return CopyBytes(fd.fd, offset, to.fd, to.offset, to.size, name, stopping_);
  }

  Result<int> MakeSegment(uint64_t size, uint64_t number) {
    RAY_RETURN_NOT_OK(Prepare(size));
    const std::string name = path_ + "/overflow-" + std::to_string(number);
    Fd fd(::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (fd.fd < 0) return Failure(errno, name);
    ::unlink(name.c_str());  // it goes with its last user, whatever happens
    int err;
    do {
      err = ::posix_fallocate(fd.fd, 0, static_cast<off_t>(size));
    } while (err == EINTR);
    if (err != 0) return Failure(err, name);
    return fd.Take();
  }

  void Delete(uint64_t file) const {
    const std::string name = FileName(file);
    if (::unlink(name.c_str()) != 0 && errno != ENOENT) RAY_LOG(WARNING) << Status::FromErrno(errno, name).ToString();
  }

  // What is going on ends soon, with CANCELLED. Thread-safe.
  void Cancel() { stopping_.store(true, std::memory_order_relaxed); }

  void Remove() {
    MutexLock lock(&mu_);
    if (lock_fd_ < 0) return;
    if (Status s = RemoveTree(path_); !s.ok()) RAY_LOG(WARNING) << s.ToString();
    ::close(std::exchange(lock_fd_, -1));
  }

  void RemoveLeftovers() const {
    DIR* dir = ::opendir(parent_.c_str());
    if (dir == nullptr) return;  // nothing was ever spilled here
    std::vector<std::string> found;
    while (const dirent* entry = ::readdir(dir)) {
      if (std::string_view(entry->d_name).starts_with(kPrefix)) found.push_back(parent_ + "/" + entry->d_name);
    }
    ::closedir(dir);
    for (const std::string& path : found) {
      struct stat info;
      Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (fd.fd < 0 || ::fstat(fd.fd, &info) != 0 || info.st_uid != ::geteuid()) continue;
      if (::flock(fd.fd, LOCK_EX | LOCK_NB) != 0) continue;  // its node lives
      Status s = RemoveTree(path);
      RAY_LOG(INFO) << "removed what a crashed node had spilled to " << path << (s.ok() ? "" : ": " + s.ToString());
    }
  }

 private:
  Status MakeFolder() {
    MutexLock lock(&mu_);
    if (lock_fd_ >= 0 && ::access(path_.c_str(), F_OK) != 0) ::close(std::exchange(lock_fd_, -1));  // somebody cleaned up behind us
    while (lock_fd_ < 0) {
      RAY_RETURN_NOT_OK(MakeDirs(path_));
      Fd fd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (fd.fd < 0 || ::flock(fd.fd, LOCK_EX) != 0) return Status::FromErrno(errno, path_);
      // A node that cleans up may have been quicker than the lock, and taken the folder away.
      struct stat here, there;
      if (::fstat(fd.fd, &here) != 0) return Status::FromErrno(errno, path_);
      if (::stat(path_.c_str(), &there) == 0 && here.st_ino == there.st_ino && here.st_dev == there.st_dev) lock_fd_ = fd.Take();
    }
    return {};
  }

  const std::string parent_;
  const std::string path_;
  const double max_disk_use_;
  std::atomic<bool> stopping_{false};
  Mutex mu_;
  int lock_fd_ GUARDED_BY(mu_) = -1;  // holds the lock while the folder is used
};

LocalDisk::LocalDisk(const LocalDiskConfig& config) : config_(config), reader_(std::make_unique<TaskThread>("store-disk")) {
  RAY_CHECK(!config.directories.empty());
  for (const std::string& directory : config_.directories) {
    folders_.push_back(std::make_unique<Folder>(directory, config_.node, config_.max_disk_use));
    writers_.push_back(std::make_unique<TaskThread>("store-disk"));
  }
}

LocalDisk::~LocalDisk() { Stop(); }

void LocalDisk::RemoveLeftovers() {
  reader_->Add([this] {
    for (const auto& folder : folders_) folder->RemoveLeftovers();
  });
}

int LocalDisk::num_directories() const { return static_cast<int>(folders_.size()); }

void LocalDisk::Write(int directory, uint64_t file, std::vector<MemoryFile> ranges, Done done) {
  Folder* folder = folders_[static_cast<size_t>(directory)].get();
  writers_[static_cast<size_t>(directory)]->Add(
      [folder, file, ranges = std::move(ranges), done = std::move(done)] { done(folder->Write(file, ranges)); });
}

void LocalDisk::Read(int directory, uint64_t file, uint64_t offset, MemoryFile to, Done done) {
  Folder* folder = folders_[static_cast<size_t>(directory)].get();
  reader_->Add([folder, file, offset, to, done = std::move(done)] { done(folder->Read(file, offset, to)); });
}

void LocalDisk::Delete(int directory, uint64_t file) {
  Folder* folder = folders_[static_cast<size_t>(directory)].get();
  reader_->Add([folder, file] { folder->Delete(file); });
}

void LocalDisk::MakeSegment(uint64_t size, SegmentDone done) {
  reader_->Add([this, size, done = std::move(done)] {
    Result<int> fd = Status::Internal("no folder");
    for (size_t i = 0; i < folders_.size() && !fd.ok(); ++i) {
      Result<int> made = folders_[i]->MakeSegment(size, ++last_segment_);
      // A full disk is what the user can do something about: it wins over other failures.
      const bool full = fd.status().cause() == static_cast<int32_t>(ErrorType::kOutOfDisk);
      if (made.ok() || !full) fd = std::move(made);
    }
    done(std::move(fd));
  });
}

void LocalDisk::Stop() {
  for (const auto& folder : folders_) folder->Cancel();
  for (const auto& writer : writers_) writer->Stop();
  reader_->Stop();
  for (const auto& folder : folders_) folder->Remove();
}

}  // namespace ray::object_manager
