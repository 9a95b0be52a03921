// StoreObjects: the NodeObjects of a node that has a store: a StoreService, and the TransferService beside it. Owned by whoever owns both; on the raylet's loop.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ray/raylet/objects/node_objects.h"

namespace ray::raylet {

class StoreObjects final : public NodeObjects {
 public:
  // Both must be set before anything else is called, and outlive its use.
  void Set(object_manager::StoreService* store, TransferService* transfers) {
    store_ = store;
    transfers_ = transfers;
  }

  void OnWorkerDied(const WorkerId& worker) override { store_->OnWorkerDied(worker); }
  void OnNodeDead(const NodeId& node) override {
    store_->OnNodeDied(node);
    transfers_->OnNodeDead(node);
  }
  void Reown(std::vector<ObjectId> ids, const Address& owner) override { store_->Reown(std::move(ids), owner); }
  void Unkeep(std::vector<ObjectId> ids) override { store_->Unkeep(std::move(ids)); }
  void ListPrimary(std::function<void(std::vector<object_manager::StoreService::PrimaryCopy>)> callback) override {
    store_->ListPrimary(std::move(callback));
  }
  object_manager::StoreStats Stats() const override { return store_->Stats(); }
  uint64_t used() const override { return store_->used(); }
  void ArmUse() override { store_->ArmUse(); }
  void Describe(const ObjectId& id, std::function<void(std::string text, bool readable)> callback) override {
    store_->Describe(id, std::move(callback));
  }
  void Free(const NodeId& node, std::vector<CopyRun> copies) override { transfers_->Free(node, std::move(copies)); }
  void Keep(const NodeId& node, std::vector<CopyRun> copies) override { transfers_->Keep(node, std::move(copies)); }
  void Save(const CopyToSave& copy, std::function<void(const Status&)> done) override { transfers_->Save(copy, std::move(done)); }
  std::shared_ptr<void> Prefetch(std::vector<CopyToSave> copies) override { return transfers_->Prefetch(std::move(copies)); }
  uint64_t given_bytes() const override { return transfers_->given_bytes(); }
  uint64_t received_bytes() const override { return transfers_->received_bytes(); }
  std::string ExplainPull(const ObjectId& id) const override { return transfers_->Explain(id); }

 private:
  object_manager::StoreService* store_ = nullptr;
  TransferService* transfers_ = nullptr;
};

}  // namespace ray::raylet
