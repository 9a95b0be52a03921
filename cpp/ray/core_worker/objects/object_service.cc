#include "ray/core_worker/objects/object_service.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "ray/util/check.h"
#include "ray/util/logging.h"
#include "ray/wire/convert.h"
#include "ray/wire/value_layout.h"
#include "ray/wire/wait_fact.h"

namespace ray::core {
namespace {

constexpr Duration kTrimDelay = std::chrono::milliseconds(100);  // what is let go of together is given back together

size_t SizeOf(const ValueView& value) {
  return HasPythonLayout(value.metadata) ? PythonBlobSize(value.data.size(), value.buffers) : value.data.size();
}

}  // namespace

ObjectService::ObjectService(Deps deps)
    : deps_(std::move(deps)),
      context_{.loop = deps_.loop,
               .store = deps_.store,
               .peers = deps_.peers,
               .self = deps_.self,
               .options = deps_.options,
               .host = this,
               .table = ReferenceTable(deps_.self)},
      put_ids_(deps_.job_id),
      calls_(deps_.loop, deps_.options.blocked_after, deps_.on_blocked, deps_.current_task),
      copies_(&context_),
      borrowing_(&context_),
      pulls_(&context_, &copies_),
      reader_(&context_, &calls_, &copies_, &pulls_),
      owners_(&context_, deps_.handover.adopter),
      handover_(&context_, &borrowing_, deps_.handover) {
  context_.owners = &owners_;
}

ObjectService::~ObjectService() = default;

std::shared_ptr<ObjectService> ObjectService::Make(Deps deps) {
  std::shared_ptr<ObjectService> service(new ObjectService(std::move(deps)));
  service->context_.alive = service;
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
        if (auto self = weak.lock()) self->HandleGetObject(message, request.connection, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::AddBorrowersRequest>(
      MethodId::kAddBorrowers, [weak](const v1::AddBorrowersRequest& message, rpc::Request&, rpc::Responder responder) {
        if (auto self = weak.lock()) self->HandleAddBorrowers(message, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::RemoveBorrowersRequest>(
      MethodId::kRemoveBorrowers, [weak](const v1::RemoveBorrowersRequest& message, rpc::Request&, rpc::Responder responder) {
        if (auto self = weak.lock()) self->borrowing_.HandleRemoveBorrowers(message, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::SettleBorrowsRequest>(
      MethodId::kSettleBorrows, [weak](const v1::SettleBorrowsRequest& message, rpc::Request&, rpc::Responder responder) {
        if (auto self = weak.lock()) self->borrowing_.HandleSettleBorrows(message, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::AddLocationNotice>(MethodId::kAddLocation,
                                                   [weak](const v1::AddLocationNotice& message, rpc::Request&, rpc::Responder responder) {
                                                     if (auto self = weak.lock())
                                                       self->copies_.HandleAddLocation(message, std::move(responder));
                                                   });
  dispatcher->RegisterTyped<v1::MoveCopiesRequest>(MethodId::kMoveCopies,
                                                   [weak](const v1::MoveCopiesRequest& message, rpc::Request&, rpc::Responder responder) {
                                                     if (auto self = weak.lock())
                                                       self->copies_.HandleMoveCopies(message, std::move(responder));
                                                   });
  dispatcher->RegisterTyped<v1::GetLocationsRequest>(
      MethodId::kGetLocations, [weak](const v1::GetLocationsRequest& message, rpc::Request&, rpc::Responder responder) {
        if (auto self = weak.lock()) self->copies_.HandleGetLocations(message, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::OwnerMovedRequest>(
      MethodId::kOwnerMoved, [weak](const v1::OwnerMovedRequest& message, rpc::Request&, rpc::Responder responder) {
        auto self = weak.lock();
        if (self == nullptr) return;
        self->owners_.Move(FromProto(message.owner()).worker_id, NodeId::FromBinaryOrNil(message.adopter_node_id()));
        if (responder.valid()) responder.Send(v1::AdoptionEmpty());
      });
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

Status ObjectService::WriteToStore(const ObjectId& id, const ValueView& value, size_t size, const Address& owner, uint32_t attempt) {
  return deps_.store->Write(id, size, value.metadata, owner, attempt, [&](const PieceWriter& write) {
    if (HasPythonLayout(value.metadata)) return ScatterPythonBlob(value.data, value.buffers, write);
    return write(0, value.data.data(), value.data.size());
  });
}

Status ObjectService::Put(const ValueView& value, ObjectId* id) {
  if (calls_.closed()) return Status::Cancelled("this process is shutting down");
  *id = put_ids_.Next();
  const size_t size = SizeOf(value);
  // The entry comes before the value: whoever finds the value finds a holder.
  if (size <= deps_.options.max_inline_bytes) {
    BufferPtr blob = LayOut(value, size);
    context_.table.AddOwned(*id, 1, IdsOf(value.nested));
    context_.memory.Put(*id, value.metadata, std::move(blob));
  } else {
    RAY_RETURN_NOT_OK(WriteToStore(*id, value, size, deps_.self, 0));
    context_.table.AddOwned(*id, 1, IdsOf(value.nested));
    context_.memory.PutInStore(*id, value.metadata, size, {&deps_.self.node_id, 1});
  }
  return Status::Ok();
}

// --- copies on other nodes

Status ObjectService::GetLocations(std::span<const ObjectRefInfo> refs, int64_t timeout_ms, std::vector<Location>* out) {
  const Time deadline = calls_.DeadlineOf(timeout_ms);
  return copies_.GetLocations(
      refs, [&](async::Waiter* waiter) { return Block(waiter, deadline); }, out);
}

Status ObjectService::GetKnownLocations(std::span<const ObjectRefInfo> refs, std::vector<Location>* out) {
  constexpr int64_t kPatienceMs = 1000;
  const Time deadline = calls_.DeadlineOf(kPatienceMs);
  return copies_.GetKnownLocations(
      refs, [&](async::Waiter* waiter) { return Block(waiter, deadline); }, out);
}

void ObjectService::OnNodeDied(const NodeId& node) {
  if (!copies_.NoteDeadNode(node)) return;
  for (const WorkerId& worker : context_.table.NodeDied(node)) OnWorkerDied(worker);
  borrowing_.ForgetNode(node);
  copies_.LoseNode(node);
}

void ObjectService::OnLost(const ObjectId& id) {
  RefEffects effects;
  context_.table.ForgetNested(id, &effects);  // another run gives refs of its own
  CarryOut(effects);
  if (!context_.table.IsOwned(id)) return;
  if (deps_.on_lost) {
    deps_.on_lost(id);
  } else {
    Fail(id, LostValue(id, "no copy of it is left"));
  }
}

void ObjectService::Fail(const ObjectId& id, const ErrorValue& error) {
  context_.memory.Put(id, error.metadata, error.blob);
  DropIfUnheld(id);
}

void ObjectService::DropIfUnheld(const ObjectId& id) {
  if (!context_.table.Contains(id)) DeleteValues({&id, 1}, nullptr);
}

void ObjectService::DeleteValues(std::span<const ObjectId> ids, std::vector<StoredCopies>* in_store) {
  std::vector<BufferPtr> unread;
  context_.memory.Delete(ids, in_store, deps_.on_unread_error ? &unread : nullptr);
  for (BufferPtr& blob : unread) deps_.on_unread_error(std::move(blob));
}

// --- references

void ObjectService::CarryOut(const RefEffects& effects) {
  if (effects.empty()) return;
  std::vector<StoredCopies> copies;
  std::vector<ObjectId> in_store;
  DeleteValues(effects.dropped, &copies);
  copies_.ForgetLostCopies(effects.dropped);
  if (!copies.empty()) {
    // Copies of borrowed objects are their owners' to free.
    if (effects.freed.size() != effects.dropped.size()) {
      const ObjectIdSet freed(effects.freed.begin(), effects.freed.end());
      std::erase_if(copies, [&](const StoredCopies& object) { return !freed.contains(object.id); });
    }
    for (const StoredCopies& object : copies) in_store.push_back(object.id);
    copies_.FreeCopies(copies);
  }
  if (!effects.give_back.empty()) borrowing_.GiveBackSoon(effects.give_back);
  if (!effects.settle.empty()) borrowing_.SettleSoon(effects.settle);
  if (effects.shrunk) TrimSoon();
  if (!effects.freed.empty() && deps_.on_freed) deps_.on_freed(effects.freed, in_store);
  if ((!effects.actors_out_of_scope.empty() || !effects.handles_given_back.empty()) && deps_.on_handles_gone) {
    deps_.on_handles_gone(effects.actors_out_of_scope, effects.handles_given_back);
  }
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

void ObjectService::AddLocalRef(const ObjectId& id) { context_.table.AddLocal(id); }

void ObjectService::RemoveLocalRef(const ObjectId& id) {
  RefEffects effects;
  context_.table.RemoveLocal(id, &effects);
  CarryOut(effects);
}

void ObjectService::RemoveSubmitted(std::span<const ObjectId> ids) {
  RefEffects effects;
  context_.table.RemoveSubmitted(ids, &effects);
  CarryOut(effects);
}

void ObjectService::KeepArguments(const ObjectId& id) {
  if (!context_.table.AddSubmittedIfKnown(id)) return;
  RefEffects effects;
  context_.table.ForgetNested(id, &effects);
  CarryOut(effects);
}

void ObjectService::AddBorrowedRef(const ObjectRefInfo& ref, const ObjectId& outer, uint64_t task) {
  ObjectId cover = outer;
  switch (context_.table.AddBorrowed(ref, task, &cover)) {
    case ReferenceTable::Borrow::kKnown:
    case ReferenceTable::Borrow::kCovered: return;
    case ReferenceTable::Borrow::kFreed: Fail(ref.id, LostValue(ref.id, "it was freed before this reference to it was read")); return;
    case ReferenceTable::Borrow::kRegister: borrowing_.RegisterSoon(ref, cover);
  }
}

bool ObjectService::Explain(const ObjectId& id, const Address& owner, v1::WaitFact* out) const {
  SetSubject(v1::SUBJECT_KIND_OBJECT, id.View(), v1::WAIT_STATE_UNSPECIFIED, out);
  StoredValue value;
  const bool here = context_.memory.Get(id, &value);
  const bool held = context_.table.Contains(id);
  const bool ours = context_.table.IsOwned(id);
  if (!here && !held && owner.IsNil()) return false;
  Address answers = ours ? deps_.self : held ? context_.table.OwnerOf(id) : owner;
  if (answers.IsNil()) answers = deps_.self;
  ToProto(answers, out->mutable_owner());
  if (held) out->set_detail(context_.table.Describe(id));
  if (here && value.IsError()) {
    out->set_state(v1::WAIT_STATE_FAILED);
    const auto error = value.blob == nullptr
                           ? Result<v1::ErrorDetail>(Status::NotFound("it is in a store"))
                           : ParseErrorValue(value.metadata, {reinterpret_cast<const char*>(value.blob->data()), value.blob->size()});
    out->set_detail(error.ok() ? error->message() : "the program raised an exception");
  } else if (here) {
    out->set_state(v1::WAIT_STATE_READY);
    out->set_detail((value.in_store ? "in the object store, " : "in its owner's memory, ") + std::to_string(value.size) + " bytes");
    if (pulls_.IsPulling(id)) {
      AddPointer(v1::SUBJECT_KIND_OBJECT, id.View(), Address{deps_.self.node_id, WorkerId::Nil()}, out);
    }
    for (const NodeId& node : value.node_ids) AddPointer(v1::SUBJECT_KIND_OBJECT, id.View(), Address{node, WorkerId::Nil()}, out);
    if (!value.node_ids.empty()) out->set_node_id(value.node_ids.front().Binary());
  } else if (ours) {
    out->set_state(v1::WAIT_STATE_PENDING);
  } else {
    out->set_state(v1::WAIT_STATE_WAITING_FOR_OWNER);
    AddPointer(v1::SUBJECT_KIND_OBJECT, id.View(), answers, out);
  }
  return true;
}

bool ObjectService::BlockedOn(const TaskId& task, v1::WaitFact* out) const {
  std::vector<ObjectRefInfo> refs;
  Time since;
  if (!calls_.Of(task, kMaxWaitPointers, &refs, &since)) return false;
  SetAge(since, deps_.loop->clock().Now(), out);
  for (const ObjectRefInfo& ref : refs) {
    AddPointer(v1::SUBJECT_KIND_OBJECT, ref.id.View(), ref.owner.IsNil() ? deps_.self : ref.owner, out);
  }
  return true;
}

// --- results of tasks

void ObjectService::AddOwned(std::span<const ObjectId> ids, uint32_t handles) {
  for (const ObjectId& id : ids) context_.table.AddOwned(id, handles);
}

void ObjectService::StoreReturn(const ReturnValue& value) {
  RefEffects effects;
  context_.table.AddGiven(value.id, value.nested, value.sender, &effects);
  if (value.in_store) {
    if (deps_.on_stored) deps_.on_stored(value.id);
    // It may have run again for something else that it made.
    const MemoryStore::Made made = copies_.AddReturn({value.id, value.attempt}, value.metadata, value.size, value.node_id);
    if (made == MemoryStore::Made::kInMemory && deps_.on_freed) deps_.on_freed({}, {&value.id, 1});
    // The copy is ours to free, also if nobody waited for it.
    if (!context_.table.Contains(value.id)) {
      std::vector<StoredCopies> copies;
      context_.memory.Delete({&value.id, 1}, &copies);
      copies_.FreeCopies(copies);
      if (deps_.on_freed) deps_.on_freed({}, {&value.id, 1});
    }
    // News of the node's death may have been faster.
    if (copies_.IsDeadNode(value.node_id)) copies_.LoseCopy(value.id, value.node_id, value.attempt);
  } else {
    context_.memory.Put(value.id, value.metadata, value.blob != nullptr ? value.blob : HeapBuffer::CopyOf({}));
    DropIfUnheld(value.id);
  }
  CarryOut(effects);
}

void ObjectService::Discard(const ReturnValue& value) {
  RefEffects effects;
  context_.table.AddGiven(ObjectId::Nil(), value.nested, value.sender, &effects);
  CarryOut(effects);
  if (value.in_store) FreeCopy({value.id, value.attempt}, value.node_id);
}

void ObjectService::StoreError(const ObjectId& id, std::string_view metadata, BufferPtr blob) {
  context_.memory.Put(id, metadata, std::move(blob));
  DropIfUnheld(id);
}

Status ObjectService::MakeReturn(const CopyRun& run, const Address& owner, const ValueView& value, StoredReturn* out, ReturnPlace place) {
  out->size = SizeOf(value);
  out->in_store = place == ReturnPlace::kStore || (place == ReturnPlace::kBySize && out->size > deps_.options.max_inline_bytes);
  if (out->in_store) return WriteToStore(run.id, value, out->size, owner, run.attempt);
  out->blob = LayOut(value, out->size);
  return Status::Ok();
}

// --- requests of others, and deaths

void ObjectService::HandleAddBorrowers(const v1::AddBorrowersRequest& message, rpc::Responder responder) {
  if (!handover_.active()) return borrowing_.HandleAddBorrowers(message, std::move(responder));
  auto held = std::make_shared<rpc::Responder>(std::move(responder));
  handover_.Defer([this, self = shared_from_this(), message, held](bool moved) {
    if (!moved) return borrowing_.HandleAddBorrowers(message, std::move(*held));
    v1::AddBorrowersReply reply;
    reply.set_moved_node_id(handover_.adopter().Binary());
    held->Send(reply);
  });
}

void ObjectService::HandleGetObject(const v1::GetObjectRequest& message, const rpc::ConnectionPtr& connection, rpc::Responder responder) {
  if (handover_.active()) {
    auto held = std::make_shared<rpc::Responder>(std::move(responder));
    handover_.Defer([this, self = shared_from_this(), message, connection, held](bool moved) {
      if (!moved) return ServeObject(message, connection, std::move(*held));
      v1::GetObjectReply reply;
      reply.set_moved_node_id(handover_.adopter().Binary());
      held->Send(reply);
    });
    return;
  }
  ServeObject(message, connection, std::move(responder));
}

void ObjectService::ServeObject(const v1::GetObjectRequest& message, const rpc::ConnectionPtr& connection, rpc::Responder responder) {
  const ObjectId id = ObjectId::FromBinaryOrNil(message.object_id());
  const Address requester = FromProto(message.requester());
  if (!requester.IsNil()) deps_.peers->Adopt(requester, connection);
  for (const auto& lost : message.lost_copies()) copies_.LoseCopy(id, NodeId::FromBinaryOrNil(lost.node_id()), lost.attempt());
  auto shared = std::make_shared<rpc::Responder>(std::move(responder));
  if (!context_.table.IsOwned(id)) {
    v1::GetObjectReply reply;
    reply.set_freed(true);
    shared->Send(reply);
    return;
  }
  context_.memory.OnReady(id, [weak = weak_from_this(), id, requester, request = message.request_id(), shared](bool) {
    if (auto self = weak.lock()) self->SendObject(id, requester, request, shared);
  });
  DropIfUnheld(id);
}

void ObjectService::SendObject(const ObjectId& id, const Address& requester, uint64_t request, std::shared_ptr<rpc::Responder> responder) {
  auto reply = std::make_shared<v1::GetObjectReply>();
  StoredValue value;
  if (!context_.memory.Get(id, &value)) {
    reply->set_freed(true);
    responder->Send(*reply);
    return;
  }
  reply->set_metadata(value.metadata);
  reply->set_size(value.size);
  reply->set_in_store(value.in_store);
  reply->set_attempt(value.attempt);
  for (const NodeId& node : value.node_ids) reply->add_node_ids(node.data(), NodeId::kSize);
  const std::vector<ObjectRefInfo> nested = context_.table.NestedOf(id);
  // Each answer with refs inside makes the requester their borrower.
  if (!nested.empty() && request != 0 && !given_.Begin(requester.worker_id.Binary() + std::to_string(request), responder.get())) return;
  for (const ObjectRefInfo& ref : nested) ToProto(ref, reply->add_nested());
  PartList parts;
  if (value.blob != nullptr) parts.push_back(std::move(value.blob));
  HandOver(nested, requester, [reply, responder, parts = std::move(parts)] { responder->Send(*reply, parts); });
}

void ObjectService::OnWorkerDied(const WorkerId& worker) {
  RefEffects effects;
  Address owner;
  const std::vector<ObjectId> orphans = context_.table.WorkerDied(worker, &effects, &owner);
  borrowing_.ForgetBorrower(worker);
  if (!orphans.empty()) {
    owners_.Find(owner, [this, self = shared_from_this(), owner, orphans](bool moved) {
      if (!moved) LoseOwner(owner, orphans);  // else those who wait ask again as their questions to the owner fail
    });
  }
  CarryOut(effects);
}

void ObjectService::LoseOwner(const Address& owner, std::span<const ObjectId> orphans) {
  for (const ObjectId& id : orphans) {
    // Values in this process's memory stay good; the store drops what a dead process owned.
    const ErrorValue error = MakeOwnerDiedValue(id.Hex(), owner);
    context_.memory.FailInStore(id, error.metadata, error.blob);
    Fail(id, error);
  }
}

}  // namespace ray::core
