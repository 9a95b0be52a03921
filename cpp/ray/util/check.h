// RAY_CHECK: ends the process, with the reason, when an invariant of ours is broken. Not for bad input or failed I/O.
#pragma once

#include <sstream>

namespace ray {

class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();  // writes the message and the stack to stderr and the log, then aborts
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

// Turns the stream at the end of a macro into void; `&` binds weaker than `<<`.
struct Voidify {
  void operator&(std::ostream&) const {}
};

}  // namespace ray

// `RAY_CHECK(x) << "more"`; the message is built only on failure.
#define RAY_CHECK(condition)                                \
  __builtin_expect(!!(condition), 1) ? static_cast<void>(0) \
                                     : ::ray::Voidify() & ::ray::CheckFailure(__FILE__, __LINE__, #condition).stream()
