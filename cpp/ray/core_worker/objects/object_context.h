// What the parts of an ObjectService share, and what they ask of the whole.
//
// The service owns one context and every part. Thread contract: the members are constant after construction or thread-safe by themselves; the
// methods of ObjectHost may be called on any thread, without locks.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ray/async/loop.h"
#include "ray/common/address.h"
#include "ray/common/errors.h"
#include "ray/core_worker/memory_store/memory_store.h"
#include "ray/core_worker/objects/value_store.h"
#include "ray/core_worker/ownership/reference_table.h"
#include "ray/core_worker/peers/peer_pool.h"
#include "ray/wire/error_detail.h"

namespace ray::core {

class Owners;
using ObjectIdSet = std::unordered_set<ObjectId, IdHash>;

// A value as read. `metadata` is empty where there is none (not ready).
struct ReadValue {
  std::string metadata;
  BufferPtr blob;
};

struct Location {
  bool known = false;
  std::vector<NodeId> node_ids;
  uint64_t size = 0;
  bool spilled = false;  // a node that has a copy has written it to disk
};

enum class ReadResult : int32_t {
  kReady = 0,
  kTimeout = 1,
  kInterrupted = 2 /* run signal handlers, call again */,
  kClosed = 3 /* Shutdown */
};

// Why a copy is to be brought to this node; what it is worth there.
enum class FetchReason { kGet, kWait, kTaskArgument };

struct ObjectOptions {
  size_t max_inline_bytes = 100 << 10;                    // blobs up to this stay in the owner's memory
  Duration blocked_after = std::chrono::milliseconds(1);  // a wait longer than this tells `on_blocked`
  // A copy that is said to be in this node's store and is not found for this long is looked for; twice in vain, and it is lost. (The seal was on its way
  // before the news of it, so the second time the store has it.)
  Duration missing_after = std::chrono::milliseconds(100);
  // A copy that nobody waits for any more still comes for so long: whoever looks at the time, or handles a signal, asks again.
  Duration pull_linger = std::chrono::seconds(2);
  // An owner on another node that cannot be reached, and is not known to be dead, is asked again after this.
  Duration owner_retry = std::chrono::milliseconds(100);
};

class ObjectHost {
 public:
  virtual void CarryOut(const RefEffects& effects) = 0;
  // The object has this error for a value, if it has none yet.
  virtual void Fail(const ObjectId& id, const ErrorValue& error) = 0;
  // After a value was stored: it goes again if the last hold on its object went meanwhile.
  virtual void DropIfUnheld(const ObjectId& id) = 0;
  // The last copy that was known of it is gone: it is absent.
  virtual void OnLost(const ObjectId& id) = 0;
  // What this process owns is being handed over: what it learns from now on goes with it.
  virtual bool IsLeaving() const = 0;

 protected:
  ~ObjectHost() = default;
};

struct ObjectContext {
  async::UserLoop* const loop;
  ValueStore* const store;
  const std::shared_ptr<PeerPool> peers;
  const Address self;
  const ObjectOptions options;
  ObjectHost* const host;
  ReferenceTable table;
  MemoryStore memory;
  // Constant once the service is made.
  std::weak_ptr<void> alive;  // the service: who holds it may use all of this later
  Owners* owners = nullptr;   // who answers for what is not ours

  bool IsOurs(const ObjectRefInfo& ref) const { return ref.owner.IsNil() || ref.owner == self; }
  bool IsElsewhere(const StoredValue& value) const;  // in stores, none of them this node's
};

// Runs `done` when the last of `count` things has arrived.
class Barrier {
 public:
  Barrier(size_t count, std::function<void()> done) : left_(count), done_(std::move(done)) {}
  void Arrive() {
    if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) std::exchange(done_, nullptr)();
  }

 private:
  std::atomic<size_t> left_;
  std::function<void()> done_;
};

std::vector<ObjectId> IdsOf(std::span<const ObjectRefInfo> refs);
// By owner, in order of appearance.
std::vector<std::pair<Address, std::vector<ObjectId>>> GroupByOwner(std::span<const ObjectRefInfo> refs);
ErrorValue LostValue(const ObjectId& id, std::string_view why);

}  // namespace ray::core
