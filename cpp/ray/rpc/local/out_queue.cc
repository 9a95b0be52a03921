#include "ray/rpc/local/out_queue.h"

#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace ray::rpc {
namespace {

constexpr size_t kFirstBlock = 1 << 10, kBlock = 16 << 10;  // of small bytes; each next one in a row is four times as large

}  // namespace

uint8_t* OutQueue::Append(size_t n) {
  const bool none = chunks_.empty();
  if (none || chunks_.back().part || chunks_.back().capacity - chunks_.back().end < n) {
    const size_t last = none ? 0 : chunks_.back().capacity;
    if (none || chunks_.back().fd < 0 || chunks_.back().end > 0) chunks_.emplace_back();  // else the descriptor waits for these bytes
    Chunk& chunk = chunks_.back();
    if (n <= spare_capacity_) {
      chunk.bytes = std::move(spare_);
      chunk.capacity = std::exchange(spare_capacity_, 0);
    } else {
      chunk.capacity = std::max(n, std::clamp(4 * last, kFirstBlock, kBlock));
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
  for (size_t i = first_; i < chunks_.size(); ++i) {
    const Chunk& chunk = chunks_[i];
    if (n == max || (n > 0 && chunk.fd >= 0)) break;
    if (n == 0) *fd = chunk.fd;
    iov[n++] = {const_cast<uint8_t*>(chunk.data() + chunk.begin), chunk.end - chunk.begin};
  }
  return n;
}

void OutQueue::Consume(size_t n) {
  size_ -= n;
  while (n > 0) {
    Chunk& chunk = chunks_[first_];
    size_t step = std::min(n, chunk.end - chunk.begin);
    chunk.begin += step;
    n -= step;
    if (chunk.fd >= 0) {
      ::close(chunk.fd);
      chunk.fd = -1;
    }
    if (chunk.begin < chunk.end) return;
    if (chunk.capacity <= kBlock && chunk.capacity > spare_capacity_) {
      spare_ = std::move(chunk.bytes);
      spare_capacity_ = chunk.capacity;
    }
    PopFront();
  }
}

void OutQueue::PopFront() {
  chunks_[first_++] = Chunk();
  if (first_ == chunks_.size()) {
    chunks_.clear();
    first_ = 0;
  } else if (first_ >= 64 && first_ * 2 >= chunks_.size()) {  // a queue that is never empty
    chunks_.erase(chunks_.begin(), chunks_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
  }
}

void OutQueue::Clear() {
  for (Chunk& chunk : chunks_) {
    if (chunk.fd >= 0) ::close(chunk.fd);
  }
  chunks_.clear();
  first_ = 0;
  size_ = 0;
}

void OutQueue::Splice(OutQueue* other) {
  if (chunks_.empty()) {
    std::swap(chunks_, other->chunks_);
    std::swap(first_, other->first_);
  } else {
    std::move(other->chunks_.begin() + static_cast<std::ptrdiff_t>(other->first_), other->chunks_.end(), std::back_inserter(chunks_));
    other->chunks_.clear();
    other->first_ = 0;
  }
  size_ += std::exchange(other->size_, 0);
}

void OutQueue::TakeSpare(OutQueue* other) {
  if (other->spare_capacity_ <= spare_capacity_) return;
  spare_ = std::move(other->spare_);
  spare_capacity_ = std::exchange(other->spare_capacity_, 0);
}

}  // namespace ray::rpc
