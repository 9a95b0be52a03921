// Runs seeds of the simulated cluster. See ci/scripts/sim.sh and docs/architecture/simulation.md.
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ray/testing/sim/sim_cluster.h"
#include "ray/testing/workload/code_workload.h"
#include "ray/testing/workload/shrink.h"
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
  std::vector<int64_t> only;
  int64_t tries = 200;
};

constexpr size_t kMostFaults = 10'000;  // of one run

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

// One run of a seed, without what is left out of its faults.
class SeedRun {
 public:
  SeedRun(uint64_t seed, const Options& options, const std::set<size_t>& without, std::ostream* trace) : workload_(seed) {
    config_ = options.code ? workload_.Config() : ClusterConfig::FromSeed(seed);
    if (options.nodes > 0) config_.nodes = static_cast<int>(options.nodes);
    config_.without = without;
    cluster_ = std::make_unique<SimCluster>(seed, config_, trace);
    outcome_ = cluster_->Run();
    if (options.code && outcome_.problem.empty()) outcome_.problem = workload_.Check();
  }
  const Outcome& outcome() const { return outcome_; }
  const CodeStats& stats() const { return workload_.stats(); }
  const ClusterConfig& config() const { return config_; }
  const SimCluster& cluster() const { return *cluster_; }

 private:
  CodeWorkload workload_;
  ClusterConfig config_;
  std::unique_ptr<SimCluster> cluster_;
  Outcome outcome_;
};

// What tells one kind of problem from another: its text without the ids and numbers, which may differ.
std::string KindOf(const std::string& problem) {
  static const std::regex kVaries("[0-9a-f]{8,}|[0-9]+");
  return std::regex_replace(problem, kVaries, "#");
}

std::string Joined(size_t last, const std::set<size_t>& without) {
  std::string text;
  for (size_t i = 0; i <= last; ++i) {
    if (!without.contains(i)) text += (text.empty() ? "" : ",") + std::to_string(i);
  }
  return text.empty() ? "-1" : text;
}

// Tells of the failure with as few faults as it takes.
void Explain(uint64_t seed, const Options& options, const Outcome& failed, std::set<size_t> without) {
  size_t tries = 0;
  if (options.only.empty()) {
    without = Shrink(failed.faults, static_cast<size_t>(options.tries), [&](const std::set<size_t>& left_out) {
      ++tries;
      const SeedRun again(seed, options, left_out, nullptr);
      return !again.outcome().problem.empty() && KindOf(again.outcome().problem) == KindOf(failed.problem);
    });
  }
  const SeedRun run(seed, options, without, nullptr);
  const std::string& messages = run.config().messages;
  std::cout << "----- the last events of seed " << seed << ":\n";
  run.cluster().PrintTail(&std::cout);
  std::cout << "----- seed " << seed << " breaks an invariant: " << run.outcome().problem << "\n----- with these faults (of "
            << failed.faults << "; " << tries << " runs to leave others out):\n";
  for (const std::string& fault : run.outcome().fault_texts) std::cout << fault << "\n";
  std::cout << "----- messages fare " << (messages.empty() || without.contains(kMessageFaults) ? "well" : "as in " + messages)
            << (run.config().messages_to_the_end ? ", to the end" : "") << "\n----- to see it again: ci/scripts/sim.sh --seed " << seed
            << (options.code ? " --code" : "") << (options.nodes > 0 ? " --nodes " + std::to_string(options.nodes) : "")
            << (without.empty() ? "" : " --only " + Joined(failed.faults, without)) << " --trace\n"
            << std::flush;
}

// Whether it held.
bool RunSeed(uint64_t seed, const Options& options, Outcome* outcome, CodeStats* stats) {
  std::set<size_t> without;
  if (!options.only.empty()) {
    for (size_t i = 0; i < kMostFaults; ++i) without.insert(i);
    for (const int64_t fault : options.only) without.erase(static_cast<size_t>(fault));
  }
  {
    const SeedRun run(seed, options, without, options.trace ? &std::cout : nullptr);
    *outcome = run.outcome();
    *stats += run.stats();
  }
  if (!outcome->problem.empty()) Explain(seed, options, *outcome, without);
  return outcome->problem.empty();
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
  flags.Add("only",
            "the faults that happen, by number (0: those of single messages), as a failing seed tells them; -1: none; not given: all",
            &options.only);
  flags.Add("tries", "runs of a failing seed to find out which of its faults it takes; 0: none", &options.tries);
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
