// AdoptionCore: the objects of owners that have left in good order, kept for those who still hold them.
//
//   owner ──Adopt──> taken over, nothing counts yet ──Complete──> adopted ──last borrower gone──> freed
//                        │ the owner dies
//                        └─────────────────> dropped: it is as if the owner had crashed
//
// Counts are signed sums, as at any owner, but for one thing: borrowers turn to the adopter before the owner has told what it had counted, so until
// Complete a count may be below zero. The adopter itself is a borrower of what its objects contain, under RayletAsProcess(self); their owners had it counted
// where others own that, and are its registrars.
//
// Pure core (docs/contributing/style.md): events in, effects out, in order. Owned by the AdoptionService; on the loop.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ray/common/address.h"
#include "ray/common/buffer.h"
#include "ray/common/copy_run.h"
#include "ray/common/ids.h"
#include "ray/util/recent_set.h"

namespace ray::raylet {

struct AdoptedValue {
  std::string metadata;
  BufferPtr blob;  // null: in the stores of `nodes`
  uint64_t size = 0;
  uint32_t attempt = 0;
  std::vector<NodeId> nodes;  // the first has the primary copy
  std::vector<ObjectRefInfo> nested;
};
struct BorrowCount {
  ObjectId id;
  Address borrower;
  uint32_t count = 0;
  Address registrar = {};  // nil: the owner or the borrower
};

// Effects, to be carried out in order.
struct FreeAdopted {  // nobody refers to it any more: its copies there go
  CopyRun copy;
  std::vector<NodeId> nodes;
};
struct KeepAdopted {  // the copy on that node is the primary one now
  CopyRun copy;
  NodeId node;
};
struct GiveBackNested {  // RemoveBorrowers for the adopter itself
  ObjectId id;
  Address owner;
  WorkerId registrar;
};
struct SettleAdopted {  // the registrar is dead: the borrower is to say what it was given by it
  ObjectId id;
  Address owner, borrower, registrar;
};
using AdoptionEffect = std::variant<FreeAdopted, KeepAdopted, GiveBackNested, SettleAdopted>;
using AdoptionEffects = std::vector<AdoptionEffect>;

class AdoptionCore {
 public:
  struct Object {
    WorkerId owner;  // that it had
    AdoptedValue value;
    bool lost = false;                                           // no copy is left, and nobody could make it again
    std::map<std::pair<WorkerId, WorkerId>, int64_t> borrowers;  // and registrars
  };

  explicit AdoptionCore(const NodeId& self) : self_(RayletAsProcess(self)) {}

  // Of an owner that is dead: nothing is taken, what the object contains is given back. One that is known already stays as it is.
  void Adopt(const Address& owner, const ObjectId& id, AdoptedValue value, AdoptionEffects* out);
  // A part is counted once. With the last one everything of the owner counts.
  void Complete(const Address& owner, uint32_t part, std::span<const BorrowCount> counts, bool last, AdoptionEffects* out);

  // False: unknown.
  bool AddBorrower(const ObjectId& id, const Address& borrower, const Address& registrar, AdoptionEffects* out);
  void RemoveBorrower(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar, uint32_t count, AdoptionEffects* out);
  // So many of the counts that a registrar, which is dead, had added reached the borrower, which counts them among its own from now on.
  void SettleBorrower(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar, uint32_t left, AdoptionEffects* out);
  bool HasBorrower(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar) const;
  // For each of these: how often the adopter has it in an object of `registrar`, which had it counted there.
  std::vector<uint32_t> Contained(std::span<const ObjectId> ids, const WorkerId& registrar) const;
  // A copy of the value of that attempt; of no use if the object is unknown, or of another attempt.
  void AddLocation(const ObjectId& id, const NodeId& node, uint32_t attempt, AdoptionEffects* out);
  // It was looked for in vain.
  void LoseCopy(const ObjectId& id, const NodeId& node, uint32_t attempt, AdoptionEffects* out);
  void WorkerDied(const WorkerId& worker, AdoptionEffects* out);
  // All its processes are dead, those included that are named later, and its copies are gone.
  void NodeDied(const NodeId& node, AdoptionEffects* out);

  // Null: unknown. Valid until the next event.
  const Object* Find(const ObjectId& id) const;
  // Objects of that owner are here, and count.
  bool IsAdopted(const WorkerId& owner) const;
  // Objects of that owner are here, and do not count yet.
  bool IsTaking(const WorkerId& owner) const;
  bool IsDead(const Address& process) const { return dead_.contains(process.worker_id) || dead_nodes_.contains(process.node_id); }
  bool IsDeadNode(const NodeId& node) const { return dead_nodes_.contains(node); }
  const std::map<ObjectId, Object>& objects() const { return objects_; }
  size_t num_objects() const { return objects_.size(); }
  size_t num_owners() const { return owners_.size(); }
  uint64_t inline_bytes() const { return inline_bytes_; }

 private:
  struct Owner {
    NodeId node;
    bool complete = false;
    std::set<uint32_t> parts;  // of its counts, that have come; until complete
    std::set<ObjectId> objects;
  };
  struct Related {  // a borrower or registrar
    NodeId node;
    std::set<ObjectId> ids;
  };
  void Count(Object* object, const ObjectId& id, const Address& borrower, const Address& registrar, int64_t count);
  // What dead registrars, or that one, had added to the counts of these.
  void SettleDead(std::span<const ObjectId> ids, const WorkerId& only, AdoptionEffects* out);
  void ForgetRelation(const Object& object, const ObjectId& id, const WorkerId& worker);
  Address AddressOf(const WorkerId& worker) const;
  // And then what only it contained.
  void DropIfUnheld(const ObjectId& id, AdoptionEffects* out);
  // One count of ours less on what an object that goes contained.
  void LetGo(std::span<const ObjectRefInfo> nested, const WorkerId& outer_owner, AdoptionEffects* out, std::vector<ObjectId>* let_go);
  void Drop(const ObjectId& id, AdoptionEffects* out, std::vector<ObjectId>* let_go);
  void LoseNode(Object* object, const ObjectId& id, const NodeId& node, AdoptionEffects* out);
  void OwnerDied(const WorkerId& owner, AdoptionEffects* out);

  const Address self_;
  std::map<ObjectId, Object> objects_;
  std::map<WorkerId, Owner> owners_;  // while they have objects here
  std::map<WorkerId, Related> related_;
  RecentSet<WorkerId, IdHash> dead_;
  RecentSet<NodeId, IdHash> dead_nodes_;
  uint64_t inline_bytes_ = 0;
};

}  // namespace ray::raylet
