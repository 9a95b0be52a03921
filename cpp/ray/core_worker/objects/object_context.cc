#include "ray/core_worker/objects/object_context.h"

#include <algorithm>

namespace ray::core {

bool ObjectContext::IsElsewhere(const StoredValue& value) const {
  return value.in_store && std::ranges::find(value.node_ids, self.node_id) == value.node_ids.end();
}

std::vector<ObjectId> IdsOf(std::span<const ObjectRefInfo> refs) {
  std::vector<ObjectId> ids;
  ids.reserve(refs.size());
  for (const ObjectRefInfo& ref : refs) ids.push_back(ref.id);
  return ids;
}

std::vector<std::pair<Address, std::vector<ObjectId>>> GroupByOwner(std::span<const ObjectRefInfo> refs) {
  std::vector<std::pair<Address, std::vector<ObjectId>>> groups;
  std::unordered_map<WorkerId, size_t, IdHash> index;
  for (const ObjectRefInfo& ref : refs) {
    auto [it, is_new] = index.try_emplace(ref.owner.worker_id, groups.size());
    if (is_new) groups.emplace_back(ref.owner, std::vector<ObjectId>());
    groups[it->second].second.push_back(ref.id);
  }
  return groups;
}

ErrorValue LostValue(const ObjectId& id, std::string_view why) {
  return MakeErrorValue(ErrorType::kObjectLost, "object " + id.Hex() + " is lost: " + std::string(why));
}

}  // namespace ray::core
