// Replays tests/scenarios/worker_pool. Leases are numbers, jobs too; workers are named w1, w2 ... in the order of their starts, by which
// they have their tokens. The time goes on by `after`. The events:
//   config parallel= idle= prestart= idle-timeout= register-timeout= attempts= killed-attempts=     the first, if any
//   pop LEASE job= env= [fresh] [actor]    cancel LEASE    registered WORKER [token=]    returned WORKER [broken]    keep WORKER [actor=]    actor-ended ACTOR    died WORKER [killed] [refused]
//   job-started JOB    job-finished JOB keep=WORKER keep-lease=LEASE    after TIME (and tick)    state
#include <gtest/gtest.h>

#include <memory>
#include <sstream>

#include "ray/raylet/workers/worker_pool_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::raylet {
namespace {

using testing::GoldenEvent;

WorkerId WorkerNo(uint64_t n) { return WorkerId::FromBinaryOrNil(std::string(WorkerId::kSize, static_cast<char>(n))); }
ActorId ActorNo(uint64_t n) { return ActorId::FromBinaryOrNil(std::string(ActorId::kSize, static_cast<char>(n))); }
LeaseId LeaseNo(uint64_t n) { return LeaseId::FromBinaryOrNil(std::string(LeaseId::kSize, static_cast<char>(n))); }
std::string Name(const WorkerId& id) { return "w" + std::to_string(id.data()[0]); }

struct Show {
  std::ostringstream& os;
  void operator()(const WorkerAssigned& e) { os << "assign " << Name(e.worker) << " to lease " << int{e.lease.data()[0]}; }
  void operator()(const WorkerFork& e) {
    os << "fork " << Name(e.worker) << " for job " << e.key.job.ToInt() << (e.key.runtime_env.empty() ? "" : " with " + e.key.runtime_env);
  }
  void operator()(const WorkerAskExit& e) { os << "ask " << Name(e.worker) << " to leave: " << e.reason; }
  void operator()(const WorkerKill& e) { os << "kill " << Name(e.worker) << ": " << e.reason; }
  void operator()(const WorkersHeldUp& e) { os << "tell the drivers of job " << e.job.ToInt() << ": " << e.reason; }
  void operator()(const WorkerPopFailed& e) { os << "fail lease " << int{e.lease.data()[0]} << ": " << e.reason; }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    if (core_ == nullptr || event.name() == "config") {
      WorkerPoolConfig config;
      if (event.name() == "config") {
        config.max_parallel_starts = static_cast<int>(event.Number("parallel", 4));
        config.max_idle = static_cast<int>(event.Number("idle", 4));
        config.prestart = static_cast<int>(event.Number("prestart", 0));
        config.idle_timeout = event.Span("idle-timeout", config.idle_timeout);
        config.register_timeout = event.Span("register-timeout", config.register_timeout);
        config.max_start_attempts = static_cast<int>(event.Number("attempts", 2));
        config.max_killed_starts = static_cast<int>(event.Number("killed-attempts", 20));
      }
      core_ = std::make_shared<WorkerPoolCore>(config, [n = uint64_t{0}]() mutable { return WorkerNo(++n); });
      if (event.name() == "config") return {};
    }
    std::vector<std::string> lines;
    PoolEffects effects;
    Carry(event, &effects, &lines);
    for (std::string& line : testing::EffectLines<Show>(effects)) lines.push_back(std::move(line));
    return lines;
  }

 private:
  static uint64_t NumberOf(const std::string& worker) { return worker.starts_with('w') ? std::stoull(worker.substr(1)) : 0; }

  void Carry(const GoldenEvent& event, PoolEffects* out, std::vector<std::string>* lines) {
    const std::string& name = event.name();
    if (name == "pop") {
      const WorkerKey key{JobId::FromInt(static_cast<uint32_t>(event.Number("job", 1))), event.Word("env", "")};
      core_->Pop(LeaseNo(event.Number(0)), key, event.Has("fresh"), event.Has("actor"), now_, out);
    } else if (name == "cancel") {
      lines->push_back(core_->CancelPop(LeaseNo(event.Number(0))) ? "cancelled" : "it does not wait");
    } else if (name == "registered") {
      const uint64_t worker = NumberOf(event.Word(0));
      if (!core_->Registered(WorkerNo(worker), event.Number("token", worker), now_, out)) lines->push_back("refused");
    } else if (name == "returned") {
      core_->Returned(WorkerNo(NumberOf(event.Word(0))), !event.Has("broken"), now_, out);
    } else if (name == "keep") {
      core_->Keep(WorkerNo(NumberOf(event.Word(0))), ActorNo(event.Number("actor", NumberOf(event.Word(0)))));
    } else if (name == "actor-ended") {
      core_->ActorEnded(ActorNo(event.Number(0)), now_, out);
    } else if (name == "died") {
      const bool killed = event.Has("killed"), refused = event.Has("refused");
      const WorkerEnd how = killed ? WorkerEnd::kKilled : refused ? WorkerEnd::kRefused : WorkerEnd::kFailed;
      core_->Died(WorkerNo(NumberOf(event.Word(0))),
                  killed    ? "killed by signal 9"
                  : refused ? "no process is left"
                            : "exit code 1",
                  how, now_, out);
    } else if (name == "job-started") {
      core_->JobStarted(JobId::FromInt(static_cast<uint32_t>(event.Number(0))), now_, out);
    } else if (name == "job-finished") {
      const WorkerId kept = WorkerNo(NumberOf(event.Word("keep", "")));
      const LeaseId kept_lease = LeaseNo(event.Number("keep-lease", 0));
      core_->JobFinished(
          JobId::FromInt(static_cast<uint32_t>(event.Number(0))), [&](const WorkerId& w) { return w == kept; },
          [&](const LeaseId& l) { return l == kept_lease; }, now_, out);
    } else if (name == "after") {
      now_ = now_ + event.Span(0);
      core_->Tick(now_, out);
    } else if (name == "state") {
      for (const auto& [state, count] : core_->CountByState()) {
        lines->push_back(std::string(WorkerStateName(state)) + " " + std::to_string(count));
      }
      if (core_->num_waiting() > 0) lines->push_back("waiting " + std::to_string(core_->num_waiting()));
    } else {
      event.Fail("no such event: " + name);
    }
  }

  std::shared_ptr<WorkerPoolCore> core_;
  Time now_{1'000'000'000};
};

TEST(WorkerPoolGolden, Scenarios) {
  testing::ReplayGoldens("worker_pool", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::raylet
