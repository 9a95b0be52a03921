// SlabPool: where in its slabs a client puts its next objects, and when it asks for another slab.
//
// A slab is filled from its start. The next one is asked for ahead, when half of the current one is gone, so that a stream of objects never waits.
// A client that makes an object now and then has no slab: it asks for one with the second object. Everything that is not used goes back: gaps
// that alignment leaves, the rest of a slab that is left for the next, and all of it when the store asks. Pure; guarded by the StoreClient.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "ray/object_manager/table/arena_allocator.h"

namespace ray::object_manager {

class SlabPool {
 public:
  // `slab_bytes`: size of the slabs that the store gives; 0: it gives none.
  explicit SlabPool(uint64_t slab_bytes) : slab_bytes_(slab_bytes) {}

  struct Place {
    uint64_t offset = 0;
    uint64_t warm_end = 0;  // in the arena; below, it has pages
  };
  // Nullopt: the object is too large for a slab, or there is none with room now.
  std::optional<Place> Allocate(uint64_t size);
  // Whether to ask the store for a slab now. After true, OnSlab must follow.
  bool StartLease();
  // What the store gave; size 0: nothing, for now, or the call failed.
  void OnSlab(uint64_t offset, uint64_t size, uint64_t warm_bytes);
  // A place that was allocated and did not become an object.
  void OnAborted(uint64_t offset, uint64_t size);
  // The store wants back what is unused.
  void GiveBack();

  struct Returned {
    Range range;
    bool touched = false;  // written to, perhaps
  };
  // What is to be returned to the store, once.
  std::vector<Returned> TakeReturned() { return std::exchange(returned_, {}); }
  bool has_returned() const { return !returned_.empty(); }

 private:
  // Larger objects ask for memory each: their rests would waste slabs, and writing them takes longer than asking.
  static constexpr uint64_t kObjectsInSlab = 4;
  static constexpr int kPatience = 32;  // after the store gave none: so many objects before it is asked again

  struct Slab {
    uint64_t next = 0;
    uint64_t end = 0;
    uint64_t warm_end = 0;
    uint64_t left() const { return end - next; }
  };
  void Return(Slab* slab);

  const uint64_t slab_bytes_;
  Slab current_;
  Slab ahead_;            // empty: none
  bool leasing_ = false;  // asked for, not answered
  int objects_ = 0;       // that would have fitted a slab, since there was none
  int patience_ = 0;      // objects to come before a slab is asked for
  std::vector<Returned> returned_;
};

}  // namespace ray::object_manager
