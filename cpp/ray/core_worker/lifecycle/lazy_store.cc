#include "ray/core_worker/lifecycle/lazy_store.h"

#include <utility>

#include "ray/util/logging.h"

namespace ray::core {
namespace {

Status Closed() { return Status::Unavailable("the object store was closed"); }

}  // namespace

LazyStore::LazyStore(async::UserLoop* loop, std::function<void(Connected done)> connect) : loop_(loop), connect_(std::move(connect)) {}

Result<std::shared_ptr<ValueStore>> LazyStore::Needed() {
  const auto blocked = std::make_shared<Blocked>();
  bool begin = false;
  {
    MutexLock lock(&state_->mu);
    if (state_->store != nullptr) return state_->store;
    if (state_->closed) return Closed();
    state_->blocked.push_back(blocked);
    begin = !std::exchange(state_->connecting, true);
  }
  if (begin) Begin();
  // Where the loop was stopped nobody sets the waiter any more; who stops it closes this first.
  while (!blocked->waiter.IsSet()) loop_->Wait(&blocked->waiter, Time::Infinite());
  if (!blocked->status.ok()) return blocked->status;
  return std::move(blocked->store);
}

void LazyStore::Begin() {
  connect_([state = state_](Result<std::unique_ptr<ValueStore>> made) { OnConnected(state.get(), std::move(made)); });
}

void LazyStore::OnConnected(State* state, Result<std::unique_ptr<ValueStore>> made) {
  std::vector<std::shared_ptr<Blocked>> blocked;
  std::vector<ObjectId> freed;
  std::shared_ptr<ValueStore> store;
  if (made.ok()) store = std::move(made).value();
  {
    MutexLock lock(&state->mu);
    state->connecting = false;
    if (state->closed) return;  // who waited was told
    state->store = store;
    blocked.swap(state->blocked);
    if (store != nullptr) freed.swap(state->pending_free);
    if (store == nullptr && blocked.empty() && !state->pending_free.empty())
      RAY_LOG(WARNING) << "objects that nobody needs stay in the store until it can be reached: " << made.status().ToString();
  }
  if (!freed.empty()) store->Free(freed);
  for (const auto& one : blocked) {
    one->status = made.status();
    one->store = store;
    one->waiter.Notify();
  }
}

Status LazyStore::Write(const ObjectId& id, uint64_t size, std::string_view metadata, const Address& owner, uint32_t attempt,
                        const std::function<Status(const PieceWriter&)>& fill) {
  RAY_ASSIGN_OR_RETURN(auto store, Needed());
  return store->Write(id, size, metadata, owner, attempt, fill);
}

Result<std::vector<FoundValue>> LazyStore::Get(const std::vector<ObjectId>& ids, Time deadline, bool* interrupted) {
  RAY_ASSIGN_OR_RETURN(auto store, Needed());
  return store->Get(ids, deadline, interrupted);
}

Result<std::vector<bool>> LazyStore::Contains(const std::vector<ObjectId>& ids) {
  RAY_ASSIGN_OR_RETURN(auto store, Needed());
  return store->Contains(ids);
}

BufferPtr LazyStore::TryGet(const ObjectId& id) {
  std::shared_ptr<ValueStore> store;
  {
    MutexLock lock(&state_->mu);
    store = state_->store;
  }
  return store == nullptr ? nullptr : store->TryGet(id);
}

void LazyStore::Free(const std::vector<ObjectId>& ids) {
  std::shared_ptr<ValueStore> store;
  bool begin = false;
  {
    MutexLock lock(&state_->mu);
    if (state_->closed) return;
    store = state_->store;
    if (store == nullptr) {
      state_->pending_free.insert(state_->pending_free.end(), ids.begin(), ids.end());
      begin = !std::exchange(state_->connecting, true);
    }
  }
  if (store != nullptr) return store->Free(ids);
  if (begin) Begin();
}

Status LazyStore::FreeAndWait(const std::vector<ObjectId>& ids) {
  RAY_ASSIGN_OR_RETURN(auto store, Needed());
  return store->FreeAndWait(ids);
}

void LazyStore::Close() {
  std::shared_ptr<ValueStore> store;
  std::vector<std::shared_ptr<Blocked>> blocked;
  {
    MutexLock lock(&state_->mu);
    state_->closed = true;
    store.swap(state_->store);
    blocked.swap(state_->blocked);
  }
  for (const auto& one : blocked) {
    one->status = Closed();
    one->waiter.Notify();
  }
}

std::unique_ptr<ValueStore> MakeClientStore(async::UserLoop* loop, std::function<Result<rpc::ConnectionPtr>()> connect,
                                            const WorkerId& self, std::unique_ptr<object_manager::StoreClient>* client) {
  return std::make_unique<LazyStore>(loop, [loop, connect = std::move(connect), self, client](LazyStore::Connected done) {
    using object_manager::StoreClient;
    StoreClient::ConnectAsync(connect(), loop, self, [loop, client, done = std::move(done)](Result<std::unique_ptr<StoreClient>> made) {
      if (!made.ok()) return done(made.status());
      *client = std::move(made).value();
      done(WrapStoreClient(client->get(), &loop->clock()));
    });
  });
}

}  // namespace ray::core
