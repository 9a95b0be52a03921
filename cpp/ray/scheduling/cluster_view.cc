#include "ray/scheduling/cluster_view.h"

#include <algorithm>
#include <bit>

namespace ray::scheduling {
namespace {

constexpr size_t kLooks = 64;       // nodes looked at by a search without a lens; as many nodes are always worth one
constexpr size_t kMaxKnown = 1024;  // shapes remembered
constexpr size_t kMaxLenses = 128;  // a quarter of a byte per node each
constexpr size_t kMaxLadders = 16;
constexpr size_t kMinChanges = 1024;
constexpr std::string_view kGpu = "GPU";
constexpr uint64_t kGpuBit = uint64_t{1} << 63;

// Shares in use are not negative: as bits they are in the same order as the numbers, and leave the sign free.
uint64_t Raw(double used, bool has_gpu) { return std::bit_cast<uint64_t>(std::max(used, 0.0)) | (has_gpu ? kGpuBit : 0); }
uint64_t InOrder(uint64_t raw, const ClusterView::Order& order) {
  const uint64_t used = raw & ~kGpuBit;
  return (order.shun_gpus ? raw & kGpuBit : 0) | (used < std::bit_cast<uint64_t>(order.threshold) ? 0 : used);
}

double UsedShare(std::span<const ClusterView::Amount> amounts) {
  double used = 0;
  for (const ClusterView::Amount& amount : amounts) {
    if (amount.total > 0 && amount.free < amount.total)
      used = std::max(used, 1.0 - static_cast<double>(amount.free) / static_cast<double>(amount.total));
  }
  return used;
}

// Calls visit(amount, of_other) for each amount, with what `other` has of the same name.
template <typename Amounts, typename F>
void ForEachWith(Amounts& amounts, const ResourceSet& other, F visit) {
  auto it = other.items().begin();
  const auto end = other.items().end();
  for (auto& amount : amounts) {  // both are in the order of names
    int order = -1;
    while (it != end && (order = it->first.compare(*amount.name)) < 0) ++it;
    visit(amount, it != end && order == 0 ? it->second : 0);
  }
}

size_t Mix(size_t seed, size_t value) { return (seed ^ value) * 0x9e3779b97f4a7c15ull + (seed >> 29); }

size_t HashOf(const ResourceSet& need, const LabelSelector* labels) {
  size_t hash = 1;
  const std::hash<std::string> text;
  for (const auto& [name, amount] : need.items()) hash = Mix(Mix(hash, text(name)), static_cast<size_t>(amount));
  if (labels == nullptr) return hash;
  for (const auto& constraint : labels->constraints()) {
    hash = Mix(Mix(hash, text(constraint.key)), constraint.any * 2u + constraint.negated);
    for (const auto& value : constraint.values) hash = Mix(hash, text(value));
  }
  return hash;
}

}  // namespace

uint64_t SplitMix::Next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

size_t ClusterView::ShapeHash::operator()(const Shape& shape) const { return HashOf(shape.need, &shape.labels); }
size_t ClusterView::ShapeHash::operator()(const Want& want) const { return HashOf(*want.need, want.labels); }
bool ClusterView::ShapeEqual::operator()(const Want& a, const Shape& b) const {
  return *a.need == b.need && (a.labels == nullptr ? b.labels.empty() : *a.labels == b.labels);
}

ResourceSet ClusterView::Node::total() const {
  ResourceSet set;
  for (const Amount& amount : amounts) set.Set(*amount.name, amount.total);
  return set;
}

ResourceSet ClusterView::Node::available() const {
  ResourceSet set;
  for (const Amount& amount : amounts) set.Set(*amount.name, amount.free);
  return set;
}

const ClusterView::Amount* ClusterView::Node::Find(std::string_view resource) const {
  const auto it = std::ranges::find_if(amounts, [&](const Amount& amount) { return *amount.name == resource; });
  return it == amounts.end() ? nullptr : &*it;
}

bool ClusterView::Node::Covers(const ResourceSet& need, Fit fit) const {
  auto it = amounts.begin();
  for (const auto& [name, needed] : need.items()) {
    if (needed <= 0) continue;
    int order = -1;
    while (it != amounts.end() && (order = it->name->compare(name)) < 0) ++it;
    if (it == amounts.end() || order != 0 || (fit == Fit::kNow ? it->free : it->total) < needed) return false;
  }
  return true;
}

// ---- what nodes report ----

void ClusterView::Link(Slot slot, const ResourceSet& total, const ResourceSet& available) {
  Node& node = slots_[slot];
  node.amounts.reserve(total.items().size());
  for (const auto& [name, amount] : total.items()) {
    const auto it = by_resource_.try_emplace(name).first;
    it->second.sum += amount;
    ++it->second.of_nodes[amount];
    node.amounts.push_back({&it->first, amount, 0});
  }
  ForEachWith(node.amounts, available, [](Amount& amount, int64_t free) { amount.free = free; });
  for (const auto& [key, value] : node.labels) ++by_label_[key][value];
  const bool has_gpu = total.Get(kGpu) > 0;
  if (!has_gpu) ++num_without_gpu_;
  Rank(slot, has_gpu);
  Note(slot, /*structural=*/true);
}

void ClusterView::Unlink(Slot slot) {
  Node& node = slots_[slot];
  if ((rank_[slot] & kGpuBit) == 0) --num_without_gpu_;
  for (const Amount& amount : node.amounts) {
    const auto it = by_resource_.find(*amount.name);
    it->second.sum -= amount.total;
    if (const auto same = it->second.of_nodes.find(amount.total); --same->second == 0) it->second.of_nodes.erase(same);
    if (it->second.of_nodes.empty()) by_resource_.erase(it);
  }
  node.amounts.clear();
  for (const auto& [key, value] : node.labels) {
    const auto it = by_label_.find(key);
    if (const auto same = it->second.find(value); --same->second == 0) it->second.erase(same);
    if (it->second.empty()) by_label_.erase(it);
  }
}

bool ClusterView::Set(const NodeId& id, const ResourceSet& total, const ResourceSet& available, Labels labels, uint64_t version,
                      bool draining) {
  Slot slot = SlotOf(id);
  if (slot != kNone) {
    Node& node = slots_[slot];
    if (version < node.version) return false;
    if (node.labels == labels && node.draining == draining && node.total() == total) {
      if (version == node.version) return false;
      SetFree(slot, available, version);
      return true;
    }
    Unlink(slot);
  } else {
    if (free_.empty()) {
      slot = static_cast<Slot>(slots_.size());
      slots_.emplace_back();
      rank_.push_back(0);
    } else {
      slot = free_.back();
      free_.pop_back();
    }
    index_.Insert(id.Hash(), slot);
  }
  Node& node = slots_[slot];
  node.id = id;
  node.labels = std::move(labels);
  node.version = version;
  node.draining = draining;
  Link(slot, total, available);
  ++epoch_;
  ++totals_epoch_;
  return true;
}

bool ClusterView::SetAvailable(const NodeId& id, const ResourceSet& available, uint64_t version) {
  const Slot slot = SlotOf(id);
  if (slot == kNone || version <= slots_[slot].version) return false;
  SetFree(slot, available, version);
  return true;
}

void ClusterView::SetFree(Slot slot, const ResourceSet& available, uint64_t version) {
  Node& node = slots_[slot];
  node.version = version;
  bool more = false, less = false;
  ForEachWith(node.amounts, available, [&](Amount& amount, int64_t free) {
    more |= free > amount.free;
    less |= free < amount.free;
    amount.free = free;
  });
  if (more || less) OnAvailable(slot, more);
}

ClusterView::Handle ClusterView::HandleOf(const NodeId& id) const {
  const Slot slot = SlotOf(id);
  return slot == kNone ? Handle() : Handle{slot, slots_[slot].generation};
}

bool ClusterView::SetTaken(Handle handle, std::span<const int64_t> taken, uint64_t version) {
  if (handle.slot >= slots_.size()) return false;
  Node& node = slots_[handle.slot];
  if (node.generation != handle.generation || version <= node.version || taken.size() != node.amounts.size()) return false;
  node.version = version;
  bool more = false, less = false;
  for (size_t i = 0; i < taken.size(); ++i) {
    Amount& amount = node.amounts[i];
    int64_t free;
    if (__builtin_sub_overflow(amount.total, taken[i], &free)) continue;  // absurd
    more |= free > amount.free;
    less |= free < amount.free;
    amount.free = free;
  }
  if (more || less) OnAvailable(handle.slot, more);
  return true;
}

void ClusterView::Remove(const NodeId& id) {
  const Slot slot = SlotOf(id);
  if (slot == kNone) return;
  Unlink(slot);
  index_.Erase(id.Hash(), slot);
  const uint32_t generation = slots_[slot].generation + 1;
  slots_[slot] = {};
  slots_[slot].generation = generation;
  Note(slot, /*structural=*/true);
  free_.push_back(slot);
}

void ClusterView::Take(const NodeId& id, const ResourceSet& need) { Change(id, need, /*take=*/true); }

void ClusterView::GiveBack(const NodeId& id, const ResourceSet& need) { Change(id, need, /*take=*/false); }

void ClusterView::Change(const NodeId& id, const ResourceSet& need, bool take) {
  const Slot slot = SlotOf(id);
  if (slot == kNone || need.empty()) return;
  ForEachWith(slots_[slot].amounts, need, [take](Amount& amount, int64_t needed) {
    int64_t free;
    if (!(take ? __builtin_sub_overflow(amount.free, needed, &free) : __builtin_add_overflow(amount.free, needed, &free)))
      amount.free = free;
  });
  OnAvailable(slot, /*more=*/!take);
}

void ClusterView::Rank(Slot slot, bool has_gpu) { rank_[slot] = Raw(UsedShare(slots_[slot].amounts), has_gpu); }

void ClusterView::OnAvailable(Slot slot, bool more) {
  Rank(slot, (rank_[slot] & kGpuBit) != 0);
  if (more) ++epoch_;
  Note(slot, /*structural=*/false);
}

void ClusterView::Note(Slot slot, bool structural) {
  if (changes_.size() < 2 * slots_.size()) {  // what lies in it is at other places from now on: lenses begin anew
    changes_.resize(std::bit_ceil(std::max(kMinChanges, 4 * slots_.size())));
    oldest_noted_ = change_;
  }
  ++change_;
  changes_[change_ & (changes_.size() - 1)] = {slot, structural};
  if (change_ - oldest_noted_ > changes_.size()) oldest_noted_ = change_ - changes_.size();
}

const ClusterView::Node* ClusterView::Find(const NodeId& id) const {
  const Slot slot = SlotOf(id);
  return slot == kNone ? nullptr : &slots_[slot];
}

ResourceSet ClusterView::Total() const {
  ResourceSet total;
  for (const auto& [name, amounts] : by_resource_) total.Set(name, amounts.sum);
  return total;
}

int64_t ClusterView::TotalOf(std::string_view resource) const {
  const auto it = by_resource_.find(resource);
  return it == by_resource_.end() ? 0 : it->second.sum;
}

const std::map<std::string, size_t>& ClusterView::LabelValues(std::string_view key) const {
  static const std::map<std::string, size_t> kNone;
  const auto it = by_label_.find(key);
  return it == by_label_.end() ? kNone : it->second;
}

// ---- searching ----

bool ClusterView::Fits(const Node& node, const Want& want, Fit fit) const {
  if (!node.Covers(*want.need, fit) || node.draining) return false;
  if (want.labels != nullptr && !want.labels->Matches(node.labels)) return false;
  return want.except == nullptr || !want.except->contains(node.id);
}

uint64_t ClusterView::RankOf(const Node& node, const Order& order) const { return InOrder(rank_[SlotOf(node)], order); }

bool ClusterView::BeyondTotals(const Want& want) const {
  return std::any_of(want.need->items().begin(), want.need->items().end(), [this](const auto& item) {
    if (item.second <= 0) return false;
    const auto it = by_resource_.find(item.first);
    return it == by_resource_.end() || it->second.of_nodes.rbegin()->first < item.second;
  });
}

ClusterView::Known* ClusterView::Remember(const Want& want) {
  if (const auto it = known_.find(want); it != known_.end()) return &it->second;
  if (BeyondTotals(want)) return nullptr;
  if (known_.size() >= kMaxKnown) std::erase_if(known_, [](const auto& entry) { return entry.second.lens == nullptr; });
  return &known_[{*want.need, want.labels == nullptr ? LabelSelector() : *want.labels}];
}

void ClusterView::Refresh(Lens* lens, const Want& want, Slot slot, bool structural) {
  const Node& node = slots_[slot];
  if (structural) {
    const bool fits = !node.id.IsNil() && !node.draining && node.Covers(*want.need, Fit::kEver) &&
                      (want.labels == nullptr || want.labels->Matches(node.labels));
    lens->ever.Assign(slot, fits);
  }
  lens->now.Assign(slot, lens->ever.Contains(slot) && node.Covers(*want.need, Fit::kNow));
}

ClusterView::Lens* ClusterView::Build(Known* known, const Want& want) {
  if (known->lens == nullptr) {
    if (num_lenses_ >= kMaxLenses) DropOldestLens();
    ++num_lenses_;
  }
  known->lens = std::make_unique<Lens>();
  known->looks = 0;
  Lens* lens = known->lens.get();
  for (Slot slot = 0; slot < slots_.size(); ++slot) Refresh(lens, want, slot, /*structural=*/true);
  lens->seen = change_;
  lens->used_at = ++searches_;
  return lens;
}

void ClusterView::DropOldestLens() {
  Known* oldest = nullptr;
  for (auto& [shape, known] : known_) {
    if (known.lens != nullptr && (oldest == nullptr || known.lens->used_at < oldest->lens->used_at)) oldest = &known;
  }
  oldest->lens.reset();
  --num_lenses_;
}

ClusterView::Lens* ClusterView::LensOf(Known* known, const Want& want) {
  Lens* lens = known->lens.get();
  if (lens == nullptr) return slots_.size() <= std::max(kLooks, known->looks) ? Build(known, want) : nullptr;
  if (lens->seen < oldest_noted_) return Build(known, want);
  while (lens->seen < change_) {
    const auto [slot, structural] = changes_[++lens->seen & (changes_.size() - 1)];
    Refresh(lens, want, slot, structural);
  }
  lens->used_at = ++searches_;
  return lens;
}

template <typename F>
void ClusterView::LookAround(const Want& want, Fit fit, Slot from, size_t looks, F visit) const {
  Slot slot = from;
  for (size_t i = 0; i < looks; ++i, ++slot) {
    if (slot >= slots_.size()) slot = 0;
    if (!slots_[slot].id.IsNil() && Fits(slots_[slot], want, fit) && visit(slot)) return;
  }
}

SlotMax* ClusterView::LadderOf(const std::string& resource) {
  Ladder& ladder = ladders_[resource];
  auto refresh = [&](Slot slot) {
    const Node& node = slots_[slot];
    const Amount* amount = node.draining ? nullptr : node.Find(resource);
    ladder.free.Set(slot, amount == nullptr ? SlotMax::kNothing : amount->free);
  };
  if (ladder.free.size() < slots_.size() || ladder.seen < oldest_noted_) {
    ladder.free.Clear(std::bit_ceil(slots_.size()));
    for (Slot slot = 0; slot < slots_.size(); ++slot) refresh(slot);
    ladder.seen = change_;
  }
  while (ladder.seen < change_) refresh(changes_[++ladder.seen & (changes_.size() - 1)].first);
  return &ladder.free;
}

template <typename F>
bool ClusterView::Climb(const Want& want, F visit) {
  // The scarcest resource: of which the most that a node has free is the least beyond what is needed.
  if (ladders_.size() + want.need->items().size() > kMaxLadders) ladders_.clear();
  const SlotMax* scarcest = nullptr;
  int64_t amount = 0;
  double least = 0;
  for (const auto& [name, needed] : want.need->items()) {
    if (needed <= 0) continue;
    const SlotMax* ladder = LadderOf(name);
    const int64_t most = ladder->max();
    if (most < needed) return true;
    const double beyond = static_cast<double>(most) / static_cast<double>(needed);
    if (scarcest != nullptr && beyond >= least) continue;
    scarcest = ladder;
    amount = needed;
    least = beyond;
  }
  if (scarcest == nullptr) return false;
  const auto from = static_cast<Slot>(begin_.Below(slots_.size()));
  Slot slot = from;
  bool wrapped = false;
  for (size_t looks = 0; looks < kLooks; ++looks, ++slot) {
    slot = scarcest->NextAtLeast(slot, amount);
    if (slot == SlotMax::kNone) {
      if (wrapped) return true;
      wrapped = true;
      slot = scarcest->NextAtLeast(0, amount);
    }
    if (wrapped && (slot == SlotMax::kNone || slot >= from)) return true;
    if (Fits(slots_[slot], want, Fit::kNow) && visit(slot)) return true;
  }
  return false;
}

std::vector<ClusterView::Found> ClusterView::Search(const Want& want, Fit fit, const Extent& extent, const Order& order) {
  const auto [limit, enough, least] = extent;
  std::vector<Found> found;
  if (limit == 0 || index_.size() == 0) return found;
  Known* known = Remember(want);
  if (known == nullptr || known->InVain(fit) == EpochOf(fit)) return found;
  size_t good = 0;
  auto take = [&, limit = limit, enough = enough](Slot slot) {
    const uint64_t rank = InOrder(rank_[slot], order);
    found.push_back({&slots_[slot], rank});
    good += rank == 0;
    return found.size() >= limit || (enough > 0 && good >= enough);
  };
  Lens* lens = LensOf(known, want);
  if (lens == nullptr) {
    const size_t looks = std::max(kLooks, limit * 2);
    if (looks < slots_.size()) {
      known->looks += looks;
      LookAround(want, fit, static_cast<Slot>(begin_.Below(slots_.size())), looks, take);
      if (found.size() >= std::min(least, limit)) return found;
      found.clear();
      good = 0;
      if (fit == Fit::kNow && Climb(want, take)) {
        if (found.empty() && (want.except == nullptr || want.except->empty())) known->InVain(fit) = EpochOf(fit);
        return found;
      }
      if (found.size() >= std::min(least, limit)) return found;
      found.clear();
      good = 0;
    }
    lens = Build(known, want);
  }
  const SlotSet& fitting = lens->Of(fit);
  if (fitting.empty()) {
    known->InVain(fit) = EpochOf(fit);
    return found;
  }
  found.reserve(std::min(limit, fitting.size()));
  // Where it ends early it must not begin with the same nodes each time.
  const bool all = fitting.size() <= (enough > 0 ? std::min(limit, enough) : limit);
  const Slot from = all ? 0 : static_cast<Slot>(begin_.Below(slots_.size()));
  const bool all_will_do = want.except == nullptr || want.except->empty();  // then there is no need to touch the nodes themselves
  auto consider = [&](Slot slot) { return (all_will_do || !want.except->contains(slots_[slot].id)) && take(slot); };
  if (!fitting.Walk(from, kNone, consider)) fitting.Walk(0, from, consider);
  return found;
}

bool ClusterView::HasMoreThan(const Want& want, Fit fit, size_t limit) {
  if (index_.size() <= limit) return false;
  Known* known = Remember(want);
  if (known == nullptr || known->InVain(fit) == EpochOf(fit)) return false;
  Lens* lens = LensOf(known, want);
  if (lens == nullptr) {
    const size_t looks = std::min(std::max(kLooks, limit * 2), slots_.size());
    known->looks += looks;
    size_t found = 0;
    LookAround({want.need, want.labels}, fit, static_cast<Slot>(begin_.Below(slots_.size())), looks, [&](Slot) { return ++found > limit; });
    if (found > limit) return true;
    lens = Build(known, want);
  }
  return lens->Of(fit).size() > limit;
}

const ClusterView::Node* ClusterView::Next(const Want& want, Fit fit, const NodeId& after) {
  if (index_.size() == 0) return nullptr;
  Known* known = Remember(want);
  if (known == nullptr || known->InVain(fit) == EpochOf(fit)) return nullptr;
  const Slot last = SlotOf(after);
  const Slot from = last == kNone ? 0 : last + 1;
  Lens* lens = LensOf(known, want);
  if (lens == nullptr) {
    known->looks += kLooks;
    const Node* found = nullptr;
    auto take = [&](Slot slot) { return (found = &slots_[slot]) != nullptr; };
    LookAround(want, fit, from, kLooks, take);
    // Hardly any fits: evenness is no matter.
    if (found != nullptr || (fit == Fit::kNow && Climb(want, take))) return found;
    lens = Build(known, want);
  }
  const SlotSet& fitting = lens->Of(fit);
  Slot slot = from;
  for (size_t i = 0; i < fitting.size(); ++i, ++slot) {
    slot = fitting.NextFrom(slot);
    if (slot == SlotSet::kNone) slot = fitting.NextFrom(0);
    if (want.except == nullptr || !want.except->contains(slots_[slot].id)) return &slots_[slot];
  }
  return nullptr;
}

}  // namespace ray::scheduling
