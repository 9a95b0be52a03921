// Pulls: objects of which only other nodes have copies, brought here by this node's raylet.
//
// Part of the ObjectService. One pull for an object however many wait for it; what nobody waits for any more lingers a while and is cancelled.
// Thread-safe; nothing blocks. Callbacks run on the thread that completes the pull, or on the caller's before the method returns.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <unordered_map>

#include "ray/core_worker/objects/object_context.h"
#include "ray/core_worker/objects/object_copies.h"
#include "ray/util/mutex.h"
#include "ray/v1/object_transfer.pb.h"

namespace ray::core {

class Pulls {
 public:
  // The status of the pull itself; what is known of the object may have changed.
  using Done = std::function<void(const Status& status)>;

  Pulls(ObjectContext* context, ObjectCopies* copies) : context_(*context), copies_(*copies) {}

  // `done` once a copy is here, or the pull ended otherwise; maybe at once. Returns a token for Leave; 0: done has run.
  uint64_t Start(const ObjectRefInfo& ref, const StoredValue& known, FetchReason reason, Done done);
  // `done` will not be called, unless it is being called.
  void Leave(const ObjectId& id, uint64_t token);
  // Starts to bring a copy here, if there is only one elsewhere. Nobody is told; who asks soon finds it on its way.
  void Prefetch(const ObjectRefInfo& ref, FetchReason reason);
  // The raylet is bringing it here.
  bool IsPulling(const ObjectId& id) const;

 private:
  struct Pull {
    uint64_t number = 0;
    ObjectRefInfo ref;
    uint32_t attempt = 0;  // of the copies that are asked for
    FetchReason reason = FetchReason::kGet;
    std::map<uint64_t, Done> waiters;  // under mu_
    uint64_t last_left = 0;            // under mu_; counts those who left, so that a timer knows whether others came meanwhile
  };
  void OnPulled(const std::shared_ptr<Pull>& pull, const Status& status, const v1::PullObjectReply& reply);
  void CancelIfStillLeft(const ObjectId& id, uint64_t left);

  ObjectContext& context_;
  ObjectCopies& copies_;
  mutable Mutex mu_;
  std::unordered_map<ObjectId, std::shared_ptr<Pull>, IdHash> pulls_ GUARDED_BY(mu_);
  uint64_t last_pull_ GUARDED_BY(mu_) = 0;  // of pulls and their waiters
};

}  // namespace ray::core
