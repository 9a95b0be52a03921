#include "ray/gcs_server/tables/placement.h"

#include <algorithm>

namespace ray::gcs {

double PlacementView::UsedShare(const Node& node) {
  double used = 0;
  for (const auto& [name, total] : node.total.items()) {
    if (total > 0) used = std::max(used, 1.0 - static_cast<double>(node.available.Get(name)) / static_cast<double>(total));
  }
  return used;
}

std::optional<NodeId> PlacementView::Place(const Wish& wish) {
  auto chosen = nodes_.end();
  if (auto wanted = nodes_.find(wish.node); wanted != nodes_.end() && wanted->second.total.Covers(wish.demand)) {
    chosen = wanted;
  } else if (wish.node.IsNil() || wish.soft) {
    bool best_free = false;
    double best_used = 0;
    for (auto it = nodes_.begin(); it != nodes_.end(); ++it) {
      if (!it->second.total.Covers(wish.demand)) continue;
      bool is_free = it->second.available.Covers(wish.demand);
      double used = UsedShare(it->second);
      if (chosen == nodes_.end() || is_free > best_free || (is_free == best_free && used < best_used)) {
        chosen = it;
        best_free = is_free;
        best_used = used;
      }
    }
  }
  if (chosen == nodes_.end()) return std::nullopt;
  chosen->second.available.Subtract(wish.demand);
  return chosen->first;
}

ResourceSet PlacementView::Total() const {
  ResourceSet total;
  for (const auto& [id, node] : nodes_) total.Add(node.total);
  return total;
}

}  // namespace ray::gcs
