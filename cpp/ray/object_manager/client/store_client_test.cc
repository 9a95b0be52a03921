// Client and service together, over a real socket in a temporary folder.
#include "ray/object_manager/client/store_client.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <thread>

#include "ray/common/errors.h"
#include "ray/object_manager/store/store_thread.h"
#include "ray/rpc/local/local_carrier.h"
#include "ray/testing/promise/promise.h"
#include "ray/util/fs.h"
#include "ray/v1/store.pb.h"

namespace ray::object_manager {
namespace {

constexpr uint64_t kMiB = 1024 * 1024;
constexpr Duration kForever = Duration(-1);

ObjectId NewId() { return ObjectId::Of(TaskId::FromRandom(), 1); }

struct Process {  // a client process's parts
  std::unique_ptr<async::EpollLoop> loop;
  std::unique_ptr<rpc::LocalCarrier> carrier;
  std::unique_ptr<StoreClient> client;
  WorkerId worker = WorkerId::FromRandom();

  explicit Process(const std::string& dir) {
    loop = std::move(async::EpollLoop::Make({})).value();
    EXPECT_TRUE(loop->Start().ok());
    carrier = std::move(rpc::LocalCarrier::Make(loop.get(), std::make_shared<rpc::Dispatcher>(), {.sockets_dir = dir})).value();
    auto made = StoreClient::Connect(carrier->Connect("store.sock"), loop.get(), worker);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    if (made.ok()) client = std::move(made).value();
  }
  ~Process() {
    client.reset();
    carrier->Shutdown();
    loop->Stop();
  }
  Status Put(const ObjectId& id, std::string_view bytes, const WorkerId& owner) {
    RAY_ASSIGN_OR_RETURN(WriteHandle handle, client->Create(id, bytes.size(), "RAW", owner));
    RAY_RETURN_NOT_OK(handle.Write(0, bytes.data(), bytes.size()));
    handle.Seal();
    return {};
  }
  Status Put(const ObjectId& id, std::string_view bytes) { return Put(id, bytes, worker); }
  std::optional<StoredValue> GetOne(const ObjectId& id, Duration timeout = kForever) {
    auto values = client->Get({id}, timeout);
    EXPECT_TRUE(values.ok()) << values.status().ToString();
    return values.ok() ? (*values)[0] : std::nullopt;
  }
};

class ManualClock final : public Clock {
 public:
  Time Now() const override { return Time{ns_.load()}; }
  int64_t WallMillis() const override { return ns_.load() / 1'000'000; }
  void Advance(Duration by) { ns_ += by.count(); }

 private:
  std::atomic<int64_t> ns_{1};
};

class StoreClientTest : public ::testing::Test {
 protected:
  StoreClientTest() {
    char path[] = "/tmp/ray_store_test_XXXXXX";
    dir_ = mkdtemp(path);
  }
  ~StoreClientTest() override {
    if (service_) service_->Stop();
    service_.reset();
    EXPECT_TRUE(RemoveTree(dir_).ok());
  }
  void StartStore(uint64_t capacity, Duration grace = std::chrono::milliseconds(50)) {
    auto made = StoreThread::Make({.store = {.capacity = capacity, .create_grace = grace}, .sockets_dir = dir_}, &clock_);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    service_ = std::move(made).value();
    ASSERT_TRUE(service_->Start().ok());
  }
  // With a disk, and spilling in pieces of 1 MiB.
  void StartSpillingStore(uint64_t capacity, double max_disk_use = 1.0) {
    auto made = StoreThread::Make({.store = {.capacity = capacity,
                                             .create_grace = std::chrono::milliseconds(200),
                                             .node = "me",
                                             .max_spill_file_bytes = kMiB,
                                             .overflow_grace = std::chrono::milliseconds(50)},
                                   .sockets_dir = dir_,
                                   .spill_directories = {dir_},
                                   .max_disk_use = max_disk_use},
                                  &clock_);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    service_ = std::move(made).value();
    ASSERT_TRUE(service_->Start().ok());
  }
  std::string SpillDir() const { return dir_ + "/ray_spilled_objects_me"; }
  SystemClock clock_;
  ManualClock manual_clock_;  // outlives the service, which looks at it until the end
  std::string dir_;
  std::unique_ptr<StoreThread> service_;
};

TEST_F(StoreClientTest, PutsAndGetsAcrossProcessesParts) {
  StartStore(256 * kMiB);
  Process a(dir_), b(dir_);
  std::string small(100, 'x'), large(40 * kMiB + 5, 'y');
  ObjectId s = NewId(), l = NewId();
  ASSERT_TRUE(a.Put(s, small).ok());
  ASSERT_TRUE(a.Put(l, large).ok());
  auto values = b.client->Get({l, s, l}, kForever);
  ASSERT_TRUE(values.ok());
  EXPECT_EQ((*values)[0]->blob->view(), large);
  EXPECT_EQ((*values)[1]->blob->view(), small);
  EXPECT_EQ((*values)[2]->blob->data(), (*values)[0]->blob->data());
  EXPECT_EQ((*values)[1]->metadata, "RAW");
  auto contained = b.client->Contains({s, NewId()});
  ASSERT_TRUE(contained.ok());
  EXPECT_EQ(*contained, (std::vector<bool>{true, false}));
}

TEST_F(StoreClientTest, UsedIsExactlyWhatWasAskedFor) {
  StartStore(64 * kMiB);
  Process a(dir_);
  ObjectId id = NewId();
  ASSERT_TRUE(a.Put(id, std::string(5'000'000, 'x')).ok());
  auto stats = a.client->Stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->used, 5'000'000u);
  EXPECT_EQ(stats->num_objects, 1u);
  EXPECT_EQ(service_->store()->Stats().used, 5'000'000u);
  a.client->Free({id});
  EXPECT_EQ(a.client->Stats()->used, 0u);
}

TEST_F(StoreClientTest, OwnObjectsNeedNoRoundTrip) {
  StartStore(64 * kMiB);
  Process a(dir_), b(dir_);
  ObjectId id = NewId(), other = NewId();
  ASSERT_TRUE(a.Put(id, "hello").ok());
  EXPECT_EQ(a.client->TryGet(id)->blob->view(), "hello");
  EXPECT_FALSE(b.client->TryGet(id));
  auto value = b.GetOne(id);
  EXPECT_TRUE(b.client->TryGet(id));
  value.reset();
  EXPECT_FALSE(b.client->TryGet(id));
  // Made for another owner: not kept by its maker.
  ASSERT_TRUE(a.Put(other, "result", b.worker).ok());
  EXPECT_FALSE(a.client->TryGet(other));
  b.client->Free({other});
  ASSERT_TRUE(b.client->Stats().ok());
  EXPECT_EQ(b.client->Stats()->num_objects, 1u);
}

TEST_F(StoreClientTest, BuffersPinAfterFreeAndTheirBytesStay) {
  StartStore(8 * kMiB);
  Process a(dir_), b(dir_);
  ObjectId id = NewId();
  std::string bytes(3 * kMiB, 'q');
  ASSERT_TRUE(a.Put(id, bytes).ok());
  auto value = b.GetOne(id);
  a.client->Free({id});
  EXPECT_EQ(a.client->Stats()->num_objects, 1u);
  ASSERT_TRUE(a.Put(NewId(), std::string(4 * kMiB, 'z')).ok());
  EXPECT_EQ(value->blob->view(), bytes);
  std::thread([&] { value.reset(); }).join();  // any thread
  EXPECT_EQ(b.client->Stats()->num_objects, 1u);
}

TEST_F(StoreClientTest, GetWaitsForTheSealAndTimesOut) {
  StartStore(64 * kMiB);
  Process a(dir_), b(dir_);
  ObjectId id = NewId();
  EXPECT_FALSE(b.GetOne(id, Duration::zero()));
  EXPECT_FALSE(b.GetOne(id, std::chrono::milliseconds(3)));
  TestPromise<std::string> got;
  b.client->GetAsync({id}, kForever, [&](Status status, std::vector<std::optional<StoredValue>> values) {
    EXPECT_TRUE(status.ok());
    got.set_value(std::string(values[0]->blob->view()));
  });
  ASSERT_TRUE(a.Put(id, "late").ok());
  EXPECT_EQ(got.get_future().get(), "late");
}

TEST_F(StoreClientTest, AbortsWhatIsNotSealed) {
  StartStore(64 * kMiB);
  Process a(dir_);
  {
    auto handle = a.client->Create(NewId(), 1000, "RAW", a.worker);
    ASSERT_TRUE(handle.ok());
    WriteHandle moved = std::move(*handle);
    EXPECT_EQ(a.client->Stats()->num_objects, 1u);
  }
  EXPECT_EQ(a.client->Stats()->num_objects, 0u);
}

TEST_F(StoreClientTest, CreatesAgainAreToldThatItExists) {
  StartStore(64 * kMiB);
  Process a(dir_), b(dir_);
  ObjectId id = NewId();
  ASSERT_TRUE(a.Put(id, "x", b.worker).ok());
  EXPECT_EQ(a.Put(id, "x", b.worker).code(), StatusCode::kAlreadyExists);
}

TEST_F(StoreClientTest, FullStoreFailsTyped) {
  StartStore(8 * kMiB);
  Process a(dir_), b(dir_);
  ASSERT_TRUE(a.Put(NewId(), std::string(6 * kMiB, 'x')).ok());
  Status full = b.Put(NewId(), std::string(4 * kMiB, 'x'));
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted) << full.ToString();
  EXPECT_EQ(full.cause(), static_cast<int32_t>(ErrorType::kObjectStoreFull));
  EXPECT_EQ(b.Put(NewId(), std::string(9 * kMiB, 'x')).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(b.Put(NewId(), std::string(kMiB, 'x')).ok());
}

TEST_F(StoreClientTest, QueuedCreateGoesOnWhenMemoryIsFreed) {
  StartStore(8 * kMiB, std::chrono::hours(1));
  Process a(dir_), b(dir_);
  ObjectId first = NewId(), second = NewId();
  ASSERT_TRUE(a.Put(first, std::string(6 * kMiB, 'x')).ok());
  auto put = std::async(std::launch::async, [&] { return b.Put(second, std::string(6 * kMiB, 'y')); });
  a.client->Free({first});  // before or after the create is queued
  EXPECT_TRUE(put.get().ok());
  EXPECT_EQ(a.GetOne(second)->blob->size(), 6 * kMiB);
}

TEST_F(StoreClientTest, OwnerDeathFreesItsObjects) {
  StartStore(8 * kMiB);
  Process a(dir_), b(dir_);
  ASSERT_TRUE(a.Put(NewId(), "x", a.worker).ok());
  ASSERT_TRUE(b.Put(NewId(), "y", b.worker).ok());
  WorkerId dead = b.worker;
  b.client.reset();  // its connection ends: pins go
  service_->store()->OnWorkerDied(dead);
  // Both events reach the store in some order; a's next answer may come before them, so ask until they have.
  while (a.client->Stats()->num_objects != 1) {
  }
  EXPECT_EQ(service_->store()->Stats().used, 1u);
}

// Their ends come from elsewhere, and only if they are asked for: once for each owner.
TEST_F(StoreClientTest, TheOwnersElsewhereOfWhatIsHereAreToBeWatched) {
  service_ = StoreThread::Make({.store = {.capacity = 8 * kMiB}, .sockets_dir = dir_}, &clock_).value();
  const Address owner{NodeId::FromRandom(), WorkerId::FromRandom()}, adopter = RayletAsProcess(NodeId::FromRandom());
  std::promise<void> both;
  std::vector<Address> watched;
  service_->store()->SetOwnerWatch([&](const Address& process) {
    watched.push_back(process);
    if (watched.size() == 2) both.set_value();
  });
  ASSERT_TRUE(service_->Start().ok());
  const ObjectId first = NewId(), second = NewId();
  service_->store()->Reown({first}, owner);
  service_->store()->Reown({second}, owner);
  service_->store()->Reown({second}, adopter);
  both.get_future().wait();
  EXPECT_EQ(watched, (std::vector<Address>{owner, adopter}));
}

TEST_F(StoreClientTest, StoreDeathFailsCallsAndKeepsBuffers) {
  StartStore(8 * kMiB);
  Process a(dir_);
  ObjectId id = NewId();
  ASSERT_TRUE(a.Put(id, "kept").ok());
  auto value = a.GetOne(id);
  TestPromise<Status> waiting;
  a.client->GetAsync({NewId()}, kForever, [&](Status status, auto) { waiting.set_value(status); });
  service_->Stop();
  Status status = waiting.get_future().get();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(status.cause(), static_cast<int32_t>(ErrorType::kLocalRayletDied));
  EXPECT_EQ(a.Put(NewId(), "x").cause(), static_cast<int32_t>(ErrorType::kLocalRayletDied));
  EXPECT_EQ(value->blob->view(), "kept");
  value.reset();
}

TEST_F(StoreClientTest, BuffersMayOutliveTheClient) {
  StartStore(8 * kMiB);
  std::optional<StoredValue> value;
  {
    Process a(dir_);
    ObjectId id = NewId();
    ASSERT_TRUE(a.Put(id, "kept").ok());
    value = a.GetOne(id);
  }
  EXPECT_EQ(value->blob->view(), "kept");
}

TEST_F(StoreClientTest, AKilledProcessLosesItsPinsAndUnfinishedObjects) {
  int to_child[2], to_parent[2];
  ASSERT_EQ(pipe(to_child), 0);
  ASSERT_EQ(pipe(to_parent), 0);
  const ObjectId shared = NewId();
  pid_t child = fork();  // before this process has any thread of ours
  if (child == 0) {
    char c;
    if (read(to_child[0], &c, 1) != 1) _exit(1);
    Process p(dir_);
    auto value = p.GetOne(shared);
    auto handle = p.client->Create(NewId(), kMiB, "RAW", p.worker);
    p.client->GetAsync({NewId()}, kForever, [](const Status&, auto) {});  // nobody makes it
    c = value && handle.ok() && value->blob->view() == "from the parent" ? 'y' : 'n';
    if (write(to_parent[1], &c, 1) != 1) _exit(1);
    for (;;) pause();
  }
  StartStore(8 * kMiB);
  Process a(dir_);
  ASSERT_TRUE(a.Put(shared, "from the parent").ok());
  char c = 'g';
  ASSERT_EQ(write(to_child[1], &c, 1), 1);
  ASSERT_EQ(read(to_parent[0], &c, 1), 1);
  EXPECT_EQ(c, 'y');
  a.client->Free({shared});
  EXPECT_EQ(a.client->Stats()->num_objects, 2u);  // pinned by the child; and its own
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  while (a.client->Stats()->num_objects != 0) {
  }
  for (int fd : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) close(fd);
}

TEST_F(StoreClientTest, CallsThatAreSentAsOneWayMessagesDoNoHarm) {
  StartStore(8 * kMiB);
  Process a(dir_);
  const rpc::ConnectionPtr connection = a.carrier->Connect("store.sock").value();
  v1::StoreCreateRequest create;
  create.set_object_id(NewId().Binary());
  create.set_size(1000);
  v1::StoreGetRequest get;
  get.add_object_ids(NewId().Binary());
  connection->Notify(MethodId::kStoreCreate, create);
  connection->Notify(MethodId::kStoreGet, get);
  for (const MethodId method : {MethodId::kStoreConnect, MethodId::kStoreContains, MethodId::kStoreStats, MethodId::kStoreSegment,
                                MethodId::kStoreReclaim, MethodId::kStoreLeaseSlab})
    connection->NotifyRaw(method, "", {});
  TestPromise<Status> behind;
  connection->Call(MethodId::kStoreStats, v1::StoreEmpty(), {}, [behind](const Status& status, const auto&) { behind.set_value(status); });
  EXPECT_TRUE(behind.get_future().get().ok());
  EXPECT_EQ(a.client->Stats()->num_objects, 0u);
}

TEST_F(StoreClientTest, ManyThreadsPutGetFree) {
  StartStore(64 * kMiB, std::chrono::seconds(60));
  Process a(dir_), b(dir_);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Process& maker = t % 2 ? a : b;
      Process& reader = t % 2 ? b : a;
      for (int i = 0; i < 60; ++i) {
        ObjectId id = NewId();
        std::string bytes(static_cast<size_t>(1 + i * 20011), static_cast<char>('a' + t));
        ASSERT_TRUE(maker.Put(id, bytes).ok());
        auto mine = maker.GetOne(id);
        auto theirs = reader.GetOne(id);
        ASSERT_EQ(mine->blob->view(), bytes);
        maker.client->Free({id});
        ASSERT_EQ(theirs->blob->view(), bytes);
      }
    });
  }
  for (auto& t : threads) t.join();
  ASSERT_TRUE(a.client->Stats().ok());
  while (b.client->Stats()->num_objects + a.client->Stats()->num_objects != 0) {
  }
  EXPECT_EQ(service_->store()->Stats().used, 0u);
}

TEST_F(StoreClientTest, SpillsAndRestores) {
  StartSpillingStore(8 * kMiB);
  Process a(dir_), b(dir_);
  std::vector<ObjectId> ids;
  for (int i = 0; i < 24; ++i) {
    ids.push_back(NewId());
    ASSERT_TRUE(a.Put(ids.back(), std::string(kMiB, static_cast<char>('a' + i))).ok()) << i;
  }
  auto stats = a.client->Stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->num_objects, 24u);
  EXPECT_LE(stats->used, 8 * kMiB);
  EXPECT_GE(stats->spilled_bytes, 16 * kMiB);
  EXPECT_GE(service_->store()->Stats().spilled_objects, 16u);
  for (Process* process : {&a, &b}) {
    for (int i = 0; i < 24; ++i) {
      auto value = process->GetOne(ids[static_cast<size_t>(i)]);
      ASSERT_TRUE(value && value->blob);
      EXPECT_EQ(value->blob->view(), std::string(kMiB, static_cast<char>('a' + i)));
    }
  }
  a.client->Free(ids);
  while (a.client->Stats()->num_objects != 0) {  // what is being written goes afterwards
  }
  EXPECT_EQ(a.client->Stats()->spilled_bytes, 0u);
  ASSERT_TRUE(a.Put(ids[0], "again").ok());  // an id may be used again
  EXPECT_EQ(b.GetOne(ids[0])->blob->view(), "again");
  service_->Stop();
  EXPECT_NE(::access(SpillDir().c_str(), F_OK), 0);
}

ObjectId NewPutId() { return ObjectId::Of(TaskId::FromRandom(), ObjectId::kPutBit | 1); }

// Puts until the client has a slab. Returns what was put.
std::vector<ObjectId> PutUntilLeased(Process* process, size_t size) {
  std::vector<ObjectId> ids;
  do {
    ids.push_back(NewPutId());
    EXPECT_TRUE(process->Put(ids.back(), std::string(size, 'a')).ok());
  } while (process->client->Stats()->slab_bytes == 0 && ids.size() < 1000);
  return ids;
}

TEST_F(StoreClientTest, ObjectsInASlabNeedNoRoundTrip) {
  StartStore(256 * kMiB);
  Process a(dir_), b(dir_);
  const std::vector<ObjectId> first = PutUntilLeased(&a, 200'000);
  EXPECT_EQ(first.size(), 2u);
  const uint64_t slab = a.client->Stats()->slab_bytes;
  ASSERT_GT(slab, 0u);
  std::vector<ObjectId> ids;
  for (int i = 0; i < 100; ++i) {
    ids.push_back(NewPutId());
    ASSERT_TRUE(a.Put(ids.back(), std::string(200'000, static_cast<char>(i))).ok());
    EXPECT_EQ(a.client->TryGet(ids.back())->blob->view(), std::string(200'000, static_cast<char>(i)));
  }
  auto values = b.client->Get(ids, kForever);
  ASSERT_TRUE(values.ok());
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ((*values)[i]->blob->view(), std::string(200'000, static_cast<char>(i)));
  EXPECT_EQ(a.client->Stats()->used, 102 * 200'000u);  // to the byte, slabs apart
  // A result for another owner, who frees it.
  const ObjectId result = NewId();
  ASSERT_TRUE(a.Put(result, std::string(200'000, 'r'), b.worker).ok());
  EXPECT_FALSE(a.client->TryGet(result));
  EXPECT_EQ(b.GetOne(result)->blob->view(), std::string(200'000, 'r'));
  b.client->Free({result});
  // One that was begun and given up.
  { ASSERT_TRUE(a.client->Create(NewPutId(), 200'000, "RAW", a.worker).ok()); }
  values->clear();
  a.client->Free(ids);
  a.client->Free(first);
  while (b.client->Stats()->num_objects + a.client->Stats()->num_objects != 0) {
  }
  EXPECT_EQ(a.client->Stats()->used, 0u);
}

// As an executor does with a repeated attempt: what an earlier one may have left goes first.
TEST_F(StoreClientTest, FreedAndThenPutByOneClientStays) {
  StartStore(256 * kMiB);
  Process owner(dir_), executor(dir_);
  PutUntilLeased(&executor, 200'000);
  const ObjectId result = NewId();
  executor.client->Free({result});
  ASSERT_TRUE(executor.Put(result, std::string(200'000, 'r'), owner.worker).ok());
  EXPECT_TRUE(owner.GetOne(result, std::chrono::seconds(10))->blob->view() == std::string(200'000, 'r'));
  ASSERT_TRUE(owner.client->Stats().ok());  // its pin has gone back
  executor.client->Free({result});
  ASSERT_TRUE(executor.Put(result, std::string(300'000, 's'), owner.worker).ok());
  ASSERT_TRUE(executor.client->Stats().ok());  // the store has heard of both: the owner's question comes on another connection
  EXPECT_TRUE(owner.GetOne(result, std::chrono::seconds(10))->blob->view() == std::string(300'000, 's'));
}

TEST_F(StoreClientTest, ADeadClientsSlabsGoBack) {
  StartStore(256 * kMiB);
  auto a = std::make_unique<Process>(dir_);
  Process b(dir_);
  PutUntilLeased(a.get(), 200'000);
  ASSERT_GT(b.client->Stats()->slab_bytes, 0u);
  service_->store()->OnWorkerDied(a->worker);
  a.reset();
  while (b.client->Stats()->slab_bytes + b.client->Stats()->num_objects != 0) {
  }
}

TEST_F(StoreClientTest, SlabsGoBackWhenMemoryIsShort) {
  StartStore(64 * kMiB, /*grace=*/std::chrono::milliseconds(500));
  Process a(dir_), b(dir_);
  PutUntilLeased(&a, 200'000);
  ASSERT_GT(b.client->Stats()->slab_bytes, 0u);
  while (b.Put(NewId(), std::string(200'000, 'b')).ok()) {
  }
  EXPECT_EQ(b.client->Stats()->slab_bytes, 0u);
  EXPECT_GT(b.client->Stats()->used, 64 * kMiB - 3 * 200'000);  // but for what lies between
  EXPECT_EQ(a.Put(NewPutId(), std::string(200'000, 'x')).code(), StatusCode::kResourceExhausted);
}

TEST_F(StoreClientTest, FreePagesGoBackToTheSystemAfterAWhile) {
  auto made = StoreThread::Make({.store = {.capacity = 256 * kMiB,
                                           .warm_ahead_bytes = 0,
                                           .warm_floor_bytes = 16 * kMiB,
                                           .trim_idle = std::chrono::seconds(60),
                                           .trim_check = std::chrono::milliseconds(5)},
                                 .sockets_dir = dir_},
                                &manual_clock_);
  ASSERT_TRUE(made.ok());
  service_ = std::move(made).value();
  ASSERT_TRUE(service_->Start().ok());
  Process a(dir_);
  std::vector<ObjectId> ids;
  for (int i = 0; i < 8; ++i) {
    ids.push_back(NewId());
    ASSERT_TRUE(a.Put(ids.back(), std::string(16 * kMiB, 'x')).ok());
  }
  const ObjectId kept = NewId();
  ASSERT_TRUE(a.Put(kept, std::string(8 * kMiB, 'k')).ok());
  a.client->Free(ids);
  ASSERT_EQ(a.client->Stats()->num_objects, 1u);
  manual_clock_.Advance(std::chrono::seconds(59));
  auto looked = [&] {  // so many times that the loop has come round
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(a.client->Stats().ok());
  };
  looked();
  EXPECT_GE(service_->store()->Stats().arena_bytes, 136 * kMiB);  // it may be wanted again
  manual_clock_.Advance(std::chrono::seconds(2));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (service_->store()->Stats().arena_bytes > 24 * kMiB && std::chrono::steady_clock::now() < deadline)
    ASSERT_TRUE(a.client->Stats().ok());
  EXPECT_EQ(service_->store()->Stats().arena_bytes, 24 * kMiB);  // the floor, and what is in use
  EXPECT_EQ(a.GetOne(kept)->blob->view(), std::string(8 * kMiB, 'k'));
  // What was taken is there again when it is needed.
  const ObjectId again = NewId();
  ASSERT_TRUE(a.Put(again, std::string(100 * kMiB, 'a')).ok());
  EXPECT_EQ(a.GetOne(again)->blob->view(), std::string(100 * kMiB, 'a'));
  a.client->Free({kept, again});
}

TEST_F(StoreClientTest, MoreAtOnceThanTheStoreHolds) {
  StartSpillingStore(8 * kMiB);
  Process a(dir_), b(dir_);
  std::vector<ObjectId> ids;
  for (int i = 0; i < 10; ++i) {
    ids.push_back(NewId());
    ASSERT_TRUE(a.Put(ids.back(), std::string(2 * kMiB, static_cast<char>('a' + i))).ok()) << i;
  }
  auto values = b.client->Get(ids, kForever);  // all in use at the same time: some as files
  ASSERT_TRUE(values.ok());
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ((*values)[static_cast<size_t>(i)]->blob->view(), std::string(2 * kMiB, static_cast<char>('a' + i)));
  }
  const ObjectId more = NewId(), huge = NewId();
  ASSERT_TRUE(a.Put(more, std::string(3 * kMiB, 'm')).ok());
  ASSERT_TRUE(a.Put(huge, std::string(9 * kMiB, 'h')).ok());  // more than the store's size
  EXPECT_GE(a.client->Stats()->overflow_bytes, 12 * kMiB);
  EXPECT_EQ(a.GetOne(more)->blob->view(), std::string(3 * kMiB, 'm'));
  EXPECT_EQ(b.GetOne(huge)->blob->view(), std::string(9 * kMiB, 'h'));
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ((*values)[i]->blob->data()[0], 'a' + i);
  values->clear();
  ids.push_back(more);
  ids.push_back(huge);
  a.client->Free(ids);
  while (b.client->Stats()->num_objects + a.client->Stats()->num_objects != 0) {
  }
  EXPECT_EQ(a.client->Stats()->overflow_bytes + a.client->Stats()->used, 0u);
}

TEST_F(StoreClientTest, AFullDiskFailsTyped) {
  StartSpillingStore(8 * kMiB, /*max_disk_use=*/0.0);
  Process a(dir_);
  const ObjectId first = NewId();
  ASSERT_TRUE(a.Put(first, std::string(6 * kMiB, 'x')).ok());
  EXPECT_EQ(a.Put(NewId(), std::string(4 * kMiB, 'x')).cause(), static_cast<int32_t>(ErrorType::kOutOfDisk));
  EXPECT_EQ(a.Put(NewId(), std::string(9 * kMiB, 'x')).cause(), static_cast<int32_t>(ErrorType::kOutOfDisk));
  EXPECT_EQ(a.GetOne(first)->blob->size(), 6 * kMiB);
}

TEST_F(StoreClientTest, AnObjectWhoseFileIsGoneIsLost) {
  StartSpillingStore(8 * kMiB);
  Process a(dir_);
  const ObjectId first = NewId(), second = NewId();
  ASSERT_TRUE(a.Put(first, std::string(6 * kMiB, 'x')).ok());
  ASSERT_TRUE(a.Put(second, std::string(6 * kMiB, 'y')).ok());
  ASSERT_TRUE(RemoveTree(SpillDir()).ok());
  auto values = a.client->Get({second, first}, kForever);
  ASSERT_TRUE(values.ok());
  EXPECT_EQ((*values)[0]->blob->size(), 6 * kMiB);
  ASSERT_TRUE((*values)[1].has_value());
  EXPECT_EQ((*values)[1]->blob, nullptr);
}

}  // namespace
}  // namespace ray::object_manager
