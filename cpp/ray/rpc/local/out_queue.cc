#include "ray/rpc/local/out_queue.h"

#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace ray::rpc {
namespace {

constexpr size_t kBlock = 16 << 10;

}  // namespace

void OutQueue::Swap(OutQueue* other) {
  std::swap(chunks_, other->chunks_);
  std::swap(spare_, other->spare_);
  std::swap(size_, other->size_);
}

uint8_t* OutQueue::Append(size_t n) {
  bool starts_with_fd = !chunks_.empty() && chunks_.back().fd >= 0 && chunks_.back().end == 0;
  if (chunks_.empty() || chunks_.back().part || chunks_.back().capacity - chunks_.back().end < n) {
    if (!starts_with_fd) chunks_.emplace_back();
    Chunk& chunk = chunks_.back();
    if (n <= kBlock && spare_) {
      chunk.bytes = std::move(spare_);
      chunk.capacity = kBlock;
    } else {
      chunk.capacity = std::max(n, kBlock);
      chunk.bytes.reset(new uint8_t[chunk.capacity]);
    }
  }
  Chunk& chunk = chunks_.back();
  uint8_t* at = chunk.bytes.get() + chunk.end;
  chunk.end += n;
  size_ += n;
  return at;
}

void OutQueue::AppendPart(BufferPtr part) {
  if (part->size() == 0) return;
  Chunk& chunk = chunks_.emplace_back();
  chunk.end = part->size();
  size_ += chunk.end;
  chunk.part = std::move(part);
}

void OutQueue::AppendFd(int fd) { chunks_.emplace_back().fd = fd; }

int OutQueue::Gather(iovec* iov, int max, int* fd) const {
  int n = 0;
  *fd = -1;
  for (const Chunk& chunk : chunks_) {
    if (n == max || (n > 0 && chunk.fd >= 0)) break;
    if (n == 0) *fd = chunk.fd;
    iov[n++] = {const_cast<uint8_t*>(chunk.data() + chunk.begin), chunk.end - chunk.begin};
  }
  return n;
}

void OutQueue::Consume(size_t n) {
  size_ -= n;
  while (n > 0) {
    Chunk& chunk = chunks_.front();
    size_t step = std::min(n, chunk.end - chunk.begin);
    chunk.begin += step;
    n -= step;
    if (chunk.fd >= 0) {
      ::close(chunk.fd);
      chunk.fd = -1;
    }
    if (chunk.begin < chunk.end) return;
    if (chunk.capacity == kBlock && !spare_) spare_ = std::move(chunk.bytes);
    chunks_.pop_front();
  }
}

void OutQueue::Clear() {
  for (Chunk& chunk : chunks_) {
    if (chunk.fd >= 0) ::close(chunk.fd);
  }
  chunks_.clear();
  size_ = 0;
}

void OutQueue::Splice(OutQueue* other) {
  if (chunks_.empty()) {
    std::swap(chunks_, other->chunks_);
  } else {
    std::move(other->chunks_.begin(), other->chunks_.end(), std::back_inserter(chunks_));
    other->chunks_.clear();
  }
  size_ += std::exchange(other->size_, 0);
  if (!other->spare_) std::swap(spare_, other->spare_);
}

}  // namespace ray::rpc
