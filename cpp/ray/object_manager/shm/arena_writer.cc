#include "ray/object_manager/shm/arena_writer.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ray/util/check.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace ray::object_manager {

struct HelperThread::Work {
  const std::function<void(size_t)>* fn;
  size_t n;
  std::atomic<size_t> next{0};
  void Do() {
    for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) (*fn)(i);
  }
};

HelperThread::~HelperThread() {
  {
    MutexLock lock(&mu_);
    stopped_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void HelperThread::ForEach(size_t n, const std::function<void(size_t)>& fn) {
  Work work{&fn, n};
  if (n < 2 || !owner_mu_.TryLock()) {
    work.Do();
    return;
  }
  if (!thread_.joinable()) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    thread_ = std::thread([this] { Run(); });
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
  }
  {
    MutexLock lock(&mu_);
    work_ = &work;
  }
  changed_.notify_all();
  work.Do();
  {
    // Taken back if the helper has not woken yet; else it is in its last piece.
    std::unique_lock<std::mutex> lock(mu_.native());
    work_ = nullptr;
    changed_.wait(lock, [this] { return !busy_; });
  }
  owner_mu_.Unlock();
}

void HelperThread::Run() {
  pthread_setname_np(pthread_self(), "store-copy");
  std::unique_lock<std::mutex> lock(mu_.native());
  for (;;) {
    changed_.wait(lock, [this] { return stopped_ || work_ != nullptr; });
    if (stopped_) return;
    Work* work = work_;
    work_ = nullptr;
    busy_ = true;
    lock.unlock();
    work->Do();
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

Result<std::unique_ptr<ArenaWriter>> ArenaWriter::Make(int fd, uint64_t size) {
  auto mapping = Mapping::Make(fd, size, Mapping::Mode::kReadWrite);
  if (!mapping.ok()) {
    ::close(fd);
    return mapping.status();
  }
  return std::unique_ptr<ArenaWriter>(new ArenaWriter(fd, std::move(mapping).value()));
}

ArenaWriter::ArenaWriter(int fd, std::unique_ptr<Mapping> mapping)
    : fd_(fd), mapping_(std::move(mapping)), seen_((mapping_->size() / kSeenBytes + 8) / 8) {}

ArenaWriter::~ArenaWriter() { ::close(fd_); }

Status ArenaWriter::Write(uint64_t offset, const void* from, size_t size, uint64_t warm_end) {
  RAY_CHECK(offset <= mapping_->size() && size <= mapping_->size() - offset);
  const auto* bytes = static_cast<const uint8_t*>(from);
  size_t warm = warm_end > offset ? std::min<uint64_t>(size, warm_end - offset) : 0;
  // A small cold rest is not worth a system call.
  if (size - warm < kPwriteBytes) warm = size;
  if (warm > 0) WriteWarm(offset, bytes, warm);
  return warm < size ? WriteCold(offset + warm, bytes + warm, size - warm) : Status();
}

Status ArenaWriter::WriteCold(uint64_t offset, const uint8_t* from, size_t size) {
  // What this process's page tables had here is gone, if they had anything: the pages are new.
  for (uint64_t i = offset / kSeenBytes; i <= (offset + size - 1) / kSeenBytes; ++i) {
    seen_[i / 8].fetch_and(static_cast<uint8_t>(~(1u << (i % 8))), std::memory_order_relaxed);
  }
  while (size > 0) {
    ssize_t n = ::pwrite(fd_, from, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status::FromErrno(errno, "writing into the object store");
    offset += static_cast<uint64_t>(n);
    from += n;
    size -= static_cast<size_t>(n);
  }
  return {};
}

void ArenaWriter::WriteWarm(uint64_t offset, const uint8_t* from, size_t size) {
  if (size < kParallelBytes) {
    CopyChunk(offset, from, size);
    return;
  }
  helper_.ForEach((size + kChunkBytes - 1) / kChunkBytes, [&](size_t i) {
    size_t begin = i * kChunkBytes;
    CopyChunk(offset + begin, from + begin, std::min(kChunkBytes, size - begin));
  });
}

void ArenaWriter::CopyChunk(uint64_t offset, const uint8_t* from, size_t size) {
  if (size >= kPopulateBytes) {
    const uint64_t first = offset / kSeenBytes, last = (offset + size - 1) / kSeenBytes;
    for (uint64_t i = first; i <= last;) {
      auto seen = [&](uint64_t k) { return (seen_[k / 8].load(std::memory_order_relaxed) >> (k % 8)) & 1; };
      if (seen(i)) {
        ++i;
        continue;
      }
      uint64_t end = i + 1;
      while (end <= last && !seen(end)) ++end;
      // Only the pages of this write: those beside it may be free, and populating would make pages that nobody asked for.
      uint64_t from_page = std::max(i * kSeenBytes, offset & ~uint64_t{4095});
      uint64_t to_page = std::min(end * kSeenBytes, (offset + size + 4095) & ~uint64_t{4095});
      to_page = std::min(to_page, mapping_->size());
      // Fails on old kernels; then pages fault one by one.
      ::madvise(mapping_->data() + from_page, to_page - from_page, MADV_POPULATE_WRITE);
      // Partly covered units stay unmarked: the next write there populates again what it needs.
      for (uint64_t k = i; k < end; ++k) {
        if (k * kSeenBytes >= from_page && (k + 1) * kSeenBytes <= to_page)
          seen_[k / 8].fetch_or(static_cast<uint8_t>(1u << (k % 8)), std::memory_order_relaxed);
      }
      i = end;
    }
  }
  std::memcpy(mapping_->data() + offset, from, size);
}

}  // namespace ray::object_manager
