#include "ray/core_worker/ownership/reference_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <set>

namespace ray::core {
namespace {

Address NewAddress() { return {NodeId::FromRandom(), WorkerId::FromRandom()}; }
ObjectId NewObject() { return ObjectId::Of(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 1); }
std::vector<ObjectId> One(const ObjectId& id) { return {id}; }

class ReferenceTableTest : public ::testing::Test {
 protected:
  ReferenceTable::Borrow Borrow(const ObjectId& id, uint64_t task = 0, ObjectId outer = {}) {
    cover_ = outer;
    return table_.AddBorrowed({id, owner_}, task, &cover_);
  }
  RefEffects Remove(const ObjectId& id) {
    RefEffects effects;
    table_.RemoveLocal(id, &effects);
    return effects;
  }
  const Address self_ = NewAddress(), owner_ = NewAddress();
  const ObjectId a_ = NewObject(), b_ = NewObject(), c_ = NewObject();
  ReferenceTable table_{self_};
  ObjectId cover_;
  Address died_;
};

TEST_F(ReferenceTableTest, AnOwnedObjectGoesWithItsLastHold) {
  table_.AddOwned(a_);
  EXPECT_TRUE(table_.AddLocal(a_));
  table_.AddSubmitted(One(a_));
  EXPECT_TRUE(Remove(a_).empty());
  EXPECT_TRUE(Remove(a_).empty());
  RefEffects effects;
  table_.RemoveSubmitted(One(a_), &effects);
  EXPECT_EQ(effects.freed, One(a_));
  EXPECT_EQ(effects.dropped, One(a_));
  EXPECT_FALSE(table_.AddLocal(a_));
  EXPECT_TRUE(Remove(a_).empty());
}

TEST_F(ReferenceTableTest, WhatMayHaveGoneIsHeldIfItIsKnown) {
  table_.AddOwned(a_);
  const std::vector<ObjectId> held = table_.AddSubmittedIfKnown(std::vector<ObjectId>{a_, b_, a_});
  EXPECT_EQ(held, (std::vector<ObjectId>{a_, a_}));
  // It comes into being meanwhile, and a task uses it.
  table_.AddOwned(b_, 0);
  table_.AddSubmitted(One(b_));
  RefEffects effects;
  Remove(a_);
  table_.RemoveSubmitted(held, &effects);
  EXPECT_EQ(effects.freed, One(a_));
  EXPECT_TRUE(table_.Contains(b_));
}

TEST_F(ReferenceTableTest, BorrowersHoldByCount) {
  table_.AddOwned(a_);
  EXPECT_TRUE(table_.AddBorrower(a_, owner_));
  EXPECT_TRUE(table_.AddBorrower(a_, owner_));
  EXPECT_FALSE(table_.AddBorrower(b_, owner_));
  EXPECT_TRUE(Remove(a_).empty());
  RefEffects effects;
  table_.RemoveBorrower(a_, owner_.worker_id, {}, 1, &effects);
  EXPECT_TRUE(effects.empty());
  table_.RemoveBorrower(a_, owner_.worker_id, {}, 1, &effects);
  EXPECT_EQ(effects.freed, One(a_));
}

TEST_F(ReferenceTableTest, ContentsLiveAsLongAsTheOuter) {
  table_.AddOwned(a_);
  table_.AddOwned(b_, 1, One(a_));
  table_.AddOwned(c_, 1, One(b_));
  EXPECT_TRUE(Remove(a_).empty());
  EXPECT_TRUE(Remove(b_).empty());
  EXPECT_EQ(table_.NestedOf(c_).at(0).id, b_);
  EXPECT_EQ(table_.NestedOf(c_).at(0).owner, self_);
  EXPECT_EQ(Remove(c_).freed, (std::vector<ObjectId>{c_, b_, a_}));
  EXPECT_EQ(table_.size(), 0u);
}

TEST_F(ReferenceTableTest, ChainsOfAnyLengthGoWithoutRecursion) {
  ObjectId inner = NewObject();
  table_.AddOwned(inner);
  for (int i = 0; i < 200000; ++i) {
    const ObjectId outer = NewObject();
    table_.AddOwned(outer, 1, One(inner));
    EXPECT_TRUE(Remove(inner).empty());
    inner = outer;
  }
  EXPECT_EQ(Remove(inner).freed.size(), 200001u);
}

TEST_F(ReferenceTableTest, ABorrowedRefIsRegisteredAndGivenBack) {
  table_.AddOwned(b_);
  EXPECT_EQ(Borrow(a_, 0, b_), ReferenceTable::Borrow::kRegister);
  EXPECT_EQ(cover_, b_);
  EXPECT_EQ(Borrow(a_, 0, b_), ReferenceTable::Borrow::kKnown);
  EXPECT_TRUE(Remove(b_).empty()) << "covers a until the owner has answered";
  EXPECT_TRUE(Remove(a_).empty());
  EXPECT_TRUE(Remove(a_).empty()) << "cannot be given back before it is counted";
  EXPECT_TRUE(table_.IsRegistering(a_));
  RefEffects effects;
  table_.OnRegistered(a_, b_, true, &effects);
  EXPECT_EQ(effects.dropped, (std::vector<ObjectId>{a_, b_}));
  EXPECT_EQ(effects.freed, One(b_));
  ASSERT_EQ(effects.give_back.size(), 1u);
  EXPECT_EQ(effects.give_back[0].count, 1u);
  EXPECT_EQ(effects.give_back[0].owner, owner_);
}

TEST_F(ReferenceTableTest, ARefusedRegistrationGivesNothingBack) {
  EXPECT_EQ(Borrow(a_), ReferenceTable::Borrow::kRegister);
  RefEffects effects;
  table_.OnRegistered(a_, {}, false, &effects);
  EXPECT_TRUE(effects.empty());
  effects = Remove(a_);
  EXPECT_EQ(effects.dropped, One(a_));
  EXPECT_TRUE(effects.give_back.empty());
}

TEST_F(ReferenceTableTest, OnlyArgumentsStillHeldAreRegisteredAtTheEndOfATask) {
  EXPECT_EQ(Borrow(a_, 7), ReferenceTable::Borrow::kCovered);
  EXPECT_EQ(Borrow(b_, 7), ReferenceTable::Borrow::kCovered);
  EXPECT_EQ(Borrow(b_, 7), ReferenceTable::Borrow::kCovered);
  EXPECT_EQ(Remove(a_).dropped, One(a_));
  std::vector<ObjectId> in_flight;
  auto list = table_.EndTask(7, &in_flight);
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].id, b_);
  EXPECT_TRUE(in_flight.empty());
  EXPECT_TRUE(table_.EndTask(7, &in_flight).empty());
  // Meanwhile another task with the same ref ends: its reply has to wait for the same answer.
  EXPECT_EQ(Borrow(b_, 8), ReferenceTable::Borrow::kCovered);
  EXPECT_TRUE(table_.EndTask(8, &in_flight).empty());
  EXPECT_EQ(in_flight, One(b_));
  RefEffects effects;
  table_.OnRegistered(b_, {}, true, &effects);
  EXPECT_TRUE(effects.empty());
}

TEST_F(ReferenceTableTest, GivenRefsAreContainedOrGoBack) {
  table_.AddOwned(b_);
  RefEffects effects;
  const std::vector<ObjectRefInfo> nested{{a_, owner_}};
  table_.AddGiven(b_, nested, owner_.worker_id, &effects);
  EXPECT_TRUE(effects.empty());
  EXPECT_EQ(table_.NestedOf(b_).at(0).owner, owner_);
  EXPECT_EQ(Borrow(a_, 0, b_), ReferenceTable::Borrow::kKnown) << "the owner knows us";
  table_.AddGiven(b_, nested, owner_.worker_id, &effects);  // the same value again
  EXPECT_TRUE(effects.empty());
  EXPECT_TRUE(Remove(a_).empty());
  effects = Remove(b_);
  ASSERT_EQ(effects.give_back.size(), 1u);
  EXPECT_EQ(effects.give_back[0].count, 2u);
  RefEffects late;
  table_.AddGiven(b_, nested, owner_.worker_id, &late);  // nobody wants it any more
  ASSERT_EQ(late.give_back.size(), 1u);
  EXPECT_EQ(late.give_back[0].count, 1u);
}

TEST_F(ReferenceTableTest, TheDeadHoldNothingAndGetNothingBack) {
  table_.AddOwned(b_);
  table_.AddBorrower(b_, owner_);
  Remove(b_);
  RefEffects effects;
  table_.AddOwned(c_);
  table_.AddGiven(c_, std::vector<ObjectRefInfo>{{a_, owner_}}, owner_.worker_id, &effects);
  EXPECT_EQ(table_.WorkerDied(owner_.worker_id, &effects, &died_), One(a_));
  EXPECT_EQ(died_, owner_);
  EXPECT_EQ(effects.freed, One(b_));
  effects = Remove(c_);
  EXPECT_EQ(effects.dropped, (std::vector<ObjectId>{c_, a_}));
  EXPECT_TRUE(effects.give_back.empty());
  // News of the death may overtake what was sent on its behalf.
  table_.AddOwned(b_);
  EXPECT_TRUE(table_.AddBorrower(b_, owner_));
  EXPECT_EQ(Remove(b_).freed, One(b_));
}

TEST_F(ReferenceTableTest, WhatAnOwnerHandedOverOutlivesIt) {
  const NodeId adopter = NodeId::FromRandom();
  RefEffects effects;
  table_.AddOwned(c_);
  table_.AddGiven(c_, std::vector<ObjectRefInfo>{{a_, owner_}}, owner_.worker_id, &effects);
  table_.AddBorrower(c_, owner_);
  table_.OwnerMoved(owner_.worker_id, adopter);
  EXPECT_TRUE(table_.WorkerDied(owner_.worker_id, &effects, &died_).empty());
  // As a borrower it is dead all the same.
  EXPECT_EQ(Remove(c_).dropped, (std::vector<ObjectId>{c_, a_}));
  // A ref that comes up later is registered, and its counts go back to whoever answers.
  EXPECT_EQ(Borrow(b_), ReferenceTable::Borrow::kRegister);
  table_.OnRegistered(b_, ObjectId::Nil(), true, &effects);
  EXPECT_TRUE(table_.NodeDied(owner_.node_id).size() <= 1);  // nobody asks after the node that it had
  EXPECT_TRUE(table_.WorkerDied(owner_.worker_id, &effects, &died_).empty());
  effects = Remove(b_);
  ASSERT_EQ(effects.give_back.size(), 1u);
  EXPECT_EQ(effects.give_back[0].owner, owner_);
  // They end with the adopter's node.
  EXPECT_EQ(Borrow(b_), ReferenceTable::Borrow::kRegister);
  table_.OnRegistered(b_, ObjectId::Nil(), true, &effects);
  EXPECT_EQ(table_.NodeDied(adopter), std::vector<WorkerId>{owner_.worker_id});
  EXPECT_EQ(table_.WorkerDied(owner_.worker_id, &effects, &died_), One(b_));
  EXPECT_TRUE(Remove(b_).give_back.empty());
}

TEST_F(ReferenceTableTest, OwnersThatMovedAreForgottenUnlessSomethingOfThemIsHeld) {
  const NodeId adopter = NodeId::FromRandom();
  RefEffects effects;
  EXPECT_EQ(Borrow(b_), ReferenceTable::Borrow::kRegister);
  table_.OnRegistered(b_, ObjectId::Nil(), true, &effects);
  EXPECT_TRUE(table_.OwnerMoved(owner_.worker_id, adopter).empty());
  size_t forgotten = 0;
  for (int i = 0; i < 5000; ++i) {
    const WorkerId other = WorkerId::FromRandom();
    for (const WorkerId& gone : table_.OwnerMoved(other, adopter)) {
      ++forgotten;
      EXPECT_NE(gone, owner_.worker_id);
      EXPECT_NE(gone, other);
    }
  }
  EXPECT_GT(forgotten, 3000u);
  // Of the one that is held nothing is lost.
  EXPECT_TRUE(table_.WorkerDied(owner_.worker_id, &effects, &died_).empty());
  EXPECT_EQ(Remove(b_).give_back.size(), 1u);
}

TEST_F(ReferenceTableTest, WhatIsLentOutIsToldWithItsContents) {
  const Address other = NewAddress();
  table_.AddOwned(a_);
  table_.AddOwned(b_, 1, One(a_));
  table_.AddOwned(c_);
  EXPECT_TRUE(table_.LentOut().empty());
  table_.AddBorrower(b_, owner_);
  table_.AddBorrower(b_, owner_);
  RefEffects none;
  table_.AddBorrower(b_, other, owner_, &none);
  table_.AddBorrower(a_, other);
  const ObjectId handle = ObjectId::ForActorHandle(ActorId::Of(JobId::FromInt(1)));
  table_.AddOwned(handle);
  table_.AddBorrower(handle, other);
  std::map<ObjectId, std::map<WorkerId, uint32_t>> lent;
  for (const auto& item : table_.LentOut()) {
    for (const auto& to : item.borrowers) lent[item.id][to.borrower.worker_id] += to.count;
  }
  EXPECT_EQ(lent.size(), 2u);
  EXPECT_EQ(lent[b_], (std::map<WorkerId, uint32_t>{{owner_.worker_id, 2}, {other.worker_id, 1}}));
  EXPECT_EQ(lent[a_], (std::map<WorkerId, uint32_t>{{other.worker_id, 1}}));
  RefEffects effects;
  table_.RemoveBorrower(a_, other.worker_id, {}, 1, &effects);
  EXPECT_EQ(table_.LentOut().size(), 2u);  // from inside
}

// The registrar of counts: who had the owner add them as it handed the ref on, and may die before it does.
class RegistrarTest : public ReferenceTableTest {
 protected:
  bool Add(const Address& by) { return table_.AddBorrower(a_, borrower_, by, &effects_); }
  void GiveBack(const Address& by, uint32_t count) { table_.RemoveBorrower(a_, borrower_.worker_id, by.worker_id, count, &effects_); }
  void Settle(const Address& by, uint32_t left) { table_.SettleBorrower(a_, borrower_.worker_id, by.worker_id, left, &effects_); }
  const Address borrower_ = NewAddress(), registrar_ = NewAddress();
  RefEffects effects_;
};

TEST_F(RegistrarTest, WhatDidNotReachTheBorrowerGoesWithTheRegistrar) {
  table_.AddOwned(a_);
  EXPECT_TRUE(Add(registrar_));
  EXPECT_TRUE(Add(registrar_));
  EXPECT_TRUE(Add({}));
  EXPECT_TRUE(Remove(a_).empty());
  table_.WorkerDied(registrar_.worker_id, &effects_, &died_);
  ASSERT_EQ(effects_.settle.size(), 1u);
  EXPECT_EQ(effects_.settle[0].id, a_);
  EXPECT_EQ(effects_.settle[0].borrower, borrower_);
  EXPECT_EQ(effects_.settle[0].registrar, registrar_);
  Settle(registrar_, 1);
  EXPECT_FALSE(table_.HasBorrower(a_, borrower_.worker_id, registrar_.worker_id)) << "it is the borrower's own now";
  EXPECT_EQ(table_.NodeDied(registrar_.node_id), std::vector<WorkerId>{}) << "nothing is known of the registrar any more";
  GiveBack({}, 1);
  EXPECT_TRUE(effects_.freed.empty()) << "one of the two had reached it";
  GiveBack({}, 1);
  EXPECT_EQ(effects_.freed, One(a_));
}

TEST_F(RegistrarTest, AnAdopterGivesBackByTheRegistrarAlsoWhenThatIsDead) {
  const Address adopter = RayletAsProcess(NodeId::FromRandom());
  table_.AddOwned(a_);
  table_.AddBorrower(a_, adopter, registrar_, &effects_);
  Remove(a_);
  table_.WorkerDied(registrar_.worker_id, &effects_, &died_);
  table_.SettleBorrower(a_, adopter.worker_id, registrar_.worker_id, 1, &effects_);
  EXPECT_TRUE(table_.HasBorrower(a_, adopter.worker_id, registrar_.worker_id));
  table_.RemoveBorrower(a_, adopter.worker_id, registrar_.worker_id, 1, &effects_);
  EXPECT_EQ(effects_.freed, One(a_));
}

TEST_F(RegistrarTest, TheAnswerMayComeTwiceLateOrBehindWhatGoesBack) {
  table_.AddOwned(a_);
  Add(registrar_);
  Add(registrar_);
  Add({});
  table_.WorkerDied(registrar_.worker_id, &effects_, &died_);
  GiveBack(registrar_, 1);
  Settle(registrar_, 1);  // there was one more on its way
  Settle(registrar_, 1);
  EXPECT_FALSE(table_.HasBorrower(a_, borrower_.worker_id, registrar_.worker_id));
  Settle(registrar_, 0);
  GiveBack(registrar_, 1);
  Remove(a_);
  GiveBack({}, 1);
  EXPECT_TRUE(effects_.freed.empty());
  GiveBack({}, 1);
  EXPECT_EQ(effects_.freed, One(a_));
}

TEST_F(RegistrarTest, WhatADeadRegistrarHadSentCountsUntilTheBorrowerIsAsked) {
  table_.AddOwned(a_);
  table_.WorkerDied(registrar_.worker_id, &effects_, &died_);
  EXPECT_TRUE(effects_.empty());
  EXPECT_TRUE(Add(registrar_));
  ASSERT_EQ(effects_.settle.size(), 1u);
  Remove(a_);
  Settle(registrar_, 0);
  EXPECT_EQ(effects_.freed, One(a_));
}

TEST_F(RegistrarTest, TheDeathOfTheBorrowerEndsIt) {
  table_.AddOwned(a_);
  Add(registrar_);
  Remove(a_);
  table_.WorkerDied(registrar_.worker_id, &effects_, &died_);
  table_.WorkerDied(borrower_.worker_id, &effects_, &died_);
  EXPECT_EQ(effects_.freed, One(a_));
  EXPECT_EQ(table_.NodeDied(registrar_.node_id), std::vector<WorkerId>{}) << "nothing is known of it any more";
}

TEST_F(RegistrarTest, ARegistrarGoesWithItsNode) {
  table_.AddOwned(a_);
  Add(registrar_);
  EXPECT_EQ(table_.NodeDied(registrar_.node_id), std::vector<WorkerId>{registrar_.worker_id});
  table_.WorkerDied(registrar_.worker_id, &effects_, &died_);
  EXPECT_EQ(effects_.settle.size(), 1u);
  ASSERT_EQ(table_.LentOut().size(), 1u);
  EXPECT_EQ(table_.LentOut()[0].borrowers[0].registrar, registrar_) << "who adopts it asks the borrower anew";
}

TEST_F(RegistrarTest, CountsGoBackByRegistrar) {
  table_.AddOwned(b_);
  table_.AddOwned(c_);
  const std::vector<ObjectRefInfo> nested{{a_, owner_}};
  table_.AddGiven(b_, nested, registrar_.worker_id, &effects_);
  table_.AddGiven(c_, nested, owner_.worker_id, &effects_);
  EXPECT_EQ(table_.GivenBy(a_, registrar_.worker_id), 1u);
  EXPECT_EQ(table_.GivenBy(a_, {}), 1u);
  EXPECT_EQ(table_.GivenBy(a_, borrower_.worker_id), 0u);
  table_.AddGiven(c_, nested, borrower_.worker_id, &effects_);  // it has one already, so this goes back
  EXPECT_EQ(effects_.give_back.size(), 0u) << "with the others";
  EXPECT_EQ(table_.TakeGivenBy(a_, borrower_.worker_id), 1u);
  EXPECT_EQ(table_.TakeGivenBy(a_, borrower_.worker_id), 0u);
  EXPECT_EQ(table_.GivenBy(a_, {}), 2u);
  EXPECT_TRUE(Remove(b_).give_back.empty());
  const RefEffects effects = Remove(c_);
  ASSERT_EQ(effects.give_back.size(), 2u);
  EXPECT_EQ(effects.give_back[0].registrar, WorkerId::Nil());
  EXPECT_EQ(effects.give_back[1].registrar, registrar_.worker_id);
  EXPECT_EQ(table_.GivenBy(a_, registrar_.worker_id), 0u);
}

TEST_F(ReferenceTableTest, AnActorGoesOutOfScopeWithItsLastHandle) {
  const ActorId actor = ActorId::Of(JobId::FromInt(1));
  const ObjectId handle = ObjectId::ForActorHandle(actor);
  table_.AddOwned(handle);
  RefEffects effects = Remove(handle);
  EXPECT_EQ(effects.actors_out_of_scope, std::vector<ActorId>{actor});
  EXPECT_TRUE(effects.freed.empty());
  EXPECT_TRUE(effects.handles_given_back.empty());
}

TEST_F(ReferenceTableTest, ABorrowedHandleIsToldWithItsLastHold) {
  const ActorId actor = ActorId::Of(JobId::FromInt(1));
  const ObjectId handle = ObjectId::ForActorHandle(actor);
  ASSERT_EQ(Borrow(handle), ReferenceTable::Borrow::kRegister);
  EXPECT_TRUE(Remove(handle).empty());
  RefEffects effects;
  table_.OnRegistered(handle, {}, true, &effects);
  EXPECT_EQ(effects.handles_given_back, std::vector<ActorId>{actor});
  EXPECT_TRUE(effects.actors_out_of_scope.empty());
}

TEST_F(ReferenceTableTest, AnOwnObjectThatIsGoneIsTold) {
  ObjectId outer;
  EXPECT_EQ(table_.AddBorrowed({a_, self_}, 0, &outer), ReferenceTable::Borrow::kFreed);
  EXPECT_EQ(table_.AddBorrowed({a_, {}}, 0, &outer), ReferenceTable::Borrow::kKnown);
  EXPECT_TRUE(table_.IsOwned(a_));
}

// --- model: processes that pass refs around in every way there is, over channels that keep order and nothing else.

class Model {
 public:
  Model(uint64_t seed, int n) : random_(seed) {
    for (int i = 0; i < n; ++i) procs_.push_back(std::make_unique<Proc>(NewAddress(), i));
  }

  void Step(bool with_deaths) {
    const int p = Pick(procs_.size());
    if (Pick(3) != 0) {
      Deliver();
      return;
    }
    if (procs_[p]->dead) return;
    switch (Pick(with_deaths ? 61 : 60) / 10) {
      case 0: Put(p); break;
      case 1:
      case 2: DropSome(p); break;
      case 3: Submit(p, Pick(procs_.size())); break;
      case 4: FinishSome(p); break;
      case 5: Read(p); break;
      case 6:
        if (p != 0) Kill(p);
    }
  }

  void Drain() {
    while (true) {
      while (Deliver()) {
      }
      bool more = false;
      for (auto& proc : procs_) {
        if (!proc->dead && !proc->running.empty()) {
          FinishSome(proc->index);
          more = true;
        }
      }
      if (more) continue;
      for (auto& proc : procs_) {
        while (!proc->dead && !proc->handles.empty()) {
          Drop(*proc, proc->handles.begin()->first);
          more = true;
        }
      }
      if (!more) return;
    }
  }

  void ExpectEmpty() {
    for (auto& proc : procs_) {
      if (!proc->dead) {
        EXPECT_EQ(proc->table.size(), 0u) << "process " << proc->index;
      }
    }
    for (auto& [id, owner] : owners_) {
      if (!procs_[owner]->dead) {
        EXPECT_TRUE(freed_.contains(id)) << id;
      }
    }
  }
  size_t objects() const { return owners_.size(); }

 private:
  struct Task {
    uint64_t token;
    int caller;
    ObjectId result;
    std::function<void(std::vector<ObjectRefInfo>)> reply;
  };
  struct Proc {
    Proc(const Address& address, int index) : address(address), index(index), table(address) {}
    Address address;
    int index;
    bool dead = false;
    ReferenceTable table;
    std::map<ObjectId, int> handles;
    std::map<ObjectId, bool> values;  // known here
    std::deque<Task> running;
    std::map<ObjectId, std::vector<std::function<void()>>> awaited;
    std::map<uint64_t, std::pair<int, std::function<void()>>> calls;  // to whom, and what if they die
    std::set<int> heard_dead;
    std::vector<std::pair<int, std::function<void()>>> questions;  // what is left of what that one had counted
  };
  using Done = std::function<void()>;

  size_t Pick(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }
  template <typename Map>
  typename Map::key_type PickKey(const Map& map) {
    auto it = map.begin();
    std::advance(it, Pick(map.size()));
    return it->first;
  }
  std::vector<ObjectId> SomeHandles(const Proc& proc) {
    std::set<ObjectId> some;
    for (size_t n = Pick(4); n > 0 && !proc.handles.empty(); --n) some.insert(PickKey(proc.handles));
    return {some.begin(), some.end()};
  }
  ObjectRefInfo RefTo(const ObjectId& id) { return {id, procs_[owners_.at(id)]->address}; }

  // Requests of `from` to `to` are one channel; replies of `from` to `to`, and what must come after them, another.
  enum Lane { kRequests, kReplies, kNews };
  void Send(int from, int to, Lane lane, Done message) {
    if (!procs_[from]->dead && !procs_[to]->dead) channels_[{from, to, lane}].push_back(std::move(message));
  }
  bool Deliver() {
    if (channels_.empty()) return false;
    auto it = channels_.begin();
    std::advance(it, Pick(channels_.size()));
    Done message = std::move(it->second.front());
    it->second.pop_front();
    if (it->second.empty()) channels_.erase(it);
    message();
    return true;
  }
  // `serve(reply)` runs at `to`; `done(ok)` back at `from`, once.
  void Call(int from, int to, std::function<void(std::function<void(Done)>)> serve, std::function<void()> failed) {
    if (procs_[to]->dead) {
      failed();
      return;
    }
    const uint64_t call = ++next_;
    procs_[from]->calls[call] = {to, std::move(failed)};
    Send(from, to, kRequests, [this, from, to, call, serve = std::move(serve)] {
      serve([this, from, to, call](Done at_caller) {
        Send(to, from, kReplies, [this, from, call, at_caller] {
          if (procs_[from]->calls.erase(call) != 0) at_caller();
        });
      });
    });
  }

  void CarryOut(Proc& proc, const RefEffects& effects) {
    for (const ObjectId& id : effects.dropped) proc.values.erase(id);
    for (const ObjectId& id : effects.freed) {
      EXPECT_EQ(owners_.at(id), proc.index);
      EXPECT_TRUE(freed_.insert(id).second || deaths_ > 0);
      for (auto& other : procs_) {
        // The death of a caller takes the cover from the arguments of its tasks.
        EXPECT_TRUE(deaths_ > 0 || !other->handles.contains(id)) << "freed under a handle in process " << other->index;
      }
    }
    for (const auto& back : effects.give_back) {
      const int owner = owners_.at(back.id);
      Send(proc.index, owner, kReplies, [this, owner, back, borrower = proc.address.worker_id] {
        RefEffects more;
        procs_[owner]->table.RemoveBorrower(back.id, borrower, back.registrar, back.count, &more);
        CarryOut(*procs_[owner], more);
      });
    }
    for (const auto& count : effects.settle) {
      const int borrower = IndexOf(count.borrower), registrar = IndexOf(count.registrar);
      Send(proc.index, borrower, kRequests, [this, owner = proc.index, borrower, registrar, id = count.id] {
        Proc& asked = *procs_[borrower];
        asked.questions.push_back({registrar, [this, owner, borrower, registrar, id] {
                                     const WorkerId dead = procs_[registrar]->address.worker_id;
                                     const uint32_t left = procs_[borrower]->table.TakeGivenBy(id, dead);
                                     Send(borrower, owner, kReplies, [this, owner, borrower, dead, id, left] {
                                       RefEffects more;
                                       procs_[owner]->table.SettleBorrower(id, procs_[borrower]->address.worker_id, dead, left, &more);
                                       CarryOut(*procs_[owner], more);
                                     });
                                   }});
        AnswerQuestions(asked);
      });
    }
  }
  int IndexOf(const Address& address) const {
    const auto it = std::ranges::find_if(procs_, [&](const auto& proc) { return proc->address.worker_id == address.worker_id; });
    return (*it)->index;
  }
  // Those about processes of whose death it has heard: nothing that they sent comes any more.
  void AnswerQuestions(Proc& proc) {
    std::vector<std::pair<int, Done>> later;
    for (auto& question : std::exchange(proc.questions, {})) {
      if (proc.heard_dead.contains(question.first)) {
        question.second();
      } else {
        later.push_back(std::move(question));
      }
    }
    proc.questions = std::move(later);
  }
  void Drop(Proc& proc, ObjectId id) {  // a copy: callers pass the key that goes
    if (--proc.handles[id] == 0) proc.handles.erase(id);
    RefEffects effects;
    proc.table.RemoveLocal(id, &effects);
    CarryOut(proc, effects);
  }
  void DropSome(int p) {
    if (!procs_[p]->handles.empty()) Drop(*procs_[p], PickKey(procs_[p]->handles));
  }
  bool Reaches(const ObjectId& from, const ObjectId& to) {
    if (from == to) return true;
    auto it = contents_.find(from);
    return it != contents_.end() && std::any_of(it->second.begin(), it->second.end(), [&](const ObjectId& id) { return Reaches(id, to); });
  }
  ObjectId NewOwned(int p, const std::vector<ObjectId>& nested) {
    const ObjectId id = NewObject();
    contents_[id] = nested;
    owners_[id] = p;
    procs_[p]->table.AddOwned(id, 1, nested);
    ++procs_[p]->handles[id];
    return id;
  }
  void Put(int p) {
    const ObjectId id = NewOwned(p, SomeHandles(*procs_[p]));
    procs_[p]->values[id] = true;
  }

  void AddBorrowers(int from, int owner, const Address& borrower, std::vector<ObjectId> ids,
                    std::function<void(bool, std::set<ObjectId>)> done) {
    Call(
        from, owner,
        [this, from, owner, borrower, ids, done](std::function<void(Done)> reply) {
          std::set<ObjectId> unknown;
          RefEffects effects;
          const Address registrar = borrower == procs_[from]->address ? Address() : procs_[from]->address;
          for (const ObjectId& id : ids) {
            if (!procs_[owner]->table.AddBorrower(id, borrower, registrar, &effects)) unknown.insert(id);
          }
          CarryOut(*procs_[owner], effects);
          EXPECT_TRUE(unknown.empty() || deaths_ > 0) << "a ref was handed over that nobody covered";
          reply([done, unknown] { done(true, unknown); });
        },
        [done] { done(false, {}); });
  }
  void Register(Proc& proc, const ObjectRefInfo& ref, ObjectId outer, Done then) {
    AddBorrowers(proc.index, owners_.at(ref.id), proc.address, {ref.id},
                 [this, &proc, ref, outer, then](bool sent, std::set<ObjectId> unknown) {
                   RefEffects effects;
                   proc.table.OnRegistered(ref.id, outer, sent && unknown.empty(), &effects);
                   auto node = proc.awaited.extract(ref.id);
                   CarryOut(proc, effects);
                   if (node) {
                     for (auto& waiting : node.mapped()) waiting();
                   }
                   then();
                 });
  }
  void Borrow(Proc& proc, const ObjectRefInfo& ref, uint64_t task, ObjectId outer) {
    ++proc.handles[ref.id];
    switch (proc.table.AddBorrowed(ref, task, &outer)) {
      case ReferenceTable::Borrow::kRegister: Register(proc, ref, outer, [] {}); break;
      case ReferenceTable::Borrow::kFreed: EXPECT_GT(deaths_, 0) << "an object of ours was freed while its ref was on the way"; break;
      default: break;
    }
  }
  void HandOver(Proc& proc, const std::vector<ObjectRefInfo>& nested, const Address& receiver, Done done) {
    std::vector<ObjectId> held;
    auto left = std::make_shared<int>(1);
    for (const auto& ref : nested) held.push_back(ref.id);
    proc.table.AddSubmitted(held);
    auto arrive = [this, &proc, left, held, done] {
      if (--*left != 0) return;
      done();
      RefEffects effects;
      proc.table.RemoveSubmitted(held, &effects);
      CarryOut(proc, effects);
    };
    for (const auto& ref : nested) {
      if (ref.owner == proc.address) {
        proc.table.AddBorrower(ref.id, receiver);
      } else if (ref.owner != receiver) {
        ++*left;
        AddBorrowers(proc.index, owners_.at(ref.id), receiver, {ref.id}, [arrive](bool, std::set<ObjectId>) { arrive(); });
      }
    }
    arrive();
  }

  void Submit(int p, int q) {
    if (p == q || procs_[q]->dead) return;
    Proc& caller = *procs_[p];
    const auto args = SomeHandles(caller);
    const ObjectId result = NewOwned(p, {});
    caller.table.AddSubmitted(args);
    std::vector<ObjectRefInfo> refs;
    for (const ObjectId& id : args) refs.push_back(RefTo(id));
    auto finish = [this, &caller, args] {
      RefEffects effects;
      caller.table.RemoveSubmitted(args, &effects);
      CarryOut(caller, effects);
    };
    Call(
        p, q,
        [this, p, q, refs, result, finish, &caller](std::function<void(Done)> reply) {
          const uint64_t token = ++next_;
          for (const auto& ref : refs) Borrow(*procs_[q], ref, token, {});
          procs_[q]->running.push_back({token, p, result, [this, q, reply, result, finish, &caller](std::vector<ObjectRefInfo> nested) {
                                          reply([this, q, nested, result, finish, &caller] {
                                            RefEffects effects;
                                            caller.table.AddGiven(result, nested, procs_[q]->address.worker_id, &effects);
                                            if (caller.table.Contains(result)) caller.values[result] = true;
                                            CarryOut(caller, effects);
                                            finish();
                                          });
                                        }});
        },
        finish);
  }
  void FinishSome(int q) {
    Proc& proc = *procs_[q];
    if (proc.running.empty()) return;
    const size_t which = Pick(proc.running.size());
    Task task = std::move(proc.running[which]);
    proc.running.erase(proc.running.begin() + which);
    auto returned = SomeHandles(proc);
    // A result may come to contain itself, by way of a ref to it among the arguments of others. Counting cannot free cycles.
    std::erase_if(returned, [&](const ObjectId& id) { return Reaches(id, task.result); });
    contents_[task.result] = returned;
    std::vector<ObjectRefInfo> nested;
    for (const ObjectId& id : returned) nested.push_back(RefTo(id));
    proc.table.AddSubmitted(returned);
    for (int i = 0; i < 2; ++i) DropSome(q);
    std::vector<ObjectId> in_flight;
    const auto to_register = proc.table.EndTask(task.token, &in_flight);
    auto left = std::make_shared<size_t>(to_register.size() + in_flight.size() + 1);
    auto arrive = [this, &proc, left, nested, returned, task] {
      if (--*left != 0) return;
      HandOver(proc, nested, procs_[task.caller]->address, [this, &proc, nested, returned, task] {
        task.reply(nested);
        RefEffects effects;
        proc.table.RemoveSubmitted(returned, &effects);
        CarryOut(proc, effects);
      });
    };
    for (const ObjectId& id : in_flight) proc.awaited[id].push_back(arrive);
    for (const auto& ref : to_register) Register(proc, ref, {}, arrive);
    arrive();
  }
  // Get of something held, and deserialisation of what is inside.
  void Read(int p) {
    Proc& proc = *procs_[p];
    if (proc.handles.empty()) return;
    const ObjectId id = PickKey(proc.handles);
    if (proc.values.contains(id)) {
      for (const auto& ref : proc.table.NestedOf(id)) Borrow(proc, ref, 0, id);
      return;
    }
    const int owner = owners_.at(id);
    if (owner == p) return;
    Call(
        p, owner,
        [this, p, owner, id](std::function<void(Done)> reply) {
          Proc& serving = *procs_[owner];
          if (!serving.values.contains(id)) return;  // not ready: the model does not wait
          const auto nested = serving.table.NestedOf(id);
          HandOver(serving, nested, procs_[p]->address, [this, p, owner, id, nested, reply] {
            reply([this, p, owner, id, nested] {
              RefEffects effects;
              procs_[p]->table.AddGiven(id, nested, procs_[owner]->address.worker_id, &effects);
              if (procs_[p]->table.Contains(id)) procs_[p]->values[id] = true;
              CarryOut(*procs_[p], effects);
            });
          });
        },
        [] {});
  }
  void Kill(int q) {
    if (procs_[q]->dead || deaths_ == kMostDeaths) return;
    ++deaths_;
    procs_[q]->dead = true;
    // What it has asked may come yet, behind the news of its death; what it has answered does not, then.
    std::erase_if(channels_, [&](const auto& item) {
      const auto& [from, to, lane] = item.first;
      return to == q || (from == q && lane != kRequests);
    });
    for (auto& proc : procs_) {
      if (proc->dead) continue;
      channels_[{q, proc->index, kNews}].push_back([this, q, &proc = *proc] {
        RefEffects effects;
        Address owner;
        proc.table.WorkerDied(procs_[q]->address.worker_id, &effects, &owner);
        proc.heard_dead.insert(q);
        CarryOut(proc, effects);
        AnswerQuestions(proc);
        std::vector<Done> failed;
        for (auto it = proc.calls.begin(); it != proc.calls.end();) {
          auto here = it++;
          if (here->second.first != q) continue;
          failed.push_back(std::move(here->second.second));
          proc.calls.erase(here);
        }
        for (auto& fail : failed) fail();
      });
    }
  }

  static constexpr int kMostDeaths = 2;  // then there are enough left for counts of one another to be left over
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Proc>> procs_;
  std::map<std::tuple<int, int, int>, std::deque<Done>> channels_;
  std::map<ObjectId, int> owners_;
  std::set<ObjectId> freed_;
  std::map<ObjectId, std::vector<ObjectId>> contents_;
  uint64_t next_ = 0;
  int deaths_ = 0;
};

TEST(ReferenceModelTest, NothingIsFreedUnderAHandleAndAllIsFreedInTheEnd) {
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(seed);
    Model model(seed, 4);
    for (int i = 0; i < 3000; ++i) model.Step(false);
    EXPECT_GT(model.objects(), 50u);
    model.Drain();
    model.ExpectEmpty();
    if (HasFailure()) return;
  }
}

TEST(ReferenceModelTest, DeathsLeakNothing) {
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(seed);
    Model model(seed, 5);
    for (int i = 0; i < 3000; ++i) model.Step(true);
    model.Drain();
    model.ExpectEmpty();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace ray::core
