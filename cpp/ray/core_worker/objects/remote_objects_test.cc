#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <future>
#include <optional>
#include <set>
#include <thread>

#include "ray/core_worker/objects/object_service_fixture.h"
#include "ray/testing/promise/promise.h"
#include "ray/v1/raylet_worker.pb.h"

namespace ray::core {
namespace {

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
    dispatcher->RegisterTyped<v1::WatchProcessNotice>(MethodId::kWatchProcess,
                                                      [this](const v1::WatchProcessNotice& m, rpc::Request&, rpc::Responder) {
                                                        MutexLock lock(&watched_mu_);
                                                        watched_.insert(FromProto(m.process()).worker_id);
                                                      });
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
  bool Watches(const Address& process) {
    MutexLock lock(&watched_mu_);
    return watched_.contains(process.worker_id);
  }
  Process& here() { return *nodes_[0]->process; }
  Process& there() { return *nodes_[1]->process; }

  Mutex watched_mu_;
  std::set<WorkerId> watched_ GUARDED_BY(watched_mu_);
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

TEST_F(RemoteObjectsTest, AnOwnerIsToldOfCopiesAndFreesThoseThatNobodyWants) {
  const ObjectId id = here().Put(big_);
  there().objects->AddBorrowedRef({id, here().self}, ObjectId::Nil(), 0);
  EXPECT_EQ(there().Get(id, here().self), "RAW:" + big_);
  // As the raylet there does.
  const rpc::ConnectionPtr owner = there().carrier->Connect(WorkerSocketName(here().self.worker_id)).value();
  const auto tell = [&](const ObjectId& copy, uint32_t attempt) {
    v1::AddLocationNotice message;
    message.set_object_id(copy.Binary());
    message.set_node_id(nodes_[1]->id.Binary());
    message.set_attempt(attempt);
    TestPromise<bool> answered;
    owner->Call(MethodId::kAddLocation, message, {},
                [answered](const Status& status, const rpc::Reply&) { answered.set_value(status.ok()); });
    return answered.get_future().get();
  };
  EXPECT_TRUE(tell(id, 0));
  EXPECT_TRUE(tell(id, 0));
  EXPECT_EQ(NodesOf(here(), id), (std::set<NodeId>{nodes_[0]->id, nodes_[1]->id}));
  // One that was freed before it was told of, and one of a run whose copies are of no use any more.
  const ObjectId freed = ObjectId::ForReturn(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 0);
  const ObjectId again = ReturnOn(here(), *nodes_[0], /*attempt=*/1);
  for (const ObjectId& copy : {freed, again}) {
    CopyTo(&nodes_[1]->store, copy, HeapBuffer::CopyOf(big_));
    EXPECT_TRUE(tell(copy, 0));
    here().Until([&] { return nodes_[1]->store.TryGet(copy) == nullptr; });
  }
  EXPECT_EQ(NodesOf(here(), again), std::set<NodeId>{nodes_[0]->id});
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

TEST_P(BrokenWayTest, WhatTheDeadHadCountedIsSettledOverWaysThatBreak) {
  const ObjectId id = here().Put("x");
  const std::vector<ObjectRefInfo> refs{{id, here().self}};
  Process third(dir_ + "/sockets", &nodes_[1]->store, nodes_[1]->id);
  third.objects->AddBorrowedRef(refs[0], {}, 0);
  third.Until([&] { return !third.objects->references().IsRegistering(id); });
  // It has `there` counted, and dies before it hands the ref over.
  std::atomic<bool> counted = false;
  third.objects->HandOver(refs, there().self, [&] { counted = true; });
  third.Until([&] { return counted.load(); });
  here().objects->RemoveLocalRef(id);
  there().way = Breaks(MethodId::kSettleBorrows, GetParam());
  here().peers->MarkDead(third.self.worker_id);
  EXPECT_TRUE(here().objects->references().HasBorrower(id, there().self.worker_id, third.self.worker_id));
  here().Until([&] { return Watches(there().self); });  // it has never turned to the owner
  EXPECT_EQ(here().freed, 0u) << "it may have handed it over, as far as is known here";
  there().peers->MarkDead(third.self.worker_id);
  here().Until([&] { return here().freed == 1; });
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
