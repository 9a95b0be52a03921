// NodeResources: what one node has, what of it is free, and which unit instances (GPU 0, GPU 1 ...) who holds.
//
// A resource with unit instances cannot be cut at will: a request for a fraction takes it from one index, a request for
// whole units takes that many untouched indices. So the sum that is free may cover a request which no index can serve.
// Pure value; owned by the lease queue; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ray/common/resources.h"

namespace ray::scheduling {

// Which indices of one resource an allocation holds, and how much of each (1/10000).
struct InstanceShares {
  std::string resource;
  std::vector<std::pair<int32_t, int64_t>> shares;  // by index
  friend bool operator==(const InstanceShares&, const InstanceShares&) = default;
};

struct Allocation {
  ResourceSet amounts;                    // what counts against `available`
  std::vector<InstanceShares> instances;  // of the unit-instance resources among them
};

class NodeResources {
 public:
  // `unit_instance`: names of the resources that come in whole, numbered units; those of the known accelerators.
  explicit NodeResources(ResourceSet total, std::vector<std::string> unit_instance = {"GPU", "TPU", "neuron_cores", "HPU", "NPU", "RBLN",
                                                                                      "FURIOSA", "TTNPU", "MBLT"});

  const ResourceSet& total() const { return total_; }
  // May be negative where workers that woke from a blocked get took back a CPU that had been given away.
  const ResourceSet& available() const { return available_; }
  // Whether an empty node of this kind could serve `need`.
  bool Feasible(const ResourceSet& need) const { return total_.Covers(need); }
  // Takes `need`, or nothing.
  std::optional<Allocation> Allocate(const ResourceSet& need);
  void Release(const Allocation& allocation);
  // Gives back all of `allocation` that goes beyond `keep`; what is left in it covers `keep`. An index that is held stays held as
  // long as `keep` names its resource.
  void ShrinkTo(const ResourceSet& keep, Allocation* allocation);
  // One resource without instances, for workers that block: `GiveBack` frees `amount`, `TakeAgain` takes it even below zero.
  void GiveBack(std::string_view resource, int64_t amount);
  void TakeAgain(std::string_view resource, int64_t amount);

 private:
  // Nullopt if no choice of indices serves `amount`.
  std::optional<std::vector<std::pair<int32_t, int64_t>>> ChooseInstances(const std::vector<int64_t>& free, int64_t amount) const;

  ResourceSet total_;
  ResourceSet available_;
  std::map<std::string, std::vector<int64_t>, std::less<>> free_instances_;  // resource -> free amount of each index
};

}  // namespace ray::scheduling
