// Replays tests/scenarios/resource_news. Nodes are single letters. Rounds are 100 ms apart; 40 views a second are those for raylets that look elsewhere, 20 those for
// the others. The events:
//   node N    free N    gone N      the node is there or has other totals; only what is free there has changed; it is dead
//   join N    leave N               its raylet has registered and is told of all; its link has ended
//   looks N   rests N               its raylet looks for room elsewhere; it does so no more
//   tick at=TIME    number N
#include <gtest/gtest.h>

#include <memory>

#include "ray/gcs_server/views/resource_news_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::gcs {
namespace {

using testing::GoldenEvent;

NodeId NodeOf(const GoldenEvent& event) { return NodeId::FromBinaryOrNil(std::string(NodeId::kSize, event.Word(0)[0])); }

std::string Letters(const std::vector<NodeId>& nodes) {
  std::string text;
  for (const NodeId& node : nodes) text += std::string(" ") + static_cast<char>(node.data()[0]);
  return text;
}

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    ResourceNewsCore::Messages messages;
    std::vector<std::string> lines;
    const std::string& name = event.name();
    if (name == "node" || name == "free") {
      core_->Changed(NodeOf(event), name == "node");
    } else if (name == "gone") {
      core_->Gone(NodeOf(event));
    } else if (name == "join") {
      core_->Joins(NodeOf(event), &messages);
    } else if (name == "leave") {
      core_->Leaves(NodeOf(event));
    } else if (name == "looks" || name == "rests") {
      core_->LooksElsewhere(NodeOf(event), name == "looks", &messages);
    } else if (name == "tick") {
      core_->Tick(Time{} + event.Span("at", Duration::zero()), &messages);
    } else if (name == "number") {
      lines.push_back(std::to_string(core_->NumberOf(NodeOf(event))));
    } else {
      event.Fail("no such event: " + name);
    }
    for (const auto& message : messages) {
      std::string line = "to" + Letters(message.to) + ":";
      if (!message.whole.empty()) line += " all of" + Letters(message.whole);
      if (!message.free.empty()) line += " what is free on" + Letters(message.free);
      if (!message.gone.empty()) line += " the end of" + Letters(message.gone);
      lines.push_back(line);
    }
    if (name == "tick") {
      const Time due = core_->NextDue();
      lines.push_back(due.is_infinite() ? "nothing is due" : "due at " + std::to_string(due.ns / 1'000'000) + " ms");
    }
    return lines;
  }

 private:
  std::shared_ptr<ResourceNewsCore> core_ = std::make_shared<ResourceNewsCore>(
      ResourceNewsConfig{.interval = std::chrono::milliseconds(100), .views_per_second = 40, .idle_views_per_second = 20});
};

TEST(ResourceNewsGolden, Scenarios) {
  testing::ReplayGoldens("resource_news", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::gcs
