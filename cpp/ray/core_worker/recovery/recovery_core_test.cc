// RecoveryCore under random events; single stories are in recovery_golden_test.
#include "ray/core_worker/recovery/recovery_core.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "ray/core_worker/tasks/pending_task.h"

namespace ray::core {
namespace {

constexpr uint32_t kArguments = 99;  // names the object that a task's arguments are

// Random events on a growing graph of tasks: every loss is answered, nothing is left once all is freed, and the totals add up.
TEST(RecoveryCore, EveryLossIsAnsweredAndNothingIsLeft) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    RecoveryCore core(below(3) == 0 ? 1500 : 1 << 20);
    struct Task {
      TaskId id;
      PendingTaskPtr pending;
      std::vector<ObjectId> needs;
      std::set<ObjectId> held, lost;
      int32_t retries = 0;
      bool running = false;
      ObjectId args;  // nil: they travel inline
      int holds = 0;  // on them
    };
    std::map<TaskId, Task> tasks;
    std::vector<TaskId> order;
    RecoveryEffects out;
    auto carry_out = [&] {
      for (const RecoveryEffect& e : std::exchange(out, {})) {
        if (e.kind == RecoveryEffect::Kind::kPassed) continue;  // its end answers
        if (e.kind == RecoveryEffect::Kind::kFail) {
          Task& task = tasks.at(e.object.task_id());
          ASSERT_EQ(task.lost.erase(e.object), 1u) << seed;
          task.held.erase(e.object);
        } else if (e.kind != RecoveryEffect::Kind::kRun) {
          Task& task = tasks.at(e.object.task_id());
          task.holds += e.kind == RecoveryEffect::Kind::kHold ? 1 : -1;
          ASSERT_TRUE(task.holds == 0 || task.holds == 1) << seed;
        } else {
          Task& task = tasks.at(e.task->spec.task_id);
          ASSERT_FALSE(task.running) << seed;
          ASSERT_FALSE(task.lost.empty()) << seed;
          ASSERT_EQ(task.holds, task.args.IsNil() ? 0 : 1) << seed;
          task.running = true;
          task.retries = e.retries_left;
        }
      }
    };
    auto end = [&](Task& task, bool ran) {
      if (ran) {
        for (const ObjectId& id : std::set<ObjectId>(task.held)) {
          if (below(4) == 0 && task.lost.contains(id)) continue;  // lost again right away
          core.Stored(id);
          task.lost.erase(id);
        }
      }
      task.running = false;
      core.Ended({.id = task.id,
                  .task = task.pending,
                  .bytes = 100 + below(100),
                  .args_object = task.args,
                  .retries_left = task.retries,
                  .needs = task.needs,
                  .ran = ran},
                 &out);
      carry_out();
    };
    for (int step = 0; step < 300; ++step) {
      const uint32_t what = below(10);
      if (what < 3 || order.empty()) {
        Task task;
        task.id = TaskId::Of(JobId::FromInt(1), ActorId::Nil());
        task.pending = std::make_shared<PendingTask>();
        task.pending->spec.task_id = task.id;
        for (int i = 0; i < 2 && !order.empty(); ++i) task.needs.push_back(ObjectId::ForReturn(order[below(order.size())], 0));
        task.retries = static_cast<int32_t>(below(4)) - 1;
        if (below(2) == 0) task.args = ObjectId::ForReturn(task.id, kArguments);
        for (uint32_t i = 0; i <= below(2); ++i) task.held.insert(ObjectId::ForReturn(task.id, i));
        order.push_back(task.id);
        Task& made = tasks[task.id] = task;
        made.running = true;
        end(made, true);
        continue;
      }
      Task& task = tasks.at(order[below(order.size())]);
      if (task.running && what < 6) {
        end(task, below(5) != 0);
      } else if (!task.held.empty()) {
        const ObjectId id = *std::next(task.held.begin(), below(task.held.size()));
        if (what < 8) {
          if (!task.lost.insert(id).second) continue;
          core.Lost(id, &out);
          carry_out();
        } else {
          core.Settled(id, &out);
          task.held.erase(id);
          task.lost.erase(id);
          carry_out();
        }
      }
      size_t lost = 0;
      for (const auto& [id, t] : tasks) lost += t.lost.size();
      ASSERT_EQ(core.lost(), lost) << seed;
    }
    for (auto& [id, task] : tasks) {
      for (int i = 0; task.running && i < 100; ++i) end(task, i < 50);
      ASSERT_TRUE(task.lost.empty()) << seed;
      for (const ObjectId& object : std::set<ObjectId>(task.held)) core.Settled(object, &out);
      carry_out();
    }
    for (const auto& [id, task] : tasks) ASSERT_EQ(task.holds, 0) << seed;
    EXPECT_EQ(core.size(), 0u) << seed;
    EXPECT_EQ(core.bytes(), 0u) << seed;
  }
}

}  // namespace
}  // namespace ray::core
