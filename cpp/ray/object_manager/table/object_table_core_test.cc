#include "ray/object_manager/table/object_table_core.h"

#include <gtest/gtest.h>

#include <random>
#include <sstream>

#include "ray/common/errors.h"

namespace ray::object_manager {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
constexpr uint64_t kMiB = 1024 * 1024;

ObjectId Id(uint32_t i) { return ObjectId::Of(TaskId(), i); }
WorkerId Owner(uint8_t i) {
  WorkerId id;
  id.mutable_data()[0] = i;
  return id;
}

// Drives a core of 10 MiB and shows its effects as text, "create 1 ok; sealed 1; ...", named by token and object number.
class ObjectTableCoreTest : public ::testing::Test {
 protected:
  explicit ObjectTableCoreTest(const ObjectTableConfig& config = {.capacity = 10 * kMiB, .create_grace = seconds(10)}) : core_(config) {}
  std::string Show() {
    std::ostringstream os;
    for (const Effect& effect : effects_) {
      if (os.tellp() > 0) os << "; ";
      if (auto* e = std::get_if<CreateReplied>(&effect)) {
        os << "create " << e->token
           << (e->status.ok() ? e->exists ? " exists" : " ok" : " " + std::string(StatusCodeName(e->status.code())));
      } else if (auto* e = std::get_if<GetReplied>(&effect)) {
        os << "get " << e->token;
        if (!e->status.ok()) os << " " << StatusCodeName(e->status.code());
        for (const auto& o : e->objects) os << (o.found ? " " : o.lost ? " lost " : " !") << o.id.index();
      } else if (auto* e = std::get_if<ObjectSealed>(&effect)) {
        os << "sealed " << e->id.index();
      } else if (auto* e = std::get_if<ObjectDeleted>(&effect)) {
        os << "deleted " << e->id.index();
      } else if (auto* e = std::get_if<ObjectEvicted>(&effect)) {
        os << "evicted " << e->id.index();
      } else if (auto* e = std::get_if<SpillStarted>(&effect)) {
        os << "spill " << e->id.index();
      } else if (auto* e = std::get_if<RestoreStarted>(&effect)) {
        os << "restore " << e->id.index() << " to " << e->place.segment;
      } else if (auto* e = std::get_if<SpillForgotten>(&effect)) {
        os << "forget " << e->id.index();
      } else if (auto* e = std::get_if<OverflowWanted>(&effect)) {
        os << "want segment " << e->segment << " of " << e->size / kMiB;
      } else if (auto* e = std::get_if<OverflowReleased>(&effect)) {
        os << "release segment " << e->segment;
      } else if (auto* e = std::get_if<ReclaimAsked>(&effect)) {
        os << "ask " << e->client << " for";
        for (const ObjectId& id : e->ids) os << " " << id.index();
      }
    }
    last_ = std::move(effects_);
    effects_.clear();
    EXPECT_EQ(core_.TEST_CheckInvariants(), "");
    return os.str();
  }
  std::string Create(Token token, ClientId client, uint32_t id, uint64_t size, bool primary = true, bool try_only = false,
                     uint8_t owner = 1) {
    core_.Create({token, client, Id(id), size, "RAW", Owner(owner), primary, try_only}, now_, &effects_);
    return Show();
  }
  std::string Seal(ClientId client, uint32_t id, bool keep = false) { return core_.Seal(client, Id(id), keep, now_, &effects_), Show(); }
  std::string Get(Token token, ClientId client, std::vector<uint32_t> ids, Duration timeout) {
    std::vector<ObjectId> list;
    for (uint32_t i : ids) list.push_back(Id(i));
    core_.Get(token, client, list, now_, timeout < Duration::zero() ? Time::Infinite() : now_ + timeout, &effects_);
    return Show();
  }
  std::string Release(ClientId client, uint32_t id) { return core_.Release(client, Id(id), now_, &effects_), Show(); }
  std::string Abort(ClientId client, uint32_t id) { return core_.Abort(client, Id(id), now_, &effects_), Show(); }
  std::string Free(uint32_t id) { return core_.Free({Id(id)}, now_, &effects_), Show(); }
  std::string Gone(ClientId client) { return core_.ClientGone(client, now_, &effects_), Show(); }
  std::string OwnerDied(uint8_t owner) { return core_.OwnerDied(Owner(owner), now_, &effects_), Show(); }
  std::string After(Duration d) { return now_ = now_ + d, core_.OnTimer(now_, &effects_), Show(); }

  ObjectTableCore core_;
  Time now_{1};
  Effects effects_, last_;
};

TEST_F(ObjectTableCoreTest, LifeOfAnObject) {
  EXPECT_EQ(Create(1, 7, 1, 1000), "create 1 ok");
  EXPECT_EQ(Get(2, 8, {1}, seconds(0)), "get 2 !1");  // not before the seal
  EXPECT_EQ(Seal(7, 1), "sealed 1");
  EXPECT_EQ(Get(3, 8, {1}, seconds(0)), "get 3 1");
  EXPECT_EQ(std::get<GetReplied>(last_[0]).objects[0].size, 1000u);
  EXPECT_EQ(std::get<GetReplied>(last_[0]).objects[0].metadata, "RAW");
  EXPECT_EQ(core_.Stats(), (TableStats{10 * kMiB, 1000, 1, 1, 0}));
  EXPECT_EQ(Free(1), "");  // pinned
  EXPECT_EQ(Release(8, 1), "deleted 1");
  EXPECT_EQ(core_.Stats(), (TableStats{10 * kMiB, 0, 0, 0, 0}));
}

TEST_F(ObjectTableCoreTest, CreatorsPinOutlivesTheSealIfKept) {
  Create(1, 7, 1, 1000);
  EXPECT_EQ(Seal(7, 1, true), "sealed 1");
  EXPECT_EQ(Free(1), "");
  EXPECT_EQ(Release(7, 1), "deleted 1");
  EXPECT_EQ(Release(7, 1), "");  // one too many
}

TEST_F(ObjectTableCoreTest, FreedWhileBeingWrittenGoesAtTheSeal) {
  Create(1, 7, 1, 1000);
  EXPECT_EQ(Free(1), "");
  EXPECT_EQ(Seal(7, 1), "sealed 1; deleted 1");
}

TEST_F(ObjectTableCoreTest, CreateIsIdempotentAndWaitsForAnotherWriter) {
  EXPECT_EQ(Create(1, 7, 1, 1000), "create 1 ok");
  EXPECT_EQ(Create(2, 7, 1, 1000), "create 2 ok");
  EXPECT_EQ(Create(3, 7, 1, 2000), "create 3 INVALID_ARGUMENT");
  EXPECT_EQ(Create(4, 8, 1, 1000), "");
  EXPECT_EQ(Create(5, 8, 1, 1000, true, true), "create 5 ABORTED");
  EXPECT_EQ(After(seconds(60)), "");              // as long as it takes
  EXPECT_EQ(Create(6, 9, 2, 10), "create 6 ok");  // token 4 waits for no room
  EXPECT_EQ(Seal(8, 1), "");                      // not its creator
  EXPECT_EQ(Seal(7, 1), "sealed 1; create 4 exists");
  EXPECT_EQ(Create(7, 9, 3, 10), "create 7 ok");
  EXPECT_EQ(Create(8, 8, 3, 10), "");
  EXPECT_EQ(Gone(9), "deleted 2; deleted 3; create 8 ok");
}

// The shell keeps something for each request until its answer.
TEST_F(ObjectTableCoreTest, WhatAClientThatIsGoneWaitedForIsAnsweredToo) {
  Create(1, 7, 1, 8 * kMiB);
  Seal(7, 1);
  EXPECT_EQ(Create(2, 8, 2, 8 * kMiB), "");
  EXPECT_EQ(Get(3, 8, {1, 9}, seconds(60)), "");
  EXPECT_EQ(Get(4, 8, {9}, milliseconds(-1)), "");
  EXPECT_EQ(Get(5, 9, {9}, milliseconds(-1)), "");
  EXPECT_EQ(Gone(8), "create 2 CANCELLED; get 3 CANCELLED; get 4 CANCELLED");
  EXPECT_EQ(core_.Stats(), (TableStats{10 * kMiB, 8 * kMiB, 1, 0, 0}));
  EXPECT_EQ(After(seconds(60)), "");
  EXPECT_EQ(Create(6, 7, 9, 10), "create 6 ok");
  EXPECT_EQ(Seal(7, 9), "sealed 9; get 5 9");
}

TEST_F(ObjectTableCoreTest, TooLargeForEver) {
  EXPECT_EQ(Create(1, 7, 1, 11 * kMiB), "create 1 RESOURCE_EXHAUSTED");
  const Status& status = std::get<CreateReplied>(last_[0]).status;
  EXPECT_EQ(status.cause(), static_cast<int32_t>(ErrorType::kObjectStoreFull));
  EXPECT_NE(status.message().find("11534336"), std::string::npos);
  EXPECT_NE(status.message().find("10485760"), std::string::npos);
}

TEST_F(ObjectTableCoreTest, QueueIsServedInOrder) {
  Create(1, 7, 1, 8 * kMiB);
  Seal(7, 1);
  EXPECT_EQ(Create(2, 7, 2, 4 * kMiB), "");
  EXPECT_EQ(Create(3, 8, 3, 1 * kMiB), "");  // would fit, but must not starve token 2
  EXPECT_EQ(Create(4, 8, 4, 1 * kMiB, true, true), "create 4 RESOURCE_EXHAUSTED");
  EXPECT_EQ(Free(1), "deleted 1; create 2 ok; create 3 ok");
}

TEST_F(ObjectTableCoreTest, QueueFailsWhenNothingIsFreedForTheGrace) {
  Create(1, 7, 1, 8 * kMiB);
  Seal(7, 1);
  Create(2, 7, 2, 1000);
  Seal(7, 2);
  EXPECT_EQ(Create(3, 7, 3, 4 * kMiB), "");
  EXPECT_EQ(core_.NextDeadline(), now_ + seconds(10));
  EXPECT_EQ(After(seconds(9)), "");
  EXPECT_EQ(Free(2), "deleted 2");  // hope
  EXPECT_EQ(core_.NextDeadline(), now_ + seconds(10));
  EXPECT_EQ(After(seconds(5)), "");
  EXPECT_EQ(Create(4, 8, 4, kMiB), "");
  EXPECT_EQ(After(seconds(5)), "create 3 RESOURCE_EXHAUSTED; create 4 ok");
  EXPECT_EQ(core_.NextDeadline(), Time::Infinite());
}

TEST_F(ObjectTableCoreTest, EvictsCopiesLeastRecentlyUsedFirst) {
  for (uint32_t i = 1; i <= 3; ++i) {
    Create(i, 7, i, 3 * kMiB, /*primary=*/false);
    Seal(7, i);
  }
  Get(10, 8, {1}, seconds(0));
  Release(8, 1);  // now the youngest
  EXPECT_EQ(Create(11, 7, 4, 3 * kMiB), "deleted 2; create 11 ok");
  Get(12, 8, {1, 3}, seconds(0));
  EXPECT_EQ(Create(13, 7, 5, 3 * kMiB), "");  // all pinned
  EXPECT_EQ(Release(8, 3), "deleted 3; create 13 ok");
}

TEST_F(ObjectTableCoreTest, GetWaitsForAllOrItsDeadline) {
  Create(1, 7, 1, 10);
  Create(2, 7, 2, 10);
  EXPECT_EQ(Get(3, 8, {1, 2, 1}, milliseconds(-1)), "");
  EXPECT_EQ(Get(4, 8, {2, 9}, milliseconds(50)), "");
  EXPECT_EQ(Seal(7, 1), "sealed 1");
  EXPECT_EQ(Seal(7, 2), "sealed 2; get 3 1 2 1");
  EXPECT_EQ(core_.NextDeadline(), now_ + milliseconds(50));
  EXPECT_EQ(After(milliseconds(50)), "get 4 2 !9");
  Free(1);
  Free(2);
  EXPECT_EQ(Release(8, 1), "");
  EXPECT_EQ(Release(8, 1), "deleted 1");  // it was pinned twice
  EXPECT_EQ(Release(8, 2), "");
  EXPECT_EQ(Release(8, 2), "deleted 2");
}

TEST_F(ObjectTableCoreTest, ClientDeathDropsAllItHeld) {
  Create(1, 7, 1, 10);
  Seal(7, 1, true);
  Create(2, 7, 2, 10);  // unsealed
  Create(3, 7, 3, 10);
  Seal(7, 3, true);
  Get(4, 7, {9}, milliseconds(-1));  // waiting
  Create(5, 8, 5, 9 * kMiB);
  EXPECT_EQ(Create(6, 7, 6, 9 * kMiB), "");  // queued
  Free(1);
  EXPECT_EQ(Gone(7), "create 6 CANCELLED; get 4 CANCELLED; deleted 2; deleted 1");  // 3 is its owner's, who may live
  EXPECT_EQ(core_.Stats().num_objects, 2u);
  EXPECT_EQ(core_.Stats().queued_creates, 0u);
  EXPECT_EQ(Gone(7), "");
  EXPECT_EQ(Abort(8, 5), "deleted 5");
}

TEST_F(ObjectTableCoreTest, OwnerDeathFreesItsObjectsEvenLateOnes) {
  Create(1, 7, 1, 10);
  Seal(7, 1);
  Create(2, 7, 2, 10);  // being written by a worker that lives
  Create(3, 7, 3, 10, true, false, /*owner=*/2);
  Seal(7, 3);
  EXPECT_EQ(OwnerDied(1), "deleted 1");
  EXPECT_EQ(Seal(7, 2), "sealed 2; deleted 2");
  EXPECT_EQ(Create(4, 7, 4, 10), "create 4 ok");
  EXPECT_EQ(Seal(7, 4), "sealed 4; deleted 4");
  EXPECT_TRUE(core_.Contains(Id(3)));
}

TEST_F(ObjectTableCoreTest, FreedButPinnedIsRevivedByItsRecreation) {
  Create(1, 7, 1, 10);
  Seal(7, 1);
  Get(2, 8, {1}, seconds(0));
  Free(1);
  EXPECT_EQ(Create(3, 9, 1, 10), "create 3 exists");
  EXPECT_EQ(Release(8, 1), "");
  EXPECT_EQ(Free(1), "deleted 1");
}

// The same with a disk. The threshold is out of the way where a test does not want it.
class ObjectTableSpillTest : public ObjectTableCoreTest {
 protected:
  explicit ObjectTableSpillTest(double threshold = 1.0)
      : ObjectTableCoreTest({.capacity = 10 * kMiB,
                             .create_grace = seconds(10),
                             .disk = true,
                             .spill_threshold = threshold,
                             .spill_batch_bytes = kMiB,
                             .overflow_grace = seconds(1),
                             .spill_retry = seconds(1)}) {}
  std::string Put(uint32_t id, uint64_t mib, ClientId client = 7, bool keep = false) {
    std::string text = Create(100 + id, client, id, mib * kMiB);
    return text + " / " + Seal(client, id, keep);
  }
  std::string Spilled(uint32_t id, const Status& status = {}) { return core_.OnSpilled(Id(id), status, now_, &effects_), Show(); }
  std::string Restored(uint32_t id, const Status& status = {}) { return core_.OnRestored(Id(id), status, now_, &effects_), Show(); }
  std::string Overflow(uint64_t segment, const Status& status = {}) { return core_.OnOverflow(segment, status, now_, &effects_), Show(); }
  std::string Reclaimed(ClientId client) { return core_.OnReclaimed(client, now_, &effects_), Show(); }
};

TEST_F(ObjectTableSpillTest, SpillsForACreateAndRestoresForAGet) {
  Put(1, 4);
  Put(2, 4);
  EXPECT_EQ(Create(3, 7, 3, 4 * kMiB), "spill 1");
  EXPECT_EQ(Get(4, 8, {1}, seconds(0)), "get 4 1");  // readable meanwhile
  EXPECT_EQ(Spilled(1), "spill 2");                  // in use now, so it does not help
  EXPECT_EQ(Spilled(2), "evicted 2; create 3 ok");
  Seal(7, 3);
  EXPECT_TRUE(core_.Contains(Id(2)));
  EXPECT_EQ(core_.Stats().used, 8 * kMiB);
  EXPECT_EQ(core_.Stats().spilled_objects, 2u);
  EXPECT_EQ(Get(5, 8, {2}, milliseconds(-1)), "spill 3");
  EXPECT_EQ(Release(8, 1), "evicted 1; restore 2 to 0");
  EXPECT_EQ(Restored(2), "get 5 2");
  EXPECT_EQ(Spilled(3), "");
  EXPECT_EQ(Release(8, 2), "");
  EXPECT_EQ(Free(2), "forget 2; deleted 2");
  EXPECT_EQ(Free(1), "forget 1; deleted 1");
  EXPECT_EQ(Free(3), "forget 3; deleted 3");
  EXPECT_EQ(core_.Stats().used + core_.Stats().spilled_bytes + core_.Stats().num_objects, 0u);
}

class ObjectTableThresholdTest : public ObjectTableSpillTest {
 protected:
  ObjectTableThresholdTest() : ObjectTableSpillTest(0.8) {}
};

TEST_F(ObjectTableThresholdTest, SpillsAhead) {
  EXPECT_EQ(Put(1, 4), "create 101 ok / sealed 1");
  EXPECT_EQ(Put(2, 4), "create 102 ok / sealed 2");
  EXPECT_EQ(Put(3, 1), "create 103 ok / sealed 3; spill 1");
  EXPECT_EQ(Spilled(1), "");
  EXPECT_EQ(core_.Stats().used, 9 * kMiB);           // it stays until its room is needed
  EXPECT_EQ(Get(4, 8, {1}, seconds(0)), "get 4 1");  // in use, it cannot go
  EXPECT_EQ(Create(5, 7, 5, 4 * kMiB), "spill 2");
  EXPECT_EQ(Spilled(2), "evicted 2; create 5 ok; spill 3");
}

TEST_F(ObjectTableSpillTest, FreedWhileSpillingGoesAfterwards) {
  Put(1, 8);
  EXPECT_EQ(Create(2, 7, 2, 4 * kMiB), "spill 1");
  EXPECT_EQ(Free(1), "");
  EXPECT_EQ(Spilled(1), "forget 1; deleted 1; create 2 ok");
}

TEST_F(ObjectTableSpillTest, FreedWhileRestoringGoesAfterwards) {
  Put(1, 8);
  Create(2, 7, 2, 4 * kMiB);
  Spilled(1);
  Abort(7, 2);
  EXPECT_EQ(Get(3, 8, {1}, milliseconds(-1)), "restore 1 to 0");
  EXPECT_EQ(Free(1), "");
  EXPECT_EQ(Gone(8), "get 3 CANCELLED");
  EXPECT_EQ(Restored(1), "forget 1; deleted 1");
}

TEST_F(ObjectTableSpillTest, AsksBackWhatIsKeptOldestFirst) {
  Put(1, 3, 7, true);
  Put(2, 3, 8, true);
  Put(3, 3, 7, true);
  EXPECT_EQ(Create(4, 9, 4, 3 * kMiB), "");  // nobody can be asked
  EXPECT_EQ(Reclaimed(8), "ask 8 for 2");
  EXPECT_EQ(Reclaimed(7), "");             // enough is on its way
  EXPECT_EQ(Reclaimed(8), "ask 7 for 1");  // it uses it
  EXPECT_EQ(Release(7, 1), "");
  EXPECT_EQ(Reclaimed(7), "spill 1");
  EXPECT_EQ(Spilled(1), "evicted 1; create 4 ok");
  EXPECT_EQ(Release(8, 2), "");
  EXPECT_EQ(Gone(7), "");
  EXPECT_EQ(Gone(9), "deleted 4");
}

TEST_F(ObjectTableSpillTest, OverflowsWhenAllIsInUse) {
  Put(1, 8);
  Get(1, 8, {1}, seconds(0));
  EXPECT_EQ(Create(2, 7, 2, 4 * kMiB), "");
  EXPECT_EQ(core_.NextDeadline(), now_ + seconds(1));
  EXPECT_EQ(Create(3, 7, 3, kMiB), "");  // behind it
  EXPECT_EQ(After(seconds(1)), "want segment 1 of 4; want segment 2 of 1");
  EXPECT_EQ(Overflow(1), "create 2 ok");
  EXPECT_EQ(std::get<CreateReplied>(last_[0]).place, (Place{1, 0}));
  EXPECT_EQ(Seal(7, 2), "sealed 2");
  EXPECT_EQ(core_.Stats().overflow_bytes, 4 * kMiB);
  EXPECT_EQ(core_.Stats().used, 8 * kMiB);
  EXPECT_EQ(Gone(7), "create 3 CANCELLED");
  EXPECT_EQ(Overflow(2), "release segment 2");
  EXPECT_EQ(Get(4, 8, {2}, seconds(0)), "get 4 2");
  EXPECT_EQ(Free(2), "");
  EXPECT_EQ(Release(8, 2), "release segment 1; deleted 2");
}

TEST_F(ObjectTableSpillTest, LargerThanTheStoreOverflowsAtOnce) {
  EXPECT_EQ(Create(1, 7, 1, 11 * kMiB), "want segment 1 of 11");
  EXPECT_EQ(Create(2, 7, 2, kMiB), "create 2 ok");  // which does not wait for it
  EXPECT_EQ(Overflow(1), "create 1 ok");
  EXPECT_EQ(Abort(7, 1), "release segment 1; deleted 1");
  EXPECT_EQ(Create(3, 7, 3, 11 * kMiB), "want segment 2 of 11");
  EXPECT_EQ(Overflow(2, Status(StatusCode::kResourceExhausted, "full", static_cast<int32_t>(ErrorType::kOutOfDisk))),
            "create 3 RESOURCE_EXHAUSTED");
  EXPECT_EQ(std::get<CreateReplied>(last_[0]).status.cause(), static_cast<int32_t>(ErrorType::kOutOfDisk));
}

TEST_F(ObjectTableSpillTest, RestoresToAFileWhenAllIsInUse) {
  Put(1, 8);
  Create(2, 7, 2, 8 * kMiB);
  EXPECT_EQ(Spilled(1), "evicted 1; create 2 ok");
  EXPECT_EQ(Get(3, 8, {1}, milliseconds(-1)), "");
  EXPECT_EQ(After(seconds(1)), "want segment 1 of 8");
  EXPECT_EQ(Overflow(1), "restore 1 to 1");
  EXPECT_EQ(Restored(1), "get 3 1");
  EXPECT_EQ(Release(8, 1), "release segment 1");  // the file it was spilled to remains
  EXPECT_EQ(Get(4, 8, {1}, seconds(0)), "get 4 !1");
}

TEST_F(ObjectTableSpillTest, AFailingDiskIsTriedAgainAndThenTheCreateFails) {
  const Status broken = Status::Internal("broken");
  Put(1, 8);
  EXPECT_EQ(Create(2, 7, 2, 4 * kMiB), "spill 1");
  EXPECT_EQ(Spilled(1, broken), "");
  EXPECT_EQ(core_.NextDeadline(), now_ + seconds(1));
  EXPECT_EQ(After(seconds(1)), "want segment 1 of 4");
  EXPECT_EQ(Overflow(1, broken), "spill 1");
  EXPECT_EQ(Spilled(1, broken), "");
  for (uint64_t i = 2; i < 10; ++i) {
    EXPECT_EQ(After(seconds(1)), "want segment " + std::to_string(i) + " of 4");
    EXPECT_EQ(Overflow(i, broken), "spill 1");
    EXPECT_EQ(Spilled(1, broken), "");
  }
  EXPECT_EQ(After(seconds(1)), "create 2 RESOURCE_EXHAUSTED");
  const Status& status = std::get<CreateReplied>(last_[0]).status;
  EXPECT_EQ(status.cause(), static_cast<int32_t>(ErrorType::kObjectStoreFull));
  EXPECT_NE(status.message().find("broken"), std::string::npos);
  EXPECT_EQ(Get(3, 8, {1}, seconds(0)), "get 3 1");  // and nothing is lost
}

TEST_F(ObjectTableSpillTest, AGetFailsWhenNothingHasRoom) {
  Put(1, 8);
  Create(2, 7, 2, 8 * kMiB);
  EXPECT_EQ(Spilled(1), "evicted 1; create 2 ok");
  Seal(7, 2);
  EXPECT_EQ(Get(3, 8, {2, 1}, milliseconds(-1)), "");  // its own use of 2 is in the way of 1
  for (uint64_t i = 1; i < 10; ++i) {
    EXPECT_EQ(After(seconds(1)), "want segment " + std::to_string(i) + " of 8");
    EXPECT_EQ(Overflow(i, Status::Internal("broken")), "");
  }
  EXPECT_EQ(After(seconds(1)), "get 3 RESOURCE_EXHAUSTED");  // nothing is pinned for it
  EXPECT_EQ(Get(4, 8, {1}, milliseconds(-1)), "spill 2");
  EXPECT_EQ(Spilled(2), "evicted 2; restore 1 to 0");
}

TEST_F(ObjectTableSpillTest, WhatCannotBeRestoredIsLostUntilMadeAgain) {
  Put(1, 8);
  Create(2, 7, 2, 8 * kMiB);
  Spilled(1);
  Abort(7, 2);
  EXPECT_EQ(Get(3, 8, {1, 9}, seconds(5)), "restore 1 to 0");
  EXPECT_EQ(Restored(1, Status::DataLoss("x")), "forget 1; deleted 1");
  EXPECT_EQ(After(seconds(5)), "get 3 lost 1 !9");
  EXPECT_EQ(Get(4, 8, {1}, milliseconds(-1)), "get 4 lost 1");
  Put(1, 1);
  EXPECT_EQ(Get(5, 8, {1}, milliseconds(-1)), "get 5 1");
}

// Random events of four clients about a dozen objects.
class RandomEvents {
 public:
  RandomEvents(uint32_t seed, const ObjectTableConfig& config) : rng(seed), core(config) {}
  ClientId AnyClient() { return 1 + rng() % 4; }
  ObjectId AnyObject() { return Id(static_cast<uint32_t>(rng() % 12)); }
  void Step() {
    now = now + milliseconds(rng() % 20);
    const ClientId client = AnyClient();
    const ObjectId id = AnyObject();
    switch (rng() % 12) {
      case 0:
      case 1:
      case 2:
        creates_.insert(++token_);
        core.Create({token_, client, id, (id.index() + 1) * 120000, "RAW", Owner(static_cast<uint8_t>(next_owner_ + rng() % 2)),
                     rng() % 2 == 0, rng() % 4 == 0},
                    now, &out);
        break;
      case 3:
      case 4:
      case 5: core.Seal(client, id, rng() % 2 == 0, now, &out); break;
      case 6: core.Abort(client, id, now, &out); break;
      case 7:
      case 8:
        gets_.insert(++token_);
        core.Get(token_, client, {id, AnyObject()}, now, now + milliseconds(rng() % 300), &out);
        break;
      case 9: core.Release(client, id, now, &out); break;
      case 10: core.Free({id}, now, &out); break;
      case 11:
        if (rng() % 4 == 0) {
          core.ClientGone(client, now, &out);
        } else if (rng() % 8 == 0) {
          core.OwnerDied(Owner(next_owner_++), now, &out);
        }
        break;
    }
  }
  void RunTimer() {
    if (core.NextDeadline() <= now) core.OnTimer(now, &out);
    ASSERT_TRUE(core.NextDeadline() > now);
  }
  // Each request is answered once, if need be when its client goes.
  void CheckReply(const Effect& effect) {
    if (auto* e = std::get_if<CreateReplied>(&effect)) {
      ASSERT_EQ(creates_.erase(e->token), 1u);
    }
    if (auto* e = std::get_if<GetReplied>(&effect)) {
      ASSERT_EQ(gets_.erase(e->token), 1u);
    }
  }
  void End() {
    for (ClientId client = 1; client <= 4; ++client) core.ClientGone(client, now, &out);
    for (const Effect& effect : out) CheckReply(effect);
    EXPECT_TRUE(creates_.empty() && gets_.empty());
    for (uint32_t i = 0; i < 12; ++i) core.Free({Id(i)}, now, &out);
  }

  std::mt19937_64 rng;
  ObjectTableCore core;
  Effects out;
  Time now{1};

 private:
  std::set<Token> creates_, gets_;  // without a reply yet
  Token token_ = 0;
  uint8_t next_owner_ = 0;
};

TEST_F(ObjectTableCoreTest, Property) {
  for (uint32_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    RandomEvents events(seed, {.capacity = 4 * kMiB, .create_grace = milliseconds(500)});
    ObjectTableCore& core = events.core;
    for (int step = 0; step < 600; ++step) {
      events.Step();
      events.RunTimer();
      for (const Effect& effect : events.out) events.CheckReply(effect);
      events.out.clear();
      ASSERT_EQ(core.TEST_CheckInvariants(), "") << "step " << step;
    }
    events.End();
    EXPECT_EQ(core.Stats(), (TableStats{4 * kMiB, 0, 0, 0, 0}));
    EXPECT_EQ(core.allocator().free_bytes(), core.allocator().capacity());
  }
}

// Random events, and a disk that answers late and fails at times.
TEST_F(ObjectTableCoreTest, PropertyWithADisk) {
  for (uint32_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    RandomEvents events(seed, {.capacity = 4 * kMiB,
                               .create_grace = milliseconds(500),
                               .disk = true,
                               .overflow_grace = milliseconds(50),
                               .spill_retry = milliseconds(30)});
    ObjectTableCore& core = events.core;
    std::mt19937_64& rng = events.rng;
    Effects& out = events.out;
    const Time& now = events.now;
    std::vector<Effect> disk;  // what it was asked for and has not done
    std::set<uint64_t> segments;
    std::set<ObjectId> files;
    for (int step = 0; step < 600; ++step) {
      events.Step();
      while (!disk.empty() && rng() % 3 == 0) {
        const size_t k = rng() % disk.size();
        const Effect effect = disk[k];
        disk.erase(disk.begin() + static_cast<std::ptrdiff_t>(k));
        const Status status = rng() % 6 == 0 ? Status::Internal("broken") : Status();
        if (auto* e = std::get_if<SpillStarted>(&effect)) {
          if (status.ok()) {
            ASSERT_TRUE(files.insert(e->id).second);
          }
          core.OnSpilled(e->id, status, now, &out);
        } else if (auto* e = std::get_if<RestoreStarted>(&effect)) {
          ASSERT_TRUE(files.contains(e->id));
          ASSERT_TRUE(e->place.segment == 0 || segments.contains(e->place.segment));
          core.OnRestored(e->id, status, now, &out);
        } else if (auto* e = std::get_if<OverflowWanted>(&effect)) {
          if (status.ok()) segments.insert(e->segment);
          core.OnOverflow(e->segment, status, now, &out);
        } else if (auto* e = std::get_if<ReclaimAsked>(&effect)) {
          for (const ObjectId& kept : e->ids) core.Release(e->client, kept, now, &out);
          core.OnReclaimed(e->client, now, &out);
        }
      }
      if (rng() % 8 == 0) core.OnReclaimed(events.AnyClient(), now, &out);
      events.RunTimer();
      for (const Effect& effect : out) {
        events.CheckReply(effect);
        if (auto* e = std::get_if<SpillForgotten>(&effect)) {
          ASSERT_EQ(files.erase(e->id), 1u);
        }
        if (auto* e = std::get_if<OverflowReleased>(&effect)) {
          ASSERT_EQ(segments.erase(e->segment), 1u);
        }
        if (std::holds_alternative<SpillStarted>(effect) || std::holds_alternative<RestoreStarted>(effect) ||
            std::holds_alternative<OverflowWanted>(effect) || std::holds_alternative<ReclaimAsked>(effect)) {
          disk.push_back(effect);
        }
      }
      out.clear();
      ASSERT_EQ(core.TEST_CheckInvariants(), "") << "step " << step;
    }
    events.End();
    for (const Effect& effect : std::exchange(out, {})) {
      if (std::holds_alternative<SpillStarted>(effect) || std::holds_alternative<RestoreStarted>(effect)) disk.push_back(effect);
    }
    for (const Effect& effect : disk) {
      if (auto* e = std::get_if<SpillStarted>(&effect)) core.OnSpilled(e->id, {}, now, &out);
      if (auto* e = std::get_if<RestoreStarted>(&effect)) core.OnRestored(e->id, {}, now, &out);
    }
    EXPECT_EQ(core.TEST_CheckInvariants(), "");
    EXPECT_EQ(core.Stats().num_objects + core.Stats().used + core.Stats().spilled_bytes + core.Stats().overflow_bytes, 0u);
    EXPECT_EQ(core.allocator().free_bytes(), core.allocator().capacity());
  }
}

}  // namespace
}  // namespace ray::object_manager
