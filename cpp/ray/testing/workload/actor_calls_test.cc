// Calls to an actor while processes die, cables are cut and connections break at points that the seed decides: the history can be, every call ends, and a seed
// gives the same run again.
#include "ray/testing/workload/actor_calls.h"

#include <gtest/gtest.h>

#include <iostream>
#include <string>

#include "ray/util/logging.h"

namespace ray::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kSeeds = 300;

class Quiet : public ::testing::Environment {
 public:
  void SetUp() override {
    LogOptions options;
    options.level = LogLevel::kOff;
    ASSERT_TRUE(StartLogging(options).ok());
  }
};
const auto* const kQuiet = ::testing::AddGlobalTestEnvironment(new Quiet);

struct Outcome {
  std::string fault;
  uint64_t hash = 0;
  size_t done = 0, unavailable = 0, dead = 0, executed = 0;
};

// Something bad, every now and then.
void Trouble(World* world, SimNetwork* network, ActorCluster* cluster, Random* random, const ActorCallsConfig& config, int left) {
  if (left == 0) return network->MendAll();
  world->After(random->Between(milliseconds(1), seconds(2)), [=] {
    const HostId host = 1 + static_cast<HostId>(random->Below(config.callers));
    switch (random->Below(6)) {
      case 0:
      case 1: cluster->KillActor(); break;
      case 2: network->BreakConnections(ActorCluster::kActorHost, host); break;
      case 3: network->Cut(ActorCluster::kActorHost, host); break;
      case 4: network->MendAll(); break;
      default:
        if (cluster->actor()->alive()) cluster->actor()->loop()->StandStill(world->now() + random->Between(milliseconds(1), seconds(3)));
        break;
    }
    Trouble(world, network, cluster, random, config, left - 1);
  });
}

Outcome RunSeed(uint64_t seed, bool trouble) {
  World world(seed);
  Random random = world.random().Fork();
  SimNetwork network(&world);
  ActorCallsConfig config;
  ActorCluster cluster(&world, &network, config);
  cluster.Start();
  if (trouble) {
    Trouble(&world, &network, &cluster, &random, config, 12);
    if (random.Chance(0.3)) world.After(random.Between(seconds(1), seconds(20)), [&] { cluster.KillCaller(0); });
  }
  Outcome outcome;
  const bool done = world.RunUntil([&] { return cluster.Done(); }, Time{} + seconds(300));
  const ActorHistory& history = cluster.history();
  outcome.fault = done ? history.Check() : "calls that never end; " + history.Check();
  outcome.hash = world.trace().hash();
  outcome.done = history.settled(CallOutcome::kDone);
  outcome.unavailable = history.settled(CallOutcome::kUnavailable);
  outcome.dead = history.settled(CallOutcome::kDead);
  outcome.executed = history.executed();
  if (!outcome.fault.empty()) world.trace().PrintTail(&std::cerr);
  world.EndProcesses();
  return outcome;
}

TEST(ActorCallsTest, WithoutTroubleEveryCallIsDoneOnce) {
  const Outcome outcome = RunSeed(1, /*trouble=*/false);
  EXPECT_EQ(outcome.fault, "");
  EXPECT_EQ(outcome.done, 240U);
  EXPECT_EQ(outcome.executed, 240U);
}

TEST(ActorCallsTest, HistoriesHoldUnderTrouble) {
  Outcome sum;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Outcome outcome = RunSeed(seed, /*trouble=*/true);
    ASSERT_EQ(outcome.fault, "") << "seed " << seed;
    sum.done += outcome.done;
    sum.unavailable += outcome.unavailable;
    sum.dead += outcome.dead;
    sum.executed += outcome.executed;
  }
  // The trouble was some, and not all there was.
  EXPECT_GT(sum.done, kSeeds * 50);
  EXPECT_GT(sum.unavailable, 0U);
  RecordProperty("calls", static_cast<int>(sum.done + sum.unavailable + sum.dead));
}

TEST(ActorCallsTest, ASeedGivesTheSameRunAgain) {
  for (uint64_t seed = 1; seed <= 10; ++seed) EXPECT_EQ(RunSeed(seed, true).hash, RunSeed(seed, true).hash) << "seed " << seed;
  EXPECT_NE(RunSeed(1, true).hash, RunSeed(2, true).hash);
}

}  // namespace
}  // namespace ray::sim
