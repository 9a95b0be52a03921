// Replays tests/scenarios/move. Objects, nodes, questions and calls are numbers. The time goes on by `after`. The events:
//   move QUESTION OBJECT NODE attempt=    answer CALL there|not-there|not-sent|unknown    node-died NODE    after TIME
#include <gtest/gtest.h>

#include <memory>

#include "ray/core_worker/objects/move_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::core {
namespace {

using testing::GoldenEvent;

ObjectId Object(uint64_t n) { return ObjectId::Of(TaskId(), static_cast<uint32_t>(n)); }
NodeId Node(uint64_t n) { return NodeId::FromBinaryOrNil(std::string(NodeId::kSize, static_cast<char>(n))); }

std::string Text(const CopyRun& copy) {
  return std::to_string(copy.id.index()) + (copy.attempt == 0 ? "" : " of run " + std::to_string(copy.attempt));
}
std::string Text(const NodeId& node) { return std::to_string(node.data()[0]); }

struct Show {
  std::string operator()(const PullKept& e) {
    return "call " + std::to_string(e.call) + ": node " + Text(e.node) + (e.bring ? ", get and keep " : ", keep ") + Text(e.copy);
  }
  std::string operator()(const CopyKept& e) { return "node " + Text(e.node) + " keeps " + Text(e.copy); }
  std::string operator()(const MoveAnswered& e) {
    return "answer " + std::to_string(e.question) + ": " + Text(e.copy) + (e.safe ? " is safe" : " is not safe");
  }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    MoveEffects effects;
    if (event.name() == "move") {
      core_->Move(event.Number(0), {Object(event.Number(1)), static_cast<uint32_t>(event.Number("attempt", 0))}, Node(event.Number(2)),
                  &effects);
    } else if (event.name() == "answer") {
      const std::string outcome = event.Word(1);
      core_->OnAnswer(event.Number(0),
                      outcome == "there"       ? MoveCore::Outcome::kThere
                      : outcome == "not-there" ? MoveCore::Outcome::kNotThere
                      : outcome == "not-sent"  ? MoveCore::Outcome::kNotSent
                                               : MoveCore::Outcome::kUnknown,
                      now_, &effects);
    } else if (event.name() == "node-died") {
      core_->OnNodeDead(Node(event.Number(0)), &effects);
    } else if (event.name() == "after") {
      now_ = now_ + event.Span(0);
      core_->OnTimer(now_, &effects);
    } else {
      event.Fail("no such event: " + event.name());
    }
    std::vector<std::string> lines;
    for (const auto& effect : effects) lines.push_back(std::visit(Show{}, effect));
    return lines;
  }

 private:
  std::shared_ptr<MoveCore> core_ = std::make_shared<MoveCore>();
  Time now_{1};
};

TEST(MoveGoldenTest, Scenarios) {
  testing::ReplayGoldens("move", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::core
