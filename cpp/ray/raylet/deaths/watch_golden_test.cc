// Replays tests/scenarios/watch. Processes and nodes are numbers; process 12 is of node 1. The events:
//   config max=    watch PROCESS...    answer NODE CALL [lost] [ended=PROCESS]    told PROCESS    node-dead NODE    after TIME    state
#include <gtest/gtest.h>

#include <memory>

#include "ray/raylet/deaths/watch_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::raylet {
namespace {

using testing::GoldenEvent;

NodeId Node(uint64_t n) { return NodeId::FromBinaryOrNil(std::string(NodeId::kSize, static_cast<char>(n))); }
Address Process(uint64_t n) { return {Node(n / 10), WorkerId::FromBinaryOrNil(std::string(WorkerId::kSize, static_cast<char>(n)))}; }
template <typename Id>
std::string No(const Id& id) {
  return std::to_string(id.data()[0]);
}

struct Show {
  std::string operator()(const AskNode& e) {
    std::string text = "call " + std::to_string(e.call) + " asks node " + No(e.node) + " of";
    for (const WorkerId& worker : e.processes) text += " " + No(worker);
    return text;
  }
  std::string operator()(const ProcessEnded& e) { return No(e.process.worker_id) + " has ended"; }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    WatchEffects out;
    const std::string& name = event.name();
    std::vector<std::string> lines;
    if (name == "config") {
      *core_ = std::make_unique<WatchCore>(WatchConfig{.max_processes = event.Number("max", 4096)});
    } else if (name == "watch") {
      for (size_t i = 0; i < event.num_words(); ++i) Core().Watch(Process(event.Number(i)), *now_, &out);
    } else if (name == "answer") {
      std::vector<WorkerId> ended;
      if (const uint64_t process = event.Number("ended", 0); process != 0) ended.push_back(Process(process).worker_id);
      Core().OnAnswer(Node(event.Number(0)), event.Number(1), !event.Has("lost"), ended, *now_, &out);
    } else if (name == "told") {
      Core().OnEnded(Process(event.Number(0)));
    } else if (name == "node-dead") {
      Core().OnNodeDead(Node(event.Number(0)));
    } else if (name == "after") {
      *now_ = *now_ + event.Span(0);
      Core().OnTimer(*now_, &out);
    } else if (name == "state") {
      const Time next = Core().NextDeadline();
      const Duration left = next.is_infinite() ? Duration::zero() : next - *now_;
      lines.push_back(std::to_string(Core().size()) + " processes, " +
                      (next.is_infinite() ? "nothing is due" : "due in " + std::to_string(left / std::chrono::milliseconds(1)) + "ms"));
    } else {
      event.Fail("no such event: " + name);
    }
    for (const WatchEffect& effect : out) lines.push_back(std::visit(Show{}, effect));
    return lines;
  }

 private:
  WatchCore& Core() { return **core_; }
  // Replayers are copied.
  std::shared_ptr<std::unique_ptr<WatchCore>> core_ = std::make_shared<std::unique_ptr<WatchCore>>(std::make_unique<WatchCore>());
  std::shared_ptr<Time> now_ = std::make_shared<Time>();
};

TEST(WatchGoldenTest, Scenarios) {
  testing::ReplayGoldens("watch", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::raylet
