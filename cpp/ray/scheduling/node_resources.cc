#include "ray/scheduling/node_resources.h"

#include <algorithm>

#include "ray/util/check.h"

namespace ray::scheduling {

NodeResources::NodeResources(ResourceSet total, std::vector<std::string> unit_instance) {
  node_.total = std::move(total);
  node_.available = node_.total;
  for (const auto& name : unit_instance) {
    const int64_t amount = node_.total.Get(name);
    if (amount <= 0) continue;
    Instances free;
    const auto whole = static_cast<int32_t>(amount / ResourceSet::kUnit);
    for (int32_t i = 0; i < whole; ++i) free[i] = ResourceSet::kUnit;
    if (amount % ResourceSet::kUnit != 0) free[whole] = amount % ResourceSet::kUnit;
    node_.free_instances[name] = std::move(free);
  }
}

std::optional<std::vector<std::pair<int32_t, int64_t>>> NodeResources::ChooseInstances(const Instances& free, int64_t amount) {
  std::vector<std::pair<int32_t, int64_t>> chosen;
  int64_t whole = amount / ResourceSet::kUnit;
  const int64_t fraction = amount % ResourceSet::kUnit;
  std::set<int32_t> taken;
  for (auto it = free.begin(); it != free.end() && whole > 0; ++it) {
    if (it->second != ResourceSet::kUnit) continue;
    chosen.emplace_back(it->first, ResourceSet::kUnit);
    taken.insert(it->first);
    --whole;
  }
  if (whole > 0) return std::nullopt;
  if (fraction > 0) {
    // Best fit: fill an index that others share already before an untouched one is broken.
    auto best = free.end();
    for (auto it = free.begin(); it != free.end(); ++it) {
      if (taken.contains(it->first) || it->second < fraction) continue;
      if (best == free.end() || it->second < best->second) best = it;
    }
    if (best == free.end()) return std::nullopt;
    chosen.emplace_back(best->first, fraction);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::optional<Allocation> NodeResources::Take(const ResourceSet& need, Account* account) {
  if (!account->available.Covers(need)) return std::nullopt;
  Allocation allocation{need, {}, {}};
  for (const auto& [name, amount] : need.items()) {
    const auto it = account->free_instances.find(name);
    if (it == account->free_instances.end()) continue;
    auto chosen = ChooseInstances(it->second, amount);
    if (!chosen) return std::nullopt;
    allocation.instances.push_back({name, std::move(*chosen)});
  }
  for (const auto& instance : allocation.instances) {
    auto& free = account->free_instances.find(instance.resource)->second;
    for (const auto& [index, amount] : instance.shares) free[index] -= amount;
  }
  account->available.Subtract(need);
  return allocation;
}

void NodeResources::Put(const Allocation& allocation, Account* account) {
  for (const auto& instance : allocation.instances) {
    auto& free = account->free_instances.find(instance.resource)->second;
    for (const auto& [index, amount] : instance.shares) free[index] += amount;
  }
  account->available.Add(allocation.amounts);
}

NodeResources::Account* NodeResources::AccountOf(const BundleId& bundle) {
  if (bundle.IsNil()) return &node_;
  const auto it = bundles_.find(bundle);
  return it == bundles_.end() ? nullptr : &it->second.account;
}

template <typename F>
void NodeResources::ForBundles(const BundleId& bundle, F visit) const {
  if (bundle.index != BundleId::kAny) {
    if (const auto it = bundles_.find(bundle); it != bundles_.end()) visit(it->first, it->second);
    return;
  }
  for (auto it = bundles_.lower_bound(bundle); it != bundles_.end() && it->first.group == bundle.group; ++it) {
    if (visit(it->first, it->second)) return;
  }
}

bool NodeResources::Feasible(const ResourceSet& need, const BundleId& bundle) const {
  if (bundle.IsNil()) return node_.total.Covers(need);
  bool feasible = false;
  ForBundles(bundle, [&](const BundleId&, const Bundle& b) { return feasible = !b.closing && b.account.total.Covers(need); });
  return feasible;
}

bool NodeResources::Covers(const ResourceSet& need, const BundleId& bundle) const {
  if (bundle.IsNil()) return node_.available.Covers(need);
  bool covers = false;
  ForBundles(bundle, [&](const BundleId&, const Bundle& b) { return covers = b.open && b.account.available.Covers(need); });
  return covers;
}

bool NodeResources::HasOpenBundle(const BundleId& bundle) const {
  bool open = false;
  ForBundles(bundle, [&](const BundleId&, const Bundle& b) { return open = b.open; });
  return open;
}

std::optional<Allocation> NodeResources::Allocate(const ResourceSet& need, const BundleId& bundle) {
  if (bundle.IsNil()) return Take(need, &node_);
  std::optional<Allocation> taken;
  ForBundles(bundle, [&](const BundleId& id, const Bundle&) {
    Bundle& b = bundles_.find(id)->second;
    if (!b.open) return false;
    taken = Take(need, &b.account);
    if (!taken) return false;
    taken->bundle = id;
    ++b.users;
    changed_.insert(id);
    return true;
  });
  return taken;
}

void NodeResources::Release(const Allocation& allocation) {
  Account* account = AccountOf(allocation.bundle);
  RAY_CHECK(account != nullptr) << "a bundle went before what it held";
  Put(allocation, account);
  if (allocation.bundle.IsNil()) return;
  changed_.insert(allocation.bundle);
  --bundles_.find(allocation.bundle)->second.users;
  MaybeDrop(allocation.bundle);
}

void NodeResources::ShrinkTo(const ResourceSet& keep, Allocation* allocation) {
  Allocation rest{allocation->amounts, {}, {}};
  rest.amounts.Subtract(keep);
  Allocation kept{keep, {}, allocation->bundle};
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
  // Still one user of its bundle, even if it keeps nothing.
  Put(rest, AccountOf(allocation->bundle));
  if (!allocation->bundle.IsNil()) changed_.insert(allocation->bundle);
  *allocation = std::move(kept);
}

void NodeResources::GiveBack(std::string_view resource, int64_t amount, const BundleId& bundle) {
  Account* account = AccountOf(bundle);
  RAY_CHECK(account != nullptr && !account->free_instances.contains(resource)) << resource << " comes in instances";
  account->available.Set(resource, account->available.Get(resource) + amount);
  if (!bundle.IsNil()) changed_.insert(bundle);
}

void NodeResources::TakeAgain(std::string_view resource, int64_t amount, const BundleId& bundle) { GiveBack(resource, -amount, bundle); }

bool NodeResources::ReserveBundle(const BundleId& id, const ResourceSet& need) {
  RAY_CHECK(!bundles_.contains(id));
  auto reserved = Take(need, &node_);
  if (!reserved) return false;
  Bundle bundle;
  bundle.account.total = bundle.account.available = need;
  for (const InstanceShares& instance : reserved->instances) {
    Instances& free = bundle.account.free_instances[instance.resource];
    for (const auto& [index, amount] : instance.shares) free[index] = amount;
  }
  bundle.reserved = std::move(*reserved);
  bundles_.emplace(id, std::move(bundle));
  return true;
}

void NodeResources::OpenBundle(const BundleId& id) {
  const auto it = bundles_.find(id);
  if (it == bundles_.end() || it->second.closing) return;
  it->second.open = true;
  changed_.insert(id);
}

void NodeResources::CloseBundle(const BundleId& id) {
  const auto it = bundles_.find(id);
  if (it == bundles_.end()) return;
  it->second.open = false;
  it->second.closing = true;
  MaybeDrop(id);
}

void NodeResources::MaybeDrop(const BundleId& id) {
  const auto it = bundles_.find(id);
  if (!it->second.closing || it->second.users > 0) return;
  Put(it->second.reserved, &node_);
  bundles_.erase(it);
  changed_.insert(id);
  dropped_ = true;
}

std::vector<NodeResources::BundleState> NodeResources::TakeChangedBundles() {
  dropped_ = false;
  std::vector<BundleState> states;
  for (const BundleId& id : changed_) {
    BundleState& state = states.emplace_back();
    state.bundle = id;
    if (const auto it = bundles_.find(id); it != bundles_.end()) {
      state.total = it->second.account.total;
      state.available = it->second.account.available;
    }
  }
  changed_.clear();
  return states;
}

}  // namespace ray::scheduling
