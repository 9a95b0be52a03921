#include "ray/raylet/drain/node_drain.h"

#include <utility>

#include "ray/common/resources.h"
#include "ray/raylet/leases/lease_service.h"
#include "ray/raylet/nodes/node_directory.h"
#include "ray/raylet/resource_reports.h"
#include "ray/raylet/workers/worker_service.h"
#include "ray/util/flags.h"
#include "ray/util/logging.h"

namespace ray::raylet {

NodeDrain::NodeDrain(Deps deps) : deps_(std::move(deps)), evacuation_(EvacuationDeps()) {}

Evacuation::Deps NodeDrain::EvacuationDeps() {
  Evacuation::Deps evacuate;
  evacuate.loop = deps_.loop;
  evacuate.self = deps_.node_id;
  evacuate.objects = deps_.objects;
  evacuate.targets = [this] { return Targets(); };
  evacuate.leaving = [this] { return Leaving(); };
  evacuate.is_local_driver = [this](const WorkerId& process) { return deps_.workers->IsDriver(process); };
  evacuate.link = [this](const NodeId& node) { return deps_.nodes->Link(node); };
  evacuate.connect = deps_.connect;
  return evacuate;
}

std::vector<Evacuation::Target> NodeDrain::Targets() const {
  std::vector<Evacuation::Target> targets;
  deps_.leases->view().ForEach([&](const scheduling::ClusterView::Node& node) {
    if (node.id == deps_.node_id || node.draining) return;
    const auto* store = node.Find(kStoreMemory);
    if (store != nullptr) targets.push_back({node.id, static_cast<uint64_t>(store->free / ResourceSet::kUnit)});
  });
  return targets;
}

std::vector<NodeId> NodeDrain::Leaving() const {
  std::vector<NodeId> leaving;
  deps_.leases->view().ForEach([&](const scheduling::ClusterView::Node& node) {
    if (node.id != deps_.node_id && node.draining && node.Find(kStoreMemory) != nullptr) leaving.push_back(node.id);
  });
  return leaving;
}

void NodeDrain::Begin(const std::string& reason, Duration deadline) {
  CountWork();
  RAY_LOG(INFO) << "draining (" << reason << "), for at most " << FormatDuration(deadline);
  DrainEffects effects;
  core_.Begin(reason, deadline, deps_.loop->clock().Now(), &effects);
  Run(effects);
}

void NodeDrain::BeginIfIdle(const std::string& reason, Duration deadline, std::function<void(const Status&)> answer) {
  deps_.objects->ListPrimary([this, alive = alive_, loop = deps_.loop, reason, deadline, answer = std::move(answer)](auto copies) {
    loop->Post("raylet.drain", [this, alive, reason, deadline, answer, objects = copies.size()] {
      if (!*alive) return;
      // All of it is looked at in one step, and so is the end of grants: nothing can begin in between.
      CountWork();
      DrainEffects effects;
      const NodeLoad load{deps_.leases->num_held(), deps_.workers->num_drivers(), objects};
      const std::string has = core_.BeginIfIdle(reason, deadline, load, deps_.loop->clock().Now(), &effects);
      if (!has.empty()) return answer(Status::FailedPrecondition("node " + deps_.node_id.Hex() + " is not idle: it has " + has));
      RAY_LOG(INFO) << "idle, and draining (" << reason << ")";
      Run(effects);
      answer(Status::Ok());
    });
  });
}

void NodeDrain::OnWork() {
  if (draining()) CountWork();
}

void NodeDrain::OnWorkSoon() {
  if (draining()) deps_.loop->Post("raylet.drain", [this] { CountWork(); });
}

void NodeDrain::Stop() {
  if (timer_ != 0) deps_.loop->CancelTimer(std::exchange(timer_, 0));
}

void NodeDrain::CountWork() {
  DrainEffects effects;
  core_.OnWork(deps_.leases->num_held(), deps_.workers->num_workers(), &effects);
  Run(effects);
}

void NodeDrain::Run(const DrainEffects& effects) {
  for (const DrainEffect& effect : effects) {
    if (std::holds_alternative<StopGrants>(effect)) {
      deps_.leases->StopGrants();
    } else if (const auto* tell = std::get_if<TellGcsDraining>(&effect)) {
      deps_.tell_gcs(tell->reason, tell->left);
    } else if (std::holds_alternative<LetWorkersFinish>(effect)) {
      deps_.leases->LetWorkersFinish("the node is draining");
    } else if (std::holds_alternative<LetWorkersGo>(effect)) {
      deps_.workers->AskAllExit("the node is draining");
    } else if (std::holds_alternative<SaveObjects>(effect)) {
      evacuation_.Run([this](size_t left) {
        DrainEffects saved;
        core_.OnSaved(left, deps_.loop->clock().Now(), &saved);
        Run(saved);
      });
    } else if (const auto* leave = std::get_if<LeaveNode>(&effect)) {
      // Not from within what ended the last lease.
      deps_.loop->Post("raylet.drained", [this, reason = leave->reason] { deps_.leave(reason); });
    }
  }
  Stop();
  if (core_.NextDeadline().is_infinite()) return;
  timer_ = deps_.loop->AddTimer(core_.NextDeadline() - deps_.loop->clock().Now(), [this] {
    timer_ = 0;
    DrainEffects due;
    core_.Tick(deps_.loop->clock().Now(), &due);
    Run(due);
  });
}

}  // namespace ray::raylet
