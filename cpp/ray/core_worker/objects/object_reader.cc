#include "ray/core_worker/objects/object_reader.h"

#include <algorithm>
#include <utility>

#include "ray/core_worker/objects/owners.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/wire/convert.h"
#include "ray/wire/value_layout.h"

namespace ray::core {
namespace {
constexpr uint32_t kFirst = 0;  // the positions of a list of one
}

bool ObjectReader::Read(const ObjectId& id, ReadValue* out, bool* in_store) const {
  StoredValue value;
  if (!context_.memory.Get(id, &value)) return false;
  out->metadata = std::move(value.metadata);
  out->blob = std::move(value.blob);
  *in_store = value.in_store;
  return true;
}

bool ObjectReader::TryGet(const ObjectRefInfo& ref, ReadValue* out) {
  bool in_store = false;
  if (!Read(ref.id, out, &in_store)) return false;
  if (in_store) out->blob = context_.store->TryGet(ref.id);
  return out->blob != nullptr;
}

ReadResult ObjectReader::Get(std::span<const ObjectRefInfo> refs, int64_t timeout_ms, std::vector<ReadValue>* out) {
  const ReadResult result = Gather(refs, timeout_ms, out);
  // The caller takes what is there, however it ended: known to be in a store, but not read from it, is not there.
  for (ReadValue& value : *out) {
    if (value.blob == nullptr) value.metadata.clear();
  }
  return result;
}

ReadResult ObjectReader::Gather(std::span<const ObjectRefInfo> refs, int64_t timeout_ms, std::vector<ReadValue>* out) {
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
        if (!seen.empty() && seen[i] && !context_.table.Contains(refs[i].id)) {
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
        if (IsErrorMetadata((*out)[i].metadata)) errors.push_back(i);
      }
      if (errors.empty()) return ReadResult::kReady;
      bool again = false;
      const ReadResult result = ReadFromStore(refs, errors, calls_.DeadlineOf(timeout_ms), out, &again);
      if (!again || result != ReadResult::kReady) return result;
      continue;
    }
    if (first) {
      first = false;
      if (timeout_ms > 0) deadline = calls_.DeadlineOf(timeout_ms);
    }
    if (!missing) {
      bool again = false;
      const ReadResult result = in_store.empty() ? ReadResult::kReady : ReadFromStore(refs, in_store, deadline, out, &again);
      if (!again || result != ReadResult::kReady) return result;
      seen.clear();
      continue;
    }

    if (ids.empty()) ids = IdsOf(refs);
    MemoryStore::Watch watch(&context_.memory, ids, ids.size(), /*stop_on_error=*/true);
    StartFetch(refs, watch.pending());
    WakeUnheld(ids, watch.pending());
    const Awaited awaited{refs, watch.pending()};
    const ReadResult result = watch.done() ? ReadResult::kReady : calls_.Block(watch.waiter(), deadline, &awaited);
    if (result != ReadResult::kReady) return result;
    seen = watch.Ready();
  }
}

ReadResult ObjectReader::ReadFromStore(std::span<const ObjectRefInfo> refs, std::span<const uint32_t> positions, Time deadline,
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
    if (StoredValue value; context_.memory.Get(refs[i].id, &value)) attempts[i] = value.attempt;
  }
  if (left.empty()) return ReadResult::kReady;
  ObjectIdSet suspects;
  while (true) {
    bool interrupted = false;
    const Time slice = std::min(deadline, context_.loop->clock().Now() + context_.options.missing_after);
    auto found = context_.store->Get(ids, slice, &interrupted);
    if (interrupted) return ReadResult::kInterrupted;
    std::vector<uint32_t> missing;
    for (size_t k = 0; k < left.size(); ++k) {
      ReadValue& value = (*out)[left[k]];
      if (!found.ok()) {
        const auto cause = static_cast<ErrorType>(found.status().cause());
        // Not the object's: the store's own trouble, or its end.
        const bool its_own = cause == ErrorType::kOutOfDisk || cause == ErrorType::kObjectStoreFull || cause == ErrorType::kLocalRayletDied;
        const std::string& why = found.status().message();
        // Without a cause it is this process that has reached a limit, and nothing is wrong with the object.
        const bool exhausted = found.status().code() == StatusCode::kResourceExhausted;
        ErrorValue error = its_own ? MakeErrorValue(cause, why)
                           : exhausted
                               ? MakeErrorValue(ErrorType::kObjectUnreadable, "object " + ids[k].Hex() + " cannot be read now: " + why)
                               : LostValue(ids[k], why);
        value = {std::move(error.metadata), std::move(error.blob)};
      } else if ((*found)[k].lost) {
        copies_.ReportLost(refs[left[k]], context_.self.node_id, attempts[left[k]]);
        *again = true;
      } else if ((value.blob = std::move((*found)[k].blob)) == nullptr) {
        missing.push_back(left[k]);
      }
    }
    const bool over = slice == deadline;
    if (!over && !missing.empty()) missing = StillMissing(refs, std::move(missing), attempts, &suspects, again);
    if (calls_.closed()) return ReadResult::kClosed;
    if (missing.empty() || *again) return ReadResult::kReady;
    if (over) return ReadResult::kTimeout;
    left = std::move(missing);
    ids.clear();
    for (uint32_t i : left) ids.push_back(refs[i].id);
  }
}

std::vector<uint32_t> ObjectReader::StillMissing(std::span<const ObjectRefInfo> refs, std::vector<uint32_t> missing,
                                                 std::span<const uint32_t> attempts, ObjectIdSet* suspects, bool* again) {
  std::vector<ObjectId> ids;
  std::vector<uint32_t> local;  // what should be in the store of this node
  std::erase_if(missing, [&](uint32_t i) {
    StoredValue value;
    if (!context_.memory.Get(refs[i].id, &value) || !value.in_store || value.attempt != attempts[i]) {
      *again = true;  // its owner may have died, or others found it lost
      return true;
    }
    if (std::ranges::find(value.node_ids, context_.self.node_id) != value.node_ids.end()) {
      local.push_back(i);
      ids.push_back(refs[i].id);
    }
    return false;
  });
  if (ids.empty()) return missing;
  auto contained = context_.store->Contains(ids);
  if (!contained.ok()) return missing;  // the next Get says why
  for (size_t k = 0; k < local.size(); ++k) {
    if ((*contained)[k]) {
      suspects->erase(ids[k]);
    } else if (!suspects->insert(ids[k]).second) {
      // The first time, the news that it is sealed may still have been on the way.
      copies_.ReportLost(refs[local[k]], context_.self.node_id, attempts[local[k]]);
      std::erase(missing, local[k]);
      *again = true;
    }
  }
  return missing;
}

ReadResult ObjectReader::Localize(std::span<const ObjectRefInfo> refs, std::span<const uint32_t> positions, Time deadline,
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
    if (!context_.memory.Get(refs[i].id, &value) || !value.in_store) {
      *again = true;  // it changed meanwhile
      continue;
    }
    if (!context_.IsElsewhere(value)) continue;
    if (gathering == nullptr) gathering = std::make_shared<Gathering>();
    {
      MutexLock lock(&gathering->mu);
      ++gathering->open;
    }
    const uint64_t token = pulls_.Start(refs[i], value, FetchReason::kGet, [gathering, i](const Status& status) {
      MutexLock lock(&gathering->mu);
      --gathering->open;
      if (status.ok()) {
        gathering->arrived.push_back(i);
      } else {
        gathering->failed.emplace_back(i, status);
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
      const Awaited awaited{refs, positions};
      result = calls_.Block(&waiter, deadline, &awaited);
      MutexLock lock(&gathering->mu);
      gathering->waiter = nullptr;
      continue;
    }
    // Each is pinned as it comes: all of them together may be more than the store holds, and copies without a pin make room for the next.
    std::vector<ObjectId> ids;
    for (uint32_t i : arrived) ids.push_back(refs[i].id);
    bool interrupted = false;
    auto found = context_.store->Get(ids, context_.loop->clock().Now() + context_.options.missing_after, &interrupted);
    for (size_t k = 0; found.ok() && k < arrived.size(); ++k) (*out)[arrived[k]].blob = std::move((*found)[k].blob);
    if (interrupted) result = ReadResult::kInterrupted;
  }
  if (result != ReadResult::kReady) {
    for (const auto& [id, token] : tokens) pulls_.Leave(id, token);
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
    if ((*out)[i].blob == nullptr && (!context_.memory.Get(refs[i].id, &value) || context_.IsElsewhere(value))) *again = true;
  }
  return ReadResult::kReady;
}

ReadResult ObjectReader::Wait(std::span<const ObjectRefInfo> refs, size_t num_returns, int64_t timeout_ms, bool fetch_local,
                              std::vector<bool>* ready) {
  const std::vector<ObjectId> ids = IdsOf(refs);
  num_returns = std::min(num_returns, refs.size());
  const Time deadline = calls_.DeadlineOf(timeout_ms);
  ReadResult result = ReadResult::kReady;
  {
    MemoryStore::Watch watch(&context_.memory, ids, num_returns, /*stop_on_error=*/false);
    if (!watch.done()) {
      StartFetch(refs, watch.pending());
      WakeUnheld(ids, watch.pending());
      const Awaited awaited{refs, watch.pending(), /*in_wait=*/true};
      if (!watch.done()) result = calls_.Block(watch.waiter(), deadline, &awaited);
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
      pulls_.Prefetch(refs[i], FetchReason::kWait);
    }
  }
  size_t found = 0;
  for (size_t i = 0; i < ready->size(); ++i) {
    if ((*ready)[i] && ++found > num_returns) (*ready)[i] = false;
  }
  // Enough may have come while the wait ended for another reason.
  return found >= num_returns && result != ReadResult::kClosed ? ReadResult::kReady : result;
}

ReadResult ObjectReader::WaitLocal(std::span<const ObjectRefInfo> refs, size_t num_returns, Time deadline, std::vector<bool>* ready) {
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
      if (!context_.memory.Get(refs[i].id, &value)) continue;
      if (tokens.size() >= num_returns - found + kAhead) continue;
      const uint64_t token = pulls_.Start(refs[i], value, FetchReason::kWait, [notify](const Status&) { notify(); });
      if (token != 0) tokens.emplace_back(refs[i].id, token);
    }
    ReadResult result = ReadResult::kReady;
    if (found < num_returns) {
      // Of those that are not there at all the next may be as good as one that is fetched.
      std::vector<uint64_t> watched;
      for (size_t i = 0; i < refs.size(); ++i) {
        if ((*ready)[i] || context_.memory.Contains(refs[i].id)) continue;
        if (uint64_t token = context_.memory.OnReady(refs[i].id, [notify](bool) { notify(); }); token != 0) watched.push_back(token);
        StartFetch(refs[i]);
      }
      const Awaited awaited{refs, {}, /*in_wait=*/true};
      result = calls_.Block(&waiter, deadline, &awaited);
      for (uint64_t token : watched) context_.memory.Cancel(token);
    }
    {
      MutexLock lock(&signal->mu);
      signal->waiter = nullptr;
    }
    for (const auto& [id, token] : tokens) pulls_.Leave(id, token);
    if (found >= num_returns || result != ReadResult::kReady) {
      if (result == ReadResult::kTimeout) {
        for (size_t i = 0; i < refs.size(); ++i) (*ready)[i] = IsLocal(refs[i].id);
      }
      return result;
    }
  }
}

uint64_t ObjectReader::WatchObject(const ObjectRefInfo& ref, std::function<void()> callback) {
  auto again = [this, alive = context_.alive, ref, callback](bool gone) {
    // Deleted because the last reference went, but another came at that moment: its value is still to be fetched.
    if (auto service = alive.lock(); gone && service != nullptr && context_.table.Contains(ref.id) && !calls_.closed()) {
      WatchObject(ref, callback);
    } else {
      callback();
    }
  };
  const uint64_t number = context_.memory.OnReady(ref.id, std::move(again));
  if (number == 0) return 0;
  StartFetch(ref);
  WakeUnheld({&ref.id, 1}, {&kFirst, 1});
  return number;
}

void ObjectReader::BringObject(const ObjectRefInfo& ref, std::function<void()> callback) {
  WatchObject(ref, [this, alive = context_.alive, ref, callback = std::move(callback)] {
    const auto service = alive.lock();
    StoredValue value;
    if (service == nullptr || calls_.closed() || !context_.memory.Get(ref.id, &value) || !context_.IsElsewhere(value)) return callback();
    pulls_.Start(ref, value, FetchReason::kTaskArgument, [this, alive, ref, callback](const Status& status) {
      const auto later = alive.lock();
      // One that was not where it was said to be is asked for again, which may take until it is made again.
      if (later == nullptr || !status.ok() || IsLocal(ref.id)) return callback();
      BringObject(ref, callback);
    });
  });
}

void ObjectReader::WakeUnheld(std::span<const ObjectId> ids, std::span<const uint32_t> positions) {
  for (uint32_t i : positions) {
    if (!context_.table.Contains(ids[i])) context_.memory.Delete({&ids[i], 1});
  }
}

void ObjectReader::StartFetch(std::span<const ObjectRefInfo> refs, std::span<const uint32_t> positions) {
  std::vector<Question> questions;
  {
    MutexLock lock(&mu_);
    for (uint32_t i : positions) {
      const ObjectRefInfo& ref = refs[i];
      if (context_.IsOurs(ref)) continue;
      if (!fetching_.insert(ref.id).second) continue;
      const auto before = unanswered_.empty() ? unanswered_.end() : unanswered_.find(ref.id);
      questions.push_back({.ref = ref, .asked = {}, .number = before != unanswered_.end() ? before->second : ++last_number_});
    }
  }
  std::vector<rpc::ConnectionPtr> used;
  for (Question& question : questions) {
    const ObjectRefInfo& ref = question.ref;
    Address asked;
    auto connection = context_.owners->Get(ref.owner, &asked);
    if (!connection.ok()) {
      OnFetched(question, connection.status(), {}, {});
      continue;
    }
    v1::GetObjectRequest request;
    request.set_object_id(ref.id.data(), ObjectId::kSize);
    ToProto(context_.self, request.mutable_requester());
    if (asked != ref.owner) request.set_owner_worker_id(ref.owner.worker_id.Binary());
    question.asked = asked.worker_id;
    request.set_request_id(question.number);
    question.sent = true;
    question.lost_copies = copies_.TakeLostCopies(ref.id);
    for (const LostCopy& copy : question.lost_copies) {
      auto* lost = request.add_lost_copies();
      lost->set_node_id(copy.node.Binary());
      lost->set_attempt(copy.attempt);
    }
    rpc::CallTyped<v1::GetObjectReply>(
        **connection, MethodId::kGetObject, request, {},
        [this, service = context_.alive.lock(), question = std::move(question)](
            const Status& status, v1::GetObjectReply& reply, PartList parts) { OnFetched(question, status, reply, std::move(parts)); },
        {.corked = true});
    if (std::find(used.begin(), used.end(), *connection) == used.end()) used.push_back(*connection);
  }
  for (const auto& connection : used) connection->Flush();
}

void ObjectReader::StartFetch(const ObjectRefInfo& ref) { StartFetch({&ref, 1}, {&kFirst, 1}); }

void ObjectReader::OnFetched(const Question& question, const Status& status, const v1::GetObjectReply& reply, PartList parts) {
  if (!status.ok()) {
    OnOwnerSilent(question, status);
    return;
  }
  const ObjectRefInfo& ref = question.ref;
  {
    MutexLock lock(&mu_);
    fetching_.erase(ref.id);
    if (!unanswered_.empty()) unanswered_.erase(ref.id);
  }
  if (!reply.moved_node_id().empty()) {
    context_.owners->Move(ref.owner.worker_id, NodeId::FromBinaryOrNil(reply.moved_node_id()));
    StartFetch(ref);
    return;
  }
  if (reply.freed()) {
    context_.host->Fail(ref.id, LostValue(ref.id, "its owner has freed it"));
    return;
  }
  // Containment before the value, so that nobody reads refs that are not held. If the object is not wanted any more the counts go back.
  RefEffects effects;
  context_.table.AddGiven(ref.id, RefsFromProto(reply.nested(), ref.owner), question.asked, &effects);
  if (reply.in_store()) {
    std::vector<NodeId> nodes;
    for (const auto& node : reply.node_ids()) nodes.push_back(NodeId::FromBinaryOrNil(node));
    if (nodes.empty()) nodes.emplace_back();
    context_.memory.PutInStore(ref.id, reply.metadata(), reply.size(), nodes, reply.attempt());
  } else if (!parts.empty()) {
    context_.memory.Put(ref.id, reply.metadata(), std::move(parts[0]));
  } else {
    ErrorValue error = LostValue(ref.id, "its value was missing in its owner's answer");
    context_.memory.Put(ref.id, error.metadata, std::move(error.blob));
  }
  context_.host->DropIfUnheld(ref.id);
  context_.host->CarryOut(effects);
}

void ObjectReader::OnOwnerSilent(const Question& question, const Status& status) {
  const ObjectRefInfo& ref = question.ref;
  const Owners::Silence silence = context_.owners->Judge(ref.owner, status);
  const bool later = silence == Owners::Silence::kForNow;
  if (later && !question.lost_copies.empty()) copies_.TellOwner(ref.id, question.lost_copies);
  {
    MutexLock lock(&mu_);
    fetching_.erase(ref.id);
    if (later && question.sent) {
      unanswered_[ref.id] = question.number;
    } else if (!later) {
      unanswered_.erase(ref.id);
    }
  }
  if (calls_.closed()) return;
  switch (silence) {
    case Owners::Silence::kGone:
      context_.owners->Find(ref.owner, [this, service = context_.alive.lock(), ref](bool moved) {
        if (moved) {
          StartFetch(ref);
        } else {
          context_.host->Fail(ref.id, MakeOwnerDiedValue(ref.id.Hex(), ref.owner));
        }
      });
      return;
    case Owners::Silence::kForNow:
      context_.loop->AddTimer(context_.options.owner_retry, [this, alive = context_.alive, ref] {
        auto service = alive.lock();
        if (service != nullptr && !calls_.closed() && IsToBeAsked(ref.id)) StartFetch(ref);
      });
      return;
    case Owners::Silence::kRefusal: context_.host->Fail(ref.id, LostValue(ref.id, status.ToString()));
  }
}

bool ObjectReader::IsToBeAsked(const ObjectId& id) {
  {
    MutexLock lock(&mu_);
    if (unanswered_.contains(id)) return true;
  }
  // Somebody still waits for it, and nothing is known of it: its owner's death would be.
  return !context_.memory.Contains(id) && context_.table.Contains(id);
}

}  // namespace ray::core
