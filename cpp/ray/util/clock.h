// Time as the product sees it: nanoseconds on a monotonic line that starts anywhere. Cores get `Time now` as an
// argument; shells read a Clock, so that the simulation can put a virtual one underneath.
#pragma once

#include <chrono>
#include <cstdint>

namespace ray {

using Duration = std::chrono::nanoseconds;

struct Time {
  int64_t ns = 0;
  static constexpr Time Infinite() { return Time{INT64_MAX}; }
  bool is_infinite() const { return ns == INT64_MAX; }
  friend constexpr auto operator<=>(const Time&, const Time&) = default;
  friend Time operator+(Time t, Duration d) { return t.is_infinite() ? t : Time{t.ns + d.count()}; }
  friend Time operator-(Time t, Duration d) { return t.is_infinite() ? t : Time{t.ns - d.count()}; }
  friend Duration operator-(Time a, Time b) { return Duration(a.ns - b.ns); }
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Time Now() const = 0;
  // Milliseconds since the Unix epoch, for people only.
  virtual int64_t WallMillis() const = 0;
};

// CLOCK_MONOTONIC of the machine. Thread-safe.
class SystemClock final : public Clock {
 public:
  Time Now() const override {
    return Time{std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch()).count()};
  }
  int64_t WallMillis() const override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  }
};

}  // namespace ray
