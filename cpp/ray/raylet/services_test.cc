// WorkerService, LeaseService and Router together, over real Unix sockets, with workers that live in this process.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <future>
#include <set>

#include "ray/raylet/chaos/chaos_service.h"
#include "ray/raylet/leases/lease_service.h"
#include "ray/raylet/router/router.h"
#include "ray/raylet/workers/json.h"
#include "ray/raylet/workers/worker_service.h"
#include "ray/rpc/local/local_carrier.h"
#include "ray/testing/promise/promise.h"
#include "ray/util/fs.h"
#include "ray/v1/chaos.pb.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/version.h"

namespace ray::raylet {
namespace {

// "Processes" are connections that register by themselves; a killed one closes its connection and reports signal 9.
class FakeLauncher : public WorkerLauncher {
 public:
  void SetEvents(LauncherEvents events) override { events_ = std::move(events); }
  void Launch(const LaunchRequest& request) override {
    const int64_t pid = 1000 + static_cast<int64_t>(request.token);
    events_.on_started(request.token, pid);
    on_launch(request, pid);
  }
  void Signal(int64_t pid, int signal) override { on_signal(pid, signal); }
  void OnChildEnded(int64_t) override {}
  void OnChildReaped(int64_t, int) override {}
  void Stop() override {}

  LauncherEvents events_;
  std::function<void(const LaunchRequest&, int64_t)> on_launch;
  std::function<void(int64_t, int)> on_signal;
};

class RayletServices : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/raylet_services_XXXXXX";
    dir_ = mkdtemp(name);
    loop_ = std::move(*async::EpollLoop::Make({}));
    ASSERT_TRUE(loop_->Start().ok());
    OnLoop([this] { Build(); });
  }

  void Build() {
    WorkerServiceConfig config;
    config.pool.prestart = 0;
    config.node_id = node_;
    workers_ =
        std::make_unique<WorkerService>(config, loop_.get(), &launcher_,
                                        WorkerServiceHooks{[this](const LeaseId& l, const WorkerId& w) { leases_->OnAssigned(l, w); },
                                                           [this](const WorkerPopFailed& f) { leases_->OnPopFailed(f); },
                                                           [this](const ProcessEnd& e) {
                                                             ended_.push_back(e);
                                                             leases_->OnProcessEnded(e);
                                                           }});
    if (open_at_once_) workers_->Open();
    leases_ = std::make_unique<LeaseService>(LeaseService::Deps{loop_.get(), workers_.get(), node_, "192.0.2.7", [] {}},
                                             scheduling::LeaseQueueConfig{node_},
                                             scheduling::NodeResources(*ResourceSet::FromDoubles({{"CPU", 1}})));
    router_ = std::make_unique<Router>(node_, RouterHooks{[this](uint64_t c, const v1::JobInfo& j) { workers_->BindDriverJob(c, j); },
                                                          [](const JobId&, const std::function<void()>& done) { done(); }});
    auto dispatcher = std::make_shared<rpc::Dispatcher>();
    workers_->RegisterHandlers(dispatcher.get());
    leases_->RegisterHandlers(dispatcher.get());
    router_->RegisterHandlers(dispatcher.get());
    chaos_ = std::make_unique<ChaosService>(ChaosService::Deps{loop_.get(), leases_.get(), workers_.get(), node_,
                                                               [this](int64_t pid) { return titles_[pid]; }, [this] { died_ = true; }});
    chaos_->RegisterHandlers(dispatcher.get());
    server_ = std::move(*rpc::LocalCarrier::Make(loop_.get(), dispatcher, {dir_ + "/s"}));

    auto peer = std::make_shared<rpc::Dispatcher>();
    peer->RegisterTyped<v1::PushTaskRequest>(MethodId::kPushTask,
                                             [this](const v1::PushTaskRequest& request, rpc::Request&, rpc::Responder responder) {
                                               if (hold_creation_) return held_.push_back(std::move(responder));
                                               responder.Send(v1::PushTaskReply());
                                             });
    peer->RegisterTyped<v1::KvGetRequest>(MethodId::kKvGet,
                                          [this](const v1::KvGetRequest& request, rpc::Request&, rpc::Responder responder) {
                                            ++kv_gets_;
                                            v1::KvGetReply reply;
                                            reply.set_found(kv_found_);
                                            reply.set_value("value of " + request.key());
                                            responder.Send(reply);
                                          });
    peer->RegisterTyped<v1::AddJobRequest>(MethodId::kAddJob, [this](const v1::AddJobRequest&, rpc::Request&, rpc::Responder responder) {
      v1::AddJobReply reply;
      reply.set_job_id(job_.Binary());
      responder.Send(reply);
    });
    peer->RegisterTyped<v1::SubscribeRequest>(MethodId::kSubscribe,
                                              [this](const v1::SubscribeRequest& request, rpc::Request&, rpc::Responder responder) {
                                                subscribed_.insert(request.key());
                                                ++asked_[request.key()];
                                                if (hold_subscriptions_) return held_.push_back(std::move(responder));
                                                responder.Send(v1::PubSubEmpty());
                                              });
    peer->RegisterTyped<v1::SubscribeRequest>(MethodId::kUnsubscribe, [this](const v1::SubscribeRequest& request, rpc::Request&,
                                                                             const rpc::Responder&) { subscribed_.erase(request.key()); });
    peer->RegisterTyped<v1::PublishNotice>(MethodId::kPublish,
                                           [this](const v1::PublishNotice& notice, const rpc::Request& request, const rpc::Responder&) {
                                             news_[request.connection->id()].push_back(notice.actor().version());
                                           });
    peer->RegisterFallback([](rpc::Request, rpc::Responder) {});
    clients_ = std::move(*rpc::LocalCarrier::Make(loop_.get(), peer, {dir_ + "/c"}));

    launcher_.on_launch = [this](const LaunchRequest& request, int64_t pid) {
      auto connection = Connect();
      processes_[pid] = connection;
      v1::RegisterWorkerRequest message;
      message.set_worker_id(request.worker.Binary());
      message.set_job_id(request.job.Binary());
      message.set_pid(pid);
      message.set_startup_token(request.token);
      message.set_protocol_version(std::string(kProtocolVersion));
      message.set_python_version("3.11");
      connection->Call(MethodId::kRegisterWorker, message, {}, [](Status status, rpc::Reply) {
        EXPECT_TRUE(status.ok() || status.code() == StatusCode::kUnavailable) << status.ToString();  // unavailable: the test ended first
      });
    };
    launcher_.on_signal = [this](int64_t pid, int signal) {
      const auto it = processes_.find(pid);
      if (it == processes_.end()) return;
      auto connection = it->second;
      processes_.erase(it);
      loop_->Post("kill", [this, connection, pid, signal] {
        connection->Close(Status::Cancelled("killed"));
        launcher_.events_.on_exited(pid, signal);  // a raw wait status: ended by that signal
      });
    };
  }

  void TearDown() override {
    OnLoop([this] {
      held_.clear();
      raylet_end_ = nullptr;
      clients_->Shutdown();
      server_->Shutdown();
    });
    OnLoop([this] {
      chaos_.reset();
      router_.reset();
      leases_.reset();
      workers_.reset();
    });
    loop_->Stop();
    (void)RemoveTree(dir_).ok();
  }

  rpc::ConnectionPtr Connect() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    auto raylet_end = server_->Adopt(ends[0]);
    auto own_end = clients_->Adopt(ends[1]);
    EXPECT_TRUE(raylet_end.ok() && own_end.ok());
    raylet_end_ = *raylet_end;
    return *own_end;
  }
  template <typename F>
  void OnLoop(F fn) {
    RunOnLoop(loop_.get(), std::move(fn));
  }
  // Calls and waits for the answer.
  template <typename Reply>
  std::pair<Status, Reply> Ask(const rpc::ConnectionPtr& connection, MethodId method, const rpc::MessageLite& request) {
    auto answer = Begin<Reply>(connection, method, request);
    return answer.get();
  }
  template <typename Reply>
  std::future<std::pair<Status, Reply>> Begin(const rpc::ConnectionPtr& connection, MethodId method, const rpc::MessageLite& request) {
    TestPromise<std::pair<Status, Reply>> promise;
    rpc::CallTyped<Reply>(*connection, method, request, {}, [promise](Status status, Reply& reply, PartList) {
      promise.set_value({status, reply});
    });
    return promise.get_future();
  }
  // From here on there is a GCS: the other end of a connection of its own.
  void StartGcs() {
    OnLoop([this] {
      gcs_end_ = Connect();
      router_->SetGcs(raylet_end_, /*resume=*/false);
    });
  }
  rpc::ConnectionPtr MakeDriver(const WorkerId& id, const std::string& python = "3.11") {
    rpc::ConnectionPtr connection;
    OnLoop([&] { connection = Connect(); });
    Register(connection, id, python);
    return connection;
  }
  void Register(const rpc::ConnectionPtr& connection, const WorkerId& id, const std::string& python = "3.11") {
    v1::RegisterWorkerRequest message;
    message.set_worker_id(id.Binary());
    message.set_job_id(job_.Binary());
    message.set_is_driver(true);
    message.set_pid(7);
    message.set_protocol_version(std::string(kProtocolVersion));
    message.set_python_version(python);
    registration_ = Ask<v1::RegisterWorkerReply>(connection, MethodId::kRegisterWorker, message).first;
  }
  v1::RequestLeaseRequest Lease(const LeaseId& id, const WorkerId& owner) {
    v1::RequestLeaseRequest request;
    request.set_lease_id(id.Binary());
    request.set_job_id(job_.Binary());
    ToProto(Address{node_, owner}, request.mutable_owner());
    ToProto(*ResourceSet::FromDoubles({{"CPU", 1}}), request.mutable_resources());
    return request;
  }
  v1::StartActorRequest ActorStart(const ActorId& id) {
    v1::StartActorRequest request;
    auto* spec = request.mutable_spec();
    spec->mutable_template_()->set_job_id(job_.Binary());
    spec->mutable_creation()->set_actor_id(id.Binary());
    spec->mutable_creation()->set_class_name("A");
    ToProto(*ResourceSet::FromDoubles({{"CPU", 1}}), spec->mutable_creation()->mutable_placement_resources());
    return request;
  }
  int64_t FreeCpu() {
    int64_t free = 0;
    OnLoop([&] { free = leases_->resources().available().Get("CPU"); });
    return free;
  }

  std::string dir_;
  const NodeId node_ = NodeId::FromRandom();
  const JobId job_ = JobId::FromInt(1);
  std::unique_ptr<async::EpollLoop> loop_;
  FakeLauncher launcher_;
  std::map<int64_t, rpc::ConnectionPtr> processes_;
  std::unique_ptr<WorkerService> workers_;
  std::unique_ptr<LeaseService> leases_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<ChaosService> chaos_;
  std::map<int64_t, std::string> titles_;  // of processes
  bool died_ = false;
  std::unique_ptr<rpc::LocalCarrier> server_, clients_;
  rpc::ConnectionPtr raylet_end_;  // of the newest connection
  rpc::ConnectionPtr gcs_end_;
  int kv_gets_ = 0;  // that reached the GCS
  bool kv_found_ = true;
  std::vector<ProcessEnd> ended_;
  std::set<std::string> subscribed_;                // keys, at the GCS
  std::map<std::string, int> asked_;                // how often for each key
  std::map<uint64_t, std::vector<uint64_t>> news_;  // by connection: versions of actors that were published there
  bool open_at_once_ = true;
  bool hold_subscriptions_ = false;
  bool hold_creation_ = false;
  std::vector<rpc::Responder> held_;
  Status registration_;
};

TEST_F(RayletServices, LeasesAWorkerAndTakesItBack) {
  const WorkerId owner = WorkerId::FromRandom();
  auto driver = MakeDriver(owner);
  ASSERT_TRUE(registration_.ok()) << registration_.ToString();
  const LeaseId first = LeaseId::FromRandom(), second = LeaseId::FromRandom();
  auto [status, reply] = Ask<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(first, owner));
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(reply.granted());
  EXPECT_EQ(reply.worker_pid(), 1001);
  auto again = Ask<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(first, owner)).second;
  EXPECT_EQ(again.worker().worker_id(), reply.worker().worker_id());

  auto waiting = Begin<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(second, owner));
  v1::ReturnLeaseRequest back;
  back.set_lease_id(first.Binary());
  driver->Notify(MethodId::kReturnLease, back);
  const auto granted = waiting.get().second;
  EXPECT_TRUE(granted.granted());
  EXPECT_EQ(granted.worker().worker_id(), reply.worker().worker_id());  // the same process again
}

class ClosedRayletServices : public RayletServices {
 protected:
  ClosedRayletServices() { open_at_once_ = false; }
};

// Others know of the node, and send it work, before it knows that it has been registered.
TEST_F(ClosedRayletServices, LaunchNoWorkerThatCouldNotComeIn) {
  const WorkerId owner = WorkerId::FromRandom();
  auto driver = MakeDriver(owner);
  auto waiting = Begin<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(LeaseId::FromRandom(), owner));
  Register(driver, owner);  // once more: it is answered behind that request
  OnLoop([this] {
    EXPECT_TRUE(processes_.empty());
    workers_->Open();
  });
  EXPECT_TRUE(waiting.get().second.granted());
}

TEST_F(RayletServices, SaysHowAWorkerEndedThatItsOwnerLost) {
  const WorkerId owner = WorkerId::FromRandom();
  auto driver = MakeDriver(owner);
  const LeaseId lease = LeaseId::FromRandom();
  ASSERT_TRUE(Ask<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(lease, owner)).second.granted());
  v1::ReturnLeaseRequest back;
  back.set_lease_id(lease.Binary());
  back.set_worker_failed(true);
  driver->Notify(MethodId::kReturnLease, back);
  // The next lease of its place comes after its end.
  ASSERT_TRUE(Ask<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(LeaseId::FromRandom(), owner)).second.granted());
  OnLoop([this] {
    ASSERT_EQ(ended_.size(), 1u);
    EXPECT_EQ(ended_[0].detail, "killed by signal 9 (Killed); its owner lost the connection to it");
  });
}

TEST_F(RayletServices, AnOwnersEndKillsTheWorkerItLeased) {
  const WorkerId owner = WorkerId::FromRandom(), other = WorkerId::FromRandom();
  auto driver = MakeDriver(owner);
  auto witness = MakeDriver(other);
  ASSERT_TRUE(Ask<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(LeaseId::FromRandom(), owner)).second.granted());
  auto waiting = Begin<v1::RequestLeaseReply>(witness, MethodId::kRequestLease, Lease(LeaseId::FromRandom(), other));
  driver->Close(Status::Cancelled("gone"));
  EXPECT_TRUE(waiting.get().second.granted());
  OnLoop([this] {
    ASSERT_EQ(ended_.size(), 2u);
    EXPECT_TRUE(ended_[0].is_driver);
    EXPECT_NE(ended_[1].detail.find("owner"), std::string::npos);
  });
}

TEST_F(RayletServices, CancelAnswersAndFreesThePlace) {
  const WorkerId owner = WorkerId::FromRandom();
  auto driver = MakeDriver(owner);
  Ask<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(LeaseId::FromRandom(), owner));
  const LeaseId id = LeaseId::FromRandom();
  auto waiting = Begin<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(id, owner));
  v1::CancelLeaseRequest cancel;
  cancel.set_lease_id(id.Binary());
  driver->Notify(MethodId::kCancelLease, cancel);
  EXPECT_TRUE(waiting.get().second.cancelled());
}

TEST_F(RayletServices, StartsAnActorThatThenHoldsNoCpu) {
  auto gcs = MakeDriver(WorkerId::FromRandom());
  const ActorId id = ActorId::Of(job_);
  auto [status, reply] = Ask<v1::StartActorReply>(gcs, MethodId::kStartActor, ActorStart(id));
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_FALSE(reply.has_creation_error());
  EXPECT_EQ(reply.pid(), 1001);
  EXPECT_EQ(reply.node_ip(), "192.0.2.7");
  EXPECT_EQ(FreeCpu(), ResourceSet::kUnit);
  const auto again = Ask<v1::StartActorReply>(gcs, MethodId::kStartActor, ActorStart(id)).second;
  EXPECT_EQ(again.worker().worker_id(), reply.worker().worker_id());
}

TEST_F(RayletServices, AWorkerThatDiesInTheConstructorIsTold) {
  hold_creation_ = true;
  auto gcs = MakeDriver(WorkerId::FromRandom());
  const ActorId id = ActorId::Of(job_);
  auto started = Begin<v1::StartActorReply>(gcs, MethodId::kStartActor, ActorStart(id));
  bool held = false;
  while (!held) OnLoop([&] { held = !held_.empty(); });
  OnLoop([this] { launcher_.on_signal(1001, SIGKILL); });
  const auto reply = started.get().second;
  EXPECT_EQ(reply.creation_error().error_type(), 0);
  EXPECT_NE(reply.creation_error().message().find("killed by signal 9"), std::string::npos) << reply.creation_error().message();
  EXPECT_EQ(reply.creation_error().pid(), 1001);
  EXPECT_EQ(reply.creation_error().node_ip(), "192.0.2.7");
  // A GCS that did not get the answer asks again: that is no second start.
  EXPECT_EQ(Ask<v1::StartActorReply>(gcs, MethodId::kStartActor, ActorStart(id)).second.creation_error().message(),
            reply.creation_error().message());
}

TEST_F(RayletServices, TellsAGcsWhatItHas) {
  auto gcs = MakeDriver(WorkerId::FromRandom());
  const ActorId id = ActorId::Of(job_);
  const auto started = Ask<v1::StartActorReply>(gcs, MethodId::kStartActor, ActorStart(id)).second;
  v1::PrepareBundlesRequest prepare;
  prepare.set_placement_group_id(std::string(PlacementGroupId::kSize, 'p'));
  prepare.set_attempt(1);
  prepare.set_commit(true);
  v1::BundleRequest* bundle = prepare.add_bundles();
  bundle->set_index(3);
  ToProto(*ResourceSet::FromDoubles({{"CPU", 1}}), bundle->mutable_resources());
  ASSERT_TRUE(Ask<v1::PrepareBundlesReply>(gcs, MethodId::kPrepareBundles, prepare).second.prepared());
  v1::NodeState state;
  OnLoop([&] {
    leases_->TakeChangedBundles();
    leases_->FillState(&state);
    EXPECT_EQ(leases_->TakeChangedBundles().size(), 1u) << "shown again";
    EXPECT_EQ(leases_->Jobs(), std::set<JobId>{job_});
    EXPECT_TRUE(workers_->Jobs().contains(job_));
  });
  ASSERT_EQ(state.actors_size(), 1);
  EXPECT_EQ(state.actors(0).actor_id(), id.Binary());
  EXPECT_EQ(state.actors(0).worker_id(), started.worker().worker_id());
  ASSERT_EQ(state.bundles_size(), 1);
  EXPECT_EQ(state.bundles(0).index(), 3);
}

TEST_F(RayletServices, AKilledStartIsCancelled) {
  hold_creation_ = true;
  auto gcs = MakeDriver(WorkerId::FromRandom());
  const ActorId id = ActorId::Of(job_);
  auto started = Begin<v1::StartActorReply>(gcs, MethodId::kStartActor, ActorStart(id));
  v1::KillActorOnNodeRequest kill;
  kill.set_actor_id(id.Binary());
  kill.set_force(true);
  EXPECT_TRUE(Ask<v1::LeaseEmpty>(gcs, MethodId::kKillActorOnNode, kill).first.ok());
  EXPECT_TRUE(started.get().second.cancelled());
  // The order to start it comes once more behind the one to end it: nobody would end a second start.
  EXPECT_TRUE(Ask<v1::StartActorReply>(gcs, MethodId::kStartActor, ActorStart(id)).second.cancelled());
}

TEST_F(RayletServices, StrangersAreRefused) {
  MakeDriver(WorkerId::FromRandom());
  ASSERT_TRUE(registration_.ok());
  MakeDriver(WorkerId::FromRandom(), "3.12");
  EXPECT_EQ(registration_.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(registration_.message().find("3.12"), std::string::npos);
}

TEST_F(RayletServices, WithoutAGcsItsCallsFailAtOnce) {
  auto driver = MakeDriver(WorkerId::FromRandom());
  EXPECT_EQ(Ask<v1::AddJobReply>(driver, MethodId::kAddJob, v1::AddJobRequest()).first.code(), StatusCode::kUnavailable);
}

TEST_F(RayletServices, FunctionsAreFetchedFromTheGcsOnce) {
  StartGcs();
  auto driver = MakeDriver(WorkerId::FromRandom());
  v1::KvGetRequest request;
  request.set_ns("fun");
  request.set_key("hash");
  kv_found_ = false;  // not exported yet: the next one must ask again
  EXPECT_FALSE(Ask<v1::KvGetReply>(driver, MethodId::kKvGet, request).second.found());
  kv_found_ = true;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Ask<v1::KvGetReply>(driver, MethodId::kKvGet, request).second.value(), "value of hash");
  EXPECT_EQ(kv_gets_, 2);
  request.set_ns("other");  // may change
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Ask<v1::KvGetReply>(driver, MethodId::kKvGet, request).second.value(), "value of hash");
  EXPECT_EQ(kv_gets_, 4);
}

TEST_F(RayletServices, LaterSubscribersOfAnActorAreAnsweredHere) {
  StartGcs();
  std::vector<rpc::ConnectionPtr> processes;
  OnLoop([&] {
    for (int i = 0; i < 3; ++i) processes.push_back(Connect());
  });
  v1::SubscribeRequest request;
  request.set_channel(v1::CHANNEL_ACTOR);
  request.set_key("a");
  const auto subscribe = [&](int process) {
    EXPECT_TRUE(Ask<v1::PubSubEmpty>(processes[static_cast<size_t>(process)], MethodId::kSubscribe, request).first.ok());
  };
  const auto publish = [&](uint64_t version) {
    v1::PublishNotice notice;
    notice.set_channel(v1::CHANNEL_ACTOR);
    notice.set_key("a");
    notice.mutable_actor()->set_version(version);
    EXPECT_TRUE(Ask<v1::PubSubEmpty>(gcs_end_, MethodId::kPublish, notice).first.ok());
  };
  // What each has heard since the last call.
  const auto heard = [&] {
    v1::WorkerEmpty behind;
    for (const auto& process : processes) (void)Ask<v1::WorkerEmpty>(process, MethodId::kGetNodeStats, behind);  // not served here
    std::string text;
    OnLoop([&] {
      for (const auto& process : processes) {
        for (const uint64_t version : news_[process->id()]) text += std::to_string(version);
        text += '|';
      }
      news_.clear();
    });
    return text;
  };
  subscribe(0);
  subscribe(1);  // nothing has come yet
  EXPECT_EQ(asked_["a"], 2);
  publish(1);
  EXPECT_EQ(heard(), "1|1||");
  subscribe(2);
  EXPECT_EQ(heard(), "||1|") << "and nobody else once more";
  publish(2);
  EXPECT_EQ(heard(), "2|2|2|");
  subscribe(1);
  EXPECT_EQ(heard(), "|2||");
  EXPECT_EQ(asked_["a"], 2);
  // With the last of them goes what was known.
  for (const auto& process : processes) (void)Ask<v1::PubSubEmpty>(process, MethodId::kUnsubscribe, request);
  publish(3);
  subscribe(0);
  EXPECT_EQ(asked_["a"], 3);
  EXPECT_EQ(heard(), "|||");
}

TEST_F(RayletServices, ANewGcsKeepsOnlySubscriptionsThatSomebodyHas) {
  StartGcs();
  rpc::ConnectionPtr gcs, gone, gone_here, fickle, stays;
  OnLoop([&] {
    gcs = raylet_end_;
    gone = Connect();
    gone_here = raylet_end_;
    fickle = Connect();
    stays = Connect();
    hold_subscriptions_ = true;
  });
  v1::SubscribeRequest request;
  request.set_channel(v1::CHANNEL_ACTOR);
  const auto subscribe = [&](const rpc::ConnectionPtr& process, const std::string& key) {
    request.set_key(key);
    return Begin<v1::PubSubEmpty>(process, MethodId::kSubscribe, request);
  };
  v1::KvGetRequest behind;
  behind.set_key("k");
  auto first = subscribe(gone, "of one that goes"), second = subscribe(fickle, "unsubscribed"), third = subscribe(stays, "stays");
  for (const auto& process : {gone, fickle, stays}) (void)Ask<v1::KvGetReply>(process, MethodId::kKvGet, behind);
  OnLoop([&] {
    EXPECT_EQ(subscribed_, (std::set<std::string>{"", "of one that goes", "unsubscribed", "stays"}));
    gcs->Close(Status::Unavailable("killed"));
    router_->WaitForGcs();
    held_.clear();
    subscribed_.clear();
    hold_subscriptions_ = false;
    gone_here->Close(Status::Cancelled("killed"));
  });
  auto late = subscribe(stays, "while there is none");
  auto late_and_gone = subscribe(fickle, "unsubscribed before it was sent");
  for (const char* key : {"unsubscribed", "unsubscribed before it was sent"}) {
    request.set_key(key);
    fickle->Notify(MethodId::kUnsubscribe, request);
  }
  v1::WorkerEmpty stats;
  for (const auto& process : {fickle, stays})
    (void)Ask<v1::WorkerEmpty>(process, MethodId::kGetNodeStats, stats);  // behind it; not served here
  StartGcs();
  (void)Ask<v1::KvGetReply>(stays, MethodId::kKvGet, behind);
  EXPECT_TRUE(third.get().first.ok());
  EXPECT_TRUE(late.get().first.ok());
  EXPECT_FALSE(first.get().first.ok());
  EXPECT_TRUE(second.get().first.ok());
  EXPECT_TRUE(late_and_gone.get().first.ok());
  (void)Ask<v1::KvGetReply>(stays, MethodId::kKvGet, behind);  // behind what the answers to subscriptions gave rise to
  OnLoop([&] { EXPECT_EQ(subscribed_, (std::set<std::string>{"", "stays", "while there is none"})); });
}

TEST_F(RayletServices, AWorkerIsToldItsJobWhenItRegisters) {
  StartGcs();
  rpc::ConnectionPtr driver;
  OnLoop([&] { driver = Connect(); });
  v1::RegisterWorkerRequest message;
  message.set_worker_id(WorkerId::FromRandom().Binary());
  message.set_is_driver(true);
  message.set_protocol_version(std::string(kProtocolVersion));
  ASSERT_TRUE(Ask<v1::RegisterWorkerReply>(driver, MethodId::kRegisterWorker, message).first.ok());
  v1::AddJobRequest add;
  add.mutable_job()->set_ray_namespace("space");
  add.mutable_job()->set_config_json("{}");
  ASSERT_TRUE(Ask<v1::AddJobReply>(driver, MethodId::kAddJob, add).first.ok());
  rpc::ConnectionPtr other;
  OnLoop([&] { other = Connect(); });
  message.set_worker_id(WorkerId::FromRandom().Binary());
  message.set_job_id(job_.Binary());
  const auto welcome = Ask<v1::RegisterWorkerReply>(other, MethodId::kRegisterWorker, message).second;
  EXPECT_TRUE(welcome.job_known());
  EXPECT_EQ(welcome.job_namespace(), "space");
  EXPECT_EQ(welcome.job_config_json(), "{}");
}

TEST_F(RayletServices, AJobsEndTakesItsWorkers) {
  const WorkerId owner = WorkerId::FromRandom();
  auto driver = MakeDriver(owner);
  Ask<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(LeaseId::FromRandom(), owner));
  auto waiting = Begin<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(LeaseId::FromRandom(), owner));
  v1::JobFinishedNotice finished;
  finished.set_job_id(job_.Binary());
  EXPECT_TRUE(Ask<v1::LeaseEmpty>(driver, MethodId::kJobFinished, finished).first.ok());
  EXPECT_TRUE(waiting.get().second.cancelled());
  size_t ends = 0;
  while (ends == 0) OnLoop([&] { ends = ended_.size(); });
  EXPECT_EQ(FreeCpu(), ResourceSet::kUnit);
}

TEST_F(RayletServices, KillsTheHolderOfALeaseOnPurpose) {
  const WorkerId owner = WorkerId::FromRandom();
  auto driver = MakeDriver(owner);
  const LeaseId lease = LeaseId::FromRandom();
  ASSERT_TRUE(Ask<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(lease, owner)).second.granted());
  OnLoop([this] { titles_[1001] = "ray::f"; });
  auto targets = [&](const JobId& job) {
    v1::ChaosListTargetsRequest request;
    request.set_job_id(job.Binary());
    return Ask<v1::ChaosListTargetsReply>(driver, MethodId::kChaosListTargets, request).second;
  };
  auto kill = [&](const std::string& running) {
    v1::ChaosKillWorkerRequest request;
    request.set_lease_id(lease.Binary());
    request.set_running(running);
    request.set_reason("a test");
    return Ask<v1::ChaosKillWorkerReply>(driver, MethodId::kChaosKillWorker, request).second.killed();
  };
  EXPECT_EQ(targets(JobId::FromInt(2)).targets_size(), 0) << "of another job";
  const auto found = targets(job_);
  ASSERT_EQ(found.targets_size(), 1);
  EXPECT_EQ(found.targets(0).lease_id(), lease.Binary());
  EXPECT_EQ(found.targets(0).pid(), 1001);
  EXPECT_EQ(found.targets(0).running(), "f");
  EXPECT_EQ(found.targets(0).actor_id(), "");

  EXPECT_FALSE(kill("g")) << "it runs something else";
  OnLoop([this] { EXPECT_TRUE(ended_.empty()); });
  EXPECT_TRUE(kill("f"));
  // Its end comes after the answer; the next lease of its place after its end.
  ASSERT_TRUE(Ask<v1::RequestLeaseReply>(driver, MethodId::kRequestLease, Lease(LeaseId::FromRandom(), owner)).second.granted());
  OnLoop([this] {
    ASSERT_EQ(ended_.size(), 1u);
    EXPECT_FALSE(ended_[0].intended) << "as if it had crashed";
    EXPECT_EQ(ended_[0].detail, "ended by the raylet: a test");
  });
  EXPECT_FALSE(kill("")) << "the lease is over";
}

TEST_F(RayletServices, TellsActorsAmongTheTargets) {
  auto driver = MakeDriver(WorkerId::FromRandom());
  OnLoop([this] { titles_[1001] = "ray::A"; });
  const ActorId actor = ActorId::FromRandom();
  auto start = ActorStart(actor);
  start.mutable_spec()->mutable_creation()->set_name("name");
  ASSERT_TRUE(Ask<v1::StartActorReply>(driver, MethodId::kStartActor, start).first.ok());
  v1::ChaosListTargetsRequest request;
  request.set_job_id(job_.Binary());
  const auto found = Ask<v1::ChaosListTargetsReply>(driver, MethodId::kChaosListTargets, request).second;
  ASSERT_EQ(found.targets_size(), 1);
  EXPECT_EQ(found.targets(0).actor_id(), actor.Binary());
  EXPECT_EQ(found.targets(0).class_name(), "A");
  EXPECT_EQ(found.targets(0).actor_name(), "name");
  EXPECT_EQ(found.targets(0).running(), "") << "the title of an actor that waits is its class";
  EXPECT_TRUE(found.targets(0).actor_alive());
}

TEST_F(RayletServices, ANodeThatIsKilledOnPurposeIsTheOneMeant) {
  auto driver = MakeDriver(WorkerId::FromRandom());
  v1::ChaosKillNodeRequest request;
  request.set_node_id(NodeId::FromRandom().Binary());
  EXPECT_EQ(Ask<v1::ChaosEmpty>(driver, MethodId::kChaosKillNode, request).first.code(), StatusCode::kInvalidArgument);
  OnLoop([this] { EXPECT_FALSE(died_); });
  request.set_node_id(node_.Binary());
  (void)Ask<v1::ChaosEmpty>(driver, MethodId::kChaosKillNode, request);  // it does not live to answer
  OnLoop([this] { EXPECT_TRUE(died_); });
}

}  // namespace
}  // namespace ray::raylet
