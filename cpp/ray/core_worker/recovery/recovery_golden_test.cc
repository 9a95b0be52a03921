// Replays tests/scenarios/recovery. Tasks are letters, what they made numbers from 0. The events:
//   config cap=                                            the first, if any
//   stored TASK ITEM...    lost TASK ITEM    lost-put    freed TASK ITEM    again TASK    not-again TASK ITEM    held-behind TASK ITEM    state
//   done TASK retries= bytes= needs=TASKS items= [never-any] [large-args]         failed TASK [cancelled|stream]
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "ray/core_worker/recovery/recovery_core.h"
#include "ray/core_worker/tasks/pending_task.h"
#include "ray/testing/golden/golden.h"

namespace ray::core {
namespace {

using testing::GoldenEvent;

TaskId Task(char name) { return TaskId::FromBinaryOrNil(std::string(TaskId::kSize, name)); }
ObjectId Item(const GoldenEvent& event, size_t word) {
  return ObjectId::ForReturn(Task(event.Word(0)[0]), static_cast<uint32_t>(event.Number(word)));
}
ObjectId ArgumentsOf(const TaskId& task) { return ObjectId::Of(task, ObjectId::kPutBit); }

std::string Text(ErrorType reason) {
  switch (reason) {
    case ErrorType::kObjectUnreconstructableMaxAttempts: return "its attempts are used up";
    case ErrorType::kObjectUnreconstructableLineageEvicted: return "its lineage was evicted";
    case ErrorType::kObjectUnreconstructablePut: return "it was put";
    case ErrorType::kObjectUnreconstructableRetriesDisabled: return "its task has no retries";
    case ErrorType::kObjectUnreconstructableRefNotFound: return "nobody knows its task";
    case ErrorType::kObjectUnreconstructableTaskCancelled: return "its task was cancelled";
    case ErrorType::kObjectUnreconstructableLineageDisabled: return "no lineage is kept";
    case ErrorType::kGeneratorTaskFailedForReconstruction: return "its stream failed";
    case ErrorType::kStreamingGeneratorReplayInconsistent: return "its stream ended before it";
    default: return "error " + std::to_string(static_cast<int>(reason));
  }
}

std::string Text(const RecoveryEffect& e) {
  const TaskId task = e.kind == RecoveryEffect::Kind::kRun ? e.task->spec.task_id : e.object.task_id();
  const std::string name(1, static_cast<char>(task.data()[0]));
  switch (e.kind) {
    case RecoveryEffect::Kind::kRun: return "run " + name + ", retries left " + std::to_string(e.retries_left);
    case RecoveryEffect::Kind::kFail:
      return "fail " + (e.object.IsPut() ? "what was put" : name + " " + std::to_string(e.object.index() - 1)) + ": " + Text(e.reason);
    case RecoveryEffect::Kind::kHold: return "hold the arguments of " + name;
    case RecoveryEffect::Kind::kRelease: return "release the arguments of " + name;
    case RecoveryEffect::Kind::kPassed: return "begin " + name + " again, it is past " + std::to_string(e.object.index() - 1);
  }
  return "?";
}

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    if (event.name() == "config") {
      core_ = std::make_shared<RecoveryCore>(event.Number("cap", 0));
      return {};
    }
    if (event.name() == "state") {
      return {std::to_string(core_->size()) + " tasks, " + std::to_string(core_->bytes()) + " bytes, " + std::to_string(core_->lost()) +
              " lost"};
    }
    if (event.name() == "held-behind") return {core_->IsAnyHeldBehind(Item(event, 1)) ? "yes" : "no"};
    RecoveryEffects effects;
    Carry(event, &effects);
    std::vector<std::string> lines;
    for (const RecoveryEffect& effect : effects) lines.push_back(Text(effect));
    return lines;
  }

 private:
  void Carry(const GoldenEvent& event, RecoveryEffects* out) {
    const std::string& name = event.name();
    if (name == "stored") {
      for (size_t i = 1; i < event.num_words(); ++i) core_->Stored(Item(event, i));
    } else if (name == "lost") {
      core_->Lost(Item(event, 1), out);
    } else if (name == "lost-put") {
      core_->Lost(ArgumentsOf(Task('p')), out);
    } else if (name == "freed") {
      core_->Settled(Item(event, 1), out);
    } else if (name == "again") {
      core_->Again(Task(event.Word(0)[0]));
    } else if (name == "not-again") {
      core_->NotAgain(Item(event, 1), ErrorType::kObjectUnreconstructableMaxAttempts, out);
    } else if (name == "done") {
      const TaskId id = Task(event.Word(0)[0]);
      auto task = std::make_shared<PendingTask>();
      task->spec.task_id = id;
      std::vector<ObjectId> needs;
      for (const char other : event.Word("needs", "")) needs.push_back(ObjectId::ForReturn(Task(other), 0));
      core_->Ended({.id = id,
                    .task = task,
                    .bytes = event.Number("bytes", 100),
                    .args_object = event.Has("large-args") ? ArgumentsOf(id) : ObjectId::Nil(),
                    .retries_left = std::stoi(event.Word("retries", "0")),
                    .retries_allowed = !event.Has("never-any"),
                    .needs = needs,
                    .items = std::stoi(event.Word("items", "-1"))},
                   out);
    } else if (name == "failed") {
      ErrorType failure = ErrorType::kObjectUnreconstructableMaxAttempts;
      if (event.Has("cancelled")) failure = ErrorType::kObjectUnreconstructableTaskCancelled;
      if (event.Has("stream")) failure = ErrorType::kGeneratorTaskFailedForReconstruction;
      core_->Ended({.id = Task(event.Word(0)[0]), .ran = false, .failure = failure}, out);
    } else {
      event.Fail("no such event: " + name);
    }
  }

  std::shared_ptr<RecoveryCore> core_ = std::make_shared<RecoveryCore>(1 << 20);
};

TEST(RecoveryGoldenTest, Scenarios) {
  testing::ReplayGoldens("recovery", [] { return Replay(); });
}

}  // namespace
}  // namespace ray::core
