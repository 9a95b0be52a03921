// Replays tests/scenarios/run_queue. Runs and callers are numbers; after each event everything that may start does. The events:
//   configure max= [GROUP=LIMIT ...]    task RUN [late] [in-order]    call RUN caller= epoch= number= group= [late] [out-of-order]
//   ready RUN    finished RUN    remove RUN    take MAX    drop CALLER
#include <gtest/gtest.h>

#include <memory>

#include "ray/core_worker/execute/run_queue_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::core {
namespace {

using testing::GoldenEvent;

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    std::vector<std::string> lines;
    const std::string& name = event.name();
    if (name == "configure") {
      std::vector<std::pair<std::string, int32_t>> groups;
      for (const char* group : {"io", "compute"}) {
        if (const auto limit = static_cast<int32_t>(event.Number(group, 0)); limit > 0) groups.emplace_back(group, limit);
      }
      core_->Configure(static_cast<int32_t>(event.Number("max", 1)), groups);
    } else if (name == "task") {
      core_->AddTask(event.Number(0), !event.Has("late"), event.Has("in-order"));
    } else if (name == "call") {
      if (!core_->AddCall(event.Number(0), event.Number("caller", 1), event.Number("epoch", 1), event.Number("number", 0),
                          event.Word("group", ""), event.Has("out-of-order"), !event.Has("late"))) {
        lines.push_back("seen before, or too late");
      }
    } else if (name == "ready") {
      core_->SetReady(event.Number(0));
    } else if (name == "finished") {
      core_->Finished(event.Number(0));
    } else if (name == "remove") {
      lines.push_back(core_->Remove(event.Number(0)) ? "removed" : "it runs, or is unknown");
    } else if (name == "take") {
      for (RunNo run : core_->TakeUnstarted(static_cast<uint32_t>(event.Number(0)))) lines.push_back("taken " + std::to_string(run));
    } else if (name == "drop") {
      for (RunNo run : core_->DropCaller(event.Number(0))) lines.push_back("dropped " + std::to_string(run));
    } else {
      event.Fail("no such event: " + name);
    }
    while (const auto run = core_->Next()) lines.push_back("start " + std::to_string(*run));
    return lines;
  }

 private:
  std::shared_ptr<RunQueueCore> core_ = std::make_shared<RunQueueCore>();
};

TEST(RunQueueGolden, Scenarios) {
  testing::ReplayGoldens("run_queue", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::core
