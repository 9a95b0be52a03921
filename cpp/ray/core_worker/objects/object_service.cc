#include "ray/core_worker/objects/object_service.h"

#include <malloc.h>

#include <algorithm>
#include <map>
#include <utility>

#include "ray/util/check.h"
#include "ray/util/logging.h"
#include "ray/wire/convert.h"
#include "ray/wire/value_layout.h"

namespace ray::core {
namespace {

constexpr Duration kTrimDelay = std::chrono::milliseconds(100);  // what is let go of together is given back together

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
  dispatcher->RegisterTyped<v1::AddLocationNotice>(MethodId::kAddLocation,
                                                   [weak](const v1::AddLocationNotice& message, rpc::Request&, rpc::Responder) {
                                                     if (auto self = weak.lock()) self->HandleAddLocation(message);
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
    memory_.PutInStore(*id, value.metadata, size, {&deps_.self.node_id, 1});
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
                                        std::vector<ReadValue>* out, bool* again) {
  const ReadResult here = Localize(refs, positions, deadline, out, again);
  if (here != ReadResult::kReady || *again) return here;
  std::vector<ObjectId> ids;
  // By position in `refs`. Seen before the store is asked: what it then lacks are copies of that run, not of a later one.
  std::vector<uint32_t> attempts(refs.size());
  ids.reserve(positions.size());
  std::vector<uint32_t> left;
  for (uint32_t i : positions) {
    if ((*out)[i].blob != nullptr) continue;  // it was read when it had come, or could not
    left.push_back(i);
    ids.push_back(refs[i].id);
    if (StoredValue value; memory_.Get(refs[i].id, &value)) attempts[i] = value.attempt;
  }
  if (left.empty()) return ReadResult::kReady;
  IdSet suspects;
  while (true) {
    bool interrupted = false;
    const Time slice = std::min(deadline, deps_.loop->clock().Now() + deps_.options.missing_after);
    auto found = deps_.store->Get(ids, slice, &interrupted);
    if (interrupted) return ReadResult::kInterrupted;
    std::vector<uint32_t> missing;
    for (size_t k = 0; k < left.size(); ++k) {
      ReadValue& value = (*out)[left[k]];
      if (!found.ok()) {
        const auto cause = static_cast<ErrorType>(found.status().cause());
        const bool no_room = cause == ErrorType::kOutOfDisk || cause == ErrorType::kObjectStoreFull;
        ErrorValue error = no_room ? MakeErrorValue(cause, found.status().message()) : LostValue(ids[k], found.status().message());
        value = {std::move(error.metadata), std::move(error.blob)};
      } else if ((*found)[k].lost) {
        ReportLost(refs[left[k]], deps_.self.node_id, attempts[left[k]]);
        *again = true;
      } else if ((value.blob = std::move((*found)[k].blob)) == nullptr) {
        missing.push_back(left[k]);
      }
    }
    const bool over = slice == deadline;
    if (!over && !missing.empty()) missing = StillMissing(refs, std::move(missing), attempts, &suspects, again);
    if (closed_.load(std::memory_order_acquire)) return ReadResult::kClosed;
    if (missing.empty() || *again) return ReadResult::kReady;
    if (over) {
      for (uint32_t i : missing) (*out)[i].metadata.clear();
      return ReadResult::kTimeout;
    }
    left = std::move(missing);
    ids.clear();
    for (uint32_t i : left) ids.push_back(refs[i].id);
  }
}

std::vector<uint32_t> ObjectService::StillMissing(std::span<const ObjectRefInfo> refs, std::vector<uint32_t> missing,
                                                  std::span<const uint32_t> attempts, IdSet* suspects, bool* again) {
  std::vector<ObjectId> ids;
  std::vector<uint32_t> local;  // what should be in the store of this node
  std::erase_if(missing, [&](uint32_t i) {
    StoredValue value;
    if (!memory_.Get(refs[i].id, &value) || !value.in_store || value.attempt != attempts[i]) {
      *again = true;  // its owner may have died, or others found it lost
      return true;
    }
    if (std::ranges::find(value.node_ids, deps_.self.node_id) != value.node_ids.end()) {
      local.push_back(i);
      ids.push_back(refs[i].id);
    }
    return false;
  });
  if (ids.empty()) return missing;
  auto contained = deps_.store->Contains(ids);
  if (!contained.ok()) return missing;  // the next Get says why
  for (size_t k = 0; k < local.size(); ++k) {
    if ((*contained)[k]) {
      suspects->erase(ids[k]);
    } else if (!suspects->insert(ids[k]).second) {
      // The first time, the news that it is sealed may still have been on the way.
      ReportLost(refs[local[k]], deps_.self.node_id, attempts[local[k]]);
      std::erase(missing, local[k]);
      *again = true;
    }
  }
  return missing;
}

void ObjectService::ReportLost(const ObjectRefInfo& ref, const NodeId& node, uint32_t attempt) {
  if (ref.owner.IsNil() || ref.owner == deps_.self) {
    LoseCopy(ref.id, node, attempt);
    return;
  }
  {
    MutexLock lock(&mu_);
    lost_copies_[ref.id].push_back({node, attempt});
  }
  if (!memory_.Forget(ref.id, attempt)) return;
  RefEffects effects;
  table_.ForgetNested(ref.id, &effects);
  CarryOut(effects);
}

void ObjectService::LoseCopy(const ObjectId& id, const NodeId& node, uint32_t attempt) {
  NodeId primary;
  if (memory_.LoseCopy(id, node, attempt, &primary) == MemoryStore::Loss::kLost) {
    OnLost(id);
  } else if (!primary.IsNil()) {
    KeepCopies({{id, primary}});
  }
}

// --- copies on other nodes

struct ObjectService::Pull {
  uint64_t number = 0;
  ObjectRefInfo ref;
  uint32_t attempt = 0;  // of the copies that are asked for
  FetchReason reason = FetchReason::kGet;
  std::map<uint64_t, PullDone> waiters;  // under mu_
  uint64_t last_left = 0;                // under mu_; counts those who left, so that a timer knows whether others came meanwhile
};

bool ObjectService::IsElsewhere(const StoredValue& value) const {
  return value.in_store && std::ranges::find(value.node_ids, deps_.self.node_id) == value.node_ids.end();
}

uint64_t ObjectService::PullHere(const ObjectRefInfo& ref, const StoredValue& known, FetchReason reason, PullDone done) {
  auto raylet = deps_.peers->raylet();
  if (raylet == nullptr) {
    done({Status::Unavailable("there is no raylet that could fetch objects of other nodes")});
    return 0;
  }
  std::shared_ptr<Pull> pull;
  uint64_t token;
  {
    MutexLock lock(&mu_);
    token = ++last_pull_;
    auto& slot = pulls_[ref.id];
    if (slot != nullptr && slot->attempt == known.attempt && slot->reason <= reason) {
      slot->waiters.emplace(token, std::move(done));
      return token;
    }
    pull = std::make_shared<Pull>();
    pull->number = token;
    pull->ref = ref;
    pull->attempt = known.attempt;
    pull->reason = reason;
    pull->waiters.emplace(token, std::move(done));
    if (slot != nullptr) {
      // Wanted for a better reason, or as another run made it: who waits for the old one hears of the new one. The raylet fetches once.
      for (auto& [waiter, then] : slot->waiters) pull->waiters.emplace(waiter, std::move(then));
      slot->waiters.clear();
    }
    slot = pull;
  }
  v1::PullObjectRequest request;
  request.set_pull_id(pull->number);
  request.set_object_id(ref.id.data(), ObjectId::kSize);
  const Address& owner = ref.owner.IsNil() ? deps_.self : ref.owner;
  request.set_owner_worker_id(owner.worker_id.Binary());
  request.set_owner_node_id(owner.node_id.Binary());
  request.set_size(known.size);
  request.set_metadata(known.metadata);
  request.set_reason(static_cast<v1::PullReason>(reason));
  for (const NodeId& node : known.node_ids) request.add_node_ids(node.data(), NodeId::kSize);
  rpc::CallTyped<v1::PullObjectReply>(*raylet, MethodId::kPullObject, request, {},
                                      // Weak: an answer may never come, and the connection is the service's own.
                                      [weak = weak_from_this(), pull](const Status& status, v1::PullObjectReply& reply, PartList) {
                                        if (auto self = weak.lock()) self->OnPulled(pull, status, reply);
                                      });
  return token;
}

void ObjectService::LeavePull(const ObjectId& id, uint64_t token) {
  uint64_t left;
  {
    MutexLock lock(&mu_);
    auto it = pulls_.find(id);
    if (it == pulls_.end() || it->second->waiters.erase(token) == 0 || !it->second->waiters.empty()) return;
    left = ++it->second->last_left;
  }
  deps_.loop->AddTimer(deps_.options.pull_linger, [weak = weak_from_this(), id, left] {
    auto self = weak.lock();
    if (self == nullptr) return;
    std::shared_ptr<Pull> pull;
    {
      MutexLock lock(&self->mu_);
      auto it = self->pulls_.find(id);
      if (it == self->pulls_.end() || !it->second->waiters.empty() || it->second->last_left != left) return;
      pull = it->second;
      self->pulls_.erase(it);
    }
    v1::CancelPullNotice notice;
    notice.set_pull_id(pull->number);
    if (auto raylet = self->deps_.peers->raylet()) raylet->Notify(MethodId::kCancelPull, notice);
  });
}

void ObjectService::OnPulled(const std::shared_ptr<Pull>& pull, const Status& status, const v1::PullObjectReply& reply) {
  const ObjectRefInfo& ref = pull->ref;
  const bool ours = ref.owner.IsNil() || ref.owner == deps_.self;
  Status outcome = status;
  if (status.ok() && reply.ready()) {
    memory_.AddCopy(ref.id, deps_.self.node_id, pull->attempt);
    if (!ours) {
      if (auto owner = deps_.peers->Get(ref.owner); owner.ok()) {
        v1::AddLocationNotice notice;
        notice.set_object_id(ref.id.data(), ObjectId::kSize);
        notice.set_node_id(deps_.self.node_id.Binary());
        notice.set_attempt(pull->attempt);
        (*owner)->Notify(MethodId::kAddLocation, notice);
      }
    }
  } else if (status.ok() && reply.timed_out()) {
    outcome = Status(StatusCode::kDeadlineExceeded, "no node gave object " + ref.id.Hex() + " in time",
                     static_cast<int32_t>(ErrorType::kObjectFetchTimedOut));
  } else if (status.ok()) {
    for (const std::string& node : reply.missing_node_ids()) ReportLost(ref, NodeId::FromBinaryOrNil(node), pull->attempt);
  }
  std::map<uint64_t, PullDone> waiters;
  {
    MutexLock lock(&mu_);
    waiters.swap(pull->waiters);
    if (auto it = pulls_.find(ref.id); it != pulls_.end() && it->second == pull) pulls_.erase(it);
  }
  for (auto& [token, done] : waiters) done({outcome});
}

ReadResult ObjectService::Localize(std::span<const ObjectRefInfo> refs, std::span<const uint32_t> positions, Time deadline,
                                   std::vector<ReadValue>* out, bool* again) {
  struct Gathering {  // outlives the call if it ends early
    Mutex mu;
    async::Waiter* waiter GUARDED_BY(mu) = nullptr;
    size_t open GUARDED_BY(mu) = 0;
    std::vector<uint32_t> arrived GUARDED_BY(mu);
    std::vector<std::pair<uint32_t, Status>> failed GUARDED_BY(mu);
  };
  std::shared_ptr<Gathering> gathering;
  std::vector<std::pair<ObjectId, uint64_t>> tokens;
  for (uint32_t i : positions) {
    StoredValue value;
    if (!memory_.Get(refs[i].id, &value) || !value.in_store) {
      *again = true;  // it changed meanwhile
      continue;
    }
    if (!IsElsewhere(value)) continue;
    if (gathering == nullptr) gathering = std::make_shared<Gathering>();
    {
      MutexLock lock(&gathering->mu);
      ++gathering->open;
    }
    const uint64_t token = PullHere(refs[i], value, FetchReason::kGet, [gathering, i](const PullOutcome& outcome) {
      MutexLock lock(&gathering->mu);
      --gathering->open;
      if (outcome.status.ok()) {
        gathering->arrived.push_back(i);
      } else {
        gathering->failed.emplace_back(i, outcome.status);
      }
      if (gathering->waiter != nullptr) gathering->waiter->Notify();
    });
    if (token != 0) tokens.emplace_back(refs[i].id, token);
  }
  if (gathering == nullptr) return ReadResult::kReady;
  ReadResult result = ReadResult::kReady;
  while (result == ReadResult::kReady) {
    async::Waiter waiter;
    std::vector<uint32_t> arrived;
    bool over = false;
    {
      MutexLock lock(&gathering->mu);
      arrived.swap(gathering->arrived);
      over = gathering->open == 0;
      gathering->waiter = arrived.empty() && !over ? &waiter : nullptr;
    }
    if (arrived.empty() && over) break;
    if (arrived.empty()) {
      result = Block(&waiter, deadline);
      MutexLock lock(&gathering->mu);
      gathering->waiter = nullptr;
      continue;
    }
    // Each is pinned as it comes: all of them together may be more than the store holds, and copies without a pin make room for the next.
    std::vector<ObjectId> ids;
    for (uint32_t i : arrived) ids.push_back(refs[i].id);
    bool interrupted = false;
    auto found = deps_.store->Get(ids, deps_.loop->clock().Now() + deps_.options.missing_after, &interrupted);
    for (size_t k = 0; found.ok() && k < arrived.size(); ++k) (*out)[arrived[k]].blob = std::move((*found)[k].blob);
    if (interrupted) result = ReadResult::kInterrupted;
  }
  if (result != ReadResult::kReady) {
    for (const auto& [id, token] : tokens) LeavePull(id, token);
    for (uint32_t i : positions) {
      if ((*out)[i].blob == nullptr) (*out)[i].metadata.clear();
    }
    return result;
  }
  std::vector<std::pair<uint32_t, Status>> failed;
  {
    MutexLock lock(&gathering->mu);
    failed.swap(gathering->failed);
  }
  for (const auto& [i, status] : failed) {
    ErrorValue error = MakeErrorValue(DetailOf(status, ErrorType::kObjectLost));
    (*out)[i] = {std::move(error.metadata), std::move(error.blob)};
  }
  // One that could not be had from where it was said to be: what is known of it has changed.
  for (uint32_t i : positions) {
    StoredValue value;
    if ((*out)[i].blob == nullptr && (!memory_.Get(refs[i].id, &value) || IsElsewhere(value))) *again = true;
  }
  return ReadResult::kReady;
}

void ObjectService::Prefetch(const ObjectRefInfo& ref, FetchReason reason) {
  StoredValue value;
  if (!memory_.Get(ref.id, &value) || !IsElsewhere(value)) return;
  const uint64_t token = PullHere(ref, value, reason, [](const PullOutcome&) {});
  if (token != 0) LeavePull(ref.id, token);
}

void ObjectService::FreeCopies(const std::vector<StoredCopies>& copies) {
  std::vector<ObjectId> here;
  std::map<NodeId, v1::CopiesNotice::Node*> elsewhere;
  v1::CopiesNotice notice;
  for (const StoredCopies& object : copies) {
    for (const NodeId& node : object.nodes) {
      if (node == deps_.self.node_id || node.IsNil()) {
        here.push_back(object.id);
        continue;
      }
      auto [it, is_new] = elsewhere.try_emplace(node, nullptr);
      if (is_new) {
        it->second = notice.add_nodes();
        it->second->set_node_id(node.Binary());
      }
      it->second->add_object_ids(object.id.data(), ObjectId::kSize);
    }
  }
  if (!here.empty()) deps_.store->Free(here);
  if (elsewhere.empty()) return;
  if (auto raylet = deps_.peers->raylet()) raylet->Notify(MethodId::kFreeCopies, notice);
}

void ObjectService::FreeCopy(const ObjectId& id, const NodeId& node) { FreeCopies({{id, {node}}}); }

void ObjectService::KeepCopies(const std::vector<std::pair<ObjectId, NodeId>>& copies) {
  v1::CopiesNotice notice;
  for (const auto& [id, node] : copies) {
    if (!table_.IsOwned(id)) continue;
    auto* to = notice.add_nodes();
    to->set_node_id(node.Binary());
    to->add_object_ids(id.data(), ObjectId::kSize);
  }
  if (notice.nodes_size() == 0) return;
  if (auto raylet = deps_.peers->raylet()) raylet->Notify(MethodId::kKeepCopies, notice);
}

void ObjectService::HandleAddLocation(const v1::AddLocationNotice& message) {
  const ObjectId id = ObjectId::FromBinaryOrNil(message.object_id());
  const NodeId node = NodeId::FromBinaryOrNil(message.node_id());
  // Freed meanwhile: that copy came too late to be freed with the others.
  if (!memory_.AddCopy(id, node, message.attempt()) && !table_.Contains(id)) FreeCopy(id, node);
}

void ObjectService::OnNodeDied(const NodeId& node) {
  {
    MutexLock lock(&mu_);
    if (!dead_nodes_.insert(node).second) return;
  }
  for (const WorkerId& worker : table_.NodeDied(node)) OnWorkerDied(worker);
  const MemoryStore::NodeLoss loss = memory_.LoseNode(node);
  for (const ObjectId& id : loss.lost) OnLost(id);
  KeepCopies(loss.primaries);
}

void ObjectService::OnLost(const ObjectId& id) {
  RefEffects effects;
  table_.ForgetNested(id, &effects);  // another run gives refs of its own
  CarryOut(effects);
  if (!table_.IsOwned(id)) return;
  if (deps_.on_lost) {
    deps_.on_lost(id);
  } else {
    Fail(id, LostValue(id, "no copy of it is left"));
  }
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
      // Read in an earlier round, and kept: it is pinned.
      if (value.blob != nullptr && !value.metadata.empty() && !IsErrorMetadata(value.metadata)) continue;
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
      if (errors.empty()) return ReadResult::kReady;
      bool again = false;
      const ReadResult result = ReadFromStore(refs, errors, DeadlineOf(timeout_ms), out, &again);
      if (!again || result != ReadResult::kReady) return result;
      continue;
    }
    if (first) {
      first = false;
      if (timeout_ms > 0) deadline = DeadlineOf(timeout_ms);
    }
    if (!missing) {
      bool again = false;
      const ReadResult result = in_store.empty() ? ReadResult::kReady : ReadFromStore(refs, in_store, deadline, out, &again);
      if (!again || result != ReadResult::kReady) return result;
      seen.clear();
      continue;
    }

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

ReadResult ObjectService::Wait(std::span<const ObjectRefInfo> refs, size_t num_returns, int64_t timeout_ms, bool fetch_local,
                               std::vector<bool>* ready) {
  const std::vector<ObjectId> ids = IdsOf(refs);
  num_returns = std::min(num_returns, refs.size());
  const Time deadline = DeadlineOf(timeout_ms);
  ReadResult result = ReadResult::kReady;
  {
    MemoryStore::Watch watch(&memory_, ids, num_returns, /*stop_on_error=*/false);
    if (!watch.done()) {
      StartFetch(refs, watch.pending());
      WakeUnheld(ids, watch.pending());
      if (!watch.done()) result = Block(watch.waiter(), deadline);
    }
    *ready = watch.Ready();
  }
  if (fetch_local) {
    for (size_t i = 0; i < refs.size(); ++i) {
      if (!(*ready)[i] || IsLocal(refs[i].id)) continue;
      if (result == ReadResult::kReady) {
        result = WaitLocal(refs, num_returns, deadline, ready);
        break;
      }
      // There is no time left to wait for it. Whoever asks again finds it on its way.
      (*ready)[i] = false;
      Prefetch(refs[i], FetchReason::kWait);
    }
  }
  size_t found = 0;
  for (size_t i = 0; i < ready->size(); ++i) {
    if ((*ready)[i] && ++found > num_returns) (*ready)[i] = false;
  }
  // Enough may have come while the wait ended for another reason.
  return found >= num_returns && result != ReadResult::kClosed ? ReadResult::kReady : result;
}

ReadResult ObjectService::WaitLocal(std::span<const ObjectRefInfo> refs, size_t num_returns, Time deadline, std::vector<bool>* ready) {
  struct Signal {
    Mutex mu;
    async::Waiter* waiter GUARDED_BY(mu) = nullptr;
  };
  // So many more than are needed are fetched at a time: the fastest of them counts.
  constexpr size_t kAhead = 16;
  auto signal = std::make_shared<Signal>();
  while (true) {
    async::Waiter waiter;
    {
      MutexLock lock(&signal->mu);
      signal->waiter = &waiter;
    }
    std::vector<std::pair<ObjectId, uint64_t>> tokens;
    size_t found = 0;
    auto notify = [signal] {
      MutexLock lock(&signal->mu);
      if (signal->waiter != nullptr) signal->waiter->Notify();
    };
    for (size_t i = 0; i < refs.size() && found < num_returns; ++i) {
      if (IsLocal(refs[i].id)) {
        (*ready)[i] = true;
        ++found;
        continue;
      }
      StoredValue value;
      (*ready)[i] = false;
      if (!memory_.Get(refs[i].id, &value)) continue;
      if (tokens.size() >= num_returns - found + kAhead) continue;
      const uint64_t token = PullHere(refs[i], value, FetchReason::kWait, [notify](const PullOutcome&) { notify(); });
      if (token != 0) tokens.emplace_back(refs[i].id, token);
    }
    ReadResult result = ReadResult::kReady;
    if (found < num_returns) {
      // Of those that are not there at all the next may be as good as one that is fetched.
      std::vector<uint64_t> watched;
      for (size_t i = 0; i < refs.size(); ++i) {
        if ((*ready)[i] || memory_.Contains(refs[i].id)) continue;
        const uint32_t position = static_cast<uint32_t>(i);
        if (uint64_t token = memory_.OnReady(refs[i].id, [notify](bool) { notify(); }); token != 0) watched.push_back(token);
        StartFetch(refs, {&position, 1});
      }
      result = Block(&waiter, deadline);
      for (uint64_t token : watched) memory_.Cancel(token);
    }
    {
      MutexLock lock(&signal->mu);
      signal->waiter = nullptr;
    }
    for (const auto& [id, token] : tokens) LeavePull(id, token);
    if (found >= num_returns || result != ReadResult::kReady) {
      if (result == ReadResult::kTimeout) {
        for (size_t i = 0; i < refs.size(); ++i) (*ready)[i] = IsLocal(refs[i].id);
      }
      return result;
    }
  }
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
    TakeLostCopies(ref.id, &request);
    rpc::CallTyped<v1::GetObjectReply>(**connection, MethodId::kGetObject, request, {},
                                       [self = shared_from_this(), ref](const Status& status, v1::GetObjectReply& reply, PartList parts) {
                                         self->OnFetched(ref, status, reply, std::move(parts));
                                       },
                                       {.corked = true});
    if (std::find(used.begin(), used.end(), *connection) == used.end()) used.push_back(*connection);
  }
  for (const auto& connection : used) connection->Flush();
}

void ObjectService::TakeLostCopies(const ObjectId& id, v1::GetObjectRequest* request) {
  MutexLock lock(&mu_);
  if (lost_copies_.empty()) return;
  auto node = lost_copies_.extract(id);
  if (node.empty()) return;
  for (const LostCopy& copy : node.mapped()) {
    auto* lost = request->add_lost_copies();
    lost->set_node_id(copy.node.Binary());
    lost->set_attempt(copy.attempt);
  }
}

void ObjectService::Fail(const ObjectId& id, const ErrorValue& error) {
  memory_.Put(id, error.metadata, error.blob);
  DropIfUnheld(id);
}

void ObjectService::DropIfUnheld(const ObjectId& id) {
  if (!table_.Contains(id)) DeleteValues({&id, 1}, nullptr);
}

void ObjectService::DeleteValues(std::span<const ObjectId> ids, std::vector<StoredCopies>* in_store) {
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
    // On one node a connection ends only with its process; the way to another node may break for a while.
    bool died = deps_.peers->IsDead(ref.owner);
    if (!died && status.code() == StatusCode::kUnavailable) {
      if (ref.owner.node_id == deps_.self.node_id || ref.owner.node_id.IsNil()) {
        died = true;
      } else {
        MutexLock lock(&mu_);
        died = dead_nodes_.contains(ref.owner.node_id);
      }
      if (!died && !closed_.load()) {
        deps_.loop->AddTimer(deps_.options.owner_retry, [weak = weak_from_this(), ref] {
          static constexpr uint32_t kFirst = 0;
          auto self = weak.lock();
          // Somebody still waits for it, and nothing is known of it: its owner's death would be.
          if (self != nullptr && !self->closed_.load() && !self->memory_.Contains(ref.id) && self->table_.Contains(ref.id)) {
            self->StartFetch({&ref, 1}, {&kFirst, 1});
          }
        });
        return;
      }
    }
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
    std::vector<NodeId> nodes;
    for (const auto& node : reply.node_ids()) nodes.push_back(NodeId::FromBinaryOrNil(node));
    if (nodes.empty()) nodes.emplace_back();
    memory_.PutInStore(ref.id, reply.metadata(), reply.size(), nodes, reply.attempt());
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
  std::vector<StoredCopies> copies;
  std::vector<ObjectId> in_store;
  DeleteValues(effects.dropped, &copies);
  if (!copies.empty()) {
    // Copies of borrowed objects are their owners' to free.
    if (effects.freed.size() != effects.dropped.size()) {
      const IdSet freed(effects.freed.begin(), effects.freed.end());
      std::erase_if(copies, [&](const StoredCopies& object) { return !freed.contains(object.id); });
    }
    for (const StoredCopies& object : copies) in_store.push_back(object.id);
    FreeCopies(copies);
  }
  if (!effects.give_back.empty()) {
    bool post = false;
    {
      MutexLock lock(&mu_);
      for (const auto& back : effects.give_back) MailToLocked(back.owner, &post)->remove.emplace_back(back.id, back.count);
    }
    if (post) PostMail();
  }
  if (effects.shrunk) TrimSoon();
  if (!effects.freed.empty() && deps_.on_freed) deps_.on_freed(effects.freed, in_store);
  if (!effects.actors_out_of_scope.empty() && deps_.on_actor_out_of_scope) deps_.on_actor_out_of_scope(effects.actors_out_of_scope);
}

// The allocator keeps what many small frees leave behind.
void ObjectService::TrimSoon() {
  if (trim_due_.exchange(true)) return;
  deps_.loop->AddTimer(kTrimDelay, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (self == nullptr) return;
    self->trim_due_.store(false);
    malloc_trim(0);
  });
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
        table_.AddBorrower(ref.id, receiver);
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
    if (deps_.on_stored) deps_.on_stored(value.id);
    if (!memory_.PutInStore(value.id, value.metadata, value.size, {&value.node_id, 1}, value.attempt)) {
      // Run again for something else that it made. One more copy; or of no use, if the value is small this time.
      StoredValue known;
      if (memory_.Get(value.id, &known) && !known.in_store) {
        FreeCopy(value.id, value.node_id);
        if (deps_.on_freed) deps_.on_freed({}, {&value.id, 1});
      }
    }
    // The copy is ours to free, also if nobody waited for it.
    if (!table_.Contains(value.id)) {
      std::vector<StoredCopies> copies;
      memory_.Delete({&value.id, 1}, &copies);
      FreeCopies(copies);
      if (deps_.on_freed) deps_.on_freed({}, {&value.id, 1});
    }
    // News of the node's death may have been faster.
    bool dead;
    {
      MutexLock lock(&mu_);
      dead = dead_nodes_.contains(value.node_id);
    }
    if (dead) LoseCopy(value.id, value.node_id, value.attempt);
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
  if (value.in_store) FreeCopy(value.id, value.node_id);
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
  for (const auto& lost : message.lost_copies()) LoseCopy(id, NodeId::FromBinaryOrNil(lost.node_id()), lost.attempt());
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
  reply->set_attempt(value.attempt);
  for (const NodeId& node : value.node_ids) reply->add_node_ids(node.data(), NodeId::kSize);
  const std::vector<ObjectRefInfo> nested = table_.NestedOf(id);
  for (const ObjectRefInfo& ref : nested) ToProto(ref, reply->add_nested());
  PartList parts;
  if (value.blob != nullptr) parts.push_back(std::move(value.blob));
  HandOver(nested, requester, [reply, responder, parts = std::move(parts)] { responder->Send(*reply, parts); });
}

void ObjectService::HandleAddBorrowers(const v1::AddBorrowersRequest& message, rpc::Responder responder) {
  const Address borrower = FromProto(message.borrower());
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
