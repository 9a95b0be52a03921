// The objects: made, sealed, found, pinned, freed. Where they get their room is in object_table_room.cc.
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
      object.attempt = std::max(object.attempt, request.attempt);
      out->push_back(CreateReplied{.token = request.token, .exists = true});
      return Outcome::kDone;
    }
    if (object.creator != request.client) return Outcome::kOtherWrites;
    object.attempt = object.made_by = std::max(object.attempt, request.attempt);
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
  object.attempt = object.made_by = request.attempt;
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
    it->second.attempt = std::max(it->second.attempt, request.attempt);
    it->second.freed = it->second.freed && dead_owners_.contains(it->second.owner);  // made again: wanted again
    allocator_.Free(request.offset, now);
    last_freed_ = now;
    return Outcome::kDone;
  }
  const auto early = early_.extract(request.id);
  const bool reowned = early && !early.mapped().owner.IsNil();
  Object& object = *AddObject(request.client, request.id, reowned ? early.mapped().owner : request.owner);
  object.attempt = object.made_by = request.attempt;
  if (early && !reowned && early.mapped().client != request.client && early.mapped().attempt >= request.attempt) object.freed = true;
  object.place.offset = request.offset;
  object.size = request.size;
  object.metadata = request.metadata;
  stats_.used += request.size;
  SealObject(request.client, request.id, &object, request.keep_pin, now, out);
  return Outcome::kDone;
}

void ObjectTableCore::Seal(ClientId client, const ObjectId& id, bool keep_pin, Time now, Effects* out, std::optional<uint32_t> made_by) {
  auto it = objects_.find(id);
  if (it == objects_.end() || it->second.sealed || it->second.creator != client) return;
  if (made_by) it->second.made_by = *made_by;
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

FoundObject ObjectTableCore::FoundAt(const ObjectId& id, const Object& object) {
  return {id, true, false, object.place, object.size, object.metadata, object.attempt, object.made_by};
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
        found = FoundAt(id, *object);
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
      get.objects.push_back(FoundAt(id, object));
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

void ObjectTableCore::Free(const CopyRun& copy, Time now, Effects* out, ClientId client) {
  const ObjectId& id = copy.id;
  auto it = objects_.find(id);
  if (it == objects_.end()) {
    lost_.erase(id);
    return NoteEarly(id, {.at = now, .client = client, .owner = {}, .attempt = copy.attempt});
  }
  if (it->second.attempt > copy.attempt) return;
  it->second.freed = true;
  Settle(id, &it->second, now, out);
  ServeQueue(now, out);
}

void ObjectTableCore::NoteEarly(const ObjectId& id, Early early) {
  while (!early_order_.empty() && (early_order_.front().first + config_.early_free <= early.at || early_.size() >= kMaxEarly)) {
    const auto& [noted, oldest] = early_order_.front();
    if (auto it = early_.find(oldest); it != early_.end() && it->second.at == noted) early_.erase(it);
    early_order_.pop_front();
  }
  early_order_.emplace_back(early.at, id);
  const auto [it, is_new] = early_.try_emplace(id, early);
  if (is_new) return;
  // From other nodes an old message may come after a new one.
  if (early.client == 0 && it->second.client == 0 && it->second.owner.IsNil()) early.attempt = std::max(early.attempt, it->second.attempt);
  it->second = early;
}

void ObjectTableCore::Reown(const ObjectId& id, const WorkerId& owner, Time now) {
  const auto it = objects_.find(id);
  if (it == objects_.end()) {
    if (!early_.contains(id)) NoteEarly(id, {.at = now, .client = 0, .owner = owner});
    return;
  }
  if (it->second.owner == owner) return;
  const auto owned = by_owner_.find(it->second.owner);
  owned->second.erase(id);
  if (owned->second.empty()) by_owner_.erase(owned);
  it->second.owner = owner;
  by_owner_[owner].insert(id);
}

void ObjectTableCore::Keep(const CopyRun& copy, Time now, Effects* out) {
  auto it = objects_.find(copy.id);
  if (it == objects_.end() || it->second.primary || it->second.attempt > copy.attempt) return;
  it->second.primary = true;
  Settle(copy.id, &it->second, now, out);
  ServeQueue(now, out);
}

void ObjectTableCore::ClientGone(ClientId client, Time now, Effects* out) {
  auto node = clients_.extract(client);
  if (node.empty()) return;
  Client& gone = node.mapped();
  asked_bytes_ -= gone.asked_bytes;
  kept_objects_ -= gone.kept.size();
  for (const ObjectId& id : gone.kept) objects_.at(id).list = List::kNone;
  const Status status = Status::Cancelled("the client has gone");
  std::erase_if(queue_, [&](const PendingCreate& create) {
    if (create.request.client != client) return false;
    if (create.put) {
      allocator_.Free(create.put->offset, now);
    } else {
      out->push_back(CreateReplied{.token = create.request.token, .status = status});
    }
    return true;
  });
  for (const auto& [begin, piece] : gone.slabs) allocator_.Free(begin, now);  // it may have been writing there
  if (gone.slab_bytes > 0) last_freed_ = now;
  stats_.slab_bytes -= gone.slab_bytes;
  clients_.try_emplace(client);  // while its waits end
  for (Token token : std::set<Token>(std::move(gone.gets))) {
    FinishGet(token, out);
    auto& reply = std::get<GetReplied>(out->back());
    reply.objects.clear();  // what is pinned of them goes with its pins
    reply.status = status;
  }
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

void ObjectTableCore::Unkeep(const ObjectId& id, Time now, Effects* out) {
  auto it = objects_.find(id);
  if (it == objects_.end() || !it->second.primary) return;
  it->second.primary = false;
  Settle(id, &it->second, now, out);
  ServeQueue(now, out);
}

std::vector<ObjectTableCore::PrimaryCopy> ObjectTableCore::PrimaryCopies() const {
  std::vector<PrimaryCopy> copies;
  for (const auto& [id, object] : objects_) {
    if (object.sealed && object.primary && !object.freed) copies.push_back({id, object.size, object.owner});
  }
  std::ranges::sort(copies, {}, &PrimaryCopy::id);  // the order of a hash table is nobody's business
  return copies;
}

ObjectTableCore::Whereabouts ObjectTableCore::WhereIs(const ObjectId& id) const {
  const auto it = objects_.find(id);
  if (it == objects_.end() || it->second.freed) return Whereabouts::kAbsent;
  const Object& object = it->second;
  if (!object.sealed) return Whereabouts::kUnsealed;
  if (object.Readable()) return Whereabouts::kInMemory;
  return object.disk == Disk::kRestoring ? Whereabouts::kRestoring : Whereabouts::kSpilled;
}

bool ObjectTableCore::HasFile(const ObjectId& id) const {
  const auto it = objects_.find(id);
  return it != objects_.end() && it->second.has_file && !it->second.freed;
}

bool ObjectTableCore::Contains(const ObjectId& id) const {
  auto it = objects_.find(id);
  return it != objects_.end() && it->second.sealed && !it->second.freed;
}

bool ObjectTableCore::MayCome(const ObjectId& id) const {
  auto it = objects_.find(id);
  return it == objects_.end() ? !lost_.contains(id) : !it->second.sealed && !it->second.freed;
}

TableStats ObjectTableCore::Stats() const {
  TableStats stats = stats_;
  stats.capacity = allocator_.capacity();
  stats.num_objects = objects_.size();
  stats.queued_creates = queue_.size();
  return stats;
}

}  // namespace ray::object_manager
