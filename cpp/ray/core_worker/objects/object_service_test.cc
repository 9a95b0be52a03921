#include "ray/core_worker/objects/object_service.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <future>
#include <optional>
#include <set>
#include <thread>

#include "ray/rpc/local/local_carrier.h"
#include "ray/wire/convert.h"
#include "ray/wire/value_layout.h"

namespace ray::core {
namespace {

// The store of a node, shared by its processes.
class MapStore final : public ValueStore {
 public:
  Status Write(const ObjectId& id, uint64_t size, std::string_view, const Address&, uint32_t,
               const std::function<Status(const PieceWriter&)>& fill) override {
    auto buffer = std::make_shared<HeapBuffer>(size);
    RAY_RETURN_NOT_OK(fill([&](size_t offset, const char* bytes, size_t n) {
      if (n != 0) std::memcpy(buffer->mutable_data() + offset, bytes, n);
      return Status::Ok();
    }));
    MutexLock lock(&mu_);
    objects_[id] = buffer;
    return Status::Ok();
  }
  Result<std::vector<FoundValue>> Get(const std::vector<ObjectId>& ids, Time, bool* interrupted) override {
    std::vector<FoundValue> found(ids.size());
    if ((*interrupted = interrupt_next_get.exchange(false))) return found;
    if (gone) return Status(StatusCode::kUnavailable, "the object store is gone", static_cast<int32_t>(ErrorType::kLocalRayletDied));
    found.clear();
    for (const ObjectId& id : ids) found.push_back({TryGet(id)});
    return found;
  }
  BufferPtr TryGet(const ObjectId& id) override {
    MutexLock lock(&mu_);
    auto it = objects_.find(id);
    return it == objects_.end() || gone ? nullptr : it->second;
  }
  Result<std::vector<bool>> Contains(const std::vector<ObjectId>& ids) override {
    std::vector<bool> contained;
    for (const ObjectId& id : ids) contained.push_back(TryGet(id) != nullptr);
    return contained;
  }
  void Free(const std::vector<ObjectId>& ids) override {
    MutexLock lock(&mu_);
    for (const ObjectId& id : ids) objects_.erase(id);
  }
  Status FreeAndWait(const std::vector<ObjectId>& ids) override {
    Free(ids);
    return Status::Ok();
  }
  size_t size() {
    MutexLock lock(&mu_);
    return objects_.size();
  }

  std::atomic<bool> interrupt_next_get = false;
  std::atomic<bool> gone = false;  // with its raylet

 private:
  Mutex mu_;
  std::unordered_map<ObjectId, BufferPtr, IdHash> objects_;
};

// One process: a loop with its I/O thread, a carrier that listens under the worker's name, and the service.
struct Process {
  Process(const std::string& dir, MapStore* store, const NodeId& node, Duration pull_linger = std::chrono::seconds(1))
      : self{node, WorkerId::FromRandom()} {
    auto made = async::EpollLoop::Make({});
    RAY_CHECK(made.ok());
    loop = *std::move(made);
    auto dispatcher = std::make_shared<rpc::Dispatcher>(), front = std::make_shared<rpc::Dispatcher>();
    front->RegisterFallback([this, dispatcher](rpc::Request request, rpc::Responder responder) {
      const rpc::ConnectionPtr connection = request.connection;
      const Way fares = way ? way(request.method) : Way::kHolds;
      if (fares != Way::kHolds) connection->Close(Status::Unavailable("the way broke"));
      if (fares != Way::kBreaksBefore) dispatcher->Dispatch(std::move(request), std::move(responder));
    });
    peers = PeerPool::Make(
        [this](const std::string& name) -> Result<rpc::ConnectionPtr> {
          if (out_of_descriptors) return Status::ResourceExhausted("too many open files");
          return carrier->Connect(name);
        },
        loop.get());
    ObjectService::Deps deps;
    deps.loop = loop.get();
    deps.store = store;
    deps.peers = peers;
    deps.self = self;
    deps.job_id = JobId::FromInt(1);
    deps.options.missing_after = std::chrono::milliseconds(1);
    deps.options.pull_linger = pull_linger;
    deps.options.owner_retry = std::chrono::milliseconds(1);
    deps.on_lost = [this](const ObjectId& id) {
      if (on_lost) {
        on_lost(id);
      } else {
        ErrorValue error = MakeErrorValue(ErrorType::kObjectLost, "lost");
        objects->StoreError(id, error.metadata, error.blob);
      }
    };
    deps.on_blocked = [this](bool on) { blocked += on ? 1 : 0; };
    deps.on_freed = [this](std::span<const ObjectId> ids, std::span<const ObjectId>) { freed += ids.size(); };
    objects = ObjectService::Make(std::move(deps));
    objects->RegisterHandlers(dispatcher.get());
    auto carried = rpc::LocalCarrier::Make(loop.get(), front, {.sockets_dir = dir});
    RAY_CHECK(carried.ok()) << carried.status().ToString();
    carrier = *std::move(carried);
    RAY_CHECK(carrier->Listen(WorkerSocketName(self.worker_id), [](const rpc::ConnectionPtr&) {}).ok());
    RAY_CHECK(loop->Start().ok());
  }
  ~Process() {
    objects->Shutdown();
    peers->Close();
    carrier->Shutdown();
    loop->Stop();
  }
  ObjectId Put(std::string_view text, std::vector<ObjectRefInfo> nested = {}) {
    ObjectId id;
    RAY_CHECK(objects->Put({.metadata = "RAW", .data = text, .nested = nested}, &id).ok());
    return id;
  }
  std::string Get(const ObjectId& id, const Address& owner, int64_t timeout_ms = 20000) {
    std::vector<ReadValue> out;
    const ObjectRefInfo ref{id, owner};
    ReadResult result;
    while ((result = objects->Get({&ref, 1}, timeout_ms, &out)) == ReadResult::kInterrupted) {
    }
    if (result != ReadResult::kReady) return "timeout";
    return out[0].metadata + ":" + std::string(out[0].blob->view());
  }
  ObjectId NewPending() {
    const ObjectId id = ObjectId::ForReturn(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 0);
    objects->AddOwned({&id, 1});
    return id;
  }
  void Complete(const ObjectId& id, std::string_view text) {
    ReturnValue value;
    value.id = id;
    value.metadata = "RAW";
    value.blob = HeapBuffer::CopyOf(text);
    objects->StoreReturn(value);
  }
  // What other threads bring about; bounded by the test's own time limit.
  template <typename Condition>
  void Until(Condition condition) {
    while (!condition()) std::this_thread::yield();
  }

  const Address self;
  std::function<void(const ObjectId&)> on_lost;  // set before anything is lost
  // How a request that arrives fares, if its way breaks: it gets here and is not handled, or is and its answer gets lost. Set before the first comes.
  enum class Way { kHolds, kBreaksBefore, kBreaksBehind };
  std::function<Way(MethodId)> way;
  std::atomic<bool> out_of_descriptors{false};
  std::atomic<int> blocked{0};
  std::atomic<size_t> freed{0};
  std::unique_ptr<async::EpollLoop> loop;
  std::unique_ptr<rpc::LocalCarrier> carrier;
  std::shared_ptr<PeerPool> peers;
  std::shared_ptr<ObjectService> objects;
};

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

// Two nodes, each with a store and a process; one server plays both raylets and moves objects between the stores.
class RemoteObjectsTest : public ::testing::Test {
 protected:
  RemoteObjectsTest() {
    std::string dir = std::filesystem::temp_directory_path() / "remoteXXXXXX";
    RAY_CHECK(mkdtemp(dir.data()) != nullptr);
    dir_ = dir;
    raylet_loop_ = async::EpollLoop::Make({}).value();
    auto dispatcher = std::make_shared<rpc::Dispatcher>();
    dispatcher->RegisterTyped<v1::PullObjectRequest>(
        MethodId::kPullObject, [this](const v1::PullObjectRequest& m, rpc::Request& request, rpc::Responder responder) {
          ++pulls_;
          if (hold_pulls_) {
            held_.push_back(std::move(responder));
            return;
          }
          v1::PullObjectReply reply;
          const ObjectId id = ObjectId::FromBinaryOrNil(m.object_id());
          BufferPtr bytes;
          for (auto& node : nodes_) {
            if (node->connection_ids.contains(request.connection->id())) bytes = node->store.TryGet(id);
          }
          for (const std::string& node : m.node_ids()) {
            if (bytes != nullptr) break;
            Node* from = Find(NodeId::FromBinaryOrNil(node));
            bytes = from == nullptr ? nullptr : from->store.TryGet(id);
            if (bytes != nullptr) break;
            reply.add_missing_node_ids(node);
          }
          if (bytes != nullptr) {
            for (auto& node : nodes_) {
              if (node->connection_ids.contains(request.connection->id())) CopyTo(&node->store, id, bytes);
            }
            reply.set_ready(true);
          }
          if (lose_answers_ > 0) {
            --lose_answers_;
            return responder.Fail(Status::Unavailable("the way broke"));
          }
          responder.Send(reply);
        });
    for (MethodId method : {MethodId::kFreeCopies, MethodId::kKeepCopies}) {
      dispatcher->RegisterTyped<v1::CopiesNotice>(method, [this, method](const v1::CopiesNotice& m, rpc::Request&, rpc::Responder) {
        for (const auto& to : m.nodes()) {
          Node* node = Find(NodeId::FromBinaryOrNil(to.node_id()));
          for (const std::string& id : to.object_ids()) {
            if (method == MethodId::kKeepCopies) ++kept_;
            if (method == MethodId::kFreeCopies && node != nullptr) node->store.Free({ObjectId::FromBinaryOrNil(id)});
          }
        }
      });
    }
    dispatcher->RegisterTyped<v1::CancelPullNotice>(MethodId::kCancelPull,
                                                    [this](const v1::CancelPullNotice&, rpc::Request&, rpc::Responder) { ++cancelled_; });
    raylet_carrier_ = rpc::LocalCarrier::Make(raylet_loop_.get(), dispatcher, {.sockets_dir = dir_ + "/sockets"}).value();
    for (int i = 0; i < 2; ++i) {
      auto node = std::make_unique<Node>();
      const std::string socket = "raylet" + std::to_string(i);
      RAY_CHECK(
          raylet_carrier_->Listen(socket, [raw = node.get()](const rpc::ConnectionPtr& c) { raw->connection_ids.insert(c->id()); }).ok());
      node->socket = socket;
      nodes_.push_back(std::move(node));
    }
    RAY_CHECK(raylet_loop_->Start().ok());
    for (auto& node : nodes_) {
      node->process = std::make_unique<Process>(dir_ + "/sockets", &node->store, node->id, /*pull_linger=*/std::chrono::milliseconds(1));
      node->process->peers->SetRaylet(node->process->carrier->Connect(node->socket).value());
    }
  }
  ~RemoteObjectsTest() override {
    for (auto& node : nodes_) {
      node->process->peers->raylet()->Close(Status::Cancelled("done"));
      node->process.reset();
    }
    held_.clear();
    raylet_carrier_->Shutdown();
    raylet_loop_->Stop();
    std::filesystem::remove_all(dir_);
  }
  struct Node {
    const NodeId id = NodeId::FromRandom();
    std::string socket;
    MapStore store;
    std::set<uint64_t> connection_ids;
    std::unique_ptr<Process> process;
  };
  Node* Find(const NodeId& id) {
    for (auto& node : nodes_) {
      if (node->id == id) return node.get();
    }
    return nullptr;
  }
  static void CopyTo(MapStore* store, const ObjectId& id, const BufferPtr& bytes) {
    RAY_CHECK(store
                  ->Write(id, bytes->size(), "RAW", {}, 0,
                          [&](const PieceWriter& write) { return write(0, reinterpret_cast<const char*>(bytes->data()), bytes->size()); })
                  .ok());
  }
  // A result of a task of `owner` that lies on `node`.
  ObjectId ReturnOn(Process& owner, Node& node, uint32_t attempt = 0, std::optional<ObjectId> again = std::nullopt) {
    const ObjectId id = again ? *again : owner.NewPending();
    CopyTo(&node.store, id, HeapBuffer::CopyOf(big_));
    ReturnValue value;
    value.id = id;
    value.metadata = "RAW";
    value.in_store = true;
    value.node_id = node.id;
    value.size = big_.size();
    value.attempt = attempt;
    owner.objects->StoreReturn(value);
    return id;
  }
  std::set<NodeId> NodesOf(Process& owner, const ObjectId& id) {
    std::vector<Location> locations;
    RAY_CHECK(owner.objects->GetLocations(std::vector<ObjectRefInfo>{{id, {}}}, -1, &locations).ok());
    return {locations[0].node_ids.begin(), locations[0].node_ids.end()};
  }
  Process& here() { return *nodes_[0]->process; }
  Process& there() { return *nodes_[1]->process; }

  const std::string big_ = std::string(200 << 10, 'b');
  std::string dir_;
  std::unique_ptr<async::EpollLoop> raylet_loop_;
  std::unique_ptr<rpc::LocalCarrier> raylet_carrier_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<rpc::Responder> held_;
  std::atomic<bool> hold_pulls_{false};
  std::atomic<int> lose_answers_{0};  // so many pulls are done, and nobody hears of it
  std::atomic<int> pulls_{0}, kept_{0}, cancelled_{0};
};

TEST_F(RemoteObjectsTest, AGetFetchesACopyThatIsListedAndFreed) {
  const ObjectId id = ReturnOn(here(), *nodes_[1]);
  EXPECT_TRUE(here().objects->IsReady(id));
  EXPECT_FALSE(here().objects->IsLocal(id));
  EXPECT_EQ(here().Get(id, {}), "RAW:" + big_);
  EXPECT_EQ(NodesOf(here(), id), (std::set<NodeId>{nodes_[0]->id, nodes_[1]->id}));
  EXPECT_EQ(here().Get(id, {}), "RAW:" + big_);
  EXPECT_EQ(pulls_, 1);
  here().objects->RemoveLocalRef(id);
  here().Until([&] { return nodes_[0]->store.size() + nodes_[1]->store.size() == 0; });
}

TEST_F(RemoteObjectsTest, ABorrowerTellsTheOwnerOfItsCopy) {
  const ObjectId id = here().Put(big_);
  there().objects->AddBorrowedRef({id, here().self}, ObjectId::Nil(), 0);
  EXPECT_EQ(there().Get(id, here().self), "RAW:" + big_);
  here().Until([&] { return NodesOf(here(), id).size() == 2; });
  // Its owner goes: the copies that the stores have do not count.
  there().loop->Post("test", [&] { there().objects->OnNodeDied(nodes_[0]->id); });
  there().Until([&] { return there().Get(id, here().self, 100).starts_with("9:"); });
}

TEST_F(RemoteObjectsTest, ANodeThatIsToKeepACopyIsAskedUntilItSaysWhetherItDoes) {
  const rpc::ConnectionPtr owner = there().carrier->Connect(WorkerSocketName(here().self.worker_id)).value();
  const auto move = [&](const ObjectId& id) {
    v1::MoveCopiesRequest request;
    request.set_node_id(nodes_[1]->id.Binary());
    request.set_target_node_id(nodes_[0]->id.Binary());
    request.add_object_ids(id.Binary());
    std::promise<int> not_moved;
    rpc::CallTyped<v1::MoveCopiesReply>(*owner, MethodId::kMoveCopies, request, {},
                                        [&](const Status& status, const v1::MoveCopiesReply& reply, const PartList&) {
                                          not_moved.set_value(status.ok() ? reply.not_moved_size() : -1);
                                        });
    return not_moved.get_future().get();
  };
  const ObjectId told = ReturnOn(here(), *nodes_[1]);
  EXPECT_EQ(move(told), 0);
  EXPECT_EQ(NodesOf(here(), told).size(), 2u);
  const ObjectId lost = ReturnOn(here(), *nodes_[1]);
  lose_answers_ = 2;
  EXPECT_EQ(move(lost), 1);
  here().Until([&] { return NodesOf(here(), lost).size() == 2; });
  EXPECT_EQ(pulls_, 4);
  // Nobody wants it any more when it is asked about.
  const ObjectId freed = ReturnOn(here(), *nodes_[1]);
  lose_answers_ = 1;
  EXPECT_EQ(move(freed), 1);
  for (const ObjectId& id : {told, lost, freed}) here().objects->RemoveLocalRef(id);
  here().Until([&] { return nodes_[0]->store.size() + nodes_[1]->store.size() == 0; });
}

TEST_F(RemoteObjectsTest, BorrowersThatHaveGivenAllBackAreForgottenWithTheirNode) {
  const ObjectId id = here().Put("x");
  there().objects->AddBorrowedRef({id, here().self}, ObjectId::Nil(), 0);
  there().Until([&] { return !there().objects->references().IsRegistering(id); });
  here().objects->RemoveLocalRef(id);
  there().objects->RemoveLocalRef(id);
  here().Until([&] { return here().freed == 1; });
  EXPECT_EQ(here().objects->num_heard(), 1u);
  here().objects->OnNodeDied(nodes_[1]->id);
  EXPECT_EQ(here().objects->num_heard(), 0u);
}

// Two of three messages of that method find that their way breaks.
auto Breaks(MethodId which, Process::Way how) {
  return [which, how, n = 0](MethodId method) mutable { return method == which && ++n % 3 != 0 ? how : Process::Way::kHolds; };
}

class BrokenWayTest : public RemoteObjectsTest, public ::testing::WithParamInterface<Process::Way> {};
INSTANTIATE_TEST_SUITE_P(All, BrokenWayTest, ::testing::Values(Process::Way::kBreaksBefore, Process::Way::kBreaksBehind));

TEST_P(BrokenWayTest, ABorrowerIsRegisteredOnceOverWaysThatBreak) {
  here().way = Breaks(MethodId::kAddBorrowers, GetParam());
  const ObjectId id = here().Put("kept");
  there().objects->AddBorrowedRef({id, here().self}, {}, /*task=*/1);
  std::atomic<bool> registered = false;
  there().objects->RegisterBorrowsAndThen(1, [&] { registered = true; });
  there().Until([&] { return registered.load(); });
  here().objects->RemoveLocalRef(id);
  EXPECT_EQ(here().freed, 0u);
  EXPECT_EQ(there().Get(id, here().self), "RAW:kept");
  there().objects->RemoveLocalRef(id);
  here().Until([&] { return here().freed == 1; });
}

TEST_P(BrokenWayTest, ARefIsHandedOverOnceOverWaysThatBreak) {
  // A third process hands the ref to `there`.
  here().way = Breaks(MethodId::kAddBorrowers, GetParam());
  Process third(dir_ + "/sockets", &nodes_[1]->store, nodes_[1]->id);
  const ObjectId id = here().Put("inner");
  third.objects->AddBorrowedRef({id, here().self}, {}, 0);
  third.Until([&] { return !third.objects->references().IsRegistering(id); });
  here().objects->RemoveLocalRef(id);
  const ObjectId outer = third.Put("outer", {{id, here().self}});
  third.objects->RemoveLocalRef(id);
  there().objects->AddBorrowedRef({outer, third.self}, {}, 0);
  EXPECT_EQ(there().Get(outer, third.self), "RAW:outer");
  there().objects->AddBorrowedRef({id, here().self}, outer, 0);
  there().Until([&] { return !there().objects->references().IsRegistering(outer); });
  there().objects->RemoveLocalRef(outer);
  third.objects->RemoveLocalRef(outer);
  third.Until([&] { return third.freed == 1; });
  EXPECT_EQ(there().Get(id, here().self), "RAW:inner");
  there().objects->RemoveLocalRef(id);
  here().Until([&] { return here().freed == 1; });
}

TEST_P(BrokenWayTest, WhatIsInsideAnAnswerIsLentOnceOverWaysThatBreak) {
  here().way = Breaks(MethodId::kGetObject, GetParam());
  const ObjectId inner = here().Put("inner"), outer = here().Put("outer", {{inner, {}}});
  here().objects->RemoveLocalRef(inner);
  there().objects->AddBorrowedRef({outer, here().self}, {}, 0);
  EXPECT_EQ(there().Get(outer, here().self), "RAW:outer");
  there().Until([&] { return !there().objects->references().IsRegistering(outer); });
  here().objects->RemoveLocalRef(outer);
  EXPECT_EQ(here().freed, 0u);
  there().objects->RemoveLocalRef(outer);
  here().Until([&] { return here().freed == 2; });
  EXPECT_EQ(there().objects->references().size(), 0u);
}

TEST_P(BrokenWayTest, CountsGoBackOnceOverWaysThatBreak) {
  const ObjectId id = here().Put("x"), other = here().Put("y");
  const std::vector<ObjectRefInfo> lent{{id, here().self}};
  std::atomic<bool> came_again = false;
  here().way = [&, n = 0](MethodId method) mutable {
    if (method != MethodId::kRemoveBorrowers || ++n > 2) return Process::Way::kHolds;
    if (n == 1) return GetParam();
    // Lent to it once more before the message comes again: were that one counted twice, this count would be lost.
    here().objects->HandOver(lent, there().self, [] {});
    came_again = true;
    return Process::Way::kHolds;
  };
  for (const ObjectId& each : {id, other}) there().objects->AddBorrowedRef({each, here().self}, {}, 0);
  auto registered = [&](const ObjectId& each) { return !there().objects->references().IsRegistering(each); };
  there().Until([&] { return registered(id) && registered(other); });
  here().objects->RemoveLocalRef(other);
  // Both go back in one message.
  const ObjectId holder = there().Put("holder", {{id, here().self}, {other, here().self}});
  for (const ObjectId& each : {id, other, holder}) there().objects->RemoveLocalRef(each);
  here().Until([&] { return here().freed == 1 && came_again.load(); });
  async::Waiter settled;
  here().loop->Post("test", [&] { settled.Notify(); });
  here().Until([&] { return settled.IsSet(); });
  here().objects->RemoveLocalRef(id);
  EXPECT_EQ(here().freed, 1u);
  ReturnValue unwanted;
  unwanted.nested = lent;
  there().objects->Discard(unwanted);
  here().Until([&] { return here().freed == 2; });
}

TEST_F(RemoteObjectsTest, WaitTellsReadyFromHere) {
  const ObjectId id = ReturnOn(here(), *nodes_[1]);
  const std::vector<ObjectRefInfo> refs{{id, {}}};
  std::vector<bool> ready;
  EXPECT_EQ(here().objects->Wait(refs, 1, 0, /*fetch_local=*/false, &ready), ReadResult::kReady);
  EXPECT_EQ(pulls_, 0);
  EXPECT_EQ(here().objects->Wait(refs, 1, -1, /*fetch_local=*/true, &ready), ReadResult::kReady);
  EXPECT_TRUE(here().objects->IsLocal(id));
  EXPECT_EQ(pulls_, 1);
}

TEST_F(RemoteObjectsTest, AWaitThatEndsLeavesThePullAfterAWhile) {
  hold_pulls_ = true;
  const ObjectId id = ReturnOn(here(), *nodes_[1]);
  EXPECT_EQ(here().Get(id, {}, 5), "timeout");
  std::vector<bool> ready;
  EXPECT_EQ(here().objects->Wait(std::vector<ObjectRefInfo>{{id, {}}}, 1, 5, true, &ready), ReadResult::kTimeout);
  EXPECT_FALSE(ready[0]);
  here().Until([&] { return cancelled_ >= 1; });
}

TEST_F(RemoteObjectsTest, WhatIsMissingIsLostAndMadeAgain) {
  std::atomic<int> lost{0};
  here().on_lost = [&](const ObjectId&) { ++lost; };
  const ObjectId id = ReturnOn(here(), *nodes_[1]);
  nodes_[1]->store.Free({id});
  std::string got;
  std::thread reader([&] { got = here().Get(id, {}); });
  here().Until([&] { return lost == 1; });
  EXPECT_FALSE(here().objects->IsReady(id));
  ReturnOn(here(), *nodes_[1], /*attempt=*/1, id);
  reader.join();
  EXPECT_EQ(got, "RAW:" + big_);
  EXPECT_EQ(lost, 1);
}

TEST_F(RemoteObjectsTest, AnArgumentIsBroughtBeforeItCountsAsReady) {
  const ObjectId id = ReturnOn(here(), *nodes_[1]), lost = ReturnOn(here(), *nodes_[1]);
  nodes_[1]->store.Free({lost});
  std::atomic<int> made_again = 0, brought = 0;
  here().on_lost = [&](const ObjectId&) { ++made_again; };
  here().objects->BringObject({id, {}}, [&] { brought += here().objects->IsLocal(id) ? 1 : 100; });
  here().Until([&] { return brought != 0; });
  EXPECT_EQ(brought, 1);
  here().objects->BringObject({lost, {}}, [&] { brought += here().objects->IsLocal(lost) ? 1 : 100; });
  here().Until([&] { return made_again == 1; });
  EXPECT_EQ(brought, 1);
  ReturnOn(here(), *nodes_[1], /*attempt=*/1, lost);
  here().Until([&] { return brought != 1; });
  EXPECT_EQ(brought, 2);
}

TEST_F(RemoteObjectsTest, ABorrowerThatLooksInVainWaitsForTheOwner) {
  std::atomic<int> lost{0};
  here().on_lost = [&](const ObjectId&) { ++lost; };
  const ObjectId id = ReturnOn(here(), *nodes_[0]);
  there().objects->AddBorrowedRef({id, here().self}, ObjectId::Nil(), 0);
  nodes_[0]->store.Free({id});
  std::string got;
  std::thread reader([&] { got = there().Get(id, here().self); });
  here().Until([&] { return lost == 1; });
  ReturnOn(here(), *nodes_[0], /*attempt=*/1, id);
  reader.join();
  EXPECT_EQ(got, "RAW:" + big_);
  EXPECT_EQ(lost, 1);
}

TEST_F(RemoteObjectsTest, TheDeathOfANodeTakesItsCopies) {
  std::atomic<int> lost{0};
  here().on_lost = [&](const ObjectId&) { ++lost; };
  const ObjectId only = ReturnOn(here(), *nodes_[1]), both = ReturnOn(here(), *nodes_[1]);
  EXPECT_EQ(here().Get(both, {}), "RAW:" + big_);
  here().objects->OnNodeDied(nodes_[1]->id);
  EXPECT_EQ(lost, 1);
  EXPECT_FALSE(here().objects->IsReady(only));
  EXPECT_EQ(NodesOf(here(), both), std::set<NodeId>{nodes_[0]->id});
  here().Until([&] { return kept_ == 1; });
  // A result that was on its way.
  ReturnOn(here(), *nodes_[1], 1, only);
  EXPECT_EQ(lost, 2);
}

}  // namespace
}  // namespace ray::core
