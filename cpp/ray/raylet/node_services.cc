#include "ray/raylet/node_services.h"

#include <google/protobuf/arena.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "ray/raylet/adoption/adoption_service.h"
#include "ray/raylet/chaos/chaos_service.h"
#include "ray/raylet/deaths/watch_service.h"
#include "ray/raylet/drain/node_drain.h"
#include "ray/raylet/explain/explain_service.h"
#include "ray/raylet/leases/lease_service.h"
#include "ray/raylet/logs/job_logs.h"
#include "ray/raylet/memory/memory_reader.h"
#include "ray/raylet/nodes/node_directory.h"
#include "ray/raylet/objects/copy_teller.h"
#include "ray/raylet/resource_reports.h"
#include "ray/raylet/router/router.h"
#include "ray/raylet/workers/json.h"
#include "ray/raylet/workers/worker_service.h"
#include "ray/rpc/grpc/host_port.h"
#include "ray/util/flags.h"
#include "ray/util/logging.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/node_link.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/version.h"

namespace ray::raylet {
namespace {

constexpr Duration kConnectRetry = std::chrono::milliseconds(20);
constexpr Duration kReconnectRetry = std::chrono::milliseconds(100);
// Deaths of processes that a GCS which is started again is told of; it may have heard of them, and lost them with its memory.
constexpr Duration kDeathsKept = std::chrono::minutes(10);
constexpr size_t kMaxDeathsKept = 10000;
constexpr Duration kUnregisterWait = std::chrono::milliseconds(300);

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

int64_t Units(uint64_t amount) { return static_cast<int64_t>(amount) * ResourceSet::kUnit; }

ResourceSet TotalOf(const RayletConfig& config) {
  if (config.driver_only) return ResourceSet();  // its store is the driver's own
  ResourceSet total = config.resources;
  total.Set(kStoreMemory, Units(config.object_store_memory));
  total.Set("node:" + config.node_ip, ResourceSet::kUnit);
  if (config.is_head) total.Set("node:__internal_head__", ResourceSet::kUnit);
  return total;
}

// Whether this raylet can speak with the GCS that has answered so. One that does not tell its protocol is of before it had a number.
Status MayMeet(const v1::RegisterNodeReply& gcs) {
  if (gcs.protocol_version().empty() || ProtocolsMayMeet(gcs.protocol_version(), kProtocolVersion)) return {};
  return Status::FailedPrecondition("the GCS speaks protocol " + gcs.protocol_version() + ", this raylet speaks " +
                                    std::string(kProtocolVersion) + ": nodes may be at most one version apart");
}

}  // namespace

struct NodeServices::Impl {
  Impl(RayletConfig c, Deps d)
      : config(std::move(c)),
        deps(std::move(d)),
        loop(deps.loop),
        carriers(deps.carriers),
        objects(deps.objects),
        node_id(deps.node_id),
        sockets_dir(config.node_dir + "/sockets"),
        total(TotalOf(config)),
        start_ms(loop->clock().WallMillis()) {}

  void Init();
  void RegisterHandlers();
  void Connect();
  void OnGcsClosed(const rpc::ConnectionPtr& link, const Status& status);
  void LoseGcs(const Status& status);
  void FillState(v1::NodeState* state);
  void OnRegisteredAgain(const Status& status, const v1::RegisterNodeReply& reply);
  void OnRegistered(const Status& status, const v1::RegisterNodeReply& reply);
  void OnLauncherReady(const Status& status);
  void MaybeReady();
  void End(const Status& status) {
    if (auto fn = std::exchange(on_end, nullptr)) fn(status);
  }
  void Stop(const std::string& reason, std::function<void()> done);
  void Leave(const std::string& reason, std::function<void()> done);
  void OnNews(const v1::PublishNotice& news);
  void OnNodeDead(const NodeId& node, const std::string& reason);
  void OnProcessEnded(const ProcessEnd& end);
  void OnEndedElsewhere(const v1::WorkerDiedNotice& death);
  // Nobody tells of it, or how it ended.
  void OnFoundEnded(const Address& process);
  void Drain(const std::string& reason, Duration deadline);
  void OnDrainOrder(const v1::DrainNotice& order, rpc::Responder responder);
  void TellDraining(const std::string& reason, Duration left);
  std::shared_ptr<void> Prefetch(const v1::RequestLeaseRequest& message);
  std::string Stats() const;

  const RayletConfig config;
  const Deps deps;
  async::Loop* const loop;
  NodeCarriers* const carriers;
  NodeObjects* const objects;
  const NodeId node_id;
  const std::string sockets_dir;
  const ResourceSet total;
  const int64_t start_ms;

  std::function<void()> on_ready;
  std::function<void(const Status&)> on_end;
  std::function<void(const std::string&)> on_shutdown;

  // In the order of construction; destroyed in reverse.
  std::shared_ptr<rpc::Dispatcher> dispatcher = std::make_shared<rpc::Dispatcher>();
  std::unique_ptr<WorkerService> workers;
  std::unique_ptr<LeaseService> leases;
  std::unique_ptr<ResourceReports> reports;
  std::unique_ptr<NodeDrain> drain;
  std::unique_ptr<MemoryMonitor> memory;
  std::unique_ptr<Router> router;
  std::unique_ptr<NodeDirectory> nodes;
  std::unique_ptr<WatchService> watches;
  std::unique_ptr<AdoptionService> adoption;
  std::unique_ptr<CopyTeller> teller;
  std::unique_ptr<ChaosService> chaos;
  std::unique_ptr<ExplainService> explain;
  std::unique_ptr<JobLogs> logs;
  std::unique_ptr<TunnelRouter> tunnels;
  std::shared_ptr<rpc::TunnelHub> hub;  // the raylet's own end of tunnels
  std::string listen_address;           // port filled in; empty: not listening
  bool plain_links = false;
  rpc::ConnectionPtr gcs;
  Time connect_deadline;

  uint64_t registrations = 0;  // that were begun
  bool registered = false;
  bool can_fork = false;  // the zygote is ready
  std::string cluster_id;
  bool gcs_durable = false;  // one that is started again will know this node
  std::string gcs_lost;      // why the link ended; empty: there is one
  async::TimerId gcs_lost_timer = 0;
  std::deque<std::pair<Time, v1::ReportWorkerDiedRequest>> deaths;  // of late, oldest first
  std::optional<std::pair<std::string, Time>> draining;             // what the GCS was told: why, until when
  bool stopping = false;
};

void NodeServices::Impl::Init() {
  WorkerServiceConfig worker_config;
  worker_config.pool = config.pool;
  worker_config.node_id = node_id;
  worker_config.node_ip = config.node_ip;
  worker_config.sockets_dir = sockets_dir;
  auto& welcome = worker_config.welcome;
  welcome.set_node_id(node_id.Binary());
  welcome.set_node_ip(config.node_ip);
  welcome.set_session_dir(config.session_dir);
  welcome.set_session_name(BaseName(config.session_dir));
  welcome.set_gcs_address(config.gcs_address);
  welcome.set_node_leaves(config.driver_only);
  workers = std::make_unique<WorkerService>(
      std::move(worker_config), loop, deps.launcher,
      WorkerServiceHooks{[this](const LeaseId& lease, const WorkerId& worker) {
                           leases->OnAssigned(lease, worker);
                           memory->OnWork();
                         },
                         [this](const WorkerPopFailed& failure) { leases->OnPopFailed(failure); },
                         [this](const ProcessEnd& end) { OnProcessEnded(end); },
                         [this](const JobId& job, v1::LogLinesNotice lines) { logs->Lines(job, std::move(lines)); },
                         [this](const JobId& job, v1::DriverMessageNotice message) { logs->Message(job, std::move(message)); },
                         [this](const WorkerId& worker, const rpc::ConnectionPtr& connection) {
                           tunnels->AddProcess(worker, connection);
                           drain->OnWorkSoon();  // it may have come too late
                         },
                         [this](const WorkerId& worker) { objects->OnWorkerDied(worker); },  // nobody reads what it owned from now on
                         [this] {
                           const std::string why = carriers->ProcessesShutOut();
                           return why.empty() ? why : "the raylet of the node " + why;
                         }});

  scheduling::LeaseQueueConfig queue_config = config.leases;
  queue_config.node = node_id;
  queue_config.labels = {config.labels.begin(), config.labels.end()};
  queue_config.seed = IdHash()(node_id);
  leases =
      std::make_unique<LeaseService>(LeaseService::Deps{loop, workers.get(), node_id, config.node_ip,
                                                        [this] {
                                                          reports->Soon();
                                                          drain->OnWork();
                                                        },
                                                        [this](v1::ReportResourcesRequest* report) { reports->Fill(report); },
                                                        [this](const v1::RequestLeaseRequest& message) { return Prefetch(message); },
                                                        [this](const WorkerId& worker, const NodeId& node) { tunnels->Meet(worker, node); },
                                                        [this] { reports->OnLookedElsewhere(); }},
                                     queue_config, scheduling::NodeResources(total));
  reports = std::make_unique<ResourceReports>(
      ResourceReports::Deps{loop, node_id, &total, leases.get(), objects, [this] { return stopping || !gcs_lost.empty() ? nullptr : gcs; },
                            config.object_store_memory, config.report_interval, config.store_report_interval});
  memory = std::make_unique<MemoryMonitor>(
      config.memory_monitor,
      MemoryMonitor::Deps{loop, "IP: " + config.node_ip + ", ID: " + node_id.Hex(), [this] { return leases->num_running() > 0; },
                          [this] { return leases->RunningWork(); }, [this] { return workers->Pids(); },
                          [this](const MemoryCandidate& victim, const std::string& reason) {
                            RAY_LOG(WARNING) << reason;
                            workers->KillForMemory(victim.worker, reason);
                          }});
  router = std::make_unique<Router>(
      node_id, RouterHooks{[this](uint64_t connection, const v1::JobInfo& job) { workers->BindDriverJob(connection, job); },
                           [this](const JobId& job, std::function<void()> done) { logs->Drain(job, std::move(done)); },
                           [this](const v1::PublishNotice& news) { OnNews(news); },
                           [this](uint64_t connection, const ActorId& actor) { workers->Keep(connection, actor); },
                           [this](const ActorId& actor) { workers->OnActorEnded(actor); }});
  nodes = std::make_unique<NodeDirectory>(
      NodeDirectory::Deps{loop, node_id, !config.listen.empty(),
                          [this](const std::string& address, Lane lane, bool plain, rpc::DialFailed on_failed) {
                            return carriers->Dial(address, lane, plain, std::move(on_failed));
                          },
                          [this](const Status& status) { End(status); }},
      config.links);
  nodes->OnNodeDead(
      [this](const NodeId& node, const std::string& reason) { OnNodeDead(node, reason); });  // before tunnels end for that reason
  tunnels = std::make_unique<TunnelRouter>(TunnelRouter::Deps{loop, node_id, nodes.get()}, config.tunnels);
  rpc::TunnelHub::Deps hub_deps;
  hub_deps.loop = loop;
  hub_deps.self = Address{node_id, WorkerId::Nil()};
  hub_deps.dispatcher = dispatcher;
  hub_deps.send = [this](MethodId method, std::string_view control, const PartList& parts) { tunnels->SendOwn(method, control, parts); };
  hub_deps.on_peer_gone = [this](const Address& peer) { OnFoundEnded(peer); };
  hub_deps.faults = config.faults;
  hub_deps.flush = [] {};  // links hold nothing back
  hub = rpc::TunnelHub::Make(std::move(hub_deps));
  tunnels->SetHub(hub);

  watches = std::make_unique<WatchService>(
      WatchService::Deps{loop, node_id, [this](const NodeId& node) { return nodes->Link(node); },
                         [this](const WorkerId& worker, const NodeId& node) { return tunnels->Meet(worker, node); },
                         [this](const Address& process) { OnFoundEnded(process); }});
  nodes->OnNodeDead([this](const NodeId& node, const std::string&) { watches->OnNodeDead(node); });

  AdoptionService::Deps adopt;
  adopt.loop = loop;
  adopt.self = node_id;
  adopt.link = [this](const NodeId& node) { return nodes->Link(node); };
  adopt.watch = [this](const Address& process) { watches->Watch(process); };
  adopt.connect = [this](const Address& process) { return hub->Connect(process); };
  adopt.reown = [this](std::vector<ObjectId> ids, const Address& owner) { objects->Reown(std::move(ids), owner); };
  adopt.free = [this](const NodeId& node, std::vector<CopyRun> copies) { objects->Free(node, std::move(copies)); };
  adopt.keep = [this](const NodeId& node, std::vector<CopyRun> copies) { objects->Keep(node, std::move(copies)); };
  adopt.save = [this](const CopyToSave& copy, std::function<void(const Status&)> done) { objects->Save(copy, std::move(done)); };
  adoption = std::make_unique<AdoptionService>(std::move(adopt));
  teller = std::make_unique<CopyTeller>(CopyTeller::Deps{
      loop, node_id, [this](const WorkerId& worker) { return workers->ConnectionOf(worker); },
      [this](const NodeId& node) { return nodes->Link(node); }, [this](const Address& process) { return hub->Connect(process); },
      [this](const CopyRun& copy) { adoption->AddLocation(copy, node_id); }});
  nodes->OnNodeDead([this](const NodeId& node, const std::string&) {
    adoption->OnNodeDead(node);
    teller->OnNodeDead(node);
  });
  nodes->OnNodeAdded([this](const NodeDescription& node) {
    if (node.is_head) workers->SetAdopter(node.id);
  });
  explain = std::make_unique<ExplainService>(ExplainService::Deps{loop, node_id, workers.get(), leases.get(), adoption.get(), objects});
  logs = std::make_unique<JobLogs>(node_id, workers.get(), nodes.get(), router.get());
  drain = std::make_unique<NodeDrain>(NodeDrain::Deps{loop, node_id, leases.get(), workers.get(), nodes.get(), objects,
                                                      [this](const Address& process) { return hub->Connect(process); },
                                                      [this](const std::string& reason, Duration left) { TellDraining(reason, left); },
                                                      [this](const std::string& reason) {
                                                        if (on_shutdown != nullptr && !stopping) on_shutdown(reason);
                                                      }});

  RegisterHandlers();
}

void NodeServices::Impl::RegisterHandlers() {
  workers->RegisterHandlers(dispatcher.get());
  watches->RegisterHandlers(dispatcher.get());
  adoption->RegisterHandlers(dispatcher.get());
  explain->RegisterHandlers(dispatcher.get());
  leases->RegisterHandlers(dispatcher.get());
  router->RegisterHandlers(dispatcher.get());
  nodes->RegisterHandlers(dispatcher.get());
  tunnels->RegisterHandlers(dispatcher.get());
  chaos = std::make_unique<ChaosService>(
      ChaosService::Deps{loop, leases.get(), workers.get(), node_id, &MemoryReader::CommandOf, deps.kill_node});
  chaos->RegisterHandlers(dispatcher.get());
  logs->RegisterHandlers(dispatcher.get());
  dispatcher->RegisterTyped<v1::WorkerEmpty>(MethodId::kGetNodeStats,
                                             [this](const v1::WorkerEmpty&, rpc::Request&, rpc::Responder responder) {
                                               v1::GetNodeStatsReply reply;
                                               reply.set_json(Stats());
                                               if (responder.valid()) responder.Send(reply);
                                             });
  dispatcher->RegisterTyped<v1::LinkEmpty>(MethodId::kLinkProbe, [](const v1::LinkEmpty&, rpc::Request&, rpc::Responder responder) {
    if (responder.valid()) responder.Send(v1::LinkEmpty());
  });
  dispatcher->Register(MethodId::kResourceViews, [this](const rpc::Request& request, rpc::Responder responder) {
    // Of many nodes, ten times a second: what is parsed takes its memory from a few blocks.
    google::protobuf::Arena arena;
    auto* notice = google::protobuf::Arena::CreateMessage<v1::ResourceViewsNotice>(&arena);
    if (!notice->ParseFromArray(request.control.data(), static_cast<int>(request.control.size()))) {
      if (responder.valid()) responder.Fail(Status::InvalidArgument("ResourceViews: a request that cannot be parsed"));
      return;
    }
    if (request.connection == gcs) leases->OnResourceViews(*notice);
    if (responder.valid()) responder.Send(v1::SyncEmpty());
  });
  dispatcher->RegisterTyped<v1::LeaseEmpty>(MethodId::kShutdownNode,
                                            [this](const v1::LeaseEmpty&, rpc::Request& request, rpc::Responder responder) {
                                              if (request.connection != gcs) {
                                                if (responder.valid())
                                                  responder.Fail(Status::PermissionDenied("only the GCS may stop a node"));
                                                return;
                                              }
                                              if (responder.valid()) responder.Send(v1::LeaseEmpty());
                                              if (on_shutdown != nullptr) on_shutdown("the GCS asked for it");
                                            });
  dispatcher->RegisterTyped<v1::DrainNotice>(MethodId::kDrain,
                                             [this](const v1::DrainNotice& message, rpc::Request& request, rpc::Responder responder) {
                                               if (request.connection != gcs) {
                                                 if (responder.valid())
                                                   responder.Fail(Status::PermissionDenied("only the GCS may drain a node"));
                                                 return;
                                               }
                                               OnDrainOrder(message, std::move(responder));
                                             });
}

// ---- the GCS ----

void NodeServices::Impl::Connect() {
  if (stopping) return;
  gcs = carriers->ConnectGcs();
  gcs->OnClose([this, link = gcs](const Status& status) { OnGcsClosed(link, status); });
  v1::RegisterNodeRequest request;
  request.set_protocol_version(std::string(kProtocolVersion));
  request.set_attempt(++registrations);
  request.set_reads_columns(true);
  request.set_watches_processes(true);
  auto* node = request.mutable_node();
  node->set_node_id(node_id.Binary());
  node->set_node_name(config.node_name.empty() ? node_id.Hex() : config.node_name);
  node->set_ip(config.node_ip);
  node->set_hostname(deps.hostname);
  node->set_alive(true);
  node->set_is_head(config.is_head);
  node->set_driver_only(config.driver_only);
  node->set_raylet_socket(sockets_dir + "/" + kRayletSocket);
  node->set_store_socket(sockets_dir + "/" + kStoreSocket);
  ToProto(total, node->mutable_total());
  ToProto(total, node->mutable_available());
  (*node->mutable_labels())["ray.io/node-id"] = node_id.Hex();
  for (const auto& [key, value] : config.labels) (*node->mutable_labels())[key] = value;
  node->set_session_dir(config.session_dir);
  node->set_start_time_ms(start_ms);
  if (!listen_address.empty()) {
    node->set_port(rpc::ParseHostPort(listen_address)->port);
    node->set_plain_links(plain_links);
    node->set_plain_bulk(plain_links);
  }
  node->set_python_version(config.python_version);
  if (registered) FillState(request.mutable_state());
  rpc::CallOptions options;
  options.timeout = config.connect_timeout;
  rpc::CallTyped<v1::RegisterNodeReply>(
      *gcs, MethodId::kRegisterNode, request, {},
      [this, link = gcs](Status status, v1::RegisterNodeReply& reply, PartList) {
        if (link != gcs) return;
        if (registered) {
          OnRegisteredAgain(status, reply);
        } else {
          OnRegistered(status, reply);
        }
      },
      options);
}

void NodeServices::Impl::OnGcsClosed(const rpc::ConnectionPtr& link, const Status& status) {
  if (stopping || link != gcs) return;
  if (status.code() == StatusCode::kUnauthenticated) return End(status);
  if (!registered && loop->clock().Now() < connect_deadline) {  // it may still be coming up
    loop->AddTimer(kConnectRetry, [this] { Connect(); });
    return;
  }
  LoseGcs(status);
}

// What runs here goes on. A GCS that comes back within the time knows this node again.
void NodeServices::Impl::LoseGcs(const Status& status) {
  const std::string broke = "the link to the GCS at " + config.gcs_address + " broke: " + status.message();
  if (!registered || !gcs_durable || config.gcs_reconnect_timeout <= Duration::zero()) return End(Status::Unavailable(broke));
  if (gcs_lost.empty()) {
    gcs_lost = broke;
    router->WaitForGcs();
    RAY_LOG(WARNING) << broke << "; this node goes on, and waits " << FormatDuration(config.gcs_reconnect_timeout) << " for it";
    gcs_lost_timer = loop->AddTimer(config.gcs_reconnect_timeout, [this] {
      gcs_lost_timer = 0;
      if (!stopping) End(Status::Unavailable(gcs_lost + "; it was not back after " + FormatDuration(config.gcs_reconnect_timeout)));
    });
  }
  loop->AddTimer(kReconnectRetry, [this] { Connect(); });
}

void NodeServices::Impl::FillState(v1::NodeState* state) {
  state->set_cluster_id(cluster_id);
  leases->FillState(state);
  reports->Fill(state->mutable_resources());
  for (const auto& [time, death] : deaths) *state->add_deaths() = death;
  std::set<JobId> jobs = leases->Jobs();
  jobs.merge(workers->Jobs());
  for (const JobId& job : jobs) state->add_jobs(job.Binary());
}

void NodeServices::Impl::OnRegisteredAgain(const Status& status, const v1::RegisterNodeReply& reply) {
  if (stopping || gcs->closed()) return;
  if (status.code() == StatusCode::kFailedPrecondition) return End(status);
  if (!status.ok()) return gcs->Close(status);  // then OnGcsClosed
  if (const Status met = MayMeet(reply); !met.ok()) return End(met);
  RAY_LOG(INFO) << "the GCS is there again, and knows this node";
  gcs_lost.clear();
  if (gcs_lost_timer != 0) loop->CancelTimer(std::exchange(gcs_lost_timer, 0));
  leases->ForgetOtherNodes();  // behind its answer, in order, comes its view of all nodes
  router->SetGcs(gcs, /*resume=*/true);
  if (draining) TellDraining(draining->first, std::max(draining->second - loop->clock().Now(), Duration::zero()));
  reports->Soon();
}

void NodeServices::Impl::OnRegistered(const Status& status, const v1::RegisterNodeReply& reply) {
  if (stopping) return;
  if (!status.ok()) {
    if (!gcs->closed() && status.code() != StatusCode::kUnavailable) End(status);  // otherwise OnGcsClosed decides
    return;
  }
  if (const Status met = MayMeet(reply); !met.ok()) return End(met);
  registered = true;
  cluster_id = reply.cluster_id();
  gcs_durable = reply.durable();
  workers->SetClusterConfig(reply.config_json(), reply.session_name());
  if (!reply.head_node_id().empty()) workers->SetAdopter(NodeId::FromBinaryOrNil(reply.head_node_id()));
  leases->ForgetOtherNodes();  // a GCS that ended before it answered may have told of some, and its follower has never heard of them
  router->SetGcs(gcs, /*resume=*/false);
  if (Status listening = carriers->ListenForProcesses(); !listening.ok()) return End(listening);
  workers->Open();
  reports->Begin();
  memory->Start();
  RAY_LOG(INFO) << "node " << node_id << " is registered, with " << total.ToString();
  MaybeReady();
}

void NodeServices::Impl::OnLauncherReady(const Status& status) {
  if (stopping) return;
  if (!status.ok()) return End(status);
  can_fork = true;
  MaybeReady();
}

void NodeServices::Impl::MaybeReady() {
  if (!registered || !(can_fork || config.driver_only)) return;
  if (auto ready = std::exchange(on_ready, nullptr)) ready();
}

void NodeServices::Impl::OnNews(const v1::PublishNotice& news) {
  const auto on_node = [this](const v1::NodeInfo& node) {
    if (!node.alive()) leases->OnNodeDead(NodeId::FromBinaryOrNil(node.node_id()));
    nodes->OnNews(node);
  };
  if (news.has_node()) on_node(news.node());
  for (const v1::NodeInfo& node : news.nodes()) on_node(node);
  if (news.has_worker()) OnEndedElsewhere(news.worker());
  for (const v1::WorkerDiedNotice& death : news.workers()) OnEndedElsewhere(death);
}

void NodeServices::Impl::OnEndedElsewhere(const v1::WorkerDiedNotice& death) {
  const WorkerId worker = WorkerId::FromBinaryOrNil(death.worker_id());
  watches->OnEnded({NodeId::FromBinaryOrNil(death.node_id()), worker});
  workers->NotifyAll(MethodId::kWorkerDied, death);
  leases->OnOwnerDied(worker);
  objects->OnWorkerDied(worker);
  adoption->OnWorkerDied(worker);
}

void NodeServices::Impl::OnFoundEnded(const Address& process) {
  if (process.worker_id.IsNil()) return;
  v1::WorkerDiedNotice death;
  death.set_worker_id(process.worker_id.Binary());
  death.set_node_id(process.node_id.Binary());
  OnEndedElsewhere(death);
}

void NodeServices::Impl::OnNodeDead(const NodeId& node, const std::string& reason) {
  v1::NodeDiedNotice notice;
  notice.set_node_id(node.Binary());
  notice.set_reason(reason);
  workers->NotifyAll(MethodId::kNodeDied, notice);
  objects->OnNodeDead(node);
}

void NodeServices::Impl::OnProcessEnded(const ProcessEnd& end) {
  const std::optional<std::vector<NodeId>> met = tunnels->RemoveProcess(end.worker, end.detail);
  memory->OnEnded(end.worker);
  leases->OnProcessEnded(end);
  objects->OnWorkerDied(end.worker);
  adoption->OnWorkerDied(end.worker);
  v1::ReportWorkerDiedRequest report;
  report.set_node_id(node_id.Binary());
  report.set_worker_id(end.worker.Binary());
  report.set_detail(end.detail);
  report.set_intended(end.intended);
  report.set_out_of_memory(end.out_of_memory);
  report.set_in_order(end.in_order);
  report.set_with_node(end.with_node);
  report.set_is_driver(end.is_driver);
  if (!end.job.IsNil()) report.set_job_id(end.job.Binary());
  report.set_pid(end.pid);
  report.set_to_met_nodes(met.has_value());
  for (const NodeId& node : met.value_or(std::vector<NodeId>())) report.add_met_node_ids(node.Binary());
  // Over a link that is not up yet it follows the registration, which may have been made before this.
  if (gcs != nullptr && !gcs->closed()) gcs->Notify(MethodId::kReportWorkerDied, report);
  drain->OnWorkSoon();
  if (!gcs_durable) return;
  const Time now = loop->clock().Now();
  while (!deaths.empty() && (deaths.size() >= kMaxDeathsKept || deaths.front().first + kDeathsKept < now)) deaths.pop_front();
  deaths.emplace_back(now, std::move(report));
}

std::shared_ptr<void> NodeServices::Impl::Prefetch(const v1::RequestLeaseRequest& message) {
  std::vector<CopyToSave> copies;
  for (const v1::LeaseArgument& argument : message.arguments()) {
    CopyToSave& copy = copies.emplace_back();
    copy.id = ObjectId::FromBinaryOrNil(argument.object_id());
    copy.size = argument.size();
    copy.metadata = argument.metadata();
    copy.owner = FromProto(argument.owner());
    for (const std::string& node : argument.node_ids()) copy.nodes.push_back(NodeId::FromBinaryOrNil(node));
    copy.attempt = argument.attempt();
  }
  return objects->Prefetch(std::move(copies));
}

std::string NodeServices::Impl::Stats() const {
  JsonWriter json;
  json.BeginObject().Key("node_id").String(node_id.Hex()).Key("pid").Int(deps.pid);
  leases->WriteStats(&json);
  workers->WriteStats(&json);
  const auto stats = objects->Stats();
  json.Key("store")
      .BeginObject()
      .Key("capacity")
      .Int(static_cast<int64_t>(stats.capacity))
      .Key("used")
      .Int(static_cast<int64_t>(stats.used));
  json.Key("num_objects").Int(static_cast<int64_t>(stats.num_objects));
  json.Key("spilled_bytes").Int(static_cast<int64_t>(stats.spilled_bytes));
  json.Key("spilled_objects").Int(static_cast<int64_t>(stats.spilled_objects));
  json.Key("overflow_bytes").Int(static_cast<int64_t>(stats.overflow_bytes));
  json.Key("given_bytes").Int(static_cast<int64_t>(objects->given_bytes()));
  json.Key("received_bytes").Int(static_cast<int64_t>(objects->received_bytes())).EndObject();
  adoption->WriteStats(&json);
  return json.EndObject().Take();
}

// ---- leaving ----

void NodeServices::Impl::Drain(const std::string& reason, Duration deadline) {
  if (!stopping) drain->Begin(reason, deadline);
}

void NodeServices::Impl::OnDrainOrder(const v1::DrainNotice& order, rpc::Responder responder) {
  const Duration deadline = std::chrono::milliseconds(order.deadline_ms());
  if (!order.only_if_idle() || stopping) {  // one that stops leaves anyway
    Drain(order.reason(), deadline);
    if (responder.valid()) responder.Send(v1::LeaseEmpty());
    return;
  }
  drain->BeginIfIdle(order.reason(), deadline, [responder = std::make_shared<rpc::Responder>(std::move(responder))](const Status& status) {
    if (!responder->valid()) return;
    if (status.ok()) return responder->Send(v1::LeaseEmpty());
    responder->Fail(status);
  });
}

void NodeServices::Impl::TellDraining(const std::string& reason, Duration left) {
  v1::DrainNodeRequest report;
  report.set_node_id(node_id.Binary());
  report.set_reason(reason);
  report.set_deadline_ms(std::chrono::duration_cast<std::chrono::milliseconds>(left).count());
  draining = {reason, loop->clock().Now() + left};
  if (gcs != nullptr && !gcs->closed()) gcs->Notify(MethodId::kReportDraining, report);
}

// ---- the end ----

void NodeServices::Impl::Stop(const std::string& reason, std::function<void()> done) {
  if (stopping) return;
  stopping = true;
  reports->Stop();  // of the leases that end now as well
  RAY_LOG(INFO) << "stopping: " << reason;
  if (registered && !drain->draining()) {  // before its workers end: what ends with them starts again elsewhere, not here
    leases->StopGrants();
    TellDraining(reason, Duration::zero());
  }
  memory->Stop();
  drain->Stop();
  if (gcs_lost_timer != 0) loop->CancelTimer(gcs_lost_timer);
  if (gcs == nullptr || gcs->closed() || !gcs_lost.empty())
    router->LoseGcs(Status::Unavailable("this node stops, and has no connection to the GCS"));
  workers->Shutdown(config.stop_grace, [this, reason, done = std::move(done)] { Leave(reason, done); });
}

void NodeServices::Impl::Leave(const std::string& reason, std::function<void()> done) {
  deps.launcher->Stop();
  teller->Stop();
  hub->Shutdown();
  nodes->Close();
  carriers->StopLinks();
  auto finish = [this, done = std::move(done)] {
    carriers->Shutdown();
    loop->Post("raylet.done", done);  // after the close callbacks
  };
  if (!registered || gcs == nullptr || gcs->closed()) return finish();
  v1::UnregisterNodeRequest request;
  request.set_node_id(node_id.Binary());
  request.set_reason(reason);
  rpc::CallOptions options;
  options.timeout = kUnregisterWait;
  gcs->Call(
      MethodId::kUnregisterNode, request, {}, [finish](Status, rpc::Reply) { finish(); }, options);
}

// ---- the facade ----

NodeServices::NodeServices(RayletConfig config, Deps deps) : impl_(std::make_unique<Impl>(std::move(config), std::move(deps))) {
  impl_->Init();
}

NodeServices::~NodeServices() {
  Abandon();
  // What still waits for an answer through a tunnel gets none: the tunnels' way out goes before those who would answer.
  impl_->nodes->Close();
  impl_->hub->Shutdown();
}

const std::shared_ptr<rpc::Dispatcher>& NodeServices::dispatcher() const { return impl_->dispatcher; }

void NodeServices::SetLogTailer(LogTailer* logs) { impl_->workers->SetLogTailer(logs); }

void NodeServices::ForwardLines(WorkerLines lines) { impl_->workers->ForwardLines(std::move(lines)); }

void NodeServices::NotifyDrivers(const JobId& job, const std::string& kind, const std::string& message) {
  impl_->workers->NotifyDrivers(job, kind, message);
}

void NodeServices::Start(const std::string& listen_address, bool plain_links, std::function<void()> on_ready,
                         std::function<void(const Status&)> on_end) {
  impl_->on_ready = std::move(on_ready);
  impl_->on_end = std::move(on_end);
  impl_->listen_address = listen_address;
  impl_->plain_links = plain_links;
  impl_->connect_deadline = impl_->loop->clock().Now() + impl_->config.connect_timeout;
  impl_->loop->Post("raylet.connect", [impl = impl_.get()] { impl->Connect(); });
}

void NodeServices::OnStoreUse() { impl_->reports->OnStoreUse(); }

void NodeServices::OnOwnerElsewhere(const Address& owner) { impl_->watches->Watch(owner); }

void NodeServices::OnLauncherReady(const Status& status) { impl_->OnLauncherReady(status); }

void NodeServices::Stop(const std::string& reason, std::function<void()> done) { impl_->Stop(reason, std::move(done)); }

void NodeServices::TellOwner(const Address& owner, const CopyRun& copy) { impl_->teller->Tell(owner, copy); }

void NodeServices::Abandon() {
  impl_->teller->Stop();
  impl_->stopping = true;
  impl_->reports->Stop();
}

void NodeServices::Drain(const std::string& reason, Duration deadline) { impl_->Drain(reason, deadline); }

void NodeServices::SetShutdownHandler(std::function<void(const std::string&)> fn) { impl_->on_shutdown = std::move(fn); }

NodeDirectory* NodeServices::nodes() const { return impl_->nodes.get(); }

const LeaseService& NodeServices::leases() const { return *impl_->leases; }

const WorkerService& NodeServices::workers() const { return *impl_->workers; }
const AdoptionService& NodeServices::adoption() const { return *impl_->adoption; }

bool NodeServices::registered() const { return impl_->registered; }

}  // namespace ray::raylet
