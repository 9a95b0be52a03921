#include "ray/testing/sim/sim_gcs.h"

#include <memory>
#include <utility>

namespace ray::sim {

Status SimGcs::Start(gcs::GcsServerOptions options) {
  process_ = world_->NewProcess("gcs", host_);
  ++starts_;
  world_->Record("gcs starts", {}, process_->id());
  options.on_storage_failed = [process = process_](const Status&) { process->EndSoon(1); };
  const auto storage = std::make_shared<SimStorage>(process_, disk_);
  process_->Own(storage);
  Status started = Status::Ok();
  process_->Run([&] {
    auto server = gcs::GcsServer::Make(std::move(options), process_->loop(), storage.get());
    if (!server.ok()) {
      started = server.status();
      return;
    }
    server_ = server->get();
    process_->Own(std::shared_ptr<gcs::GcsServer>(std::move(*server)));
    started = network_->Listen(process_, kGcsAddress, server_->dispatcher());
  });
  if (!started.ok()) process_->Kill(Death::kExited, 1 << 8);
  return started;
}

}  // namespace ray::sim
