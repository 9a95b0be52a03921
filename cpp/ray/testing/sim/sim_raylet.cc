#include "ray/testing/sim/sim_raylet.h"

#include <utility>
#include <vector>

#include "ray/raylet/nodes/node_directory.h"
#include "ray/testing/sim/sim_gcs.h"

namespace ray::sim {

SimRaylet* SimRaylet::Start(SimNetwork* network, HostId host, Options options) {
  Process* process = network->world()->NewProcess("raylet", host);
  const auto raylet = std::make_shared<SimRaylet>(network, process, std::move(options));
  network->world()->Record("raylet starts", {}, process->id(), host);
  process->Own(raylet);
  process->Run([&] { raylet->Begin(); });
  return raylet.get();
}

SimRaylet::SimRaylet(SimNetwork* network, Process* process, Options options)
    : network_(network),
      process_(process),
      options_(std::move(options)),
      local_address_(options_.config.node_dir + "/sockets/" + raylet::kRayletSocket),
      launcher_(std::make_unique<SimLauncher>(process, options_.launcher, local_address_, options_.worker)) {
  if (options_.store.capacity > 0) {
    raylet::TransferService::Deps objects;
    objects.loop = process_->loop();
    objects.self = node_id_;
    objects.bulk_link = [this](const NodeId& node) { return services_->nodes()->BulkLink(node); };
    objects.link = [this](const NodeId& node) { return services_->nodes()->Link(node); };
    objects.tell = [this](const Address& owner, const CopyRun& copy) { services_->TellOwner(owner, copy); };
    objects.warn = [this](const JobId& job, const std::string& message) { services_->NotifyDrivers(job, "fetch", message); };
    store_ = std::make_unique<SimStore>(
        network_, process_, node_id_, options_.config.node_dir + "/sockets/" + raylet::kStoreSocket, options_.store, std::move(objects),
        [this] { process_->loop()->Post("raylet.store_use", [this] { services_->OnStoreUse(); }); },
        [this](const Address& owner) {
          process_->loop()->Post("raylet.owner_elsewhere", [this, owner] { services_->OnOwnerElsewhere(owner); });
        });
  }
  raylet::NodeServices::Deps deps;
  deps.loop = process_->loop();
  deps.node_id = node_id_;
  deps.carriers = this;
  deps.objects = store_ != nullptr ? store_->objects() : &no_objects_;
  deps.launcher = launcher_.get();
  deps.hostname = options_.config.node_ip;
  deps.pid = process_->pid();
  options_.config.faults = network_->FaultsOf(process_);
  deps.kill_node = [process = process_] { process->EndSoon(137); };
  services_ = std::make_unique<raylet::NodeServices>(options_.config, std::move(deps));
  if (store_ != nullptr) store_->transfers()->RegisterHandlers(services_->dispatcher().get());
}

SimRaylet::~SimRaylet() {
  if (store_ != nullptr) store_->transfers()->Stop();  // before the services that it asks for links
}

void SimRaylet::Begin() {
  services_->SetShutdownHandler([this](const std::string& reason) {
    if (std::exchange(stopping_, true)) return;
    services_->Stop(reason, [this] { process_->EndSoon(0); });
  });
  (void)network_->Listen(process_, options_.config.listen, services_->dispatcher().get());
  services_->Start(
      options_.config.listen, /*plain_links=*/true,
      [this] {
        ready_ = true;
        if (options_.on_ready) options_.on_ready();
      },
      [this](const Status& why) {
        process_->world()->Record("raylet gives up", {}, process_->id(), Trace::HashOf(why.message()));
        if (options_.on_end) options_.on_end(why);
        if (std::exchange(stopping_, true)) return;
        services_->Stop(why.message(), [this] { process_->EndSoon(3); });
      });
  process_->loop()->AddTimer(std::chrono::milliseconds(50), [this] { services_->OnLauncherReady(Status::Ok()); });
}

rpc::ConnectionPtr SimRaylet::ConnectGcs() { return network_->Connect(process_, kGcsAddress, services_->dispatcher().get()); }

rpc::ConnectionPtr SimRaylet::Dial(const std::string& address, raylet::Lane lane, bool, rpc::DialFailed on_failed) {
  return network_->Connect(process_, address, services_->dispatcher().get(), /*lands=*/lane == raylet::Lane::kBulk, std::move(on_failed));
}

Status SimRaylet::ListenForProcesses() { return network_->Listen(process_, local_address_, services_->dispatcher().get()); }

void SimRaylet::StopLinks() { network_->StopListening(options_.config.listen); }

void SimRaylet::Shutdown() {
  network_->StopListening(local_address_);
  const auto connections = process_->connections;
  for (const auto& [id, connection] : connections) connection->Close(Status::Unavailable("the node stops"));
}

}  // namespace ray::sim
