// NodeObjects: the node's objects, as far as its other services care: its store, and what brings objects to it. Raylet's are real, the simulation has its own.
// On the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ray/common/address.h"
#include "ray/common/ids.h"
#include "ray/object_manager/store/store_service.h"
#include "ray/raylet/objects/transfer_service.h"
#include "ray/util/status.h"

namespace ray::raylet {

class NodeObjects {
 public:
  virtual ~NodeObjects() = default;
  // The objects of that process, or of all processes of that node, may go.
  virtual void OnWorkerDied(const WorkerId& worker) = 0;
  virtual void OnNodeDead(const NodeId& node) = 0;
  // See object_manager::StoreService.
  virtual void Reown(std::vector<ObjectId> ids, const Address& owner) = 0;
  virtual void Unkeep(std::vector<ObjectId> ids) = 0;
  // The callback runs on any thread.
  virtual void ListPrimary(std::function<void(std::vector<object_manager::StoreService::PrimaryCopy>)> callback) = 0;
  virtual object_manager::StoreStats Stats() const = 0;
  virtual uint64_t used() const = 0;
  virtual void ArmUse() = 0;  // the next change is told once, by NodeServices::OnStoreUse
  virtual void Describe(const ObjectId& id, std::function<void(std::string text, bool readable)> callback) = 0;
  // See TransferService.
  virtual void Free(const NodeId& node, std::vector<CopyRun> copies) = 0;
  virtual void Keep(const NodeId& node, std::vector<CopyRun> copies) = 0;
  virtual void Save(const CopyToSave& copy, std::function<void(const Status&)> done) = 0;
  virtual std::shared_ptr<void> Prefetch(std::vector<CopyToSave> copies) = 0;
  virtual uint64_t given_bytes() const = 0;
  virtual uint64_t received_bytes() const = 0;
  virtual std::string ExplainPull(const ObjectId& id) const = 0;
};

}  // namespace ray::raylet
