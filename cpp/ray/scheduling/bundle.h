// Names a bundle of a placement group: resources of one node that are set aside for those who ask for the group.
#pragma once

#include <compare>
#include <cstdint>

#include "ray/common/ids.h"

namespace ray::scheduling {

struct BundleId {
  PlacementGroupId group;  // nil: no bundle, the node itself
  int32_t index = kAny;    // kAny, in a request: whichever bundle of the group has room

  static constexpr int32_t kAny = -1;
  bool IsNil() const { return group.IsNil(); }
  friend bool operator==(const BundleId&, const BundleId&) = default;
  friend auto operator<=>(const BundleId&, const BundleId&) = default;
};

}  // namespace ray::scheduling
