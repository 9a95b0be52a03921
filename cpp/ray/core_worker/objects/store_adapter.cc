// The real ValueStore: object_manager's client.
#include <algorithm>
#include <utility>

#include "ray/core_worker/objects/value_store.h"
#include "ray/object_manager/client/store_client.h"

namespace ray::core {
namespace {

class StoreAdapter final : public ValueStore {
 public:
  StoreAdapter(object_manager::StoreClient* client, const Clock* clock) : client_(client), clock_(clock) {}

  Status Write(const ObjectId& id, uint64_t size, std::string_view metadata, const Address& owner, uint32_t attempt,
               const std::function<Status(const PieceWriter&)>& fill) override {
    auto handle = client_->Create(id, size, metadata, owner, {}, attempt);
    if (!handle.ok()) {
      // An earlier attempt of the same task got as far as this.
      return handle.status().code() == StatusCode::kAlreadyExists ? Status::Ok() : handle.status();
    }
    RAY_RETURN_NOT_OK(fill([&](size_t offset, const char* bytes, size_t n) { return handle->Write(offset, bytes, n); }));
    handle->Seal();
    return Status::Ok();
  }

  Result<std::vector<FoundValue>> Get(const std::vector<ObjectId>& ids, Time deadline, bool* interrupted) override {
    const Duration timeout = deadline.is_infinite() ? Duration(-1) : std::max(deadline - clock_->Now(), Duration::zero());
    auto values = client_->Get(ids, timeout, [interrupted] { return *interrupted = true; });
    if (!values.ok()) return values.status();
    std::vector<FoundValue> found(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) {
      std::optional<object_manager::StoredValue>& value = (*values)[i];
      if (!value.has_value()) continue;
      found[i].lost = value->blob == nullptr;
      found[i].blob = std::move(value->blob);
    }
    return found;
  }

  BufferPtr TryGet(const ObjectId& id) override {
    auto value = client_->TryGet(id);
    return value.has_value() ? std::move(value->blob) : nullptr;
  }

  Result<std::vector<bool>> Contains(const std::vector<ObjectId>& ids) override { return client_->Contains(ids, {}); }

  void Free(const std::vector<ObjectId>& ids) override { client_->Free(ids); }

  Status FreeAndWait(const std::vector<ObjectId>& ids) override {
    client_->Free(ids);
    return client_->Contains(ids).status();  // requests of one client are served in their order
  }

 private:
  object_manager::StoreClient* const client_;
  const Clock* const clock_;
};

}  // namespace

std::unique_ptr<ValueStore> WrapStoreClient(object_manager::StoreClient* client, const Clock* clock) {
  return std::make_unique<StoreAdapter>(client, clock);
}

}  // namespace ray::core
