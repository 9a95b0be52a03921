// Replays tests/scenarios/lease_queue. Leases, jobs and owners are numbers; owner 0 is the GCS. The time goes on by `after`. The events:
//   node cpu= gpu= label=KEY:VALUE     the first
//   request LEASE job= owner= cpu= gpu= depth= on=NODE [soft] group= bundle= label=KEY:VALUE or=KEY:VALUE [other-places]
//   bundle GROUP INDEX cpu=    group-gone GROUP    why LEASE    cancel LEASE    return LEASE    shrink LEASE cpu=    block LEASE
//   unblock LEASE    owner-died OWNER    job-finished JOB keep=OWNER    stop-grants    after TIME (and tick)    free
// cpu and gpu are in percent of one.
#include <gtest/gtest.h>

#include <memory>
#include <sstream>

#include "ray/scheduling/lease_queue_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::scheduling {
namespace {

using testing::GoldenEvent;

template <typename Id>
Id No(uint64_t n) {
  return n == 0 ? Id::Nil() : Id::FromBinaryOrNil(std::string(Id::kSize, static_cast<char>(n)));
}
template <typename Id>
int NumberOf(const Id& id) {
  return id.IsNil() ? 0 : id.data()[0];
}

ResourceSet Amounts(const GoldenEvent& event) {
  ResourceSet set;
  if (const uint64_t cpu = event.Number("cpu", 0); cpu > 0) set.Set("CPU", static_cast<int64_t>(cpu) * ResourceSet::kUnit / 100);
  if (const uint64_t gpu = event.Number("gpu", 0); gpu > 0) set.Set("GPU", static_cast<int64_t>(gpu) * ResourceSet::kUnit / 100);
  return set;
}

struct Show {
  std::ostringstream& os;
  void operator()(const LeaseGranted& e) {
    os << "grant " << NumberOf(e.request.lease);
    for (const InstanceShares& held : e.instances) {
      for (const auto& [index, amount] : held.shares) os << " " << held.resource << index << ":" << amount * 100 / ResourceSet::kUnit;
    }
  }
  void operator()(const LeaseSpilled& e) { os << "spill " << NumberOf(e.lease) << " to node " << NumberOf(e.node); }
  void operator()(const LeaseRefused& e) { os << "refuse " << NumberOf(e.lease); }
  void operator()(const LeaseRejected& e) {
    os << "reject " << NumberOf(e.lease) << (e.bundle_gone ? ", its bundle is gone" : e.labels_differ ? ", other labels" : "");
  }
  void operator()(const LeaseCancelled& e) { os << "cancelled " << NumberOf(e.lease); }
  void operator()(const LeaseRevoked& e) { os << "revoke " << NumberOf(e.lease); }
  void operator()(const InfeasibleNotice& e) { os << "tell the driver of job " << e.job.ToInt() << " that it waits in vain"; }
  void operator()(const ReclaimWanted& e) {
    os << "reclaim from";
    for (const WorkerId& owner : e.owners) os << " " << NumberOf(owner);
    for (const auto& [owner, lease] : e.yield) os << ", and " << NumberOf(lease) << " from " << NumberOf(owner);
  }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    if (event.name() == "node") {
      core_ = std::make_shared<LeaseQueueCore>(LeaseQueueConfig{.node = No<NodeId>(1), .labels = event.Label("label")},
                                               NodeResources(Amounts(event)));
      return {};
    }
    if (core_ == nullptr) {
      event.Fail("the first event must be 'node'");
      return {};
    }
    std::vector<std::string> lines;
    LeaseEffects effects;
    Carry(event, &effects, &lines);
    for (std::string& line : testing::EffectLines<Show>(effects)) lines.push_back(std::move(line));
    return lines;
  }

 private:
  void Carry(const GoldenEvent& event, LeaseEffects* out, std::vector<std::string>* lines) {
    const std::string& name = event.name();
    if (name == "request") {
      LeaseRequest request;
      request.lease = No<LeaseId>(event.Number(0));
      request.job = JobId::FromInt(static_cast<uint32_t>(event.Number("job", 1)));
      request.owner = No<WorkerId>(event.Number("owner", 1));
      request.where.need = Amounts(event);
      request.depth = static_cast<int64_t>(event.Number("depth", 0));
      if (const uint64_t node = event.Number("on", 0); node > 0) {
        request.where.strategy = Strategy::kNodeAffinity;
        request.where.affinity_node = No<NodeId>(node);
        request.where.soft = event.Has("soft");
      }
      if (const uint64_t group = event.Number("group", 0); group > 0) {
        request.bundle = {No<PlacementGroupId>(group), std::stoi(event.Word("bundle", "-1"))};
      }
      for (const char* alternative : {"label", "or"}) {
        if (const auto label = event.Label(alternative); !label.empty()) request.where.selectors.emplace_back(label);
      }
      request.other_places = event.Has("other-places");
      if (!core_->Request(request, now_, out)) lines->push_back("known already");
    } else if (name == "bundle") {
      core_->PrepareBundles(No<PlacementGroupId>(event.Number(0)), 1, {{static_cast<int32_t>(event.Number(1)), Amounts(event)}},
                            /*commit=*/true, now_, out);
    } else if (name == "group-gone") {
      core_->ReturnBundles(No<PlacementGroupId>(event.Number(0)), 0, {}, "it was removed", now_, out);
    } else if (name == "why") {
      const auto standing = core_->StandingOf(No<LeaseId>(event.Number(0)));
      lines->push_back(standing ? standing->why : "it does not wait");
    } else if (name == "cancel") {
      core_->Cancel(No<LeaseId>(event.Number(0)), now_, out);
    } else if (name == "return") {
      core_->Return(No<LeaseId>(event.Number(0)), now_, out);
    } else if (name == "shrink") {
      core_->Shrink(No<LeaseId>(event.Number(0)), Amounts(event), now_, out);
    } else if (name == "block") {
      core_->Block(No<LeaseId>(event.Number(0)), now_, out);
    } else if (name == "unblock") {
      core_->Unblock(No<LeaseId>(event.Number(0)));
    } else if (name == "owner-died") {
      core_->OwnerDied(No<WorkerId>(event.Number(0)), now_, out);
    } else if (name == "job-finished") {
      const WorkerId kept = No<WorkerId>(event.Number("keep", 0));
      core_->JobFinished(
          JobId::FromInt(static_cast<uint32_t>(event.Number(0))), [&](const WorkerId& owner) { return !kept.IsNil() && owner == kept; },
          now_, out);
    } else if (name == "stop-grants") {
      core_->StopGrants(now_, out);
    } else if (name == "after") {
      now_ = now_ + event.Span(0);
      core_->Tick(now_, out);
    } else if (name == "free") {
      const ResourceSet& free = core_->resources().available();
      lines->push_back("cpu " + std::to_string(free.Get("CPU") * 100 / ResourceSet::kUnit) + " gpu " +
                       std::to_string(free.Get("GPU") * 100 / ResourceSet::kUnit));
    } else {
      event.Fail("no such event: " + name);
    }
  }

  std::shared_ptr<LeaseQueueCore> core_;
  Time now_{1'000'000'000};
};

TEST(LeaseQueueGolden, Scenarios) {
  testing::ReplayGoldens("lease_queue", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::scheduling
