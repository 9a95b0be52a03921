#include "ray/object_manager/store/store_service.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <unordered_map>
#include <utility>

#include "ray/object_manager/shm/arena.h"
#include "ray/object_manager/shm/arena_writer.h"
#include "ray/object_manager/shm/page_warmer.h"
#include "ray/object_manager/spill/spill_core.h"
#include "ray/object_manager/table/object_table_core.h"
#include "ray/object_manager/table/remote_owners.h"
#include "ray/util/check.h"
#include "ray/util/logging.h"
#include "ray/util/mutex.h"
#include "ray/v1/store.pb.h"

namespace ray::object_manager {
namespace {

constexpr uint64_t kWarmStep = uint64_t{8} << 20;   // bytes a step of warming makes; writers of the arena's file wait for at most one
constexpr uint64_t kTrimStep = uint64_t{32} << 20;  // bytes given back at a time; the loop stands still for some 5 ms
constexpr Duration kTrimPause = std::chrono::milliseconds(50);

using rpc::Request;
using rpc::Responder;

// A file that is used as memory.
struct Segment {
  Segment(int fd, uint64_t size) : fd(fd), size(size) {}
  ~Segment() { ::close(fd); }
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  const int fd;
  const uint64_t size;
};

// Numbers of the clients that this process is itself: one for each room and each pin. Apart from those of connections.
constexpr ClientId kFirstLocalClient = ClientId{1} << 62;
constexpr Duration kPinPatience = std::chrono::seconds(30);  // for one to be restored
// For one that is not there yet: its maker tells others of it behind its seal, but on other connections, and their questions may come first.
constexpr Duration kSealPatience = std::chrono::milliseconds(100);

// What rooms and pins need of the service, and may outlive it.
struct LocalAccess {
  Mutex mu;
  async::Loop* loop GUARDED_BY(mu) = nullptr;  // null: not started, or stopped
  std::unique_ptr<ArenaWriter> arena;          // constant after Make
  void Post(const char* name, std::function<void()> fn) {
    MutexLock lock(&mu);
    if (loop != nullptr) loop->Post(name, std::move(fn));
  }
};

// Keeps what it is made of for as long as somebody reads.
class HeldBytes final : public Buffer {
 public:
  HeldBytes(const uint8_t* data, uint64_t size, std::shared_ptr<void> hold) : Buffer(data, size), hold_(std::move(hold)) {}

 private:
  const std::shared_ptr<void> hold_;
};

class LandingInRoom final : public Landing {
 public:
  LandingInRoom(uint8_t* memory, size_t size, std::shared_ptr<void> hold) : Landing(memory, size), hold_(std::move(hold)) {}

 private:
  const std::shared_ptr<void> hold_;
};

}  // namespace

struct StoreService::Impl {
  // Constant after Make.
  StoreConfig config;
  async::Loop* loop = nullptr;
  const Clock* clock = nullptr;
  std::unique_ptr<Arena> arena;
  std::shared_ptr<const rpc::Dispatcher> dispatcher;
  std::unique_ptr<PageWarmer> warmer;
  std::unique_ptr<SpillStorage> disk;  // null: no spilling
  bool started = false;                // Start and Stop only
  bool stopped = false;

  // On the loop.
  std::optional<ObjectTableCore> core;
  std::optional<SpillCore> spill;  // if there is a disk
  Effects effects;
  SpillEffects spill_effects;
  std::unordered_map<uint64_t, std::shared_ptr<Segment>> segments;
  std::unordered_map<ClientId, Responder> reclaims;  // of the clients that may be asked
  Token last_token = 0;
  std::unordered_map<Token, Responder> creates;
  std::unordered_map<Token, Responder> gets;
  std::unordered_map<Token, Responder> slab_leases;
  std::optional<std::pair<Time, async::TimerId>> timer;
  uint64_t largest_object = 0;
  bool warming = false;
  bool trim_armed = false;

  RemoteOwners owners_elsewhere;
  void NoteOwner(const WorkerId& owner, const NodeId& node);

  // Rooms and pins of this process.
  class Room;
  std::shared_ptr<LocalAccess> local;
  ClientId last_local = kFirstLocalClient;
  struct RoomRequest {
    ClientId client;
    ObjectId id;
    uint64_t size;
    RoomCallback callback;
  };
  std::unordered_map<Token, RoomRequest> room_requests;
  std::unordered_map<Token, std::pair<ClientId, std::function<void(PinnedCopy)>>> pin_requests;
  // Runs on the loop when the last holder is gone: the client that it was ends, and with it its pin or its unsealed object.
  std::shared_ptr<void> Hold(ClientId client);
  Result<uint8_t*> MapPlace(const Place& place, uint64_t size, std::shared_ptr<void>* hold);
  bool AnswerLocally(CreateReplied& effect);
  bool AnswerLocally(GetReplied& effect);

  // For Stats.
  std::atomic<uint64_t> used{0};
  std::function<void()> use_watch;
  std::function<void(const Address&)> owner_watch;
  std::atomic<bool> use_armed{false};
  std::atomic<uint64_t> num_objects{0};
  std::atomic<uint64_t> spilled_bytes{0};
  std::atomic<uint64_t> spilled_objects{0};
  std::atomic<uint64_t> overflow_bytes{0};

  Time Now() const { return clock->Now(); }

  std::shared_ptr<const rpc::Dispatcher> MakeDispatcher();
  void OnConnect(Responder responder);
  void OnCreate(const v1::StoreCreateRequest& message, const Request& request, Responder responder);
  void OnGet(const v1::StoreGetRequest& message, const Request& request, Responder responder);
  template <typename Fn>
  void ForEachId(const google::protobuf::RepeatedPtrField<std::string>& ids, Fn fn);

  void Settle();
  void Apply(CreateReplied& effect);
  void Apply(GetReplied& effect);
  void Apply(ObjectSealed& effect);
  void Apply(ObjectDeleted&) {}
  void Apply(ObjectEvicted&) {}
  void Apply(SpillStarted& effect) { spill->Spill(effect.id, effect.offset, effect.size); }
  void Apply(RestoreStarted& effect) { spill->Restore(effect.id, effect.place.segment, effect.place.offset, &spill_effects); }
  void Apply(SpillForgotten& effect) { spill->Forget(effect.id, &spill_effects); }
  void Apply(OverflowWanted& effect);
  void Apply(OverflowReleased& effect) { segments.erase(effect.segment); }
  void Apply(ReclaimAsked& effect);
  void Apply(SlabReplied& effect);
  void Apply(WriteFile& effect);
  void Apply(ReadRange& effect);
  void Apply(DeleteFile& effect) { disk->Delete(effect.directory, effect.file); }
  void Apply(Spilled& effect);
  void Apply(Restored& effect);
  MemoryFile FileOf(const MemoryRange& range) const;
  void ArmTimer();
  void MaybeWarm();
  void ArmTrim(Duration delay);
  void Trim();
};

std::shared_ptr<const rpc::Dispatcher> StoreService::Impl::MakeDispatcher() {
  auto d = std::make_shared<rpc::Dispatcher>();
  d->RegisterTyped<v1::StoreConnectRequest>(MethodId::kStoreConnect,
                                            [this](const auto&, Request&, Responder responder) { OnConnect(std::move(responder)); });
  d->RegisterTyped<v1::StoreCreateRequest>(
      MethodId::kStoreCreate,
      [this](const v1::StoreCreateRequest& m, Request& request, Responder responder) { OnCreate(m, request, std::move(responder)); });
  d->RegisterTyped<v1::StoreGetRequest>(MethodId::kStoreGet, [this](const v1::StoreGetRequest& m, Request& request, Responder responder) {
    OnGet(m, request, std::move(responder));
  });
  d->RegisterTyped<v1::StoreSealRequest>(MethodId::kStoreSeal, [this](const v1::StoreSealRequest& m, Request& request, Responder) {
    core->Seal(request.connection->id(), ObjectId::FromBinaryOrNil(m.object_id()), m.keep_pin(), Now(), &effects);
    Settle();
  });
  d->RegisterTyped<v1::StoreAbortRequest>(MethodId::kStoreAbort, [this](const v1::StoreAbortRequest& m, Request& request, Responder) {
    core->Abort(request.connection->id(), ObjectId::FromBinaryOrNil(m.object_id()), Now(), &effects);
    Settle();
  });
  d->RegisterTyped<v1::StoreReleaseRequest>(MethodId::kStoreRelease, [this](const v1::StoreReleaseRequest& m, Request& request, Responder) {
    ForEachId(m.object_ids(), [&](const ObjectId& id) { core->Release(request.connection->id(), id, Now(), &effects); });
    Settle();
  });
  d->RegisterTyped<v1::StoreFreeRequest>(MethodId::kStoreFree, [this](const v1::StoreFreeRequest& m, Request& request, Responder) {
    ForEachId(m.object_ids(), [&](const ObjectId& id) { core->Free({id}, Now(), &effects, request.connection->id()); });
    Settle();
  });
  d->RegisterTyped<v1::StoreFreeRequest>(MethodId::kStoreContains, [this](const v1::StoreFreeRequest& m, Request&, Responder responder) {
    v1::StoreContainsReply reply;
    ForEachId(m.object_ids(), [&](const ObjectId& id) { reply.add_contained(core->Contains(id)); });
    responder.Send(reply);
  });
  d->RegisterTyped<v1::StoreEmpty>(MethodId::kStoreStats, [this](const v1::StoreEmpty&, Request&, Responder responder) {
    TableStats stats = core->Stats();
    v1::StoreStatsReply reply;
    reply.set_capacity(stats.capacity);
    reply.set_used(stats.used);
    reply.set_num_objects(stats.num_objects);
    reply.set_pinned(stats.pinned);
    reply.set_spilled_bytes(stats.spilled_bytes);
    reply.set_spilled_objects(stats.spilled_objects);
    reply.set_overflow_bytes(stats.overflow_bytes);
    reply.set_total_spilled_bytes(stats.total_spilled_bytes);
    reply.set_total_restored_bytes(stats.total_restored_bytes);
    reply.set_slab_bytes(stats.slab_bytes);
    responder.Send(reply);
  });
  d->RegisterTyped<v1::StoreSegmentRequest>(
      MethodId::kStoreSegment, [this](const v1::StoreSegmentRequest& m, Request&, Responder responder) {
        auto it = segments.find(m.segment());
        if (it == segments.end()) return responder.Fail(Status::NotFound("the object store has no segment " + std::to_string(m.segment())));
        v1::StoreSegmentReply reply;
        reply.set_size(it->second->size);
        responder.SendWithFd(reply, it->second->fd);
      });
  d->RegisterTyped<v1::StoreEmpty>(MethodId::kStoreReclaim, [this](const v1::StoreEmpty&, Request& request, Responder responder) {
    const ClientId client = request.connection->id();
    reclaims[client] = std::move(responder);
    core->OnReclaimed(client, Now(), &effects);
    Settle();
  });
  d->RegisterTyped<v1::StoreEmpty>(MethodId::kStoreLeaseSlab, [this](const v1::StoreEmpty&, Request& request, Responder responder) {
    slab_leases.emplace(++last_token, std::move(responder));
    core->LeaseSlab(last_token, request.connection->id(), Now(), &effects);
    Settle();
  });
  d->RegisterTyped<v1::StorePutRequest>(MethodId::kStorePut, [this](const v1::StorePutRequest& m, Request& request, Responder) {
    const auto id = ObjectId::FromBinary(m.object_id());
    if (!id.ok()) return;
    PutRequest put;
    put.client = request.connection->id();
    put.id = *id;
    put.offset = m.offset();
    put.size = m.size();
    put.metadata = m.metadata();
    put.owner = WorkerId::FromBinaryOrNil(m.owner_worker_id());
    NoteOwner(put.owner, NodeId::FromBinaryOrNil(m.owner_node_id()));
    put.keep_pin = m.keep_pin();
    put.attempt = m.attempt();
    core->Put(put, Now(), &effects);
    Settle();
  });
  d->RegisterTyped<v1::StoreReturnSlabRequest>(
      MethodId::kStoreReturnSlab, [this](const v1::StoreReturnSlabRequest& m, Request& request, Responder) {
        for (const auto& range : m.ranges()) {
          if (range.size() > arena->size() || range.offset() > arena->size()) continue;
          core->ReturnSlab(request.connection->id(), {range.offset(), range.offset() + range.size()}, range.touched(), Now(), &effects);
        }
        Settle();
      });
  return d;
}

template <typename Fn>
void StoreService::Impl::ForEachId(const google::protobuf::RepeatedPtrField<std::string>& ids, Fn fn) {
  for (const std::string& id : ids) fn(ObjectId::FromBinaryOrNil(id));
}

void StoreService::Impl::OnConnect(Responder responder) {
  v1::StoreConnectReply reply;
  reply.set_capacity(core->allocator().capacity());
  reply.set_arena_size(arena->size());
  reply.set_slab_bytes(core->slab_bytes());
  responder.SendWithFd(reply, arena->fd());
}

void StoreService::Impl::OnCreate(const v1::StoreCreateRequest& message, const Request& request, Responder responder) {
  auto id = ObjectId::FromBinary(message.object_id());
  if (!id.ok()) return responder.Fail(id.status());
  CreateRequest create;
  create.token = ++last_token;
  create.client = request.connection->id();
  create.id = *id;
  create.size = message.size();
  create.metadata = message.metadata();
  create.owner = WorkerId::FromBinaryOrNil(message.owner_worker_id());
  NoteOwner(create.owner, NodeId::FromBinaryOrNil(message.owner_node_id()));
  create.try_only = message.try_only();
  create.attempt = message.attempt();
  creates.emplace(create.token, std::move(responder));
  core->Create(std::move(create), Now(), &effects);
  Settle();
}

void StoreService::Impl::OnGet(const v1::StoreGetRequest& message, const Request& request, Responder responder) {
  std::vector<ObjectId> ids;
  ids.reserve(static_cast<size_t>(message.object_ids_size()));
  for (const std::string& binary : message.object_ids()) {
    auto id = ObjectId::FromBinary(binary);
    if (!id.ok()) return responder.Fail(id.status());
    ids.push_back(*id);
  }
  Time now = Now();
  Time deadline = Time::Infinite();
  if (int64_t ms = message.timeout_ms(); ms >= 0 && ms < INT64_MAX / 2'000'000) deadline = now + std::chrono::milliseconds(ms);
  gets.emplace(++last_token, std::move(responder));
  core->Get(last_token, request.connection->id(), std::move(ids), now, deadline, &effects);
  Settle();
}

void StoreService::Impl::Settle() {
  // What one core says may give the other something to do.
  while (!effects.empty() || !spill_effects.empty()) {
    for (Effect& effect : std::exchange(effects, {})) std::visit([this](auto& e) { Apply(e); }, effect);
    if (!spill) break;
    spill->Flush(Now(), &spill_effects);
    for (SpillEffect& effect : std::exchange(spill_effects, {})) std::visit([this](auto& e) { Apply(e); }, effect);
  }
  TableStats stats = core->Stats();
  spilled_bytes.store(stats.spilled_bytes, std::memory_order_relaxed);
  spilled_objects.store(stats.spilled_objects, std::memory_order_relaxed);
  overflow_bytes.store(stats.overflow_bytes, std::memory_order_relaxed);
  // Before the look at the watch: who arms it and then reads has either the new figure or a call to come.
  if (used.exchange(stats.used) != stats.used && use_watch != nullptr && use_armed.exchange(false)) use_watch();
  num_objects.store(stats.num_objects, std::memory_order_relaxed);
  ArmTimer();
  if (!trim_armed && core->allocator().warm_free_bytes() > config.warm_floor_bytes) ArmTrim(config.trim_check);
}

void StoreService::Impl::Apply(CreateReplied& effect) {
  if (AnswerLocally(effect)) return;
  auto node = creates.extract(effect.token);
  if (node.empty()) return;
  if (!effect.status.ok()) return node.mapped().Fail(effect.status);
  v1::StoreCreateReply reply;
  reply.set_offset(effect.place.offset);
  reply.set_segment(effect.place.segment);
  reply.set_exists(effect.exists);
  reply.set_warm_bytes(effect.warm_bytes);
  node.mapped().Send(reply);
}

void StoreService::Impl::Apply(GetReplied& effect) {
  if (AnswerLocally(effect)) return;
  auto node = gets.extract(effect.token);
  if (node.empty()) return;
  if (!effect.status.ok()) return node.mapped().Fail(effect.status);
  v1::StoreGetReply reply;
  for (FoundObject& object : effect.objects) {
    v1::StoreObject* out = reply.add_objects();
    out->set_object_id(object.id.Binary());
    out->set_found(object.found);
    out->set_lost(object.lost);
    if (!object.found) continue;
    out->set_segment(object.place.segment);
    out->set_offset(object.place.offset);
    out->set_size(object.size);
    out->set_metadata(std::move(object.metadata));
  }
  node.mapped().Send(reply);
}

void StoreService::Impl::NoteOwner(const WorkerId& owner, const NodeId& node) {
  if (node.IsNil() || node.Hex() == config.node) return;
  switch (owners_elsewhere.Note(owner, node)) {
    case RemoteOwners::Noted::kNew:
      if (owner_watch != nullptr) owner_watch({node, owner});
      return;
    case RemoteOwners::Noted::kKnown: return;
    case RemoteOwners::Noted::kDead: core->OwnerDied(owner, Now(), &effects);
  }
}

// ---- for this process ----

class StoreService::Impl::Room final : public ObjectRoom {
 public:
  Room(Impl* impl, std::shared_ptr<LocalAccess> local, ClientId client, const ObjectId& id, const Place& place, uint8_t* data,
       uint64_t size, uint64_t warm_bytes, std::shared_ptr<void> hold)
      : impl_(impl),
        local_(std::move(local)),
        client_(client),
        id_(id),
        place_(place),
        data_(data),
        size_(size),
        warm_bytes_(warm_bytes),
        hold_(std::move(hold)) {}
  Status Write(uint64_t offset, const void* from, size_t size) override {
    RAY_CHECK(offset <= size_ && size <= size_ - offset);
    if (place_.segment == 0) return local_->arena->Write(place_.offset + offset, from, size, place_.offset + warm_bytes_);
    std::memcpy(data_ + offset, from, size);
    return Status::Ok();
  }
  std::shared_ptr<Landing> Land(uint64_t offset, size_t size) override {
    RAY_CHECK(offset <= size_ && size <= size_ - offset);
    return std::make_shared<LandingInRoom>(data_ + offset, size, shared_from_this());
  }
  void Prepare(uint64_t offset, size_t size) override {
    if (place_.segment == 0) local_->arena->Prepare(place_.offset + offset, size, place_.offset + warm_bytes_);
  }
  void Seal(uint32_t made_by) override {
    local_->Post("store.seal", [impl = impl_, client = client_, id = id_, made_by] {
      impl->core->Seal(client, id, /*keep_pin=*/true, impl->Now(), &impl->effects, made_by);
      impl->Settle();
    });
  }
  BufferPtr bytes() override { return std::make_shared<HeldBytes>(data_, size_, shared_from_this()); }

 private:
  Impl* const impl_;  // alive while local_ has a loop
  const std::shared_ptr<LocalAccess> local_;
  const ClientId client_;
  const ObjectId id_;
  const Place place_;
  uint8_t* const data_;
  const uint64_t size_, warm_bytes_;
  const std::shared_ptr<void> hold_;  // its client
};

std::shared_ptr<void> StoreService::Impl::Hold(ClientId client) {
  return {static_cast<void*>(nullptr), [this, access = local, client](void*) {
            access->Post("store.unhold", [this, client] {
              core->ClientGone(client, Now(), &effects);
              Settle();
            });
          }};
}

Result<uint8_t*> StoreService::Impl::MapPlace(const Place& place, uint64_t size, std::shared_ptr<void>* hold) {
  if (place.segment == 0) return local->arena->data() + place.offset;
  const Segment& segment = *segments.at(place.segment);
  RAY_ASSIGN_OR_RETURN(std::unique_ptr<Mapping> mapping, Mapping::Make(segment.fd, segment.size, Mapping::Mode::kReadWrite));
  uint8_t* data = mapping->data() + place.offset;
  *hold = std::shared_ptr<void>(nullptr, [first = *hold, mapping = std::shared_ptr<Mapping>(std::move(mapping))](void*) {});
  return data;
}

bool StoreService::Impl::AnswerLocally(CreateReplied& effect) {
  auto node = room_requests.extract(effect.token);
  if (node.empty()) return false;
  auto& [client, id, size, callback] = node.mapped();
  std::shared_ptr<void> hold = Hold(client);
  if (!effect.status.ok() || effect.exists) {
    callback(effect.status, effect.exists, nullptr);
    return true;
  }
  Result<uint8_t*> data = MapPlace(effect.place, size, &hold);
  if (!data.ok()) {
    callback(data.status(), false, nullptr);
  } else {
    callback(Status::Ok(), false,
             std::make_shared<Room>(this, local, client, id, effect.place, *data, size, effect.warm_bytes, std::move(hold)));
  }
  return true;
}

bool StoreService::Impl::AnswerLocally(GetReplied& effect) {
  auto node = pin_requests.extract(effect.token);
  if (node.empty()) return false;
  auto& [client, callback] = node.mapped();
  std::shared_ptr<void> hold = Hold(client);
  PinnedCopy copy;
  if (effect.status.ok() && effect.objects.size() == 1 && effect.objects[0].found) {
    const FoundObject& object = effect.objects[0];
    Result<uint8_t*> data = MapPlace(object.place, object.size, &hold);
    if (data.ok()) copy = {std::make_shared<HeldBytes>(*data, object.size, std::move(hold)), object.attempt, object.made_by};
  }
  callback(std::move(copy));
  return true;
}

void StoreService::Impl::Apply(ObjectSealed& effect) {
  // Now, not at the creation: the writer has the processors to itself while it writes.
  if (effect.size < config.warm_trigger_bytes) return;
  largest_object = std::max(largest_object, effect.size);
  MaybeWarm();
}

void StoreService::Impl::Apply(ReclaimAsked& effect) {
  auto node = reclaims.extract(effect.client);
  if (node.empty()) return;
  v1::StoreReclaimReply reply;
  for (const ObjectId& id : effect.ids) reply.add_object_ids(id.Binary());
  reply.set_slabs(effect.slabs);
  node.mapped().Send(reply);
}

void StoreService::Impl::Apply(SlabReplied& effect) {
  auto node = slab_leases.extract(effect.token);
  if (node.empty()) return;
  v1::StoreLeaseSlabReply reply;
  reply.set_offset(effect.offset);
  reply.set_size(effect.size);
  reply.set_warm_bytes(effect.warm_bytes);
  node.mapped().Send(reply);
}

void StoreService::Impl::Apply(OverflowWanted& effect) {
  disk->MakeSegment(effect.size, [this, number = effect.segment, size = effect.size](Result<int> fd) {
    auto segment = fd.ok() ? std::make_shared<Segment>(*fd, size) : nullptr;
    loop->Post("store.segment", [this, number, segment, status = fd.status()] {
      if (segment != nullptr) segments.emplace(number, segment);
      core->OnOverflow(number, status, Now(), &effects);
      Settle();
    });
  });
}

MemoryFile StoreService::Impl::FileOf(const MemoryRange& range) const {
  return {range.segment == 0 ? arena->fd() : segments.at(range.segment)->fd, range.offset, range.size};
}

void StoreService::Impl::Apply(WriteFile& effect) {
  std::vector<MemoryFile> ranges;
  ranges.reserve(effect.ranges.size());
  for (const MemoryRange& range : effect.ranges) ranges.push_back(FileOf(range));
  disk->Write(effect.directory, effect.file, std::move(ranges), [this, file = effect.file](const Status& status) {
    loop->Post("store.written", [this, file, status] {
      if (!status.ok()) RAY_LOG(WARNING) << "spilling failed: " << status.ToString();
      spill->OnWritten(file, status, Now(), &spill_effects);
      Settle();
    });
  });
}

void StoreService::Impl::Apply(ReadRange& effect) {
  disk->Read(effect.directory, effect.file, effect.offset, FileOf(effect.to), [this, read = effect.read](const Status& status) {
    loop->Post("store.read", [this, read, status] {
      if (!status.ok()) RAY_LOG(WARNING) << "restoring a spilled object failed: " << status.ToString();
      spill->OnRead(read, status, &spill_effects);
      Settle();
    });
  });
}

void StoreService::Impl::Apply(Spilled& effect) { core->OnSpilled(effect.id, effect.status, Now(), &effects); }

void StoreService::Impl::Apply(Restored& effect) { core->OnRestored(effect.id, effect.status, Now(), &effects); }

void StoreService::Impl::ArmTimer() {
  Time next = core->NextDeadline();
  if (next.is_infinite() || (timer && timer->first <= next)) return;  // a timer that comes too early does no harm
  if (timer) loop->CancelTimer(timer->second);
  auto fire = [this] {
    timer.reset();
    core->OnTimer(Now(), &effects);
    Settle();
  };
  timer.emplace(next, loop->AddTimer(std::max(Duration::zero(), next - Now()), fire));
}

void StoreService::Impl::MaybeWarm() {
  if (warming) return;
  uint64_t target = std::min(config.warm_ahead_bytes, largest_object);
  uint64_t have = core->allocator().warm_free_bytes();
  if (have >= target) return;
  auto range = core->allocator().NextFresh(std::min(kWarmStep, target - have));
  if (!range) return;
  warming = true;
  warmer->Warm(range->begin, range->end);
}

void StoreService::Impl::ArmTrim(Duration delay) {
  trim_armed = true;
  loop->AddTimer(delay, [this] { Trim(); });
}

void StoreService::Impl::Trim() {
  trim_armed = false;
  auto ranges = core->allocator().Trim(Now(), config.trim_idle, config.warm_floor_bytes, kTrimStep);
  for (const Range& range : ranges) {
    if (Status s = arena->ReleasePages(range.begin, range.end); !s.ok()) RAY_LOG(WARNING) << s.ToString();
  }
  if (core->allocator().warm_free_bytes() > config.warm_floor_bytes) ArmTrim(ranges.empty() ? config.trim_check : kTrimPause);
}

Result<std::unique_ptr<StoreService>> StoreService::Make(const StoreConfig& config, async::Loop* loop, const Clock* clock,
                                                         std::unique_ptr<SpillStorage> disk) {
  const uint64_t capacity = config.capacity / ArenaAllocator::kPageSize * ArenaAllocator::kPageSize;
  if (capacity == 0) return Status::InvalidArgument("an object store of " + std::to_string(config.capacity) + " bytes is too small");
  auto impl = std::make_unique<Impl>();
  Impl* self = impl.get();
  impl->config = config;
  impl->loop = loop;
  impl->clock = clock;
  RAY_ASSIGN_OR_RETURN(impl->arena, Arena::Make(capacity));
  ObjectTableConfig table{.capacity = capacity, .create_grace = config.create_grace};
  table.disk = disk != nullptr;
  table.spill_threshold = config.spill_threshold;
  table.spill_batch_bytes = config.max_spill_file_bytes;
  table.overflow_grace = config.overflow_grace;
  impl->core.emplace(table);
  impl->local = std::make_shared<LocalAccess>();
  const int fd = ::dup(impl->arena->fd());
  if (fd < 0) return Status::FromErrno(errno, "dup of the arena's descriptor");
  RAY_ASSIGN_OR_RETURN(impl->local->arena, ArenaWriter::Make(fd, impl->arena->size()));
  if (disk != nullptr) {
    impl->disk = std::move(disk);
    impl->spill.emplace(SpillConfig{.num_directories = impl->disk->num_directories(),
                                    .max_file_bytes = config.max_spill_file_bytes,
                                    .max_file_objects = config.max_spill_file_objects});
  }
  impl->dispatcher = impl->MakeDispatcher();
  impl->warmer = std::make_unique<PageWarmer>(impl->arena.get(), [self](uint64_t begin, uint64_t end, const Status& status) {
    self->loop->Post("store.warmed", [self, begin, end, ok = status.ok()] {
      self->warming = false;
      if (!ok) return;  // no memory to spare: whoever needs pages will make them
      self->core->allocator().MarkWarm({begin, end}, self->Now());
      self->MaybeWarm();
    });
  });
  return std::unique_ptr<StoreService>(new StoreService(std::move(impl)));
}

StoreService::StoreService(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

StoreService::~StoreService() { RAY_CHECK(!impl_->started || impl_->stopped); }

std::shared_ptr<const rpc::Dispatcher> StoreService::dispatcher() const { return impl_->dispatcher; }

void StoreService::OnConnection(const rpc::ConnectionPtr& connection) {
  connection->OnClose([self = impl_.get(), client = connection->id()](const Status&) {
    self->reclaims.erase(client);
    self->core->ClientGone(client, self->Now(), &self->effects);
    self->Settle();
  });
}

void StoreService::Start() {
  impl_->started = true;
  {
    MutexLock lock(&impl_->local->mu);
    impl_->local->loop = impl_->loop;
  }
  if (impl_->disk) impl_->disk->RemoveLeftovers();
}

void StoreService::Stop() {
  if (!impl_->started || impl_->stopped) return;
  {
    MutexLock lock(&impl_->local->mu);
    impl_->local->loop = nullptr;
  }
  impl_->stopped = true;  // the loop is still: nothing reads this concurrently
  impl_->warmer->Stop();
  if (impl_->disk) impl_->disk->Stop();
  impl_->reclaims.clear();
  impl_->creates.clear();
  impl_->gets.clear();
  impl_->slab_leases.clear();
}

void StoreService::CreateCopy(const Copy& copy, RoomCallback callback) {
  impl_->local->Post("store.create_copy", [self = impl_.get(), copy, callback = std::move(callback)] {
    CreateRequest create;
    create.token = ++self->last_token;
    create.client = ++self->last_local;
    create.id = copy.id;
    create.size = copy.size;
    create.metadata = copy.metadata;
    create.owner = copy.owner.worker_id;
    create.attempt = copy.attempt;
    self->NoteOwner(copy.owner.worker_id, copy.owner.node_id);
    create.primary = false;
    self->room_requests.emplace(create.token, Impl::RoomRequest{create.client, copy.id, copy.size, callback});
    self->core->Create(std::move(create), self->Now(), &self->effects);
    self->Settle();
  });
}

void StoreService::Pin(const ObjectId& id, std::function<void(PinnedCopy copy)> callback) {
  impl_->local->Post("store.pin", [self = impl_.get(), id, callback = std::move(callback)] {
    const bool may_come = self->core->MayCome(id);
    if (!may_come && !self->core->Contains(id)) return callback({});
    const Token token = ++self->last_token;
    const ClientId client = ++self->last_local;
    self->pin_requests.emplace(token, std::pair(client, callback));
    const Time now = self->Now();
    self->core->Get(token, client, {id}, now, now + (may_come ? kSealPatience : kPinPatience), &self->effects);
    self->Settle();
  });
}

void StoreService::Unkeep(std::vector<ObjectId> ids) {
  impl_->local->Post("store.unkeep", [self = impl_.get(), ids = std::move(ids)] {
    for (const ObjectId& id : ids) self->core->Unkeep(id, self->Now(), &self->effects);
    self->Settle();
  });
}

void StoreService::ListPrimary(std::function<void(std::vector<PrimaryCopy>)> callback) {
  impl_->local->Post("store.list_primary", [self = impl_.get(), callback = std::move(callback)] {
    std::vector<PrimaryCopy> copies;
    for (const auto& copy : self->core->PrimaryCopies()) {
      copies.push_back({copy.id, copy.size, {self->owners_elsewhere.NodeOf(copy.owner), copy.owner}});
    }
    callback(std::move(copies));
  });
}

void StoreService::Describe(const ObjectId& id, std::function<void(std::string text, bool readable)> callback) {
  impl_->local->Post("store.describe", [self = impl_.get(), id, callback = std::move(callback)] {
    using Whereabouts = ObjectTableCore::Whereabouts;
    switch (self->core->WhereIs(id)) {
      case Whereabouts::kAbsent: return callback("", false);
      case Whereabouts::kUnsealed: return callback("being written", false);
      case Whereabouts::kInMemory: return callback("in shared memory", true);
      case Whereabouts::kSpilled: return callback("spilled to disk", false);
      case Whereabouts::kRestoring: return callback("being read back from disk", false);
    }
  });
}

void StoreService::FindSpilled(std::vector<ObjectId> ids, std::function<void(std::vector<ObjectId>)> callback) {
  impl_->local->Post("store.find_spilled", [self = impl_.get(), ids = std::move(ids), callback = std::move(callback)]() mutable {
    std::erase_if(ids, [self](const ObjectId& id) { return !self->core->HasFile(id); });
    callback(std::move(ids));
  });
}

void StoreService::Free(std::vector<CopyRun> copies) {
  impl_->local->Post("store.free", [self = impl_.get(), copies = std::move(copies)] {
    for (const CopyRun& copy : copies) self->core->Free(copy, self->Now(), &self->effects);
    self->Settle();
  });
}

void StoreService::Keep(std::vector<CopyRun> copies) {
  impl_->local->Post("store.keep", [self = impl_.get(), copies = std::move(copies)] {
    for (const CopyRun& copy : copies) self->core->Keep(copy, self->Now(), &self->effects);
    self->Settle();
  });
}

void StoreService::KeepIfHere(const CopyRun& copy, std::function<void(bool kept)> callback) {
  impl_->local->Post("store.keep_if_here", [self = impl_.get(), copy, callback = std::move(callback)] {
    const bool here = self->core->Contains(copy.id);
    if (here) self->core->Keep(copy, self->Now(), &self->effects);
    self->Settle();
    callback(here);
  });
}

void StoreService::Reown(std::vector<ObjectId> ids, const Address& owner) {
  impl_->loop->Post("store.reown", [self = impl_.get(), ids = std::move(ids), owner] {  // ahead of the end of the owner that they had
    self->NoteOwner(owner.worker_id, owner.node_id);
    for (const ObjectId& id : ids) self->core->Reown(id, owner.worker_id, self->Now());
    self->Settle();
  });
}

void StoreService::OnWorkerDied(const WorkerId& worker) {
  impl_->loop->Post("store.worker_died", [self = impl_.get(), worker] {
    self->owners_elsewhere.OnWorkerDied(worker);
    self->core->OwnerDied(worker, self->Now(), &self->effects);
    self->Settle();
  });
}

void StoreService::OnNodeDied(const NodeId& node) {
  impl_->loop->Post("store.node_died", [self = impl_.get(), node] {
    for (const WorkerId& owner : self->owners_elsewhere.OnNodeDied(node)) self->core->OwnerDied(owner, self->Now(), &self->effects);
    self->Settle();
  });
}

uint64_t StoreService::used() const { return impl_->used.load(); }
void StoreService::SetOwnerWatch(std::function<void(const Address&)> fn) { impl_->owner_watch = std::move(fn); }
void StoreService::SetUseWatch(std::function<void()> changed) { impl_->use_watch = std::move(changed); }
void StoreService::ArmUse() { impl_->use_armed.store(true); }

StoreStats StoreService::Stats() const {
  auto read = [](const std::atomic<uint64_t>& value) { return value.load(std::memory_order_relaxed); };
  return {.capacity = impl_->arena->size(),
          .used = read(impl_->used),
          .num_objects = read(impl_->num_objects),
          .spilled_bytes = read(impl_->spilled_bytes),
          .spilled_objects = read(impl_->spilled_objects),
          .overflow_bytes = read(impl_->overflow_bytes),
          .arena_bytes = impl_->arena->PageBytes()};
}

}  // namespace ray::object_manager
