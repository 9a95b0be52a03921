// The memory: slabs, eviction, files for what does not fit, and the two queues of those who wait for room, restores and creates.
#include "ray/object_manager/table/object_table_core.h"

#include <algorithm>
#include <utility>

namespace ray::object_manager {

uint64_t ObjectTableCore::slab_bytes() const {
  const uint64_t size = std::min(config_.slab_bytes, allocator_.capacity() / 32);
  return size - size % ArenaAllocator::kPageSize;
}

uint64_t ObjectTableCore::KeepFree() const {
  const uint64_t capacity = allocator_.capacity();
  return capacity - static_cast<uint64_t>(static_cast<double>(capacity) * config_.spill_threshold);
}

void ObjectTableCore::LeaseSlab(Token token, ClientId client, Time now, Effects* out) {
  Client& state = clients_[client];
  const uint64_t size = slab_bytes();
  SlabReplied reply{.token = token};
  const auto share = static_cast<uint64_t>(static_cast<double>(allocator_.capacity()) * config_.slab_share);
  const bool short_of_memory = !queue_.empty() || !restores_.empty() || allocator_.free_bytes() < KeepFree() + size;
  if (size > 0 && !short_of_memory && state.slab_bytes + size <= 2 * size && stats_.slab_bytes + size <= share) {
    if (auto block = allocator_.Allocate(size)) {
      reply.offset = block->offset;
      reply.size = size;
      reply.warm_bytes = std::min(block->warm_bytes, size);
      state.slabs.emplace(block->offset, Client::Piece{size, block->offset + reply.warm_bytes});
      state.slab_bytes += size;
      stats_.slab_bytes += size;
      state.slab_used = now;
      state.slabs_asked = false;
      slab_check_ = std::min(slab_check_, now + config_.slab_idle);
    }
  }
  out->push_back(reply);
}

bool ObjectTableCore::TakeFromSlab(Client* client, Range range, uint64_t* warm_bytes) {
  auto it = client->slabs.upper_bound(range.begin);
  if ((range.begin | range.end) % ArenaAllocator::kAlignment != 0 || it == client->slabs.begin()) return false;
  --it;
  const auto [begin, piece] = *it;
  const uint64_t end = begin + piece.size;
  if (range.end <= range.begin || range.end > end) return false;
  client->slabs.erase(it);
  if (begin < range.begin) {
    allocator_.Split(begin, range.begin);
    client->slabs.emplace(begin, Client::Piece{range.begin - begin, piece.warm_end});
  }
  if (range.end < end) {
    allocator_.Split(range.begin, range.end);
    client->slabs.emplace(range.end, Client::Piece{end - range.end, piece.warm_end});
  }
  *warm_bytes = piece.warm_end > range.begin ? std::min(piece.warm_end - range.begin, range.size()) : 0;
  client->slab_bytes -= range.size();
  stats_.slab_bytes -= range.size();
  return true;
}

void ObjectTableCore::ReturnSlab(ClientId client, Range range, bool touched, Time now, Effects* out) {
  Client& state = clients_[client];
  uint64_t warm_bytes = 0;
  if (!TakeFromSlab(&state, range, &warm_bytes)) return;
  allocator_.Free(range.begin, now, touched ? range.size() : warm_bytes);
  last_freed_ = now;
  ServeQueue(now, out);
}

std::optional<ArenaAllocator::Block> ObjectTableCore::MakeRoom(uint64_t size, Time now, Effects* out) {
  // Asks by trying: only the allocator knows about fragmentation.
  for (;;) {
    if (auto block = allocator_.Allocate(size)) return block;
    if (evictable_.empty() || allocator_.free_bytes() + evictable_bytes_ < size) return std::nullopt;
    const ObjectId id = evictable_.front();
    Object& object = objects_.at(id);
    if (!object.has_file) {
      Delete(id, now, out);
      continue;
    }
    Enlist(id, &object, List::kNone);
    DropMemory(&object, now, out);
    out->push_back(ObjectEvicted{id, object.size});
  }
}

void ObjectTableCore::WantRestore(const ObjectId& id, Time now) {
  if (objects_.at(id).in_memory) return;
  const auto [it, is_new] = in_restores_.try_emplace(id);
  if (is_new) it->second = restores_.insert(restores_.end(), {id, now, now, {}});
  it->second->wanted = now;
}

Time ObjectTableCore::LookAt(const PendingRestore& restore) const {
  if (restore.overflow.segment != 0) return Time::Infinite();
  if (!awaited_.contains(restore.id)) return restore.wanted + config_.restore_linger;
  return std::min(OverflowAt(restore.overflow, restore.since), FailAt(restore.overflow, restore.since));
}

void ObjectTableCore::StartRestore(const ObjectId& id, Object* object, Place place, Effects* out) {
  object->place = place;
  object->in_memory = true;
  object->disk = Disk::kRestoring;
  (place.segment != 0 ? stats_.overflow_bytes : stats_.used) += object->size;
  out->push_back(RestoreStarted{id, place, object->size});
}

void ObjectTableCore::OnRestored(const ObjectId& id, const Status& status, Time now, Effects* out) {
  auto it = objects_.find(id);
  if (it == objects_.end() || it->second.disk != Disk::kRestoring) return;
  Object& object = it->second;
  object.disk = Disk::kNone;
  if (status.ok()) {
    stats_.total_restored_bytes += object.size;
    Announce(id, &object, out);
    Settle(id, &object, now, out);
  } else {
    if (!object.freed) lost_.insert(id);
    Delete(id, now, out);
    Announce(id, nullptr, out);
  }
  ServeQueue(now, out);
}

void ObjectTableCore::OnSpilled(const ObjectId& id, const Status& status, Time now, Effects* out) {
  auto it = objects_.find(id);
  if (it == objects_.end() || it->second.disk != Disk::kSpilling) return;
  Object& object = it->second;
  object.disk = Disk::kNone;
  spilling_bytes_ -= ArenaAllocator::BlockSize(object.size);
  if (status.ok()) {
    object.has_file = true;
    stats_.spilled_bytes += object.size;
    ++stats_.spilled_objects;
    stats_.total_spilled_bytes += object.size;
    last_freed_ = now;  // as good as free
  } else {
    spill_failure_ = status;
    spill_paused_ = true;
    spill_after_ = now + config_.spill_retry;
  }
  Settle(id, &object, now, out);
  ServeQueue(now, out);
}

void ObjectTableCore::OnOverflow(uint64_t segment, const Status& status, Time now, Effects* out) {
  bool used = false;
  auto refuse = [&](Overflow* overflow) { *overflow = {.refused = status, .not_before = now + config_.overflow_grace}; };
  auto create = std::find_if(queue_.begin(), queue_.end(), [&](const PendingCreate& c) { return c.overflow.segment == segment; });
  auto restore = std::find_if(restores_.begin(), restores_.end(), [&](const PendingRestore& r) { return r.overflow.segment == segment; });
  if (create != queue_.end()) {
    const CreateRequest& request = create->request;
    const bool done = status.ok() && TryCreate(request, segment, now, out) == Outcome::kDone;
    if (done) {
      auto it = objects_.find(request.id);
      used = it != objects_.end() && it->second.in_memory && it->second.place.segment == segment;
      queue_.erase(create);
    } else if (!status.ok() && request.size > allocator_.capacity()) {
      out->push_back(CreateReplied{.token = request.token, .status = NoRoom(request.id, request.size, status)});
      queue_.erase(create);
    } else {
      refuse(&create->overflow);
    }
  } else if (restore != restores_.end()) {
    auto it = objects_.find(restore->id);
    if (status.ok()) {
      used = it != objects_.end() && !it->second.in_memory;
      if (used) StartRestore(it->first, &it->second, {segment, 0}, out);
      in_restores_.erase(restore->id);
      restores_.erase(restore);
    } else {
      refuse(&restore->overflow);
    }
  }
  if (status.ok() && !used) out->push_back(OverflowReleased{segment});
  ServeQueue(now, out);
}

void ObjectTableCore::OnReclaimed(ClientId client, Time now, Effects* out) {
  Client& state = clients_[client];
  state.reclaimable = true;
  asked_bytes_ -= std::exchange(state.asked_bytes, 0);
  ServeQueue(now, out);
}

void ObjectTableCore::ServeQueue(Time now, Effects* out) {
  blocked_bytes_ = 0;
  if (!restores_.empty()) ServeRestores(now, out);
  if (!queue_.empty()) ServeCreates(now, out);
  // Before anything is written for room's sake.
  if (stats_.slab_bytes > 0 && (blocked_bytes_ > 0 || allocator_.free_bytes() < KeepFree())) AskForSlabs(now, out);
  if (config_.disk) MaybeSpill(now, out);
}

void ObjectTableCore::ServeRestores(Time now, Effects* out) {
  bool room = true;  // for those that nobody waits for at the moment
  for (auto it = restores_.begin(); it != restores_.end();) {
    auto found = objects_.find(it->id);
    const bool moot = found == objects_.end() || found->second.in_memory;
    if (!moot && it->overflow.segment != 0) {
      ++it;
      continue;
    }
    if (!moot) {
      const bool awaited = awaited_.contains(it->id);
      if (auto block = awaited || room ? MakeRoom(found->second.size, now, out) : std::nullopt) {
        StartRestore(it->id, &found->second, {0, block->offset}, out);
      } else if (awaited) {
        blocked_bytes_ = ArenaAllocator::BlockSize(found->second.size);
        return;  // those behind wait their turn
      } else if (it->wanted + config_.restore_linger > now) {
        room = false;
        ++it;  // it keeps its place, and holds up nobody
        continue;
      }
    }
    in_restores_.erase(it->id);
    it = restores_.erase(it);
  }
}

void ObjectTableCore::ServeCreates(Time now, Effects* out) {
  for (auto it = queue_.begin(); it != queue_.end();) {
    // Those behind one that waits for room wait their turn, unless they need none.
    if (it->overflow.segment != 0 || (blocked_bytes_ > 0 && !it->put && !objects_.contains(it->request.id))) {
      ++it;
      continue;
    }
    const Outcome outcome = it->put ? TryPut(*it->put, now, out) : TryCreate(it->request, std::nullopt, now, out);
    if (outcome == Outcome::kNoRoom) blocked_bytes_ = ArenaAllocator::BlockSize(it->request.size);
    if (outcome != Outcome::kDone) {
      ++it;
      continue;
    }
    const bool sealed = it->put.has_value();
    it = queue_.erase(it);
    if (sealed) it = queue_.begin();  // those before it may have waited for room for the same object
  }
}

void ObjectTableCore::MaybeSpill(Time now, Effects* out) {
  if (spillable_.empty() && kept_objects_ == 0 && !spill_paused_) return;
  if (spill_paused_ && now < spill_after_) return;
  spill_paused_ = false;
  const uint64_t capacity = allocator_.capacity();
  const uint64_t batch = std::min(config_.spill_batch_bytes, capacity / 4);
  // What is free, could be at once, or is on its way. What a client was asked for may be on its way twice, or not at all: a guess.
  const uint64_t moving = spilling_bytes_ + asked_bytes_;
  const uint64_t soon = std::min(capacity, allocator_.free_bytes() + evictable_bytes_ + moving);
  const uint64_t keep_free = KeepFree();
  uint64_t goal = soon < keep_free ? std::max(keep_free - soon, batch) : 0;
  if (blocked_bytes_ > soon) {
    goal = std::max({goal, blocked_bytes_ - soon, batch});
  } else if (blocked_bytes_ > 0 && moving == 0) {
    goal = std::max(goal, batch);  // there is enough, in pieces too small
  }
  uint64_t got = 0;
  while (got < goal && !spillable_.empty()) {
    const ObjectId id = spillable_.front();
    Object& object = objects_.at(id);
    Enlist(id, &object, List::kNone);
    object.disk = Disk::kSpilling;
    const uint64_t block = ArenaAllocator::BlockSize(object.size);
    got += block;
    spilling_bytes_ += block;
    out->push_back(SpillStarted{id, object.place.offset, object.size});
  }
  if (got < goal) AskBack(goal - got, out);
}

void ObjectTableCore::AskBack(uint64_t bytes, Effects* out) {
  std::map<ClientId, std::vector<ObjectId>> asked;
  for (uint64_t got = 0; got < bytes && kept_objects_ > 0;) {
    // The oldest of all: each client's list is in order, so it is the first of one of them.
    uint64_t oldest = UINT64_MAX;
    ClientId from = 0;
    for (const auto& [id, client] : clients_) {
      if (!client.reclaimable || client.kept.empty()) continue;
      const uint64_t stamp = objects_.at(client.kept.front()).stamp;
      if (stamp < oldest) oldest = stamp, from = id;
    }
    if (from == 0) break;
    const ObjectId id = clients_.at(from).kept.front();
    Object& object = objects_.at(id);
    Enlist(id, &object, List::kNone);
    object.keeper = 0;
    const uint64_t block = ArenaAllocator::BlockSize(object.size);
    got += block;
    asked_bytes_ += block;
    clients_.at(from).asked_bytes += block;
    asked[from].push_back(id);
  }
  for (auto& [id, ids] : asked) {
    clients_.at(id).reclaimable = false;
    out->push_back(ReclaimAsked{id, std::move(ids)});
  }
}

void ObjectTableCore::AskForSlabs(Time unused_since, Effects* out) {
  for (auto& [id, client] : clients_) {
    if (client.slab_bytes == 0 || client.slabs_asked || !client.reclaimable || client.slab_used > unused_since) continue;
    client.slabs_asked = true;  // what is still missing when it has answered is being written
    client.reclaimable = false;
    client.asked_bytes += client.slab_bytes;
    asked_bytes_ += client.slab_bytes;
    out->push_back(ReclaimAsked{.client = id, .ids = {}, .slabs = true});
  }
}

Time ObjectTableCore::OverflowAt(const Overflow& overflow, Time since) const {
  // What is being written will be free: no reason to give up on memory.
  if (!config_.disk || overflow.segment != 0 || spilling_bytes_ > 0) return Time::Infinite();
  return std::max(std::max(since, last_freed_) + config_.overflow_grace, overflow.not_before);
}

Time ObjectTableCore::FailAt(const Overflow& overflow, Time since) const {
  if (overflow.segment != 0 || spilling_bytes_ > 0) return Time::Infinite();
  return std::max(since, last_freed_) + config_.create_grace;
}

void ObjectTableCore::OnTimer(Time now, Effects* out) {
  if (slab_check_ <= now) {
    AskForSlabs(now - config_.slab_idle, out);
    slab_check_ = Time::Infinite();
    for (const auto& [id, client] : clients_) {
      if (client.slab_bytes == 0 || client.slabs_asked) continue;
      // One that is busy with another request is looked at again in a while.
      const Time due = client.slab_used + config_.slab_idle;
      slab_check_ = std::min(slab_check_, due > now ? due : now + config_.slab_idle);
    }
  }
  while (!get_deadlines_.empty() && get_deadlines_.begin()->first <= now) FinishGet(get_deadlines_.begin()->second, out);
  for (PendingRestore& restore : restores_) {
    auto it = objects_.find(restore.id);
    if (it == objects_.end() || it->second.in_memory || !awaited_.contains(restore.id)) continue;
    if (FailAt(restore.overflow, restore.since) <= now) {
      FailGets(restore.id, NoRoom(restore.id, it->second.size, restore.overflow.refused), now, out);
      restore.wanted = now - config_.restore_linger;  // told: whoever asks again begins anew
      continue;
    }
    if (OverflowAt(restore.overflow, restore.since) > now) continue;
    restore.overflow.segment = ++last_segment_;
    out->push_back(OverflowWanted{last_segment_, it->second.size});
  }
  for (auto it = queue_.begin(); it != queue_.end();) {
    const CreateRequest& request = it->request;
    const bool exists = objects_.contains(request.id);
    if (!exists && FailAt(it->overflow, it->since) <= now) {
      out->push_back(CreateReplied{.token = request.token, .status = NoRoom(request.id, request.size, it->overflow.refused)});
      it = queue_.erase(it);
      continue;
    }
    if (!exists && OverflowAt(it->overflow, it->since) <= now) {
      it->overflow.segment = ++last_segment_;
      out->push_back(OverflowWanted{last_segment_, request.size});
    }
    ++it;
  }
  ServeQueue(now, out);  // one that failed may have stood before one that fits
}

Time ObjectTableCore::NextDeadline() const {
  Time next = get_deadlines_.empty() ? Time::Infinite() : get_deadlines_.begin()->first;
  next = std::min(next, slab_check_);
  if (spill_paused_) next = std::min(next, spill_after_);
  // Both queues are in order of `since`, so the first that somebody waits for and that was never refused is the last to look at.
  for (const PendingRestore& restore : restores_) {
    next = std::min(next, LookAt(restore));
    if (restore.overflow.segment == 0 && restore.overflow.refused.ok() && awaited_.contains(restore.id)) break;
  }
  for (const PendingCreate& create : queue_) {
    if (objects_.contains(create.request.id)) continue;
    next = std::min({next, OverflowAt(create.overflow, create.since), FailAt(create.overflow, create.since)});
    if (create.overflow.segment == 0 && create.overflow.refused.ok()) break;
  }
  return next;
}

}  // namespace ray::object_manager
