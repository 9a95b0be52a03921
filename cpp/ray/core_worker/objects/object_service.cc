#include "ray/core_worker/objects/object_service.h"

#include <algorithm>
#include <utility>

#include "ray/util/check.h"
#include "ray/util/logging.h"
#include "ray/wire/convert.h"
#include "ray/wire/value_layout.h"

namespace ray::core {
namespace {

using IdSet = std::unordered_set<ObjectId, IdHash>;

size_t SizeOf(const ValueView& value) {
  return HasPythonLayout(value.metadata) ? PythonBlobSize(value.data.size(), value.buffers) : value.data.size();
}

std::vector<ObjectId> IdsOf(std::span<const ObjectRefInfo> refs) {
  std::vector<ObjectId> ids;
  ids.reserve(refs.size());
  for (const ObjectRefInfo& ref : refs) ids.push_back(ref.id);
  return ids;
}

ErrorValue LostValue(const ObjectId& id, std::string_view why) {
  return MakeErrorValue(ErrorType::kObjectLost, "object " + id.Hex() + " is lost: " + std::string(why));
}

// By owner, in order of appearance.
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

}  // namespace

// Runs `done` when the last of `count` things has arrived.
class ObjectService::Barrier {
 public:
  Barrier(size_t count, std::function<void()> done) : left_(count), done_(std::move(done)) {}
  void Arrive() {
    if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) std::exchange(done_, nullptr)();
  }

 private:
  std::atomic<size_t> left_;
  std::function<void()> done_;
};

ObjectService::ObjectService(Deps deps) : deps_(std::move(deps)), table_(deps_.self), put_ids_(deps_.job_id) {}
ObjectService::~ObjectService() = default;

std::shared_ptr<ObjectService> ObjectService::Make(Deps deps) {
  std::shared_ptr<ObjectService> service(new ObjectService(std::move(deps)));
  service->deps_.peers->OnWorkerDied([weak = service->weak_from_this()](const WorkerId& worker) {
    if (auto self = weak.lock()) self->OnWorkerDied(worker);
  });
  return service;
}

void ObjectService::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  // Weakly: connections keep the dispatcher, and what waits for an answer keeps its connection.
  std::weak_ptr<ObjectService> weak = weak_from_this();
  dispatcher->RegisterTyped<v1::GetObjectRequest>(
      MethodId::kGetObject, [weak](const v1::GetObjectRequest& message, rpc::Request& request, rpc::Responder responder) {
        if (auto self = weak.lock()) self->HandleGetObject(message, request, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::AddBorrowersRequest>(
      MethodId::kAddBorrowers, [weak](const v1::AddBorrowersRequest& message, rpc::Request&, rpc::Responder responder) {
        if (auto self = weak.lock()) self->HandleAddBorrowers(message, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::RemoveBorrowersRequest>(MethodId::kRemoveBorrowers,
                                                        [weak](const v1::RemoveBorrowersRequest& message, rpc::Request&, rpc::Responder) {
                                                          if (auto self = weak.lock()) self->HandleRemoveBorrowers(message);
                                                        });
  dispatcher->RegisterTyped<v1::GetLocationsRequest>(
      MethodId::kGetLocations, [weak](const v1::GetLocationsRequest& message, rpc::Request&, rpc::Responder responder) {
        if (auto self = weak.lock()) self->HandleGetLocations(message, std::move(responder));
      });
}

void ObjectService::Shutdown() {
  MutexLock lock(&mu_);
  closed_.store(true, std::memory_order_release);
  // They live on the stacks of their threads, which take the lock before they go.
  for (async::Waiter* waiter : blocked_) waiter->Notify();
}

ObjectRefInfo ObjectService::Normal(const ObjectRefInfo& ref) const { return ref.owner.IsNil() ? ObjectRefInfo{ref.id, deps_.self} : ref; }

Time ObjectService::DeadlineOf(int64_t timeout_ms) const {
  // Beyond a century is for ever, and does not overflow.
  if (timeout_ms < 0 || timeout_ms > int64_t{100} * 365 * 24 * 3600 * 1000) return Time::Infinite();
  return deps_.loop->clock().Now() + std::chrono::milliseconds(timeout_ms);
}

ReadResult ObjectService::Block(async::Waiter* waiter, Time deadline) {
  {
    MutexLock lock(&mu_);
    if (closed_.load(std::memory_order_relaxed)) return ReadResult::kClosed;
    blocked_.insert(waiter);
  }
  bool told = false;
  async::WaitResult result;
  const Time patience = deps_.on_blocked ? std::min(deadline, deps_.loop->clock().Now() + deps_.options.blocked_after) : deadline;
  result = deps_.loop->Wait(waiter, patience);
  if (result == async::WaitResult::kDeadline && patience < deadline) {
    told = true;
    deps_.on_blocked(true);
    result = deps_.loop->Wait(waiter, deadline);
  }
  {
    MutexLock lock(&mu_);
    blocked_.erase(waiter);
  }
  if (told) deps_.on_blocked(false);
  if (closed_.load(std::memory_order_acquire)) return ReadResult::kClosed;
  if (result == async::WaitResult::kDone) return ReadResult::kReady;
  return result == async::WaitResult::kDeadline ? ReadResult::kTimeout : ReadResult::kInterrupted;
}

// --- values

BufferPtr ObjectService::LayOut(const ValueView& value, size_t size) const {
  uint8_t* bytes = nullptr;
  BufferPtr blob = MakePackedBuffer(size, &bytes);
  if (HasPythonLayout(value.metadata)) {
    WritePythonBlob(value.data, value.buffers, bytes);
  } else if (size != 0) {
    std::memcpy(bytes, value.data.data(), size);
  }
  return blob;
}

Status ObjectService::WriteToStore(const ObjectId& id, const ValueView& value, size_t size, const Address& owner) {
  return deps_.store->Write(id, size, value.metadata, owner, [&](const PieceWriter& write) {
    if (HasPythonLayout(value.metadata)) return ScatterPythonBlob(value.data, value.buffers, write);
    return write(0, value.data.data(), value.data.size());
  });
}

Status ObjectService::Put(const ValueView& value, ObjectId* id) {
  if (closed_.load(std::memory_order_relaxed)) return Status::Cancelled("this process is shutting down");
  *id = put_ids_.Next();
  const size_t size = SizeOf(value);
  // The entry comes before the value: whoever finds the value finds a holder.
  if (size <= deps_.options.max_inline_bytes) {
    BufferPtr blob = LayOut(value, size);
    table_.AddOwned(*id, 1, IdsOf(value.nested));
    memory_.Put(*id, value.metadata, std::move(blob));
  } else {
    RAY_RETURN_NOT_OK(WriteToStore(*id, value, size, deps_.self));
    table_.AddOwned(*id, 1, IdsOf(value.nested));
    memory_.PutInStore(*id, value.metadata, size, deps_.self.node_id);
  }
  return Status::Ok();
}

bool ObjectService::Read(const ObjectId& id, ReadValue* out, bool* in_store) const {
  StoredValue value;
  if (!memory_.Get(id, &value)) return false;
  out->metadata = std::move(value.metadata);
  out->blob = std::move(value.blob);
  *in_store = value.in_store;
  return true;
}

bool ObjectService::TryGet(const ObjectRefInfo& ref, ReadValue* out) {
  bool in_store = false;
  if (!Read(ref.id, out, &in_store)) return false;
  if (in_store) out->blob = deps_.store->TryGet(ref.id);
  return out->blob != nullptr;
}

void ObjectService::WakeUnheld(std::span<const ObjectId> ids, std::span<const uint32_t> positions) {
  for (uint32_t i : positions) {
    if (!table_.Contains(ids[i])) memory_.Delete({&ids[i], 1});
  }
}

ReadResult ObjectService::ReadFromStore(std::span<const ObjectRefInfo> refs, std::span<const uint32_t> positions, Time deadline,
                                        std::vector<ReadValue>* out) {
  std::vector<ObjectId> ids;
  ids.reserve(positions.size());
  for (uint32_t i : positions) ids.push_back(refs[i].id);
  std::vector<uint32_t> left(positions.begin(), positions.end());
  IdSet suspects;
  while (true) {
    bool interrupted = false;
    const Time slice = std::min(deadline, deps_.loop->clock().Now() + deps_.options.missing_after);
    auto blobs = deps_.store->Get(ids, slice, &interrupted);
    if (interrupted) return ReadResult::kInterrupted;
    if (!blobs.ok() && blobs.status().code() == StatusCode::kDataLoss && left.size() > 1) {
      // One is lost: asked one by one, each gets its own answer.
      bool all = true;
      for (const uint32_t& i : left) {
        const ReadResult result = ReadFromStore(refs, {&i, 1}, deadline, out);
        if (result != ReadResult::kReady && result != ReadResult::kTimeout) return result;
        all = all && result == ReadResult::kReady;
      }
      return all ? ReadResult::kReady : ReadResult::kTimeout;
    }
    std::vector<uint32_t> missing;
    for (size_t k = 0; k < left.size(); ++k) {
      ReadValue& value = (*out)[left[k]];
      if (!blobs.ok()) {
        const auto cause = static_cast<ErrorType>(blobs.status().cause());
        const bool no_room = cause == ErrorType::kOutOfDisk || cause == ErrorType::kObjectStoreFull;
        ErrorValue error = no_room ? MakeErrorValue(cause, blobs.status().message()) : LostValue(ids[k], blobs.status().message());
        value = {std::move(error.metadata), std::move(error.blob)};
      } else if ((value.blob = std::move((*blobs)[k])) == nullptr) {
        missing.push_back(left[k]);
      }
    }
    const bool over = slice == deadline;
    if (!over && !missing.empty()) missing = StillMissing(refs, std::move(missing), &suspects, out);
    if (closed_.load(std::memory_order_acquire)) return ReadResult::kClosed;
    if (missing.empty()) return ReadResult::kReady;
    if (over) {
      for (uint32_t i : missing) (*out)[i].metadata.clear();
      return ReadResult::kTimeout;
    }
    left = std::move(missing);
    ids.clear();
    for (uint32_t i : left) ids.push_back(refs[i].id);
  }
}

std::vector<uint32_t> ObjectService::StillMissing(std::span<const ObjectRefInfo> refs, std::vector<uint32_t> missing, IdSet* suspects,
                                                  std::vector<ReadValue>* out) {
  auto settle = [out](uint32_t i, std::string metadata, BufferPtr blob) {
    (*out)[i] = {std::move(metadata), std::move(blob)};
    return true;
  };
  // Its owner may have died meanwhile.
  std::erase_if(missing, [&](uint32_t i) {
    StoredValue value;
    return memory_.Get(refs[i].id, &value) && !value.in_store && settle(i, std::move(value.metadata), std::move(value.blob));
  });
  std::vector<ObjectId> ids;
  std::vector<uint32_t> local;  // what should be in the store of this node
  for (uint32_t i : missing) {
    StoredValue value;
    if (!memory_.Get(refs[i].id, &value) || std::ranges::find(value.node_ids, deps_.self.node_id) == value.node_ids.end()) continue;
    local.push_back(i);
    ids.push_back(refs[i].id);
  }
  if (ids.empty()) return missing;
  auto contained = deps_.store->Contains(ids);
  if (!contained.ok()) return missing;  // the next Get says why
  for (size_t k = 0; k < local.size(); ++k) {
    if ((*contained)[k]) {
      suspects->erase(ids[k]);
    } else if (!suspects->insert(ids[k]).second) {
      // The first time, the news that it is sealed may still have been on the way.
      ErrorValue error = LostValue(ids[k], "the object store has no copy of it any more");
      settle(local[k], std::move(error.metadata), std::move(error.blob));
      std::erase(missing, local[k]);
    }
  }
  return missing;
}

ReadResult ObjectService::Get(std::span<const ObjectRefInfo> refs, int64_t timeout_ms, std::vector<ReadValue>* out) {
  out->clear();
  out->resize(refs.size());
  std::vector<uint32_t> in_store;
  std::vector<ObjectId> ids;  // filled once something is missing
  std::vector<bool> seen;
  Time deadline = timeout_ms == 0 ? Time{} : Time::Infinite();
  bool first = true;
  while (true) {
    bool error = false, missing = false;
    in_store.clear();
    for (uint32_t i = 0; i < refs.size(); ++i) {
      ReadValue& value = (*out)[i];
      bool is_in_store = false;
      if (!Read(refs[i].id, &value, &is_in_store)) {
        // Seen complete and yet not there: dropped meanwhile. An object that is still held is fetched again.
        if (!seen.empty() && seen[i] && !table_.Contains(refs[i].id)) {
          ErrorValue lost = LostValue(refs[i].id, "no reference to it is left in this process");
          value = {std::move(lost.metadata), std::move(lost.blob)};
        } else {
          missing = true;
          continue;
        }
      }
      if (is_in_store) in_store.push_back(i);
      error = error || IsErrorMetadata(value.metadata);
    }
    if (error) {
      // What is in the store is not read for somebody who gets an error anyway, unless it is the error.
      std::vector<uint32_t> errors;
      for (uint32_t i : in_store) {
        if (IsErrorMetadata((*out)[i].metadata)) {
          errors.push_back(i);
        } else {
          (*out)[i].metadata.clear();
        }
      }
      return errors.empty() ? ReadResult::kReady : ReadFromStore(refs, errors, DeadlineOf(timeout_ms), out);
    }
    if (first) {
      first = false;
      if (timeout_ms > 0) deadline = DeadlineOf(timeout_ms);
    }
    if (!missing) return in_store.empty() ? ReadResult::kReady : ReadFromStore(refs, in_store, deadline, out);

    if (ids.empty()) ids = IdsOf(refs);
    MemoryStore::Watch watch(&memory_, ids, ids.size(), /*stop_on_error=*/true);
    StartFetch(refs, watch.pending());
    WakeUnheld(ids, watch.pending());
    const ReadResult result = watch.done() ? ReadResult::kReady : Block(watch.waiter(), deadline);
    if (result != ReadResult::kReady) {
      for (uint32_t i : in_store) (*out)[i].metadata.clear();
      return result;
    }
    seen = watch.Ready();
  }
}

ReadResult ObjectService::Wait(std::span<const ObjectRefInfo> refs, size_t num_returns, int64_t timeout_ms, std::vector<bool>* ready) {
  const std::vector<ObjectId> ids = IdsOf(refs);
  num_returns = std::min(num_returns, refs.size());
  MemoryStore::Watch watch(&memory_, ids, num_returns, /*stop_on_error=*/false);
  ReadResult result = ReadResult::kReady;
  if (!watch.done()) {
    StartFetch(refs, watch.pending());
    WakeUnheld(ids, watch.pending());
    if (!watch.done()) result = Block(watch.waiter(), DeadlineOf(timeout_ms));
  }
  *ready = watch.Ready();
  size_t found = 0;
  for (size_t i = 0; i < ready->size(); ++i) {
    if ((*ready)[i] && ++found > num_returns) (*ready)[i] = false;
  }
  // Enough may have come while the wait ended for another reason.
  return found >= num_returns && result != ReadResult::kClosed ? ReadResult::kReady : result;
}

void ObjectService::WatchObject(const ObjectRefInfo& ref, std::function<void()> callback) {
  auto again = [weak = weak_from_this(), ref, callback](bool gone) {
    // Deleted because the last reference went, but another came at that moment: its value is still to be fetched.
    if (auto self = weak.lock(); gone && self != nullptr && self->table_.Contains(ref.id) && !self->closed_.load()) {
      self->WatchObject(ref, callback);
    } else {
      callback();
    }
  };
  if (memory_.OnReady(ref.id, std::move(again)) == 0) return;
  static constexpr uint32_t kFirst = 0;
  StartFetch({&ref, 1}, {&kFirst, 1});
  WakeUnheld({&ref.id, 1}, {&kFirst, 1});
}

void ObjectService::StartFetch(std::span<const ObjectRefInfo> refs, std::span<const uint32_t> positions) {
  std::vector<ObjectRefInfo> to_fetch;
  {
    MutexLock lock(&mu_);
    for (uint32_t i : positions) {
      const ObjectRefInfo& ref = refs[i];
      if (ref.owner.IsNil() || ref.owner == deps_.self) continue;
      if (fetching_.insert(ref.id).second) to_fetch.push_back(ref);
    }
  }
  std::vector<rpc::ConnectionPtr> used;
  for (const ObjectRefInfo& ref : to_fetch) {
    auto connection = deps_.peers->Get(ref.owner);
    if (!connection.ok()) {
      OnFetched(ref, connection.status(), {}, {});
      continue;
    }
    v1::GetObjectRequest request;
    request.set_object_id(ref.id.data(), ObjectId::kSize);
    ToProto(deps_.self, request.mutable_requester());
    rpc::CallTyped<v1::GetObjectReply>(**connection, MethodId::kGetObject, request, {},
                                       [self = shared_from_this(), ref](const Status& status, v1::GetObjectReply& reply, PartList parts) {
                                         self->OnFetched(ref, status, reply, std::move(parts));
                                       },
                                       {.corked = true});
    if (std::find(used.begin(), used.end(), *connection) == used.end()) used.push_back(*connection);
  }
  for (const auto& connection : used) connection->Flush();
}

void ObjectService::Fail(const ObjectId& id, const ErrorValue& error) {
  memory_.Put(id, error.metadata, error.blob);
  DropIfUnheld(id);
}

void ObjectService::DropIfUnheld(const ObjectId& id) {
  if (!table_.Contains(id)) DeleteValues({&id, 1}, nullptr);
}

void ObjectService::DeleteValues(std::span<const ObjectId> ids, std::vector<ObjectId>* in_store) {
  std::vector<BufferPtr> unread;
  memory_.Delete(ids, in_store, deps_.on_unread_error ? &unread : nullptr);
  for (BufferPtr& blob : unread) deps_.on_unread_error(std::move(blob));
}

void ObjectService::OnFetched(const ObjectRefInfo& ref, const Status& status, const v1::GetObjectReply& reply, PartList parts) {
  {
    MutexLock lock(&mu_);
    fetching_.erase(ref.id);
  }
  if (!status.ok()) {
    // On one node a connection ends only with its process.
    const bool died = status.code() == StatusCode::kUnavailable || deps_.peers->IsDead(ref.owner.worker_id);
    if (!closed_.load()) Fail(ref.id, died ? MakeOwnerDiedValue(ref.id.Hex(), ref.owner) : LostValue(ref.id, status.ToString()));
    return;
  }
  if (reply.freed()) {
    Fail(ref.id, LostValue(ref.id, "its owner has freed it"));
    return;
  }
  // Containment before the value, so that nobody reads refs that are not held. If the object is not wanted any more the counts go back.
  RefEffects effects;
  table_.AddGiven(ref.id, RefsFromProto(reply.nested(), ref.owner), &effects);
  if (reply.in_store()) {
    memory_.PutInStore(ref.id, reply.metadata(), reply.size(),
                       reply.node_ids_size() > 0 ? NodeId::FromBinaryOrNil(reply.node_ids(0)) : NodeId());
  } else if (!parts.empty()) {
    memory_.Put(ref.id, reply.metadata(), std::move(parts[0]));
  } else {
    memory_.Put(ref.id, reply.metadata(), HeapBuffer::CopyOf({}));
  }
  DropIfUnheld(ref.id);
  CarryOut(effects);
}

Status ObjectService::GetLocations(std::span<const ObjectRefInfo> refs, int64_t timeout_ms, std::vector<Location>* out) {
  struct Pending {  // outlives the call if it times out
    async::Waiter waiter;
    std::atomic<size_t> left{0};
    Mutex mu;
    std::unordered_map<ObjectId, Location, IdHash> found;
    void Arrive() {
      if (left.fetch_sub(1) == 1) waiter.Notify();
    }
  };
  auto pending = std::make_shared<Pending>();
  std::vector<ObjectRefInfo> foreign;
  out->clear();
  out->resize(refs.size());
  for (size_t i = 0; i < refs.size(); ++i) {
    if (!refs[i].owner.IsNil() && refs[i].owner != deps_.self) {
      foreign.push_back(refs[i]);
      continue;
    }
    StoredValue value;
    (*out)[i].known = table_.IsOwned(refs[i].id);
    if (memory_.Get(refs[i].id, &value)) {
      (*out)[i].node_ids = std::move(value.node_ids);
      (*out)[i].size = value.size;
    }
  }
  if (foreign.empty()) return Status::Ok();
  auto groups = GroupByOwner(foreign);
  pending->left = groups.size();
  for (const auto& [owner, ids] : groups) {
    auto connection = deps_.peers->Get(owner);
    if (!connection.ok()) {
      pending->Arrive();
      continue;
    }
    v1::GetLocationsRequest request;
    for (const ObjectId& id : ids) request.add_object_ids(id.data(), ObjectId::kSize);
    rpc::CallTyped<v1::GetLocationsReply>(**connection, MethodId::kGetLocations, request, {},
                                          [pending](const Status&, v1::GetLocationsReply& reply, PartList) {
                                            MutexLock lock(&pending->mu);
                                            for (const auto& location : reply.locations()) {
                                              Location& found = pending->found[ObjectId::FromBinaryOrNil(location.object_id())];
                                              found.known = location.known();
                                              found.size = location.size();
                                              for (const auto& node : location.node_ids())
                                                found.node_ids.push_back(NodeId::FromBinaryOrNil(node));
                                            }
                                            pending->Arrive();
                                          });
  }
  switch (Block(&pending->waiter, DeadlineOf(timeout_ms))) {
    case ReadResult::kReady: break;
    case ReadResult::kTimeout: return Status::DeadlineExceeded("an owner has not told where its objects are");
    case ReadResult::kInterrupted: return Status(StatusCode::kAborted, "interrupted by a signal");
    case ReadResult::kClosed: return Status::Cancelled("this process is shutting down");
  }
  MutexLock lock(&pending->mu);
  for (size_t i = 0; i < refs.size(); ++i) {
    if (auto it = pending->found.find(refs[i].id); it != pending->found.end()) (*out)[i] = it->second;
  }
  return Status::Ok();
}

// --- references

void ObjectService::CarryOut(const RefEffects& effects) {
  if (effects.empty()) return;
  std::vector<ObjectId> in_store;
  DeleteValues(effects.dropped, &in_store);
  if (!in_store.empty() && !effects.freed.empty()) {
    // Copies of borrowed objects are their owners' to free.
    if (in_store.size() == effects.dropped.size() && effects.freed.size() == effects.dropped.size()) {
      deps_.store->Free(in_store);
    } else {
      const IdSet freed(effects.freed.begin(), effects.freed.end());
      std::erase_if(in_store, [&](const ObjectId& id) { return !freed.contains(id); });
      if (!in_store.empty()) deps_.store->Free(in_store);
    }
  }
  if (!effects.give_back.empty()) {
    bool post = false;
    {
      MutexLock lock(&mu_);
      for (const auto& back : effects.give_back) MailToLocked(back.owner, &post)->remove.emplace_back(back.id, back.count);
    }
    if (post) PostMail();
  }
  if (!effects.freed.empty() && deps_.on_freed) deps_.on_freed(effects.freed);
  if (!effects.actors_out_of_scope.empty() && deps_.on_actor_out_of_scope) deps_.on_actor_out_of_scope(effects.actors_out_of_scope);
}

ObjectService::Mail* ObjectService::MailToLocked(const Address& owner, bool* post) {
  *post = *post || mail_.empty();
  Mail& mail = mail_[owner.worker_id];
  mail.owner = owner;
  return &mail;
}

void ObjectService::PostMail() {
  deps_.loop->Post("objects.mail", [self = shared_from_this()] { self->SendMail(); });
}

void ObjectService::SendMail() {
  std::unordered_map<WorkerId, Mail, IdHash> mail;
  {
    MutexLock lock(&mu_);
    mail.swap(mail_);
  }
  for (auto& [worker, to] : mail) {
    if (!to.add.empty()) RegisterSelf(to.owner, std::move(to.add), nullptr);
    if (to.remove.empty()) continue;
    // After every reply that told the owner of one of these: replies leave on the connection that the owner opened.
    auto connection = deps_.peers->ReplyRoute(to.owner);
    if (!connection.ok()) continue;  // a dead owner keeps no counts
    v1::RemoveBorrowersRequest message;
    ToProto(deps_.self, message.mutable_borrower());
    for (const auto& [id, count] : to.remove) {
      auto* item = message.add_counts();
      item->set_object_id(id.data(), ObjectId::kSize);
      item->set_count(count);
    }
    (*connection)->Notify(MethodId::kRemoveBorrowers, message);
  }
}

void ObjectService::AddLocalRef(const ObjectId& id) { table_.AddLocal(id); }

void ObjectService::RemoveLocalRef(const ObjectId& id) {
  RefEffects effects;
  table_.RemoveLocal(id, &effects);
  CarryOut(effects);
}

void ObjectService::RemoveSubmitted(std::span<const ObjectId> ids) {
  RefEffects effects;
  table_.RemoveSubmitted(ids, &effects);
  CarryOut(effects);
}

void ObjectService::AddBorrowedRef(const ObjectRefInfo& ref, const ObjectId& outer, uint64_t task) {
  ObjectId cover = outer;
  switch (table_.AddBorrowed(ref, task, &cover)) {
    case ReferenceTable::Borrow::kKnown:
    case ReferenceTable::Borrow::kCovered: return;
    case ReferenceTable::Borrow::kFreed: Fail(ref.id, LostValue(ref.id, "it was freed before this reference to it was read")); return;
    case ReferenceTable::Borrow::kRegister: {
      bool post = false;
      {
        MutexLock lock(&mu_);
        MailToLocked(ref.owner, &post)->add.emplace_back(ref.id, cover);
      }
      if (post) PostMail();
    }
  }
}

void ObjectService::SendAddBorrowers(const Address& owner, const Address& borrower, const std::vector<ObjectId>& ids,
                                     std::function<void(bool sent, const IdSet& unknown)> done) {
  auto connection = deps_.peers->Get(owner);
  if (!connection.ok()) {
    done(false, {});
    return;
  }
  v1::AddBorrowersRequest request;
  ToProto(borrower, request.mutable_borrower());
  for (const ObjectId& id : ids) request.add_object_ids(id.data(), ObjectId::kSize);
  rpc::CallTyped<v1::AddBorrowersReply>(**connection, MethodId::kAddBorrowers, request, {},
                                        [done = std::move(done)](const Status& status, v1::AddBorrowersReply& reply, PartList) {
                                          IdSet unknown;
                                          for (const auto& id : reply.unknown()) unknown.insert(ObjectId::FromBinaryOrNil(id));
                                          done(status.ok(), unknown);
                                        });
}

void ObjectService::RegisterSelf(const Address& owner, std::vector<std::pair<ObjectId, ObjectId>> id_and_outer,
                                 std::shared_ptr<Barrier> barrier) {
  std::vector<ObjectId> ids;
  ids.reserve(id_and_outer.size());
  for (const auto& [id, outer] : id_and_outer) ids.push_back(id);
  auto done = [self = shared_from_this(), list = std::move(id_and_outer), barrier = std::move(barrier)](bool sent, const IdSet& unknown) {
    RefEffects effects;
    std::vector<std::shared_ptr<Barrier>> arrived;
    for (const auto& [id, outer] : list) {
      const bool freed = unknown.contains(id);
      self->table_.OnRegistered(id, outer, sent && !freed, &effects);
      if (freed) self->Fail(id, LostValue(id, "its owner has freed it"));
    }
    {
      MutexLock lock(&self->mu_);
      for (const auto& [id, outer] : list) {
        auto node = self->awaited_.empty() ? decltype(self->awaited_)::node_type() : self->awaited_.extract(id);
        if (node) std::move(node.mapped().begin(), node.mapped().end(), std::back_inserter(arrived));
      }
    }
    self->CarryOut(effects);
    for (const auto& waiting : arrived) waiting->Arrive();
    if (barrier != nullptr) barrier->Arrive();
  };
  SendAddBorrowers(owner, deps_.self, ids, std::move(done));
}

void ObjectService::RegisterBorrowsAndThen(uint64_t task, std::function<void()> done) {
  std::vector<ObjectId> in_flight;
  const std::vector<ObjectRefInfo> to_register = table_.EndTask(task, &in_flight);
  if (to_register.empty() && in_flight.empty()) {
    done();
    return;
  }
  const auto groups = GroupByOwner(to_register);
  auto barrier = std::make_shared<Barrier>(groups.size() + in_flight.size(), std::move(done));
  for (const ObjectId& id : in_flight) {
    {
      MutexLock lock(&mu_);
      awaited_[id].push_back(barrier);
    }
    if (table_.IsRegistering(id)) continue;
    // The answer came in between. Whoever takes the barrier out counts it.
    bool mine = false;
    {
      MutexLock lock(&mu_);
      if (auto it = awaited_.find(id); it != awaited_.end()) {
        mine = std::erase(it->second, barrier) != 0;
        if (it->second.empty()) awaited_.erase(it);
      }
    }
    if (mine) barrier->Arrive();
  }
  for (const auto& [owner, ids] : groups) {
    std::vector<std::pair<ObjectId, ObjectId>> list;
    for (const ObjectId& id : ids) list.emplace_back(id, ObjectId::Nil());
    RegisterSelf(owner, std::move(list), barrier);
  }
}

void ObjectService::HandOver(std::span<const ObjectRefInfo> nested, const Address& receiver, std::function<void()> done) {
  std::vector<ObjectRefInfo> others;
  if (!receiver.worker_id.IsNil() && receiver != deps_.self) {
    for (const ObjectRefInfo& ref : nested) {
      if (ref.owner.IsNil() || ref.owner == deps_.self) {
        table_.AddBorrower(ref.id, receiver.worker_id);
      } else if (ref.owner != receiver) {  // its own: ReplyRoute keeps the order
        others.push_back(ref);
      }
    }
  }
  if (others.empty()) {
    done();
    return;
  }
  std::vector<ObjectId> held = IdsOf(nested);
  table_.AddSubmitted(held);
  const auto groups = GroupByOwner(others);
  auto barrier = std::make_shared<Barrier>(groups.size(), [self = shared_from_this(), held = std::move(held), done = std::move(done)] {
    done();
    self->RemoveSubmitted(held);
  });
  for (const auto& [owner, ids] : groups) {
    // An owner that is gone, or does not know the object, is for the receiver to find out.
    SendAddBorrowers(owner, receiver, ids, [barrier](bool, const IdSet&) { barrier->Arrive(); });
  }
}

std::string ObjectService::Explain(const ObjectId& id) const {
  std::string text = "object " + id.Hex() + " (" + table_.Describe(id) + "): ";
  StoredValue value;
  if (memory_.Get(id, &value)) {
    return text + (value.in_store ? "sealed in the shared-memory store, " : "in memory, ") + std::to_string(value.size) + " bytes";
  }
  if (!table_.Contains(id)) return text + "nothing is known of it";
  if (!table_.IsOwned(id)) return text + "waiting for its owner to answer that it is ready";
  return text + (id.IsPut() ? "being put" : "waiting for task " + id.task_id().Hex() + " to finish");
}

// --- results of tasks

void ObjectService::AddOwned(std::span<const ObjectId> ids, uint32_t handles) {
  for (const ObjectId& id : ids) table_.AddOwned(id, handles);
}

void ObjectService::StoreReturn(const ReturnValue& value) {
  RefEffects effects;
  table_.AddGiven(value.id, value.nested, &effects);
  if (value.in_store) {
    memory_.PutInStore(value.id, value.metadata, value.size, value.node_id);
    // The copy is ours to free, also if nobody waited for it.
    if (!table_.Contains(value.id)) {
      std::vector<ObjectId> in_store;
      memory_.Delete({&value.id, 1}, &in_store);
      if (!in_store.empty()) deps_.store->Free(in_store);
    }
  } else {
    memory_.Put(value.id, value.metadata, value.blob != nullptr ? value.blob : HeapBuffer::CopyOf({}));
    DropIfUnheld(value.id);
  }
  CarryOut(effects);
}

void ObjectService::Discard(const ReturnValue& value) {
  RefEffects effects;
  table_.AddGiven(ObjectId::Nil(), value.nested, &effects);
  CarryOut(effects);
  if (value.in_store) deps_.store->Free({value.id});
}

void ObjectService::StoreError(const ObjectId& id, std::string_view metadata, BufferPtr blob) {
  memory_.Put(id, metadata, std::move(blob));
  DropIfUnheld(id);
}

Status ObjectService::MakeReturn(const ObjectId& id, const Address& owner, const ValueView& value, StoredReturn* out) {
  out->size = SizeOf(value);
  out->in_store = out->size > deps_.options.max_inline_bytes;
  if (out->in_store) return WriteToStore(id, value, out->size, owner);
  out->blob = LayOut(value, out->size);
  return Status::Ok();
}

// --- requests of others, and deaths

void ObjectService::HandleGetObject(const v1::GetObjectRequest& message, rpc::Request& request, rpc::Responder responder) {
  const ObjectId id = ObjectId::FromBinaryOrNil(message.object_id());
  const Address requester = FromProto(message.requester());
  if (!requester.IsNil()) deps_.peers->Adopt(requester, request.connection);
  auto shared = std::make_shared<rpc::Responder>(std::move(responder));
  if (!table_.IsOwned(id)) {
    v1::GetObjectReply reply;
    reply.set_freed(true);
    shared->Send(reply);
    return;
  }
  memory_.OnReady(id, [weak = weak_from_this(), id, requester, shared](bool) {
    if (auto self = weak.lock()) self->SendObject(id, requester, shared);
  });
  DropIfUnheld(id);
}

void ObjectService::SendObject(const ObjectId& id, const Address& requester, std::shared_ptr<rpc::Responder> responder) {
  auto reply = std::make_shared<v1::GetObjectReply>();
  StoredValue value;
  if (!memory_.Get(id, &value)) {
    reply->set_freed(true);
    responder->Send(*reply);
    return;
  }
  reply->set_metadata(value.metadata);
  reply->set_size(value.size);
  reply->set_in_store(value.in_store);
  for (const NodeId& node : value.node_ids) reply->add_node_ids(node.data(), NodeId::kSize);
  const std::vector<ObjectRefInfo> nested = table_.NestedOf(id);
  for (const ObjectRefInfo& ref : nested) ToProto(ref, reply->add_nested());
  PartList parts;
  if (value.blob != nullptr) parts.push_back(std::move(value.blob));
  HandOver(nested, requester, [reply, responder, parts = std::move(parts)] { responder->Send(*reply, parts); });
}

void ObjectService::HandleAddBorrowers(const v1::AddBorrowersRequest& message, rpc::Responder responder) {
  const WorkerId borrower = WorkerId::FromBinaryOrNil(message.borrower().worker_id());
  v1::AddBorrowersReply reply;
  for (const auto& bytes : message.object_ids()) {
    if (!table_.AddBorrower(ObjectId::FromBinaryOrNil(bytes), borrower)) reply.add_unknown(bytes);
  }
  responder.Send(reply);
}

void ObjectService::HandleRemoveBorrowers(const v1::RemoveBorrowersRequest& message) {
  const WorkerId borrower = WorkerId::FromBinaryOrNil(message.borrower().worker_id());
  RefEffects effects;
  for (const auto& item : message.counts())
    table_.RemoveBorrower(ObjectId::FromBinaryOrNil(item.object_id()), borrower, item.count(), &effects);
  CarryOut(effects);
}

void ObjectService::HandleGetLocations(const v1::GetLocationsRequest& message, rpc::Responder responder) {
  v1::GetLocationsReply reply;
  for (const auto& bytes : message.object_ids()) {
    const ObjectId id = ObjectId::FromBinaryOrNil(bytes);
    auto* location = reply.add_locations();
    location->set_object_id(bytes);
    location->set_known(table_.IsOwned(id));
    StoredValue value;
    if (!memory_.Get(id, &value)) continue;
    location->set_size(value.size);
    for (const NodeId& node : value.node_ids) location->add_node_ids(node.data(), NodeId::kSize);
  }
  responder.Send(reply);
}

void ObjectService::OnWorkerDied(const WorkerId& worker) {
  RefEffects effects;
  for (const ObjectId& id : table_.WorkerDied(worker, &effects)) {
    // Values in this process's memory stay good; the store drops what a dead process owned.
    const ErrorValue error = MakeOwnerDiedValue(id.Hex(), table_.OwnerOf(id));
    memory_.FailInStore(id, error.metadata, error.blob);
    Fail(id, error);
  }
  CarryOut(effects);
}

}  // namespace ray::core
