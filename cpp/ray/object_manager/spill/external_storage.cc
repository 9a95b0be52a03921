#include "ray/object_manager/spill/external_storage.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "ray/common/errors.h"
#include "ray/util/check.h"
#include "ray/util/logging.h"
#include "ray/util/subprocess.h"

namespace ray::object_manager {
namespace {

constexpr size_t kBufferBytes = 1 << 20;
constexpr uint64_t kMaxTextBytes = 64 << 10;  // of a failure

}  // namespace

// A helper process and our end of its socket. Used by one thread, save Interrupt.
class ExternalStorage::Helper {
 public:
  explicit Helper(const ExternalStorageConfig* config) : config_(config) {}
  ~Helper() { Drop(); }

  Status Write(const std::string& uri, const std::vector<MemoryFile>& ranges) {
    uint64_t size = 0;
    for (const MemoryFile& range : ranges) size += range.size;
    return Request('w', uri, 0, size, [&]() -> Status {
      for (const MemoryFile& range : ranges) RAY_RETURN_NOT_OK(SendRange(range));
      return {};
    });
  }
  Status Read(const std::string& uri, uint64_t offset, const MemoryFile& to) {
    to_ = &to;
    Status status = Request('r', uri, offset, to.size, [] { return Status(); });
    to_ = nullptr;
    return status;
  }
  Status Delete(const std::string& uri) {
    return Request('d', uri, 0, 0, [] { return Status(); });
  }

  // Whatever it does fails soon, and what it is asked afterwards at once. Thread-safe.
  void Interrupt() {
    MutexLock lock(&mu_);
    interrupted_ = true;
    if (fd_ >= 0) ::shutdown(fd_, SHUT_RDWR);
  }

 private:
  template <typename SendBody>
  Status Request(char what, const std::string& uri, uint64_t offset, uint64_t size, SendBody send_body) {
    RAY_RETURN_NOT_OK(Start());
    Status status = Exchange(what, uri, offset, size, send_body);
    // After a failure of the helper itself nobody knows where in the conversation it is.
    if (broken_) Drop();
    if (!status.ok() && Interrupted()) return Stopping();
    return status.ok() ? status : Status(status.code(), uri + ": " + status.message(), status.cause());
  }

  template <typename SendBody>
  Status Exchange(char what, const std::string& uri, uint64_t offset, uint64_t size, SendBody send_body) {
    std::string head(21, what);
    const auto length = static_cast<uint32_t>(uri.size());
    std::memcpy(head.data() + 1, &length, 4);
    std::memcpy(head.data() + 5, &offset, 8);
    std::memcpy(head.data() + 13, &size, 8);
    head += uri;
    broken_ = true;
    RAY_RETURN_NOT_OK(Send(head.data(), head.size()));
    RAY_RETURN_NOT_OK(send_body());
    char answer[9];
    RAY_RETURN_NOT_OK(Receive(answer, sizeof(answer)));
    uint64_t answered = 0;
    std::memcpy(&answered, answer + 1, 8);
    if (answer[0] == 'k') {
      if (what == 'r') {
        if (answered != size) return Status::DataLoss("it has too few bytes");
        RAY_RETURN_NOT_OK(ReceiveRange(*to_));
      }
      broken_ = false;
      return {};
    }
    std::string text(std::min(answered, kMaxTextBytes), '\0');
    RAY_RETURN_NOT_OK(Receive(text.data(), text.size()));
    broken_ = answered > kMaxTextBytes;
    if (answer[0] == 'l') return Status::DataLoss(text);
    if (answer[0] == 'f') return Status(StatusCode::kResourceExhausted, text, static_cast<int32_t>(ErrorType::kOutOfDisk));
    return Status::Internal(text);
  }

  bool Interrupted() {
    MutexLock lock(&mu_);
    return interrupted_;
  }
  static Status Stopping() { return Status::Cancelled("the store stops"); }

  Status Start() {
    if (process_.has_value() && !process_->Poll()) return {};
    Drop();
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return Status::FromErrno(errno, "socketpair");
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(config_->progress_timeout).count();
    const timeval limit{.tv_sec = us / 1'000'000, .tv_usec = us % 1'000'000};
    ::setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    ::setsockopt(ends[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    {
      MutexLock lock(&mu_);
      if (interrupted_) {
        ::close(ends[0]);
        ::close(ends[1]);
        return Stopping();
      }
      fd_ = ends[0];
    }
    // The thread that starts it lives as long as the storage, so it dies with us.
    auto process =
        Subprocess::Spawn({.argv = config_->helper, .fds = {{ends[1], 0}, {ends[1], 1}}, .new_session = true, .death_signal = SIGKILL});
    ::close(ends[1]);
    if (!process.ok()) {
      Drop();
      return process.status();
    }
    process_.emplace(std::move(process).value());
    return {};
  }

  // Ends the process.
  void Drop() {
    {
      MutexLock lock(&mu_);
      if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    }
    process_.reset();  // kills and reaps
    broken_ = false;
  }

  // fd_ changes on this thread only.
  Status Send(const char* bytes, size_t size) NO_THREAD_SAFETY_ANALYSIS {
    while (size > 0) {
      const ssize_t n = ::send(fd_, bytes, size, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Ended(errno);
      bytes += n;
      size -= static_cast<size_t>(n);
    }
    return {};
  }
  Status Receive(char* bytes, size_t size) NO_THREAD_SAFETY_ANALYSIS {
    while (size > 0) {
      const ssize_t n = ::recv(fd_, bytes, size, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return Ended(n < 0 ? errno : 0);
      bytes += n;
      size -= static_cast<size_t>(n);
    }
    return {};
  }
  static Status Ended(int err) {
    if (err == EAGAIN || err == EWOULDBLOCK) return Status::DeadlineExceeded("the helper for external storage makes no progress");
    return Status::Unavailable("the helper for external storage has ended");
  }
  Status SendRange(const MemoryFile& range) {
    buffer_.resize(kBufferBytes);
    for (uint64_t done = 0; done < range.size;) {
      const size_t want = std::min<uint64_t>(buffer_.size(), range.size - done);
      const ssize_t n = ::pread(range.fd, buffer_.data(), want, static_cast<off_t>(range.offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return Status::FromErrno(n < 0 ? errno : EIO, "reading the object store's memory");
      RAY_RETURN_NOT_OK(Send(buffer_.data(), static_cast<size_t>(n)));
      done += static_cast<uint64_t>(n);
    }
    return {};
  }
  Status ReceiveRange(const MemoryFile& to) {
    buffer_.resize(kBufferBytes);
    for (uint64_t done = 0; done < to.size;) {
      const size_t n = std::min<uint64_t>(buffer_.size(), to.size - done);
      RAY_RETURN_NOT_OK(Receive(buffer_.data(), n));
      for (size_t put = 0; put < n;) {
        const ssize_t m = ::pwrite(to.fd, buffer_.data() + put, n - put, static_cast<off_t>(to.offset + done + put));
        if (m < 0 && errno == EINTR) continue;
        if (m < 0) return Status::FromErrno(errno, "writing the object store's memory");
        put += static_cast<size_t>(m);
      }
      done += n;
    }
    return {};
  }

  const ExternalStorageConfig* const config_;
  std::optional<Subprocess> process_;
  bool broken_ = false;
  const MemoryFile* to_ = nullptr;  // during a read
  std::vector<char> buffer_;
  Mutex mu_;
  int fd_ GUARDED_BY(mu_) = -1;
  bool interrupted_ GUARDED_BY(mu_) = false;
};

ExternalStorage::ExternalStorage(const ExternalStorageConfig& config)
    : config_(config), segments_(config.segments), reader_(std::make_unique<TaskThread>("store-disk")) {
  RAY_CHECK(!config.uris.empty() && !config.helper.empty());
  for (size_t i = 0; i < config_.uris.size(); ++i) {
    write_helpers_.push_back(std::make_unique<Helper>(&config_));
    writers_.push_back(std::make_unique<TaskThread>("store-disk"));
  }
  read_helper_ = std::make_unique<Helper>(&config_);
}

ExternalStorage::~ExternalStorage() { Stop(); }

int ExternalStorage::num_directories() const { return static_cast<int>(config_.uris.size()); }

std::string ExternalStorage::UriOf(int directory, uint64_t file) const {
  return config_.uris[static_cast<size_t>(directory)] + "/ray_spilled_objects_" + config_.node + "_" + std::to_string(file);
}

void ExternalStorage::Write(int directory, uint64_t file, std::vector<MemoryFile> ranges, Done done) {
  writers_[static_cast<size_t>(directory)]->Add([this, directory, file, ranges = std::move(ranges), done = std::move(done)] {
    {
      MutexLock lock(&mu_);
      files_.emplace(directory, file);
    }
    Helper* helper = write_helpers_[static_cast<size_t>(directory)].get();
    Status status = helper->Write(UriOf(directory, file), ranges);
    if (!status.ok()) DeleteNow(helper, directory, file);
    done(status);
  });
}

void ExternalStorage::Read(int directory, uint64_t file, uint64_t offset, MemoryFile to, Done done) {
  reader_->Add(
      [this, directory, file, offset, to, done = std::move(done)] { done(read_helper_->Read(UriOf(directory, file), offset, to)); });
}

void ExternalStorage::Delete(int directory, uint64_t file) {
  reader_->Add([this, directory, file] { DeleteNow(read_helper_.get(), directory, file); });
}

void ExternalStorage::DeleteNow(Helper* helper, int directory, uint64_t file) {
  Status status = helper->Delete(UriOf(directory, file));
  if (status.code() == StatusCode::kCancelled) return;  // Stop does it
  if (!status.ok()) RAY_LOG(WARNING) << "deleting a file of spilled objects failed: " << status.ToString();
  MutexLock lock(&mu_);
  files_.erase({directory, file});
}

void ExternalStorage::MakeSegment(uint64_t size, SegmentDone done) { segments_.MakeSegment(size, std::move(done)); }

void ExternalStorage::Stop() {
  if (std::exchange(stopped_, true)) return;
  for (const auto& helper : write_helpers_) helper->Interrupt();
  read_helper_->Interrupt();
  for (const auto& writer : writers_) writer->Stop();
  reader_->Stop();
  segments_.Stop();
  write_helpers_.clear();
  read_helper_.reset();
  std::set<std::pair<int, uint64_t>> left;
  {
    MutexLock lock(&mu_);
    left.swap(files_);
  }
  if (left.empty()) return;
  Helper last(&config_);
  TaskThread cleaner("store-disk");
  std::mutex mu;
  std::condition_variable cleaned;
  bool done = false;
  cleaner.Add([&] {
    for (const auto& [directory, file] : left) DeleteNow(&last, directory, file);
    std::lock_guard lock(mu);
    done = true;
    cleaned.notify_all();
  });
  std::unique_lock lock(mu);
  if (!cleaned.wait_for(lock, config_.clean_up_timeout, [&] { return done; })) {
    RAY_LOG(WARNING) << "not all of " << left.size() << " files of spilled objects could be deleted in time";
    last.Interrupt();
  }
  lock.unlock();
  cleaner.Stop();
}

}  // namespace ray::object_manager
