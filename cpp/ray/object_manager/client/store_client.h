// StoreClient: a process's access to the object store of its node, over the store's socket and a mapping of its arena.
//
// Bytes are never copied to be read: a value is a Buffer over the arena, mapped read-only, and pins its object until the last holder drops it.
// The client knows what it has pinned, so a get of an object that this process uses, or owns and made itself, touches no socket. What it owns
// without using it, it gives back when the store asks (StoreReclaim). Objects for which memory had no room come as files, mapped on demand.
// Owned by the CoreWorker. Thread-safe, for user threads (without the GIL: calls marked [blocks] wait, and drive the loop meanwhile). When the
// store is gone, calls fail with UNAVAILABLE and the cause LOCAL_RAYLET_DIED; buffers stay readable.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ray/async/loop.h"
#include "ray/common/address.h"
#include "ray/common/buffer.h"
#include "ray/common/ids.h"
#include "ray/rpc/core/connection.h"
#include "ray/util/status.h"

namespace ray::object_manager {

struct StoredValue {
  std::string metadata;
  BufferPtr blob;  // null: lost; the store had it and never will again, unless it is made again
};

// Asked whenever a signal ended a wait: true gives up, with CANCELLED. Empty: never.
using Interrupted = std::function<bool()>;

struct StoreClientStats {
  uint64_t capacity = 0;
  uint64_t used = 0;
  uint64_t num_objects = 0;
  uint64_t pinned = 0;
  uint64_t spilled_bytes = 0;  // of live objects that have a copy on disk
  uint64_t spilled_objects = 0;
  uint64_t overflow_bytes = 0;  // of live objects in disk-backed memory
  uint64_t total_spilled_bytes = 0;
  uint64_t total_restored_bytes = 0;
  uint64_t slab_bytes = 0;  // leased to clients, and no object's yet
};

class ArenaWriter;
class StoreClient;

// An object being written. Sealed or, at the latest by the destructor, aborted. Owned by one thread at a time; must not outlive the client.
class WriteHandle {
 public:
  WriteHandle() = default;
  WriteHandle(WriteHandle&& other) noexcept { *this = std::move(other); }
  WriteHandle& operator=(WriteHandle&& other) noexcept;
  ~WriteHandle() { Abort(); }

  // For writing in place; Write is faster for anything large.
  uint8_t* data() const;
  uint64_t size() const { return size_; }
  // Copies `size` bytes to `offset` of the object in the fastest way. REQUIRES: within the object, not sealed.
  Status Write(uint64_t offset, const void* bytes, size_t size);
  // Makes the object immutable and visible to all. One-way. The handle is empty afterwards.
  void Seal();
  // Gives the object up. No effect on an empty handle.
  void Abort();

 private:
  friend class StoreClient;
  StoreClient* client_ = nullptr;  // null: empty
  ObjectId id_;
  std::shared_ptr<ArenaWriter> writer_;  // of the arena or of the object's own segment
  uint64_t offset_ = 0;                  // there
  uint64_t size_ = 0;
  uint64_t warm_end_ = 0;
  std::string metadata_;
  uint32_t attempt_ = 0;
  bool own_ = false;                   // made by its owner
  std::optional<Address> slab_owner_;  // its owner, if it lies in a slab: the store has not heard of it yet
};

class StoreClient {
 public:
  // `connection`: to the store, or why there is none. `callback` runs on the loop, once, or before the call returns. The loop must outlive the client; it runs.
  using ConnectCallback = std::function<void(Result<std::unique_ptr<StoreClient>> client)>;
  static void ConnectAsync(Result<rpc::ConnectionPtr> connection, async::UserLoop* loop, const WorkerId& worker, ConnectCallback callback);
  // [blocks]
  static Result<std::unique_ptr<StoreClient>> Connect(Result<rpc::ConnectionPtr> connection, async::UserLoop* loop, const WorkerId& worker);
  // No call may be in progress. Buffers may outlive the client; their pins end with its connection.
  ~StoreClient();
  StoreClient(const StoreClient&) = delete;
  StoreClient& operator=(const StoreClient&) = delete;

  // Objects of moderate size get a place in a slab that was leased ahead, without asking the store, once there is a demand for them.
  // [blocks] while the store has no room. RESOURCE_EXHAUSTED if it can never have, or had none for its grace, in memory and on disk (cause
  // OUT_OF_DISK if that is what was lacking, else OBJECT_STORE_FULL);
  // ALREADY_EXISTS if the object is sealed already (by an earlier attempt of the same task), which mostly counts as success.
  // `attempt`: which run of its task makes it.
  Result<WriteHandle> Create(const ObjectId& id, uint64_t size, std::string_view metadata, const Address& owner,
                             const Interrupted& interrupted = {}, uint32_t attempt = 0);
  // Of an owner on this node.
  Result<WriteHandle> Create(const ObjectId& id, uint64_t size, std::string_view metadata, const WorkerId& owner,
                             const Interrupted& interrupted = {}) {
    return Create(id, size, metadata, Address{NodeId(), owner}, interrupted);
  }

  // [blocks] until all are there or `timeout` has passed (negative: without end). In the order asked; nullopt: not there by then.
  Result<std::vector<std::optional<StoredValue>>> Get(const std::vector<ObjectId>& ids, Duration timeout,
                                                      const Interrupted& interrupted = {});
  // The same without blocking. `callback` runs on the loop, or before the call returns if nothing has to be asked.
  using GetCallback = std::function<void(Status status, std::vector<std::optional<StoredValue>> values)>;
  void GetAsync(const std::vector<ObjectId>& ids, Duration timeout, GetCallback callback);
  // The value, if this process has it pinned. Never blocks, asks nobody.
  std::optional<StoredValue> TryGet(const ObjectId& id);

  // For the owner: nobody refers to them any more. One-way, batched, never blocks.
  void Free(const std::vector<ObjectId>& ids);

  // [blocks] Which are sealed in the store.
  Result<std::vector<bool>> Contains(const std::vector<ObjectId>& ids, const Interrupted& interrupted = {});
  // [blocks]
  Result<StoreClientStats> Stats(const Interrupted& interrupted = {});

  struct Shared;  // internal

 private:
  friend class WriteHandle;
  explicit StoreClient(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  std::shared_ptr<Shared> shared_;  // buffers hold it too
};

}  // namespace ray::object_manager
