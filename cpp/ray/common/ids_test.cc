#include "ray/common/ids.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mutex>
#include <set>
#include <thread>
#include <unordered_set>
#include <vector>

namespace ray {
namespace {

TEST(IdsTest, SizesAreTheProtocols) {
  EXPECT_EQ(JobId::kSize, 4u);
  EXPECT_EQ(ActorId::kSize, 16u);
  EXPECT_EQ(TaskId::kSize, 24u);
  EXPECT_EQ(ObjectId::kSize, 28u);
  EXPECT_EQ(PlacementGroupId::kSize, 18u);
  EXPECT_EQ(NodeId::kSize, 28u);
  EXPECT_EQ(WorkerId::kSize, 28u);
  EXPECT_EQ(sizeof(ObjectId), 28u);
}

TEST(IdsTest, NilIsAllOnes) {
  EXPECT_TRUE(NodeId().IsNil());
  EXPECT_EQ(NodeId::Nil().Binary(), std::string(28, '\xff'));
  EXPECT_FALSE(NodeId::FromRandom().IsNil());
}

TEST(IdsTest, BinaryAndHexRoundTrip) {
  WorkerId id = WorkerId::FromRandom();
  EXPECT_EQ(WorkerId::FromBinary(id.Binary()).value(), id);
  EXPECT_EQ(HexToBytes(id.Hex()).value(), id.Binary());
  EXPECT_EQ(WorkerId::FromBinary("short").status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(WorkerId::FromBinaryOrNil("").IsNil());
  EXPECT_EQ(HexToBytes("00fF"), std::string("\x00\xff", 2));
  EXPECT_FALSE(HexToBytes("0").has_value());
  EXPECT_FALSE(HexToBytes("0g").has_value());
}

TEST(IdsTest, JobNumbers) {
  JobId job = JobId::FromInt(0x01020304);
  EXPECT_EQ(job.Hex(), "04030201");
  EXPECT_EQ(job.ToInt(), 0x01020304u);
  EXPECT_EQ(JobId::FromInt(1).Hex(), "01000000");
}

TEST(IdsTest, TasksKnowJobAndActor) {
  JobId job = JobId::FromInt(7);
  ActorId actor = ActorId::Of(job);
  EXPECT_EQ(actor.job_id(), job);
  TaskId normal = TaskId::Of(job, ActorId::Nil());
  EXPECT_EQ(normal.job_id(), job);
  EXPECT_TRUE(normal.actor_id().IsNil());
  TaskId method = TaskId::Of(job, actor);
  EXPECT_EQ(method.actor_id(), actor);
  EXPECT_EQ(method.job_id(), job);
  TaskId creation = TaskId::ForActorCreation(actor);
  EXPECT_EQ(creation, TaskId::ForActorCreation(actor));
  EXPECT_EQ(creation.actor_id(), actor);
  EXPECT_NE(creation, method);
}

TEST(IdsTest, ObjectsKnowTaskAndIndex) {
  TaskId task = TaskId::Of(JobId::FromInt(1), ActorId::Nil());
  ObjectId first = ObjectId::ForReturn(task, 0);
  EXPECT_EQ(first.task_id(), task);
  EXPECT_EQ(first.index(), 1u);
  EXPECT_FALSE(first.IsPut());
  EXPECT_EQ(first.Binary().substr(24), std::string("\x01\x00\x00\x00", 4));
  ActorId actor = ActorId::Of(JobId::FromInt(1));
  EXPECT_EQ(ObjectId::ForActorHandle(actor).index(), 0u);
  EXPECT_EQ(ObjectId::ForActorHandle(actor).task_id().actor_id(), actor);
}

TEST(IdsTest, PutIdsAreDistinct) {
  PutIdGenerator a(JobId::FromInt(1)), b(JobId::FromInt(1));
  std::set<ObjectId> seen;
  for (int i = 0; i < 100; ++i) {
    for (auto* generator : {&a, &b}) {
      ObjectId id = generator->Next();
      EXPECT_TRUE(id.IsPut());
      EXPECT_TRUE(seen.insert(id).second);
    }
  }
}

TEST(IdsTest, TaskIdsOfThreadsAreDistinct) {
  std::mutex mu;
  std::unordered_set<TaskId, IdHash> all;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      std::vector<TaskId> mine;
      for (int i = 0; i < 1000; ++i) mine.push_back(TaskId::Of(JobId::FromInt(1), ActorId::Nil()));
      std::lock_guard lock(mu);
      all.insert(mine.begin(), mine.end());
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(all.size(), 4000u);
}

TEST(IdsTest, AForkedChildDoesNotRepeatItsParent) {
  NodeId::FromRandom();  // fills the pool
  TaskId::Of(JobId::FromInt(1), ActorId::Nil());
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::string out = NodeId::FromRandom().Binary() + TaskId::Of(JobId::FromInt(1), ActorId::Nil()).Binary();
    _exit(write(fds[1], out.data(), out.size()) == static_cast<ssize_t>(out.size()) ? 0 : 1);
  }
  std::string mine = NodeId::FromRandom().Binary() + TaskId::Of(JobId::FromInt(1), ActorId::Nil()).Binary();
  std::string theirs(NodeId::kSize + TaskId::kSize, '\0');
  ASSERT_EQ(read(fds[0], theirs.data(), theirs.size()), static_cast<ssize_t>(theirs.size()));
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_NE(mine.substr(0, 28), theirs.substr(0, 28));
  EXPECT_NE(mine.substr(28), theirs.substr(28));
  close(fds[0]);
  close(fds[1]);
}

}  // namespace
}  // namespace ray
