#include "ray/object_manager/shm/arena_writer.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ray/util/check.h"
#include "ray/util/signals.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace ray::object_manager {
namespace {

constexpr uint64_t kPageBytes = 4096;

}  // namespace

HelperThreads::HelperThreads() : HelperThreads(std::clamp<size_t>(std::thread::hardware_concurrency(), 1, 4) - 1) {}

HelperThreads::~HelperThreads() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(&mu_);
    stopped_ = true;
    threads.swap(threads_);
  }
  offered_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

void HelperThreads::ForEach(size_t n, const std::function<void(size_t)>& fn) {
  Work work{&fn, n};
  std::unique_lock<std::mutex> lock(mu_.native());
  if (n > 1) {
    works_.push_back(&work);
    if (threads_.size() < std::min(max_, n - 1)) {
      // The process's signals are for its other threads.
      ScopedBlockSignals block;
      while (threads_.size() < std::min(max_, n - 1)) threads_.emplace_back([this] { Run(); });
    }
    offered_.notify_all();
  }
  while (work.next < n) {
    const size_t i = work.next++;
    lock.unlock();  // the helpers take their pieces under the lock, and the work stays until the end of this call
    fn(i);
    lock.lock();
  }
  works_.remove(&work);
  finished_.wait(lock, [&] { return work.helpers == 0; });
}

HelperThreads::Work* HelperThreads::PickLocked() {
  Work* picked = nullptr;
  for (Work* work : works_) {
    if (work->next < work->n && (picked == nullptr || work->helpers < picked->helpers)) picked = work;
  }
  return picked;
}

void HelperThreads::Run() {
  pthread_setname_np(pthread_self(), "store-copy");
  std::unique_lock<std::mutex> lock(mu_.native());
  for (;;) {
    Work* work = nullptr;
    offered_.wait(lock, [&] { return stopped_ || (work = PickLocked()) != nullptr; });
    if (stopped_) return;
    const size_t i = work->next++;
    ++work->helpers;
    lock.unlock();
    (*work->fn)(i);
    lock.lock();
    if (--work->helpers == 0) finished_.notify_all();
  }
}

void CopyStreaming(uint8_t* to, const uint8_t* from, size_t size) {
#ifdef __SSE2__
  constexpr size_t kLine = 64, kAhead = 16 * kLine;
  const size_t head = std::min(size, (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine);
  std::memcpy(to, from, head);
  to += head, from += head, size -= head;
  for (; size >= kLine; to += kLine, from += kLine, size -= kLine) {
    _mm_prefetch(reinterpret_cast<const char*>(from) + kAhead, _MM_HINT_NTA);
    auto load = [&](size_t i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * 16)); };
    auto store = [&](size_t i, __m128i x) { _mm_stream_si128(reinterpret_cast<__m128i*>(to + i * 16), x); };
    const __m128i a = load(0), b = load(1), c = load(2), d = load(3);
    store(0, a), store(1, b), store(2, c), store(3, d);
  }
  _mm_sfence();  // before whatever tells others of these bytes
#endif
  std::memcpy(to, from, size);
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
    : fd_(fd), mapping_(std::move(mapping)), seen_(static_cast<std::atomic<uint8_t>*>(::calloc(mapping_->size() / kPageBytes / 8 + 1, 1))) {
  RAY_CHECK(seen_ != nullptr);
}

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

void ArenaWriter::Prepare(uint64_t offset, size_t size, uint64_t warm_end) {
  RAY_CHECK(offset <= mapping_->size() && size <= mapping_->size() - offset);
  const uint64_t warm = warm_end > offset ? std::min<uint64_t>(size, warm_end - offset) : 0;
  if (warm < size) ForgetSeen(offset + warm, size - warm);
  Populate(offset, size);
}

void ArenaWriter::ForgetSeen(uint64_t offset, size_t size) {
  for (uint64_t i = offset / kPageBytes; i <= (offset + size - 1) / kPageBytes; ++i) {
    seen_[i / 8].fetch_and(static_cast<uint8_t>(~(1u << (i % 8))), std::memory_order_relaxed);
  }
}

Status ArenaWriter::WriteCold(uint64_t offset, const uint8_t* from, size_t size) {
  ForgetSeen(offset, size);
  if (size < kStreamBytes) return WriteFile(offset, from, size);
  // Only one thread at a time can be inside pwrite (the file's lock); what the others do then is slower, but adds to it.
  std::atomic_flag writing;
  Mutex mu;
  Status failed;
  helpers_.ForEach((size + kChunkBytes - 1) / kChunkBytes, [&](size_t i) {
    const size_t begin = i * kChunkBytes, n = std::min(kChunkBytes, size - begin);
    if (writing.test_and_set(std::memory_order_acquire)) {
      Populate(offset + begin, n);
      CopyStreaming(mapping_->data() + offset + begin, from + begin, n);
      return;
    }
    Status status = WriteFile(offset + begin, from + begin, n);
    writing.clear(std::memory_order_release);
    if (status.ok()) return;
    MutexLock lock(&mu);
    failed = std::move(status);
  });
  return failed;
}

Status ArenaWriter::WriteFile(uint64_t offset, const uint8_t* from, size_t size) const {
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
  if (size < kStreamBytes) {
    if (size >= kPopulateBytes) Populate(offset, size);
    std::memcpy(mapping_->data() + offset, from, size);
    return;
  }
  helpers_.ForEach((size + kChunkBytes - 1) / kChunkBytes, [&](size_t i) {
    const size_t begin = i * kChunkBytes, n = std::min(kChunkBytes, size - begin);
    Populate(offset + begin, n);
    CopyStreaming(mapping_->data() + offset + begin, from + begin, n);
  });
}

void ArenaWriter::Populate(uint64_t offset, size_t size) {
  // Only the pages of this write: those beside it may be free, and populating would make pages that nobody asked for.
  const uint64_t end = (offset + size + kPageBytes - 1) / kPageBytes;
  auto seen = [&](uint64_t page) { return (seen_[page / 8].load(std::memory_order_relaxed) >> (page % 8)) & 1; };
  for (uint64_t first = offset / kPageBytes; first < end;) {
    if (first % 8 == 0 && seen_[first / 8].load(std::memory_order_relaxed) == 0xff) {
      first += 8;
      continue;
    }
    if (seen(first)) {
      ++first;
      continue;
    }
    uint64_t last = first + 1;
    while (last < end && !seen(last)) ++last;
    // Fails on old kernels; then pages fault one by one.
    ::madvise(mapping_->data() + first * kPageBytes, (last - first) * kPageBytes, MADV_POPULATE_WRITE);
    for (uint64_t page = first; page < last; ++page) {
      seen_[page / 8].fetch_or(static_cast<uint8_t>(1u << (page % 8)), std::memory_order_relaxed);
    }
    first = last;
  }
}

}  // namespace ray::object_manager
