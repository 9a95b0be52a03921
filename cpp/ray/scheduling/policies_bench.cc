// Decisions per second of the placement policies on clusters of 10 to 10,000 nodes, each half full. Seconds are those of the processor: other load changes them little.
#include <cstdio>
#include <ctime>
#include <map>

#include "ray/scheduling/bundle_policy.h"
#include "ray/scheduling/policies.h"

namespace ray::scheduling {
namespace {

ResourceSet Set(const std::map<std::string, double>& amounts) { return *ResourceSet::FromDoubles(amounts); }

void Fill(ClusterView* view, size_t nodes, std::vector<NodeId>* ids) {
  SplitMix random(1);
  for (size_t i = 0; i < nodes; ++i) {
    const NodeId id = NodeId::FromRandom();
    ids->push_back(id);
    std::map<std::string, double> total{{"CPU", 16}, {"memory", 64}, {"object_store_memory", 20}};
    if (i % 10 == 0) total["GPU"] = 8;
    auto available = total;
    available["CPU"] = static_cast<double>(random.Below(17));
    view->Set(id, Set(total), Set(available), {{"zone", std::to_string(i % 7)}, {"name", std::to_string(i)}}, 1);
  }
}

// Each choice is taken from the view and given back a while later, as leases come and go.
template <typename F>
double PerSecond(F decide) {
  const std::clock_t begin = std::clock();
  size_t done = 0;
  double seconds = 0;
  do {
    for (int i = 0; i < 200; ++i) decide();
    done += 200;
    seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  } while (seconds < 0.3);
  return static_cast<double>(done) / seconds;
}

void Run(size_t nodes) {
  ClusterView view(7);
  std::vector<NodeId> ids;
  Fill(&view, nodes, &ids);
  PlacementPolicy policy({}, &view);
  SplitMix random(3);
  std::vector<std::pair<NodeId, ResourceSet>> placed;
  auto decide = [&](const PlacementRequest& request) {
    const Placement p = policy.Choose(request, ids[random.Below(ids.size())]);
    if (p.kind == Placement::kNode || p.kind == Placement::kBind) {
      view.Take(p.node, request.need);
      placed.emplace_back(p.node, request.need);
    }
    if (placed.size() > ids.size()) {
      const size_t i = random.Below(placed.size());
      view.GiveBack(placed[i].first, placed[i].second);
      placed[i] = std::move(placed.back());
      placed.pop_back();
    }
  };
  PlacementRequest cpu, spread, gpu, label, never;
  cpu.need = spread.need = label.need = Set({{"CPU", 1}});
  spread.strategy = Strategy::kSpread;
  gpu.need = Set({{"CPU", 1}, {"GPU", 1}});
  label.selectors.emplace_back(std::map<std::string, std::string>{{"zone", "3"}});
  never.need = Set({{"CPU", 100}});
  BundlePlanRequest pack, strict_spread;
  pack.bundles.assign(4, {Set({{"CPU", 2}}), {}});
  strict_spread.bundles.assign(4, {Set({{"CPU", 1}}), {}});
  strict_spread.strategy = BundleStrategy::kStrictSpread;
  std::printf(
      "%6zu nodes: default %8.0f/s, spread %8.0f/s, GPU %8.0f/s, label %8.0f/s, infeasible %8.0f/s, PACK of 4 %7.0f/s, STRICT_SPREAD of 4 "
      "%7.0f/s\n",
      nodes, PerSecond([&] { decide(cpu); }), PerSecond([&] { decide(spread); }), PerSecond([&] { decide(gpu); }),
      PerSecond([&] { decide(label); }), PerSecond([&] { decide(never); }), PerSecond([&] { PlanBundles(pack, &view); }),
      PerSecond([&] { PlanBundles(strict_spread, &view); }));
}

}  // namespace
}  // namespace ray::scheduling

int main() {
  for (const size_t nodes : {10, 100, 1000, 10000}) ray::scheduling::Run(nodes);
}
