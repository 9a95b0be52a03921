#include "ray/core_worker/lifecycle/lazy_store.h"

#include <system_error>
#include <utility>

#include "ray/util/logging.h"

namespace ray::core {

Result<std::shared_ptr<ValueStore>> LazyStore::Connected() {
  auto present = [&]() -> std::shared_ptr<ValueStore> {
    MutexLock lock(&mu_);
    return store_;
  };
  if (auto store = present()) return store;
  MutexLock connecting(&connecting_);
  if (auto store = present()) return store;
  {
    MutexLock lock(&mu_);
    if (closed_) return Status::Unavailable("the object store was closed");
  }
  RAY_ASSIGN_OR_RETURN(std::shared_ptr<ValueStore> made, connect_());
  std::vector<ObjectId> freed;
  {
    MutexLock lock(&mu_);
    if (closed_) return Status::Unavailable("the object store was closed");
    store_ = made;
    freed.swap(pending_free_);
  }
  if (!freed.empty()) made->Free(freed);
  return made;
}

Status LazyStore::Write(const ObjectId& id, uint64_t size, std::string_view metadata, const Address& owner,
                        const std::function<Status(const PieceWriter&)>& fill) {
  RAY_ASSIGN_OR_RETURN(auto store, Connected());
  return store->Write(id, size, metadata, owner, fill);
}

Result<std::vector<FoundValue>> LazyStore::Get(const std::vector<ObjectId>& ids, Time deadline, bool* interrupted) {
  RAY_ASSIGN_OR_RETURN(auto store, Connected());
  return store->Get(ids, deadline, interrupted);
}

Result<std::vector<bool>> LazyStore::Contains(const std::vector<ObjectId>& ids) {
  RAY_ASSIGN_OR_RETURN(auto store, Connected());
  return store->Contains(ids);
}

BufferPtr LazyStore::TryGet(const ObjectId& id) {
  std::shared_ptr<ValueStore> store;
  {
    MutexLock lock(&mu_);
    store = store_;
  }
  return store == nullptr ? nullptr : store->TryGet(id);
}

void LazyStore::Free(const std::vector<ObjectId>& ids) {
  std::shared_ptr<ValueStore> store;
  std::thread last;  // has ended
  std::string no_thread;
  {
    MutexLock lock(&mu_);
    store = store_;
    if (store == nullptr) {
      if (closed_) return;
      pending_free_.insert(pending_free_.end(), ids.begin(), ids.end());
      if (std::exchange(freeing_, true)) return;
      try {
        last = std::exchange(connector_, std::thread([this] { ConnectToFree(); }));
      } catch (const std::system_error& error) {
        // No memory, or the limit of threads is reached: they go with the next Free, or the first connection.
        freeing_ = false;
        no_thread = error.what();
        if (std::exchange(lacked_thread_, true)) return;
      }
    }
  }
  if (last.joinable()) last.join();
  if (!no_thread.empty()) RAY_LOG(WARNING) << "objects that nobody needs stay in the store until a thread can be made: " << no_thread;
  if (store != nullptr) store->Free(ids);
}

void LazyStore::ConnectToFree() {
  if (const auto connected = Connected(); !connected.ok()) {
    RAY_LOG(WARNING) << "objects that nobody needs stay in the store until it can be reached: " << connected.status().ToString();
  }
  MutexLock lock(&mu_);
  freeing_ = false;
}

Status LazyStore::FreeAndWait(const std::vector<ObjectId>& ids) {
  RAY_ASSIGN_OR_RETURN(auto store, Connected());
  return store->FreeAndWait(ids);
}

void LazyStore::Close() {
  std::thread connector;
  {
    MutexLock lock(&mu_);
    closed_ = true;
    connector.swap(connector_);
  }
  if (connector.joinable()) connector.join();
  std::shared_ptr<ValueStore> store;
  MutexLock lock(&mu_);
  store.swap(store_);
}

}  // namespace ray::core
