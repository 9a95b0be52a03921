#include "ray/raylet/objects/copy_teller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ray/common/errors.h"
#include "ray/raylet/router/fake_link.h"
#include "ray/v1/worker_object.pb.h"

namespace ray::raylet {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class TestClock final : public Clock {
 public:
  Time Now() const override { return now; }
  int64_t WallMillis() const override { return 0; }
  Time now{1};
};

// Time goes on when told.
class TestLoop final : public async::Loop {
 public:
  void Post(const char*, std::function<void()> fn) override { fn(); }
  async::TimerId AddTimer(Duration delay, std::function<void()> fn) override {
    timers_[++last_] = {clock_.now + delay, std::move(fn)};
    return last_;
  }
  void CancelTimer(async::TimerId id) override { timers_.erase(id); }
  const Clock& clock() const override { return clock_; }
  bool InLoop() const override { return true; }
  void AddFlusher(std::function<void()>) override {}
  void RequestFlush() override {}
  void Pass(Duration time) {
    const Time end = clock_.now + time;
    while (true) {
      auto next = timers_.end();
      for (auto it = timers_.begin(); it != timers_.end(); ++it) {
        if (it->second.first <= end && (next == timers_.end() || it->second.first < next->second.first)) next = it;
      }
      if (next == timers_.end()) break;
      clock_.now = std::max(clock_.now, next->second.first);
      const auto fn = std::move(timers_.extract(next).mapped().second);
      fn();
    }
    clock_.now = end;
  }
  size_t num_timers() const { return timers_.size(); }

 private:
  TestClock clock_;
  std::map<async::TimerId, std::pair<Time, std::function<void()>>> timers_;
  async::TimerId last_ = 0;
};

class CopyTellerTest : public testing::Test {
 protected:
  std::shared_ptr<FakeLink> Link() { return std::make_shared<FakeLink>(); }
  // Which objects the messages over it are about.
  std::vector<ObjectId> ObjectsOn(const FakeLink& link) const {
    std::vector<ObjectId> ids;
    for (const std::string& text : link.called) {
      v1::AddLocationNotice message;
      EXPECT_TRUE(message.ParseFromString(text));
      EXPECT_EQ(NodeId::FromBinaryOrNil(message.node_id()), self_);
      EXPECT_EQ(message.attempt(), 3u);
      ids.push_back(ObjectId::FromBinaryOrNil(message.object_id()));
    }
    return ids;
  }
  static CopyRun Copy() { return {ObjectId::ForReturn(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 0), 3}; }

  const NodeId self_ = NodeId::FromRandom(), elsewhere_ = NodeId::FromRandom();
  const WorkerId worker_ = WorkerId::FromRandom();
  TestLoop loop_;
  std::shared_ptr<FakeLink> process_ = Link(), raylet_ = Link(), tunnel_ = Link();
  int connects_ = 0;
  std::vector<CopyRun> adopted_;
  CopyTeller teller_{CopyTeller::Deps{&loop_, self_, [this](const WorkerId&) { return process_; },
                                      [this](const NodeId&) { return raylet_; },
                                      [this](const Address&) {
                                        ++connects_;
                                        return tunnel_;
                                      },
                                      [this](const CopyRun& copy) { adopted_.push_back(copy); }}};
};

TEST_F(CopyTellerTest, EachOwnerIsToldTheNearestWay) {
  const CopyRun a = Copy(), b = Copy(), c = Copy(), d = Copy(), e = Copy();
  teller_.Tell({self_, worker_}, a);
  teller_.Tell({NodeId::Nil(), WorkerId::FromRandom()}, b);  // of this node, too
  EXPECT_THAT(ObjectsOn(*process_), ElementsAre(a.id, b.id));
  teller_.Tell({elsewhere_, worker_}, c);
  EXPECT_THAT(ObjectsOn(*tunnel_), ElementsAre(c.id));
  teller_.Tell(RayletAsProcess(elsewhere_), d);  // that has adopted it
  EXPECT_THAT(ObjectsOn(*raylet_), ElementsAre(d.id));
  teller_.Tell(RayletAsProcess(self_), e);
  EXPECT_THAT(adopted_, ElementsAre(e));
}

TEST_F(CopyTellerTest, IsToldUntilItIsAnswered) {
  const CopyRun a = Copy(), b = Copy(), c = Copy();
  const Address owner{elsewhere_, worker_};
  teller_.Tell(owner, a);
  teller_.Tell(owner, b);
  teller_.Tell(owner, c);
  tunnel_->Close(Status::Unavailable("the way broke"));
  tunnel_ = Link();
  loop_.Pass(std::chrono::milliseconds(50));
  ASSERT_THAT(ObjectsOn(*tunnel_), ElementsAre(a.id, b.id, c.id));
  EXPECT_EQ(connects_, 2);
  // All are told again if one was not heard.
  tunnel_->Answer(0, {});
  tunnel_->Answer(0, Status::DeadlineExceeded("stands still"));
  EXPECT_THAT(ObjectsOn(*tunnel_), ElementsAre(a.id, b.id, c.id));
  tunnel_->Answer(0, {});
  loop_.Pass(std::chrono::milliseconds(100));
  EXPECT_THAT(ObjectsOn(*tunnel_), ElementsAre(a.id, b.id, c.id, a.id, b.id, c.id));
  tunnel_->Answer(0, {});
  tunnel_->Answer(0, {});
  tunnel_->Answer(0, Status::Internal("an older version has no answer"));
  loop_.Pass(std::chrono::seconds(1));
  EXPECT_EQ(tunnel_->called.size(), 6u);
  EXPECT_FALSE(tunnel_->closed());
  // Of those that nobody uses.
  loop_.Pass(std::chrono::seconds(20));
  EXPECT_TRUE(tunnel_->closed());
  EXPECT_EQ(loop_.num_timers(), 0u);
}

TEST_F(CopyTellerTest, WithTheEndOfTheOwnerThereIsNobodyToTell) {
  teller_.Tell({elsewhere_, worker_}, Copy());
  tunnel_->Close(Status(StatusCode::kUnavailable, "it has ended", static_cast<int32_t>(ErrorType::kWorkerDied)));
  process_ = nullptr;
  teller_.Tell({self_, worker_}, Copy());
  tunnel_ = Link();
  const NodeId dead = NodeId::FromRandom();
  raylet_ = nullptr;
  teller_.Tell(RayletAsProcess(dead), Copy());
  teller_.OnNodeDead(dead);
  raylet_ = Link();
  process_ = Link();
  loop_.Pass(std::chrono::minutes(1));
  for (const auto& link : {process_, raylet_, tunnel_}) EXPECT_THAT(link->called, IsEmpty());
  EXPECT_EQ(loop_.num_timers(), 0u);
}

TEST_F(CopyTellerTest, AnAdopterOutOfReachIsToldLater) {
  const CopyRun copy = Copy();
  const auto later = std::exchange(raylet_, nullptr);
  teller_.Tell(RayletAsProcess(elsewhere_), copy);
  loop_.Pass(std::chrono::seconds(1));
  raylet_ = later;
  loop_.Pass(std::chrono::seconds(2));
  EXPECT_THAT(ObjectsOn(*later), ElementsAre(copy.id));
}

TEST_F(CopyTellerTest, AnswersThatComeBehindItsEndDoNoHarm) {
  teller_.Tell({elsewhere_, worker_}, Copy());
  teller_.Stop();
  tunnel_->Answer(0, Status::Unavailable("this process shuts the connection down"));
  teller_.Tell({elsewhere_, worker_}, Copy());
  loop_.Pass(std::chrono::minutes(1));
  EXPECT_EQ(tunnel_->called.size(), 1u);
}

}  // namespace
}  // namespace ray::raylet
