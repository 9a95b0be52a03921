// Frame: how one message lies in a byte stream (docs/protocol/frame.md). Pure encoding; used by every carrier.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ray/rpc/core/connection.h"

namespace ray::rpc {

inline constexpr size_t kFrameHeaderBytes = 24;
inline constexpr size_t kMaxFrameParts = 0xffff;
inline constexpr uint8_t kFrameHasFd = 1;  // flag: one descriptor travels with the frame's first byte

struct FrameHeader {
  uint32_t frame_len = 0;  // of all that follows the header
  uint32_t control_len = 0;
  uint64_t call_id = 0;
  uint16_t method = 0;
  uint16_t n_parts = 0;
  FrameKind kind = FrameKind::kRequest;
  uint8_t flags = 0;

  // Bytes between the header and the first part.
  size_t head_bytes() const { return size_t{n_parts} * 8 + control_len; }
};

// Header of a frame with these contents, or why there can be no such frame (too large: INVALID_ARGUMENT).
Result<FrameHeader> MakeFrameHeader(FrameKind kind, MethodId method, uint64_t call_id, uint8_t flags, size_t control_len,
                                    const PartList& parts, size_t max_frame_bytes);
// Writes kFrameHeaderBytes, then the part lengths, to `out`; returns the end. The control part goes there.
uint8_t* EncodeFrameHead(const FrameHeader& header, const PartList& parts, uint8_t* out);
// Appends a whole frame, parts copied. For carriers that batch into messages.
void AppendFrame(const FrameHeader& header, std::string_view control, const PartList& parts, std::string* out);

// Reads kFrameHeaderBytes. DATA_LOSS for anything that no peer of ours would send.
Status DecodeFrameHeader(const uint8_t* in, size_t max_frame_bytes, FrameHeader* header);
// Reads the part lengths, which follow the header; DATA_LOSS if they do not add up to the frame.
Status DecodePartLengths(const FrameHeader& header, const uint8_t* in, std::vector<uint64_t>* lengths);

struct DecodedFrame {
  FrameHeader header;
  std::string_view control;  // points into the input
  PartList parts;            // copies, but for large ones that may be windows into `base`
};
inline constexpr size_t kLargePartBytes = 64 << 10;  // from here on a part is not copied for the sake of batching
// Decodes the frame at the start of `in`. Returns the bytes used, 0 if the frame is incomplete. `base`, if not null: the buffer that `in` is in; large
// parts keep it instead of being copied.
Result<size_t> DecodeFrame(std::string_view in, size_t max_frame_bytes, DecodedFrame* frame, const BufferPtr& base = nullptr);

}  // namespace ray::rpc
