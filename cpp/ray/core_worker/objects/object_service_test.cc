#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <thread>

#include "ray/core_worker/objects/object_service_fixture.h"

namespace ray::core {
namespace {

class ObjectServiceTest : public ::testing::Test {
 protected:
  ObjectServiceTest() {
    std::string dir = std::filesystem::temp_directory_path() / "objectsXXXXXX";
    RAY_CHECK(mkdtemp(dir.data()) != nullptr);
    dir_ = dir;
  }
  ~ObjectServiceTest() override {
    processes_.clear();
    std::filesystem::remove_all(dir_);
  }
  Process& New() {
    processes_.push_back(std::make_unique<Process>(dir_ + "/sockets", &store_, node_));
    return *processes_.back();
  }
  void Kill(Process& process) {
    const WorkerId worker = process.self.worker_id;
    std::erase_if(processes_, [&](const auto& p) { return p.get() == &process; });
    for (auto& other : processes_) {
      other->loop->Post("test", [peers = other->peers, worker] { peers->MarkDead(worker); });
    }
  }
  const NodeId node_ = NodeId::FromRandom();
  std::string dir_;
  MapStore store_;
  std::vector<std::unique_ptr<Process>> processes_;
};

TEST_F(ObjectServiceTest, SmallValuesStayInMemoryLargeOnesGoToTheStore) {
  Process& p = New();
  const ObjectId small = p.Put("hello");
  const std::string big(200 << 10, 'b');
  const ObjectId large = p.Put(big);
  EXPECT_EQ(store_.size(), 1u);
  EXPECT_EQ(p.Get(small, {}), "RAW:hello");
  EXPECT_EQ(p.Get(large, p.self), "RAW:" + big);
  ReadValue value;
  EXPECT_TRUE(p.objects->TryGet({large, {}}, &value));
  std::vector<Location> locations;
  ASSERT_TRUE(p.objects->GetLocations(std::vector<ObjectRefInfo>{{large, {}}}, -1, &locations).ok());
  EXPECT_EQ(locations[0].node_ids, std::vector<NodeId>{node_});
  p.objects->RemoveLocalRef(small);
  p.objects->RemoveLocalRef(large);
  EXPECT_EQ(store_.size(), 0u);
  EXPECT_EQ(p.freed, 2u);
  EXPECT_EQ(p.objects->memory().size(), 0u);
}

TEST_F(ObjectServiceTest, PythonValuesHaveTheirLayout) {
  Process& p = New();
  const std::string array(1000, 'z');
  const std::vector<ConstBytes> buffers{{array.data(), array.size()}};
  const std::string pickles[] = {"pickle", std::string(300 << 10, 'p')};  // in memory, in the store
  for (const std::string& pickle : pickles) {
    ObjectId id;
    ASSERT_TRUE(p.objects->Put({.metadata = "PYTHON", .data = pickle, .buffers = buffers}, &id).ok());
    ReadValue value;
    ASSERT_TRUE(p.objects->TryGet({id, {}}, &value));
    auto parsed = ParsePythonBlob(value.blob->view());
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(parsed->pickle, pickle);
    EXPECT_EQ(std::string_view(parsed->buffers[0].first, parsed->buffers[0].second), array);
  }
}

TEST_F(ObjectServiceTest, AGetWaitsForTheValueAndTellsThatItIsBlocked) {
  Process& p = New();
  const ObjectId id = p.NewPending();
  EXPECT_EQ(p.Get(id, {}, 0), "timeout");
  EXPECT_EQ(p.Get(id, {}, 5), "timeout");
  EXPECT_EQ(p.blocked, 1);
  std::thread completer([&] {
    p.Until([&] { return p.blocked == 2; });
    p.Complete(id, "late");
  });
  EXPECT_EQ(p.Get(id, {}), "RAW:late");
  completer.join();
}

TEST_F(ObjectServiceTest, AnErrorEndsAGetOfManyEarly) {
  Process& p = New();
  std::vector<ObjectRefInfo> refs{{p.NewPending(), {}}, {p.NewPending(), {}}};
  p.objects->StoreError(refs[1].id, "23", HeapBuffer::CopyOf("detail"));
  std::vector<ReadValue> out;
  EXPECT_EQ(p.objects->Get(refs, -1, &out), ReadResult::kReady);
  EXPECT_EQ(out[0].metadata, "");
  EXPECT_EQ(out[1].metadata, "23");
}

TEST_F(ObjectServiceTest, WaitTakesTheFirstReadyInOrder) {
  Process& p = New();
  std::vector<ObjectRefInfo> refs;
  for (int i = 0; i < 5; ++i) refs.push_back({p.NewPending(), {}});
  for (int i : {1, 3, 4}) p.Complete(refs[i].id, "x");
  std::vector<bool> ready;
  EXPECT_EQ(p.objects->Wait(refs, 2, -1, true, &ready), ReadResult::kReady);
  EXPECT_EQ(ready, (std::vector<bool>{false, true, false, true, false}));
  EXPECT_EQ(p.objects->Wait(refs, 4, 1, true, &ready), ReadResult::kTimeout);
  EXPECT_EQ(ready, (std::vector<bool>{false, true, false, true, true}));
}

TEST_F(ObjectServiceTest, ShutdownWakesTheBlocked) {
  Process& p = New();
  const ObjectId id = p.NewPending();
  std::thread stopper([&] {
    p.Until([&] { return p.blocked == 1; });
    p.objects->Shutdown();
  });
  std::vector<ReadValue> out;
  const ObjectRefInfo ref{id, {}};
  EXPECT_EQ(p.objects->Get({&ref, 1}, -1, &out), ReadResult::kClosed);
  stopper.join();
  ObjectId other;
  EXPECT_EQ(p.objects->Put({.metadata = "RAW"}, &other).code(), StatusCode::kCancelled);
}

TEST_F(ObjectServiceTest, BorrowedValuesAreFetchedFromTheirOwner) {
  Process &owner = New(), &borrower = New();
  const ObjectId small = owner.Put("small"), large = owner.Put(std::string(200 << 10, 'b')), pending = owner.NewPending();
  for (const ObjectId& id : {small, large, pending}) borrower.objects->AddBorrowedRef({id, owner.self}, {}, 0);
  EXPECT_EQ(borrower.Get(small, owner.self), "RAW:small");
  EXPECT_EQ(borrower.Get(large, owner.self).size(), 4u + (200 << 10));
  EXPECT_EQ(borrower.Get(pending, owner.self, 1), "timeout");
  std::atomic<bool> watched{false};
  borrower.objects->WatchObject({pending, owner.self}, [&] { watched = true; });
  owner.Complete(pending, "done");
  EXPECT_EQ(borrower.Get(pending, owner.self), "RAW:done");
  borrower.Until([&] { return watched.load(); });
  std::vector<Location> locations;
  ASSERT_TRUE(borrower.objects->GetLocations(std::vector<ObjectRefInfo>{{large, owner.self}, {small, owner.self}}, -1, &locations).ok());
  EXPECT_EQ(locations[0].node_ids.size(), 1u);
  EXPECT_TRUE(locations[1].known);

  // The borrower's handles hold the objects after the owner's own have gone.
  borrower.Until(
      [&] { return !borrower.objects->references().IsRegistering(small) && !borrower.objects->references().IsRegistering(large); });
  for (const ObjectId& id : {small, large, pending}) owner.objects->RemoveLocalRef(id);
  EXPECT_EQ(owner.freed, 0u);
  for (const ObjectId& id : {small, large, pending}) borrower.objects->RemoveLocalRef(id);
  owner.Until([&] { return owner.freed == 3; });
  EXPECT_EQ(store_.size(), 0u);
  EXPECT_EQ(borrower.objects->references().size(), 0u);
  EXPECT_EQ(borrower.objects->memory().size(), 0u);
}

TEST_F(ObjectServiceTest, RefsInsideFetchedValuesAreHeldThroughThem) {
  Process &a = New(), &b = New(), &c = New();
  // c has a value that contains a ref of a's and one of b's; b reads it.
  const ObjectId of_a = a.Put("of a"), of_b = b.Put("of b");
  c.objects->AddBorrowedRef({of_a, a.self}, {}, 0);
  c.objects->AddBorrowedRef({of_b, b.self}, {}, 0);
  c.Until([&] { return !c.objects->references().IsRegistering(of_a) && !c.objects->references().IsRegistering(of_b); });
  const ObjectId outer = c.Put("outer", {{of_a, a.self}, {of_b, b.self}});
  a.objects->RemoveLocalRef(of_a);
  b.objects->RemoveLocalRef(of_b);
  c.objects->RemoveLocalRef(of_a);
  c.objects->RemoveLocalRef(of_b);
  b.objects->AddBorrowedRef({outer, c.self}, {}, 0);
  EXPECT_EQ(b.Get(outer, c.self), "RAW:outer");
  b.objects->AddBorrowedRef({of_a, a.self}, outer, 0);
  b.objects->AddBorrowedRef({of_b, b.self}, outer, 0);
  b.Until([&] { return !b.objects->references().IsRegistering(outer); });
  b.objects->RemoveLocalRef(outer);
  c.objects->RemoveLocalRef(outer);
  c.Until([&] { return c.freed == 1; });
  EXPECT_EQ(b.Get(of_a, a.self), "RAW:of a");
  EXPECT_EQ(b.Get(of_b, b.self), "RAW:of b");
  b.objects->RemoveLocalRef(of_a);
  b.objects->RemoveLocalRef(of_b);
  a.Until([&] { return a.freed == 1; });
  b.Until([&] { return b.freed == 1; });
  for (Process* p : {&a, &b, &c}) p->Until([&] { return p->objects->references().size() == 0; });
}

TEST_F(ObjectServiceTest, ATaskRegistersWhatItKeepsAndHandsOverWhatItReturns) {
  Process &caller = New(), &executor = New(), &third = New();
  const ObjectId kept = third.Put("kept"), dropped = third.Put("dropped"), result = caller.NewPending();
  for (const ObjectId& id : {kept, dropped}) caller.objects->AddBorrowedRef({id, third.self}, {}, 0);
  caller.Until([&] { return !caller.objects->references().IsRegistering(kept) && !caller.objects->references().IsRegistering(dropped); });
  for (const ObjectId& id : {kept, dropped}) third.objects->RemoveLocalRef(id);
  const std::vector<ObjectId> args{kept, dropped};
  caller.objects->AddSubmitted(args);
  for (const ObjectId& id : args) caller.objects->RemoveLocalRef(id);

  for (const ObjectId& id : args) executor.objects->AddBorrowedRef({id, third.self}, {}, 77);
  executor.objects->RemoveLocalRef(dropped);
  const ObjectId made = executor.Put("made");
  const std::vector<ObjectRefInfo> nested{{kept, third.self}, {made, executor.self}};
  std::atomic<bool> safe{false};
  executor.objects->HandOver(nested, caller.self, [&] { executor.objects->RegisterBorrowsAndThen(77, [&] { safe = true; }); });
  executor.Until([&] { return safe.load(); });

  ReturnValue value;
  value.id = result;
  value.metadata = "RAW";
  value.blob = HeapBuffer::CopyOf("result");
  value.nested = nested;
  value.sender = executor.self.worker_id;
  caller.objects->StoreReturn(value);
  caller.objects->RemoveSubmitted(args);
  executor.objects->RemoveLocalRef(made);
  third.Until([&] { return third.freed == 1; });  // `dropped`
  executor.objects->RemoveLocalRef(kept);
  EXPECT_EQ(caller.Get(result, {}), "RAW:result");
  caller.objects->AddBorrowedRef({made, executor.self}, result, 0);
  EXPECT_EQ(caller.Get(made, executor.self), "RAW:made");
  caller.objects->RemoveLocalRef(made);
  caller.objects->RemoveLocalRef(result);
  third.Until([&] { return third.freed == 2; });
  executor.Until([&] { return executor.freed == 1; });
}

TEST_F(ObjectServiceTest, ADeadOwnerFailsItsObjectsAndADeadBorrowerHoldsNothing) {
  Process &p = New(), &owner = New();
  const ObjectId theirs = owner.NewPending(), cached = owner.Put("cached"), mine = p.Put("mine");
  for (const ObjectId& id : {theirs, cached}) p.objects->AddBorrowedRef({id, owner.self}, {}, 0);
  owner.objects->AddBorrowedRef({mine, p.self}, {}, 0);
  EXPECT_EQ(p.Get(cached, owner.self), "RAW:cached");
  owner.Until([&] { return !owner.objects->references().IsRegistering(mine); });
  p.objects->RemoveLocalRef(mine);
  EXPECT_EQ(p.freed, 0u);
  const Address dead = owner.self;
  const int blocked = p.blocked;  // reading the cached one may have taken long enough to count
  std::thread killer([&] {
    p.Until([&] { return p.blocked > blocked; });
    Kill(owner);
  });
  const std::string value = p.Get(theirs, dead);
  killer.join();
  EXPECT_EQ(value.substr(0, 2), "9:");
  auto detail = ParseErrorValue("9", value.substr(2));
  ASSERT_TRUE(detail.ok());
  v1::Address named;
  EXPECT_TRUE(named.ParseFromString(detail->owner_address()));
  EXPECT_EQ(FromProto(named), dead);
  EXPECT_EQ(p.Get(cached, dead), "RAW:cached");
  p.Until([&] { return p.freed == 1; });
}

TEST_F(ObjectServiceTest, AnOwnerThatCannotBeReachedNowIsNotDead) {
  Process &owner = New(), &p = New();
  const ObjectId id = owner.Put("x");
  p.out_of_descriptors = true;
  p.objects->AddBorrowedRef({id, owner.self}, {}, 0);
  EXPECT_EQ(p.Get(id, owner.self, 20), "timeout");
  EXPECT_TRUE(p.objects->references().IsRegistering(id));
  p.out_of_descriptors = false;
  EXPECT_EQ(p.Get(id, owner.self), "RAW:x");
  p.Until([&] { return !p.objects->references().IsRegistering(id); });
  owner.objects->RemoveLocalRef(id);
  EXPECT_EQ(owner.freed, 0u);
  p.objects->RemoveLocalRef(id);
  owner.Until([&] { return owner.freed == 1; });
}

TEST_F(ObjectServiceTest, WhenTheStoreIsGoneItIsTheRayletThatHasDied) {
  Process& p = New();
  const ObjectId id = p.Put(std::string(200'000, 'x'));
  EXPECT_EQ(p.Get(id, p.self).size(), 200'004u);
  store_.gone = true;
  EXPECT_TRUE(p.Get(id, p.self).starts_with(ErrorMetadata(ErrorType::kLocalRayletDied) + ":"));
  p.objects->RemoveLocalRef(id);
}

TEST_F(ObjectServiceTest, AnObjectThatItsOwnerFreedIsLost) {
  Process &owner = New(), &p = New();
  const ObjectId id = owner.Put("x");
  owner.objects->RemoveLocalRef(id);
  p.objects->AddBorrowedRef({id, owner.self}, {}, 0);
  EXPECT_EQ(p.Get(id, owner.self).substr(0, 2), "8:");
  p.objects->RemoveLocalRef(id);
  owner.objects->AddBorrowedRef({id, {}}, {}, 0);
  EXPECT_EQ(owner.Get(id, {}).substr(0, 2), "8:");
}

TEST_F(ObjectServiceTest, ReturnsThatNobodyWantsAreFreed) {
  Process &caller = New(), &executor = New();
  const ObjectId id = caller.NewPending(), inner = executor.Put("inner");
  const std::string big(200 << 10, 'b');
  StoredReturn stored;
  ASSERT_TRUE(executor.objects->MakeReturn({id, 0}, caller.self, {.metadata = "RAW", .data = big}, &stored).ok());
  EXPECT_TRUE(stored.in_store);
  const std::vector<ObjectRefInfo> nested{{inner, executor.self}};
  bool handed = false;
  executor.objects->HandOver(nested, caller.self, [&] { handed = true; });
  EXPECT_TRUE(handed);
  executor.objects->RemoveLocalRef(inner);
  caller.objects->RemoveLocalRef(id);
  ReturnValue value;
  value.id = id;
  value.metadata = "RAW";
  value.in_store = true;
  value.node_id = node_;
  value.size = stored.size;
  value.nested = nested;
  caller.objects->StoreReturn(value);
  EXPECT_EQ(store_.size(), 0u);
  executor.Until([&] { return executor.freed == 1; });
}

TEST_F(ObjectServiceTest, ACopyThatTheStoreHasLostEndsAGetWithoutTimeout) {
  Process &owner = New(), &borrower = New();
  const ObjectId id = owner.Put(std::string(200 << 10, 'b'));
  borrower.objects->AddBorrowedRef({id, owner.self}, {}, 0);
  store_.Free({id});
  EXPECT_EQ(owner.Get(id, {}, -1).substr(0, 2), "8:");
  EXPECT_EQ(borrower.Get(id, owner.self, -1).substr(0, 2), "8:");
}

// The callers of Get take what is there after a signal too, and ask again for the rest.
TEST_F(ObjectServiceTest, ASignalWhileTheStoreIsReadLeavesNoEmptyValues) {
  Process& owner = New();
  const std::string large(200 << 10, 'x');
  const std::vector<ObjectRefInfo> refs = {{owner.Put(large), owner.self}, {owner.Put("small"), owner.self}};
  std::vector<ReadValue> out;
  store_.interrupt_next_get = true;
  EXPECT_EQ(owner.objects->Get(refs, 20000, &out), ReadResult::kInterrupted);
  EXPECT_EQ(out[0].metadata, "");
  EXPECT_EQ(out[1].metadata, "RAW");
  EXPECT_EQ(owner.objects->Get(refs, 20000, &out), ReadResult::kReady);
  EXPECT_EQ(out[0].blob->view(), large);
}

TEST_F(ObjectServiceTest, ValuesOfADiscardedAttemptGiveBackWhatCameWithThem) {
  Process &caller = New(), &executor = New();
  const ObjectId id = caller.NewPending(), inner = executor.Put("inner");
  StoredReturn stored;
  ASSERT_TRUE(executor.objects->MakeReturn({id, 0}, caller.self, {.metadata = "RAW", .data = std::string(200 << 10, 'b')}, &stored).ok());
  ReturnValue value;
  value.id = id;
  value.in_store = true;
  value.nested = {{inner, executor.self}};
  value.sender = executor.self.worker_id;
  executor.objects->HandOver(value.nested, caller.self, [] {});
  executor.objects->RemoveLocalRef(inner);
  caller.objects->Discard(value);
  EXPECT_EQ(store_.size(), 0u);
  executor.Until([&] { return executor.freed == 1; });
  caller.Complete(id, "of the next attempt");
  EXPECT_EQ(caller.Get(id, {}), "RAW:of the next attempt");
}

TEST_F(ObjectServiceTest, ManyRefsComeAndGoFromManyThreads) {
  Process &owner = New(), &p = New();
  std::vector<ObjectId> ids;
  std::vector<ObjectRefInfo> refs;
  for (int i = 0; i < 1000; ++i) {
    ids.push_back(owner.NewPending());
    refs.push_back({ids.back(), owner.self});
    p.objects->AddBorrowedRef(refs.back(), {}, 0);
  }
  std::thread completer([&] {
    for (const ObjectId& id : ids) owner.Complete(id, "v");
  });
  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&] {
      std::vector<ReadValue> out;
      ReadResult result;
      while ((result = p.objects->Get(refs, 30000, &out)) == ReadResult::kInterrupted) {
      }
      EXPECT_EQ(result, ReadResult::kReady);
      for (const ReadValue& value : out) EXPECT_EQ(value.metadata, "RAW");
    });
  }
  completer.join();
  for (auto& reader : readers) reader.join();
  for (const ObjectId& id : ids) p.objects->RemoveLocalRef(id);
  for (const ObjectId& id : ids) owner.objects->RemoveLocalRef(id);
  owner.Until([&] { return owner.freed == ids.size(); });
}

}  // namespace
}  // namespace ray::core
