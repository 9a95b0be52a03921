// OutQueue: bytes on their way to a socket, in order: runs of small bytes, large buffers kept by reference, and descriptors that go with
// the first byte after them. Owned by a connection, which guards it.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "ray/common/buffer.h"

namespace ray::rpc {

class OutQueue {
 public:
  OutQueue() = default;
  ~OutQueue() { Clear(); }
  OutQueue(const OutQueue&) = delete;
  OutQueue& operator=(const OutQueue&) = delete;

  // `n` contiguous bytes at the end, to be written by the caller at once.
  uint8_t* Append(size_t n);
  // Kept by reference until sent.
  void AppendPart(BufferPtr part);
  // The next byte appended carries `fd`, which the queue owns.
  void AppendFd(int fd);

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Fills `iov` with what one sendmsg may take; `*fd` is to go along (-1: none).
  int Gather(iovec* iov, int max, int* fd) const;
  // Drops `n` bytes that were sent, with their descriptors.
  void Consume(size_t n);
  void Clear();
  // Moves everything of `other` to the end.
  void Splice(OutQueue* other);
  // Takes the empty block of `other` for what is appended next, if it is larger than its own.
  void TakeSpare(OutQueue* other);

 private:
  struct Chunk {
    std::unique_ptr<uint8_t[]> bytes;  // or:
    BufferPtr part;
    size_t capacity = 0, begin = 0, end = 0;
    int fd = -1;
    const uint8_t* data() const { return part ? part->data() : bytes.get(); }
  };
  void PopFront();

  std::vector<Chunk> chunks_;
  size_t first_ = 0;  // chunks before it are gone
  // A block that a quiet connection writes into again and again, so that it allocates nothing. As large as what the connection needed so far at a
  // time, kBlock at most: a process may have thousands of connections over which little is said.
  std::unique_ptr<uint8_t[]> spare_;
  size_t spare_capacity_ = 0;
  size_t size_ = 0;
};

}  // namespace ray::rpc
