// What holds between any two events; for tests.
#include "ray/object_manager/table/object_table_core.h"

namespace ray::object_manager {

std::string ObjectTableCore::TEST_CheckInvariants() const {
  uint64_t used = 0, blocks = 0, pinned = 0, evictable = 0, owned = 0;
  std::unordered_map<ObjectId, uint64_t, IdHash> pins;
  for (const auto& [client_id, client] : clients_) {
    for (const auto& [id, count] : client.pins) pins[id] += count;
    for (const ObjectId& id : client.unsealed) {
      auto it = objects_.find(id);
      if (it == objects_.end() || it->second.sealed || it->second.creator != client_id)
        return "a client's list of unsealed objects is wrong";
    }
  }
  uint64_t spilling = 0, kept = 0, asked = 0, overflow = 0, spilled = 0;
  for (const auto& [id, object] : objects_) {
    const uint64_t block = ArenaAllocator::BlockSize(object.size);
    const bool in_arena = object.in_memory && object.place.segment == 0, idle = object.disk == Disk::kNone;
    if (in_arena) used += object.size, blocks += block;
    if (object.in_memory && !in_arena) overflow += object.size;
    if (object.disk == Disk::kSpilling) spilling += block;
    if (object.has_file) spilled += object.size;
    pinned += object.pins > 0;
    evictable += object.list == List::kEvictable;
    kept += object.list == List::kKept;
    if (object.pins != pins[id]) return "pins do not add up";
    if (object.sealed && object.freed && object.pins == 0 && idle) return "a freed object that stays";
    const bool may_go = object.sealed && object.pins == 0 && idle && in_arena;
    if ((object.list == List::kEvictable) != (may_go && (!object.primary || object.has_file))) return "wrongly evictable";
    if ((object.list == List::kSpillable) != (config_.disk && may_go && object.primary && !object.has_file)) return "wrongly spillable";
    if (object.list == List::kKept && (object.pins != 1 || !idle || !in_arena)) return "wrongly kept";
    if (object.keeper != 0 && (!clients_.contains(object.keeper) || !clients_.at(object.keeper).pins.contains(id)))
      return "a keeper without a pin";
    if (!object.sealed && object.pins != 1) return "an unsealed object without its creator's pin";
    if (!object.in_memory && (!object.has_file || object.pins > 0)) return "an object without bytes";
    if (object.Readable() && awaited_.contains(id)) return "waiting for an object that is there";
    if (object.sealed && !object.in_memory && awaited_.contains(id) && !in_restores_.contains(id)) return "a restore was forgotten";
  }
  uint64_t slabs = 0;
  for (const auto& [id, client] : clients_) {
    asked += client.asked_bytes;
    uint64_t pieces = 0;
    for (const auto& [begin, piece] : client.slabs) pieces += piece.size;
    if (pieces != client.slab_bytes) return "a client's slabs do not add up";
    slabs += pieces;
  }
  if (slabs != stats_.slab_bytes) return "slabs do not add up";
  for (const PendingCreate& create : queue_) {
    if (create.put) slabs += ArenaAllocator::BlockSize(create.put->size);
  }
  if (spilling != spilling_bytes_ || kept != kept_objects_ || asked != asked_bytes_) return "bytes on their way do not add up";
  if (overflow != stats_.overflow_bytes || spilled != stats_.spilled_bytes) return "bytes on disk do not add up";
  if (restores_.size() != in_restores_.size()) return "restores do not add up";
  for (const auto& [owner, ids] : by_owner_) owned += ids.size();
  if (used != stats_.used || pinned != stats_.pinned || evictable != evictable_.size() || owned != objects_.size())
    return "totals do not add up";
  if (blocks + slabs + allocator_.free_bytes() != allocator_.capacity()) return "bytes leaked";
  for (const auto& [id, count] : pins) {
    if (count > 0 && !objects_.contains(id)) return "pin of an object that is gone";
  }
  for (const auto& [token, get] : gets_) {
    if (get.missing == 0) return "a get that waits for nothing";
  }
  return allocator_.TEST_CheckInvariants();
}

}  // namespace ray::object_manager
