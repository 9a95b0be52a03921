// Decisions per second of the placement policies on clusters of 10 to 10,000 nodes, each half full. The rate is by processor time: other load changes it little.
//
//   policies_bench [--benchmark_filter=PACK] [--benchmark_format=csv]
#include <benchmark/benchmark.h>

#include <map>

#include "ray/scheduling/bundle_policy.h"
#include "ray/scheduling/policies.h"

namespace ray::scheduling {
namespace {

ResourceSet Set(const std::map<std::string, double>& amounts) { return *ResourceSet::FromDoubles(amounts); }

// One in ten nodes has GPUs. As many choices are held at a time as there are nodes: each is taken from the view, and given back a while later, as leases come and go.
class Cluster {
 public:
  explicit Cluster(size_t nodes) {
    for (size_t i = 0; i < nodes; ++i) {
      const NodeId id = NodeId::FromRandom();
      ids_.push_back(id);
      std::map<std::string, double> total{
          {"CPU", 16}, {"memory", 64}, {"object_store_memory", 20}, {"node:10.0.0." + std::to_string(i), 1}};
      if (i % 10 == 0) total["GPU"] = 8;
      auto available = total;
      available["CPU"] = static_cast<double>(random_.Below(17));
      view_.Set(id, Set(total), Set(available), {{"zone", std::to_string(i % 7)}, {"name", std::to_string(i)}}, 1);
    }
  }

  // `request` must outlive the cluster.
  void Decide(const PlacementRequest& request) {
    const Placement p = policy_.Choose(request, AnyNode());
    if (p.kind == Placement::kNode || p.kind == Placement::kBind) {
      view_.Take(p.node, request.need);
      placed_.emplace_back(p.node, &request.need);
    }
    if (placed_.size() <= ids_.size()) return;
    std::swap(placed_[random_.Below(placed_.size())], placed_.back());
    view_.GiveBack(placed_.back().first, *placed_.back().second);
    placed_.pop_back();
  }
  void Plan(const BundlePlanRequest& request) {
    BundlePlan plan = PlanBundles(request, &view_);
    for (size_t i = 0; i < plan.nodes.size(); ++i) view_.Take(plan.nodes[i], request.bundles[i].need);
    groups_.push_back(std::move(plan.nodes));
    if (groups_.size() <= ids_.size() / 4) return;
    std::swap(groups_[random_.Below(groups_.size())], groups_.back());
    for (size_t i = 0; i < groups_.back().size(); ++i) view_.GiveBack(groups_.back()[i], request.bundles[i].need);
    groups_.pop_back();
  }
  const NodeId& AnyNode() { return ids_[random_.Below(ids_.size())]; }

 private:
  ClusterView view_{7};
  PlacementPolicy policy_{{}, &view_};
  SplitMix random_{3};
  std::vector<NodeId> ids_;
  std::vector<std::pair<NodeId, const ResourceSet*>> placed_;
  std::vector<std::vector<NodeId>> groups_;  // of one request each
};

void Sizes(benchmark::internal::Benchmark* bench) { bench->RangeMultiplier(10)->Range(10, 10000)->ArgName("nodes"); }

// `decide` outlives the cluster, and with it the requests that it holds.
template <typename F>
void Measure(benchmark::State& state, const F& decide) {
  Cluster cluster(static_cast<size_t>(state.range(0)));
  for (auto _ : state) decide(&cluster);
  state.SetItemsProcessed(state.iterations());
}

PlacementRequest Needing(const std::map<std::string, double>& need, Strategy strategy = Strategy::kDefault) {
  PlacementRequest request;
  request.need = Set(need);
  request.strategy = strategy;
  return request;
}

void Default(benchmark::State& state) {
  Measure(state, [request = Needing({{"CPU", 1}})](Cluster* cluster) { cluster->Decide(request); });
}
BENCHMARK(Default)->Apply(Sizes);

void Spread(benchmark::State& state) {
  Measure(state, [request = Needing({{"CPU", 1}}, Strategy::kSpread)](Cluster* cluster) { cluster->Decide(request); });
}
BENCHMARK(Spread)->Apply(Sizes)->Arg(64);

void OneGpu(benchmark::State& state) {
  Measure(state, [request = Needing({{"CPU", 1}, {"GPU", 1}})](Cluster* cluster) { cluster->Decide(request); });
}
BENCHMARK(OneGpu)->Apply(Sizes);

void Labels(benchmark::State& state) {
  auto request = Needing({{"CPU", 1}});
  request.selectors.emplace_back(std::map<std::string, std::string>{{"zone", "in(3,5)"}, {"name", "!1"}});
  Measure(state, [request](Cluster* cluster) { cluster->Decide(request); });
}
BENCHMARK(Labels)->Apply(Sizes);

void Affinity(benchmark::State& state) {
  auto request = Needing({{"CPU", 1}}, Strategy::kNodeAffinity);
  request.soft = request.spill_on_unavailable = true;
  Measure(state, [&request](Cluster* cluster) {
    request.affinity_node = cluster->AnyNode();
    cluster->Decide(request);
  });
}
BENCHMARK(Affinity)->Apply(Sizes);

void Infeasible(benchmark::State& state) {
  Measure(state, [request = Needing({{"CPU", 100}})](Cluster* cluster) { cluster->Decide(request); });
}
BENCHMARK(Infeasible)->Apply(Sizes);

void InTurn(benchmark::State& state, size_t count, double cpus, double step) {
  std::vector<PlacementRequest> requests;
  for (size_t i = 0; i < count; ++i) {
    auto& request = requests.emplace_back();
    request.need.Set("CPU", static_cast<int64_t>((cpus + static_cast<double>(i) * step) * ResourceSet::kUnit));
  }
  size_t next = 0;
  Measure(state, [&](Cluster* cluster) { cluster->Decide(requests[++next % requests.size()]); });
}
BENCHMARK_CAPTURE(InTurn, twenty_kinds, 20, 0.5, 0.05)->Apply(Sizes);
// No two are alike: nothing that was learnt of one serves the next. Small ones fit at many nodes, large ones hardly anywhere.
BENCHMARK_CAPTURE(InTurn, each_another, 10000, 0.5, 0.0001)->Apply(Sizes);
BENCHMARK_CAPTURE(InTurn, each_another_large, 10000, 10, 0.0001)->Apply(Sizes);

void Bundles(benchmark::State& state, BundleStrategy strategy, double cpus) {
  BundlePlanRequest request;
  request.strategy = strategy;
  request.bundles.assign(4, {Set({{"CPU", cpus}}), {}});
  Measure(state, [request](Cluster* cluster) { cluster->Plan(request); });
}
BENCHMARK_CAPTURE(Bundles, PACK, BundleStrategy::kPack, 1)->Apply(Sizes);
BENCHMARK_CAPTURE(Bundles, PACK_on_several, BundleStrategy::kPack, 7)->Apply(Sizes);
BENCHMARK_CAPTURE(Bundles, STRICT_PACK, BundleStrategy::kStrictPack, 1)->Apply(Sizes);
BENCHMARK_CAPTURE(Bundles, SPREAD, BundleStrategy::kSpread, 1)->Apply(Sizes);
BENCHMARK_CAPTURE(Bundles, STRICT_SPREAD, BundleStrategy::kStrictSpread, 1)->Apply(Sizes);

}  // namespace
}  // namespace ray::scheduling

BENCHMARK_MAIN();
