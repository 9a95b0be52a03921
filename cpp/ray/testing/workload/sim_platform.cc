#include "ray/testing/workload/sim_platform.h"

#include <utility>
#include <vector>

#include "ray/util/check.h"

namespace ray::sim {
namespace {

class EmptyStore final : public core::ValueStore {
 public:
  Status Write(const ObjectId&, uint64_t, std::string_view, const Address&,
               const std::function<Status(const core::PieceWriter&)>&) override {
    return Status::Unimplemented("the store is not simulated");
  }
  Result<std::vector<core::FoundValue>> Get(const std::vector<ObjectId>& ids, Time, bool*) override {
    return std::vector<core::FoundValue>(ids.size(), core::FoundValue{nullptr, /*lost=*/true});
  }
  BufferPtr TryGet(const ObjectId&) override { return nullptr; }
  Result<std::vector<bool>> Contains(const std::vector<ObjectId>& ids) override { return std::vector<bool>(ids.size(), false); }
  void Free(const std::vector<ObjectId>&) override {}
  Status FreeAndWait(const std::vector<ObjectId>&) override { return Status::Ok(); }
};

}  // namespace

Status SimPlatform::Open(std::shared_ptr<const rpc::Dispatcher> dispatcher, std::shared_ptr<rpc::FaultInjector> faults) {
  RAY_CHECK(faults == nullptr) << "a simulated network has faults of its own";
  dispatcher_ = std::move(dispatcher);
  process_->Own(std::const_pointer_cast<rpc::Dispatcher>(dispatcher_));  // connections hold it until the process has ended
  return Status::Ok();
}

Status SimPlatform::Listen(const std::string& socket) {
  RAY_RETURN_NOT_OK(network_->Listen(process_, AddressOf(socket), dispatcher_.get()));
  listening_.insert(socket);
  return Status::Ok();
}

Result<rpc::ConnectionPtr> SimPlatform::Connect(const std::string& socket) {
  if (dispatcher_ == nullptr) return Status::Unavailable("the carrier was shut down");
  if (!network_->Listens(AddressOf(socket))) return Status::NotFound("nobody listens on " + socket);
  return network_->Connect(process_, AddressOf(socket), dispatcher_.get());
}

void SimPlatform::CloseConnections() {
  dispatcher_ = nullptr;
  for (const std::string& socket : std::exchange(listening_, {})) network_->StopListening(AddressOf(socket));
  const auto connections = process_->connections;
  for (const auto& [id, connection] : connections) connection->Close(Status::Unavailable("this process leaves"));
}

std::unique_ptr<core::ValueStore> SimPlatform::MakeStore(const WorkerId&) { return std::make_unique<EmptyStore>(); }

}  // namespace ray::sim
