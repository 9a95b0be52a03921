// Replays tests/scenarios/handover. Batches are numbers, borrowers too. The time goes on by `after`. The events:
//   begin BATCHES BORROWER...    taken BATCH [refused]    told BORROWER    counted [refused]    after TIME (and tick)
#include <gtest/gtest.h>

#include <memory>

#include "ray/core_worker/objects/handover_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::core {
namespace {

using testing::GoldenEvent;

WorkerId WorkerNo(uint64_t n) { return WorkerId::FromBinaryOrNil(std::string(WorkerId::kSize, static_cast<char>(n))); }

struct Show {
  std::string operator()(const SendObjects& e) { return "send batch " + std::to_string(e.batch); }
  std::string operator()(const AnswerHeld& e) { return e.moved ? "answer: moved" : "answer as ever"; }
  std::string operator()(const TellBorrower& e) { return "tell " + std::to_string(e.borrower.worker_id.data()[0]); }
  std::string operator()(const SendCounts&) { return "send counts"; }
  std::string operator()(const HandoverEnded& e) { return e.done ? "done" : "failed: " + e.why; }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    HandoverEffects effects;
    const Status status = event.Has("refused") ? Status::Unavailable("it is not there") : Status::Ok();
    if (event.name() == "begin") {
      std::vector<Address> borrowers;
      for (uint64_t n : event.NumbersFrom(1)) borrowers.push_back({NodeId(), WorkerNo(n)});
      core_->Begin(event.Number(0), borrowers, now_, &effects);
    } else if (event.name() == "taken") {
      core_->OnTaken(event.Number(0), status, now_, &effects);
    } else if (event.name() == "told") {
      core_->OnTold(WorkerNo(event.Number(0)), now_, &effects);
    } else if (event.name() == "counted") {
      core_->OnCounted(status, &effects);
    } else if (event.name() == "after") {
      now_ = now_ + event.Span(0);
      core_->Tick(now_, &effects);
    } else {
      event.Fail("no such event: " + event.name());
    }
    std::vector<std::string> lines;
    for (const auto& effect : effects) lines.push_back(std::visit(Show{}, effect));
    return lines;
  }

 private:
  std::shared_ptr<HandoverCore> core_ = std::make_shared<HandoverCore>(HandoverConfig{});
  Time now_{1};
};

TEST(HandoverGoldenTest, Scenarios) {
  testing::ReplayGoldens("handover", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::core
