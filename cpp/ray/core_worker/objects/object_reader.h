// ObjectReader: get, wait and watch: how a process comes by the values of refs, its own and others'.
//
// Part of the ObjectService, which documents the public methods. Values of others are fetched from their owners once, whoever waits for them; those in
// stores are read from this node's, to which Pulls brings them. Thread-safe; no lock is held while calling out.
#pragma once

#include <functional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ray/core_worker/objects/blocked_calls.h"
#include "ray/core_worker/objects/object_context.h"
#include "ray/core_worker/objects/object_copies.h"
#include "ray/core_worker/objects/pulls.h"
#include "ray/rpc/core/connection.h"
#include "ray/util/mutex.h"
#include "ray/v1/worker_object.pb.h"

namespace ray::core {

class ObjectReader {
 public:
  ObjectReader(ObjectContext* context, BlockedCalls* calls, ObjectCopies* copies, Pulls* pulls)
      : context_(*context), calls_(*calls), copies_(*copies), pulls_(*pulls) {}

  ReadResult Get(std::span<const ObjectRefInfo> refs, int64_t timeout_ms, std::vector<ReadValue>* out);
  bool TryGet(const ObjectRefInfo& ref, ReadValue* out);
  bool IsLocal(const ObjectId& id) const { return context_.memory.IsLocal(id, context_.self.node_id); }
  ReadResult Wait(std::span<const ObjectRefInfo> refs, size_t num_returns, int64_t timeout_ms, bool fetch_local, std::vector<bool>* ready);
  uint64_t WatchObject(const ObjectRefInfo& ref, std::function<void()> callback);
  void BringObject(const ObjectRefInfo& ref, std::function<void()> callback);

 private:
  // As Get; what is known to be in a store, but was not read from it, may be left without a blob.
  ReadResult Gather(std::span<const ObjectRefInfo> refs, int64_t timeout_ms, std::vector<ReadValue>* out);
  // Wakes who waits for objects that nobody here holds (any more): nothing would ever complete them.
  void WakeUnheld(std::span<const ObjectId> ids, std::span<const uint32_t> positions);
  // False: not there. `in_store`: known, but its bytes are in the store and `out` has only the metadata.
  bool Read(const ObjectId& id, ReadValue* out, bool* in_store) const;
  // Waits until those of `positions` that are elsewhere have been pulled, and reads them. `*again` as below; errors of a pull become values of `out`.
  ReadResult Localize(std::span<const ObjectRefInfo> refs, std::span<const uint32_t> positions, Time deadline, std::vector<ReadValue>* out,
                      bool* again);
  // The second part of a wait: until so many of those that are ready are on this node.
  ReadResult WaitLocal(std::span<const ObjectRefInfo> refs, size_t num_returns, Time deadline, std::vector<bool>* ready);
  // `*again`: some are not in the store any more; what is known of them has changed, and they have no value here.
  ReadResult ReadFromStore(std::span<const ObjectRefInfo> refs, std::span<const uint32_t> positions, Time deadline,
                           std::vector<ReadValue>* out, bool* again);
  // Of `missing`, which the store did not give in time, those that may still come; for the others `*again`.
  std::vector<uint32_t> StillMissing(std::span<const ObjectRefInfo> refs, std::vector<uint32_t> missing, std::span<const uint32_t> attempts,
                                     ObjectIdSet* suspects, bool* again);
  // Asks the owners of those that are not ours for their values, unless they have been asked.
  void StartFetch(std::span<const ObjectRefInfo> refs, std::span<const uint32_t> positions);
  void StartFetch(const ObjectRefInfo& ref);
  // One question to an owner.
  struct Question {
    ObjectRefInfo ref;
    WorkerId asked;  // the owner, or who answers for it
    uint64_t number = 0;
    bool sent = false;
    std::vector<LostCopy> lost_copies;  // that it tells of
  };
  void OnFetched(const Question& question, const Status& status, const v1::GetObjectReply& reply, PartList parts);
  // Who should answer for the object did not.
  void OnOwnerSilent(const Question& question, const Status& status);
  // The owner was silent, and has still something to tell of the object.
  bool IsToBeAsked(const ObjectId& id);

  ObjectContext& context_;
  BlockedCalls& calls_;
  ObjectCopies& copies_;
  Pulls& pulls_;
  Mutex mu_;
  uint64_t last_number_ GUARDED_BY(mu_) = 0;  // of questions
  ObjectIdSet fetching_ GUARDED_BY(mu_);
  // Numbers of questions that may have been answered in vain: the answer has made us a borrower of what is inside, so they are asked again under the same
  // number, until there is an answer, whether the value is still wanted or not.
  std::unordered_map<ObjectId, uint64_t, IdHash> unanswered_ GUARDED_BY(mu_);
};

}  // namespace ray::core
