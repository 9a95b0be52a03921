#include "ray/core_worker/tasks/task_history.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

#include "ray/common/errors.h"

namespace ray::core {
namespace {

class TaskHistoryTest : public testing::Test {
 protected:
  TaskHistoryTest() {
    tmpl->name = "f";
    worker.address = Address{NodeId::FromRandom(), WorkerId::FromRandom()};
    worker.pid = 7;
  }
  TaskSpec Spec() {
    TaskSpec spec;
    spec.tmpl = tmpl;
    spec.task_id = TaskId::Of(JobId::FromInt(1), ActorId::Nil());
    return spec;
  }
  TaskAttempt Attempt(const TaskSpec& spec) const { return {spec, spec.attempt, worker, Time{1000}, Time{3000}, Duration(500)}; }
  void Finish(const TaskSpec& spec) { history.Finished(Attempt(spec)); }
  void Fail(const TaskSpec& spec, const std::string& error = "no") {
    history.Failed(Attempt(spec), static_cast<int32_t>(ErrorType::kWorkerDied), error);
  }
  std::shared_ptr<TaskTemplate> tmpl = std::make_shared<TaskTemplate>();
  TaskWorker worker;
  TaskHistory history{3};
};

TEST_F(TaskHistoryTest, KeepsWhatIsKnownOfAnAttempt) {
  TaskSpec spec = Spec();
  spec.attempt = 2;
  spec.parent_task_id = TaskId::Of(JobId::FromInt(1), ActorId::Nil());
  Finish(spec);
  ASSERT_EQ(history.finished().size(), 1u);
  const EndedTask& entry = history.finished()[0];
  EXPECT_EQ(entry.id, spec.task_id);
  EXPECT_EQ(entry.parent, spec.parent_task_id);
  EXPECT_EQ(entry.tmpl, spec.tmpl);  // the same, not a copy
  EXPECT_EQ(entry.worker.address, worker.address);
  EXPECT_EQ(entry.worker.pid, 7);
  EXPECT_EQ(entry.submitted, Time{1000});
  EXPECT_EQ(entry.ended, Time{3000});
  EXPECT_EQ(entry.run, Duration(500));
  EXPECT_EQ(entry.attempt, 2u);
  EXPECT_EQ(entry.error_type, EndedTask::kFinished);
  Fail(spec, "it died");
  ASSERT_EQ(history.failed().size(), 1u);
  EXPECT_EQ(history.failed()[0].error_type, static_cast<int32_t>(ErrorType::kWorkerDied));
  EXPECT_EQ(*history.failed()[0].error, "it died");
}

TEST_F(TaskHistoryTest, TheLatestStay) {
  std::set<TaskId> latest;
  for (int i = 0; i < 8; ++i) {
    const TaskSpec spec = Spec();
    Finish(spec);
    if (i >= 5) latest.insert(spec.task_id);
  }
  std::set<TaskId> kept;
  for (const EndedTask& entry : history.finished()) kept.insert(entry.id);
  EXPECT_EQ(kept, latest);
  EXPECT_EQ(history.forgotten_finished(), 5u);
  EXPECT_EQ(history.forgotten_failed(), 0u);
}

TEST_F(TaskHistoryTest, AFloodOfSuccessesLeavesFailuresAlone) {
  const TaskSpec failed = Spec();
  Fail(failed);
  for (int i = 0; i < 100; ++i) Finish(Spec());
  ASSERT_EQ(history.failed().size(), 1u);
  EXPECT_EQ(history.failed()[0].id, failed.task_id);
  for (int i = 0; i < 4; ++i) Fail(Spec());
  EXPECT_EQ(history.failed().size(), 3u);
  EXPECT_EQ(history.forgotten_failed(), 2u);
}

TEST_F(TaskHistoryTest, AnOverwrittenEntryKeepsNothingOfTheOldOne) {
  for (int i = 0; i < 3; ++i) Fail(Spec(), "long ago, with many words that do not fit into a small string");
  const std::weak_ptr<const TaskTemplate> old = tmpl;
  tmpl = std::make_shared<TaskTemplate>();
  for (int i = 0; i < 3; ++i) Fail(Spec(), "");
  for (const EndedTask& entry : history.failed()) EXPECT_EQ(*entry.error, "");
  EXPECT_TRUE(old.expired());
}

TEST_F(TaskHistoryTest, NothingIsKeptWithoutRoomOrOfWhatIsLeftOut) {
  TaskHistory none(0);
  const TaskSpec spec = Spec();
  none.Finished(Attempt(spec));
  none.Failed(Attempt(spec), 0, "no");
  EXPECT_TRUE(none.finished().empty() && none.failed().empty());
  EXPECT_EQ(none.forgotten_finished() + none.forgotten_failed(), 0u);
  tmpl->omit_task_events = true;
  Finish(Spec());
  Fail(Spec());
  EXPECT_TRUE(history.finished().empty() && history.failed().empty());
}

TEST_F(TaskHistoryTest, OfALongErrorTheEndIsKept) {
  std::string text(3 * TaskHistory::kMaxErrorBytes, 'x');
  text += "ValueError: bad";
  Fail(Spec(), text);
  const std::string& kept = *history.failed()[0].error;
  EXPECT_EQ(kept.size(), TaskHistory::kMaxErrorBytes);
  EXPECT_TRUE(kept.ends_with("ValueError: bad"));
  // Not in the middle of a character.
  std::string umlauts;
  while (umlauts.size() <= TaskHistory::kMaxErrorBytes) umlauts += "\xc3\xa4";
  EXPECT_EQ(EndOfError(umlauts + "!").size() % 2, 1u);
  EXPECT_EQ(EndOfError(umlauts + "!").front(), '\xc3');
}

}  // namespace
}  // namespace ray::core
