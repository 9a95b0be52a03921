#include "ray/scheduling/cluster_view.h"

#include <algorithm>

namespace ray::scheduling {
namespace {

constexpr size_t kLooks = 64;       // nodes looked at by each of the cheap searches
constexpr size_t kMaxKnown = 1024;  // shapes remembered
constexpr std::string_view kGpu = "GPU";

}  // namespace

uint64_t SplitMix::Next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

double ClusterView::UsedShare(const Node& node) {
  double used = 0;
  for (const auto& [name, total] : node.total.items()) {
    if (total > 0) used = std::max(used, 1.0 - static_cast<double>(node.available.Get(name)) / static_cast<double>(total));
  }
  return used;
}

void ClusterView::Link(Slot slot) {
  Node& node = slots_[slot];
  node.used = UsedShare(node);
  node.has_gpu = node.total.Get(kGpu) > 0;
  if (!node.has_gpu) ++num_without_gpu_;
  all_.insert(slot);
  total_.Add(node.total);
  for (const auto& [name, amount] : node.total.items()) {
    Index& index = by_resource_[name];
    ++index.totals[amount];
    index.slots.insert(slot);
    index.by_available.emplace(node.available.Get(name), slot);
  }
  for (const auto& label : node.labels) by_label_[label].insert(slot);
}

void ClusterView::Unlink(Slot slot) {
  const Node& node = slots_[slot];
  if (!node.has_gpu) --num_without_gpu_;
  all_.erase(slot);
  total_.Subtract(node.total);
  for (const auto& [name, amount] : node.total.items()) {
    const auto it = by_resource_.find(name);
    if (const auto same = it->second.totals.find(amount); --same->second == 0) it->second.totals.erase(same);
    it->second.slots.erase(slot);
    it->second.by_available.erase({node.available.Get(name), slot});
    if (it->second.slots.empty()) by_resource_.erase(it);
  }
  for (const auto& label : node.labels) {
    const auto it = by_label_.find(label);
    it->second.erase(slot);
    if (it->second.empty()) by_label_.erase(it);
  }
}

bool ClusterView::Set(const NodeId& id, ResourceSet total, ResourceSet available, Labels labels, uint64_t version, bool draining) {
  const auto known = slot_of_.find(id);
  Slot slot;
  if (known != slot_of_.end()) {
    slot = known->second;
    Node& node = slots_[slot];
    if (version < node.version) return false;
    if (node.total == total && node.labels == labels && node.draining == draining) {
      if (version == node.version) return false;
      node.version = version;
      Update(slot, available);
      return true;
    }
    Unlink(slot);
  } else {
    if (free_.empty()) {
      slot = static_cast<Slot>(slots_.size());
      slots_.emplace_back();
    } else {
      slot = free_.back();
      free_.pop_back();
    }
    slot_of_[id] = slot;
  }
  slots_[slot] = {id, std::move(total), std::move(available), std::move(labels), version, draining, 0, false};
  Link(slot);
  ++epoch_;
  ++totals_epoch_;
  return true;
}

bool ClusterView::SetAvailable(const NodeId& id, ResourceSet available, uint64_t version) {
  const auto it = slot_of_.find(id);
  if (it == slot_of_.end() || version <= slots_[it->second].version) return false;
  slots_[it->second].version = version;
  Update(it->second, available);
  return true;
}

void ClusterView::Remove(const NodeId& id) {
  const auto it = slot_of_.find(id);
  if (it == slot_of_.end()) return;
  Unlink(it->second);
  slots_[it->second] = {};
  free_.push_back(it->second);
  slot_of_.erase(it);
}

void ClusterView::Update(Slot slot, const ResourceSet& available) {
  Node& node = slots_[slot];
  bool more = false;
  for (const auto& [name, total] : node.total.items()) {
    const int64_t before = node.available.Get(name), now = available.Get(name);
    if (before == now) continue;
    more |= now > before;
    auto& order = by_resource_.find(name)->second.by_available;
    order.erase({before, slot});
    order.emplace(now, slot);
  }
  node.available = available;
  node.used = UsedShare(node);
  if (more) ++epoch_;
}

void ClusterView::Take(const NodeId& id, const ResourceSet& need) {
  const auto it = slot_of_.find(id);
  if (it == slot_of_.end() || need.empty()) return;
  ResourceSet available = slots_[it->second].available;
  available.Subtract(need);
  Update(it->second, available);
}

void ClusterView::GiveBack(const NodeId& id, const ResourceSet& need) {
  const auto it = slot_of_.find(id);
  if (it == slot_of_.end() || need.empty()) return;
  ResourceSet available = slots_[it->second].available;
  available.Add(need);
  Update(it->second, available);
}

const ClusterView::Node* ClusterView::Find(const NodeId& id) const {
  const auto it = slot_of_.find(id);
  return it == slot_of_.end() ? nullptr : &slots_[it->second];
}

bool ClusterView::Fits(const Node& node, const Want& want, Fit fit) const {
  if (node.draining || !(fit == Fit::kNow ? node.available : node.total).Covers(*want.need)) return false;
  if (want.labels != nullptr && !want.labels->Matches(node.labels)) return false;
  return want.except == nullptr || !want.except->contains(node.id);
}

const std::set<ClusterView::Slot>* ClusterView::Candidates(const Want& want, const Index** rarest) const {
  static const std::set<Slot> kNone;
  const std::set<Slot>* best = &all_;
  *rarest = nullptr;
  for (const auto& [name, amount] : want.need->items()) {
    if (amount <= 0) continue;
    const auto it = by_resource_.find(name);
    if (it == by_resource_.end()) return &kNone;
    if (*rarest == nullptr || it->second.slots.size() < best->size()) {
      best = &it->second.slots;
      *rarest = &it->second;
    }
  }
  if (want.labels == nullptr) return best;
  for (const auto& constraint : want.labels->constraints()) {
    if (constraint.negated || constraint.any || constraint.values.size() != 1) continue;
    const auto it = by_label_.find({constraint.key, constraint.values[0]});
    if (it == by_label_.end()) return &kNone;
    if (it->second.size() < best->size()) best = &it->second;
  }
  return best;
}

bool ClusterView::BeyondAll(const Want& want, Fit fit) const {
  for (const auto& [name, amount] : want.need->items()) {
    if (amount <= 0) continue;
    const auto it = by_resource_.find(name);
    if (it == by_resource_.end()) return true;
    const int64_t most = fit == Fit::kNow ? it->second.by_available.rbegin()->first : it->second.totals.rbegin()->first;
    if (most < amount) return true;
  }
  return false;
}

bool ClusterView::KnownInVain(const Want& want, Fit fit) const {
  if (want.except != nullptr && !want.except->empty()) return false;
  const auto it = known_.find({*want.need, want.labels == nullptr ? LabelSelector() : *want.labels, fit});
  return it != known_.end() && it->second.in_vain == EpochOf(fit);
}

ClusterView::Known* ClusterView::Remember(const Want& want, Fit fit) {
  if (want.except != nullptr && !want.except->empty()) return nullptr;
  Shape shape{*want.need, want.labels == nullptr ? LabelSelector() : *want.labels, fit};
  if (const auto it = known_.find(shape); it != known_.end()) return &it->second;
  if (known_.size() >= kMaxKnown) {
    std::erase_if(known_, [this](const auto& entry) {
      const uint64_t now = EpochOf(entry.first.fit);
      return entry.second.in_vain != now && entry.second.plenty != now;
    });
  }
  if (known_.size() >= kMaxKnown) known_.clear();
  return &known_[std::move(shape)];
}

bool ClusterView::HasMoreThan(const Want& want, Fit fit, size_t limit) {
  if (BeyondAll(want, fit)) return false;
  Known* known = Remember(want, fit);
  if (known != nullptr && known->plenty == EpochOf(fit) && known->plenty_limit >= limit) return true;
  if (Search(want, fit, limit + 1).size() <= limit) return false;
  if (known = Remember(want, fit); known != nullptr) {
    known->plenty = EpochOf(fit);
    known->plenty_limit = limit;
  }
  return true;
}

std::vector<const ClusterView::Node*> ClusterView::Search(const Want& want, Fit fit, size_t limit, const Enough& enough) {
  std::vector<const Node*> found;
  if (limit == 0 || slot_of_.empty() || BeyondAll(want, fit)) return found;
  const Index* rarest;
  const std::set<Slot>& candidates = *Candidates(want, &rarest);
  if (candidates.empty()) return found;
  const size_t looks = std::max(kLooks, limit * 2);
  size_t good = 0;
  auto look = [&](Slot slot) {
    const Node& node = slots_[slot];
    if (!Fits(node, want, fit)) return false;
    found.push_back(&node);
    if (enough.count > 0 && enough.good(node)) ++good;
    return found.size() >= limit || (enough.count > 0 && good >= enough.count);
  };
  // Where looking ends early it must not begin with the same nodes each time.
  if (candidates.size() <= (enough.count > 0 ? enough.count : looks)) {
    for (const Slot slot : candidates) {
      if (look(slot)) break;
    }
    return found;
  }
  // A run from a random place.
  auto it = candidates.lower_bound(static_cast<Slot>(random_.Below(slots_.size())));
  for (size_t i = 0; i < std::min(looks, candidates.size()); ++i, ++it) {
    if (it == candidates.end()) it = candidates.begin();
    if (look(*it)) return found;
  }
  if (!found.empty() || KnownInVain(want, fit)) return found;
  if (candidates.size() <= looks) return found;  // all of them were looked at
  bool all_seen = false;
  if (rarest != nullptr) {
    int64_t least = INT64_MIN;
    for (const auto& [name, amount] : want.need->items()) {
      const auto index = by_resource_.find(name);
      if (amount > 0 && &index->second == rarest) least = amount;
    }
    auto most = rarest->by_available.rbegin();
    size_t i = 0;
    for (; i < looks && most != rarest->by_available.rend() && (fit == Fit::kEver || most->first >= least); ++i, ++most) {
      if (look(most->second)) break;
    }
    if (!found.empty()) return found;
    all_seen = fit == Fit::kNow && i < looks;  // that have enough of it free
  }
  if (!all_seen) {
    for (const Slot slot : candidates) {
      if (look(slot)) return found;
    }
  }
  if (Known* known = Remember(want, fit)) known->in_vain = EpochOf(fit);
  return found;
}

const ClusterView::Node* ClusterView::Next(const Want& want, Fit fit, const NodeId& after) {
  const Index* rarest;
  const std::set<Slot>& candidates = *Candidates(want, &rarest);
  if (candidates.empty() || KnownInVain(want, fit)) return nullptr;
  if (candidates.size() <= kLooks) {  // the ring of the candidates, in the order of ids
    const Node* first = nullptr;
    const Node* next = nullptr;
    for (const Slot slot : candidates) {
      const Node& node = slots_[slot];
      if (!Fits(node, want, fit)) continue;
      if (first == nullptr || node.id < first->id) first = &node;
      if (after < node.id && (next == nullptr || node.id < next->id)) next = &node;
    }
    return next != nullptr ? next : first;
  }
  auto it = slot_of_.upper_bound(after);
  for (size_t i = 0; i < std::min(slot_of_.size(), 4 * kLooks); ++i, ++it) {
    if (it == slot_of_.end()) it = slot_of_.begin();
    if (Fits(slots_[it->second], want, fit)) return &slots_[it->second];
  }
  // Hardly any fits: evenness is no matter any more.
  const std::vector<const Node*> found = Search(want, fit, 1);
  return found.empty() ? nullptr : found[0];
}

}  // namespace ray::scheduling
