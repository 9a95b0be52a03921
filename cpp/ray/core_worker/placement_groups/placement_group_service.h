// PlacementGroupService: what this process does about placement groups: creating, removing, waiting, following their state.
//
// A group that is used here is subscribed to; its news reach those who wait for it and the TaskSubmitter, which sends lease requests to where the
// bundles are. Owned by the CoreWorker. Thread-safe. Methods marked [blocks] must not be called on the loop or with the GIL.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/async/loop.h"
#include "ray/core_worker/objects/object_service.h"
#include "ray/core_worker/peers/peer_pool.h"
#include "ray/util/mutex.h"
#include "ray/v1/gcs_placement_group.pb.h"

namespace ray::core {

// A group as far as this process knows.
struct GroupState {
  enum Kind {
    kUnknown,  // asked for, the answer is on its way
    kWaiting,  // never placed so far
    kPlaced,   // bundles without a node are being placed again
    kGone,     // removed, or it never came to be
  };
  Kind kind = kUnknown;
  std::vector<NodeId> nodes;  // of the bundles; nil: nowhere now
  std::string why;            // kGone
};

class PlacementGroupService {
 public:
  struct Deps {
    async::UserLoop* loop = nullptr;
    PeerPool* peers = nullptr;
    ObjectService* objects = nullptr;
    Address self;
    JobId job_id;
    Duration gcs_timeout = std::chrono::seconds(60);  // for each answer that a user waits for
  };
  explicit PlacementGroupService(Deps deps) : deps_(std::move(deps)) {}
  // Called on the loop with the id of each group that has changed. REQUIRES: set before the first use.
  void SetHandler(std::function<void(const PlacementGroupId&)> handler) { handler_ = std::move(handler); }

  // `info` without id and job, which are filled in here. Named groups are on record before the return (ALREADY_EXISTS), others on the way
  // [blocks if named].
  Status Create(v1::PlacementGroupInfo info, PlacementGroupId* id);
  void Remove(const PlacementGroupId& id);
  // kReady: it is placed, or gone; `state` tells. [blocks]
  ReadResult Wait(const PlacementGroupId& id, int64_t timeout_ms, GroupState* state);
  // A new object of ours, with one handle, that becomes `value` once the group is placed, and an error should it be removed before.
  Status WhenReady(const PlacementGroupId& id, const ValueView& value, ObjectId* object);
  // What is known now; the group is followed from now on.
  GroupState StateOf(const PlacementGroupId& id);
  // [blocks]
  Status Get(const v1::GetPlacementGroupRequest& request, v1::PlacementGroupInfo* out);
  Status List(v1::ListPlacementGroupsReply* out);

  // News from the GCS (kPublish), on the loop.
  void OnPublish(const v1::PlacementGroupInfo& info);

 private:
  static constexpr size_t kFewPromised = 64;
  struct Group {
    GroupState state;
    uint64_t version = 0;
    std::vector<std::shared_ptr<async::Waiter>> waiters;
    std::vector<ReturnValue> promised;
    size_t many_promised = kFewPromised;  // then those that nobody holds any more are looked for
  };
  Group& FollowLocked(const PlacementGroupId& id, bool* fresh) REQUIRES(mu_);
  void Subscribe(const PlacementGroupId& id);
  void Update(const PlacementGroupId& id, uint64_t version, GroupState state);
  void Settle(const GroupState& state, std::vector<ReturnValue> promised);

  static constexpr size_t kGoneKept = 1024;

  const Deps deps_;
  std::function<void(const PlacementGroupId&)> handler_;
  Mutex mu_;
  std::unordered_map<PlacementGroupId, Group, IdHash> groups_ GUARDED_BY(mu_);
  std::deque<PlacementGroupId> gone_ GUARDED_BY(mu_);  // oldest first; older ones are asked for anew
};

}  // namespace ray::core
