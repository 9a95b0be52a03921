#include "ray/wire/value_layout.h"

#include <charconv>
#include <cstring>

namespace ray {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the layout is little endian");

constexpr uint32_t kMagic = 0x31564152;  // "RAV1"
constexpr size_t kAlignment = 64;
constexpr size_t kFixedHead = 16;
constexpr size_t kTableEntry = 16;

constexpr size_t AlignUp(size_t n) { return (n + kAlignment - 1) & ~(kAlignment - 1); }

template <typename T>
T Load(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
void Store(uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

// Writes the head to `out` and calls `place(i, offset)` for each buffer. Returns the end of the head.
template <typename Place>
size_t WriteHead(size_t pickle_size, std::span<const ConstBytes> buffers, uint8_t* out, Place place) {
  Store(out, kMagic);
  Store(out + 4, static_cast<uint32_t>(buffers.size()));
  Store(out + 8, static_cast<uint64_t>(pickle_size));
  const size_t head = kFixedHead + kTableEntry * buffers.size();
  size_t end = head + pickle_size;
  for (size_t i = 0; i < buffers.size(); ++i) {
    const size_t offset = AlignUp(end);
    Store(out + kFixedHead + kTableEntry * i, static_cast<uint64_t>(offset));
    Store(out + kFixedHead + kTableEntry * i + 8, static_cast<uint64_t>(buffers[i].second));
    place(i, offset);
    end = offset + buffers[i].second;
  }
  return head;
}

void CopyBytes(uint8_t* to, const char* from, size_t size) {
  if (size != 0) std::memcpy(to, from, size);
}

}  // namespace

std::string ErrorMetadata(ErrorType type) { return std::to_string(static_cast<int32_t>(type)); }

int32_t ErrorTypeOfMetadata(std::string_view metadata) {
  int32_t number = -1;
  auto [end, error] = std::from_chars(metadata.data(), metadata.data() + metadata.size(), number);
  return error == std::errc() && end == metadata.data() + metadata.size() && number >= 0 ? number : -1;
}

size_t PythonBlobSize(size_t pickle_size, std::span<const ConstBytes> buffers) {
  size_t end = kFixedHead + kTableEntry * buffers.size() + pickle_size;
  for (const auto& [data, size] : buffers) end = AlignUp(end) + size;
  return end;
}

void WritePythonBlob(std::string_view pickle, std::span<const ConstBytes> buffers, uint8_t* out) {
  const size_t head = kFixedHead + kTableEntry * buffers.size();
  size_t end = head + pickle.size();
  WriteHead(pickle.size(), buffers, out, [&](size_t i, size_t offset) {
    std::memset(out + end, 0, offset - end);
    CopyBytes(out + offset, buffers[i].first, buffers[i].second);
    end = offset + buffers[i].second;
  });
  // Last: with no buffers that is all there is.
  CopyBytes(out + head, pickle.data(), pickle.size());
}

std::string value_layout_internal::Head(size_t pickle_size, std::span<const ConstBytes> buffers, std::vector<size_t>* offsets) {
  std::string head(kFixedHead + kTableEntry * buffers.size(), '\0');
  offsets->resize(buffers.size());
  WriteHead(pickle_size, buffers, reinterpret_cast<uint8_t*>(head.data()), [&](size_t i, size_t offset) { (*offsets)[i] = offset; });
  return head;
}

Result<PythonBlob> ParsePythonBlob(std::string_view blob) {
  if (blob.size() < kFixedHead || Load<uint32_t>(blob.data()) != kMagic)
    return Status::DataLoss("a value without the header of a pickled one");
  const uint64_t count = Load<uint32_t>(blob.data() + 4);
  const uint64_t pickle_size = Load<uint64_t>(blob.data() + 8);
  const uint64_t head = kFixedHead + kTableEntry * count;
  if (head > blob.size() || pickle_size > blob.size() - head) return Status::DataLoss("a pickled value that is cut off");
  PythonBlob parsed;
  parsed.pickle = blob.substr(head, pickle_size);
  parsed.buffers.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t offset = Load<uint64_t>(blob.data() + kFixedHead + kTableEntry * i);
    const uint64_t size = Load<uint64_t>(blob.data() + kFixedHead + kTableEntry * i + 8);
    if (offset > blob.size() || size > blob.size() - offset) return Status::DataLoss("a buffer beyond the end of its value");
    parsed.buffers.emplace_back(blob.data() + offset, size);
  }
  return parsed;
}

}  // namespace ray
