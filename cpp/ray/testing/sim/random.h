// Random: the one source of chance of a simulation. Everything that may go one way or the other asks it, so that a run follows from its seed.
// Not thread-safe: a simulation is one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ray/util/clock.h"

namespace ray::sim {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 0x632be59bd9b4e019ull) {}
  // A stream of its own: what draws from it shifts nothing for others.
  Random Fork() { return Random(Next()); }

  uint64_t Next() {  // splitmix64
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  // In [0, n). REQUIRES: n > 0.
  uint64_t Below(uint64_t n) { return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * n) >> 64); }
  // In [low, high].
  int64_t Between(int64_t low, int64_t high) { return low + static_cast<int64_t>(Below(static_cast<uint64_t>(high - low) + 1)); }
  Duration Between(Duration low, Duration high) { return Duration(Between(low.count(), high.count())); }
  bool Chance(double probability) { return static_cast<double>(Next() >> 11) * 0x1p-53 < probability; }
  void Fill(void* out, size_t size) {
    auto* at = static_cast<uint8_t*>(out);
    while (size > 0) {
      const uint64_t word = Next();
      const size_t n = size < sizeof word ? size : sizeof word;
      std::memcpy(at, &word, n);
      at += n;
      size -= n;
    }
  }

 private:
  uint64_t state_;
};

}  // namespace ray::sim
