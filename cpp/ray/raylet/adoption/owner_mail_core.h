// OwnerMailCore: what the adopter tells the owners of what its objects contain, until they have heard it (docs/architecture/ownership.md, "Ways that break").
//
//   count a receiver ──AskToCount──> answered, or nobody is left to answer or to be counted: settled
//   counts go back ──ReturnCounts, one message to an owner at a time──> answered, or the owner is dead
//                       │ silence: the same message again, after a pause that doubles
//
// An owner that is adopted meanwhile is this process from then on. Pure core (docs/contributing/style.md): events and time in, effects out, in order. Owned by the
// AdoptionService; on the loop.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "ray/common/address.h"
#include "ray/common/ids.h"
#include "ray/util/clock.h"

namespace ray::raylet {

struct OwnerMailConfig {
  Duration first_pause = std::chrono::milliseconds(100);
  Duration longest_pause = std::chrono::seconds(5);
  Duration give_up = std::chrono::minutes(10);  // no owner that lives is silent for so long: its death was forgotten here
};

// Effects, to be carried out in order.
struct AskToCount {  // AddBorrowers; the number makes a repeat known
  uint64_t number = 0;
  Address owner, receiver;
  std::vector<ObjectId> ids;
};
struct ReturnCounts {  // RemoveBorrowers, for the adopter itself
  struct Item {
    ObjectId id;
    WorkerId registrar;  // who had it counted, if it was not the owner
    uint32_t count = 0;
  };
  Address owner;
  uint64_t number = 0;
  std::vector<Item> counts;
  std::vector<Item> left;  // after `counts`: so many are left of those that the registrar, which is dead, had counted
};
struct CountHere {  // the owner was adopted
  ObjectId id;
  Address receiver;
};
struct ReleaseHere {  // the same; counts of the adopter itself
  ObjectId id;
  WorkerId registrar;
  uint32_t count = 0;
};
struct CountSettled {  // of AskToCount: done, or as far as it can be
  uint64_t number = 0;
};
using OwnerMailEffect = std::variant<AskToCount, ReturnCounts, CountHere, ReleaseHere, CountSettled>;
using OwnerMailEffects = std::vector<OwnerMailEffect>;

class OwnerMailCore {
 public:
  explicit OwnerMailCore(OwnerMailConfig config = {}) : config_(config) {}

  // The number is that of its CountSettled.
  uint64_t Count(const Address& owner, const Address& receiver, std::vector<ObjectId> ids, Time now, OwnerMailEffects* out);
  // These go with the next Flush.
  void GiveBack(const Address& owner, const ObjectId& id, const WorkerId& registrar);
  // What is left at this moment.
  void Tell(const Address& owner, const ObjectId& id, const WorkerId& registrar, uint32_t left);
  void Flush(Time now, OwnerMailEffects* out);
  void OnAnswer(uint64_t number, OwnerMailEffects* out);
  // The owner of that request turns askers to the adopter, though it is not complete yet.
  void OnMoved(uint64_t number, OwnerMailEffects* out);
  void OnReturned(const WorkerId& owner, uint64_t number, Time now, OwnerMailEffects* out);
  // It does not answer, now; both kinds.
  void OnSilence(uint64_t number, Time now, OwnerMailEffects* out);
  // It has handed everything over. `heard`: the last message of ours that its counts have in them.
  void OwnerAdopted(const WorkerId& owner, uint64_t heard, OwnerMailEffects* out);
  void WorkerDied(const WorkerId& worker, OwnerMailEffects* out);
  void NodeDied(const NodeId& node, OwnerMailEffects* out);
  void Tick(Time now, OwnerMailEffects* out);
  // When Tick has something to do next; infinite if nothing.
  Time NextDeadline() const;
  size_t size() const { return requests_.size() + returns_.size(); }

 private:
  struct Attempt {
    Time since{}, again = Time::Infinite();  // infinite: under way
    Duration pause{};
  };
  struct Request {
    AskToCount message;
    Attempt attempt;
  };
  struct Returning {
    Address owner;
    ReturnCounts message;  // number 0: none is under way
    Attempt attempt;
    std::map<std::pair<ObjectId, WorkerId>, uint32_t> next, next_left;  // gathered meanwhile
  };
  // For the next Flush, unless a message is under way to that owner, whose answer sends it.
  void Gather(const Returning& returning);
  void SendNext(Returning* returning, Time now, OwnerMailEffects* out);
  // What is under way to it, or pauses, is of no interest any more.
  void DropMessage(const Returning& returning);
  std::map<WorkerId, Returning>::iterator Erase(std::map<WorkerId, Returning>::iterator it);
  // Whoever of them is the owner or the receiver has ended.
  template <typename Predicate>
  void SettleAll(Predicate whom, OwnerMailEffects* out);
  // False: it has been tried for too long.
  bool Pause(uint64_t number, Attempt* attempt, Time now);
  void EndPause(uint64_t number, const Attempt& attempt) { pauses_.erase({attempt.again, number}); }

  const OwnerMailConfig config_;
  uint64_t last_number_ = 0;                // of messages of both kinds
  std::map<uint64_t, Request> requests_;    // by number
  std::map<WorkerId, Returning> returns_;   // by owner
  std::map<uint64_t, WorkerId> returning_;  // the owner that the message of that number is for
  std::set<WorkerId> gathered_;             // of the owners: those that have something for the next Flush
  // When each message that pauses goes again, with its number: there may be many more that wait for their answers.
  std::set<std::pair<Time, uint64_t>> pauses_;
};

}  // namespace ray::raylet
