// SimStore: the objects of a simulated node: the product's StoreService and TransferService. Its shared memory is shared memory, as all processes of a simulation
// are one; its disk is a SimSpillDisk, and its clients come over the SimNetwork. As the store's thread is one of the raylet's process, it is a process here that ends
// with the raylet's: it has a loop of its own, so that what the two do comes in any order, and may stand still alone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "ray/raylet/objects/store_objects.h"
#include "ray/testing/sim/network.h"
#include "ray/testing/sim/spill_disk.h"

namespace ray::sim {

struct StoreSimConfig {
  uint64_t capacity = 0;           // 0: the node has no store, and what would go there fails
  uint64_t chunk_bytes = 4 << 10;  // of what goes from node to node; all other sizes of a transfer follow it as they do in the product
  SpillDiskConfig disk;
};

class SimStore {
 public:
  // Of a raylet, by whose SimRaylet it is owned; `address`: where its clients come.
  SimStore(SimNetwork* network, Process* raylet, const NodeId& node, const std::string& address, const StoreSimConfig& config,
           raylet::TransferService::Deps deps, std::function<void()> on_use, std::function<void(const Address&)> on_owner);

  Process* process() const { return process_; }
  raylet::NodeObjects* objects() { return &objects_; }
  raylet::TransferService* transfers() const { return transfers_.get(); }
  const object_manager::StoreService& store() const { return *store_; }
  const SimSpillDisk& disk() const { return *disk_; }

 private:
  Process* const process_;
  SimSpillDisk* disk_ = nullptr;                   // the store's
  object_manager::StoreService* store_ = nullptr;  // its process's
  std::unique_ptr<raylet::TransferService> transfers_;
  raylet::StoreObjects objects_;
};

}  // namespace ray::sim
