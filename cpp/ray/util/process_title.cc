#include "ray/util/process_title.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>

#include "ray/util/fs.h"

namespace ray {
namespace {

constexpr size_t kMaxTitle = 255;

// The process's own command line, of which there is one. Written before the process has a second thread, read after that.
struct Place {
  char* begin = nullptr;
  size_t room = 0;  // with the environment's, if that follows
  size_t used = 0;  // by the last title
};
Place place;

// Fields 48 to 51 of /proc/self/stat: where arguments and environment begin and end.
bool FindArguments(uintptr_t* args, uintptr_t* args_end, uintptr_t* env, uintptr_t* env_end) {
  auto stat = ReadFile("/proc/self/stat");
  if (!stat.ok()) return false;
  const size_t name_end = stat->rfind(')');  // the name, field 2, may hold anything
  if (name_end == stat->npos) return false;
  std::istringstream fields(stat->substr(name_end + 1));
  std::string skipped;
  for (int i = 3; i < 48; ++i) fields >> skipped;
  return static_cast<bool>(fields >> *args >> *args_end >> *env >> *env_end);
}

}  // namespace

bool PrepareProcessTitle() {
  if (place.begin != nullptr) return true;
  uintptr_t args = 0, args_end = 0, env = 0, env_end = 0;
  if (!FindArguments(&args, &args_end, &env, &env_end) || args == 0 || args_end <= args) return false;
  uintptr_t end = args_end;
  if (args_end == env && env_end > env) {
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
      const auto at = reinterpret_cast<uintptr_t>(*entry);
      if (at < env || at >= env_end) continue;  // set since the start
      char* copy = strdup(*entry);
      if (copy == nullptr) return false;
      *entry = copy;
    }
    end = env_end;
  }
  place.begin = reinterpret_cast<char*>(args);
  place.room = std::min(end - args, kMaxTitle + 1);
  place.used = std::max(args_end - args, place.room);
  return true;
}

void SetProcessTitle(std::string_view title) {
  if (place.begin == nullptr) return;
  // The kernel reads on beyond the command line's end only where that has been overwritten with text.
  const size_t size = std::min(title.size(), place.room - 1);
  memcpy(place.begin, title.data(), size);
  if (place.used > size) memset(place.begin + size, 0, place.used - size);
  place.used = size;
}

}  // namespace ray
