// Owners: who answers for the objects of which owner, as a borrower needs to know. An owner that leaves in good order hands its objects to the adopter, the
// raylet of the head (docs/architecture/ownership.md, "Leaving in good order").
//
//   owner ──OwnerMoved, or an answer that says so──> moved: the adopter is asked
//   owner ──gone──> FindAdopted: moved, or lost for good
//
// Part of the ObjectService. Thread-safe; no lock is held while calling out.
#pragma once

#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/core_worker/objects/object_context.h"
#include "ray/util/mutex.h"
#include "ray/util/recent_set.h"

namespace ray::core {

class Owners {
 public:
  // `adopter`: node of the adopter; nil: there is none, owners that are gone are lost.
  Owners(ObjectContext* context, const NodeId& adopter) : context_(*context), adopter_(adopter) {}

  // The connection on which to ask the owner, or who answers for it. As PeerPool::Get and ReplyRoute.
  Result<rpc::ConnectionPtr> Get(const Address& owner) const { return Route(owner, AdopterOf(owner), /*for_reply=*/false); }
  Result<rpc::ConnectionPtr> ReplyRoute(const Address& owner) const { return Route(owner, AdopterOf(owner), /*for_reply=*/true); }
  // The same, and whom that is the way to: the owner, or the adopter as a process.
  Result<rpc::ConnectionPtr> Get(const Address& owner, Address* asked) const;
  // As whose the stores know its objects.
  Address InStores(const Address& owner) const;
  enum class Silence {
    kGone,     // for good
    kForNow,   // the same question may be answered later
    kRefusal,  // it would be refused again
  };
  // What it means that it, or who answers for it, failed with `status`.
  Silence Judge(const Address& owner, const Status& status) const;

  void Move(const WorkerId& owner, const NodeId& adopter);
  // The owner is gone. `done(moved)` once it is known whether somebody answers for it: at once, or when the adopter has told.
  void Find(const Address& owner, std::function<void(bool moved)> done);

 private:
  // Nil: it has not moved, as far as is known.
  NodeId AdopterOf(const Address& owner) const;
  Result<rpc::ConnectionPtr> Route(const Address& owner, const NodeId& adopter, bool for_reply) const;
  void Ask(const WorkerId& owner, Time give_up);
  void Answer(const WorkerId& owner, bool moved);

  ObjectContext& context_;
  const NodeId adopter_;
  mutable Mutex mu_;
  std::unordered_map<WorkerId, NodeId, IdHash> moved_ GUARDED_BY(mu_);  // the reference table says which may be forgotten
  RecentSet<WorkerId, IdHash> lost_ GUARDED_BY(mu_);
  std::unordered_map<WorkerId, std::vector<std::function<void(bool)>>, IdHash> asking_ GUARDED_BY(mu_);
};

}  // namespace ray::core
