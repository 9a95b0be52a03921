// Replays tests/scenarios/drain. The events:
//   begin REASON deadline= at=       if-idle REASON deadline= leases= drivers= objects= at=
//   work leases= workers=            saved LEFT at=         tick at=
#include <gtest/gtest.h>

#include <memory>

#include "ray/raylet/drain/drain_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::raylet {
namespace {

using testing::GoldenEvent;

std::string Seconds(Duration duration) { return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(duration).count()) + " s"; }

struct Show {
  std::string operator()(const StopGrants&) const { return "stop grants"; }
  std::string operator()(const TellGcsDraining& e) const { return "tell the GCS: " + e.reason + ", " + Seconds(e.left) + " left"; }
  std::string operator()(const LetWorkersFinish&) const { return "let workers finish"; }
  std::string operator()(const LetWorkersGo&) const { return "let workers go"; }
  std::string operator()(const SaveObjects&) const { return "save objects"; }
  std::string operator()(const LeaveNode& e) const { return "leave: " + e.reason; }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    DrainEffects effects;
    std::vector<std::string> lines;
    const std::string& name = event.name();
    const Time now = Time{} + event.Span("at", Duration::zero());
    if (name == "begin") {
      core_->Begin(event.Word(0), event.Span("deadline", std::chrono::seconds(30)), now, &effects);
    } else if (name == "if-idle") {
      const NodeLoad load{event.Number("leases", 0), event.Number("drivers", 0), event.Number("objects", 0)};
      const std::string has = core_->BeginIfIdle(event.Word(0), event.Span("deadline", std::chrono::seconds(30)), load, now, &effects);
      lines.push_back(has.empty() ? "it drains" : "refused: it has " + has);
    } else if (name == "work") {
      core_->OnWork(event.Number("leases", 0), event.Number("workers", 0), &effects);
    } else if (name == "saved") {
      core_->OnSaved(event.Number(0), now, &effects);
    } else if (name == "tick") {
      core_->Tick(now, &effects);
    } else {
      event.Fail("no such event: " + name);
    }
    for (const DrainEffect& effect : effects) lines.push_back(std::visit(Show(), effect));
    return lines;
  }

 private:
  std::shared_ptr<DrainCore> core_ = std::make_shared<DrainCore>();
};

TEST(DrainGolden, Scenarios) {
  testing::ReplayGoldens("drain", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::raylet
