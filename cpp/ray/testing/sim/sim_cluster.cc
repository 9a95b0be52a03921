#include "ray/testing/sim/sim_cluster.h"

#include <algorithm>
#include <iterator>
#include <sstream>
#include <utility>

#include "ray/raylet/nodes/node_directory.h"
#include "ray/util/check.h"
#include "ray/v1/gcs_actor.pb.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/gcs_placement_group.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/method_rules.h"

namespace ray::sim {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr Duration kPatience = seconds(400);  // until everything that waits must have been answered
constexpr Duration kSettle = seconds(90);     // dead nodes are given up, views spread, idle workers leave

// Not of the store: that connection lasts as long as both processes.
std::string AnyMethod(Random* random) {
  for (;;) {
    const auto method = static_cast<MethodId>(random->Below(kMaxMethodId));
    const std::string name(MethodName(method));
    if (RuleOf(method) && !name.starts_with("ObjectStore/")) return name;
  }
}

}  // namespace

ClusterConfig ClusterConfig::FromSeed(uint64_t seed) {
  Random random(seed ^ 0x5eedull);
  ClusterConfig config;
  config.nodes = static_cast<int>(random.Between(1, 5));
  config.drivers = static_cast<int>(random.Between(1, 4));
  config.faults = random.Chance(0.05) ? Duration::zero() : random.Between(Duration(seconds(5)), Duration(seconds(40)));
  config.max_between = random.Between(Duration(milliseconds(500)), Duration(seconds(8)));
  config.driver.active = random.Between(Duration(seconds(5)), Duration(seconds(40)));
  config.driver.max_pause = random.Between(Duration(milliseconds(200)), Duration(milliseconds(2000)));
  // Half of the clusters: as in the runs of the conformance tests under faults (docs/architecture/rpc.md).
  switch (random.Below(8)) {
    case 0: config.messages = "*=-1:5:5:5"; break;
    case 1: config.messages = "*=-1:0:0:duplicate=10:reorder=20"; break;
    case 2: config.messages = "*=-1:0:0:delay=10@10"; break;
    case 3: config.messages = "*=-1:3:3:3:duplicate=5:delay=5@10:reorder=10"; break;
    default: break;
  }
  if (config.faults == Duration::zero() || random.Chance(0.7)) {
    config.messages_to_the_end = random.Chance(0.5);
  } else {
    config.messages += (config.messages.empty() ? "" : ",") + AnyMethod(&random) + "=-1:0:0:break=0.5";
  }
  return config;
}

SimCluster::SimCluster(uint64_t seed, ClusterConfig config, std::ostream* trace)
    : config_(std::move(config)),
      world_(seed),
      random_(world_.random().Fork()),
      fault_times_(random_.Fork()),
      fault_seed_(random_.Next()),
      hosts_(static_cast<size_t>(config_.nodes)) {
  world_.trace().PrintTo(trace);
  if (Happens(kMessageFaults)) {
    auto messages = rpc::FaultConfig::Parse(config_.messages, /*seed=*/0);
    RAY_CHECK(messages.ok()) << messages.status().ToString();
    network_.SetMessageFaults(std::move(*messages));
  }
  for (HostId host = 0; host < hosts_.size(); ++host) {
    hosts_[host].cpus = random_.Between(1, 6);
    const int64_t ppm = random_.Chance(0.1) ? 20'000 : 200;
    world_.SetSkew(host, {random_.Between(Duration(-seconds(3600)), Duration(seconds(3600))), random_.Between(-ppm, ppm)});
  }
}

SimCluster::~SimCluster() = default;

// ---- starting ----

void SimCluster::StartGcs() {
  if (hosts_[0].down) return;  // its host starts it
  gcs::GcsServerOptions options;
  options.health.period = seconds(1);
  if (const Status started = gcs_.Start(std::move(options)); !started.ok()) return Fail("the GCS cannot go on: " + started.ToString());
  gcs_.process()->OnDeath([this](int) {
    world_.After(random_.Between(Duration::zero(), Duration(seconds(4))), [this] {
      if (!gcs_.alive()) StartGcs();
    });
  });
}

void SimCluster::StartRaylet(HostId host) {
  Host& here = hosts_[host];
  if (here.down || RayletLives(host)) return;
  SimRaylet::Options options;
  raylet::RayletConfig& config = options.config;
  const std::string number = std::to_string(host);
  config.node_ip = "10.0.0." + number;
  config.listen = config.node_ip + ":7000";
  config.session_dir = "/session";
  config.node_dir = "/host" + number + "." + std::to_string(++here.incarnations);
  config.gcs_address = kGcsAddress;
  config.python_version = "3.11.7";
  config.is_head = host == 0;
  config.resources.Set("CPU", here.cpus * ResourceSet::kUnit);
  if (config_.slots > 0) config.resources.Set("slot", config_.slots * ResourceSet::kUnit);
  config.pool.max_idle = config_.idle_workers;
  config.pool.prestart = 2;
  config.memory_monitor.interval = Duration::zero();
  options.launcher = config_.launcher;
  options.store = config_.store;
  options.worker = [this](Process* process, const raylet::LaunchRequest& request, const std::string& raylet_address) {
    if (config_.run_worker) return config_.run_worker(&network_, process, request, raylet_address);
    RunFakeWorker(&network_, config_.worker, process, request, raylet_address);
  };
  here.raylet = SimRaylet::Start(&network_, host, std::move(options));
  here.raylet->process()->OnDeath([this, host](int) {
    hosts_[host].raylet = nullptr;
    world_.After(random_.Between(Duration::zero(), Duration(seconds(8))), [this, host] { StartRaylet(host); });
  });
}

void SimCluster::StartLastDriver() {
  const HostId host = AnyHost();
  if (!AllReady()) return Fail("a node or the GCS has gone though nothing was done to it");
  drivers_.push_back(config_.start_last_driver(&network_, host, *hosts_[host].raylet));
  drivers_.back()->process()->OnDeath([this, driver = drivers_.back()](int) { std::erase(drivers_, driver); });
}

void SimCluster::StartDriver(HostId host) {
  if (!RayletLives(host) || !hosts_[host].raylet->ready()) return;
  SimRaylet& raylet = *hosts_[host].raylet;
  drivers_.push_back(config_.start_driver ? config_.start_driver(&network_, host, raylet)
                                          : SimDriver::Start(&network_, host, Address{raylet.node_id(), WorkerId::Nil()}, raylet.address(),
                                                             config_.driver, &history_));
  drivers_.back()->process()->OnDeath([this, driver = drivers_.back()](int) { std::erase(drivers_, driver); });
}

bool SimCluster::AllReady() const {
  if (!gcs_.alive()) return false;
  for (HostId host = 0; host < hosts_.size(); ++host) {
    if (!RayletLives(host) || !hosts_[host].raylet->ready()) return false;
  }
  return true;
}

// ---- a run ----

Outcome SimCluster::Run() {
  StartGcs();
  for (HostId host = 0; host < hosts_.size(); ++host) StartRaylet(host);
  if (!world_.RunUntil([this] { return AllReady(); }, world_.now() + seconds(60))) Fail("the cluster did not get ready");
  failing_ = config_.faults > Duration::zero();
  const Time end = world_.now() + config_.faults;
  for (int i = 0; i < config_.drivers; ++i) {
    world_.After(random_.Between(Duration::zero(), std::max(config_.faults, Duration(seconds(5)))), [this] { StartDriver(); });
  }
  while (failing_ && world_.now() < end) {
    world_.RunFor(fault_times_.Between(Duration::zero(), config_.max_between));
    Fault();
  }
  EndFaults();
  world_.RunFor(seconds(10));  // drivers that were still to come
  const auto quiet = [this] {
    return AllReady() && std::all_of(drivers_.begin(), drivers_.end(), [](const ClusterDriver* d) { return d->holds_only(); });
  };
  if (problem_.empty() && !world_.RunUntil(quiet, world_.now() + kPatience)) {
    Fail(AllReady() ? "these were never answered:" + WhatWaits() : "a node or the GCS did not come back");
  }
  if (problem_.empty()) {
    world_.RunFor(kSettle);
    Look([this](const Listing& listing) {
      CheckAgreement(listing);
      CheckViews(listing);
      CheckHeld(listing);
    });
  }
  if (problem_.empty()) {
    for (ClusterDriver* driver : drivers_) driver->Finish();
    const auto gone = [this] { return drivers_.empty(); };
    if (!world_.RunUntil(gone, world_.now() + kPatience)) Fail("a driver cannot leave");
    if (problem_.empty() && config_.start_last_driver) {
      world_.RunFor(kSettle);
      StartLastDriver();
      if (!world_.RunUntil(gone, world_.now() + kPatience)) Fail("what has outlived its driver cannot be ended:" + WhatWaits());
    }
  }
  if (problem_.empty()) {
    world_.RunFor(kSettle);
    Look([this](const Listing& listing) {
      CheckAgreement(listing);
      CheckViews(listing);
      CheckEmpty(listing);
    });
  }
  if (problem_.empty()) {
    if (const std::string wrong = history_.Check(); !wrong.empty()) Fail(wrong);
  }
  Outcome outcome;
  outcome.problem = problem_;
  outcome.trace_hash = world_.trace().hash();
  outcome.events = world_.events_run();
  outcome.simulated = world_.now() - Time{};
  outcome.faults = faults_;
  outcome.fault_texts = fault_texts_;
  outcome.kv_operations = history_.num_operations();
  outcome.gcs_starts = static_cast<size_t>(gcs_.starts());
  outcome.processes = world_.processes().size();
  outcome.message_faults = network_.num_message_faults();
  return outcome;
}

std::string SimCluster::WhatWaits() const {
  std::string waits;
  for (const ClusterDriver* driver : drivers_) {
    if (config_.waiting) break;  // which has those of drivers, too
    for (const std::string& what : driver->Waiting()) waits += "\n  p" + std::to_string(driver->process()->id()) + ": " + what;
  }
  if (config_.waiting) {
    for (const std::string& what : config_.waiting()) waits += "\n  " + what;
  }
  return waits;
}

// ---- a large one ----

namespace {

constexpr Duration kLook = milliseconds(20);  // between two looks at many nodes

}  // namespace

std::string SimCluster::StartNodes() {
  StartGcs();
  for (HostId host = 0; host < hosts_.size(); ++host) StartRaylet(host);
  const Time deadline = world_.now() + seconds(60);
  while (problem_.empty() && !AllReady() && world_.now() < deadline) world_.RunFor(kLook);
  if (!AllReady()) Fail("the cluster did not get ready");
  return problem_;
}

std::string SimCluster::RunTasks() {
  const auto drivers = static_cast<HostId>(config_.drivers), hosts = static_cast<HostId>(hosts_.size());
  for (HostId i = 0; i < drivers; ++i) StartDriver(i * hosts / drivers);
  const int64_t all = config_.driver.tasks * config_.drivers;
  int64_t done = 0;
  Time progress = world_.now();
  while (problem_.empty() && done < all) {
    world_.RunFor(kLook);
    if (!AllReady() || drivers_.size() != drivers) Fail("a node, the GCS or a driver has gone though nothing was done to it");
    if (const int64_t now_done = tasks_done(); now_done != done) {
      done = now_done;
      progress = world_.now();
    }
    if (world_.now() - progress > kPatience) Fail(std::to_string(all - done) + " tasks are never scheduled");
  }
  return problem_;
}

int64_t SimCluster::tasks_done() const {
  int64_t done = 0;
  for (const ClusterDriver* driver : drivers_) done += driver->tasks_done();
  return done;
}

int64_t SimCluster::leases_asked_for() const {
  int64_t asked = 0;
  for (const ClusterDriver* driver : drivers_) asked += driver->asked();
  return asked;
}

void SimCluster::PrintTail(std::ostream* out) const {
  world_.trace().PrintTail(out);
  *out << "processes:";
  for (const auto& process : world_.processes()) {
    if (process->name() == "worker" && !process->alive()) continue;
    *out << " p" << process->id() << "=" << process->name() << "@" << process->host() << (process->alive() ? "" : "(dead)");
  }
  *out << "\n";
}

}  // namespace ray::sim
