#include "ray/core_worker/recovery/recovery_core.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "ray/core_worker/tasks/pending_task.h"

namespace ray::core {
namespace {

// A core with tasks named by letters; its effects as words.
class Scenario {
 public:
  static constexpr uint32_t kArguments = 99;  // names the object that a task's arguments are

  explicit Scenario(uint64_t cap = 1 << 20) : core(cap) {}

  const TaskId& Task(char name) {
    auto [it, is_new] = tasks_.try_emplace(name);
    if (is_new) it->second = TaskId::Of(JobId::FromInt(1), ActorId::Nil());
    return it->second;
  }
  ObjectId Object(char task, uint32_t i = 0) { return ObjectId::ForReturn(Task(task), i); }
  void Stored(char task, uint32_t i = 0) { core.Stored(Object(task, i)); }
  std::string Done(char task, int32_t retries_left, std::string needs = "", uint64_t bytes = 100, bool allowed = true,
                   bool large_args = false) {
    auto pending = std::make_shared<PendingTask>();
    pending->spec.task_id = Task(task);
    std::vector<ObjectId> ids;
    for (char c : needs) ids.push_back(Object(c));
    RecoveryEffects out;
    core.Ended({.id = Task(task),
                .task = pending,
                .bytes = bytes,
                .args_object = large_args ? Object(task, kArguments) : ObjectId::Nil(),
                .retries_left = retries_left,
                .retries_allowed = allowed,
                .needs = ids},
               &out);
    return Text(out);
  }
  std::string Failed(char task, ErrorType reason = ErrorType::kObjectUnreconstructableMaxAttempts) {
    RecoveryEffects out;
    core.Ended({.id = Task(task), .ran = false, .failure = reason}, &out);
    return Text(out);
  }
  std::string Stream(char task, int64_t items, int32_t retries_left = 3) {
    auto pending = std::make_shared<PendingTask>();
    pending->spec.task_id = Task(task);
    RecoveryEffects out;
    core.Ended({.id = Task(task), .task = pending, .bytes = 100, .retries_left = retries_left, .items = items}, &out);
    return Text(out);
  }
  std::string Lost(char task, uint32_t i = 0) {
    RecoveryEffects out;
    core.Lost(Object(task, i), &out);
    return Text(out);
  }
  void Again(char task) { core.Again(Task(task)); }
  std::string NotAgain(char task, uint32_t i) {
    RecoveryEffects out;
    core.NotAgain(Object(task, i), ErrorType::kObjectUnreconstructableMaxAttempts, &out);
    return Text(out);
  }
  std::string Freed(char task, uint32_t i = 0) {
    RecoveryEffects out;
    core.Settled(Object(task, i), &out);
    return Text(out);
  }
  std::string Text(const RecoveryEffects& effects) {
    std::string text;
    for (const RecoveryEffect& e : effects) {
      const TaskId id = e.kind == RecoveryEffect::Kind::kRun ? e.task->spec.task_id : e.object.task_id();
      char name = '?';
      for (const auto& [letter, task] : tasks_) {
        if (task == id) name = letter;
      }
      if (!text.empty()) text += ' ';
      switch (e.kind) {
        case RecoveryEffect::Kind::kRun: text += std::string("run ") + name + std::to_string(e.retries_left); break;
        case RecoveryEffect::Kind::kFail: text += std::string("fail ") + name + std::to_string(static_cast<int>(e.reason)); break;
        case RecoveryEffect::Kind::kHold: text += std::string("hold ") + name; break;
        case RecoveryEffect::Kind::kRelease: text += std::string("release ") + name; break;
        case RecoveryEffect::Kind::kPassed: text += std::string("passed ") + name; break;
      }
    }
    return text;
  }
  RecoveryCore core;

 private:
  std::map<char, TaskId> tasks_;
};

TEST(RecoveryCore, ALostValueIsMadeAgainOnceForAllWhoWait) {
  Scenario s;
  s.Stored('a');
  EXPECT_EQ(s.Done('a', 3), "");
  EXPECT_EQ(s.Lost('a'), "run a2");
  EXPECT_EQ(s.Lost('a'), "");  // told again
  s.Stored('a');
  EXPECT_EQ(s.Done('a', 2), "");
  EXPECT_EQ(s.Lost('a'), "run a1");
  s.Stored('a');
  s.Done('a', 1);
  s.Freed('a');
  EXPECT_EQ(s.core.size(), 0u);
  EXPECT_EQ(s.core.bytes(), 0u);
}

TEST(RecoveryCore, ConcurrentLossesOfOneTaskShareItsRun) {
  Scenario s;
  s.Stored('a', 0);
  s.Stored('a', 1);
  s.Done('a', -1);
  EXPECT_EQ(s.Lost('a', 0), "run a-1");
  EXPECT_EQ(s.Lost('a', 1), "");
  s.Stored('a', 0);
  s.Stored('a', 1);
  EXPECT_EQ(s.Done('a', -1), "");
  EXPECT_EQ(s.core.lost(), 0u);
}

TEST(RecoveryCore, WhatIsLostWhileItsRunStoresItIsLostAgain) {
  Scenario s;
  s.Stored('a');
  s.Done('a', 3);
  EXPECT_EQ(s.Lost('a'), "run a2");
  s.Stored('a');
  EXPECT_EQ(s.Lost('a'), "passed a");  // unless it begins again, its end answers
  EXPECT_EQ(s.Lost('a'), "");
  EXPECT_EQ(s.Done('a', 2), "run a1");
}

TEST(RecoveryCore, TheReasonSaysWhyNot) {
  Scenario s;
  s.Stored('a');
  EXPECT_EQ(s.Done('a', 0, "", 100, /*allowed=*/false), "");
  EXPECT_EQ(s.Lost('a'), "fail a28");  // retries disabled
  EXPECT_EQ(s.core.size(), 0u);

  s.Stored('b');
  s.Done('b', 1);
  EXPECT_EQ(s.Lost('b'), "run b0");
  s.Stored('b');
  s.Done('b', 0);
  EXPECT_EQ(s.Lost('b'), "fail b12");  // attempts exceeded

  RecoveryEffects out;
  s.core.Lost(PutIdGenerator(JobId::FromInt(1)).Next(), &out);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].reason, ErrorType::kObjectUnreconstructablePut);
  EXPECT_EQ(s.Lost('c'), "fail c30");  // unknown

  s.Stored('d');
  s.Done('d', 3);
  EXPECT_EQ(s.Lost('d'), "run d2");
  EXPECT_EQ(s.Failed('d', ErrorType::kObjectUnreconstructableTaskCancelled), "fail d31");

  Scenario none(0);
  none.Stored('a');
  none.Done('a', 3);
  EXPECT_EQ(none.Lost('a'), "fail a32");
  EXPECT_EQ(none.core.size(), 0u);
}

TEST(RecoveryCore, WhatArgumentsNeedIsKeptAsLongAsTheirUser) {
  Scenario s;
  s.Stored('a');
  s.Done('a', 3);
  s.Stored('b');
  s.Done('b', 3, "a");
  s.Freed('a');
  EXPECT_EQ(s.core.size(), 2u);
  EXPECT_EQ(s.Lost('b'), "run b2");
  EXPECT_EQ(s.Lost('a'), "run a2");  // came back for b, without a value
  s.Stored('a');
  s.Done('a', 2);
  s.Stored('b');
  s.Done('b', 2, "a");
  s.Freed('a');
  EXPECT_EQ(s.core.size(), 2u);
  s.Freed('b');
  EXPECT_EQ(s.core.size(), 0u);
  EXPECT_EQ(s.core.bytes(), 0u);
}

TEST(RecoveryCore, AboveTheCapTheOldestAreEvicted) {
  Scenario s(250);
  for (char c : {'a', 'b', 'c'}) {
    s.Stored(c);
    s.Done(c, 3);
  }
  EXPECT_EQ(s.core.bytes(), 200u);
  EXPECT_EQ(s.Lost('a'), "fail a13");
  EXPECT_EQ(s.Lost('b'), "run b2");
  // One that runs is not evicted.
  s.Stored('d');
  s.Done('d', 3);
  EXPECT_EQ(s.Lost('c'), "fail c13");
  s.Stored('b');
  EXPECT_EQ(s.Done('b', 2), "");
  EXPECT_EQ(s.Lost('b'), "run b1");
  // More than the cap at once.
  s.Stored('e');
  s.Done('e', 3, "", 1000);
  EXPECT_EQ(s.Lost('e'), "fail e13");
}

TEST(RecoveryCore, EvictionLetsGoOfWhatOnlyItKept) {
  Scenario s(250);
  s.Stored('a');
  s.Done('a', 3);
  s.Stored('b');
  s.Done('b', 3, "a");
  s.Freed('a');
  EXPECT_EQ(s.core.size(), 2u);
  s.Stored('c');
  s.Done('c', 3);  // evicts a, whose entry stays for b
  EXPECT_EQ(s.core.size(), 3u);
  s.Stored('d');
  s.Done('d', 3);  // evicts b
  EXPECT_EQ(s.core.size(), 3u);
  EXPECT_EQ(s.Lost('b'), "fail b13");
}

TEST(RecoveryCore, LossesWaitForAFirstRunThatGoesOn) {
  Scenario s;
  s.Stored('s', 1);  // the first item of a stream
  EXPECT_EQ(s.Lost('s', 1), "passed s");
  EXPECT_EQ(s.Stream('s', 3), "run s2");
  s.Stored('s', 1);
  EXPECT_EQ(s.Stream('s', 3, 2), "");
}

// One that is held back until its consumer has the item would wait for itself.
TEST(RecoveryCore, AStreamBeginsAgainForAnItemThatItIsPast) {
  Scenario s;
  for (uint32_t i = 1; i <= 3; ++i) s.Stored('s', i);
  EXPECT_EQ(s.Lost('s', 1), "passed s");
  EXPECT_EQ(s.Lost('s', 3), "passed s");  // the same run is told twice
  s.Again('s');
  EXPECT_EQ(s.Lost('s', 2), "");  // still to come
  for (uint32_t i = 1; i <= 2; ++i) s.Stored('s', i);
  EXPECT_EQ(s.core.lost(), 1u);
  EXPECT_EQ(s.Lost('s', 1), "passed s");  // once more
  s.Again('s');
  for (uint32_t i = 1; i <= 3; ++i) s.Stored('s', i);
  EXPECT_EQ(s.core.lost(), 0u);
  EXPECT_EQ(s.Stream('s', 3, 1), "");
}

TEST(RecoveryCore, AStreamWithoutRetriesGoesOnWithoutTheItem) {
  Scenario s;
  for (uint32_t i = 1; i <= 2; ++i) s.Stored('s', i);
  EXPECT_EQ(s.Lost('s', 1), "passed s");
  EXPECT_EQ(s.NotAgain('s', 1), "fail s12");
  EXPECT_EQ(s.NotAgain('s', 1), "");
  EXPECT_EQ(s.Lost('s', 2), "passed s");
  s.Stored('s', 2);  // it was late
  EXPECT_EQ(s.NotAgain('s', 2), "");
  EXPECT_EQ(s.core.lost(), 0u);
  EXPECT_EQ(s.Stream('s', 2, 0), "");
  EXPECT_EQ(s.Freed('s', 2), "");
  EXPECT_EQ(s.core.size(), 0u);
}

TEST(RecoveryCore, AStreamThatIsShorterTheSecondTimeIsInconsistent) {
  Scenario s;
  for (uint32_t i = 1; i <= 3; ++i) s.Stored('s', i);
  s.Stream('s', 3);
  EXPECT_EQ(s.Lost('s', 2), "run s2");
  EXPECT_EQ(s.Lost('s', 3), "");
  s.Stored('s', 2);
  EXPECT_EQ(s.Stream('s', 2, 2), "fail s34");
  EXPECT_EQ(s.Lost('s', 1), "run s1");
  EXPECT_EQ(s.Failed('s', ErrorType::kGeneratorTaskFailedForReconstruction), "fail s26");
}

TEST(RecoveryCore, ArgumentsThatAreAnObjectAreHeldAsLongAsTheTaskMayRunAgain) {
  Scenario s;
  s.Stored('a');
  EXPECT_EQ(s.Done('a', 2, "", 100, true, /*large_args=*/true), "hold a");
  EXPECT_EQ(s.Lost('a'), "run a1");
  s.Stored('a');
  EXPECT_EQ(s.Done('a', 1, "", 100, true, true), "");  // they are held already
  EXPECT_EQ(s.Lost('a'), "run a0");
  s.Stored('a');
  EXPECT_EQ(s.Done('a', 0, "", 100, true, true), "release a");  // it may not run any more
  EXPECT_EQ(s.Freed('a'), "");

  s.Stored('b');
  EXPECT_EQ(s.Done('b', 0, "", 100, false, true), "");  // it never may
  s.Stored('c');
  EXPECT_EQ(s.Done('c', 3, "", 100, true, true), "hold c");
  EXPECT_EQ(s.Freed('c'), "release c");
  s.Stored('d');
  EXPECT_EQ(s.Done('d', 3, "", 100, true, true), "hold d");
  EXPECT_EQ(s.Lost('d'), "run d2");
  EXPECT_EQ(s.Failed('d'), "release d fail d12");
}

TEST(RecoveryCore, ArgumentsGoWithTheLineageThatNeedsThem) {
  Scenario s(1000);
  s.Stored('a');
  EXPECT_EQ(s.Done('a', 3, "", 400, true, true), "hold a");
  s.Stored('b');
  EXPECT_EQ(s.Done('b', 3, "a", 400, true, true), "hold b");
  EXPECT_EQ(s.Freed('a'), "");  // b may need it
  s.Stored('c');
  EXPECT_EQ(s.Done('c', 3, "", 400, true, true), "hold c release a");  // the oldest is evicted
  EXPECT_EQ(s.Freed('b'), "release b");
  EXPECT_EQ(s.core.size(), 1u);
  s.Stored('d');
  EXPECT_EQ(s.Done('d', 3, "", 2000, true, true), "hold d release c release d");  // more than is ever kept
  EXPECT_EQ(s.Lost('d'), "fail d13");
}

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
        if (below(2) == 0) task.args = ObjectId::ForReturn(task.id, Scenario::kArguments);
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
