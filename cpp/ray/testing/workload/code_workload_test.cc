// Drivers and workers that run code, in simulated clusters.
#include "ray/testing/workload/code_workload.h"

#include <gtest/gtest.h>

namespace ray::sim {
namespace {

using std::chrono::seconds;

struct CodeRun {
  std::string problem;
  Outcome outcome;
  CodeStats stats;
};

CodeRun RunSeed(uint64_t seed, bool faults) {
  CodeWorkload workload(seed);
  ClusterConfig config = workload.Config();
  if (!faults) config.faults = Duration::zero();
  CodeRun run;
  {
    SimCluster cluster(seed, config);
    run.outcome = cluster.Run();
    run.problem = run.outcome.problem;
    if (!run.problem.empty()) cluster.PrintTail(&std::cout);
  }
  if (run.problem.empty()) run.problem = workload.Check();
  run.stats = workload.stats();
  return run;
}

TEST(CodeWorkloadTest, RunsWithoutFaults) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const CodeRun run = RunSeed(seed, /*faults=*/false);
    EXPECT_EQ(run.problem, "") << "seed " << seed;
    EXPECT_GT(run.stats.runs, 0u);
  }
}

TEST(CodeWorkloadTest, ASeedGivesTheSameRunAgain) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const CodeRun first = RunSeed(seed, /*faults=*/true), second = RunSeed(seed, /*faults=*/true);
    EXPECT_EQ(first.problem, "") << "seed " << seed;
    EXPECT_EQ(first.outcome.trace_hash, second.outcome.trace_hash) << "seed " << seed;
    EXPECT_EQ(first.outcome.events, second.outcome.events) << "seed " << seed;
  }
}

}  // namespace
}  // namespace ray::sim
