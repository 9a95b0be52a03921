// LazyStore: a ValueStore that connects when it is first needed; most short-lived workers never touch the store. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ray/async/loop.h"
#include "ray/core_worker/objects/value_store.h"
#include "ray/object_manager/client/store_client.h"
#include "ray/rpc/core/connection.h"
#include "ray/util/mutex.h"

namespace ray::core {

class LazyStore final : public ValueStore {
 public:
  using Connected = std::function<void(Result<std::unique_ptr<ValueStore>> store)>;
  // `connect` does not block and calls back once, on the loop or before it returns; it is called again when it has failed and the store is needed again. Whoever
  // needs the store waits on the loop, which must outlive this.
  LazyStore(async::UserLoop* loop, std::function<void(Connected done)> connect);

  Status Write(const ObjectId& id, uint64_t size, std::string_view metadata, const Address& owner, uint32_t attempt,
               const std::function<Status(const PieceWriter&)>& fill) override;
  Result<std::vector<FoundValue>> Get(const std::vector<ObjectId>& ids, Time deadline, bool* interrupted) override;
  BufferPtr TryGet(const ObjectId& id) override;
  Result<std::vector<bool>> Contains(const std::vector<ObjectId>& ids) override;
  void Free(const std::vector<ObjectId>& ids) override;
  Status FreeAndWait(const std::vector<ObjectId>& ids) override;
  ~LazyStore() override { Close(); }
  // The connection goes; who waits for it is told.
  void Close() override;

 private:
  // A caller that is blocked until there is a connection.
  struct Blocked {
    async::Waiter waiter;
    // Written before the waiter is set, read after.
    std::shared_ptr<ValueStore> store;
    Status status;
  };
  // Outlives this for as long as a connection is being made.
  struct State {
    Mutex mu;
    std::shared_ptr<ValueStore> store GUARDED_BY(mu);
    std::vector<ObjectId> pending_free GUARDED_BY(mu);  // freed before there was a connection (results that workers sealed)
    std::vector<std::shared_ptr<Blocked>> blocked GUARDED_BY(mu);
    bool connecting GUARDED_BY(mu) = false;
    bool closed GUARDED_BY(mu) = false;
  };
  // [blocks]
  Result<std::shared_ptr<ValueStore>> Needed();
  // What was freed before goes with the first connection, whoever makes it.
  void Begin();
  static void OnConnected(State* state, Result<std::unique_ptr<ValueStore>> made);

  async::UserLoop* const loop_;
  const std::function<void(Connected done)> connect_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

// One that is reached over what `connect` gives, in the name of `self`. The client is made once, and kept in `client`, which outlives the loop.
std::unique_ptr<ValueStore> MakeClientStore(async::UserLoop* loop, std::function<Result<rpc::ConnectionPtr>()> connect,
                                            const WorkerId& self, std::unique_ptr<object_manager::StoreClient>* client);

}  // namespace ray::core
