#include "ray/scheduling/node_resources.h"

#include <algorithm>

#include "ray/util/check.h"

namespace ray::scheduling {

NodeResources::NodeResources(ResourceSet total, std::vector<std::string> unit_instance) : total_(std::move(total)), available_(total_) {
  for (const auto& name : unit_instance) {
    const int64_t amount = total_.Get(name);
    if (amount <= 0) continue;
    std::vector<int64_t> free(amount / ResourceSet::kUnit, ResourceSet::kUnit);
    if (amount % ResourceSet::kUnit != 0) free.push_back(amount % ResourceSet::kUnit);
    free_instances_[name] = std::move(free);
  }
}

std::optional<std::vector<std::pair<int32_t, int64_t>>> NodeResources::ChooseInstances(const std::vector<int64_t>& free,
                                                                                       int64_t amount) const {
  std::vector<std::pair<int32_t, int64_t>> chosen;
  int64_t whole = amount / ResourceSet::kUnit;
  const int64_t fraction = amount % ResourceSet::kUnit;
  std::vector<bool> taken(free.size());
  for (size_t i = 0; i < free.size() && whole > 0; ++i) {
    if (free[i] != ResourceSet::kUnit) continue;
    chosen.emplace_back(static_cast<int32_t>(i), ResourceSet::kUnit);
    taken[i] = true;
    --whole;
  }
  if (whole > 0) return std::nullopt;
  if (fraction > 0) {
    // Best fit: fill an index that others share already before an untouched one is broken.
    int best = -1;
    for (size_t i = 0; i < free.size(); ++i) {
      if (taken[i] || free[i] < fraction) continue;
      if (best < 0 || free[i] < free[best]) best = static_cast<int>(i);
    }
    if (best < 0) return std::nullopt;
    chosen.emplace_back(best, fraction);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::optional<Allocation> NodeResources::Allocate(const ResourceSet& need) {
  if (!available_.Covers(need)) return std::nullopt;
  Allocation allocation{need, {}};
  for (const auto& [name, amount] : need.items()) {
    const auto it = free_instances_.find(name);
    if (it == free_instances_.end()) continue;
    auto chosen = ChooseInstances(it->second, amount);
    if (!chosen) return std::nullopt;
    allocation.instances.push_back({name, std::move(*chosen)});
  }
  for (const auto& instance : allocation.instances) {
    auto& free = free_instances_.find(instance.resource)->second;
    for (const auto& [index, amount] : instance.shares) free[index] -= amount;
  }
  available_.Subtract(need);
  return allocation;
}

void NodeResources::Release(const Allocation& allocation) {
  for (const auto& instance : allocation.instances) {
    auto& free = free_instances_.find(instance.resource)->second;
    for (const auto& [index, amount] : instance.shares) free[index] += amount;
  }
  available_.Add(allocation.amounts);
}

void NodeResources::ShrinkTo(const ResourceSet& keep, Allocation* allocation) {
  Allocation rest{allocation->amounts, {}};
  rest.amounts.Subtract(keep);
  Allocation kept{keep, {}};
  for (auto& instance : allocation->instances) {
    const int64_t wanted = keep.Get(instance.resource);
    if (wanted == allocation->amounts.Get(instance.resource)) {
      kept.instances.push_back(std::move(instance));
      continue;
    }
    InstanceShares stay{instance.resource, {}}, leave{instance.resource, {}};
    int64_t left = wanted;
    for (const auto& [index, amount] : instance.shares) {
      const int64_t part = std::min(left, amount);
      if (part > 0) stay.shares.emplace_back(index, part);
      if (amount > part) leave.shares.emplace_back(index, amount - part);
      left -= part;
    }
    if (!stay.shares.empty()) kept.instances.push_back(std::move(stay));
    if (!leave.shares.empty()) rest.instances.push_back(std::move(leave));
  }
  Release(rest);
  *allocation = std::move(kept);
}

void NodeResources::GiveBack(std::string_view resource, int64_t amount) {
  RAY_CHECK(!free_instances_.contains(resource)) << resource << " comes in instances";
  available_.Set(resource, available_.Get(resource) + amount);
}

void NodeResources::TakeAgain(std::string_view resource, int64_t amount) { GiveBack(resource, -amount); }

}  // namespace ray::scheduling
