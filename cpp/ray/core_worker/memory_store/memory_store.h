// MemoryStore: values that this process knows, and who waits for those that it does not know yet.
//
// An object is absent (pending), has a value, or is known to be sealed in the shared-memory stores of some nodes. A value in memory stays until it is
// deleted; one in stores may lose its copies, and is absent again with the last. Owned by the ObjectService, which keeps an entry only while the object is referenced here.
// Thread-safe monitor with one mutex; callbacks run on the completing thread without it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/async/loop.h"
#include "ray/common/buffer.h"
#include "ray/common/ids.h"
#include "ray/util/mutex.h"

namespace ray::core {

// What is known of an object that is ready.
struct StoredValue {
  std::string metadata;  // never empty
  BufferPtr blob;        // null if in_store
  bool in_store = false;
  uint64_t size = 0;
  std::vector<NodeId> node_ids;  // in_store: the nodes that have it; never empty
  uint32_t attempt = 0;          // in_store: which run of its task made it
  bool IsError() const { return !metadata.empty() && metadata[0] >= '0' && metadata[0] <= '9'; }
};

// An object that is in stores, and the nodes of its copies; the first is the one that its owner counts on (the primary copy).
struct StoredCopies {
  ObjectId id;
  std::vector<NodeId> nodes;
  uint32_t attempt = 0;  // the latest run that made one of them
};

// Heap bytes in one allocation with their counts: what small values are made of.
std::shared_ptr<const Buffer> MakePackedBuffer(size_t size, uint8_t** writable);

class MemoryStore {
 public:
  MemoryStore() = default;
  ~MemoryStore();

  // The first one stays: false when the object had a value already. Wakes who waits.
  bool Put(const ObjectId& id, std::string_view metadata, BufferPtr blob);
  // As its owner tells. Where it is known to be in stores already, the nodes are added, or those of a later run take the place of an earlier one's; still false.
  bool PutInStore(const ObjectId& id, std::string_view metadata, uint64_t size, std::span<const NodeId> nodes, uint32_t attempt = 0);
  // As its owner: a run of its task has put it into the store of that node, in place of what earlier ones had put there. The first value stays, and what is known of
  // it, as long as there is a copy of it. `*primary`: as LoseCopy's.
  enum class Made {
    kTaken,
    kUnwanted,  // there are copies of another run
    kInMemory,  // there is a small value
  };
  Made PutReturn(const ObjectId& id, std::string_view metadata, uint64_t size, const NodeId& node, uint32_t attempt, NodeId* primary);
  // A copy more, of the value that run `attempt` made. False: it is not in stores, or of another run.
  bool AddCopy(const ObjectId& id, const NodeId& node, uint32_t attempt);
  // A copy less. kLost: that was the last one, and the object is absent from now on. kNone: there was no such copy (of that run: news that are
  // late say nothing about the copies of a later one).
  // `*primary`: the first copy is another one now, on this node; else nil.
  enum class Loss { kNone, kCopy, kLost };
  Loss LoseCopy(const ObjectId& id, const NodeId& node, uint32_t attempt, NodeId* primary);
  // All copies on the node: the objects that are absent from now on, and those with another first copy. In order of their ids.
  struct NodeLoss {
    std::vector<ObjectId> lost;
    std::vector<std::pair<ObjectId, NodeId>> primaries;
  };
  NodeLoss LoseNode(const NodeId& node);
  // It is there, and to read it nothing has to be brought to `node`.
  bool IsLocal(const ObjectId& id, const NodeId& node) const;
  // In stores, as that run made it: absent from now on, for what is known of it is of no use. False: not so.
  bool Forget(const ObjectId& id, uint32_t attempt);

  // An object in the store becomes this error: its owner, and so the store's copy, is gone. Values in memory and absent objects stay as they are.
  void FailInStore(const ObjectId& id, std::string_view metadata, BufferPtr blob);

  // False when it is absent.
  bool Get(const ObjectId& id, StoredValue* out) const;
  bool Contains(const ObjectId& id) const;
  // Who waits for a deleted object is told that it is gone. The values die on this thread, outside the lock. in_store ones are added to
  // `in_store` where it is not null; errors of tasks that nobody has read go to `unread_errors`, likewise.
  void Delete(std::span<const ObjectId> ids, std::vector<StoredCopies>* in_store = nullptr,
              std::vector<BufferPtr>* unread_errors = nullptr);
  size_t size() const;

  // `callback(gone)` once the object is ready (gone: deleted instead), at once and on this thread if it is ready. Returns a number for Cancel, 0 if
  // the callback has run.
  uint64_t OnReady(const ObjectId& id, std::function<void(bool gone)> callback);
  // True: the callback will not run. False: it has run, or is about to.
  bool Cancel(uint64_t token);

 private:
  struct Node;
  struct CallbackNode;
  struct Entry {
    BufferPtr value;          // null: absent, somebody waits. In the store: a StoreMark
    Node* waiters = nullptr;  // doubly linked; only while absent
    int32_t kind = 0;         // metadata as a number
    bool in_store = false;
    mutable bool read = false;  // by whoever may act on it
  };
  struct Hash {
    size_t operator()(const ObjectId& id) const noexcept { return id.Hash(); }  // noexcept: the map then does not store hashes
  };
  using Map = std::unordered_map<ObjectId, Entry, Hash>;

 public:
  // One blocked call that waits for any number of objects: registered once, woken once. Lives on the waiting thread's stack.
  class Watch {
   public:
    // Looks at each id under one lock. `need`: how many must be ready before the waiter is notified; once that many are found in order of
    // `ids`, the rest is not looked at. `stop_on_error`: an error among them (or a deletion) also notifies. `ids` must outlive the watch.
    Watch(MemoryStore* store, std::span<const ObjectId> ids, size_t need, bool stop_on_error);
    ~Watch();  // unregisters: O(1) for each id still pending
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    // Enough are ready.
    bool done() const { return waiter_.IsSet(); }
    async::Waiter* waiter() { return &waiter_; }
    // By position; only those seen ready so far. Exact up to the moment of the call.
    std::vector<bool> Ready() const;
    // Positions that were absent when looked at, at construction.
    const std::vector<uint32_t>& pending() const { return pending_; }

   private:
    friend class MemoryStore;
    void Complete();
    MemoryStore* const store_;
    const std::span<const ObjectId> ids_;
    async::Waiter waiter_;
    std::vector<bool> ready_;
    std::vector<uint32_t> pending_;
    std::unique_ptr<Node[]> nodes_;
    size_t remaining_ = 0;
    bool stop_on_error_ = false;
  };

 private:
  friend class Watch;
  // What becomes of a value in stores where another one is known already.
  enum class Second { kNone, kTold, kMade };
  // True: it was the first.
  bool PutEntry(const ObjectId& id, int32_t kind, BufferPtr value, Second second, NodeId* primary = nullptr, Made* made = nullptr);
  static Made JoinMade(Entry* entry, BufferPtr value, NodeId* primary);
  void ClearLocked(Map::iterator it) REQUIRES(mu_);  // absent from now on
  static void Fill(const Entry& entry, StoredValue* out);
  static void Link(Entry* entry, Node* node);
  void UnlinkLocked(Node* node, const ObjectId& id) REQUIRES(mu_);
  void FireLocked(Entry* entry, bool failed, std::vector<CallbackNode*>* callbacks) REQUIRES(mu_);

  mutable Mutex mu_;
  Map entries_ GUARDED_BY(mu_);
  std::unordered_map<uint64_t, CallbackNode*> callbacks_ GUARDED_BY(mu_);
  uint64_t next_token_ GUARDED_BY(mu_) = 1;
  size_t values_ GUARDED_BY(mu_) = 0;
};

}  // namespace ray::core
