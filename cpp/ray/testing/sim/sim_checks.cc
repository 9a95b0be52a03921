// What must hold in a cluster that nothing disturbs any more.
#include <algorithm>
#include <memory>
#include <sstream>

#include "ray/raylet/adoption/adoption_service.h"
#include "ray/raylet/nodes/node_directory.h"
#include "ray/raylet/resource_reports.h"
#include "ray/testing/sim/sim_cluster.h"
#include "ray/v1/gcs_actor.pb.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/gcs_placement_group.pb.h"
#include "ray/wire/convert.h"

namespace ray::sim {
namespace {

std::string Short(const std::string& id) { return BytesToHex(id).substr(0, 8); }
std::string Short(const NodeId& id) { return id.Hex().substr(0, 8); }

// A node tells as free of the store what that has left, too.
bool SameBesidesStore(ResourceSet a, ResourceSet b) {
  for (ResourceSet* set : {&a, &b}) set->Set(raylet::kStoreMemory, 0);
  return a == b;
}

std::string NamesOf(const std::vector<raylet::HeldLease>& leases) {
  std::string names;
  for (const raylet::HeldLease& lease : leases) {
    names += " " + lease.lease.Hex().substr(0, 8) + " of job " + lease.job.Hex();
    if (!lease.actor.IsNil()) names += " for actor " + lease.actor.Hex() + (lease.actor_alive ? "" : ", which is not up");
  }
  return names;
}

}  // namespace

struct SimCluster::Listing {
  v1::ListNodesReply nodes;
  v1::ListActorsReply actors;
  v1::ListPlacementGroupsReply groups;
  v1::ListJobsReply jobs;
};

void SimCluster::Look(const std::function<void(const Listing&)>& check) {
  Process* observer = world_.NewProcess("observer", 0);
  rpc::Dispatcher dispatcher;
  const auto listing = std::make_shared<Listing>();
  int answered = 0;
  observer->Run([&] {
    const auto link = network_.Connect(observer, kGcsAddress, &dispatcher);
    const auto ask = [&](MethodId method, const rpc::MessageLite& request, rpc::MessageLite* reply) {
      link->Call(method, request, {},
                 [&answered, listing, reply](const Status& status, const rpc::Reply& answer) {
                   if (status.ok() && reply->ParseFromArray(answer.control.data(), static_cast<int>(answer.control.size()))) ++answered;
                 },
                 {});
    };
    ask(MethodId::kListNodes, v1::ListNodesRequest(), &listing->nodes);
    v1::ListActorsRequest all;
    all.set_all_namespaces(true);
    ask(MethodId::kListActors, all, &listing->actors);
    ask(MethodId::kListPlacementGroups, v1::PlacementGroupEmpty(), &listing->groups);
    ask(MethodId::kListJobs, v1::JobEmpty(), &listing->jobs);
  });
  const bool all = world_.RunUntil([&] { return answered == 4; }, world_.now() + std::chrono::seconds(30));
  observer->Kill(Death::kExited, 0);
  world_.RunFor(std::chrono::seconds(1));
  if (!all) return Fail("the GCS does not answer");
  check(*listing);
}

// The GCS and the nodes say the same of one another.
void SimCluster::CheckAgreement(const Listing& listing) {
  if (!AllReady()) return Fail("a node or the GCS has gone though nothing was done to it");
  std::map<NodeId, const v1::NodeInfo*> alive;
  for (const v1::NodeInfo& node : listing.nodes.nodes()) {
    if (node.alive()) alive[NodeId::FromBinaryOrNil(node.node_id())] = &node;
  }
  if (alive.size() != hosts_.size())
    Fail("the GCS takes " + std::to_string(alive.size()) + " nodes for alive, there are " + std::to_string(hosts_.size()));
  for (const Host& host : hosts_) {
    const SimRaylet& raylet = *host.raylet;
    const auto known = alive.find(raylet.node_id());
    if (known == alive.end()) return Fail("the GCS takes node " + Short(raylet.node_id()) + ", which lives, for dead");
    const ResourceSet available = raylet.services().leases().resources().available();
    if (const ResourceSet told = FromProto(known->second->available()); told.Get("CPU") != available.Get("CPU")) {
      Fail("node " + Short(raylet.node_id()) + " has " + available.ToString() + " free, the GCS believes " + told.ToString());
    }
    for (const Host& other : hosts_) {
      if (&other == &host) continue;
      const NodeId id = other.raylet->node_id();
      if (raylet.services().nodes()->Find(id) == nullptr) Fail("node " + Short(raylet.node_id()) + " does not know node " + Short(id));
      if (raylet.services().leases().view().Find(id) == nullptr)
        Fail("the view of node " + Short(raylet.node_id()) + " lacks node " + Short(id));
    }
    if (raylet.services().nodes()->nodes().size() != hosts_.size() - 1)
      Fail("node " + Short(raylet.node_id()) + " knows nodes that are dead");
    raylet.services().leases().view().ForEach([&](const scheduling::ClusterView::Node& node) {
      if (!alive.contains(node.id)) Fail("the view of node " + Short(raylet.node_id()) + " has node " + Short(node.id) + ", which is dead");
    });
  }
}

// What each believes is free on the others, and the GCS on all, is so: what was sent there in vain counts no longer. While actors wait for room the GCS goes on
// sending them from node to node, and counts them where they are.
void SimCluster::CheckViews(const Listing& listing) {
  const auto placed = [](const v1::ActorInfo& actor) {
    return actor.state() == v1::ACTOR_STATE_ALIVE || actor.state() == v1::ACTOR_STATE_DEAD;
  };
  if (!AllReady() || !std::ranges::all_of(listing.actors.actors(), placed)) return;
  for (const Host& of : hosts_) {
    const NodeId id = of.raylet->node_id();
    const auto free = [&id](const scheduling::ClusterView& view) {
      const scheduling::ClusterView::Node* node = view.Find(id);
      return node == nullptr ? ResourceSet() : node->available();
    };
    const ResourceSet available = of.raylet->services().leases().resources().available(), reported = free(gcs_.server()->view());
    if (!SameBesidesStore(available, reported))
      Fail("node " + Short(id) + " has " + available.ToString() + " free, the view of the GCS says " + reported.ToString());
    for (const Host& host : hosts_) {
      if (&host == &of) continue;
      const ResourceSet believed = free(host.raylet->services().leases().view());
      if (believed == reported) continue;
      Fail("the view of node " + Short(host.raylet->node_id()) + " says that node " + Short(id) + " has " + believed.ToString() +
           " free, that of the GCS " + reported.ToString());
    }
  }
}

// Drivers hold actors and placement groups, and nothing else.
void SimCluster::CheckHeld(const Listing& listing) {
  if (!AllReady()) return;
  std::map<NodeId, int64_t> reserved, actors_on;
  std::set<std::string> actors, groups;
  std::map<std::string, bool> job_runs;
  for (const v1::JobInfo& job : listing.jobs.jobs()) job_runs[job.job_id()] = job.end_time_ms() == 0;
  std::set<std::string> living_jobs;
  for (const ClusterDriver* driver : drivers_) living_jobs.insert(driver->job().Binary());
  for (const auto& [job, runs] : job_runs) {
    if (runs != living_jobs.contains(job))
      Fail("job " + BytesToHex(job) + (runs ? " runs, its driver is dead" : " has ended, its driver lives"));
  }
  for (const v1::PlacementGroupInfo& group : listing.groups.groups()) {
    groups.insert(group.placement_group_id());
    if (group.state() == v1::PLACEMENT_GROUP_STATE_REMOVED) continue;
    if (!living_jobs.contains(group.job_id()))
      Fail("placement group " + Short(group.placement_group_id()) + " of a job that is over is there");
    for (const v1::Bundle& bundle : group.bundles()) {
      if (bundle.node_id().empty()) continue;
      reserved[NodeId::FromBinaryOrNil(bundle.node_id())] += FromProto(bundle.resources()).Get("CPU");
    }
  }
  for (const v1::ActorInfo& actor : listing.actors.actors()) {
    actors.insert(actor.actor_id());
    if (actor.state() == v1::ACTOR_STATE_DEAD) continue;
    if (!living_jobs.contains(actor.job_id()) && !actor.creation().detached())
      Fail("actor " + Short(actor.actor_id()) + " of a job that is over is not dead");
    if (actor.state() != v1::ACTOR_STATE_ALIVE) continue;
    const Address address = FromProto(actor.address());
    ++actors_on[address.node_id];
    bool lives = false;
    for (const Host& host : hosts_) {
      if (host.raylet->node_id() == address.node_id) lives = host.raylet->services().workers().ConnectionOf(address.worker_id) != nullptr;
    }
    if (!lives) Fail("actor " + Short(actor.actor_id()) + " is ALIVE, its worker is not");
  }
  for (const ClusterDriver* driver : drivers_) {
    if (const std::string left = driver->Left(); !left.empty())
      Fail("driver p" + std::to_string(driver->process()->id()) + " let go of everything, and has left: " + left);
    for (const ActorId& actor : driver->actors()) {
      if (!actors.contains(actor.Binary())) Fail("actor " + actor.Hex() + ", which was acknowledged, is unknown");
    }
    for (const PlacementGroupId& group : driver->groups()) {
      if (!groups.contains(group.Binary())) Fail("placement group " + group.Hex() + ", which was acknowledged, is unknown");
    }
  }
  if (config_.check_held) {
    if (const std::string wrong = config_.check_held(*hosts_[0].raylet); !wrong.empty()) Fail(wrong);
  }
  for (const Host& host : hosts_) {
    const NodeId id = host.raylet->node_id();
    const raylet::LeaseService& leases = host.raylet->services().leases();
    const int64_t used = leases.resources().total().Get("CPU") - leases.resources().available().Get("CPU");
    const int64_t here = actors_on[id], bundles = reserved[id];
    if (leases.num_held() != static_cast<size_t>(here)) {
      Fail("node " + Short(id) + " holds " + std::to_string(leases.num_held()) + " leases, and has " + std::to_string(here) +
           " actors; held:" + NamesOf(leases.Held()));
    }
    if (used < bundles || used > bundles + here * ResourceSet::kUnit) {
      Fail("node " + Short(id) + " uses " + std::to_string(used) + ", of which bundles " + std::to_string(bundles) + " and " +
           std::to_string(here) + " actors");
    }
  }
}

std::string SimCluster::PrimariesIn(SimRaylet* raylet) {
  std::string names;
  bool told = false;
  raylet->store()->objects()->ListPrimary([&](const auto& copies) {
    for (const auto& copy : copies) names += " " + copy.id.Hex() + " of worker " + copy.owner.worker_id.Hex();
    told = true;
  });
  const bool answered = world_.RunUntil([&] { return told; }, world_.now() + std::chrono::seconds(1));
  return !answered ? " unknown" : names.empty() ? " none" : names;
}

// Nobody holds anything any more.
void SimCluster::CheckEmpty(const Listing& listing) {
  for (const v1::JobInfo& job : listing.jobs.jobs()) {
    if (job.end_time_ms() == 0) Fail("job " + BytesToHex(job.job_id()) + " has not ended");
  }
  for (const v1::ActorInfo& actor : listing.actors.actors()) {
    if (actor.state() != v1::ACTOR_STATE_DEAD)
      Fail("actor " + Short(actor.actor_id()) + " is left, in state " + std::to_string(actor.state()));
  }
  for (const v1::PlacementGroupInfo& group : listing.groups.groups()) {
    if (group.state() != v1::PLACEMENT_GROUP_STATE_REMOVED)
      Fail("placement group " + Short(group.placement_group_id()) + " is left, in state " + std::to_string(group.state()));
  }
  if (!AllReady()) return;
  for (const Host& host : hosts_) {
    const SimRaylet& raylet = *host.raylet;
    const std::string node = "node " + Short(raylet.node_id());
    const raylet::LeaseService& leases = raylet.services().leases();
    if (leases.num_held() != 0) Fail(node + " holds " + std::to_string(leases.num_held()) + " leases of nobody");
    if (leases.resources().available() != leases.resources().total()) {
      Fail(node + " has " + leases.resources().available().ToString() + " free of " + leases.resources().total().ToString() +
           ", and nothing runs");
    }
    if (const size_t adopted = raylet.services().adoption().core().num_objects(); adopted != 0)
      Fail(node + " has adopted " + std::to_string(adopted) + " objects that nobody holds");
    if (!raylet.services().workers().Pids().empty()) Fail(node + " knows processes of jobs that are over");
    if (const SimStore* store = raylet.store(); store != nullptr) {
      if (const size_t left = store->store().Stats().num_objects; left != 0)
        Fail(node + " has " + std::to_string(left) + " objects in its store that nobody owns; primary copies:" + PrimariesIn(host.raylet));
      if (const size_t left = store->disk().num_files(); left != 0)
        Fail(node + " has " + std::to_string(left) + " files of spilled objects");
    }
    if (!raylet.launcher().children().empty()) Fail(node + " has worker processes of jobs that are over");
  }
}

}  // namespace ray::sim
