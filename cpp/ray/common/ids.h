// Identifiers: fixed-size byte strings, never reused. Sizes and structure are part of the protocol (docs/protocol/ids.md):
//   job 4; actor 16 = 12 random + job; task 24 = 8 unique + actor (all 0xff outside actors, save the job);
//   object 28 = task + little-endian index; placement group 18 = 14 random + job; node, worker, lease, cluster 28 random; function 28 = hash.
// In an object index, bit 31 marks a value made by put; results count from 1; 0 is the handle object of an actor.
// Value types. Nil is all 0xff.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>

#include "ray/util/status.h"

namespace ray {

// Fills `out` with `size` bytes that nobody can guess or get again (getrandom, buffered per thread, safe across fork).
void FillRandom(void* out, size_t size);

// While it lives, everything random on this thread comes from `source`: for simulations, whose ids follow from a seed. They do not nest.
class ScopedRandomSource {
 public:
  using Source = std::function<void(void* out, size_t size)>;
  explicit ScopedRandomSource(Source source);
  ~ScopedRandomSource();
  ScopedRandomSource(const ScopedRandomSource&) = delete;
  ScopedRandomSource& operator=(const ScopedRandomSource&) = delete;

 private:
  const Source source_;
};

std::string BytesToHex(std::string_view bytes);
// Nullopt unless `hex` is an even number of hex digits.
std::optional<std::string> HexToBytes(std::string_view hex);

template <size_t N, typename Derived>
class BaseId {
 public:
  static constexpr size_t kSize = N;
  BaseId() { bytes_.fill(0xff); }
  static Derived Nil() { return Derived(); }
  static Derived FromRandom() {
    Derived id;
    FillRandom(id.bytes_.data(), N);
    return id;
  }
  // INVALID_ARGUMENT unless `binary` has exactly kSize bytes.
  static Result<Derived> FromBinary(std::string_view binary) {
    if (binary.size() != N) {
      return Status::InvalidArgument("an id of this kind has " + std::to_string(N) + " bytes, not " + std::to_string(binary.size()));
    }
    return FromBytes(binary.data());
  }
  // For bytes whose length was checked; wrong lengths (as of an unset field) give nil.
  static Derived FromBinaryOrNil(std::string_view binary) { return binary.size() == N ? FromBytes(binary.data()) : Derived(); }
  static Derived FromBytes(const void* data) {
    Derived id;
    std::memcpy(id.bytes_.data(), data, N);
    return id;
  }
  bool IsNil() const { return *this == BaseId(); }
  std::string Binary() const { return {reinterpret_cast<const char*>(bytes_.data()), N}; }
  std::string_view View() const { return {reinterpret_cast<const char*>(bytes_.data()), N}; }
  const uint8_t* data() const { return bytes_.data(); }
  uint8_t* mutable_data() { return bytes_.data(); }
  std::string Hex() const { return BytesToHex(View()); }
  size_t Hash() const {
    // Random ids need no mixing, but ids of one stream differ in a few bytes only: fold all words.
    uint64_t h = 0x9e3779b97f4a7c15ull;
    for (size_t i = 0; i < N; i += 8) {
      uint64_t word = 0;
      std::memcpy(&word, bytes_.data() + i, N - i < 8 ? N - i : 8);
      h = (h ^ word) * 0xff51afd7ed558ccdull;
      h ^= h >> 32;
    }
    return h;
  }
  friend bool operator==(const BaseId& a, const BaseId& b) { return a.bytes_ == b.bytes_; }
  friend auto operator<=>(const BaseId& a, const BaseId& b) { return a.bytes_ <=> b.bytes_; }
  friend std::ostream& operator<<(std::ostream& os, const BaseId& id) { return os << id.Hex(); }

 protected:
  std::array<uint8_t, N> bytes_;
};

class JobId : public BaseId<4, JobId> {
 public:
  static JobId FromInt(uint32_t value);
  uint32_t ToInt() const;
};
class ActorId : public BaseId<16, ActorId> {
 public:
  static ActorId Of(const JobId& job);  // a fresh one
  JobId job_id() const;
};
class TaskId : public BaseId<24, TaskId> {
 public:
  // A fresh id; `actor` is nil for tasks outside actors. Never collides between processes (random start, counted).
  static TaskId Of(const JobId& job, const ActorId& actor);
  static TaskId ForActorCreation(const ActorId& actor);
  ActorId actor_id() const;
  JobId job_id() const;
};
class ObjectId : public BaseId<28, ObjectId> {
 public:
  static constexpr uint32_t kPutBit = 1u << 31;
  static ObjectId Of(const TaskId& task, uint32_t index);
  static ObjectId ForReturn(const TaskId& task, uint32_t i) { return Of(task, i + 1); }  // i from 0
  static ObjectId ForActorHandle(const ActorId& actor) { return Of(TaskId::ForActorCreation(actor), 0); }
  TaskId task_id() const;
  uint32_t index() const;
  bool IsPut() const { return (index() & kPutBit) != 0; }
};
class PlacementGroupId : public BaseId<18, PlacementGroupId> {};
class NodeId : public BaseId<28, NodeId> {};
class WorkerId : public BaseId<28, WorkerId> {};
class FunctionId : public BaseId<28, FunctionId> {};
class LeaseId : public BaseId<28, LeaseId> {};
class ClusterId : public BaseId<28, ClusterId> {};

// Gives ids for ray.put: thread-safe, one per process.
class PutIdGenerator {
 public:
  explicit PutIdGenerator(const JobId& job) : job_(job) {}
  ObjectId Next();

 private:
  const JobId job_;
  struct State;
  std::shared_ptr<State> state_ = MakeState();
  static std::shared_ptr<State> MakeState();
};

struct IdHash {
  template <typename Id>
  size_t operator()(const Id& id) const {
    return id.Hash();
  }
};

}  // namespace ray
