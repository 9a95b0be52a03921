// ValueStore: what the object service needs of the node's shared-memory store. The real one wraps object_manager's StoreClient; tests use a map.
// Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ray/common/address.h"
#include "ray/common/buffer.h"
#include "ray/util/clock.h"
#include "ray/util/status.h"

namespace ray::object_manager {
class StoreClient;
}

namespace ray::core {

// Called for each piece of a value in rising order of offset: (offset, bytes, size).
using PieceWriter = std::function<Status(size_t offset, const char* bytes, size_t size)>;

struct FoundValue {
  BufferPtr blob;     // null: not there (in time)
  bool lost = false;  // not there, and never will be, unless it is made again
};

class ValueStore {
 public:
  virtual ~ValueStore() = default;
  // Creates the object, as run `attempt` of its task makes it, lets `fill` write it and seals it. Blocks while the store has no room; on a failure nothing is left behind.
  virtual Status Write(const ObjectId& id, uint64_t size, std::string_view metadata, const Address& owner, uint32_t attempt,
                       const std::function<Status(const PieceWriter&)>& fill) = 0;
  // The sealed bytes, mapped, as asked. Blocks until all are there or known to be lost, or `deadline`. `*interrupted`: a signal came, call again.
  virtual Result<std::vector<FoundValue>> Get(const std::vector<ObjectId>& ids, Time deadline, bool* interrupted) = 0;
  // The bytes if this process has them mapped (or can map them without waiting); else null. Never blocks.
  virtual BufferPtr TryGet(const ObjectId& id) = 0;
  // For each: the store of this node has it, wherever it keeps it. Blocks for the answer.
  virtual Result<std::vector<bool>> Contains(const std::vector<ObjectId>& ids) = 0;
  // One-way. Never blocks.
  virtual void Free(const std::vector<ObjectId>& ids) = 0;
  // As Free, and blocks until the store has done it: whoever asks from then on finds what is made anew under these ids, and nothing older.
  virtual Status FreeAndWait(const std::vector<ObjectId>& ids) = 0;
  // Later calls fail, or do nothing. Idempotent.
  virtual void Close() {}
};

// Both must outlive it. `clock`: of the deadlines, that of the client's loop.
std::unique_ptr<ValueStore> WrapStoreClient(object_manager::StoreClient* client, const Clock* clock);

}  // namespace ray::core
