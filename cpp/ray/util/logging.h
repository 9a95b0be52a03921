// RAY_LOG: one line of text for people, to stderr or to a file that is rotated by size.
//
// `RAY_LOG(INFO) << "node " << id;` gives
//   [2026-11-21 03:00:00,123 I 4711 4712] file.cc:12: node ...
// (local time; process and thread id). Below the level nothing is evaluated. Thread-safe: a line is written by one write(2), so lines of threads and
// of processes that share a file never mix. Before StartLogging lines of INFO and above go to stderr.
#pragma once

#include <atomic>
#include <cstddef>
#include <sstream>
#include <string>
#include <string_view>

#include "ray/util/status.h"

namespace ray {

enum class LogLevel : int { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3, kOff = 4 };

struct LogOptions {
  std::string file;                      // path of the log file, appended to; empty: stderr
  LogLevel level = LogLevel::kInfo;      // lines below are dropped
  size_t max_bytes = size_t{100} << 20;  // a file that would grow beyond is renamed to <file>.1 and begun anew; 0: never
  int backups = 5;                       // how many renamed files are kept
};

// Applies `options` to the process from now on. May be called again; a failure to open the file leaves everything as it was.
Status StartLogging(const LogOptions& options);

// "debug", "info", "warning", "error" or "off", in any case.
Result<LogLevel> ParseLogLevel(std::string_view text);

namespace log_internal {

extern std::atomic<int> level;

inline bool IsOn(LogLevel l) { return static_cast<int>(l) >= level.load(std::memory_order_relaxed); }

class Line {
 public:
  Line(const char* file, int line, LogLevel level);
  ~Line();  // writes it
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

// Writes `text` (with its newline) where the log goes; for CheckFailure too.
void Write(std::string_view text);
// Whether the log goes to stderr itself.
bool ToStderr();

inline constexpr LogLevel kLevelOf_DEBUG = LogLevel::kDebug;
inline constexpr LogLevel kLevelOf_INFO = LogLevel::kInfo;
inline constexpr LogLevel kLevelOf_WARNING = LogLevel::kWarning;
inline constexpr LogLevel kLevelOf_ERROR = LogLevel::kError;

}  // namespace log_internal
}  // namespace ray

// An expression, not an if, so that it can stand as the only statement of somebody's if.
#define RAY_LOG(severity)                                              \
  !::ray::log_internal::IsOn(::ray::log_internal::kLevelOf_##severity) \
      ? static_cast<void>(0)                                           \
      : ::ray::Voidify() & ::ray::log_internal::Line(__FILE__, __LINE__, ::ray::log_internal::kLevelOf_##severity).stream()
