// ReferenceTable: who holds which object, as far as this process has to know (docs/architecture/ownership.md).
//
// An entry exists for each object that this process holds, and for each owned one that anybody holds. Holds are: handles in this process (local),
// tasks in flight (submitted), values that contain it (contained), and, for owned ones, the processes it was lent to (borrowers, with a count for each
// registrar: the process that had them counted as it handed the ref over, nil where that was the owner or the borrower itself).
// An entry without holds goes. What has to be done then is returned as effects, which the caller carries out after the call: nothing here calls out.
// Pure (no I/O, no clock) and a monitor with one mutex: user threads come here on every call.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ray/common/address.h"
#include "ray/util/mutex.h"
#include "ray/util/recent_set.h"

namespace ray::core {

struct RefEffects {
  struct GiveBack {
    ObjectId id;
    Address owner;
    WorkerId registrar;
    uint32_t count;  // all counts that we were given by that registrar
  };
  struct Settle {
    ObjectId id;
    Address borrower, registrar;
  };
  std::vector<ObjectId> dropped;             // entries of owned and borrowed objects that went: their values here are not needed
  std::vector<ObjectId> freed;               // those of them that we owned: copies in stores go, lineage may be released
  std::vector<GiveBack> give_back;           // RemoveBorrowers to send
  std::vector<Settle> settle;                // the registrar is dead: the borrower is to say what it was given by it
  std::vector<ActorId> actors_out_of_scope;  // handle objects that we owned
  std::vector<ActorId> handles_given_back;   // handle objects that we borrowed
  bool shrunk = false;                       // so many entries went that memory can be given back
  bool empty() const { return dropped.empty() && give_back.empty() && settle.empty() && actors_out_of_scope.empty(); }
};

class ReferenceTable {
 public:
  explicit ReferenceTable(const Address& self);
  ~ReferenceTable();

  // A new object of ours with `local` handles that contains `nested` (each known here).
  void AddOwned(const ObjectId& id, uint32_t local = 1, std::span<const ObjectId> nested = {});
  // One more handle. False: unknown.
  bool AddLocal(const ObjectId& id);
  void RemoveLocal(const ObjectId& id, RefEffects* effects);
  // Tasks in flight (or any other use that must keep the objects): unknown ids are ignored, in both. The ids must be held by something else meanwhile, or
  // one that goes and comes back loses a hold of another.
  void AddSubmitted(std::span<const ObjectId> ids);
  // Where they may go at any moment: those that were known, and have such a hold now.
  [[nodiscard]] std::vector<ObjectId> AddSubmittedIfKnown(std::span<const ObjectId> ids);
  void RemoveSubmitted(std::span<const ObjectId> ids, RefEffects* effects);
  // One such hold. False: unknown.
  bool AddSubmittedIfKnown(const ObjectId& id);

  // A hold like that of a task in flight, on an object of ours that may be gone: then it comes back, with that hold alone, and the answer is true.
  bool Revive(const ObjectId& id);
  // Its value is gone: what it contained loses a hold.
  void ForgetNested(const ObjectId& outer, RefEffects* effects);

  enum class Borrow {
    kKnown,     // nothing to do
    kCovered,   // the running task's caller covers it until EndTask
    kRegister,  // AddBorrowers is to be sent, then OnRegistered called, even if it fails; the entry lives until then
    kFreed,     // it is ours and is gone: an entry was made whose value is an error
  };
  // A handle came into being for a ref that was read from somewhere. `task`: token of the running task through whose arguments it came, or 0.
  // `outer`: with kRegister it is held (submitted) until OnRegistered, if known; else it is made nil.
  Borrow AddBorrowed(const ObjectRefInfo& ref, uint64_t task, ObjectId* outer);
  // Our own AddBorrowers of the object came back. `outer`: as AddBorrowed left it, or nil. `counted`: the owner added a count.
  void OnRegistered(const ObjectId& id, const ObjectId& outer, bool counted, RefEffects* effects);
  // The task of `task` is over: the refs that came through it, are still held, and of which the owner does not know us. Each is to be registered,
  // then OnRegistered(id, nil) called; those with a registration already on its way are left out of the list and counted in `*in_flight`.
  std::vector<ObjectRefInfo> EndTask(uint64_t task, std::vector<ObjectId>* in_flight);

  // A registration of ours has not been answered yet.
  bool IsRegistering(const ObjectId& id) const;

  // A value of `outer` arrived from `sender`, with refs inside; it had us counted as a borrower of each that is not ours, once. If `outer` is known and has
  // no nested ones yet, it contains them from now on; else the counts go back.
  void AddGiven(const ObjectId& outer, std::span<const ObjectRefInfo> nested, const WorkerId& sender, RefEffects* effects);
  // Counts that its owner keeps for us, of those that `registrar` had it add.
  uint32_t GivenBy(const ObjectId& id, const WorkerId& registrar) const;
  // The same of one that is dead: the owner settles its counts, and they are our own from now on.
  uint32_t TakeGivenBy(const ObjectId& id, const WorkerId& registrar);
  // What `outer` contains.
  std::vector<ObjectRefInfo> NestedOf(const ObjectId& outer) const;

  // Owner side. False: not an object of ours (any more). Dead workers are not added. What a dead registrar had sent may come late: it counts, and is to be
  // settled.
  bool AddBorrower(const ObjectId& id, const Address& borrower, const Address& registrar, RefEffects* effects);
  // By ourselves, or by the borrower.
  bool AddBorrower(const ObjectId& id, const Address& borrower);
  void RemoveBorrower(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar, uint32_t count, RefEffects* effects);
  // The borrower has said how many of the counts that a registrar, which is dead, had added it knows of: the others never reached it, and these are its own
  // from now on, so that nothing is left of the registrar. But for an adopter: it knows its counts by the objects that contain the ref.
  void SettleBorrower(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar, uint32_t left, RefEffects* effects);
  bool HasBorrower(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar) const;
  // As a borrower it holds nothing any more, and the counts of others that it had added are to be settled. Returns the objects here that it owned: their
  // values will never come. `*address`: its own, if there are any.
  std::vector<ObjectId> WorkerDied(const WorkerId& worker, RefEffects* effects, Address* address);
  // What it owned has been handed over, and does not end with it: the raylet of that node answers for it from now on.
  // Returns owners that left before and of which nothing is held any more: they are forgotten, and found again by asking the adopter.
  std::vector<WorkerId> OwnerMoved(const WorkerId& owner, const NodeId& adopter);
  // Those of the node that this process has to do with, as owners or borrowers. They are dead from now on, and so are others that are named later.
  std::vector<WorkerId> NodeDied(const NodeId& node);

  struct LentTo {
    Address borrower, registrar;
    uint32_t count = 0;
  };
  struct Lent {
    ObjectId id;
    std::vector<LentTo> borrowers;  // those of one borrower behind one another
  };
  // Objects of ours that others hold, and what those contain of ours, in the order of their ids. Handles of actors are left out: they end with us.
  std::vector<Lent> LentOut() const;

  struct Held {
    ObjectId id;
    Address owner;
    uint32_t local = 0, submitted = 0, contained = 0, borrowers = 0;
  };
  // Everything that is here, at most `limit`; `*left_out` is how many more there are. In no order.
  std::vector<Held> All(size_t limit, size_t* left_out) const;

  bool Contains(const ObjectId& id) const;
  bool IsOwned(const ObjectId& id) const;
  // Nil address: unknown here.
  Address OwnerOf(const ObjectId& id) const;
  // For people: "2 handles, 1 task in flight, lent to 1 process".
  std::string Describe(const ObjectId& id) const;
  size_t size() const;

 private:
  struct Rare;  // what few entries have: all of a borrowed one, borrowers, contents
  struct Entry {
    Entry();
    ~Entry();
    uint32_t local = 0;
    uint32_t submitted = 0;
    uint32_t contained = 0;  // values known here, still held, that contain it
    std::unique_ptr<Rare> rare;
  };
  struct Hash {
    // Not noexcept: then the map keeps the hashes, which costs no memory here and spares hashing the neighbours.
    size_t operator()(const ObjectId& id) const { return id.Hash(); }
  };
  using Map = std::unordered_map<ObjectId, Entry, Hash>;
  // Drops the entry if nothing holds it, and then what only it contained.
  void MaybeDropLocked(const ObjectId& id, RefEffects* effects) REQUIRES(mu_);
  void ContainLocked(Entry* outer, std::span<const ObjectId> nested) REQUIRES(mu_);
  Entry* FindLocked(const ObjectId& id) REQUIRES(mu_);
  Entry* FindOrBorrowLocked(const ObjectRefInfo& ref) REQUIRES(mu_);
  void RelateLocked(const Address& process, const ObjectId& id) REQUIRES(mu_);
  void ForgetRelationLocked(const WorkerId& worker, const ObjectId& id) REQUIRES(mu_);
  Address AddressLocked(const WorkerId& worker) const REQUIRES(mu_);
  // Counts of one borrower by one registrar that have become none.
  void ForgetBorrowerLocked(const ObjectId& id, Entry* entry, const WorkerId& borrower, const WorkerId& registrar) REQUIRES(mu_);
  static Rare& RareOf(Entry* entry);  // makes it

  static constexpr size_t kMinMoved = 1024;
  const Address self_;
  mutable Mutex mu_;
  Map entries_ GUARDED_BY(mu_);
  std::unordered_map<uint64_t, std::vector<ObjectId>> covered_ GUARDED_BY(mu_);  // by task: refs that came through it
  // Entries that the death of a worker touches: ours that it borrows or has others counted for, and its own that we borrow.
  struct Related {
    NodeId node;
    std::unordered_set<ObjectId, IdHash> ids;
  };
  bool IsDeadLocked(const Address& process) const REQUIRES(mu_) {
    return dead_.contains(process.worker_id) || (!dead_nodes_.empty() && dead_nodes_.contains(process.node_id));
  }
  // As an owner, whose objects may have been handed over.
  bool IsLostLocked(const Address& owner) const REQUIRES(mu_) {
    const auto it = moved_.empty() ? moved_.end() : moved_.find(owner.worker_id);
    return it != moved_.end() ? dead_nodes_.contains(it->second) : IsDeadLocked(owner);
  }
  std::unordered_map<WorkerId, Related, IdHash> related_ GUARDED_BY(mu_);
  std::unordered_map<WorkerId, NodeId, IdHash> moved_ GUARDED_BY(mu_);  // owners that have left, and who answers for them
  size_t max_moved_ GUARDED_BY(mu_) = kMinMoved;                        // from there on those are looked for that may be forgotten
  RecentSet<WorkerId, IdHash> dead_ GUARDED_BY(mu_);
  RecentSet<NodeId, IdHash> dead_nodes_ GUARDED_BY(mu_);
};

}  // namespace ray::core
