// Several nodes in one process: real stores, real sockets in place of the links.
#include "ray/raylet/objects/transfer_service.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <random>
#include <thread>

#include "ray/object_manager/client/store_client.h"
#include "ray/object_manager/store/store_thread.h"
#include "ray/rpc/local/local_carrier.h"
#include "ray/testing/promise/promise.h"

namespace ray::raylet {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

std::string Bytes(size_t size, uint32_t seed) {
  std::string bytes(size, '\0');
  std::mt19937 random(seed);
  for (size_t i = 0; i < size; i += 997) bytes[i] = static_cast<char>(random());
  return bytes;
}

// What an owner was told of.
struct OwnerTold {
  Address owner;
  CopyRun copy;
  friend bool operator==(const OwnerTold&, const OwnerTold&) = default;
};

// One node: its raylet's loop with the service, its store, and one process that uses both.
class TestNode {
 public:
  using Directory = std::function<TestNode*(const NodeId&)>;
  TestNode(const std::string& dir, Directory directory, uint64_t capacity, Duration warn_after) : directory_(std::move(directory)) {
    object_manager::StoreThreadConfig config;
    config.store.capacity = capacity;
    config.sockets_dir = dir;
    config.socket_name = "store-" + name();
    config.spill_directories = {dir};
    config.store.node = id.Hex().substr(0, 8);
    store_thread = object_manager::StoreThread::Make(config, &clock_).value();
    store = store_thread->store();
    EXPECT_TRUE(store_thread->Start().ok());
    loop = async::EpollLoop::Make({.name = "raylet"}).value();
    auto dispatcher = std::make_shared<rpc::Dispatcher>();
    object_manager::PullConfig pull;
    pull.self = id;
    pull.budget_bytes = capacity / 2;
    pull.stall = std::chrono::seconds(2);
    pull.warn_after = warn_after;
    auto link = [this](const NodeId& node) { return Link(node); };
    auto tell = [this](const Address& owner, const CopyRun& copy) { told.push_back({owner, copy}); };
    auto warn = [this](const JobId& job, const std::string& message) {
      if (auto told = std::exchange(on_warning, nullptr)) told(job, message);
    };
    transfers = std::make_unique<TransferService>(TransferService::Deps{loop.get(), store, id, link, link, tell, warn}, pull,
                                                  object_manager::PushConfig());
    transfers->RegisterHandlers(dispatcher.get());
    carrier = rpc::LocalCarrier::Make(loop.get(), dispatcher, {.sockets_dir = dir}).value();
    EXPECT_TRUE(carrier->Listen("raylet-" + name(), [](const rpc::ConnectionPtr&) {}).ok());
    EXPECT_TRUE(loop->Start().ok());
    // The process.
    user_loop = async::EpollLoop::Make({.name = "user"}).value();
    EXPECT_TRUE(user_loop->Start().ok());
    user = rpc::LocalCarrier::Make(user_loop.get(), std::make_shared<rpc::Dispatcher>(), {.sockets_dir = dir}).value();
    client = object_manager::StoreClient::Connect(user->Connect("store-" + name()), user_loop.get(), worker).value();
    raylet = user->Connect("raylet-" + name()).value();
  }
  ~TestNode() { Stop(); }
  void Stop() {
    if (std::exchange(stopped_, true)) return;
    client.reset();
    user->Shutdown();
    Settle(user_loop.get());
    user_loop->Stop();
    Run([&] {
      for (auto& [node, link] : links_) link->Close(Status::Cancelled("stop"));
      carrier->Shutdown();
    });
    Run([&] { transfers->Stop(); });
    Settle(loop.get());
    loop->Stop();
    store_thread->Stop();
    transfers.reset();
  }
  std::string name() const { return id.Hex().substr(0, 16); }
  void Run(const std::function<void()>& fn) {
    TestPromise<void> done;
    loop->Post("test", [&] {
      fn();
      done.set_value();
    });
    done.get_future().wait();
  }
  static void Settle(async::EpollLoop* loop) {
    for (int i = 0; i < 2; ++i) {
      TestPromise<void> done;
      loop->Post("settle", [&] { done.set_value(); });
      done.get_future().wait();
    }
  }
  rpc::ConnectionPtr Link(const NodeId& node) {
    if (is_cut) return nullptr;
    TestNode* other = directory_(node);
    if (other == nullptr) return nullptr;
    auto& link = links_[node];
    if (link == nullptr || link->closed()) {
      auto made = carrier->Connect("raylet-" + other->name());
      if (!made.ok()) return nullptr;
      link = *made;
    }
    return link;
  }
  void Put(const ObjectId& object, std::string_view bytes) { Put(object, bytes, worker, 0); }
  void Put(const ObjectId& object, std::string_view bytes, const WorkerId& owner, uint32_t attempt) {
    auto handle = client->Create(object, bytes.size(), "RAW", Address{NodeId(), owner}, {}, attempt);
    ASSERT_TRUE(handle.ok()) << handle.status().ToString();
    ASSERT_TRUE(handle->Write(0, bytes.data(), bytes.size()).ok());
    handle->Seal();
  }
  std::future<v1::PullObjectReply> Pull(const ObjectId& object, uint64_t size, std::vector<NodeId> nodes, uint64_t* pull_id = nullptr,
                                        uint32_t attempt = 0, bool by_owner = false) {
    v1::PullObjectRequest request;
    request.set_pull_id(++last_pull_);
    if (pull_id != nullptr) *pull_id = last_pull_;
    request.set_object_id(object.Binary());
    request.set_owner_worker_id(worker.Binary());
    request.set_size(size);
    request.set_metadata("RAW");
    request.set_attempt(attempt);
    request.set_by_owner(by_owner);
    for (const NodeId& node : nodes) request.add_node_ids(node.Binary());
    TestPromise<v1::PullObjectReply> promise;
    rpc::CallTyped<v1::PullObjectReply>(*raylet, MethodId::kPullObject, request, {},
                                        [promise](const Status& status, v1::PullObjectReply& reply, PartList) {
                                          if (!status.ok()) reply.add_missing_node_ids(status.ToString());
                                          promise.set_value(reply);
                                        });
    return promise.get_future();
  }
  // Once so many copies were told of.
  std::vector<OwnerTold> WaitTold(size_t count) {
    std::vector<OwnerTold> seen;
    while (seen.size() < count) {
      Run([&] { seen = told; });
      std::this_thread::yield();
    }
    return seen;
  }
  std::string Read(const ObjectId& object) {
    auto values = client->Get({object}, std::chrono::seconds(10));
    if (!values.ok()) return values.status().ToString();
    if (!(*values)[0].has_value() || (*values)[0]->blob == nullptr) return "nothing";
    return std::string((*values)[0]->blob->view());
  }

  const NodeId id = NodeId::FromRandom();
  const WorkerId worker = WorkerId::FromRandom();
  std::unique_ptr<object_manager::StoreThread> store_thread;
  object_manager::StoreService* store = nullptr;  // its
  std::unique_ptr<async::EpollLoop> loop, user_loop;
  std::unique_ptr<TransferService> transfers;
  std::unique_ptr<rpc::LocalCarrier> carrier, user;
  std::unique_ptr<object_manager::StoreClient> client;
  rpc::ConnectionPtr raylet;
  std::function<void(const JobId& job, const std::string& message)> on_warning;  // on the loop; the first is told
  std::vector<OwnerTold> told;                                                   // on the loop
  bool is_cut = false;                                                           // on the loop: links give nothing

 private:
  const Directory directory_;
  SystemClock clock_;
  std::map<NodeId, rpc::ConnectionPtr> links_;  // on the loop
  uint64_t last_pull_ = 0;
  bool stopped_ = false;
};

class TransferServiceTest : public testing::Test {
 protected:
  TransferServiceTest() {
    std::string dir = "/tmp/transferXXXXXX";
    EXPECT_NE(mkdtemp(dir.data()), nullptr);
    dir_ = dir;
  }
  ~TransferServiceTest() override {
    for (auto& node : nodes_) node->Stop();
    nodes_.clear();
    std::filesystem::remove_all(dir_);
  }
  TestNode& New(uint64_t capacity = 100 * kMiB, Duration warn_after = std::chrono::minutes(1)) {
    nodes_.push_back(std::make_unique<TestNode>(
        dir_, [this](const NodeId& node) { return Find(node); }, capacity, warn_after));
    std::lock_guard lock(mu_);
    by_id_[nodes_.back()->id] = nodes_.back().get();
    return *nodes_.back();
  }
  TestNode* Find(const NodeId& id) {
    std::lock_guard lock(mu_);
    auto it = by_id_.find(id);
    return it == by_id_.end() ? nullptr : it->second;
  }
  void Kill(TestNode& node) {
    {
      std::lock_guard lock(mu_);
      by_id_.erase(node.id);
    }
    node.Stop();
    for (auto& other : nodes_) {
      if (other.get() != &node && Find(other->id) != nullptr) other->Run([&] { other->transfers->OnNodeDead(node.id); });
    }
  }
  ObjectId Object() { return ObjectId::ForReturn(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 0); }

  std::string dir_;
  std::mutex mu_;
  std::map<NodeId, TestNode*> by_id_;
  std::vector<std::unique_ptr<TestNode>> nodes_;
};

TEST_F(TransferServiceTest, AnObjectComesFromAnotherNode) {
  TestNode &a = New(), &b = New();
  for (size_t size : {size_t{0}, size_t{1}, size_t{200} << 10, 4 * kMiB, 4 * kMiB + 1, 30 * kMiB}) {
    const ObjectId id = Object();
    const std::string bytes = Bytes(size, 1);
    a.Put(id, bytes);
    auto reply = b.Pull(id, size, {a.id}).get();
    EXPECT_TRUE(reply.ready()) << size << reply.DebugString();
    EXPECT_EQ(b.Read(id) == bytes, true) << size;
  }
}

TEST_F(TransferServiceTest, ManyWantOneObjectAndItIsSentOnce) {
  TestNode &a = New(), &b = New();
  const ObjectId id = Object();
  a.Put(id, Bytes(20 * kMiB, 2));
  std::vector<std::future<v1::PullObjectReply>> replies;
  for (int i = 0; i < 10; ++i) replies.push_back(b.Pull(id, 20 * kMiB, {a.id}));
  for (auto& reply : replies) EXPECT_TRUE(reply.get().ready());
  EXPECT_TRUE(b.Pull(id, 20 * kMiB, {a.id}).get().ready());
}

TEST_F(TransferServiceTest, WhoDoesNotHaveItIsNamed) {
  TestNode &a = New(), &b = New(), &c = New();
  const ObjectId id = Object();
  auto reply = b.Pull(id, 100, {a.id, c.id}).get();
  EXPECT_FALSE(reply.ready());
  EXPECT_EQ(reply.missing_node_ids_size(), 2);
}

TEST_F(TransferServiceTest, WhatIsSealedAMomentAfterTheQuestionIsThere) {
  TestNode& a = New();
  const ObjectId here = Object(), written = Object(), put = Object();
  a.Put(here, "here");
  auto room = a.client->Create(written, 7, "RAW", a.worker);
  ASSERT_TRUE(room.ok());
  TestPromise<std::string> first, second, asked;
  const auto pin = [&a](const ObjectId& id, const TestPromise<std::string>& answer) {
    a.store->Pin(id, [answer](const object_manager::StoreService::PinnedCopy& copy) {
      answer.set_value(copy.bytes == nullptr ? "nothing" : std::string(copy.bytes->view()));
    });
  };
  pin(written, first);
  pin(put, second);
  pin(here, asked);
  EXPECT_EQ(asked.get_future().get(), "here");  // so the others were asked for before they are sealed
  ASSERT_TRUE(room->Write(0, "written", 7).ok());
  room->Seal();
  a.Put(put, "put");
  EXPECT_EQ(first.get_future().get(), "written");
  EXPECT_EQ(second.get_future().get(), "put");
}

TEST_F(TransferServiceTest, AnotherCopyServesWhenANodeDies) {
  TestNode &a = New(), &b = New(), &c = New();
  const ObjectId id = Object();
  const std::string bytes = Bytes(40 * kMiB, 3);
  a.Put(id, bytes);
  ASSERT_TRUE(b.Pull(id, bytes.size(), {a.id}).get().ready());
  auto reply = c.Pull(id, bytes.size(), {a.id, b.id});
  Kill(a);
  EXPECT_TRUE(reply.get().ready());
  EXPECT_EQ(c.Read(id) == bytes, true);
}

TEST_F(TransferServiceTest, TheLastSourceDies) {
  TestNode &a = New(), &b = New();
  const ObjectId id = Object();
  a.Put(id, Bytes(40 * kMiB, 4));
  auto reply = b.Pull(id, 40 * kMiB, {a.id});
  Kill(a);
  auto answer = reply.get();
  EXPECT_TRUE(answer.ready() || answer.missing_node_ids_size() == 1);
}

TEST_F(TransferServiceTest, SpilledObjectsAreRestoredForOthers) {
  TestNode& a = New(20 * kMiB);
  TestNode& b = New();
  std::vector<ObjectId> ids;
  for (uint32_t i = 0; i < 6; ++i) {
    ids.push_back(Object());
    a.Put(ids.back(), Bytes(8 * kMiB, i));
  }
  for (uint32_t i = 0; i < 6; ++i) {
    ASSERT_TRUE(b.Pull(ids[i], 8 * kMiB, {a.id}).get().ready()) << i;
    EXPECT_EQ(b.Read(ids[i]) == Bytes(8 * kMiB, i), true) << i;
  }
}

TEST_F(TransferServiceTest, CopiesMayBeEvictedForOthers) {
  TestNode& a = New(200 * kMiB);
  TestNode& b = New(40 * kMiB);
  for (uint32_t i = 0; i < 12; ++i) {
    const ObjectId id = Object();
    a.Put(id, Bytes(12 * kMiB, i));
    ASSERT_TRUE(b.Pull(id, 12 * kMiB, {a.id}).get().ready()) << i;
  }
  EXPECT_EQ(b.store->Stats().spilled_objects, 0u);
}

TEST_F(TransferServiceTest, ACancelledPullLeavesNothing) {
  TestNode &a = New(), &b = New();
  const ObjectId id = Object();
  a.Put(id, Bytes(60 * kMiB, 5));
  uint64_t pull = 0;
  auto reply = b.Pull(id, 60 * kMiB, {a.id}, &pull);
  v1::CancelPullNotice notice;
  notice.set_pull_id(pull);
  b.raylet->Notify(MethodId::kCancelPull, notice);
  auto answer = reply.get();
  while (!answer.ready() && b.store->Stats().used != 0) std::this_thread::yield();
  EXPECT_TRUE(b.Pull(id, 60 * kMiB, {a.id}).get().ready());
}

TEST_F(TransferServiceTest, FreedCopiesGoOnEveryNode) {
  TestNode &a = New(), &b = New();
  const ObjectId id = Object();
  a.Put(id, Bytes(8 * kMiB, 6));
  ASSERT_TRUE(b.Pull(id, 8 * kMiB, {a.id}).get().ready());
  v1::CopiesNotice notice;
  auto* here = notice.add_nodes();
  here->set_node_id(b.id.Binary());
  here->add_object_ids(id.Binary());
  a.raylet->Notify(MethodId::kFreeCopies, notice);
  while (b.store->Stats().num_objects != 0) std::this_thread::yield();
}

TEST_F(TransferServiceTest, FreedCopiesGoAlsoWhenTheLinkIsDownAtThatMoment) {
  TestNode &a = New(), &b = New();
  const ObjectId primary = Object();
  a.Put(primary, Bytes(8 * kMiB, 6));
  ASSERT_TRUE(b.Pull(primary, 8 * kMiB, {a.id}).get().ready());
  b.store->Keep({CopyRun{primary}});
  v1::CopiesNotice notice;
  auto* there = notice.add_nodes();
  there->set_node_id(b.id.Binary());
  there->add_object_ids(primary.Binary());
  a.Run([&] { a.is_cut = true; });
  a.raylet->Notify(MethodId::kFreeCopies, notice);
  EXPECT_FALSE(a.Pull(Object(), 1, {}).get().ready());  // behind the notice
  EXPECT_EQ(b.store->Stats().num_objects, 1u);
  a.Run([&] { a.is_cut = false; });
  while (b.store->Stats().num_objects != 0) std::this_thread::yield();
}

TEST_F(TransferServiceTest, AFreeThatComesLateSparesWhatALaterRunMade) {
  TestNode &a = New(), &b = New();
  const ObjectId again = Object(), pulled = Object(), once = Object();
  for (const ObjectId& id : {again, once}) b.Put(id, Bytes(kMiB, 6), a.worker, 0);
  a.Run([&] {
    a.is_cut = true;
    a.transfers->Free(b.id, {{again, 0}, {pulled, 0}, {once, 0}});
    a.transfers->Keep(b.id, {{pulled, 0}});
  });
  // The task runs again on that node, and another one's second value is brought there.
  b.store->Free({{again, 0}});
  while (b.store->Stats().num_objects != 1) std::this_thread::yield();
  b.Put(again, Bytes(kMiB, 7), a.worker, 1);
  a.Put(pulled, Bytes(kMiB, 8), a.worker, 1);
  ASSERT_TRUE(b.Pull(pulled, kMiB, {a.id}, nullptr, 1).get().ready());
  a.Run([&] { a.is_cut = false; });
  while (b.client->Contains({once}).value().front()) std::this_thread::yield();
  EXPECT_EQ(b.Read(again), Bytes(kMiB, 7));
  EXPECT_EQ(b.Read(pulled), Bytes(kMiB, 8));
}

TEST_F(TransferServiceTest, WhoJoinsAPullWithALaterRunIsGivenWhatThatMade) {
  TestNode &a = New(), &b = New(), &silent = New();
  silent.Run([&] { silent.transfers->Stop(); });
  const ObjectId id = Object();
  const std::string bytes = Bytes(6 * kMiB, 9);
  a.Put(id, bytes, a.worker, 1);
  auto first = b.Pull(id, 8 * kMiB, {silent.id}, nullptr, 0);
  auto second = b.Pull(id, bytes.size(), {a.id}, nullptr, 1);
  EXPECT_TRUE(second.get().ready());
  EXPECT_TRUE(first.get().ready());
  // What is said of the earlier run's copies is not about this one.
  b.Run([&] { b.transfers->Free(b.id, {{id, 0}}); });
  EXPECT_EQ(b.Read(id) == bytes, true);
}

TEST_F(TransferServiceTest, ACopyOfAnEarlierRunIsOfNoUse) {
  TestNode &older = New(), &later = New(), &reader = New(), &in_vain = New();
  const ObjectId id = Object();
  const std::string bytes = Bytes(6 * kMiB, 10), old_bytes = Bytes(6 * kMiB, 11);
  older.Put(id, old_bytes, older.worker, 0);
  later.Put(id, bytes, later.worker, 1);
  // Whichever of the two is asked first.
  EXPECT_TRUE(reader.Pull(id, bytes.size(), {older.id, later.id}, nullptr, 1).get().ready());
  EXPECT_EQ(reader.Read(id) == bytes, true);
  const v1::PullObjectReply nowhere = in_vain.Pull(id, bytes.size(), {older.id}, nullptr, 1).get();
  EXPECT_FALSE(nowhere.ready());
  EXPECT_EQ(nowhere.missing_node_ids_size(), 1);
  EXPECT_TRUE(in_vain.Pull(id, bytes.size(), {older.id}, nullptr, 0).get().ready());
  EXPECT_EQ(in_vain.Read(id) == old_bytes, true);
  // A raylet of an older version asks for any.
  v1::FetchChunkRequest request;
  request.set_object_id(id.Binary());
  request.set_length(kMiB);
  request.set_node_id(reader.id.Binary());
  TestPromise<v1::FetchChunkReply> given;
  reader.Run([&] {
    rpc::CallTyped<v1::FetchChunkReply>(*reader.Link(older.id), MethodId::kFetchChunk, request, {},
                                        [given](const Status&, v1::FetchChunkReply& reply, const PartList&) { given.set_value(reply); });
  });
  const v1::FetchChunkReply reply = given.get_future().get();
  EXPECT_FALSE(reply.not_there());
  EXPECT_TRUE(reply.has_made_by());
  EXPECT_EQ(reply.made_by(), 0u);
}

TEST_F(TransferServiceTest, ACopyThatALaterRunFoundIsGivenAsWhatItIs) {
  TestNode &a = New(), &b = New(), &c = New();
  const ObjectId id = Object();
  const std::string bytes = Bytes(6 * kMiB, 12);
  a.Put(id, bytes, a.worker, 0);
  EXPECT_TRUE(b.Pull(id, bytes.size(), {a.id}, nullptr, 0).get().ready());  // pinned there for a while, as a copy of run 0
  EXPECT_TRUE(a.Pull(id, bytes.size(), {b.id}, nullptr, 2).get().ready());
  EXPECT_TRUE(c.Pull(id, bytes.size(), {a.id}, nullptr, 2).get().ready());
  TestPromise<std::pair<uint32_t, uint32_t>> runs;
  c.store->Pin(id, [runs](const object_manager::StoreService::PinnedCopy& copy) { runs.set_value({copy.attempt, copy.made_by}); });
  EXPECT_EQ(runs.get_future().get(), (std::pair<uint32_t, uint32_t>(2, 0)));
  EXPECT_EQ(c.Read(id) == bytes, true);
}

TEST_F(TransferServiceTest, OwnersAreToldOfCopiesUnlessTheyAskedForThem) {
  TestNode &a = New(), &b = New();
  const ObjectId id = Object(), own = Object();
  const std::string bytes = Bytes(kMiB, 13);
  a.Put(id, bytes);
  a.Put(own, bytes);
  EXPECT_TRUE(b.Pull(own, bytes.size(), {a.id}, nullptr, 0, /*by_owner=*/true).get().ready());
  // Several at a time: once.
  auto first = b.Pull(id, bytes.size(), {a.id}, nullptr, 3), second = b.Pull(id, bytes.size(), {a.id}, nullptr, 3);
  EXPECT_FALSE(first.get().ready());  // of a later run than there is
  EXPECT_FALSE(second.get().ready());
  first = b.Pull(id, bytes.size(), {a.id}), second = b.Pull(id, bytes.size(), {a.id});
  EXPECT_TRUE(first.get().ready());
  EXPECT_TRUE(second.get().ready());
  EXPECT_EQ(b.WaitTold(1), (std::vector<OwnerTold>{{{NodeId(), b.worker}, {id, 0}}}));
}

TEST_F(TransferServiceTest, OwnersAreToldOfTheRunThatCameWhoeverWaitsForIt) {
  TestNode &a = New(), &b = New(), &other = New();
  const ObjectId id = Object();
  const std::string bytes = Bytes(6 * kMiB, 14);
  a.Put(id, bytes, a.worker, 1);
  b.Run([&] { b.is_cut = true; });
  // The owner itself asks for what the earlier run made, somebody else for the later one's, and leaves before it is there.
  auto first = b.Pull(id, bytes.size(), {other.id}, nullptr, 0, /*by_owner=*/true);
  uint64_t left = 0;
  auto second = b.Pull(id, bytes.size(), {a.id}, &left, 1);
  v1::CancelPullNotice notice;
  notice.set_pull_id(left);
  b.raylet->Notify(MethodId::kCancelPull, notice);
  EXPECT_FALSE(second.get().ready());
  b.Run([&] { b.is_cut = false; });
  EXPECT_TRUE(first.get().ready());
  EXPECT_EQ(b.WaitTold(1), (std::vector<OwnerTold>{{{NodeId(), b.worker}, {id, 1}}}));
}

TEST_F(TransferServiceTest, ABroadcastReachesAll) {
  TestNode& root = New();
  for (int i = 0; i < 6; ++i) New();
  const ObjectId id = Object();
  const std::string bytes = Bytes(40 * kMiB, 7);
  root.Put(id, bytes);
  std::vector<std::future<v1::PullObjectReply>> replies;
  for (size_t i = 1; i < nodes_.size(); ++i) replies.push_back(nodes_[i]->Pull(id, bytes.size(), {root.id}));
  for (auto& reply : replies) EXPECT_TRUE(reply.get().ready());
  for (size_t i = 1; i < nodes_.size(); ++i) EXPECT_EQ(nodes_[i]->Read(id) == bytes, true);
  // Each received it once. Who gave how much depends on when they come; that it is a tree when they come together: transfer_progress_test.
  uint64_t given = root.transfers->given_bytes();
  for (size_t i = 1; i < nodes_.size(); ++i) {
    EXPECT_EQ(nodes_[i]->transfers->received_bytes(), bytes.size());
    given += nodes_[i]->transfers->given_bytes();
  }
  EXPECT_GE(given, (nodes_.size() - 1) * bytes.size());
}

TEST_F(TransferServiceTest, WhatIsWantedSoonIsFetchedAheadAndGivenUpWhenItIsNot) {
  TestNode &a = New(), &b = New();
  const ObjectId id = Object(), large = Object(), never = Object();
  const std::string bytes = Bytes(10 * kMiB, 8);
  a.Put(id, bytes);
  std::shared_ptr<void> ahead;
  b.Run([&] {
    ahead =
        b.transfers->Prefetch({{id, bytes.size(), "RAW", {a.id, a.worker}, {a.id}}, {large, 90 * kMiB, "RAW", {a.id, a.worker}, {a.id}}});
  });
  // The other one has no room without making some.
  EXPECT_EQ(b.WaitTold(1), (std::vector<OwnerTold>{{{a.id, a.worker}, {id, 0}}}));
  EXPECT_EQ(b.Read(id) == bytes, true);
  // Its only node is silent: nobody knows whether it comes.
  TestNode& silent = New();
  silent.Run([&] { silent.transfers->Stop(); });
  std::shared_ptr<void> in_vain;
  b.Run([&] { in_vain = b.transfers->Prefetch({{never, kMiB, "RAW", {silent.id, silent.worker}, {silent.id}}}); });
  b.Run([&] {
    ahead = nullptr;
    in_vain = nullptr;
  });
  while (b.store->Stats().num_objects != 1) std::this_thread::yield();
  EXPECT_EQ(b.Read(id) == bytes, true);
}

TEST_F(TransferServiceTest, ThatAnObjectDoesNotComeIsTold) {
  TestNode &a = New(100 * kMiB, std::chrono::milliseconds(20)), &silent = New();
  silent.Run([&] { silent.transfers->Stop(); });
  const ObjectId id = Object();
  TestPromise<std::pair<JobId, std::string>> told;
  a.Run([&] { a.on_warning = [told](const JobId& job, const std::string& message) { told.set_value({job, message}); }; });
  uint64_t pull = 0;
  auto reply = a.Pull(id, kMiB, {silent.id}, &pull);
  const auto [job, message] = told.get_future().get();
  EXPECT_EQ(job, id.task_id().job_id());
  EXPECT_NE(message.find(id.Hex()), std::string::npos) << message;
  EXPECT_NE(message.find("0 of 1 chunks of it are here"), std::string::npos) << message;
  EXPECT_NE(message.find(silent.id.Hex()), std::string::npos) << message;
  v1::CancelPullNotice notice;
  notice.set_pull_id(pull);
  a.raylet->Notify(MethodId::kCancelPull, notice);
  EXPECT_FALSE(reply.get().ready());
}

// Links on TCP receive into the store's memory: a transfer takes no memory of its own but for a few buffers.
TEST_F(TransferServiceTest, ATransferTakesLittleMemoryBesideTheObject) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the sanitizer keeps anonymous shadow memory for each byte that is received";
#endif
  TestNode &a = New(400 * kMiB), &b = New(400 * kMiB);
  const ObjectId id = Object();
  {
    const std::string bytes = Bytes(160 * kMiB, 9);
    a.Put(id, bytes);
  }
  auto anonymous = [] {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("RssAnon:")) return std::strtoull(line.c_str() + 8, nullptr, 10) << 10;
    }
    return 0ull;
  };
  const uint64_t before = anonymous();
  uint64_t peak = 0;
  auto reply = b.Pull(id, 160 * kMiB, {a.id});
  while (reply.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) peak = std::max<uint64_t>(peak, anonymous());
  EXPECT_TRUE(reply.get().ready());
  EXPECT_LE(peak - std::min(peak, before), 64 * kMiB);
}

}  // namespace
}  // namespace ray::raylet
