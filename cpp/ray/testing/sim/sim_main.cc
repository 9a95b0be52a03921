// Runs seeds of the simulated cluster. See ci/scripts/sim.sh and docs/architecture/simulation.md.
#include <chrono>
#include <cstdint>
#include <iostream>
#include <string>

#include "ray/testing/sim/sim_cluster.h"
#include "ray/util/flags.h"
#include "ray/util/logging.h"

namespace ray::sim {
namespace {

struct Options {
  int64_t seeds = 100, first = 1, seed = 0;
  int64_t nodes = 0;
  bool trace = false;
};

// Whether it held.
bool RunSeed(uint64_t seed, const Options& options, Outcome* outcome) {
  ClusterConfig config = ClusterConfig::FromSeed(seed);
  if (options.nodes > 0) config.nodes = static_cast<int>(options.nodes);
  SimCluster cluster(seed, config, options.trace ? &std::cout : nullptr);
  *outcome = cluster.Run();
  if (outcome->problem.empty()) return true;
  std::cout << "----- the last events of seed " << seed << ":\n";
  cluster.PrintTail(&std::cout);
  std::cout << "----- seed " << seed << " breaks an invariant: " << outcome->problem << "\n----- to see it again: ci/scripts/sim.sh --seed "
            << seed << (options.nodes > 0 ? " --nodes " + std::to_string(options.nodes) : "") << " --trace\n"
            << std::flush;
  return false;
}

int Run(int argc, char** argv) {
  Options options;
  FlagParser flags("ray_sim", "Runs simulated clusters, one for each seed, and checks what must hold. Exit code 1: some seed failed.");
  flags.Add("seeds", "how many", &options.seeds);
  flags.Add("first", "the first one", &options.first);
  flags.Add("seed", "this one only", &options.seed);
  flags.Add("nodes", "nodes of each cluster; 0: as the seed has it", &options.nodes);
  flags.Add("trace", "print every event", &options.trace);
  const auto help = flags.Parse(argc, argv);
  if (!help.ok()) {
    std::cerr << "ray_sim: " << help.status().message() << "\n";
    return 2;
  }
  if (help->has_value()) {
    std::cout << **help;
    return 0;
  }
  if (options.trace) std::cout << std::unitbuf;  // in step with the log
  LogOptions log;
  log.level = options.trace ? LogLevel::kDebug : LogLevel::kOff;
  if (!StartLogging(log).ok()) return 2;
  if (options.seed != 0) {
    options.first = options.seed;
    options.seeds = 1;
  }
  int64_t failed = 0;
  uint64_t events = 0, faults = 0, operations = 0, processes = 0;
  double simulated = 0;
  const auto began = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < options.seeds; ++i) {
    Outcome outcome;
    if (!RunSeed(static_cast<uint64_t>(options.first + i), options, &outcome)) ++failed;
    events += outcome.events;
    faults += outcome.faults;
    operations += outcome.kv_operations;
    processes += outcome.processes;
    simulated += std::chrono::duration<double>(outcome.simulated).count();
    if (options.seeds == 1) std::cout << "trace hash " << std::hex << outcome.trace_hash << std::dec << "\n";
  }
  const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::cout << options.seeds << " seeds from " << options.first << ": " << failed << " failed; " << simulated << " s simulated in " << took
            << " s (" << simulated / took << " per s), " << events << " events, " << processes << " processes, " << faults << " faults, "
            << operations << " operations on keys\n";
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace ray::sim

int main(int argc, char** argv) { return ray::sim::Run(argc, argv); }
