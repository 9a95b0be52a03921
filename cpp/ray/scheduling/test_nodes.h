// Names of nodes and resources in the tests of this folder.
#pragma once

#include <map>
#include <string>

#include "ray/common/ids.h"
#include "ray/common/resources.h"

namespace ray::scheduling {

// Node number `n`; ids are in the order of the numbers.
inline NodeId N(uint32_t n) {
  NodeId id;
  for (size_t i = 0; i < NodeId::kSize; ++i) id.mutable_data()[i] = 0;
  id.mutable_data()[0] = static_cast<uint8_t>(n >> 8);
  id.mutable_data()[1] = static_cast<uint8_t>(n);
  return id;
}
inline uint32_t Number(const NodeId& id) { return static_cast<uint32_t>(id.data()[0] << 8 | id.data()[1]); }
inline ResourceSet Set(const std::map<std::string, double>& amounts) { return *ResourceSet::FromDoubles(amounts); }

}  // namespace ray::scheduling
