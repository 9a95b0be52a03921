#include "ray/raylet/explain/left_tasks.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace ray::raylet {
namespace {

v1::LeaveTasksRequest Left(const WorkerId& worker, const std::string& tasks, bool failed = false) {
  v1::LeaveTasksRequest left;
  left.set_worker_id(worker.Binary());
  v1::ExplainReply facts;
  for (const char task : tasks) {
    v1::WaitFact& fact = *facts.add_facts();
    fact.set_kind(v1::SUBJECT_KIND_TASKS);
    fact.set_id(std::string(TaskId::kSize, task));
    fact.set_state(failed ? v1::WAIT_STATE_FAILED : v1::WAIT_STATE_FINISHED);
    fact.mutable_row()->set_owned(true);
  }
  facts.SerializeToString(left.mutable_tasks());
  failed ? left.set_failed(static_cast<uint32_t>(tasks.size())) : left.set_finished(static_cast<uint32_t>(tasks.size()));
  return left;
}

std::string Told(const LeftTasks& tasks, std::string_view id = "") {
  v1::ExplainReply reply;
  tasks.Tell(id, &reply);
  std::string names;
  for (const v1::WaitFact& fact : reply.facts()) {
    if (fact.has_row()) names += fact.id()[0];
    if (fact.has_totals())
      names += " -" + std::to_string(fact.totals().forgotten_finished()) + "-" + std::to_string(fact.totals().forgotten_failed());
  }
  return names;
}

TEST(LeftTasks, TellsWhatWasLeft) {
  LeftTasks tasks;
  EXPECT_EQ(Told(tasks), "");
  tasks.Add(Left(WorkerId::FromRandom(), "ab"));
  tasks.Add(Left(WorkerId::FromRandom(), "bc"));
  EXPECT_EQ(Told(tasks), "abbc");
  EXPECT_EQ(Told(tasks, std::string(TaskId::kSize, 'b')), "bb");
  EXPECT_EQ(Told(tasks, std::string(TaskId::kSize, 'x')), "");
}

TEST(LeftTasks, WhoLeavesAgainReplacesWhatItLeft) {
  LeftTasks tasks;
  const WorkerId worker = WorkerId::FromRandom();
  tasks.Add(Left(worker, "ab"));
  tasks.Add(Left(WorkerId::FromRandom(), "c"));
  tasks.Add(Left(worker, "ab"));
  EXPECT_EQ(Told(tasks), "cab");
  EXPECT_EQ(tasks.rows(), 3u);
}

TEST(LeftTasks, TheFirstToLeaveGoWhenThereAreTooMany) {
  LeftTasks tasks(5);
  tasks.Add(Left(WorkerId::FromRandom(), "abc"));
  tasks.Add(Left(WorkerId::FromRandom(), "d", /*failed=*/true));
  tasks.Add(Left(WorkerId::FromRandom(), "ef"));
  EXPECT_EQ(Told(tasks), "def -3-0");
  tasks.Add(Left(WorkerId::FromRandom(), "ghijklm"));  // more than there is room for, yet the latest
  EXPECT_EQ(Told(tasks), "ghijklm -5-1");
  EXPECT_EQ(tasks.rows(), 7u);
}

TEST(LeftTasks, AndWhenTheyAreTooLarge) {
  const size_t bytes = Left(WorkerId::FromRandom(), "ab").tasks().size();
  LeftTasks tasks(/*max_rows=*/100, /*max_bytes=*/2 * bytes);
  for (const char* left : {"ab", "cd", "ef"}) tasks.Add(Left(WorkerId::FromRandom(), left));
  EXPECT_EQ(Told(tasks), "cdef -2-0");
}

TEST(LeftTasks, WhatCannotBeReadIsLeftAside) {
  LeftTasks tasks;
  tasks.Add(Left(WorkerId::FromRandom(), "a"));
  v1::LeaveTasksRequest bad = Left(WorkerId::FromRandom(), "b");
  bad.set_tasks("\xff");
  tasks.Add(bad);
  EXPECT_EQ(Told(tasks), "a");
}

}  // namespace
}  // namespace ray::raylet
