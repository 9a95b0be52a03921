#include "ray/util/check.h"

#include <execinfo.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "ray/util/logging.h"

namespace ray {

CheckFailure::CheckFailure(const char* file, int line, const char* condition) {
  stream_ << file << ':' << line << ": check failed: " << condition << ' ';
}

CheckFailure::~CheckFailure() {
  std::string text = stream_.str() + '\n';
  [[maybe_unused]] ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
  void* frames[64];
  backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
  if (!log_internal::ToStderr()) log_internal::Write(text);
  std::abort();
}

}  // namespace ray
