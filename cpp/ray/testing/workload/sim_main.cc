// Runs seeds of the simulated cluster. See ci/scripts/sim.sh and docs/architecture/simulation.md.
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <string>
#include <utility>

#include "ray/testing/sim/sim_cluster.h"
#include "ray/testing/workload/code_workload.h"
#include "ray/util/flags.h"
#include "ray/util/logging.h"

namespace ray::sim {
namespace {

struct Options {
  int64_t seeds = 100, first = 1, seed = 0;
  int64_t nodes = 0;
  int64_t tasks = 0, drivers = 10;
  bool code = false;
  bool trace = false;
};

double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

class Stopwatch {
 public:
  double Lap() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(began_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

int64_t PeakMemoryMiB() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

// One thread runs at a time, and hands over to another very often: within one processor that takes a microsecond, between two ten.
void StayOnOneProcessor() {
  const int here = sched_getcpu();
  if (here < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(here, &set);
  sched_setaffinity(0, sizeof set, &set);  // where it cannot it is only slower
}

// One large cluster that schedules many tasks.
bool RunLarge(const Options& options) {
  ClusterConfig config;
  config.nodes = static_cast<int>(options.nodes > 0 ? options.nodes : 1000);
  config.drivers = static_cast<int>(std::clamp<int64_t>(options.drivers, 1, config.nodes));
  config.launcher = {};     // nothing fails
  config.idle_workers = 6;  // as many as a node here has CPUs at most: none leaves, as on nodes that are busy
  config.driver.tasks = options.tasks / config.drivers;
  config.driver.parallel = 1 + config.nodes * int64_t{3} / config.drivers;  // most CPUs are in use at once
  config.driver.max_hold = std::chrono::seconds(2);
  SimCluster cluster(static_cast<uint64_t>(options.seed > 0 ? options.seed : 1), config, options.trace ? &std::cout : nullptr);
  Stopwatch watch;
  std::string problem = cluster.StartNodes();
  const double start_took = watch.Lap(), start_simulated = Seconds(cluster.world()->now() - Time{});
  const int64_t start_memory = PeakMemoryMiB();
  const uint64_t start_events = cluster.world()->events_run();
  if (problem.empty()) problem = cluster.RunTasks();
  const double took = watch.Lap(), simulated = Seconds(cluster.world()->now() - Time{}) - start_simulated;
  const double asked = static_cast<double>(cluster.leases_asked_for());
  std::cout << config.nodes << " nodes: ready after " << start_simulated << " s simulated in " << start_took << " s, " << start_events
            << " events, " << start_memory << " MiB at most\n"
            << cluster.tasks_done() << " tasks: " << simulated << " s simulated in " << took << " s, "
            << cluster.world()->events_run() - start_events << " events, " << asked << " requests for leases ("
            << asked / static_cast<double>(std::max<int64_t>(cluster.tasks_done(), 1)) << " a task, " << asked / took << " a second), "
            << PeakMemoryMiB() << " MiB at most\n";
  if (!problem.empty()) std::cout << "----- " << problem << "\n";
  return problem.empty();
}

// Whether it held.
bool RunSeed(uint64_t seed, const Options& options, Outcome* outcome, CodeStats* stats) {
  CodeWorkload workload(seed);
  ClusterConfig config = options.code ? workload.Config() : ClusterConfig::FromSeed(seed);
  if (options.nodes > 0) config.nodes = static_cast<int>(options.nodes);
  SimCluster cluster(seed, config, options.trace ? &std::cout : nullptr);
  *outcome = cluster.Run();
  if (options.code && outcome->problem.empty()) outcome->problem = workload.Check();
  *stats += workload.stats();
  if (outcome->problem.empty()) return true;
  std::cout << "----- the last events of seed " << seed << ":\n";
  cluster.PrintTail(&std::cout);
  std::cout << "----- seed " << seed << " breaks an invariant: " << outcome->problem << "\n----- messages fare "
            << (config.messages.empty() ? "well" : "as in " + config.messages) << (config.messages_to_the_end ? ", to the end" : "")
            << "\n----- to see it again: ci/scripts/sim.sh --seed " << seed << (options.code ? " --code" : "")
            << (options.nodes > 0 ? " --nodes " + std::to_string(options.nodes) : "") << " --trace\n"
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
  flags.Add("drivers", "that share the tasks of --tasks, each a job of its own", &options.drivers);
  flags.Add("tasks", "instead of seeds: one cluster without faults that schedules so many tasks, with --nodes (1000)", &options.tasks);
  flags.Add("code", "drivers and workers are the product's own and run code (CodeWorkload)", &options.code);
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
  if (options.code) StayOnOneProcessor();
  if (options.tasks > 0) return RunLarge(options) ? 0 : 1;
  if (options.seed != 0) {
    options.first = options.seed;
    options.seeds = 1;
  }
  int64_t failed = 0;
  uint64_t events = 0, faults = 0, message_faults = 0, operations = 0, processes = 0;
  double simulated = 0;
  CodeStats stats;
  const auto began = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < options.seeds; ++i) {
    Outcome outcome;
    if (!RunSeed(static_cast<uint64_t>(options.first + i), options, &outcome, &stats)) ++failed;
    events += outcome.events;
    faults += outcome.faults;
    message_faults += outcome.message_faults;
    operations += outcome.kv_operations;
    processes += outcome.processes;
    simulated += std::chrono::duration<double>(outcome.simulated).count();
    if (options.seeds == 1) std::cout << "trace hash " << std::hex << outcome.trace_hash << std::dec << "\n";
  }
  const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::cout << options.seeds << " seeds from " << options.first << ": " << failed << " failed; " << simulated << " s simulated in " << took
            << " s (" << simulated / took << " per s), " << events << " events, " << processes << " processes, " << faults << " faults, "
            << message_faults << " of single messages, " << operations << " operations on keys\n";
  if (options.code) std::cout << stats << "\n";
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace ray::sim

int main(int argc, char** argv) { return ray::sim::Run(argc, argv); }
