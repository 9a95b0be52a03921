// Layout of a stored value: how pickled bytes and their out-of-band buffers become one blob, and back (docs/protocol/values.md).
//
// A value is a metadata string and a contiguous blob. Metadata "PYTHON": the blob is
//   u32 magic "RAV1", u32 n_buffers, u64 pickle_len, n_buffers x {u64 offset, u64 len}, the pickle, each buffer at its 64-byte aligned offset.
// "RAW": the blob is a bytes object. A decimal ErrorType number: an error. Free functions, no state; blobs come from other processes, so parsing
// trusts nothing.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ray/common/buffer.h"
#include "ray/common/errors.h"
#include "ray/util/status.h"

namespace ray {

inline constexpr std::string_view kMetadataPython = "PYTHON";
inline constexpr std::string_view kMetadataRaw = "RAW";

std::string ErrorMetadata(ErrorType type);
// Whether `metadata` is that of an error; "3" is one too.
inline bool IsErrorMetadata(std::string_view metadata) { return !metadata.empty() && metadata[0] >= '0' && metadata[0] <= '9'; }
// Number of the error type; -1 where `metadata` is not an error's.
int32_t ErrorTypeOfMetadata(std::string_view metadata);
// Whether the blob of such a value is in the PYTHON layout: "PYTHON", and "3", which holds a pickled RayTaskError.
inline bool HasPythonLayout(std::string_view metadata) { return metadata == kMetadataPython || metadata == "3"; }

using ConstBytes = std::pair<const char*, size_t>;

// Bytes that WritePythonBlob will write.
size_t PythonBlobSize(size_t pickle_size, std::span<const ConstBytes> buffers);
// REQUIRES: `out` has PythonBlobSize bytes. Padding is zeroed, so that equal values give equal blobs.
void WritePythonBlob(std::string_view pickle, std::span<const ConstBytes> buffers, uint8_t* out);
// The same as a sequence of `write(offset, bytes, size)` in rising order, for destinations that are not mapped. Stops at the first failure.
template <typename Writer>
Status ScatterPythonBlob(std::string_view pickle, std::span<const ConstBytes> buffers, Writer write);

struct PythonBlob {
  std::string_view pickle;
  std::vector<ConstBytes> buffers;
};
// Windows into `blob`. DATA_LOSS when it is not well formed.
Result<PythonBlob> ParsePythonBlob(std::string_view blob);

namespace value_layout_internal {
// Header and table of the blob, padded up to the pickle; `offsets` gets where each buffer goes.
std::string Head(size_t pickle_size, std::span<const ConstBytes> buffers, std::vector<size_t>* offsets);
}  // namespace value_layout_internal

template <typename Writer>
Status ScatterPythonBlob(std::string_view pickle, std::span<const ConstBytes> buffers, Writer write) {
  static constexpr char kZeros[64] = {};
  std::vector<size_t> offsets;
  std::string head = value_layout_internal::Head(pickle.size(), buffers, &offsets);
  RAY_RETURN_NOT_OK(write(size_t{0}, head.data(), head.size()));
  RAY_RETURN_NOT_OK(write(head.size(), pickle.data(), pickle.size()));
  size_t at = head.size() + pickle.size();
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (offsets[i] > at) RAY_RETURN_NOT_OK(write(at, kZeros, offsets[i] - at));
    RAY_RETURN_NOT_OK(write(offsets[i], buffers[i].first, buffers[i].second));
    at = offsets[i] + buffers[i].second;
  }
  return Status::Ok();
}

}  // namespace ray
