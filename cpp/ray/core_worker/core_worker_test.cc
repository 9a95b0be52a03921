// Two core workers, a driver and a worker, in one process over real sockets, with a raylet that grants the one worker to whoever asks.
#include "ray/core_worker/core_worker.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <future>
#include <mutex>
#include <thread>

#include "ray/common/socket_name.h"
#include "ray/core_worker/lifecycle/unix_platform.h"
#include "ray/rpc/local/local_carrier.h"
#include "ray/testing/promise/promise.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/pubsub.pb.h"
#include "ray/v1/raylet_worker.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/value_layout.h"

namespace ray::core {
namespace {

class FakeRaylet {
 public:
  explicit FakeRaylet(const std::string& session) {
    loop_ = async::EpollLoop::Make({.name = "raylet"}).value();
    EXPECT_TRUE(loop_->Start().ok());
    auto dispatcher = std::make_shared<rpc::Dispatcher>();
    dispatcher->RegisterTyped<v1::RegisterWorkerRequest>(
        MethodId::kRegisterWorker, [this](const v1::RegisterWorkerRequest& m, rpc::Request& request, rpc::Responder r) {
          if (!m.is_driver()) {
            worker_ = {node, WorkerId::FromBinaryOrNil(m.worker_id())};
            worker_connection_ = request.connection;
          } else {
            driver_connection_ = request.connection;
          }
          v1::RegisterWorkerReply reply;
          reply.set_node_id(node.Binary());
          r.Send(reply);
        });
    dispatcher->RegisterTyped<v1::AddJobRequest>(MethodId::kAddJob, [](const v1::AddJobRequest&, rpc::Request&, rpc::Responder r) {
      v1::AddJobReply reply;
      reply.set_job_id(JobId::FromInt(1).Binary());
      r.Send(reply);
    });
    dispatcher->RegisterTyped<v1::RequestLeaseRequest>(MethodId::kRequestLease,
                                                       [this](const v1::RequestLeaseRequest&, rpc::Request&, rpc::Responder r) {
                                                         if (granted_) {
                                                           waiting_.push_back(std::move(r));
                                                           return;
                                                         }
                                                         granted_ = true;
                                                         v1::RequestLeaseReply reply;
                                                         reply.set_granted(true);
                                                         ToProto(worker_, reply.mutable_worker());
                                                         r.Send(reply);
                                                       });
    dispatcher->RegisterTyped<v1::ReturnLeaseRequest>(
        MethodId::kReturnLease, [this](const v1::ReturnLeaseRequest&, rpc::Request&, rpc::Responder) { granted_ = false; });
    // The creation goes straight to the one worker; then the actor is told to live there.
    dispatcher->Register(MethodId::kCreateActor, [this](rpc::Request request, rpc::Responder r) {
      v1::CreateActorRequest create;
      ASSERT_TRUE(create.ParseFromArray(request.control.data(), static_cast<int>(request.control.size())));
      r.Send(v1::ActorEmpty());
      v1::PushTaskRequest push;
      *push.mutable_spec() = create.spec();
      worker_connection_->Call(MethodId::kPushTask, push, request.parts, [this, create](Status status, rpc::Reply) {
        v1::PublishNotice notice;
        notice.set_channel(v1::CHANNEL_ACTOR);
        v1::ActorInfo* info = notice.mutable_actor();
        info->set_actor_id(create.spec().creation().actor_id());
        info->set_state(status.ok() ? v1::ACTOR_STATE_ALIVE : v1::ACTOR_STATE_DEAD);
        ToProto(worker_, info->mutable_address());
        driver_connection_->Notify(MethodId::kPublish, notice);
      });
    });
    dispatcher->RegisterFallback([](rpc::Request, rpc::Responder r) {
      if (r.valid()) r.Send(v1::WorkerEmpty());
    });
    carrier_ = rpc::LocalCarrier::Make(loop_.get(), dispatcher, {.sockets_dir = session + "/sockets"}).value();
    EXPECT_TRUE(carrier_->Listen("raylet.sock", [](const rpc::ConnectionPtr&) {}).ok());
  }
  void Stop() {
    waiting_.clear();
    carrier_->Shutdown();
    loop_->Stop();
  }
  const NodeId node = NodeId::FromRandom();

 private:
  std::unique_ptr<async::EpollLoop> loop_;
  std::unique_ptr<rpc::LocalCarrier> carrier_;
  Address worker_;
  rpc::ConnectionPtr worker_connection_, driver_connection_;
  bool granted_ = false;
  std::vector<rpc::Responder> waiting_;
};

class CoreWorkerTest : public testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/core_worker_test_XXXXXX";
    session_ = mkdtemp(path);
    raylet_ = std::make_unique<FakeRaylet>(session_);
    worker_ = Start(false);
    driver_ = Start(true);
    executor_ = std::thread([this] { Execute(); });
  }
  void TearDown() override {
    stop_ = true;
    worker_->receiver().OnOtherEvent();
    executor_.join();
    driver_->Shutdown("test");
    worker_->Shutdown("test");
    raylet_->Stop();
    std::filesystem::remove_all(session_);
  }
  std::unique_ptr<CoreWorker> Start(bool driver) {
    CoreWorkerConfig config;
    config.is_driver = driver;
    config.session_dir = session_;
    config.worker_id = WorkerId::FromRandom();
    if (!driver) worker_id_ = config.worker_id;
    config.job_id = JobId::FromInt(1);
    auto worker = CoreWorker::Start(config, UnixPlatform::Make(session_ + "/sockets").value());
    EXPECT_TRUE(worker.ok()) << worker.status().ToString();
    return std::move(worker).value();
  }
  // Answers each task with its arguments' bytes, or "fail" with an error that may be retried, up to twice.
  void Execute() {
    while (!stop_) {
      NextItem item;
      if (!worker_->receiver().TryNext(&item)) {
        worker_->receiver().WaitForWork(Time::Infinite());  // nothing but news wakes it
        continue;
      }
      if (!worker_->receiver().Prepare(item)) continue;
      if (item.kind != NextItem::kRun) continue;
      const ReceivedTask& task = *item.task;
      std::string text;
      if (task.spec.args != nullptr) text = ParsePythonBlob(task.spec.args->view())->pickle;
      for (const ReadValue& value : task.ref_values) text += "+" + std::string(value.blob->view());
      TaskResult result;
      bool fail = text == "fail" && task.spec.attempt < 2;
      result.application_error = result.retryable_error = fail;
      if (task.spec.tmpl->num_returns == kStreamingReturns) {
        bool stop = false;
        for (int64_t i = 0; i < 3 && !stop; ++i) {
          std::string bytes = "item" + std::to_string(i);
          EXPECT_TRUE(worker_->receiver().ReportItem(task.token, i, ValueView{kMetadataRaw, bytes, {}, {}}, &stop).ok());
        }
        result.generator_items = 3;
      }
      result.returns.push_back(ValueView{kMetadataRaw, text, {}, {}});
      EXPECT_TRUE(worker_->receiver().Finish(item.task, result).ok());
    }
  }
  uint64_t Template(TaskType type, int32_t returns = 1) {
    TaskTemplate t;
    t.type = type;
    t.function_name = "f";
    t.max_retries = 3;
    t.num_returns = returns;
    return driver_->RegisterTemplate(t);
  }
  ObjectId Submit(uint64_t handle, const std::string& text, std::vector<ObjectRefInfo> refs = {}) {
    std::vector<ObjectId> ids;
    Status status = driver_->SubmitTask(handle, ValueView{kMetadataPython, text, {}, {}}, refs, &ids);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return ids.at(0);
  }
  std::string Get(const ObjectId& id) {
    ObjectRefInfo ref{id, {}};
    std::vector<ReadValue> values;
    while (true) {
      ReadResult result = driver_->objects().Get(std::span(&ref, 1), 10000, &values);
      if (result == ReadResult::kInterrupted) continue;
      if (result != ReadResult::kReady) return "timeout";
      return std::string(values[0].blob->view());
    }
  }

  std::string session_;
  std::unique_ptr<FakeRaylet> raylet_;
  WorkerId worker_id_;  // of worker_
  std::unique_ptr<CoreWorker> worker_, driver_;
  std::atomic<bool> stop_{false};
  std::thread executor_;
};

TEST_F(CoreWorkerTest, TasksRunAndDependOnEachOther) {
  uint64_t f = Template(TaskType::kNormal);
  ObjectId a = Submit(f, "a");
  ObjectId b = Submit(f, "b", {{a, {}}});
  EXPECT_EQ(Get(b), "b+a");
  EXPECT_EQ(Get(a), "a");
  std::vector<ObjectId> many;
  for (int i = 0; i < 500; ++i) many.push_back(Submit(f, std::to_string(i)));
  for (int i = 0; i < 500; ++i) EXPECT_EQ(Get(many[static_cast<size_t>(i)]), std::to_string(i));
}

TEST_F(CoreWorkerTest, RetryableErrorsAreRetried) { EXPECT_EQ(Get(Submit(Template(TaskType::kNormal), "fail")), "fail"); }

TEST_F(CoreWorkerTest, CancelsRaceRetriesAndLateArguments) {
  uint64_t f = Template(TaskType::kNormal);
  for (int round = 0; round < 20; ++round) {
    std::vector<ObjectId> ids;
    for (int i = 0; i < 10; ++i) {
      ids.push_back(Submit(f, "fail"));
      ids.push_back(Submit(f, "late", {{ids[0], {}}}));
    }
    std::thread canceller([&] {
      for (const ObjectId& id : ids) EXPECT_TRUE(driver_->CancelTask({id, {}}, false, false).ok());
    });
    for (const ObjectId& id : ids) EXPECT_NE(Get(id).substr(0, 7), "timeout");
    canceller.join();
  }
  EXPECT_EQ(Get(Submit(f, "after")), "after");
}

// An owner whose objects never come, and that sends tasks straight to the worker.
class SilentOwner {
 public:
  explicit SilentOwner(const std::string& session) {
    loop_ = async::EpollLoop::Make({.name = "owner"}).value();
    EXPECT_TRUE(loop_->Start().ok());
    auto dispatcher = std::make_shared<rpc::Dispatcher>();
    dispatcher->RegisterFallback([this](rpc::Request, rpc::Responder r) { unanswered_.push_back(std::move(r)); });
    carrier_ = rpc::LocalCarrier::Make(loop_.get(), dispatcher, {.sockets_dir = session + "/sockets"}).value();
    self_ = {NodeId::FromRandom(), WorkerId::FromRandom()};
  }
  ~SilentOwner() {
    carrier_->Shutdown();
    loop_->Stop();
  }
  rpc::ConnectionPtr Connect(const WorkerId& worker) { return carrier_->Connect(WorkerSocketName(worker)).value(); }
  // A task that nothing behind it may overtake.
  TaskSpec Task(bool late) {
    auto tmpl = std::make_shared<TaskTemplate>();
    tmpl->job_id = JobId::FromInt(1);
    tmpl->function_name = "f";
    TaskSpec spec;
    spec.tmpl = std::move(tmpl);
    spec.task_id = TaskId::Of(JobId::FromInt(1), ActorId::Nil());
    spec.owner = self_;
    if (late) {
      TaskArg arg;
      arg.ref = {ObjectId::ForReturn(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 0), self_};
      spec.refs.push_back(std::move(arg));
    }
    return spec;
  }
  static std::future<v1::PushTaskReply> Push(const rpc::ConnectionPtr& to, const TaskSpec& spec) {
    v1::PushTaskRequest push;
    PartList parts;
    EncodeWhole(spec, push.mutable_spec(), &parts);
    const TestPromise<v1::PushTaskReply> done;
    to->Call(MethodId::kPushTask, push, parts, [done](Status status, rpc::Reply reply) {
      v1::PushTaskReply message;
      EXPECT_TRUE(!status.ok() || message.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size())));
      done.set_value(std::move(message));
    });
    return done.get_future();
  }

 private:
  std::unique_ptr<async::EpollLoop> loop_;
  std::unique_ptr<rpc::LocalCarrier> carrier_;
  std::vector<rpc::Responder> unanswered_;  // on the loop
  Address self_;
};

TEST_F(CoreWorkerTest, WhatACancelledTaskHeldUpRunsAtOnce) {
  SilentOwner owner(session_);
  const rpc::ConnectionPtr worker = owner.Connect(worker_id_);
  const TaskSpec late = owner.Task(/*late=*/true);
  std::future<v1::PushTaskReply> head = owner.Push(worker, late), behind = owner.Push(worker, owner.Task(false));
  EXPECT_EQ(behind.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);  // and the executor sleeps
  v1::CancelTaskRequest cancel;
  cancel.set_task_id(late.task_id.Binary());
  worker->Call(MethodId::kCancelTask, cancel, {}, [](const Status&, const rpc::Reply&) {});
  ASSERT_EQ(head.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_TRUE(head.get().cancelled());
  ASSERT_EQ(behind.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_EQ(behind.get().returns_size(), 1);
}

TEST_F(CoreWorkerTest, WhatATaskOfAnOwnerThatLeftHeldUpRunsAtOnce) {
  SilentOwner owner(session_);
  auto leaving = std::make_unique<SilentOwner>(session_);
  const rpc::ConnectionPtr worker = owner.Connect(worker_id_);
  leaving->Push(leaving->Connect(worker_id_), leaving->Task(/*late=*/true));
  EXPECT_EQ(leaving->Push(leaving->Connect(worker_id_), leaving->Task(false)).wait_for(std::chrono::milliseconds(50)),
            std::future_status::timeout);
  std::future<v1::PushTaskReply> behind = owner.Push(worker, owner.Task(false));
  EXPECT_EQ(behind.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  leaving = nullptr;
  ASSERT_EQ(behind.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_EQ(behind.get().returns_size(), 1);
}

TEST_F(CoreWorkerTest, WaitsForAStreamCanBeTakenBack) {
  const TaskId task = TaskId::Of(JobId::FromInt(1), ActorId::Nil());
  GeneratorStreams& streams = driver_->streams();
  streams.Create(task, -1);
  auto taken_back = std::make_shared<bool>(false), woken = std::make_shared<bool>(false);
  const uint64_t first = streams.OnNext(task, [taken_back] { *taken_back = true; });
  const uint64_t second = streams.OnNext(task, [woken] { *woken = true; });
  EXPECT_NE(first, 0u);
  streams.Cancel(task, first);
  EXPECT_EQ(taken_back.use_count(), 1);  // nothing of it is left
  streams.Cancel(task, first);
  streams.End(task, 0);
  EXPECT_FALSE(*taken_back);
  EXPECT_TRUE(*woken);
  streams.Cancel(task, second);
  EXPECT_EQ(streams.OnNext(task, [taken_back] { *taken_back = true; }), 0u);
  EXPECT_TRUE(*taken_back);
}

TEST_F(CoreWorkerTest, AStreamThatIsHeldBackBeginsAgain) {
  const TaskId task = TaskId::Of(JobId::FromInt(1), ActorId::Nil());
  GeneratorStreams& streams = driver_->streams();
  streams.Create(task, /*backpressure=*/1);
  std::vector<std::string> told;
  const auto report = [&](uint32_t attempt, int64_t index) {
    ReturnValue item;
    item.metadata = kMetadataRaw;
    item.blob = HeapBuffer::CopyOf("item");
    item.attempt = attempt;
    streams.Report(task, index, std::move(item), [&told, attempt, index](Pace pace) {
      told.push_back(std::to_string(attempt) + "." + std::to_string(index) +
                     (pace == Pace::kBeginAgain ? " again"
                      : pace == Pace::kStop     ? " stop"
                                                : " on"));
    });
  };
  const auto next = [&] {
    bool end = false;
    ObjectId item;
    EXPECT_TRUE(streams.TryNext(task, &end, &item));
    EXPECT_FALSE(end);
    return item;
  };
  report(0, 0);
  EXPECT_TRUE(told.empty()) << "it is held back";
  EXPECT_EQ(next(), GeneratorStreams::ItemId(task, 0));
  report(0, 1);
  EXPECT_EQ(told, std::vector<std::string>{"0.0 on"});
  streams.BeginAgain(task);  // item 0 is lost, and its consumer, who waits for it, will not take item 1
  EXPECT_EQ(told, (std::vector<std::string>{"0.0 on", "0.1 again"}));
  report(0, 2);  // on its way when it was told
  EXPECT_EQ(told.back(), "0.2 again");
  for (int64_t i = 0; i < 3; ++i) report(1, i);  // what is known is not held back
  EXPECT_EQ(told.size(), 6u);
  EXPECT_EQ(told.back(), "1.2 on");
  report(1, 3);
  EXPECT_EQ(told.size(), 6u) << "held back as before";
  for (int64_t i = 1; i < 4; ++i) EXPECT_EQ(next(), GeneratorStreams::ItemId(task, i));
  EXPECT_EQ(told.back(), "1.3 on");
  streams.End(task, 4);
}

TEST_F(CoreWorkerTest, AStreamWithoutConsumerIsStoppedBehindTheLastItemThatIsHeld) {
  const TaskId task = TaskId::Of(JobId::FromInt(1), ActorId::Nil());
  int64_t last_held = 2;
  GeneratorStreams streams(&driver_->objects(), [&](const ObjectId& item) {
    EXPECT_EQ(item.task_id(), task);
    return item.index() < GeneratorStreams::ItemId(task, last_held).index();
  });
  std::vector<Pace> told;
  const auto report = [&](int64_t index) {
    ReturnValue item;
    item.metadata = kMetadataRaw;
    item.blob = HeapBuffer::CopyOf("item");
    streams.Report(task, index, std::move(item), [&told](Pace pace) { told.push_back(pace); });
  };
  streams.BeginReplay(task);
  for (int64_t i = 0; i < 3; ++i) report(i);
  EXPECT_EQ(told, (std::vector<Pace>{Pace::kGoOn, Pace::kGoOn, Pace::kStop}));
  last_held = 4;  // of what was on its way when it was told
  report(3);
  EXPECT_EQ(told.back(), Pace::kGoOn);
  last_held = -1;  // nobody holds any of them any more
  report(4);
  EXPECT_EQ(told.back(), Pace::kStop);
  streams.EndReplay(task);
}

TEST_F(CoreWorkerTest, DeadActorsAreForgottenUnlessAHandleCounts) {
  ActorSubmitter submitter({.loop = &driver_->loop(), .objects = &driver_->objects()});
  const ActorId weak = ActorId::Of(JobId::FromInt(1)), counted = ActorId::Of(JobId::FromInt(1));
  const ObjectId handle = ObjectId::ForActorHandle(counted);
  driver_->objects().AddOwned(std::span(&handle, 1));
  for (const ActorId& actor : {weak, counted}) EXPECT_TRUE(submitter.AddActor(actor, ActorPhase::kPending, -1, "A"));
  EXPECT_FALSE(submitter.AddActor(weak, ActorPhase::kPending, -1, "A"));  // another weak handle
  submitter.OnHandlesGone(weak);
  EXPECT_TRUE(submitter.Knows(weak));
  v1::ActorInfo info;
  info.set_state(v1::ACTOR_STATE_DEAD);
  for (const ActorId& actor : {weak, counted}) {
    info.set_actor_id(actor.Binary());
    submitter.OnActorInfo(info);
  }
  EXPECT_FALSE(submitter.Knows(weak));
  EXPECT_TRUE(submitter.Knows(counted));
  driver_->objects().RemoveLocalRef(handle);
  submitter.OnHandlesGone(counted);
  EXPECT_FALSE(submitter.Knows(counted));
}

TEST_F(CoreWorkerTest, OpenStreamsFailWithTheSession) {
  const TaskId task = TaskId::Of(JobId::FromInt(1), ActorId::Nil());
  GeneratorStreams& streams = driver_->streams();
  streams.Create(task, -1);
  bool woken = false, end = true;
  streams.OnNext(task, [&] { woken = true; });
  streams.FailAll(driver_->ClosedError());
  EXPECT_TRUE(woken);
  ObjectId item;
  ASSERT_TRUE(streams.TryNext(task, &end, &item));
  EXPECT_FALSE(end);
  StoredValue value;
  ASSERT_TRUE(driver_->objects().Lookup(item, &value));
  EXPECT_TRUE(value.IsError());
  ASSERT_TRUE(streams.TryNext(task, &end, &item));
  EXPECT_TRUE(end);
}

TEST_F(CoreWorkerTest, StreamGivesItsItemsInOrder) {
  ObjectId generator = Submit(Template(TaskType::kNormal, kStreamingReturns), "g");
  EXPECT_EQ(Get(generator), "g");  // the end of the task: all items are there
  for (int i = 0; i < 3; ++i) {
    bool end;
    ObjectId item;
    ASSERT_TRUE(driver_->streams().TryNext(generator.task_id(), &end, &item));
    ASSERT_FALSE(end);
    EXPECT_EQ(Get(item), "item" + std::to_string(i));
  }
  bool end;
  ObjectId item;
  ASSERT_TRUE(driver_->streams().TryNext(generator.task_id(), &end, &item));
  EXPECT_TRUE(end);
}

TEST_F(CoreWorkerTest, ActorCallsRunInOrder) {
  ActorId actor;
  uint64_t cls = Template(TaskType::kActorCreation), method = Template(TaskType::kActorTask);
  ASSERT_TRUE(driver_->CreateActor(cls, {}, {}, {}, &actor).ok());
  std::vector<ObjectId> results;
  for (int i = 0; i < 2000; ++i) {
    std::vector<ObjectId> ids;
    ASSERT_TRUE(driver_->SubmitActorTask(actor, method, ValueView{kMetadataPython, std::to_string(i), {}, {}}, {}, &ids).ok());
    results.push_back(ids.at(0));
  }
  for (int i = 0; i < 2000; ++i) EXPECT_EQ(Get(results[static_cast<size_t>(i)]), std::to_string(i));
}

}  // namespace
}  // namespace ray::core
