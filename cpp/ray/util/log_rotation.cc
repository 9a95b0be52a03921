#include "ray/util/log_rotation.h"

#include <charconv>
#include <cstdlib>
#include <string_view>

namespace ray {
namespace {

template <typename T>
T Read(const char* name, T missing) {
  const char* text = std::getenv(name);
  if (text == nullptr) return missing;
  const std::string_view view(text);
  T value = 0;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
  return error == std::errc() && end == view.data() + view.size() && value >= 0 ? value : missing;
}

}  // namespace

void ReadRotationLimits(LogOptions* options) {
  options->max_bytes = Read("RAY_ROTATION_MAX_BYTES", size_t{512} << 20);
  options->backups = Read("RAY_ROTATION_BACKUP_COUNT", 5);
}

}  // namespace ray
