// Bytes that several holders may share: a value in memory, in the shared arena, or inside a received frame.
// The bytes of a Buffer never change after it is handed out. Thread-safe to read; released with the last holder.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ray {

class Buffer {
 public:
  virtual ~Buffer() = default;
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  std::string_view view() const { return {reinterpret_cast<const char*>(data_), size_}; }

 protected:
  Buffer(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  const uint8_t* data_;
  size_t size_;
};
using BufferPtr = std::shared_ptr<const Buffer>;

// Owns heap bytes; writable until shared.
class HeapBuffer final : public Buffer {
 public:
  explicit HeapBuffer(size_t size) : Buffer(nullptr, size), bytes_(new uint8_t[size]) { data_ = bytes_.get(); }
  static std::shared_ptr<HeapBuffer> CopyOf(std::string_view bytes) {
    auto b = std::make_shared<HeapBuffer>(bytes.size());
    if (!bytes.empty()) std::memcpy(b->mutable_data(), bytes.data(), bytes.size());
    return b;
  }
  uint8_t* mutable_data() { return bytes_.get(); }

 private:
  std::unique_ptr<uint8_t[]> bytes_;
};

// Memory that somebody else may fill in, in order, until it is full or the owner does not want it any more. Revoke from any thread.
class Landing : public Buffer {
 public:
  uint8_t* mutable_data() { return memory_; }
  // Who fills it in begins nothing more; what is under way at this moment may still be written.
  void Revoke() { revoked_.store(true, std::memory_order_release); }
  bool revoked() const { return revoked_.load(std::memory_order_acquire); }

 protected:
  Landing(uint8_t* memory, size_t size) : Buffer(memory, size), memory_(memory) {}

 private:
  uint8_t* const memory_;
  std::atomic<bool> revoked_{false};
};

// A window into another buffer, which it keeps alive.
class SliceBuffer final : public Buffer {
 public:
  SliceBuffer(BufferPtr base, size_t offset, size_t size) : Buffer(base->data() + offset, size), base_(std::move(base)) {}

 private:
  BufferPtr base_;
};

using PartList = std::vector<BufferPtr>;

}  // namespace ray
