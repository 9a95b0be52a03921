#include "ray/raylet/logs/line_splitter.h"

#include <algorithm>

namespace ray::raylet {

void LineSplitter::Emit(std::string_view line, std::vector<Batch>* out) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  if (line.starts_with(kNameMarker)) {
    name_ = line.substr(kNameMarker.size());
    return;
  }
  if (out->empty() || out->back().name != name_) out->push_back({name_, {}});
  out->back().lines.emplace_back(line);
}

void LineSplitter::Feed(std::string_view bytes, std::vector<Batch>* out) {
  while (!bytes.empty()) {
    const size_t room = kMaxLine - tail_.size();
    const size_t end = bytes.substr(0, room).find('\n');
    const bool ended = end != bytes.npos;
    const size_t n = ended ? end : std::min(room, bytes.size());
    if (!ended && n < room) {
      tail_ += bytes;
      return;
    }
    if (tail_.empty()) {
      Emit(bytes.substr(0, n), out);
    } else {
      tail_ += bytes.substr(0, n);
      Emit(tail_, out);
      tail_.clear();
    }
    bytes.remove_prefix(ended ? n + 1 : n);
  }
}

void LineSplitter::Flush(std::vector<Batch>* out) {
  if (tail_.empty()) return;
  Emit(tail_, out);
  tail_.clear();
}

}  // namespace ray::raylet
