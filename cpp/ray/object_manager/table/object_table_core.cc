#include "ray/object_manager/table/object_table_core.h"

#include <algorithm>
#include <utility>

#include "ray/common/errors.h"

namespace ray::object_manager {
namespace {

Status StoreFull(std::string message) {
  return Status(StatusCode::kResourceExhausted, std::move(message), static_cast<int32_t>(ErrorType::kObjectStoreFull));
}

}  // namespace

ObjectTableCore::ObjectTableCore(const ObjectTableConfig& config) : config_(config), allocator_(config.capacity) {}

void ObjectTableCore::Create(CreateRequest request, Time now, Effects* out) {
  clients_.try_emplace(request.client);
  const bool exists = objects_.contains(request.id);
  if (request.size > allocator_.capacity() && !exists) {
    if (!config_.disk || request.try_only) {
      out->push_back(CreateReplied{.token = request.token, .status = NoRoom(request.id, request.size, {})});
      return;
    }
    PendingCreate& create = queue_.emplace_back(PendingCreate{std::move(request), now, {}});
    create.overflow.segment = ++last_segment_;
    out->push_back(OverflowWanted{last_segment_, create.request.size});
    return;
  }
  // Those who wait for room go first; what exists already needs none.
  Outcome outcome = blocked_bytes_ > 0 && !exists ? Outcome::kNoRoom : TryCreate(request, std::nullopt, now, out);
  if (outcome == Outcome::kDone) return;
  if (request.try_only) {
    Status status = outcome == Outcome::kNoRoom
                        ? StoreFull("no room for " + std::to_string(request.size) + " bytes in the object store now")
                        : Status::Aborted("object " + request.id.Hex() + " is being written by another process");
    out->push_back(CreateReplied{.token = request.token, .status = std::move(status)});
    return;
  }
  queue_.push_back({std::move(request), now, {}});
  ServeQueue(now, out);
}

ObjectTableCore::Outcome ObjectTableCore::TryCreate(const CreateRequest& request, std::optional<uint64_t> segment, Time now, Effects* out) {
  if (auto it = objects_.find(request.id); it != objects_.end()) {
    Object& object = it->second;
    if (object.sealed) {
      // Freed while it is read from its file, which may fail: it is made anew once that is over.
      if (object.freed && object.disk == Disk::kRestoring) return Outcome::kOtherWrites;
      object.freed = object.freed && dead_owners_.contains(object.owner);  // made again: wanted again
      out->push_back(CreateReplied{.token = request.token, .exists = true});
      return Outcome::kDone;
    }
    if (object.creator != request.client) return Outcome::kOtherWrites;
    CreateReplied reply{.token = request.token, .place = object.place, .warm_bytes = object.warm_bytes};
    if (object.size != request.size) {
      reply.status = Status::InvalidArgument("object " + request.id.Hex() + " was created with " + std::to_string(object.size) +
                                             " bytes, not " + std::to_string(request.size));
    }
    out->push_back(std::move(reply));
    return Outcome::kDone;
  }
  Place place;
  uint64_t warm_bytes = 0;
  if (segment) {
    place.segment = *segment;
    stats_.overflow_bytes += request.size;
  } else {
    auto block = MakeRoom(request.size, now, out);
    if (!block) return Outcome::kNoRoom;
    place.offset = block->offset;
    warm_bytes = std::min(block->warm_bytes, request.size);
    stats_.used += request.size;
  }
  Object& object = *AddObject(request.client, request.id, request.owner);
  object.place = place;
  object.warm_bytes = warm_bytes;
  object.size = request.size;
  object.metadata = request.metadata;
  object.primary = request.primary;
  clients_[request.client].unsealed.insert(request.id);
  out->push_back(CreateReplied{.token = request.token, .place = place, .warm_bytes = warm_bytes});
  return Outcome::kDone;
}

ObjectTableCore::Object* ObjectTableCore::AddObject(ClientId client, const ObjectId& id, const WorkerId& owner) {
  Object& object = objects_[id];
  object.owner = owner;
  object.creator = client;
  object.freed = dead_owners_.contains(owner);
  by_owner_[owner].insert(id);
  lost_.erase(id);
  Pin(client, id, &object);
  return &object;
}

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

void ObjectTableCore::Put(const PutRequest& request, Time now, Effects* out) {
  Client& state = clients_[request.client];
  state.slab_used = now;
  uint64_t warm_bytes = 0;
  const Range range{request.offset, request.offset + ArenaAllocator::BlockSize(request.size)};
  if (request.size > allocator_.capacity() || !TakeFromSlab(&state, range, &warm_bytes)) return;
  if (TryPut(request, now, out) != Outcome::kDone) {
    queue_.push_back({.request = {.client = request.client, .id = request.id}, .since = now, .put = request});
  }
  ServeQueue(now, out);
}

ObjectTableCore::Outcome ObjectTableCore::TryPut(const PutRequest& request, Time now, Effects* out) {
  if (auto it = objects_.find(request.id); it != objects_.end()) {
    if (!it->second.sealed) return Outcome::kOtherWrites;
    it->second.freed = it->second.freed && dead_owners_.contains(it->second.owner);  // made again: wanted again
    allocator_.Free(request.offset, now);
    last_freed_ = now;
    return Outcome::kDone;
  }
  const auto early = early_.extract(request.id);
  const bool reowned = early && !early.mapped().owner.IsNil();
  Object& object = *AddObject(request.client, request.id, reowned ? early.mapped().owner : request.owner);
  if (early && !reowned) object.freed = object.freed || early.mapped().client != request.client;
  object.place.offset = request.offset;
  object.size = request.size;
  object.metadata = request.metadata;
  stats_.used += request.size;
  SealObject(request.client, request.id, &object, request.keep_pin, now, out);
  return Outcome::kDone;
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

void ObjectTableCore::Seal(ClientId client, const ObjectId& id, bool keep_pin, Time now, Effects* out) {
  auto it = objects_.find(id);
  if (it == objects_.end() || it->second.sealed || it->second.creator != client) return;
  clients_[client].unsealed.erase(id);
  SealObject(client, id, &it->second, keep_pin, now, out);
  ServeQueue(now, out);  // creates of this very object wait for its end
}

void ObjectTableCore::SealObject(ClientId client, const ObjectId& id, Object* object, bool keep_pin, Time now, Effects* out) {
  object->sealed = true;
  if (keep_pin) object->keeper = client;
  out->push_back(ObjectSealed{id, object->size});
  Announce(id, object, out);
  if (keep_pin) {
    Settle(id, object, now, out);
  } else {
    Unpin(client, id, 1, now, out);
  }
}

void ObjectTableCore::Announce(const ObjectId& id, Object* object, Effects* out) {
  auto waiting = awaited_.find(id);
  if (waiting == awaited_.end()) return;
  std::vector<Token> tokens = std::move(waiting->second);
  awaited_.erase(waiting);
  for (Token token : tokens) {
    auto get = gets_.find(token);
    if (get == gets_.end()) continue;
    for (FoundObject& found : get->second.objects) {
      if (found.id != id || found.found || found.lost) continue;
      if (object == nullptr) {
        found.lost = true;
      } else {
        found = {id, true, false, object->place, object->size, object->metadata};
        Pin(get->second.client, id, object);
      }
      --get->second.missing;
    }
    if (get->second.missing == 0) FinishGet(token, out);
  }
}

void ObjectTableCore::Abort(ClientId client, const ObjectId& id, Time now, Effects* out) {
  auto it = objects_.find(id);
  if (it == objects_.end() || it->second.sealed || it->second.creator != client) return;
  // Only its creator can have pinned it.
  clients_[client].unsealed.erase(id);
  clients_[client].pins.erase(id);
  if (it->second.pins > 0) --stats_.pinned;
  it->second.pins = 0;
  Delete(id, now, out);
  ServeQueue(now, out);
}

void ObjectTableCore::Get(Token token, ClientId client, std::vector<ObjectId> ids, Time now, Time deadline, Effects* out) {
  PendingGet get{.client = client, .objects = {}, .missing = 0, .deadline = deadline};
  get.objects.reserve(ids.size());
  std::vector<ObjectId> spilled;
  for (const ObjectId& id : ids) {
    auto it = objects_.find(id);
    if (it != objects_.end() && it->second.Readable()) {
      Object& object = it->second;
      Pin(client, id, &object);
      get.objects.push_back({id, true, false, object.place, object.size, object.metadata});
      continue;
    }
    if (it != objects_.end() && it->second.sealed) spilled.push_back(id);
    const bool lost = lost_.contains(id);
    get.objects.push_back({.id = id, .lost = lost});
    get.missing += !lost;
  }
  if (get.missing == 0 || deadline <= now) {
    out->push_back(GetReplied{token, std::move(get.objects)});
  } else {
    for (const FoundObject& object : get.objects) {
      if (object.found || object.lost) continue;
      auto& tokens = awaited_[object.id];
      if (tokens.empty() || tokens.back() != token) tokens.push_back(token);
    }
    if (!deadline.is_infinite()) get_deadlines_.emplace(deadline, token);
    clients_[client].gets.insert(token);
    gets_.emplace(token, std::move(get));
  }
  if (spilled.empty()) return;
  // Also for one who does not wait: it will ask again.
  for (const ObjectId& id : spilled) WantRestore(id, now);
  ServeQueue(now, out);
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

void ObjectTableCore::FinishGet(Token token, Effects* out) {
  auto node = gets_.extract(token);
  PendingGet& get = node.mapped();
  get_deadlines_.erase({get.deadline, token});
  clients_[get.client].gets.erase(token);
  for (const FoundObject& object : get.objects) {
    if (object.found) continue;
    auto it = awaited_.find(object.id);
    if (it == awaited_.end()) continue;
    std::erase(it->second, token);
    if (it->second.empty()) awaited_.erase(it);
  }
  out->push_back(GetReplied{token, std::move(get.objects)});
}

void ObjectTableCore::Pin(ClientId client, const ObjectId& id, Object* object) {
  ++clients_[client].pins[id];
  if (object->pins++ == 0) ++stats_.pinned;
  Enlist(id, object, List::kNone);
}

void ObjectTableCore::Unpin(ClientId client, const ObjectId& id, uint64_t count, Time now, Effects* out) {
  auto of_client = clients_.find(client);
  if (of_client == clients_.end()) return;
  auto pin = of_client->second.pins.find(id);
  if (pin == of_client->second.pins.end()) return;
  Object& object = objects_.at(id);
  count = std::min(count, pin->second);
  if ((object.pins -= count) == 0) --stats_.pinned;
  if ((pin->second -= count) == 0) {
    of_client->second.pins.erase(pin);
    if (object.keeper == client) {
      Enlist(id, &object, List::kNone);
      object.keeper = 0;
    }
  }
  Settle(id, &object, now, out);
}

void ObjectTableCore::Settle(const ObjectId& id, Object* object, Time now, Effects* out) {
  if (!object->sealed || object->disk != Disk::kNone) return;
  const bool in_arena = object->in_memory && object->place.segment == 0;
  const bool needs_file = object->primary && !object->has_file;
  if (object->pins > 0) {
    const bool kept = object->pins == 1 && object->keeper != 0;
    return Enlist(id, object, kept && in_arena && needs_file && config_.disk ? List::kKept : List::kNone);
  }
  if (object->freed) return Delete(id, now, out);
  if (in_arena) return Enlist(id, object, !needs_file ? List::kEvictable : config_.disk ? List::kSpillable : List::kNone);
  Enlist(id, object, List::kNone);
  if (object->in_memory && object->has_file) DropMemory(object, now, out);  // the arena may have room the next time
}

void ObjectTableCore::Enlist(const ObjectId& id, Object* object, List list) {
  if (object->list == list) return;
  switch (std::exchange(object->list, list)) {
    case List::kNone: break;
    case List::kEvictable:
      evictable_.erase(object->at);
      evictable_bytes_ -= ArenaAllocator::BlockSize(object->size);
      break;
    case List::kSpillable: spillable_.erase(object->at); break;
    case List::kKept:
      clients_.at(object->keeper).kept.erase(object->at);
      --kept_objects_;
      break;
  }
  switch (list) {
    case List::kNone: break;
    case List::kEvictable:
      object->at = evictable_.insert(evictable_.end(), id);
      evictable_bytes_ += ArenaAllocator::BlockSize(object->size);
      break;
    case List::kSpillable: object->at = spillable_.insert(spillable_.end(), id); break;
    case List::kKept: {
      std::list<ObjectId>& kept = clients_.at(object->keeper).kept;
      object->at = kept.insert(kept.end(), id);
      object->stamp = ++last_stamp_;
      ++kept_objects_;
      break;
    }
  }
}

void ObjectTableCore::DropMemory(Object* object, Time now, Effects* out) {
  object->in_memory = false;
  if (object->place.segment != 0) {
    stats_.overflow_bytes -= object->size;
    out->push_back(OverflowReleased{object->place.segment});
    return;
  }
  stats_.used -= object->size;
  allocator_.Free(object->place.offset, now);
  last_freed_ = now;
}

void ObjectTableCore::Delete(const ObjectId& id, Time now, Effects* out) {
  auto node = objects_.extract(id);  // `id` may be a reference into a list that it leaves
  Object& object = node.mapped();
  Enlist(node.key(), &object, List::kNone);
  auto owned = by_owner_.find(object.owner);
  owned->second.erase(node.key());
  if (owned->second.empty()) by_owner_.erase(owned);
  if (object.in_memory) DropMemory(&object, now, out);
  if (object.has_file) {
    stats_.spilled_bytes -= object.size;
    --stats_.spilled_objects;
    out->push_back(SpillForgotten{node.key()});
  }
  out->push_back(ObjectDeleted{node.key(), object.size});
}

void ObjectTableCore::Release(ClientId client, const ObjectId& id, Time now, Effects* out) {
  // The pin of an unsealed object ends with its seal or abort, not before.
  auto it = objects_.find(id);
  if (it == objects_.end() || !it->second.sealed) return;
  Unpin(client, id, 1, now, out);
  ServeQueue(now, out);
}

void ObjectTableCore::Free(const ObjectId& id, Time now, Effects* out, ClientId client) {
  lost_.erase(id);
  auto it = objects_.find(id);
  if (it == objects_.end()) return NoteEarly(id, client, WorkerId::Nil(), now);
  it->second.freed = true;
  Settle(id, &it->second, now, out);
  ServeQueue(now, out);
}

void ObjectTableCore::NoteEarly(const ObjectId& id, ClientId client, const WorkerId& owner, Time now) {
  while (!early_order_.empty() && (early_order_.front().first + config_.early_free <= now || early_.size() >= kMaxEarly)) {
    const auto& [noted, oldest] = early_order_.front();
    if (auto it = early_.find(oldest); it != early_.end() && it->second.at == noted) early_.erase(it);
    early_order_.pop_front();
  }
  early_[id] = {now, client, owner};
  early_order_.emplace_back(now, id);
}

void ObjectTableCore::Reown(const ObjectId& id, const WorkerId& owner, Time now) {
  const auto it = objects_.find(id);
  if (it == objects_.end()) {
    if (!early_.contains(id)) NoteEarly(id, 0, owner, now);
    return;
  }
  if (it->second.owner == owner) return;
  const auto owned = by_owner_.find(it->second.owner);
  owned->second.erase(id);
  if (owned->second.empty()) by_owner_.erase(owned);
  it->second.owner = owner;
  by_owner_[owner].insert(id);
}

void ObjectTableCore::Keep(const ObjectId& id, Time now, Effects* out) {
  auto it = objects_.find(id);
  if (it == objects_.end() || it->second.primary) return;
  it->second.primary = true;
  Settle(id, &it->second, now, out);
  ServeQueue(now, out);
}

void ObjectTableCore::ClientGone(ClientId client, Time now, Effects* out) {
  auto node = clients_.extract(client);
  if (node.empty()) return;
  Client& gone = node.mapped();
  asked_bytes_ -= gone.asked_bytes;
  kept_objects_ -= gone.kept.size();
  for (const ObjectId& id : gone.kept) objects_.at(id).list = List::kNone;
  std::erase_if(queue_, [&](const PendingCreate& create) {
    if (create.request.client != client) return false;
    if (create.put) allocator_.Free(create.put->offset, now);
    return true;
  });
  for (const auto& [begin, piece] : gone.slabs) allocator_.Free(begin, now);  // it may have been writing there
  if (gone.slab_bytes > 0) last_freed_ = now;
  stats_.slab_bytes -= gone.slab_bytes;
  clients_.try_emplace(client);  // while its waits end
  Effects unheard;
  for (Token token : std::set<Token>(std::move(gone.gets))) FinishGet(token, &unheard);
  clients_.erase(client);
  for (const ObjectId& id : gone.unsealed) {
    Object& object = objects_.at(id);
    gone.pins.erase(id);
    if (object.pins > 0) --stats_.pinned;
    object.pins = 0;
    Delete(id, now, out);
  }
  std::map<ObjectId, uint64_t> pins(gone.pins.begin(), gone.pins.end());  // in an order that shows
  for (const auto& [id, count] : pins) {
    Object& object = objects_.at(id);
    if ((object.pins -= count) == 0) --stats_.pinned;
    if (object.keeper == client) object.keeper = 0;
    Settle(id, &object, now, out);
  }
  ServeQueue(now, out);
}

void ObjectTableCore::OwnerDied(const WorkerId& owner, Time now, Effects* out) {
  dead_owners_.insert(owner);
  auto it = by_owner_.find(owner);
  if (it == by_owner_.end()) return;
  for (const ObjectId& id : std::set<ObjectId>(it->second)) {
    Object& object = objects_.at(id);
    object.freed = true;
    Settle(id, &object, now, out);
  }
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

void ObjectTableCore::FailGets(const ObjectId& id, const Status& status, Time now, Effects* out) {
  auto waiting = awaited_.find(id);
  if (waiting == awaited_.end()) return;
  for (Token token : std::vector<Token>(waiting->second)) {
    if (!gets_.contains(token)) continue;
    const ClientId client = gets_.at(token).client;
    FinishGet(token, out);
    auto& reply = std::get<GetReplied>(out->back());
    reply.status = status;
    for (const FoundObject& object : std::exchange(reply.objects, {})) {
      if (object.found) Unpin(client, object.id, 1, now, out);
    }
  }
}

Status ObjectTableCore::NoRoom(const ObjectId& id, uint64_t size, const Status& refused) const {
  std::string text = "no room for object " + id.Hex() + " of " + std::to_string(size) + " bytes: ";
  if (size > allocator_.capacity()) {
    text += "that is more than the object store's capacity of " + std::to_string(allocator_.capacity()) + " bytes";
  } else {
    text += "the object store holds " + std::to_string(stats_.used) + " of " + std::to_string(allocator_.capacity()) +
            " bytes, all in use, and nothing was freed for " +
            std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(config_.create_grace).count()) + " ms";
  }
  const Status& disk = refused.ok() ? spill_failure_ : refused;
  if (!config_.disk || disk.ok()) return StoreFull(std::move(text));
  text += "; and the disk does not help: " + disk.message();
  const bool out_of_disk = disk.cause() == static_cast<int32_t>(ErrorType::kOutOfDisk);
  return out_of_disk ? Status(StatusCode::kResourceExhausted, std::move(text), disk.cause()) : StoreFull(std::move(text));
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

bool ObjectTableCore::Contains(const ObjectId& id) const {
  auto it = objects_.find(id);
  return it != objects_.end() && it->second.sealed && !it->second.freed;
}

TableStats ObjectTableCore::Stats() const {
  TableStats stats = stats_;
  stats.capacity = allocator_.capacity();
  stats.num_objects = objects_.size();
  stats.queued_creates = queue_.size();
  return stats;
}

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
