// A thousand nodes and a hundred thousand leases: the raylets' lease queues, views and policies, with reports that lag and messages that take their time, on
// a clock of the test's own. What workers, sockets and the GCS do is left out; its part in spreading reports is played by the test.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <memory>
#include <queue>

#include "ray/scheduling/lease_queue_core.h"
#include "ray/scheduling/test_nodes.h"

namespace ray::scheduling {
namespace {

using std::chrono::milliseconds;

template <typename Id>
Id Numbered(uint32_t n) {
  Id id;
  for (size_t i = 0; i < Id::kSize; ++i) id.mutable_data()[i] = static_cast<uint8_t>(i < 4 ? n >> (24 - 8 * i) : 0);
  return id;
}

struct Size {
  uint32_t nodes;
  uint32_t leases;
  uint32_t homes;  // raylets that owners ask; only these have a view of the others, since no other decides anything
};

class Simulation {
 public:
  static constexpr Duration kLatency = milliseconds(1);
  static constexpr Duration kReports = milliseconds(100);
  static constexpr double kCpus = 16;

  explicit Simulation(const Size& size) : size_(size), leases_(size.leases), nodes_(size.nodes) {
    for (uint32_t i = 0; i < size.nodes; ++i) {
      Node& node = nodes_[i];
      LeaseQueueConfig config;
      config.node = N(i);
      config.seed = i;
      config.labels = LabelsOf(i);
      node.total = Set({{"CPU", kCpus}, {"memory", 64}, {"node:10.0." + std::to_string(i / 256) + "." + std::to_string(i % 256), 1}});
      if (HasGpus(i)) node.total.Add(Set({{"GPU", 8}}));
      node.core = std::make_unique<LeaseQueueCore>(config, NodeResources(node.total));
    }
    Report();
    for (uint32_t i = 0; i < size.leases; ++i) At(now_ + milliseconds(i / (size.leases / 1000 + 1)), {Event::kAsk, i, HomeOf(i)});
  }

  void Run() {
    while (ended_ < size_.leases) {
      ASSERT_FALSE(events_.empty()) << size_.leases - ended_ << " leases are lost";
      const auto [at, number, event] = events_.top();
      events_.pop();
      now_ = at;
      switch (event.kind) {
        case Event::kAsk: Ask(event); break;
        case Event::kEnd: {
          LeaseEffects out;
          nodes_[event.node].core->Return(Numbered<LeaseId>(event.lease), now_, &out);
          ++ended_;
          Changed(event.node);
          Follow(event.node, out);
          break;
        }
        case Event::kReport: Report(); break;
        case Event::kTick: {
          nodes_[event.node].tick_at = Time::Infinite();
          LeaseEffects out;
          nodes_[event.node].core->Tick(now_, &out);
          Follow(event.node, out);
        }
      }
    }
  }

  void Check() {
    for (const Lease& lease : leases_) ASSERT_EQ(lease.grants, 1);
    for (const Node& node : nodes_) {
      EXPECT_EQ(node.core->num_queued(), 0u);
      EXPECT_EQ(node.core->num_granted(), 0u);
      EXPECT_EQ(node.core->resources().available(), node.total);
    }
  }
  double Seconds() const { return static_cast<double>(now_.ns) / 1e9; }
  // If no CPU were ever idle.
  double LeastSeconds() const { return work_ / (kCpus * size_.nodes); }
  uint32_t most_hops() const { return most_hops_; }
  double mean_hops() const { return static_cast<double>(hops_) / size_.leases; }
  size_t most_spread() const {
    return Extreme([](size_t a, size_t b) { return a > b; });
  }
  size_t least_spread() const {
    return Extreme([](size_t a, size_t b) { return a < b; });
  }

 private:
  struct Event {
    enum Kind { kAsk, kEnd, kReport, kTick } kind;
    uint32_t lease = 0, node = 0;
    LeaseMode mode = LeaseMode::kDecide;
  };
  struct Later {
    bool operator()(const std::tuple<Time, uint64_t, Event>& a, const std::tuple<Time, uint64_t, Event>& b) const {
      return std::tie(std::get<0>(a), std::get<1>(a)) > std::tie(std::get<0>(b), std::get<1>(b));
    }
  };
  struct Lease {
    std::vector<NodeId> rejected_by;
    int grants = 0;
    uint32_t hops = 0;
  };
  struct Node {
    std::unique_ptr<LeaseQueueCore> core;
    ResourceSet total;
    uint64_t version = 1;
    bool changed = true;
    size_t spread = 0;  // leases of SPREAD that it had
    Time tick_at = Time::Infinite();
  };

  static bool HasGpus(uint32_t node) { return node % 10 == 0; }
  static Labels LabelsOf(uint32_t node) { return {{"zone", std::to_string(node % 7)}}; }
  uint32_t HomeOf(uint32_t lease) const { return lease % size_.homes * (size_.nodes / size_.homes); }
  static bool IsSpread(uint32_t lease) { return lease % 10 == 3; }

  LeaseRequest RequestOf(uint32_t lease) const {
    LeaseRequest request;
    request.lease = Numbered<LeaseId>(lease);
    request.job = JobId::FromInt(1 + lease % 5);
    request.owner = Numbered<WorkerId>(HomeOf(lease));
    request.where.need = Set({{"CPU", lease % 4 == 0 ? 2.0 : 1.0}});
    if (IsSpread(lease)) {
      request.where.need = Set({{"CPU", 1}});
      request.where.strategy = Strategy::kSpread;
    } else if (lease % 20 == 5) {
      request.where.need = Set({{"CPU", 1}, {"GPU", 1}});
    } else if (lease % 20 == 6) {
      request.where.selectors.emplace_back(std::map<std::string, std::string>{{"zone", std::to_string(lease / 20 % 7)}});
    }
    request.priority = static_cast<int32_t>(lease % 3);
    return request;
  }

  void At(Time when, Event event) { events_.emplace(when, next_event_++, event); }
  void Ask(const Event& event) {
    LeaseRequest request = RequestOf(event.lease);
    request.mode = event.mode;
    if (event.mode == LeaseMode::kDecide) request.rejected_by = leases_[event.lease].rejected_by;
    if (event.mode != LeaseMode::kDecide) Changed(event.node);  // it was counted on: a report puts that right
    LeaseEffects out;
    nodes_[event.node].core->Request(std::move(request), now_, &out);
    Follow(event.node, out);
  }
  void Follow(uint32_t at, const LeaseEffects& effects) {
    for (const auto& effect : effects) {
      if (const auto* granted = std::get_if<LeaseGranted>(&effect)) {
        const uint32_t lease = NumberOf(granted->request.lease);
        ++leases_[lease].grants;
        if (IsSpread(lease)) ++nodes_[at].spread;
        Changed(at);
        const Duration run = milliseconds(500 + lease * 7919 % 1000);
        work_ += static_cast<double>(granted->request.where.need.Get("CPU")) / ResourceSet::kUnit * static_cast<double>(run.count()) / 1e9;
        At(now_ + run, {Event::kEnd, lease, at});
      } else if (const auto* spilled = std::get_if<LeaseSpilled>(&effect)) {
        Lease& lease = leases_[NumberOf(spilled->lease)];
        most_hops_ = std::max(most_hops_, ++lease.hops);
        ++hops_;
        At(now_ + kLatency, {Event::kAsk, NumberOf(spilled->lease), Number(spilled->node), spilled->mode});
      } else if (const auto* rejected = std::get_if<LeaseRejected>(&effect)) {
        Lease& lease = leases_[NumberOf(rejected->lease)];
        std::erase(lease.rejected_by, N(at));
        lease.rejected_by.push_back(N(at));
        At(now_ + kLatency, {Event::kAsk, NumberOf(rejected->lease), HomeOf(NumberOf(rejected->lease))});
      } else {
        EXPECT_TRUE(std::holds_alternative<ReclaimWanted>(effect));
      }
    }
    Node& node = nodes_[at];
    const Time next = node.core->NextDeadline();
    if (next >= node.tick_at) return;
    node.tick_at = next;
    At(next, {Event::kTick, 0, at});
  }
  void Changed(uint32_t node) { nodes_[node].changed = true; }
  // To all who decide, at once.
  void Report() {
    for (uint32_t home = 0; home < size_.nodes; home += size_.nodes / size_.homes) {
      ClusterView* view = nodes_[home].core->view();
      for (uint32_t i = 0; i < size_.nodes; ++i) {
        if (i == home || !nodes_[i].changed) continue;
        if (nodes_[i].version == 1) {
          view->Set(N(i), nodes_[i].total, nodes_[i].core->resources().available(), LabelsOf(i), 1);
        } else {
          view->SetAvailable(N(i), nodes_[i].core->resources().available(), nodes_[i].version);
        }
      }
    }
    for (Node& node : nodes_) {
      if (std::exchange(node.changed, false)) ++node.version;
    }
    for (uint32_t home = 0; home < size_.nodes; home += size_.nodes / size_.homes) {
      LeaseEffects out;
      nodes_[home].core->ViewChanged(now_, &out);
      Follow(home, out);
    }
    At(now_ + kReports, {Event::kReport});
  }
  static uint32_t NumberOf(const LeaseId& id) {
    return static_cast<uint32_t>(id.data()[0]) << 24 | static_cast<uint32_t>(id.data()[1]) << 16 |
           static_cast<uint32_t>(id.data()[2]) << 8 | id.data()[3];
  }
  template <typename Better>
  size_t Extreme(Better better) const {
    size_t best = nodes_[0].spread;
    for (const Node& node : nodes_) best = better(node.spread, best) ? node.spread : best;
    return best;
  }

  const Size size_;
  std::vector<Lease> leases_;
  std::vector<Node> nodes_;
  std::priority_queue<std::tuple<Time, uint64_t, Event>, std::vector<std::tuple<Time, uint64_t, Event>>, Later> events_;
  uint64_t next_event_ = 0;
  Time now_{0};
  size_t ended_ = 0;
  double work_ = 0;
  uint32_t most_hops_ = 0;
  uint64_t hops_ = 0;
};

class ManyNodes : public testing::TestWithParam<Size> {};

TEST_P(ManyNodes, EachLeaseIsGrantedOnceAndTheNodesAreBusy) {
  const Size size = GetParam();
  const std::clock_t begin = std::clock();  // of the processor: other load does not count
  Simulation simulation(size);
  simulation.Run();
  const double took = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  simulation.Check();
  std::printf(
      "%u nodes, %u leases: %.1f s (no CPU idle: %.1f s), %.2f hops on average, %u at most; SPREAD %zu to %zu a node; took %.2f s, %.0f "
      "leases/s\n",
      size.nodes, size.leases, simulation.Seconds(), simulation.LeastSeconds(), simulation.mean_hops(), simulation.most_hops(),
      simulation.least_spread(), simulation.most_spread(), took, size.leases / took);
  EXPECT_LT(simulation.mean_hops(), 4);
  EXPECT_LT(simulation.Seconds(), 2 * simulation.LeastSeconds() + 5);
}

INSTANTIATE_TEST_SUITE_P(Sizes, ManyNodes,
                         testing::Values(Size{10, 1000, 10}, Size{100, 10000, 5}, Size{1000, 100000, 5}, Size{1000, 100000, 20}),
                         [](const auto& size) {
                           return "Nodes" + std::to_string(size.param.nodes) + "Deciders" + std::to_string(size.param.homes);
                         });

}  // namespace
}  // namespace ray::scheduling
