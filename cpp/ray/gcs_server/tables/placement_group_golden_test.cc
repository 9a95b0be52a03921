// Replays tests/scenarios/placement_group. Nodes, groups and actors are numbers below 256, all of job 1; the time goes on by `after`. The events:
//   node N cpus= [zone=]        it joins, or reports its totals    free N cpus=    it reports what is free    die N
//   create G STRATEGY CPUS... [name=] [actor=] [zone] [detached]    remove G    `zone`: all nodes agree in that label
//   prepared G ATTEMPT N [no]    committed G ATTEMPT N [no]
//   job-ends [lives]             `lives`: actors are detached    actor-dies A    after TIME
#include <gtest/gtest.h>

#include <map>
#include <memory>

#include "ray/gcs_server/tables/placement_group_table_core.h"
#include "ray/testing/golden/golden.h"
#include "ray/wire/convert.h"

namespace ray::gcs {
namespace {

using testing::GoldenEvent;

template <typename Id>
Id Named(uint64_t n) {
  Id id;
  for (size_t i = 0; i < Id::kSize; ++i) id.mutable_data()[i] = static_cast<uint8_t>(n);
  return id;
}
template <typename Id>
std::string Name(const Id& id) {
  return std::to_string(id.data()[0]);
}
ResourceSet Cpus(uint64_t n) {
  ResourceSet set;
  set.Set("CPU", static_cast<int64_t>(n) * ResourceSet::kUnit);
  return set;
}

struct Show {
  std::string operator()(const Persist& e) const { return std::string(e.erase ? "erase " : "persist ") + e.table; }
  std::string operator()(const Answer& e) const { return e.status.ok() ? "ok" : "fail: " + e.status.message(); }
  std::string operator()(const Publish& e) const {
    const auto& info = e.notice.placement_group();
    std::string text = "publish " + std::to_string(static_cast<uint8_t>(info.placement_group_id()[0])) + " " +
                       v1::PlacementGroupState_Name(info.state()).substr(sizeof("PLACEMENT_GROUP_STATE_") - 1) + " on";
    for (const auto& bundle : info.bundles())
      text += bundle.node_id().empty() ? " -" : " " + Name(NodeId::FromBinaryOrNil(bundle.node_id()));
    return text;
  }
  std::string operator()(const PrepareOnNode& e) const {
    std::string text = "prepare " + Name(e.group) + "." + std::to_string(e.attempt) + " on " + Name(e.node) + ":";
    for (const auto& [index, need] : e.bundles) text += " " + std::to_string(index);
    return text + (e.commit ? " and commit" : "");
  }
  std::string operator()(const CommitOnNode& e) const {
    return "commit " + Name(e.group) + "." + std::to_string(e.attempt) + " on " + Name(e.node) + ":" + List(e.indices);
  }
  std::string operator()(const ReturnOnNode& e) const {
    return "return " + Name(e.group) + " on " + Name(e.node) + ":" + (e.indices.empty() ? " all" : List(e.indices)) +
           (e.reason.empty() ? "" : " (it is removed)");
  }
  std::string operator()(const TellDriver& e) const { return "tell the driver: " + e.message.substr(e.message.find("waits")); }
  std::string operator()(const StartOnNode&) const { return "?"; }
  std::string operator()(const KillOnNode&) const { return "?"; }
  std::string operator()(const TellJobFinished&) const { return "?"; }
  static std::string List(const std::vector<int32_t>& indices) {
    std::string text;
    for (const int32_t index : indices) text += " " + std::to_string(index);
    return text;
  }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    Effects effects;
    Carry(event, &effects);
    std::vector<std::string> lines;
    for (const Effect& effect : effects) lines.push_back(std::visit(Show(), effect));
    return lines;
  }

 private:
  void Carry(const GoldenEvent& event, Effects* out) {
    const std::string& name = event.name();
    if (name == "node") {
      const ResourceSet total = Cpus(event.Number("cpus", 1));
      scheduling::Labels labels;
      if (const std::string zone = event.Word("zone", ""); !zone.empty()) labels["zone"] = zone;
      view_.Set(Named<NodeId>(event.Number(0)), total, total, labels, ++version_);
      core_.ResourcesChanged(now_, 0, out);
    } else if (name == "free") {
      view_.SetAvailable(Named<NodeId>(event.Number(0)), Cpus(event.Number("cpus", 0)), ++version_);
      core_.ResourcesChanged(now_, 0, out);
    } else if (name == "die") {
      view_.Remove(Named<NodeId>(event.Number(0)));
      core_.NodeDied(Named<NodeId>(event.Number(0)), now_, 0, out);
    } else if (name == "create") {
      core_.Create(Request(event), ++call_, now_, 0, out);
    } else if (name == "remove") {
      core_.Remove(Named<PlacementGroupId>(event.Number(0)), ++call_, now_, out);
    } else if (name == "prepared" || name == "committed") {
      const auto group = Named<PlacementGroupId>(event.Number(0));
      const auto attempt = static_cast<uint32_t>(event.Number(1));
      const auto node = Named<NodeId>(event.Number(2));
      const bool ok = !event.Has("no");
      if (name == "prepared") {
        core_.Prepared(group, attempt, node, ok, now_, 0, out);
      } else {
        core_.Committed(group, attempt, node, ok, now_, 0, out);
      }
    } else if (name == "job-ends") {
      const bool lives = event.Has("lives");
      core_.JobFinished(
          Named<JobId>(1), [lives](const ActorId&) { return lives; }, now_, out);
    } else if (name == "actor-dies") {
      core_.ActorDied(Named<ActorId>(event.Number(0)), now_, out);
    } else if (name == "after") {
      now_ = now_ + event.Span(0);
      core_.Tick(now_, 0, out);
    } else {
      event.Fail("there is no such event");
    }
  }
  v1::CreatePlacementGroupRequest Request(const GoldenEvent& event) {
    v1::CreatePlacementGroupRequest request;
    v1::PlacementGroupInfo* group = request.mutable_group();
    group->set_placement_group_id(Named<PlacementGroupId>(event.Number(0)).Binary());
    group->set_job_id(Named<JobId>(1).Binary());
    v1::PlacementStrategy strategy;
    if (!v1::PlacementStrategy_Parse("PLACEMENT_STRATEGY_" + event.Word(1), &strategy)) event.Fail("there is no such strategy");
    group->set_strategy(strategy);
    group->set_name(event.Word("name", ""));
    if (const uint64_t actor = event.Number("actor", 0); actor != 0) group->set_creator_actor_id(Named<ActorId>(actor).Binary());
    size_t words = event.num_words();
    if (event.Has("zone")) {
      group->set_topology_label("zone");
      --words;
    }
    if (event.Has("detached")) {
      group->set_detached(true);
      --words;
    }
    for (size_t i = 2; i < words; ++i) ToProto(Cpus(event.Number(i)), group->add_bundles()->mutable_resources());
    return request;
  }

  scheduling::ClusterView view_;
  PlacementGroupTableCore core_{{}, &view_};
  Time now_;
  uint64_t version_ = 0;
  CallToken call_ = 0;
};

TEST(PlacementGroupGolden, Scenarios) {
  testing::ReplayGoldens("placement_group",
                         [] { return [replay = std::make_shared<Replay>()](const GoldenEvent& event) { return (*replay)(event); }; });
}

}  // namespace
}  // namespace ray::gcs
