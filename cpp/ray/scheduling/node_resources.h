// NodeResources: what one node has, what of it is free, and which unit instances (GPU 0, GPU 1 ...) who holds.
//
// A resource with unit instances cannot be cut at will: a request for a fraction takes it from one index, a request for
// whole units takes that many untouched indices. So the sum that is free may cover a request which no index can serve.
// Bundles of placement groups are accounts of their own: reserving one takes its amounts (and indices) from the node, requests inside are
// served from it. A request that names no index is served by one bundle, never by the sum of several.
// Pure value; owned by the lease queue; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ray/common/resources.h"
#include "ray/scheduling/bundle.h"

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
  BundleId bundle;                        // whose account it counts against; nil: the node's
};

class NodeResources {
 public:
  // `unit_instance`: names of the resources that come in whole, numbered units; those of the known accelerators.
  explicit NodeResources(ResourceSet total, std::vector<std::string> unit_instance = {"GPU", "TPU", "neuron_cores", "HPU", "NPU", "RBLN",
                                                                                      "FURIOSA", "TTNPU", "MBLT"});

  const ResourceSet& total() const { return node_.total; }
  // May be negative where workers that woke from a blocked get took back a CPU that had been given away.
  const ResourceSet& available() const { return node_.available; }
  // Whether an empty node of this kind, or an empty bundle, could serve `need`. False for bundles that are not here.
  bool Feasible(const ResourceSet& need, const BundleId& bundle = {}) const;
  // Whether Allocate would be served now, were it not for instances.
  bool Covers(const ResourceSet& need, const BundleId& bundle = {}) const;
  // Takes `need`, or nothing. The allocation names the bundle that serves it.
  std::optional<Allocation> Allocate(const ResourceSet& need, const BundleId& bundle = {});
  void Release(const Allocation& allocation);
  // Gives back all of `allocation` that goes beyond `keep`; what is left in it covers `keep`. An index that is held stays held as
  // long as `keep` names its resource.
  void ShrinkTo(const ResourceSet& keep, Allocation* allocation);
  // One resource without instances, for workers that block: `GiveBack` frees `amount`, `TakeAgain` takes it even below zero.
  void GiveBack(std::string_view resource, int64_t amount, const BundleId& bundle = {});
  void TakeAgain(std::string_view resource, int64_t amount, const BundleId& bundle = {});

  // --- bundles
  // Sets `need` aside; false: there is not that much. REQUIRES: not there yet. Closed until OpenBundle.
  bool ReserveBundle(const BundleId& bundle, const ResourceSet& need);
  // Requests are served from now on. Unknown ones are fine.
  void OpenBundle(const BundleId& bundle);
  // No further request is served; the node has the resources back once nothing is held in it any more. Unknown ones are fine.
  void CloseBundle(const BundleId& bundle);
  bool HasBundle(const BundleId& bundle) const { return bundles_.contains(bundle); }
  bool IsInUse(const BundleId& bundle) const {
    const auto it = bundles_.find(bundle);
    return it != bundles_.end() && it->second.users > 0;
  }
  // Whether requests for it may be served here; kAny: for any bundle of the group.
  bool HasOpenBundle(const BundleId& bundle) const;
  // Bundles whose account has changed since the last call: total and available, both empty for one that is gone.
  struct BundleState {
    BundleId bundle;
    ResourceSet total, available;
  };
  std::vector<BundleState> TakeChangedBundles();
  bool HasChangedBundles() const { return !changed_.empty(); }
  // Whether one has given back to the node what it had since the last call of TakeChangedBundles.
  bool HasDroppedBundle() const { return dropped_; }
  void ShowAllBundles() {
    for (const auto& [id, bundle] : bundles_) changed_.insert(id);
  }

 private:
  // Free amounts of the indices that an account has of one resource.
  using Instances = std::map<int32_t, int64_t>;
  struct Account {
    ResourceSet total, available;
    std::map<std::string, Instances, std::less<>> free_instances;
  };
  struct Bundle {
    Account account;
    Allocation reserved;  // from the node
    bool open = false, closing = false;
    int64_t users = 0;  // allocations that hold something of it
  };

  // Nullopt if no choice of indices serves `amount`.
  static std::optional<std::vector<std::pair<int32_t, int64_t>>> ChooseInstances(const Instances& free, int64_t amount);
  static std::optional<Allocation> Take(const ResourceSet& need, Account* account);
  static void Put(const Allocation& allocation, Account* account);
  // Null for a bundle that is not here.
  Account* AccountOf(const BundleId& bundle);
  template <typename F>
  void ForBundles(const BundleId& bundle, F visit) const;  // until it returns true
  void MaybeDrop(const BundleId& bundle);

  Account node_;
  std::map<BundleId, Bundle> bundles_;
  std::set<BundleId> changed_;
  bool dropped_ = false;
};

}  // namespace ray::scheduling
