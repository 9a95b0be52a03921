#include "ray/testing/sim/sim_store.h"

#include <utility>

#include "ray/util/check.h"

namespace ray::sim {
namespace {

constexpr Duration kMinCopy = std::chrono::microseconds(2), kMaxCopy = std::chrono::microseconds(400);

// Ends with its process.
struct StorePart {
  explicit StorePart(std::unique_ptr<object_manager::StoreService> s) : store(std::move(s)) {}
  ~StorePart() { store->Stop(); }
  StorePart(const StorePart&) = delete;
  StorePart& operator=(const StorePart&) = delete;
  const std::unique_ptr<object_manager::StoreService> store;
};

}  // namespace

SimStore::SimStore(SimNetwork* network, Process* raylet, const NodeId& node, const std::string& address, const StoreSimConfig& config,
                   raylet::TransferService::Deps deps, std::function<void()> on_use, std::function<void(const Address&)> on_owner)
    : process_(network->world()->NewProcess("store", raylet->host())) {
  raylet->OnDeath([process = process_](int) { process->Kill(Death::kExited); });
  object_manager::StoreConfig store;
  store.capacity = config.capacity;
  store.warm_ahead_bytes = 0;  // pages are made by a thread
  store.node = node.Hex();
  store.max_spill_file_bytes = config.capacity / 8;
  auto disk = std::make_unique<SimSpillDisk>(process_, config.disk);
  disk_ = disk.get();
  auto made = object_manager::StoreService::Make(store, process_->loop(), process_->clock(), std::move(disk));
  RAY_CHECK(made.ok()) << made.status().ToString();
  store_ = made->get();
  process_->Own(std::make_shared<StorePart>(std::move(made).value()));
  store_->SetUseWatch(std::move(on_use));
  store_->SetOwnerWatch(std::move(on_owner));
  store_->Start();
  const Status listens = network->Listen(process_, address, store_->dispatcher().get(),
                                         [store = store_](const rpc::ConnectionPtr& c) { store->OnConnection(c); });
  RAY_CHECK(listens.ok()) << listens.ToString();

  object_manager::PullConfig pull;
  pull.self = node;
  pull.chunk_bytes = config.chunk_bytes;
  pull.max_asked_bytes = config.chunk_bytes * 12;
  pull.budget_bytes = std::max(config.capacity / 2, config.chunk_bytes);
  object_manager::PushConfig push;
  push.chunk_bytes = config.chunk_bytes;
  push.tree_from_bytes = config.chunk_bytes * 4;
  push.max_sending_bytes = config.chunk_bytes * 12;
  deps.store = store_;
  transfers_ =
      std::make_unique<raylet::TransferService>(std::move(deps), pull, push, std::make_unique<SimTasks>(raylet, kMinCopy, kMaxCopy));
  objects_.Set(store_, transfers_.get());
}

}  // namespace ray::sim
