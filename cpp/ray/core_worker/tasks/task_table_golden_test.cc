// Replays tests/scenarios/task_table. Tasks are numbers. The events:
//   limit out-of-memory=      the first, if any: attempts after such an end
//   add TASK retries= parent=    answered TASK [error] [retryable] [cancelled]    lost TASK [not-run] [out-of-memory]    failed TASK    cancel TASK
//   children TASK
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "ray/core_worker/tasks/pending_task.h"
#include "ray/core_worker/tasks/task_table_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::core {
namespace {

using testing::GoldenEvent;

TaskId Id(uint64_t i) { return TaskId::FromBinaryOrNil(std::string(TaskId::kSize, static_cast<char>(i))); }

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    const std::string& name = event.name();
    if (name == "limit") {
      core_ = std::make_shared<TaskTableCore>(static_cast<int64_t>(event.Number("out-of-memory", 0)));
      return {};
    }
    const TaskId id = Id(event.Number(0));
    if (name == "add") {
      auto task = std::make_shared<PendingTask>();
      task->spec.task_id = id;
      task->spec.parent_task_id = Id(event.Number("parent", 0));
      core_->Add(id, task, std::stoi(event.Word("retries", "0")));
      return {};
    }
    if (name == "answered") {
      return Verdict(
          id, core_->Answered(
                  id, {.application_error = event.Has("error"), .retryable = event.Has("retryable"), .cancelled = event.Has("cancelled")}));
    }
    if (name == "lost") {
      const TaskLoss loss = event.Has("not-run")         ? TaskLoss::kNotRun
                            : event.Has("out-of-memory") ? TaskLoss::kOutOfMemory
                                                         : TaskLoss::kCrash;
      return Verdict(id, core_->Lost(id, loss));
    }
    if (name == "failed") return Verdict(id, core_->Failed(id));
    if (name == "cancel") return {core_->Cancel(id) ? "it will not run again" : "it is settled"};
    if (name == "children") {
      std::vector<std::string> lines;
      for (const PendingTaskPtr& child : core_->ChildrenOf(id)) lines.push_back("task " + std::to_string(child->spec.task_id.data()[0]));
      std::ranges::sort(lines);
      return lines;
    }
    event.Fail("no such event: " + name);
    return {};
  }

 private:
  std::vector<std::string> Verdict(const TaskId& id, TaskVerdict verdict) const {
    switch (verdict) {
      case TaskVerdict::kComplete: return {"complete"};
      case TaskVerdict::kRetry: return {"retry, attempt " + std::to_string(core_->Find(id)->attempt)};
      case TaskVerdict::kFail: return {"fail"};
      case TaskVerdict::kCancelled: return {"cancelled"};
      case TaskVerdict::kNone: return {"settled before"};
    }
    return {};
  }
  std::shared_ptr<TaskTableCore> core_ = std::make_shared<TaskTableCore>();
};

TEST(TaskTableGolden, Scenarios) {
  testing::ReplayGoldens("task_table", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::core
