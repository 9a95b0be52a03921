#include "ray/rpc/core/frame.h"

#include <bit>
#include <cstring>

namespace ray::rpc {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are little endian and written as they lie in memory");

template <typename T>
uint8_t* Put(uint8_t* out, T value) {
  std::memcpy(out, &value, sizeof value);
  return out + sizeof value;
}

template <typename T>
T Get(const uint8_t* in, size_t offset) {
  T value;
  std::memcpy(&value, in + offset, sizeof value);
  return value;
}

}  // namespace

Result<FrameHeader> MakeFrameHeader(FrameKind kind, MethodId method, uint64_t call_id, uint8_t flags, size_t control_len,
                                    const PartList& parts, size_t max_frame_bytes) {
  if (parts.size() > kMaxFrameParts) return Status::InvalidArgument("a message with more than 65535 parts");
  size_t total = parts.size() * 8 + control_len;
  for (const BufferPtr& part : parts) total += part->size();
  if (total > max_frame_bytes) {
    return Status::InvalidArgument("a message of " + std::to_string(total) + " bytes is over the limit of " +
                                   std::to_string(max_frame_bytes));
  }
  FrameHeader header;
  header.frame_len = static_cast<uint32_t>(total);
  header.control_len = static_cast<uint32_t>(control_len);
  header.call_id = call_id;
  header.method = static_cast<uint16_t>(method);
  header.n_parts = static_cast<uint16_t>(parts.size());
  header.kind = kind;
  header.flags = flags;
  return header;
}

uint8_t* EncodeFrameHead(const FrameHeader& header, const PartList& parts, uint8_t* out) {
  out = Put(out, header.frame_len);
  out = Put(out, header.control_len);
  out = Put(out, header.call_id);
  out = Put(out, header.method);
  out = Put(out, header.n_parts);
  out = Put(out, static_cast<uint8_t>(header.kind));
  out = Put(out, header.flags);
  out = Put(out, uint16_t{0});
  for (const BufferPtr& part : parts) out = Put(out, uint64_t{part->size()});
  return out;
}

void AppendFrame(const FrameHeader& header, std::string_view control, const PartList& parts, std::string* out) {
  size_t start = out->size();
  size_t head = kFrameHeaderBytes + parts.size() * 8;
  out->reserve(start + kFrameHeaderBytes + header.frame_len);
  out->resize(start + head);
  EncodeFrameHead(header, parts, reinterpret_cast<uint8_t*>(out->data() + start));
  out->append(control);
  for (const BufferPtr& part : parts) out->append(part->view());
}

Status DecodeFrameHeader(const uint8_t* in, size_t max_frame_bytes, FrameHeader* header) {
  header->frame_len = Get<uint32_t>(in, 0);
  header->control_len = Get<uint32_t>(in, 4);
  header->call_id = Get<uint64_t>(in, 8);
  header->method = Get<uint16_t>(in, 16);
  header->n_parts = Get<uint16_t>(in, 18);
  header->kind = static_cast<FrameKind>(in[20]);
  header->flags = in[21];
  if (in[20] < 1 || in[20] > 4) return Status::DataLoss("a frame of unknown kind " + std::to_string(in[20]));
  if ((in[21] & ~kFrameHasFd) != 0 || Get<uint16_t>(in, 22) != 0) return Status::DataLoss("a frame with unknown flags");
  if (header->frame_len > max_frame_bytes) return Status::DataLoss("a frame over the size limit");
  if (header->head_bytes() > header->frame_len) return Status::DataLoss("a frame shorter than its control part");
  if (header->n_parts == 0 && header->control_len != header->frame_len) return Status::DataLoss("a frame longer than its control part");
  return {};
}

Status DecodePartLengths(const FrameHeader& header, const uint8_t* in, std::vector<uint64_t>* lengths) {
  lengths->resize(header.n_parts);
  uint64_t left = header.frame_len - header.head_bytes();
  for (size_t i = 0; i < lengths->size(); ++i) {
    uint64_t length = Get<uint64_t>(in, i * 8);
    if (length > left) return Status::DataLoss("a frame whose parts are longer than itself");
    left -= length;
    (*lengths)[i] = length;
  }
  if (left != 0) return Status::DataLoss("a frame whose parts are shorter than itself");
  return {};
}

Result<size_t> DecodeFrame(std::string_view in, size_t max_frame_bytes, DecodedFrame* frame, const BufferPtr& base) {
  if (in.size() < kFrameHeaderBytes) return size_t{0};
  auto* bytes = reinterpret_cast<const uint8_t*>(in.data());
  FrameHeader& header = frame->header;
  RAY_RETURN_NOT_OK(DecodeFrameHeader(bytes, max_frame_bytes, &header));
  size_t total = kFrameHeaderBytes + header.frame_len;
  if (in.size() < total) return size_t{0};
  frame->parts.clear();
  size_t at = kFrameHeaderBytes + size_t{header.n_parts} * 8;
  frame->control = in.substr(at, header.control_len);
  if (header.n_parts == 0) return total;
  at += header.control_len;
  std::vector<uint64_t> lengths;
  RAY_RETURN_NOT_OK(DecodePartLengths(header, bytes + kFrameHeaderBytes, &lengths));
  frame->parts.reserve(lengths.size());
  for (uint64_t length : lengths) {
    if (base != nullptr && length >= kLargePartBytes && length * 2 >= base->size()) {  // it pins about its own size
      frame->parts.push_back(std::make_shared<SliceBuffer>(base, static_cast<size_t>(bytes - base->data()) + at, length));
    } else {
      frame->parts.push_back(HeapBuffer::CopyOf(in.substr(at, length)));
    }
    at += length;
  }
  return total;
}

}  // namespace ray::rpc
