#include "ray/raylet/logs/log_tailer.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "ray/util/logging.h"

namespace ray::raylet {

namespace {

constexpr int kMaxBackups = 1000;
constexpr int kAttempts = 3;  // to look at files that are being renamed

}  // namespace

std::string WorkerLogName(const WorkerId& worker, const JobId& job, int64_t pid) {
  return "worker-" + worker.Hex() + "-" + job.Hex() + "-" + std::to_string(pid);
}

LogTailer::LogTailer(std::string log_dir, async::EpollLoop* loop, Duration coalesce, Sink sink)
    : dir_(std::move(log_dir)), loop_(loop), coalesce_(coalesce), sink_(std::move(sink)) {}

Result<std::unique_ptr<LogTailer>> LogTailer::Make(std::string log_dir, async::EpollLoop* loop, Duration coalesce, Sink sink) {
  std::unique_ptr<LogTailer> tailer(new LogTailer(std::move(log_dir), loop, coalesce, std::move(sink)));
  RAY_RETURN_NOT_OK(tailer->Watch());
  return tailer;
}

Status LogTailer::Watch() {
  inotify_ = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (inotify_ < 0) return Status::FromErrno(errno, "inotify for worker logs");
  if (inotify_add_watch(inotify_, dir_.c_str(), IN_MODIFY) < 0) return Status::FromErrno(errno, "watching " + dir_);
  return loop_->WatchFd(inotify_, EPOLLIN, [this](uint32_t) { OnEvents(); });
}

LogTailer::~LogTailer() {
  if (timer_ != 0) loop_->CancelTimer(timer_);
  if (inotify_ >= 0) {
    loop_->UnwatchFd(inotify_);
    close(inotify_);
  }
  for (auto& [worker, files] : workers_) {
    for (auto& file : files) {
      if (file->fd >= 0) close(file->fd);
    }
  }
}

void LogTailer::Track(const WorkerId& worker, const JobId& job, int64_t pid) {
  auto& files = workers_[worker];
  if (files[0] != nullptr) return;
  for (size_t i = 0; i < files.size(); ++i) {
    files[i] = std::make_unique<File>();
    files[i]->name = WorkerLogName(worker, job, pid) + (i == 0 ? ".out" : ".err");
    files[i]->job = job;
    files[i]->pid = pid;
    files[i]->is_stderr = i == 1;
    by_name_[files[i]->name] = files[i].get();
    MarkDirty(files[i].get());  // it may have printed before it registered
  }
}

void LogTailer::MarkDirty(File* file) {
  dirty_.insert(file);
  if (timer_ == 0) {
    timer_ = loop_->AddTimer(coalesce_, [this] {
      timer_ = 0;
      Turn();
    });
  }
}

void LogTailer::OnEvents() {
  alignas(inotify_event) char buffer[16 << 10];
  const ssize_t n = read(inotify_, buffer, sizeof buffer);
  for (ssize_t at = 0; at < n;) {
    const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
    at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
    if ((event->mask & IN_Q_OVERFLOW) != 0) {
      for (const auto& [name, file] : by_name_) MarkDirty(file);
    } else if (event->len > 0) {
      if (const auto it = by_name_.find(std::string_view(event->name)); it != by_name_.end()) MarkDirty(it->second);
    }
  }
}

void LogTailer::Turn() {
  std::set<File*> files;
  files.swap(dirty_);
  for (File* file : files) {
    if (ReadSome(file, kMaxRead) || Advance(file, /*last=*/false)) MarkDirty(file);
  }
}

int LogTailer::OpenOldest(const File& file) const {
  const std::string base = dir_ + "/" + file.name;
  const auto backup = [&](int i) { return base + "." + std::to_string(i); };
  int fd = -1;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    int i = 0;
    while (i < kMaxBackups && access(backup(i + 1).c_str(), F_OK) == 0) ++i;
    if (fd >= 0) close(fd);
    fd = open((i == 0 ? base : backup(i)).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && access(backup(i + 1).c_str(), F_OK) != 0) break;  // else it was renamed while we looked
  }
  return fd;
}

int LogTailer::OpenYounger(const File& file) const {
  struct stat mine, other;
  if (fstat(file.fd, &mine) != 0) return -1;
  const auto is_mine = [&](const std::string& path) {
    return stat(path.c_str(), &other) == 0 && other.st_ino == mine.st_ino && other.st_dev == mine.st_dev;
  };
  const std::string base = dir_ + "/" + file.name;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {  // the worker may rotate again while we look
    if (is_mine(base)) return -1;
    std::string younger = base, path;
    for (int i = 1; i < kMaxBackups; ++i, younger = path) {
      path = base + "." + std::to_string(i);
      if (is_mine(path)) break;
      if (access(path.c_str(), F_OK) != 0) {  // ours was deleted meanwhile: the oldest that is left comes next
        path.clear();
        break;
      }
    }
    const int fd = open(younger.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;  // between its renaming and its new file
    if (path.empty() || is_mine(path)) return fd;
    close(fd);
  }
  return -1;
}

bool LogTailer::Advance(File* file, bool last) {
  if (file->fd < 0) return false;
  const int younger = OpenYounger(*file);
  if (younger < 0) return false;
  if (!last && !file->rotated) {  // other threads of the worker may have been writing to the old one: once more, a turn later
    close(younger);
    return file->rotated = true;
  }
  file->rotated = false;
  close(std::exchange(file->fd, younger));
  return true;
}

bool LogTailer::ReadSome(File* file, size_t limit) {
  if (file->fd < 0) {
    file->fd = OpenOldest(*file);    // the worker may have rotated it before we came
    if (file->fd < 0) return false;  // not there yet
  }
  std::vector<char> buffer(64 << 10);
  size_t total = 0;
  while (total < limit) {
    const ssize_t n = read(file->fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    total += static_cast<size_t>(n);
    std::vector<LineSplitter::Batch> batches;
    file->splitter.Feed({buffer.data(), static_cast<size_t>(n)}, &batches);
    for (auto& batch : batches) sink_({file->job, file->pid, file->is_stderr, std::move(batch)});
  }
  return true;
}

void LogTailer::Drain(const WorkerId& worker) {
  const auto it = workers_.find(worker);
  if (it == workers_.end()) return;
  for (auto& file : it->second) {
    // Bounded even if the worker prints as fast as we read.
    for (int i = 0; i < 64 && !ReadSome(file.get(), 64 * kMaxRead) && Advance(file.get(), /*last=*/true);) ++i;
  }
}

void LogTailer::DrainJob(const JobId& job) {
  for (auto& [worker, files] : workers_) {
    if (files[0]->job == job) Drain(worker);
  }
}

void LogTailer::Untrack(const WorkerId& worker) {
  const auto it = workers_.find(worker);
  if (it == workers_.end()) return;
  Drain(worker);
  for (auto& file : it->second) {
    std::vector<LineSplitter::Batch> batches;
    file->splitter.Flush(&batches);
    for (auto& batch : batches) sink_({file->job, file->pid, file->is_stderr, std::move(batch)});
    if (file->fd >= 0) close(file->fd);
    dirty_.erase(file.get());
    by_name_.erase(file->name);
  }
  workers_.erase(it);
}

}  // namespace ray::raylet
