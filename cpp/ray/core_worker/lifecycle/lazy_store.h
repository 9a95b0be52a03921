// LazyStore: a ValueStore that connects when it is first needed; most short-lived workers never touch the store. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ray/core_worker/objects/value_store.h"
#include "ray/util/mutex.h"

namespace ray::core {

class LazyStore final : public ValueStore {
 public:
  // `connect` may block; it is tried again after a failure.
  explicit LazyStore(std::function<Result<std::unique_ptr<ValueStore>>()> connect) : connect_(std::move(connect)) {}

  Status Write(const ObjectId& id, uint64_t size, std::string_view metadata, const Address& owner,
               const std::function<Status(const PieceWriter&)>& fill) override;
  Result<std::vector<FoundValue>> Get(const std::vector<ObjectId>& ids, Time deadline, bool* interrupted) override;
  BufferPtr TryGet(const ObjectId& id) override;
  Result<std::vector<bool>> Contains(const std::vector<ObjectId>& ids) override;
  void Free(const std::vector<ObjectId>& ids) override;
  Status FreeAndWait(const std::vector<ObjectId>& ids) override;
  ~LazyStore() override { Close(); }
  // The connection goes.
  void Close() override;

 private:
  // What was freed before goes with the first connection, whoever makes it.
  Result<std::shared_ptr<ValueStore>> Connected();
  void ConnectToFree();

  const std::function<Result<std::unique_ptr<ValueStore>>()> connect_;
  Mutex connecting_;  // held while connecting, so that it happens once
  Mutex mu_;
  std::shared_ptr<ValueStore> store_ GUARDED_BY(mu_);
  std::vector<ObjectId> pending_free_ GUARDED_BY(mu_);  // freed before there was a connection (results that workers sealed)
  std::thread connector_ GUARDED_BY(mu_);               // connects for them: Free must not block
  bool freeing_ GUARDED_BY(mu_) = false;                // the connector is at it
  bool lacked_thread_ GUARDED_BY(mu_) = false;          // was said
  bool closed_ GUARDED_BY(mu_) = false;
};

}  // namespace ray::core
