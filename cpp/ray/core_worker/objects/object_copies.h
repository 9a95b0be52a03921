// ObjectCopies: which nodes have copies of stored values, as owners keep count of it and as readers find it (docs/architecture/ownership.md, "Copies").
//
// Part of the ObjectService. Thread-safe; no lock is held while calling out.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ray/core_worker/objects/move_core.h"
#include "ray/core_worker/objects/object_context.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/util/mutex.h"
#include "ray/util/recent_set.h"
#include "ray/v1/object_transfer.pb.h"
#include "ray/v1/worker_object.pb.h"

namespace ray::core {

// A copy that was looked for in vain.
struct LostCopy {
  NodeId node;
  uint32_t attempt;
};

class ObjectCopies {
 public:
  explicit ObjectCopies(ObjectContext* context) : context_(*context) {}

  // --- copies that are of no use any more
  void FreeCopies(const std::vector<StoredCopies>& copies);
  void FreeCopy(const CopyRun& copy, const NodeId& node) { FreeCopies({{copy.id, {node}, copy.attempt}}); }
  // Of an object of ours: `run` of its task has put it into the store of that node.
  MemoryStore::Made AddReturn(const CopyRun& run, std::string_view metadata, uint64_t size, const NodeId& node);

  // --- copies that are gone
  // The copy on `node` that run `attempt` made was looked for in vain.
  void ReportLost(const ObjectRefInfo& ref, const NodeId& node, uint32_t attempt);
  // Of an object of ours. The same from others.
  void LoseCopy(const ObjectId& id, const NodeId& node, uint32_t attempt);
  // Of an object of others: its owner is told with the next fetch, which takes all that was gathered.
  void TellOwner(const ObjectId& id, std::span<const LostCopy> copies);
  std::vector<LostCopy> TakeLostCopies(const ObjectId& id);
  // Nobody here will ask for them any more.
  void ForgetLostCopies(std::span<const ObjectId> ids);
  // False: it was known already.
  bool NoteDeadNode(const NodeId& node);
  bool IsDeadNode(const NodeId& node);
  // All copies on it.
  void LoseNode(const NodeId& node);

  // A node leaves: of those objects of ours whose copies would go with it, another node keeps one. On the loop.
  void HandleMoveCopies(const v1::MoveCopiesRequest& message, rpc::Responder responder);

  // --- where copies are
  using Block = std::function<ReadResult(async::Waiter*)>;
  // [blocks], by way of `block`, until all owners have answered, and all nodes with copies, which alone know what is on disk.
  Status GetLocations(std::span<const ObjectRefInfo> refs, const Block& block, std::vector<Location>* out);
  // The same without the owners: what this process knows. Of a node that does not answer in time nothing is known to be spilled.
  Status GetKnownLocations(std::span<const ObjectRefInfo> refs, const Block& block, std::vector<Location>* out);
  void HandleGetLocations(const v1::GetLocationsRequest& message, rpc::Responder responder);
  void HandleAddLocation(const v1::AddLocationNotice& message, rpc::Responder responder);

 private:
  Location KnownLocation(const ObjectId& id) const;
  Status AskOwners(std::span<const ObjectRefInfo> foreign, const Block& block, std::unordered_map<ObjectId, Location, IdHash>* found);
  Status AskNodes(std::span<const ObjectRefInfo> refs, const Block& block, std::vector<Location>* out);
  // These are the primary copies from now on.
  void KeepCopies(const std::vector<std::pair<ObjectId, NodeId>>& copies);

  // On the loop.
  void RunMoves(MoveEffects effects);
  void Apply(const PullKept& effect);
  void Apply(const CopyKept& effect);
  void Apply(const MoveAnswered& effect);
  void OnMoved(uint64_t call, MoveCore::Outcome outcome);
  Time Now() const { return context_.loop->clock().Now(); }

  ObjectContext& context_;
  MoveCore moves_;  // on the loop, as are the next
  async::TimerId move_timer_ = 0;
  struct MoveQuestion {
    rpc::Responder responder;
    v1::MoveCopiesReply reply;
    size_t open = 0;  // objects without an answer
  };
  std::map<uint64_t, MoveQuestion> move_questions_;
  uint64_t last_question_ = 0;
  Mutex mu_;
  std::unordered_map<ObjectId, std::vector<LostCopy>, IdHash> lost_copies_ GUARDED_BY(mu_);
  RecentSet<NodeId, IdHash> dead_nodes_ GUARDED_BY(mu_);
};

}  // namespace ray::core
