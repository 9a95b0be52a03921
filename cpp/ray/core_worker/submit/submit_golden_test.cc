// Replays tests/scenarios/lease_pool and tests/scenarios/actor_queue.
//
// Lease pool: tasks, leases, classes and templates are numbers; the time goes on by `after`. The events:
//   submit TASK class= template=    remove TASK class=    granted LEASE    refused LEASE [cancelled] [for-good]
//   done LEASE TASK ran= [exiting]    returned LEASE TASK    lost LEASE [link]    reclaim    tick    after TIME
// Actor queue: calls are numbers. The events:
//   start [dependencies] max-pending=      the first, if any
//   submit CALL retries= [late] [out-of-order]    ready CALL    remove CALL    answered EPOCH SEQUENCE
//   pending [dependencies]    alive INCARNATION    restarting INCARNATION    dead    connected    connection-lost EPOCH
#include <gtest/gtest.h>

#include <memory>
#include <sstream>

#include "ray/core_worker/submit/actor_queue_core.h"
#include "ray/core_worker/submit/lease_pool_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::core {
namespace {

using testing::GoldenEvent;

std::string Show(const LeaseEffect& e) {
  std::ostringstream os;
  switch (e.kind) {
    case LeaseEffect::kRequest: os << "request lease " << e.lease << " of class " << e.cls; break;
    case LeaseEffect::kCancelRequest: os << "cancel request " << e.lease; break;
    case LeaseEffect::kPush: os << "push task " << e.task << " to " << e.lease; break;
    case LeaseEffect::kSteal: os << "steal " << e.count << " from " << e.lease; break;
    case LeaseEffect::kReturn:
      os << "return " << e.lease << (e.worker_failed ? ", its worker failed" : "") << (e.worker_exiting ? ", its worker leaves" : "");
      break;
    case LeaseEffect::kLost: os << "lost task " << e.task; break;
    case LeaseEffect::kFail: os << "fail task " << e.task; break;
  }
  return os.str();
}

class ReplayLeasePool {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    LeaseEffects effects;
    std::vector<std::string> lines;
    const std::string& name = event.name();
    const auto cls = static_cast<ClassNo>(event.Number("class", 0));
    if (name == "submit") {
      core_->Submit(event.Number(0), cls, event.Number("template", 1), now_, &effects);
    } else if (name == "remove") {
      lines.push_back(core_->RemoveQueued(event.Number(0), cls, now_, &effects) ? "removed" : "it is not queued");
    } else if (name == "granted") {
      core_->Granted(event.Number(0), now_, &effects);
    } else if (name == "refused") {
      core_->Refused(event.Number(0), event.Has("cancelled"), event.Has("for-good"), now_, &effects);
    } else if (name == "done") {
      core_->Done(event.Number(0), event.Number(1), event.Span("ran", {}), event.Has("exiting"), now_, &effects);
    } else if (name == "returned") {
      core_->Returned(event.Number(0), event.Number(1), now_, &effects);
    } else if (name == "lost") {
      core_->WorkerLost(event.Number(0), /*heard_all=*/!event.Has("link"), now_, &effects);
    } else if (name == "reclaim") {
      core_->Reclaim(now_, &effects);
    } else if (name == "tick") {
      core_->Tick(now_, &effects);
    } else if (name == "after") {
      now_ = now_ + event.Span(0);
    } else {
      event.Fail("no such event: " + name);
    }
    for (const LeaseEffect& effect : effects) lines.push_back(Show(effect));
    return lines;
  }

 private:
  std::shared_ptr<LeasePoolCore> core_ = std::make_shared<LeasePoolCore>(LeasePoolConfig{});
  Time now_{1'000'000'000};
};

std::string Show(const ActorEffect& e) {
  std::ostringstream os;
  switch (e.kind) {
    case ActorEffect::kConnect: os << "connect"; break;
    case ActorEffect::kSend: os << "send call " << e.call << " as " << e.epoch << ":" << e.sequence; break;
    case ActorEffect::kRetried: os << "retry call " << e.call; break;
    case ActorEffect::kFailUnavailable: os << "fail call " << e.call << " as unavailable"; break;
    case ActorEffect::kFailDead: os << "fail call " << e.call << " as dead"; break;
    case ActorEffect::kAwaitEnd: os << "await the end of connection " << e.epoch; break;
  }
  return os.str();
}

class ReplayActorQueue {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    ActorEffects effects;
    std::vector<std::string> lines;
    const std::string& name = event.name();
    if (name == "start") {
      *core_ = ActorQueueCore(event.Has("dependencies") ? ActorPhase::kDependencies : ActorPhase::kPending,
                              std::stoll(event.Word("max-pending", "-1")));
    } else if (name == "submit") {
      if (core_->Full()) lines.push_back("full");
      const std::string retries = event.Word("retries", "0");
      core_->Submit(event.Number(0), !event.Has("late"), event.Has("out-of-order"), std::stoi(retries), event.Has("charged"), &effects);
    } else if (name == "ready") {
      core_->Ready(event.Number(0), &effects);
    } else if (name == "remove") {
      lines.push_back(core_->Remove(event.Number(0), &effects) ? "removed" : "it was sent, or is unknown");
    } else if (name == "answered") {
      if (!core_->Answered(event.Number(0), event.Number(1))) lines.push_back("that is over");
    } else if (name == "pending") {
      core_->OnPending(event.Has("dependencies"));
    } else if (name == "alive") {
      core_->OnAlive(event.Number(0), event.Has("moved"), &effects);
    } else if (name == "restarting") {
      core_->OnRestarting(event.Number(0), event.Has("moved"), &effects);
    } else if (name == "dead") {
      core_->OnDead(&effects);
    } else if (name == "connected") {
      core_->Connected(&effects);
    } else if (name == "connection-lost") {
      core_->ConnectionLost(event.Number(0), &effects);
    } else {
      event.Fail("no such event: " + name);
    }
    for (const ActorEffect& effect : effects) lines.push_back(Show(effect));
    return lines;
  }

 private:
  std::shared_ptr<ActorQueueCore> core_ = std::make_shared<ActorQueueCore>();
};

TEST(LeasePoolGolden, Scenarios) {
  testing::ReplayGoldens("lease_pool", [] { return testing::Replayer(ReplayLeasePool()); });
}

TEST(ActorQueueGolden, Scenarios) {
  testing::ReplayGoldens("actor_queue", [] { return testing::Replayer(ReplayActorQueue()); });
}

}  // namespace
}  // namespace ray::core
