// Maps that grew large and are nearly empty again.
#pragma once

#include <cstddef>

namespace ray {

// An unordered_map keeps its buckets for ever. To be called after an erasure: gives most of them back once they are hardly used, which happens so
// rarely that erasing stays O(1). Returns whether it did.
template <typename Map>
bool ShrinkIfSparse(Map* map) {
  constexpr size_t kKept = size_t{1} << 16;
  if (map->bucket_count() <= kKept || map->size() > map->bucket_count() / 16) return false;
  map->rehash(map->size() * 2);
  return true;
}

}  // namespace ray
