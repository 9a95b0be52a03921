#include "ray/core_worker/tasks/task_table_core.h"

#include <gtest/gtest.h>

#include "ray/core_worker/tasks/pending_task.h"

namespace ray::core {
namespace {

class TaskTableCoreTest : public testing::Test {
 protected:
  TaskId Add(int32_t retries) {
    TaskId id = TaskId::Of(JobId::FromInt(1), ActorId::Nil());
    auto task = std::make_shared<PendingTask>();
    task->spec.task_id = id;
    table.Add(id, task, retries);
    return id;
  }
  TaskTableCore table;
};

TEST_F(TaskTableCoreTest, CrashesAndRetryableErrorsShareOneBudget) {
  TaskId id = Add(2);
  EXPECT_EQ(table.Lost(id, TaskLoss::kCrash), TaskVerdict::kRetry);
  EXPECT_EQ(table.Answered(id, {.application_error = true, .retryable = true}), TaskVerdict::kRetry);
  EXPECT_EQ(table.Find(id)->attempt, 2u);
  EXPECT_EQ(table.Answered(id, {.application_error = true, .retryable = true}), TaskVerdict::kComplete);
  EXPECT_EQ(table.Answered(id, {}), TaskVerdict::kNone);
}

TEST_F(TaskTableCoreTest, ErrorsAreNotRetriedUnlessDeclared) {
  TaskId id = Add(-1);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(table.Lost(id, TaskLoss::kCrash), TaskVerdict::kRetry);
  EXPECT_EQ(table.Answered(id, {.application_error = true}), TaskVerdict::kComplete);
  TaskId once = Add(0);
  EXPECT_EQ(table.Lost(once, TaskLoss::kNotRun), TaskVerdict::kRetry);
  EXPECT_EQ(table.Lost(once, TaskLoss::kCrash), TaskVerdict::kFail);
}

TEST_F(TaskTableCoreTest, MemoryHasABudgetOfItsOwn) {
  TaskId id = Add(1);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(table.Lost(id, TaskLoss::kOutOfMemory), TaskVerdict::kRetry);
  EXPECT_EQ(table.Find(id)->ooms, 100u);
  EXPECT_EQ(table.Lost(id, TaskLoss::kCrash), TaskVerdict::kRetry);
  EXPECT_EQ(table.Lost(id, TaskLoss::kCrash), TaskVerdict::kFail);
  TaskId once = Add(0);  // must not run twice, for whatever reason
  EXPECT_EQ(table.Lost(once, TaskLoss::kOutOfMemory), TaskVerdict::kFail);

  TaskTableCore bounded(/*oom_retries=*/1);
  auto task = std::make_shared<PendingTask>();
  bounded.Add(id, task, -1);
  EXPECT_EQ(bounded.Lost(id, TaskLoss::kOutOfMemory), TaskVerdict::kRetry);
  EXPECT_EQ(bounded.Lost(id, TaskLoss::kOutOfMemory), TaskVerdict::kFail);
}

TEST_F(TaskTableCoreTest, CancelledIsNeverRetried) {
  TaskId id = Add(5);
  EXPECT_TRUE(table.Cancel(id));
  EXPECT_EQ(table.Lost(id, TaskLoss::kCrash), TaskVerdict::kCancelled);
  EXPECT_FALSE(table.Cancel(id));
  TaskId finished = Add(5);
  table.Cancel(finished);
  EXPECT_EQ(table.Answered(finished, {}), TaskVerdict::kComplete);  // it had come to its end
  TaskId raised = Add(5);
  table.Cancel(raised);
  EXPECT_EQ(table.Answered(raised, {.application_error = true, .retryable = true}), TaskVerdict::kComplete);
  TaskId queued = Add(5);
  table.Cancel(queued);
  EXPECT_EQ(table.Failed(queued), TaskVerdict::kCancelled);
  EXPECT_EQ(table.size(), 0u);
}

}  // namespace
}  // namespace ray::core
