#include <algorithm>

#include "ray/gcs_server/services/gcs_state.h"
#include "ray/util/logging.h"
#include "ray/v1/node_link.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/version.h"

namespace ray::gcs {

void NodeChanged(GcsState* gcs, const NodeId& node, Effects* out) {
  const v1::NodeInfo* info = gcs->nodes.Find(node);
  const ResourceSet total = FromProto(info->total()), available = FromProto(info->available());
  const bool withdrawn = info->driver_only() || info->draining();  // nothing is placed there (any more)
  scheduling::Labels labels(info->labels().begin(), info->labels().end());
  const scheduling::ClusterView::Node* known = gcs->view.Find(node);
  const bool same = known != nullptr && known->labels == labels && known->draining == withdrawn && known->total() == total;
  const bool within = std::ranges::all_of(available.items(), [&total](const auto& item) { return total.Get(item.first) != 0; });
  gcs->view.Set(node, total, available, std::move(labels), gcs->nodes.VersionOf(node), withdrawn);
  TellResources(gcs, node, /*whole=*/!same || !within);
  gcs->actors.NodeChanged(gcs->wall_ms(), out);
  gcs->groups.ResourcesChanged(gcs->now(), gcs->wall_ms(), out);
  RouteGroups(gcs, out);
}

namespace {

void ScheduleProbes(GcsState* gcs);

void Probe(GcsState* gcs, const NodeId& node, uint64_t link_id) {
  const rpc::ConnectionPtr link = gcs->LinkTo(node);
  if (link == nullptr || link->id() != link_id) return;
  rpc::CallOptions options;
  options.timeout = gcs->health.config().timeout;
  link->Call(
      MethodId::kLinkProbe, v1::LinkEmpty(), {},
      [gcs, node, link](const Status& status, const rpc::Reply&) {
        // Any answer is a sign of life, were it that the method is unknown. That the link has ended is told otherwise.
        if (status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kCancelled) return;
        const bool answered = status.code() != StatusCode::kDeadlineExceeded;
        const HealthCore::Verdict verdict = gcs->health.OnProbe(node, link->id(), answered, gcs->now());
        ScheduleProbes(gcs);
        const int threshold = gcs->health.config().threshold;
        if (verdict == HealthCore::Verdict::kDead) {
          OnNodeDead(gcs, node, "its raylet did not answer " + std::to_string(threshold) + " probes in a row", 0);
        } else if (verdict == HealthCore::Verdict::kSuspect) {
          RAY_LOG(WARNING) << "node " << node << " is slow or cut off: " << gcs->health.MissesOf(node) << " of " << threshold
                           << " probes in a row were not answered";
        }
      },
      options);
}

// One timer for what is due first.
void ScheduleProbes(GcsState* gcs) {
  const Time next = gcs->health.NextDue();
  if (gcs->probe_timer != 0) {
    if (gcs->probe_at <= next) return;
    gcs->loop->CancelTimer(gcs->probe_timer);
    gcs->probe_timer = 0;
  }
  if (next.is_infinite()) return;
  gcs->probe_at = next;
  gcs->probe_timer = gcs->loop->AddTimer(std::max(next - gcs->now(), Duration::zero()), [gcs] {
    gcs->probe_timer = 0;
    for (const auto& [node, link] : gcs->health.Due(gcs->now())) Probe(gcs, node, link);
    ScheduleProbes(gcs);
  });
}

// False: it was known.
bool WorkerDied(GcsState* gcs, const v1::ReportWorkerDiedRequest& message, CallToken call, Effects* out) {
  if (!gcs->workers.Died(message, call, out)) return false;
  gcs->actors.WorkerDied(message, gcs->wall_ms(), out);
  if (!message.is_driver()) return true;
  FinishJob(gcs, JobId::FromBinaryOrNil(message.job_id()), 0, out);
  // One that ended before it was told of its job does not name it.
  FinishJobsOf(gcs, WorkerId::FromBinaryOrNil(message.worker_id()), out);
  return true;
}

// A node has come back: what it has is held against what the tables say.
void TakeState(GcsState* gcs, const NodeId& node, const v1::NodeState& state, Effects* out) {
  std::set<JobId> over =
      gcs->jobs.OverOfLate();  // also where nothing of them is there (yet): their requests may still be on their way to the node
  gcs->nodes.Report(state.resources(), out);
  int news = 0;
  for (const v1::ReportWorkerDiedRequest& death : state.deaths()) news += WorkerDied(gcs, death, 0, out);
  // One line: after each restart of the GCS a node tells of all that ended of late.
  if (news > 0) RAY_LOG(INFO) << "node " << node << " tells of " << news << " processes that have ended";
  gcs->actors.NodeReturned(node, {state.actors().begin(), state.actors().end()}, gcs->wall_ms(), out);
  gcs->groups.NodeReturned(node, {state.bundles().begin(), state.bundles().end()}, gcs->now(), gcs->wall_ms(), out);
  for (const std::string& id : state.jobs()) {
    if (const JobId job = JobId::FromBinaryOrNil(id); gcs->jobs.IsOver(job)) over.insert(job);
  }
  for (const JobId& job : over) out->push_back(TellJobFinished{job, node});
  NodeChanged(gcs, node, out);  // from now on something can be placed there
  SetLooksElsewhere(gcs, node, state.resources().looks_elsewhere());
  NoLongerExpected(gcs, node, out);
}

void RegisterNode(GcsState* gcs, const v1::RegisterNodeRequest& message, const rpc::Request& request, rpc::Responder responder) {
  // Unset: a client that makes no claim, such as a tool.
  if (!message.protocol_version().empty() && !ProtocolsMayMeet(message.protocol_version(), kProtocolVersion) && responder.valid()) {
    return responder.Fail(Status::FailedPrecondition("the raylet speaks protocol " + message.protocol_version() + ", the GCS speaks " +
                                                     std::string(kProtocolVersion) +
                                                     ": nodes may be at most one version apart; install the same release on all"));
  }
  NodeId node = NodeId::FromBinaryOrNil(message.node().node_id());
  const v1::NodeState* state = message.has_state() ? &message.state() : nullptr;
  if (gcs->health.IsStale(node, message.attempt())) {
    if (responder.valid()) responder.Fail(Status::Aborted("a later registration of this node came first"));
    return;
  }
  const bool is_repeat = gcs->health.IsRepeat(node, request.connection->id(), message.attempt());
  Effects out;
  if (gcs->nodes.Register(message.node(), gcs->runner.Hold(std::move(responder)), gcs->wall_ms(), &out, state) && !is_repeat) {
    rpc::ConnectionPtr link = request.connection;
    bool is_new_link = gcs->health.LinkUp(node, link->id(), gcs->now(), message.attempt());
    gcs->links[node] = link;
    gcs->news.Leaves(node);  // until it has had its answer
    if (!message.reads_columns()) gcs->read_no_columns.insert(node);
    if (!message.watches_processes()) gcs->watch_nothing.insert(node);
    ScheduleProbes(gcs);
    if (state != nullptr) {
      TakeState(gcs, node, *state, &out);
    } else {
      // If it has registered before, it never had the answer, nor anything that was sent to it behind that.
      gcs->actors.NodeReturned(node, {}, gcs->wall_ms(), &out);
      gcs->groups.NodeReturned(node, {}, gcs->now(), gcs->wall_ms(), &out);
      NodeChanged(gcs, node, &out);
      SetLooksElsewhere(gcs, node, false);
      NoLongerExpected(gcs, node, &out);
    }
    RAY_LOG(INFO) << "node " << node << " registered with " << FromProto(message.node().total()).ToString();
    if (is_new_link) {
      link->OnClose([gcs, node, id = link->id()](const Status& reason) {
        if (gcs->health.LinkDown(node, id)) OnNodeDead(gcs, node, "its raylet's connection broke: " + reason.message(), 0);
      });
    }
  }
  gcs->runner.Run(std::move(out), [gcs, node, link = request.connection] {
    if (gcs->LinkTo(node) == link) SendAllResources(gcs, node);
  });
}

constexpr Duration kDrainTimeout = std::chrono::seconds(10);

// The order goes to the raylet, whose answer is the caller's; that it drains it reports by itself. A repeated order finds a node that drains already, and is
// accepted. If the raylet, or the way to it, is lost before it answers, the caller hears just that.
void DrainNode(GcsState* gcs, const v1::DrainNodeRequest& message, rpc::Responder responder) {
  const NodeId node = NodeId::FromBinaryOrNil(message.node_id());
  const auto link = gcs->links.find(node);
  if (link == gcs->links.end()) {
    if (responder.valid()) responder.Fail(Status::NotFound("node " + node.Hex() + " is not alive"));
    return;
  }
  v1::DrainNotice order;
  order.set_reason(message.reason());
  order.set_deadline_ms(message.deadline_ms());
  order.set_only_if_idle(message.only_if_idle());
  rpc::CallOptions options;
  options.timeout = kDrainTimeout;
  rpc::CallTyped<v1::LeaseEmpty>(
      *link->second, MethodId::kDrain, order, {},
      [node, responder = std::make_shared<rpc::Responder>(std::move(responder))](const Status& status, const v1::LeaseEmpty&,
                                                                                 const PartList&) {
        if (!responder->valid()) return;
        if (status.ok()) return responder->Send(v1::NodeEmpty());
        if (status.code() == StatusCode::kFailedPrecondition) return responder->Fail(status);
        responder->Fail(Status::Unavailable("whether node " + node.Hex() + " drains is not known: " + status.message()));
      },
      options);
}

void ReportWorkerDied(GcsState* gcs, const v1::ReportWorkerDiedRequest& message, rpc::Responder responder) {
  Effects out;
  if (WorkerDied(gcs, message, gcs->runner.Hold(std::move(responder)), &out)) {
    RAY_LOG(INFO) << (message.is_driver() ? "driver " : "worker ") << WorkerId::FromBinaryOrNil(message.worker_id()) << " (pid "
                  << message.pid() << ") ended: " << message.detail();
  }
  gcs->runner.Run(std::move(out));
}

// A raylet that lives listens, and dials the GCS ten times a second. One that has not come back, and at whose address nobody listens, has gone: to
// wait for it for half a minute would only hold up what waits for its death. Twice in a row, in case that it was on its way just then.
void KnockAtExpected(GcsState* gcs) {
  constexpr Duration kPause = std::chrono::milliseconds(500);
  gcs->knock_timer = gcs->loop->AddTimer(kPause, [gcs] {
    gcs->knock_timer = 0;
    for (const NodeId& node : gcs->expected) {
      const v1::NodeInfo* info = gcs->nodes.Find(node);
      if (info == nullptr || info->port() == 0) continue;
      gcs->knock(info->ip(), info->port(), [gcs, node, port = info->port(), alive = std::weak_ptr<bool>(gcs->alive_flag)](bool refused) {
        if (alive.expired() || !gcs->expected.contains(node)) return;
        if (!refused) {
          gcs->refused.erase(node);
        } else if (!gcs->refused.insert(node).second) {
          OnNodeDead(gcs, node,
                     "it did not come back after the GCS was started again, and nobody listens at its port " + std::to_string(port), 0);
        }
      });
    }
    if (!gcs->expected.empty()) KnockAtExpected(gcs);
  });
}

}  // namespace

void ExpectNodes(GcsState* gcs) {
  for (const v1::NodeInfo* node : gcs->nodes.All()) {
    if (!node->alive()) continue;
    const NodeId id = NodeId::FromBinaryOrNil(node->node_id());
    gcs->expected.insert(id);
    TellResources(gcs, id, /*whole=*/true);  // who comes back before it is to know that it is there
  }
  Effects none;
  gcs->actors.ExpectNodes(true, gcs->wall_ms(), &none);
  gcs->groups.ExpectNodes(true);
  if (gcs->knock != nullptr) KnockAtExpected(gcs);
  gcs->return_timer = gcs->loop->AddTimer(gcs->node_return_timeout, [gcs] {
    gcs->return_timer = 0;
    const auto waited = std::to_string(std::chrono::duration_cast<std::chrono::seconds>(gcs->node_return_timeout).count());
    for (const NodeId& node : std::set<NodeId>(gcs->expected))
      OnNodeDead(gcs, node, "it did not come back within " + waited + " s after the GCS was started again", 0);
  });
}

void NoLongerExpected(GcsState* gcs, const NodeId& node, Effects* out) {
  gcs->refused.erase(node);
  if (gcs->expected.erase(node) == 0 || !gcs->expected.empty()) return;
  RAY_LOG(INFO) << "every node that was there before the restart has come back or is dead";
  gcs->groups.ExpectNodes(false);
  gcs->actors.ExpectNodes(false, gcs->wall_ms(), out);
  gcs->groups.ResourcesChanged(gcs->now(), gcs->wall_ms(), out);
  RouteGroups(gcs, out);
}

void OnNodeDead(GcsState* gcs, const NodeId& node, const std::string& reason, CallToken call, v1::DeathKind kind) {
  Effects out;
  bool died = gcs->nodes.Die(node, reason, kind, call, gcs->wall_ms(), &out);
  rpc::ConnectionPtr link;
  if (died) {
    RAY_LOG(WARNING) << "node " << node << " is dead: " << reason;
    if (kind == v1::DEATH_KIND_FAILED) link = gcs->LinkTo(node);
    gcs->links.erase(node);
    gcs->watch_nothing.erase(node);
    gcs->view.Remove(node);
    TellGone(gcs, node);
    // Actors first: those of a driver that ran there then die of the node, not of their job's end.
    gcs->actors.NodeDied(node, reason, gcs->wall_ms(), &out);
    gcs->groups.NodeDied(node, gcs->now(), gcs->wall_ms(), &out);
    for (const JobId& job : gcs->jobs.RunningOn(node)) FinishJob(gcs, job, 0, &out);
    RouteGroups(gcs, &out);
    NoLongerExpected(gcs, node, &out);
  }
  gcs->runner.Run(std::move(out), [gcs, died, link, reason] {
    // Should it live, it must hear of it, and start anew.
    if (link != nullptr) link->Close(Status::FailedPrecondition("the node was declared dead: " + reason));
    if (died && gcs->nodes.num_alive() == 0 && gcs->on_empty) gcs->on_empty();
  });
}

void RegisterNodeService(GcsState* gcs, rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::RegisterNodeRequest>(
      MethodId::kRegisterNode, [gcs](const v1::RegisterNodeRequest& message, rpc::Request& request, rpc::Responder responder) {
        RegisterNode(gcs, message, request, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::UnregisterNodeRequest>(
      MethodId::kUnregisterNode, [gcs](const v1::UnregisterNodeRequest& message, rpc::Request&, rpc::Responder responder) {
        NodeId node = NodeId::FromBinaryOrNil(message.node_id());
        gcs->health.Left(node);
        OnNodeDead(gcs, node, message.reason().empty() ? "it left" : message.reason(), gcs->runner.Hold(std::move(responder)),
                   v1::DEATH_KIND_LEFT);
      });
  dispatcher->RegisterTyped<v1::DrainNodeRequest>(MethodId::kDrainNode,
                                                  [gcs](const v1::DrainNodeRequest& message, rpc::Request&, rpc::Responder responder) {
                                                    DrainNode(gcs, message, std::move(responder));
                                                  });
  dispatcher->RegisterTyped<v1::DrainNodeRequest>(MethodId::kReportDraining,
                                                  [gcs](const v1::DrainNodeRequest& message, rpc::Request&, rpc::Responder responder) {
                                                    Effects out;
                                                    Reply(gcs->runner.Hold(std::move(responder)), v1::NodeEmpty(), &out);
                                                    const NodeId node = NodeId::FromBinaryOrNil(message.node_id());
                                                    if (gcs->nodes.Drain(message, gcs->wall_ms(), &out)) {
                                                      NodeChanged(gcs, node, &out);
                                                      // One that leaves at once has no time for it.
                                                      if (message.deadline_ms() > 0) gcs->actors.NodeDraining(node, &out);
                                                    }
                                                    gcs->runner.Run(std::move(out));
                                                  });
  dispatcher->RegisterTyped<v1::ReportResourcesRequest>(
      MethodId::kReportResources, [gcs](const v1::ReportResourcesRequest& message, rpc::Request&, rpc::Responder responder) {
        Effects out;
        Reply(gcs->runner.Hold(std::move(responder)), v1::NodeEmpty(), &out);
        if (gcs->nodes.Report(message, &out)) {
          const NodeId node = NodeId::FromBinaryOrNil(message.node_id());
          NodeChanged(gcs, node, &out);
          SetLooksElsewhere(gcs, node, message.looks_elsewhere());
        }
        gcs->runner.Run(std::move(out));
      });
  dispatcher->RegisterTyped<v1::ReportWorkerDiedRequest>(
      MethodId::kReportWorkerDied, [gcs](const v1::ReportWorkerDiedRequest& message, rpc::Request&, rpc::Responder responder) {
        ReportWorkerDied(gcs, message, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::ListNodesRequest>(
      MethodId::kListNodes, [gcs](const v1::ListNodesRequest& message, rpc::Request&, rpc::Responder responder) {
        Effects out;
        gcs->nodes.List(gcs->runner.Hold(std::move(responder)), !message.without_config(), &out);
        gcs->runner.Run(std::move(out));
      });
}

}  // namespace ray::gcs
