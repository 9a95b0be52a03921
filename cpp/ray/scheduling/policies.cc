#include "ray/scheduling/policies.h"

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>

namespace ray::scheduling {
namespace {

constexpr std::string_view kGpu = "GPU";

using Fit = ClusterView::Fit;
using Node = ClusterView::Node;

// In the order in which they joined, where they are equal.
bool Better(const ClusterView::Found& a, const ClusterView::Found& b) { return a.rank != b.rank ? a.rank < b.rank : a.node < b.node; }

// The one that has `place` others before it. It is one of the first few: the best so far are kept in order, and most of the others are compared with the last of them only, which is
// cheaper than a heap or to partition them, where each comparison may go either way.
const Node* Ranked(std::vector<ClusterView::Found>* candidates, size_t place) {
  ClusterView::Found* const best = candidates->data();
  std::sort(best, best + place + 1, Better);
  for (size_t i = place + 1; i < candidates->size(); ++i) {
    const ClusterView::Found candidate = best[i];
    if (!Better(candidate, best[place])) continue;
    size_t at = place;
    for (; at > 0 && Better(candidate, best[at - 1]); --at) best[at] = best[at - 1];
    best[at] = candidate;
  }
  return best[place].node;
}

}  // namespace

PlacementRequest MakePlacementRequest(ResourceSet need, const SchedulingStrategy& strategy) {
  PlacementRequest request;
  request.need = std::move(need);
  if (strategy.kind == SchedulingStrategy::kSpread) {
    request.strategy = Strategy::kSpread;
  } else if (strategy.kind == SchedulingStrategy::kNodeAffinity) {
    request.strategy = Strategy::kNodeAffinity;
    request.affinity_node = strategy.node_id;
    request.soft = strategy.soft;
    request.spill_on_unavailable = strategy.spill_on_unavailable;
    request.fail_on_unavailable = strategy.fail_on_unavailable;
  }
  for (const auto& selector : strategy.selectors) request.selectors.emplace_back(selector);
  request.preferred = LabelSelector(strategy.preferred);
  return request;
}

Placement PlacementPolicy::Choose(const PlacementRequest& request, const NodeId& preferred, const std::set<NodeId>& except) {
  return request.strategy == Strategy::kNodeAffinity ? Affinity(request, preferred, except) : Anywhere(request, preferred, except);
}

Placement PlacementPolicy::Affinity(const PlacementRequest& request, const NodeId& preferred, const std::set<NodeId>& except) {
  const Node* node = view_->Find(request.affinity_node);
  const ClusterView::Want want{&request.need};
  const bool labelled = node != nullptr && (request.selectors.empty() ||
                                            std::any_of(request.selectors.begin(), request.selectors.end(), [&](const auto& selector) {
                                              return view_->Fits(*node, {&request.need, &selector}, Fit::kEver);
                                            }));
  if (labelled && view_->Fits(*node, want, Fit::kEver)) {
    const bool has_room = !except.contains(node->id) && view_->Fits(*node, want, Fit::kNow);
    if (has_room || (!request.spill_on_unavailable && !request.fail_on_unavailable)) return {Placement::kBind, node->id, {}};
    if (request.fail_on_unavailable) {
      return {Placement::kRefused,
              {},
              "node " + node->id.Hex() + " has no room now (NodeAffinitySchedulingStrategy with _fail_on_unavailable)"};
    }
  } else if (!request.soft) {
    // A node that is there may still get what it lacks only by starting anew, under another id.
    const std::string what = node == nullptr                         ? "is not part of the cluster"
                             : !view_->Fits(*node, want, Fit::kEver) ? "has only " + node->total().ToString() + " in total"
                                                                     : "has none of the labels that it asks for";
    return {Placement::kRefused,
            {},
            "it must run on node " + request.affinity_node.Hex() + ", which " + what + " (NodeAffinitySchedulingStrategy with soft=False)"};
  }
  return Anywhere(request, preferred, except);
}

const LabelSelector* PlacementPolicy::SelectorOf(const PlacementRequest& request, bool* fulfilled) {
  const LabelSelector* first = nullptr;
  for (const LabelSelector& selector : request.selectors) {
    if (view_->Any({&request.need, &selector}, Fit::kEver)) {
      *fulfilled = true;
      return &selector;
    }
    if (first == nullptr) first = &selector;
  }
  *fulfilled = request.selectors.empty() && view_->Any({&request.need}, Fit::kEver);
  return first;
}

Placement PlacementPolicy::Anywhere(const PlacementRequest& request, const NodeId& preferred, const std::set<NodeId>& except) {
  // Without labels the common case is decided without looking further than the preferred node.
  bool fulfilled = true;
  const LabelSelector* selector = request.selectors.empty() ? nullptr : SelectorOf(request, &fulfilled);
  if (!fulfilled) return {Placement::kInfeasible, {}, Infeasible(request)};
  ClusterView::Want want{&request.need, selector, &except};
  if (request.stick) {
    const Node* here = view_->Find(preferred);
    if (here != nullptr && view_->Fits(*here, want, Fit::kNow)) return {Placement::kNode, here->id, {}};
  }
  LabelSelector narrow;
  if (!request.preferred.empty()) {
    narrow = selector == nullptr ? LabelSelector() : *selector;
    for (const auto& constraint : request.preferred.constraints()) narrow.Add(constraint);
    const ClusterView::Want preferred_want{&request.need, &narrow, &except};
    if (const Node* best = Best(preferred_want, preferred)) return {Placement::kNode, best->id, {}};
  }
  if (request.strategy == Strategy::kSpread) {
    const Node* next = NextInTurn(want, except);
    if (next != nullptr) {
      last_spread_ = next->id;
      return {Placement::kBind, next->id, {}};
    }
  } else if (const Node* best = Best(want, preferred)) {
    return {Placement::kNode, best->id, {}};
  }
  want.except = nullptr;
  if (!view_->Any(want, Fit::kEver)) return {Placement::kInfeasible, {}, Infeasible(request)};
  return {Placement::kWait, {}, {}};
}

const Node* PlacementPolicy::NextInTurn(const ClusterView::Want& want, const std::set<NodeId>& except) {
  ClusterView::Want any = want;
  any.except = nullptr;
  if (view_->HasMoreThan(any, Fit::kEver, config_.candidates)) {  // so many that the ring alone is even
    const Node* next = view_->Next(want, Fit::kNow, last_spread_);
    return next != nullptr ? next : view_->Next(want, Fit::kEver, last_spread_);
  }
  const std::vector<ClusterView::Found> could = view_->Search(any, Fit::kEver, {config_.candidates});
  if (could.empty()) return nullptr;
  if (turns_.size() > 4 * config_.candidates)
    std::erase_if(turns_, [this](const auto& entry) { return view_->Find(entry.first) == nullptr; });
  struct Candidate {
    const Node* node;
    Turns* turns;  // null: it is new
  };
  std::vector<Candidate> candidates;
  candidates.reserve(could.size());
  uint64_t least = UINT64_MAX, most = 0;
  for (const auto& [node, rank] : could) {
    const auto it = turns_.find(node->id);
    candidates.push_back({node, it == turns_.end() ? nullptr : &it->second});
    if (it == turns_.end()) continue;
    least = std::min(least, it->second.had);
    most = std::max(most, it->second.had);
  }
  if (least == UINT64_MAX) least = 0;
  Candidate due{}, ready{} /* has room */, passed_over{};
  auto consider = [this](const Candidate& a, Candidate* best) {
    auto place = [this](const Candidate& c) { return std::tuple(c.turns->had, c.node->id <= last_spread_, c.node->id); };
    if (best->node == nullptr || place(a) < place(*best)) *best = a;
  };
  for (Candidate& candidate : candidates) {
    const Node* node = candidate.node;
    if (candidate.turns == nullptr)
      candidate.turns = &turns_.emplace(node->id, Turns{least, false}).first->second;  // begins with the others
    Turns& turns = *candidate.turns;
    // All of them have the labels, and enough in total.
    const bool fits = node->Covers(*want.need, Fit::kNow);
    if (except.contains(node->id)) {
      turns.had = std::max(turns.had, most);
      if (!fits) turns.full = true;
      continue;
    }
    if (fits) turns.full = false;
    if (turns.full) {
      turns.had = std::max(turns.had, most);
      consider(candidate, &passed_over);
      continue;
    }
    consider(candidate, &due);
    if (fits) consider(candidate, &ready);
  }
  Candidate next = due.node != nullptr ? due : passed_over;
  if (!config_.spread_waits_its_turn && ready.node != nullptr && ready.turns->had <= due.turns->had + 1) next = ready;
  if (next.node != nullptr) ++next.turns->had;
  return next.node;
}

const Node* PlacementPolicy::Best(const ClusterView::Want& want, const NodeId& preferred_id) {
  const ClusterView::Order order{want.need->Get(kGpu) == 0 && view_->num_without_gpu() > 0, config_.spread_threshold};
  const Node* preferred = view_->Find(preferred_id);
  const uint64_t its_rank = preferred == nullptr ? UINT64_MAX : view_->RankOf(*preferred, order);
  if (its_rank == 0) {
    if (view_->Fits(*preferred, want, Fit::kNow)) return preferred;
    preferred = nullptr;
  }
  // Nodes of rank 0 are equally good: no use in looking at more of them than chance will choose among.
  std::vector<ClusterView::Found> found = view_->Search(want, Fit::kNow, {config_.candidates, TopOf(config_.candidates)}, order);
  if (found.empty()) return nullptr;
  uint64_t least = UINT64_MAX;
  for (const ClusterView::Found& candidate : found) least = std::min(least, candidate.rank);
  if (preferred != nullptr && its_rank <= least && view_->Fits(*preferred, want, Fit::kNow)) return preferred;
  // Chance among the best few, but never a node with GPUs where one without has room.
  size_t equals = 0;
  for (const ClusterView::Found& candidate : found) equals += candidate.shunned() == ClusterView::Shunned(least);
  return Ranked(&found, view_->random().Below(std::min(equals, TopOf(found.size()))));
}

size_t PlacementPolicy::TopOf(size_t count) const {
  return std::max<size_t>(1, static_cast<size_t>(static_cast<double>(count) * config_.top_share));
}

std::string PlacementPolicy::Infeasible(const PlacementRequest& request) const {
  std::string text = "no node has " + request.need.ToString();
  for (size_t i = 0; i < request.selectors.size(); ++i) {
    text += (i == 0 ? " with labels " : " or ") + request.selectors[i].ToString();
  }
  std::string lacking;
  for (const auto& [name, amount] : request.need.items()) {
    if (view_->TotalOf(name) < amount) lacking += (lacking.empty() ? "" : ", ") + name;
  }
  if (!lacking.empty()) text += "; all nodes together have too little " + lacking;
  return text;
}

}  // namespace ray::scheduling
