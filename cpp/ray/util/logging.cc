#include "ray/util/logging.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "ray/util/mutex.h"

namespace ray {
namespace {

// Where lines go. One per process, never destroyed: threads may log while the process exits.
class Sink {
 public:
  static Sink& Get() {
    static Sink* sink = new Sink;
    return *sink;
  }

  Status Open(const LogOptions& options) {
    int fd = STDERR_FILENO;
    if (!options.file.empty()) {
      fd = OpenFile(options.file);
      if (fd < 0) return Status::FromErrno(errno, "open log file " + options.file);
    }
    MutexLock lock(&mu_);
    CloseLocked();
    fd_ = fd;
    options_ = options;
    size_ = SizeLocked();
    log_internal::level.store(static_cast<int>(options.level), std::memory_order_relaxed);
    return Status::Ok();
  }

  void Write(std::string_view text) {
    MutexLock lock(&mu_);
    if (fd_ != STDERR_FILENO && options_.max_bytes > 0 && size_ > 0 && size_ + text.size() > options_.max_bytes) RotateLocked();
    size_ += text.size();
    while (!text.empty()) {
      ssize_t n = ::write(fd_, text.data(), text.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return;  // a full disk or a closed pipe must not stop the process
      text.remove_prefix(static_cast<size_t>(n));
    }
  }

  bool to_stderr() {
    MutexLock lock(&mu_);
    return fd_ == STDERR_FILENO;
  }

 private:
  static int OpenFile(const std::string& path) { return ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600); }

  void CloseLocked() REQUIRES(mu_) {
    if (fd_ != STDERR_FILENO) ::close(fd_);
  }

  size_t SizeLocked() REQUIRES(mu_) {
    struct stat st;
    return fd_ != STDERR_FILENO && ::fstat(fd_, &st) == 0 ? static_cast<size_t>(st.st_size) : 0;
  }

  // file -> file.1 -> ... -> file.<backups> -> gone. When a new file cannot be opened the old descriptor stays in use.
  void RotateLocked() REQUIRES(mu_) {
    auto name = [this](int i) { return i == 0 ? options_.file : options_.file + "." + std::to_string(i); };
    if (options_.backups <= 0) {
      ::unlink(options_.file.c_str());
    } else {
      for (int i = options_.backups; i > 0; --i) ::rename(name(i - 1).c_str(), name(i).c_str());
    }
    int fd = OpenFile(options_.file);
    if (fd < 0) return;
    ::close(fd_);
    fd_ = fd;
    size_ = SizeLocked();
  }

  Mutex mu_;
  int fd_ GUARDED_BY(mu_) = STDERR_FILENO;
  size_t size_ GUARDED_BY(mu_) = 0;
  LogOptions options_ GUARDED_BY(mu_);
};

}  // namespace

Status StartLogging(const LogOptions& options) { return Sink::Get().Open(options); }

Result<LogLevel> ParseLogLevel(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  static constexpr std::pair<std::string_view, LogLevel> kNames[] = {{"debug", LogLevel::kDebug},
                                                                     {"info", LogLevel::kInfo},
                                                                     {"warning", LogLevel::kWarning},
                                                                     {"error", LogLevel::kError},
                                                                     {"off", LogLevel::kOff}};
  for (const auto& [name, level] : kNames) {
    if (lower == name) return level;
  }
  return Status::InvalidArgument("\"" + std::string(text) + "\" is no log level (debug, info, warning, error, off)");
}

namespace log_internal {

std::atomic<int> level{static_cast<int>(LogLevel::kInfo)};

Line::Line(const char* file, int line, LogLevel level) {
  auto now = std::chrono::system_clock::now();
  std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  int millis = static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000);
  std::tm parts{};
  localtime_r(&seconds, &parts);
  char date[32];
  std::strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &parts);
  char prefix[96];
  std::snprintf(prefix, sizeof(prefix), "[%s,%03d %c %d %d] ", date, millis, "DIWE"[static_cast<int>(level)], static_cast<int>(::getpid()),
                static_cast<int>(::gettid()));
  const char* slash = std::strrchr(file, '/');
  stream_ << prefix << (slash == nullptr ? file : slash + 1) << ':' << line << ": ";
}

Line::~Line() {
  stream_ << '\n';
  Write(stream_.view());
}

void Write(std::string_view text) { Sink::Get().Write(text); }

bool ToStderr() { return Sink::Get().to_stderr(); }

}  // namespace log_internal
}  // namespace ray
