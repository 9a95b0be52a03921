// Trace: what happened in a simulation, for two purposes. Its hash covers every event, so that two runs of one seed can be held against each other; its tail
// is kept as a ring, and is what a failing seed prints.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "ray/util/clock.h"

namespace ray::sim {

struct TraceEvent {
  Time at;
  uint32_t process = 0;      // where it happened; 0: the simulation itself
  const char* what = "";     // static text
  std::string_view subject;  // static text, as the name of a method
  uint64_t a = 0, b = 0;     // numbers that tell it from others: connection, size, hash of the contents
  bool routine = false;      // happens all the time, and tells nobody anything: left out of the tail
};

class Trace {
 public:
  explicit Trace(size_t tail) : ring_(tail) {}

  void Add(const TraceEvent& event) {
    Mix(static_cast<uint64_t>(event.at.ns));
    Mix(event.process);
    MixText(event.what);
    MixText(event.subject);
    Mix(event.a);
    Mix(event.b);
    ++count_;
    if (!ring_.empty() && !event.routine) ring_[kept_++ % ring_.size()] = event;
    if (live_ != nullptr) Print(event, live_);
  }
  // Every event is printed there as it happens; null: none.
  void PrintTo(std::ostream* out) { live_ = out; }
  void PrintTail(std::ostream* out) const {
    for (uint64_t i = kept_ - std::min<uint64_t>(kept_, ring_.size()); i < kept_; ++i) Print(ring_[i % ring_.size()], out);
  }

  uint64_t hash() const { return hash_; }
  uint64_t count() const { return count_; }
  // Of any bytes, the same on every machine.
  static uint64_t HashOf(std::string_view bytes) {
    uint64_t h = 0xcbf29ce484222325ull;
    for (const char c : bytes) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
    return h;
  }

 private:
  void Mix(uint64_t value) {
    hash_ = (hash_ ^ value) * 0xff51afd7ed558ccdull;
    hash_ ^= hash_ >> 32;
  }
  void MixText(std::string_view text) { Mix(HashOf(text)); }
  static void Print(const TraceEvent& event, std::ostream* out) {
    std::array<char, 64> time{};
    std::snprintf(time.data(), time.size(), "%12.6f  p%-4u ", static_cast<double>(event.at.ns) * 1e-9, event.process);
    *out << time.data() << event.what;
    if (!event.subject.empty()) *out << " " << event.subject;
    if (event.a != 0 || event.b != 0) *out << "  " << event.a << " " << event.b;
    *out << "\n";
  }

  std::vector<TraceEvent> ring_;
  uint64_t count_ = 0, kept_ = 0;
  uint64_t hash_ = 0x9ae16a3b2f90404full;
  std::ostream* live_ = nullptr;
};

}  // namespace ray::sim
