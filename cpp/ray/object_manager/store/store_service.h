// StoreService: the object store of one node. Shell around the ObjectTableCore and the SpillCore: speaks docs/protocol/store-socket.md with its clients, owns
// the arena and looks after its pages. On a loop that it is given; a StoreThread gives it one of its own, with a socket, and the simulation a loop on virtual time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ray/async/loop.h"
#include "ray/common/address.h"
#include "ray/common/buffer.h"
#include "ray/common/copy_run.h"
#include "ray/common/ids.h"
#include "ray/object_manager/spill/spill_storage.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/util/clock.h"
#include "ray/util/status.h"

namespace ray::object_manager {

struct StoreConfig {
  uint64_t capacity = 0;                             // bytes for objects, rounded down to pages; only those that were ever used take memory
  Duration create_grace = std::chrono::seconds(10);  // see ObjectTableConfig
  // Once objects of at least warm_trigger_bytes are in use, pages for up to as much as the largest of them, at most warm_ahead_bytes, are made
  // before they are asked for. More: first puts are faster, more memory is taken that may never be used. 0: never.
  uint64_t warm_ahead_bytes = uint64_t{256} << 20;
  uint64_t warm_trigger_bytes = uint64_t{8} << 20;
  // Free memory above warm_floor_bytes goes back to the system after trim_idle without use. Lower: a smaller process, slower puts after a pause.
  uint64_t warm_floor_bytes = uint64_t{256} << 20;
  Duration trim_idle = std::chrono::seconds(60);
  Duration trim_check = std::chrono::seconds(10);  // how often that is looked at, while there is more than the floor
  std::string node;                                // name of the node, hexadecimal
  // See SpillConfig and ObjectTableConfig.
  uint64_t max_spill_file_bytes = uint64_t{100} << 20;
  uint64_t max_spill_file_objects = 2000;
  double spill_threshold = 0.8;
  Duration overflow_grace = std::chrono::seconds(1);
};

struct StoreStats {
  uint64_t capacity = 0;
  uint64_t used = 0;  // bytes of live objects in memory, as asked for
  uint64_t num_objects = 0;
  uint64_t spilled_bytes = 0;  // of live objects that have a copy on disk
  uint64_t spilled_objects = 0;
  uint64_t overflow_bytes = 0;  // of live objects in disk-backed memory
  uint64_t arena_bytes = 0;     // of memory that the arena takes, for objects and as free pages
};

// Room in the store for a copy of an object, to be filled in by this process. Given up with the last reference to it or to its bytes, unless it was
// sealed; then that ends its pin. Thread-safe; may outlive the service.
class ObjectRoom : public std::enable_shared_from_this<ObjectRoom> {
 public:
  virtual ~ObjectRoom() = default;
  // Copies to `offset`, in the fastest way. REQUIRES: within the object, not sealed; no byte twice.
  virtual Status Write(uint64_t offset, const void* from, size_t size) = 0;
  // The bytes at `offset`, for somebody who fills them in himself instead of Write; holds the room. REQUIRES: as Write.
  virtual std::shared_ptr<Landing> Land(uint64_t offset, size_t size) = 0;
  // Makes filling them in fast; takes as long as it takes to make their pages.
  virtual void Prepare(uint64_t offset, size_t size) = 0;
  // All of it is written, as that run of its task made it: visible and immutable from now on.
  virtual void Seal(uint32_t made_by) = 0;
  // Its bytes, as far as they are written; the buffer holds the room.
  virtual BufferPtr bytes() = 0;
};

class StoreService {
 public:
  // `disk`: where objects go when memory is short; null: nowhere, creates fail when the arena is full. The loop and `clock` must outlive the service.
  static Result<std::unique_ptr<StoreService>> Make(const StoreConfig& config, async::Loop* loop, const Clock* clock,
                                                    std::unique_ptr<SpillStorage> disk);
  // REQUIRES: stopped, if it was started.
  ~StoreService();
  StoreService(const StoreService&) = delete;
  StoreService& operator=(const StoreService&) = delete;

  // What clients ask, for the carrier of their connections, each of which is to be told of on the loop, before anything comes on it.
  std::shared_ptr<const rpc::Dispatcher> dispatcher() const;
  void OnConnection(const rpc::ConnectionPtr& connection);

  // Rooms and pins can be had once it has returned.
  void Start();
  // Nothing runs on the loop any more. Its own threads end, what waits for an answer gets none; files are removed. Idempotent. Clients keep what they have mapped.
  void Stop();
  // The worker's objects may go. Thread-safe, returns at once.
  void OnWorkerDied(const WorkerId& worker);
  // The same of all workers of another node.
  void OnNodeDied(const NodeId& node);

  // For the transfer of objects between nodes, instead of a connection. Thread-safe, return at once; callbacks run on the store's loop.
  // Room for a copy, which may be evicted once it is sealed. `exists`: it is there, sealed. Else `room` is null where `status` says why.
  using RoomCallback = std::function<void(Status status, bool exists, std::shared_ptr<ObjectRoom> room)>;
  struct Copy {
    ObjectId id;
    uint64_t size = 0;
    std::string metadata;
    Address owner;
    uint32_t attempt = 0;  // which run of its task made it
  };
  void CreateCopy(const Copy& copy, RoomCallback callback);
  // A sealed object, pinned as long as its bytes live; restored from disk if need be. Null: it is not here, nor was it sealed within a moment.
  struct PinnedCopy {
    BufferPtr bytes;
    // The latest run of its task whose copy it counts as, and the one that wrote it: an earlier one, where a later one found it here.
    uint32_t attempt = 0, made_by = 0;
  };
  void Pin(const ObjectId& id, std::function<void(PinnedCopy copy)> callback);
  // As its owner says: they are of no use any more; or, they must not be evicted.
  void Free(std::vector<CopyRun> copies);
  void Keep(std::vector<CopyRun> copies);
  // The same of one that may be evicted at any time, until then. `callback(kept)`, on the store's loop: whether it was here.
  void KeepIfHere(const CopyRun& copy, std::function<void(bool kept)> callback);
  // Other nodes have copies that count instead.
  void Unkeep(std::vector<ObjectId> ids);
  // What is here and nobody else is known to have. The callback runs on the store's loop.
  struct PrimaryCopy {
    ObjectId id;
    uint64_t size = 0;
    Address owner;  // node_id nil: of this node
  };
  void ListPrimary(std::function<void(std::vector<PrimaryCopy>)> callback);
  // They are that process's from now on, whatever becomes of the one that owned them.
  void Reown(std::vector<ObjectId> ids, const Address& owner);

  // Which of them are on disk, whether or not they are in memory, too. The callback runs on the store's loop.
  void FindSpilled(std::vector<ObjectId> ids, std::function<void(std::vector<ObjectId>)> callback);
  // For people: where an object is, in a word or two ("spilled to disk"); empty: not here. The callback runs on the store's loop.
  void Describe(const ObjectId& id, std::function<void(std::string text, bool readable)> callback);

  // Thread-safe.
  StoreStats Stats() const;
  // Bytes of live objects in memory, as in Stats. Thread-safe.
  uint64_t used() const;
  // When that changes next, `changed` runs once, on the store's loop; again after the next ArmUse. So nobody has to look whether it has changed, and
  // nobody is told more often than he wants to hear it. Thread-safe; SetUseWatch before Start.
  void SetUseWatch(std::function<void()> changed);
  // An object of that process, which is of another node, is the first one here: its death has to come to OnWorkerDied. Runs on the store's loop. Before Start.
  void SetOwnerWatch(std::function<void(const Address& owner)> fn);
  void ArmUse();

 private:
  struct Impl;
  explicit StoreService(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ray::object_manager
