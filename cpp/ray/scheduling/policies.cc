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
  if (node != nullptr && view_->Fits(*node, want, Fit::kEver)) {
    const bool has_room = !except.contains(node->id) && view_->Fits(*node, want, Fit::kNow);
    if (has_room || (!request.spill_on_unavailable && !request.fail_on_unavailable)) return {Placement::kBind, node->id, {}};
    if (request.fail_on_unavailable) {
      return {Placement::kRefused,
              {},
              "node " + node->id.Hex() + " has no room now (NodeAffinitySchedulingStrategy with _fail_on_unavailable)"};
    }
  } else if (!request.soft) {
    // A node that is there may still get what it lacks only by starting anew, under another id.
    const std::string what = node == nullptr ? "is not part of the cluster" : "has only " + node->total.ToString() + " in total";
    return {Placement::kRefused,
            {},
            "it must run on node " + request.affinity_node.Hex() + ", which " + what + " (NodeAffinitySchedulingStrategy with soft=False)"};
  }
  return Anywhere(request, preferred, except);
}

const LabelSelector* PlacementPolicy::SelectorOf(const PlacementRequest& request, bool* fulfilled) {
  const LabelSelector* first = nullptr;
  for (const LabelSelector& selector : request.selectors) {
    if (!view_->Search({&request.need, &selector}, Fit::kEver, 1).empty()) {
      *fulfilled = true;
      return &selector;
    }
    if (first == nullptr) first = &selector;
  }
  *fulfilled = request.selectors.empty() && !view_->Search({&request.need}, Fit::kEver, 1).empty();
  return first;
}

Placement PlacementPolicy::Anywhere(const PlacementRequest& request, const NodeId& preferred, const std::set<NodeId>& except) {
  // Without labels the common case is decided without looking further than the preferred node.
  bool fulfilled = true;
  const LabelSelector* selector = request.selectors.empty() ? nullptr : SelectorOf(request, &fulfilled);
  if (!fulfilled) return {Placement::kInfeasible, {}, Infeasible(request)};
  ClusterView::Want want{&request.need, selector, &except};
  if (const Node* here = view_->Find(preferred); request.stick && here != nullptr && view_->Fits(*here, want, Fit::kNow)) {
    return {Placement::kNode, here->id, {}};
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
  if (view_->Search(want, Fit::kEver, 1).empty()) return {Placement::kInfeasible, {}, Infeasible(request)};
  return {Placement::kWait, {}, {}};
}

const Node* PlacementPolicy::NextInTurn(const ClusterView::Want& want, const std::set<NodeId>& except) {
  ClusterView::Want any = want;
  any.except = nullptr;
  if (view_->HasMoreThan(any, Fit::kEver, config_.candidates)) {  // so many that the ring alone is even
    const Node* next = view_->Next(want, Fit::kNow, last_spread_);
    return next != nullptr ? next : view_->Next(want, Fit::kEver, last_spread_);
  }
  const std::vector<const Node*> could = view_->Search(any, Fit::kEver, config_.candidates + 1);
  if (could.empty()) return nullptr;
  if (turns_.size() > 4 * config_.candidates) {
    std::erase_if(turns_, [this](const auto& entry) { return view_->Find(entry.first) == nullptr; });
    std::erase_if(full_, [this](const NodeId& id) { return view_->Find(id) == nullptr; });
  }
  uint64_t least = UINT64_MAX, most = 0;
  for (const Node* node : could) {
    const auto it = turns_.find(node->id);
    if (it == turns_.end()) continue;
    least = std::min(least, it->second);
    most = std::max(most, it->second);
  }
  if (least == UINT64_MAX) least = 0;
  const Node* due = nullptr;
  const Node* ready = nullptr;  // has room
  const Node* passed_over = nullptr;
  auto better = [this](const Node* a, const Node* b) {
    if (b == nullptr) return true;
    return std::tuple(turns_[a->id], a->id <= last_spread_, a->id) < std::tuple(turns_[b->id], b->id <= last_spread_, b->id);
  };
  for (const Node* node : could) {
    uint64_t& turns = turns_.try_emplace(node->id, least).first->second;  // one that is new begins with the others
    const bool fits = view_->Fits(*node, want, Fit::kNow);
    if (except.contains(node->id)) {
      turns = std::max(turns, most);
      if (!fits) full_.insert(node->id);
      continue;
    }
    if (fits) full_.erase(node->id);
    if (full_.contains(node->id)) {
      turns = std::max(turns, most);
      if (better(node, passed_over)) passed_over = node;
      continue;
    }
    if (better(node, due)) due = node;
    if (fits && better(node, ready)) ready = node;
  }
  const Node* next = due != nullptr ? due : passed_over;
  if (!config_.spread_waits_its_turn && ready != nullptr && turns_[ready->id] <= turns_[due->id] + 1) next = ready;
  if (next != nullptr) ++turns_[next->id];
  return next;
}

const Node* PlacementPolicy::Best(const ClusterView::Want& want, const NodeId& preferred_id) {
  const bool avoid_gpus = want.need->Get(kGpu) == 0 && view_->num_without_gpu() > 0;
  const Node* preferred = view_->Find(preferred_id);
  if (preferred != nullptr && !view_->Fits(*preferred, want, Fit::kNow)) preferred = nullptr;
  auto shuns = [&](const Node& node) { return avoid_gpus && node.has_gpu; };
  if (preferred != nullptr && preferred->used < config_.spread_threshold && !shuns(*preferred)) return preferred;
  // Nodes below the threshold that are not to be avoided are equally good: no use in looking at more of them than chance will choose among.
  auto good = [&](const Node& node) { return node.used < config_.spread_threshold && !shuns(node); };
  const size_t top_of_all = std::max<size_t>(1, static_cast<size_t>(static_cast<double>(config_.candidates) * config_.top_share));
  std::vector<const Node*> found = view_->Search(want, Fit::kNow, config_.candidates, {good, top_of_all});
  if (found.empty()) return nullptr;
  auto score = [&](const Node* node) { return std::pair(shuns(*node), node->used < config_.spread_threshold ? 0.0 : node->used); };
  if (preferred != nullptr && std::find(found.begin(), found.end(), preferred) == found.end()) found.push_back(preferred);
  std::sort(found.begin(), found.end(), [&](const Node* a, const Node* b) {
    const auto sa = score(a), sb = score(b);
    return sa != sb ? sa < sb : a->id < b->id;
  });
  if (preferred != nullptr && score(preferred) == score(found[0])) return preferred;
  // Chance among the best few, but never a node with GPUs where one without has room.
  auto top = std::max<size_t>(1, static_cast<size_t>(static_cast<double>(found.size()) * config_.top_share));
  while (top > 1 && shuns(*found[top - 1]) != shuns(*found[0])) --top;
  return found[view_->random().Below(top)];
}

std::string PlacementPolicy::Infeasible(const PlacementRequest& request) const {
  std::string text = "no node has " + request.need.ToString();
  for (size_t i = 0; i < request.selectors.size(); ++i) {
    text += (i == 0 ? " with labels " : " or ") + request.selectors[i].ToString();
  }
  std::string lacking;
  const ResourceSet total = view_->Total();
  for (const auto& [name, amount] : request.need.items()) {
    if (total.Get(name) < amount) lacking += (lacking.empty() ? "" : ", ") + name;
  }
  if (!lacking.empty()) text += "; all nodes together have too little " + lacking;
  return text;
}

}  // namespace ray::scheduling
