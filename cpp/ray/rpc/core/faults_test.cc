#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "ray/rpc/core/answer_log.h"
#include "ray/rpc/core/fault_core.h"
#include "ray/rpc/core/faulty_connection.h"
#include "ray/v1/gcs_kv.pb.h"

namespace ray::rpc {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

FaultConfig Faults(const std::string& text, uint64_t seed = 1) {
  auto config = FaultConfig::Parse(text, seed);
  EXPECT_TRUE(config.ok()) << config.status().ToString();
  return *config;
}

TEST(FaultConfigTest, TakesRaysSyntaxAndMore) {
  const FaultConfig config = Faults("PushTask=3:25:50,*=-1:1:2:3:delay=4@70:duplicate=5:reorder=6,GcsKv.KvPut=0:0:0:break=0.5");
  const MethodFaults& push = config.named.at(MethodId::kPushTask);
  EXPECT_EQ(push.max_losses, 3);
  EXPECT_EQ(push.lose_request, 25);
  EXPECT_EQ(push.lose_reply, 50);
  EXPECT_EQ(push.lose_in_flight, 0);
  EXPECT_EQ(config.any->max_losses, -1);
  EXPECT_EQ(config.any->lose_in_flight, 3);
  EXPECT_EQ(config.any->delay, 4);
  EXPECT_EQ(config.any->max_delay, milliseconds(70));
  EXPECT_EQ(config.any->duplicate, 5);
  EXPECT_EQ(config.any->reorder, 6);
  EXPECT_EQ(config.named.at(MethodId::kKvPut).break_connection, 0.5);
  const MethodFaults late = Faults("PushTask=2:10:20,PushTask=:delay=100@1000us-5000us").named.at(MethodId::kPushTask);
  EXPECT_EQ(late.max_losses, 2);
  EXPECT_EQ(late.lose_reply, 20);
  EXPECT_EQ(late.min_delay, milliseconds(1));
  EXPECT_EQ(late.max_delay, milliseconds(5));
  EXPECT_TRUE(Faults("").empty());
  EXPECT_TRUE(Faults("ray::rpc::CoreWorkerService.grpc_client.PushTask=1:1:1").named.contains(MethodId::kPushTask)) << "a name of Ray's";
  EXPECT_TRUE(Faults("GcsActor/KillActor=1:1:1").named.contains(MethodId::kKillActor));
  EXPECT_TRUE(Faults("RayletLease.KillActor=1:1:1").named.contains(MethodId::kKillActorOnNode));
}

TEST(FaultConfigTest, SaysWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"PushTask", "METHOD="},
      {"=1:1:1", "METHOD="},
      {"NoSuch=1:1:1", "no method 'NoSuch'"},
      {"*=x:1:1", "number"},
      {"*=-2:1:1", "number"},
      {"*=1:101:0", "percentage"},
      {"*=1:-1:0", "percentage"},
      {"*=1:60:60", "100 %"},
      {"*=-1:100:0", "95 %"},
      {"*=1:1:1:1:1", "more numbers"},
      {"*=1:1:1:lose=1", "none of"},
      {"*=1:1:1:delay=1@x", "MILLISECONDS"},
      {"*=1:1:1:delay=1@5-1", "MILLISECONDS"},
      {"*=1:nan:0", "percentage"},
      {"*=1:1:1,,", "METHOD="},
  };
  for (const auto& [text, what] : bad) {
    const Status status = FaultConfig::Parse(text, 0).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what)) << text;
  }
}

TEST(FaultCoreTest, TheNthMessageOfAMethodFaresTheSameInEveryRun) {
  const FaultConfig config = Faults("*=-1:20:20:10:delay=30:duplicate=30:reorder=30", 7);
  FaultCore alone(config), busy(config);
  for (int i = 0; i < 1000; ++i) {
    const Fate one = alone.Next(MethodId::kKvPut);
    busy.Next(MethodId::kKvGet);
    const Fate other = busy.Next(MethodId::kKvPut);
    EXPECT_EQ(one.loss, other.loss);
    EXPECT_EQ(one.delay, other.delay);
    EXPECT_EQ(one.duplicate, other.duplicate);
    EXPECT_EQ(one.overtaken, other.overtaken);
  }
  EXPECT_NEAR(static_cast<double>(alone.counts().lost), 500, 80);
  EXPECT_NEAR(static_cast<double>(alone.counts().duplicated), 300, 70);
}

TEST(FaultCoreTest, KeepsToTheRules) {
  FaultCore core(Faults("*=-1:30:30:30:duplicate=100:reorder=100:break=100"));
  FaultCore lossy(Faults("*=-1:30:30:30:duplicate=100:reorder=100"));
  for (int i = 0; i < 200; ++i) {
    EXPECT_FALSE(core.Next(MethodId::kStoreSeal).broken) << "a wildcard breaks nothing";
    EXPECT_TRUE(lossy.Next(MethodId::kStoreSeal).harmless()) << "ONCE";
    EXPECT_TRUE(lossy.Next(MethodId::kTunnel).harmless()) << "ONCE";
    const Fate returned = lossy.Next(MethodId::kReturnLease);  // one-way: nobody would send it again
    EXPECT_EQ(returned.loss, Loss::kNone);
    EXPECT_TRUE(returned.duplicate);
    EXPECT_FALSE(returned.overtaken) << "ordered";
    EXPECT_TRUE(lossy.Next(MethodId::kKvGet).overtaken);
  }
  FaultCore named(Faults("StoreSeal=2:50:40"));
  int broken = 0;
  for (int i = 0; i < 200; ++i) broken += named.Next(MethodId::kStoreSeal).broken;
  EXPECT_EQ(broken, 2) << "named: a loss is the end of the connection";
}

TEST(FaultCoreTest, LossesEnd) {
  FaultCore core(Faults("KvPut=3:40:40"));
  int lost = 0;
  for (int i = 0; i < 1000; ++i) lost += core.Next(MethodId::kKvPut).loss != Loss::kNone;
  EXPECT_EQ(lost, 3);
}

// --- a connection ---

// Virtual time: timers run when time is made to pass.
class TestLoop final : public async::Loop {
 public:
  struct TestClock final : Clock {
    Time Now() const override { return now; }
    int64_t WallMillis() const override { return now.ns / 1'000'000; }
    Time now{1};
  };
  void Post(const char*, std::function<void()> fn) override { AddTimer(Duration::zero(), std::move(fn)); }
  async::TimerId AddTimer(Duration delay, std::function<void()> fn) override {
    timers_.emplace(std::pair((clock_.now + delay).ns, ++last_), std::move(fn));
    return last_;
  }
  void CancelTimer(async::TimerId id) override {
    std::erase_if(timers_, [id](const auto& timer) { return timer.first.second == id; });
  }
  const Clock& clock() const override { return clock_; }
  bool InLoop() const override { return true; }
  void AddFlusher(std::function<void()>) override {}
  void RequestFlush() override {}
  void RunFor(Duration time) {
    const int64_t end = (clock_.now + time).ns;
    while (!timers_.empty() && timers_.begin()->first.first <= end) {
      auto timer = timers_.extract(timers_.begin());
      clock_.now.ns = std::max(clock_.now.ns, timer.key().first);
      timer.mapped()();
    }
    clock_.now.ns = end;
  }

 private:
  TestClock clock_;
  async::TimerId last_ = 0;
  std::map<std::pair<int64_t, async::TimerId>, std::function<void()>> timers_;
};

// A carrier that records what it is given; calls are answered by the test.
class Recorder : public Connection {
 public:
  void Call(MethodId method, const MessageLite& request, const PartList& parts, ReplyCallback callback, CallOptions options) override {
    CallRaw(method, request.SerializeAsString(), parts, std::move(callback), options);
  }
  void CallRaw(MethodId, std::string_view control, const PartList&, ReplyCallback callback, CallOptions options) override {
    if (closed_) return callback(Status::Unavailable("closed"), {});
    sent.emplace_back(control);
    calls.push_back(std::move(callback));
    timeouts.push_back(options.timeout);
  }
  void Notify(MethodId method, const MessageLite& message, const PartList& parts, bool) override {
    NotifyRaw(method, message.SerializeAsString(), parts);
  }
  void NotifyRaw(MethodId, std::string_view control, const PartList&) override { sent.emplace_back(control); }
  void Flush() override {}
  void Close(Status reason) override {
    closed_ = true;
    for (auto& call : std::exchange(calls, {})) call(reason, {});
  }
  bool closed() const override { return closed_; }
  void OnClose(std::function<void(const Status&)>) override {}
  uint64_t id() const override { return 1; }
  int64_t peer_pid() const override { return -1; }
  size_t unsent_bytes() const override { return 0; }

  std::vector<std::string> sent;
  std::vector<ReplyCallback> calls;
  std::vector<Duration> timeouts;

 protected:
  void SendReply(MethodId, uint64_t, FrameKind, std::string_view control, const MessageLite*, const PartList&, int, bool) override {
    sent.emplace_back("answer " + std::string(control));
  }

 private:
  bool closed_ = false;
};

class FaultyConnectionTest : public testing::Test {
 protected:
  ~FaultyConnectionTest() override {
    if (line_ != nullptr) line_->Close(Status::Unavailable("the test ends"));
  }
  Recorder& Open(const std::string& faults, uint64_t seed = 1) {
    if (line_ != nullptr) line_->calls.clear();  // they hold their connection
    injector_ = std::make_shared<FaultInjector>(Faults(faults, seed), &loop_);
    line_ = MakeConnection<Recorder>(injector_);
    return *line_;
  }
  void Call(const std::string& text, MethodId method = MethodId::kKvPut, Duration timeout = {}) {
    static_cast<Connection&>(*line_).CallRaw(
        method, text, {},
        [this, text](const Status& status, const Reply& reply) {
          answers_.push_back(text + ": " + (status.ok() ? std::string(reply.control) : std::string(StatusCodeName(status.code()))));
        },
        {.timeout = timeout});
  }
  TestLoop loop_;
  std::shared_ptr<FaultInjector> injector_;
  std::shared_ptr<Recorder> line_;
  std::vector<std::string> answers_;
};

TEST_F(FaultyConnectionTest, WithoutFaultsItIsTheCarriersOwn) { EXPECT_EQ(typeid(*MakeConnection<Recorder>(nullptr)), typeid(Recorder)); }

TEST_F(FaultyConnectionTest, ALostAnswerIsAskedForAgain) {
  Recorder& sent = Open("KvPut=1:0:100");
  Call("a");
  sent.calls[0]({}, Reply("first"));
  EXPECT_THAT(answers_, IsEmpty());
  loop_.RunFor(milliseconds(50));
  EXPECT_THAT(sent.sent, ElementsAre("a", "a"));
  sent.calls[1]({}, Reply("second"));
  EXPECT_THAT(answers_, ElementsAre("a: second"));
}

TEST_F(FaultyConnectionTest, ALostRequestComesLater) {
  Recorder& sent = Open("KvPut=1:100:0");
  Call("a");
  EXPECT_THAT(sent.sent, IsEmpty());
  Call("b");
  EXPECT_THAT(sent.sent, ElementsAre("b")) << "KvPut is unordered";
  loop_.RunFor(milliseconds(50));
  EXPECT_THAT(sent.sent, ElementsAre("b", "a"));
}

TEST_F(FaultyConnectionTest, WhatIsOrderedHoldsUpTheRest) {
  Recorder& sent = Open("RequestLease=1:100:0,KvPut=0:0:0");
  Call("lease", MethodId::kRequestLease);
  static_cast<Connection&>(sent).NotifyRaw(MethodId::kReturnLease, "return", {});
  { Responder(line_, MethodId::kOwnerMoved, 9).SendRaw("moved", {}); }
  EXPECT_THAT(sent.sent, IsEmpty());
  loop_.RunFor(milliseconds(50));
  EXPECT_THAT(sent.sent, ElementsAre("lease", "return", "answer moved"));
  { Responder(line_, MethodId::kOwnerMoved, 10).SendRaw("at once", {}); }
  EXPECT_EQ(sent.sent.back(), "answer at once");
}

TEST_F(FaultyConnectionTest, ADoubledCallIsAnsweredOnce) {
  Recorder& sent = Open("KvPut=-1:0:0:duplicate=100");
  Call("a");
  ASSERT_EQ(sent.calls.size(), 2u);
  sent.calls[1]({}, Reply("x"));
  sent.calls[0]({}, Reply("y"));
  EXPECT_THAT(answers_, ElementsAre("a: x"));
}

TEST_F(FaultyConnectionTest, InFlightTheRepeatMeetsTheFirst) {
  Recorder& sent = Open("KvPut=1:0:0:100");
  Call("a");
  loop_.RunFor(milliseconds(50));
  ASSERT_EQ(sent.calls.size(), 2u) << "before any answer";
  sent.calls[0]({}, Reply("x"));
  EXPECT_THAT(answers_, IsEmpty());
  sent.calls[1]({}, Reply("y"));
  EXPECT_THAT(answers_, ElementsAre("a: y"));
}

TEST_F(FaultyConnectionTest, OvertakenByTheNextOrSentAfterAWhile) {
  Recorder& sent = Open("KvPut=-1:0:0:reorder=100");
  Call("a");
  Call("b", MethodId::kListNodes);
  EXPECT_THAT(sent.sent, ElementsAre("b", "a"));
  Call("c");
  loop_.RunFor(milliseconds(10));
  EXPECT_THAT(sent.sent, ElementsAre("b", "a", "c"));
}

TEST_F(FaultyConnectionTest, TheDeadlineCoversAllAttempts) {
  Recorder& sent = Open("KvPut=1:0:100");
  Call("a", MethodId::kKvPut, milliseconds(100));
  loop_.RunFor(milliseconds(60));
  sent.calls[0]({}, Reply("lost"));
  loop_.RunFor(milliseconds(20));
  ASSERT_EQ(sent.timeouts.size(), 2u);
  EXPECT_LE(sent.timeouts[1], milliseconds(40));
  sent.calls[1](Status::DeadlineExceeded("late"), {});
  EXPECT_THAT(answers_, ElementsAre("a: DEADLINE_EXCEEDED"));
}

TEST_F(FaultyConnectionTest, TheEndOfTheConnectionIsNotLost) {
  Recorder& sent = Open("KvPut=-1:0:90");
  for (const char* text : {"a", "b", "c"}) Call(text);
  sent.Close(Status::Unavailable("gone"));
  loop_.RunFor(milliseconds(100));
  EXPECT_EQ(answers_.size(), 3u);
  for (const std::string& answer : answers_) EXPECT_THAT(answer, HasSubstr("UNAVAILABLE"));
}

TEST_F(FaultyConnectionTest, ClosingSendsWhatWaits) {
  Recorder& sent = Open("RequestLease=1:100:0");
  Call("lease", MethodId::kRequestLease);
  static_cast<Connection&>(sent).NotifyRaw(MethodId::kReturnLease, "return", {});
  sent.Close(Status::Unavailable("closed here"));
  EXPECT_THAT(sent.sent, ElementsAre("lease", "return"));
}

TEST_F(FaultyConnectionTest, ABrokenOneIsClosed) {
  Recorder& sent = Open("StoreSeal=1:100:0");
  static_cast<Connection&>(sent).NotifyRaw(MethodId::kStoreSeal, "seal", {});
  EXPECT_TRUE(sent.closed());
  EXPECT_THAT(sent.sent, IsEmpty());
}

TEST_F(FaultyConnectionTest, ACallThatBreaksItsConnectionFailsWithIt) {
  Recorder& sent = Open("KvPut=-1:0:0:break=100");
  Call("a");
  EXPECT_TRUE(sent.closed());
  EXPECT_THAT(answers_, ElementsAre("a: UNAVAILABLE"));
}

// What follows on the connection relies on it, and would overtake it.
TEST_F(FaultyConnectionTest, TheAnswerToATaskIsNotWithheldButAskedForAgain) {
  Recorder& sent = Open("PushTask=1:0:100");
  Call("a", MethodId::kPushTask);
  sent.calls[0]({}, Reply("first"));
  EXPECT_THAT(answers_, ElementsAre("a: first"));
  loop_.RunFor(milliseconds(50));
  EXPECT_THAT(sent.sent, ElementsAre("a", "a"));
  sent.calls[1]({}, Reply("second"));
  EXPECT_THAT(answers_, ElementsAre("a: first"));
}

TEST_F(FaultyConnectionTest, NothingFaresBadlyOnceItIsStopped) {
  Recorder& sent = Open("KvPut=-1:0:0:duplicate=100");
  injector_->Stop();
  Call("a");
  EXPECT_THAT(sent.sent, ElementsAre("a"));
}

TEST_F(FaultyConnectionTest, WhatWaitsGoesWithItsProcess) {
  Recorder& sent = Open("RequestLease=1:100:0,KvPut=-1:0:0:reorder=100");
  const auto held = std::make_shared<int>();
  for (const MethodId method : {MethodId::kRequestLease, MethodId::kReturnLease, MethodId::kKvPut})
    static_cast<Connection&>(sent).CallRaw(method, "x", {}, [held](const Status&, const Reply&) {}, {});
  EXPECT_EQ(held.use_count(), 4);
  injector_->Drop();
  EXPECT_EQ(held.use_count(), 1);
  loop_.RunFor(milliseconds(50));
  EXPECT_THAT(sent.sent, IsEmpty());
}

// Whatever happens to the messages, every call ends once, with the answer of one that reached the other end.
TEST_F(FaultyConnectionTest, EveryCallIsAnsweredOnce) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    answers_.clear();
    Recorder& sent = Open("*=-1:20:20:20:duplicate=20:reorder=20:delay=20@15", seed);
    size_t next = 0;
    auto answer_all = [&] {
      for (; next < sent.calls.size(); ++next) sent.calls[next]({}, Reply("ok"));
    };
    for (int i = 0; i < 100; ++i) {
      Call(std::to_string(i), i % 2 == 0 ? MethodId::kKvPut : MethodId::kRequestLease);
      loop_.RunFor(milliseconds(1));
      answer_all();
    }
    for (int i = 0; i < 1000 && answers_.size() < 100; ++i) {
      loop_.RunFor(milliseconds(5));
      answer_all();
    }
    ASSERT_EQ(answers_.size(), 100u) << "seed " << seed;
    std::sort(answers_.begin(), answers_.end());
    EXPECT_EQ(std::unique(answers_.begin(), answers_.end()), answers_.end()) << "seed " << seed;
  }
}

// --- the other end ---

class AnswerLogTest : public testing::Test {
 protected:
  Responder Asked(uint64_t call) { return {recorder_, MethodId::kKvPut, call}; }
  v1::KvGetReply Value(const std::string& value) {
    v1::KvGetReply reply;
    reply.set_value(value);
    return reply;
  }
  std::shared_ptr<Recorder> recorder_ = std::make_shared<Recorder>();
};

TEST_F(AnswerLogTest, IsDoneOnceAndAnsweredAsOftenAsAsked) {
  AnswerLog log(2);
  Responder first = Asked(1), during = Asked(2), after = Asked(3);
  EXPECT_TRUE(log.Begin("key", &first));
  EXPECT_FALSE(log.Begin("key", &during));
  EXPECT_THAT(recorder_->sent, IsEmpty());
  first.Send(Value("v"));
  EXPECT_EQ(recorder_->sent.size(), 2u);
  EXPECT_FALSE(log.Begin("key", &after));
  EXPECT_EQ(recorder_->sent.back(), "answer " + Value("v").SerializeAsString());
}

TEST_F(AnswerLogTest, TheOldestGo) {
  AnswerLog log(2, 1000);
  for (const char* key : {"a", "b", "c"}) {
    Responder asked = Asked(1);
    EXPECT_TRUE(log.Begin(key, &asked));
    asked.Send(Value(key));
  }
  EXPECT_EQ(log.size(), 2u);
  Responder again = Asked(2);
  EXPECT_TRUE(log.Begin("a", &again)) << "forgotten: done again";
  again.Send(Value(std::string(2000, 'x')));
  EXPECT_EQ(log.size(), 0u) << "by their size, too";
}

TEST_F(AnswerLogTest, GivenUp) {
  AnswerLog log(2);
  Responder first = Asked(1), again = Asked(2), anew = Asked(3);
  EXPECT_TRUE(log.Begin("key", &first));
  EXPECT_FALSE(log.Begin("key", &again));
  first.Fail(Status::Aborted("no"));
  EXPECT_EQ(recorder_->sent.size(), 2u);
  EXPECT_TRUE(log.Begin("key", &anew));
  anew.Fail(Status::Aborted("no"));
  EXPECT_EQ(log.size(), 0u);
}

}  // namespace
}  // namespace ray::rpc
