#include "ray/core_worker/memory_store/memory_store.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <new>
#include <utility>

#include "ray/common/errors.h"
#include "ray/util/check.h"
#include "ray/util/sparse.h"

namespace ray::core {
namespace {

// Metadata as a number, so that an entry needs no string: an error's own, or one of these. Others are not in use (docs/protocol/values.md).
constexpr int32_t kPython = -1;
constexpr int32_t kRaw = -2;
constexpr int32_t kTaskError = static_cast<int32_t>(ErrorType::kTaskExecutionException);

int32_t KindOf(std::string_view metadata) {
  if (metadata == "PYTHON") return kPython;
  if (metadata == "RAW") return kRaw;
  int32_t number = -1;
  auto [end, error] = std::from_chars(metadata.data(), metadata.data() + metadata.size(), number);
  // A value from a faulty peer: "lost" is the honest reading of something that nobody can read.
  return error == std::errc() && end == metadata.data() + metadata.size() && number >= 0 ? number : 8;
}

std::string MetadataOf(int32_t kind) {
  if (kind == kPython) return "PYTHON";
  if (kind == kRaw) return "RAW";
  return std::to_string(kind);
}

// Stands for a value that is in shared-memory stores. Its nodes change under the lock of the MemoryStore, which alone has it.
class StoreMark final : public Buffer {
 public:
  StoreMark(uint64_t size, std::span<const NodeId> nodes, uint32_t attempt)
      : Buffer(nullptr, size), nodes(nodes.begin(), nodes.end()), attempt(attempt) {}
  void Add(const NodeId& node) {
    if (std::find(nodes.begin(), nodes.end(), node) == nodes.end()) nodes.push_back(node);
  }
  std::vector<NodeId> nodes;
  uint32_t attempt;
};

StoreMark& MarkOf(const BufferPtr& value) { return const_cast<StoreMark&>(static_cast<const StoreMark&>(*value)); }

class PackedBuffer final : public Buffer {
 public:
  explicit PackedBuffer(size_t size) : Buffer(nullptr, size) { data_ = bytes(); }
  uint8_t* bytes() { return reinterpret_cast<uint8_t*>(this + 1); }
};

// Allocates `extra` bytes behind the one object that it is asked for, which libstdc++ puts last in a block of allocate_shared.
template <typename T>
struct TrailingAllocator {
  using value_type = T;
  explicit TrailingAllocator(size_t extra) : extra(extra) {}
  template <typename U>
  TrailingAllocator(const TrailingAllocator<U>& other) : extra(other.extra) {}  // NOLINT(google-explicit-constructor): as allocators are
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T) + extra)); }
  void deallocate(T* block, size_t) { ::operator delete(block); }
  template <typename U>
  bool operator==(const TrailingAllocator<U>& other) const {
    return extra == other.extra;
  }
  size_t extra;
};

}  // namespace

std::shared_ptr<const Buffer> MakePackedBuffer(size_t size, uint8_t** writable) {
  auto buffer = std::allocate_shared<PackedBuffer>(TrailingAllocator<PackedBuffer>(size), size);
  *writable = buffer->bytes();
  return buffer;
}

// One thing that waits for one object: a position of a Watch, or else a CallbackNode.
struct MemoryStore::Node {
  Node* previous = nullptr;
  Node* next = nullptr;
  Entry* entry = nullptr;  // null: not linked
  Watch* watch = nullptr;
  uint32_t position = 0;
};

struct MemoryStore::CallbackNode : Node {
  ObjectId id;
  uint64_t token = 0;
  std::function<void(bool gone)> callback;
};

MemoryStore::~MemoryStore() {
  for (auto& [token, node] : callbacks_) delete node;
}

void MemoryStore::Link(Entry* entry, Node* node) {
  node->entry = entry;
  node->next = entry->waiters;
  if (node->next != nullptr) node->next->previous = node;
  entry->waiters = node;
}

void MemoryStore::UnlinkLocked(Node* node, const ObjectId& id) {
  if (node->previous != nullptr) {
    node->previous->next = node->next;
  } else {
    node->entry->waiters = node->next;
  }
  if (node->next != nullptr) node->next->previous = node->previous;
  // An absent object without waiters needs no entry.
  if (node->entry->waiters == nullptr) entries_.erase(id);
  node->entry = nullptr;
}

void MemoryStore::FireLocked(Entry* entry, bool failed, std::vector<CallbackNode*>* callbacks) {
  for (Node* node = std::exchange(entry->waiters, nullptr); node != nullptr;) {
    Node* next = node->next;
    node->entry = nullptr;
    if (Watch* watch = node->watch) {
      watch->ready_[node->position] = true;
      // Under the lock: the watch cannot go away before its destructor has had the lock.
      if (--watch->remaining_ == 0 || (failed && watch->stop_on_error_)) watch->Complete();
    } else {
      auto* callback = static_cast<CallbackNode*>(node);
      callbacks_.erase(callback->token);
      callbacks->push_back(callback);
    }
    node = next;
  }
}

MemoryStore::Made MemoryStore::JoinMade(Entry* entry, BufferPtr value, NodeId* primary) {
  if (!entry->in_store) return Made::kInMemory;
  StoreMark& known = MarkOf(entry->value);
  const StoreMark& copy = MarkOf(value);
  const NodeId node = copy.nodes.front();
  if (copy.attempt == known.attempt) {
    known.Add(node);
    return Made::kTaken;
  }
  if (copy.attempt < known.attempt) return Made::kUnwanted;
  const bool first = known.nodes.front() == node;
  std::erase(known.nodes, node);
  if (known.nodes.empty()) {
    entry->value = std::move(value);
    return Made::kTaken;
  }
  if (first) *primary = known.nodes.front();
  return Made::kUnwanted;
}

bool MemoryStore::PutEntry(const ObjectId& id, int32_t kind, BufferPtr value, Second second, NodeId* primary, Made* made) {
  std::vector<CallbackNode*> callbacks;
  {
    MutexLock lock(&mu_);
    Entry& entry = entries_[id];
    if (entry.value != nullptr) {
      if (second == Second::kMade) {
        *made = JoinMade(&entry, std::move(value), primary);
      } else if (second == Second::kTold && entry.in_store) {
        StoreMark& known = MarkOf(entry.value);
        if (MarkOf(value).attempt > known.attempt) {
          entry.value = std::move(value);
        } else if (MarkOf(value).attempt == known.attempt) {
          for (const NodeId& node : MarkOf(value).nodes) known.Add(node);
        }
      }
      return false;
    }
    entry.value = std::move(value);
    entry.kind = kind;
    entry.in_store = second != Second::kNone;
    ++values_;
    if (entry.waiters != nullptr) FireLocked(&entry, /*failed=*/kind >= 0, &callbacks);
  }
  // In the order of registration; lists are last in, first out.
  for (auto it = callbacks.rbegin(); it != callbacks.rend(); ++it) {
    (*it)->callback(false);
    delete *it;
  }
  return true;
}

bool MemoryStore::Put(const ObjectId& id, std::string_view metadata, BufferPtr blob) {
  RAY_CHECK(blob != nullptr);
  return PutEntry(id, KindOf(metadata), std::move(blob), Second::kNone);
}

bool MemoryStore::PutInStore(const ObjectId& id, std::string_view metadata, uint64_t size, std::span<const NodeId> nodes,
                             uint32_t attempt) {
  return PutEntry(id, KindOf(metadata), std::make_shared<StoreMark>(size, nodes, attempt), Second::kTold);
}

MemoryStore::Made MemoryStore::PutReturn(const ObjectId& id, std::string_view metadata, uint64_t size, const NodeId& node, uint32_t attempt,
                                         NodeId* primary) {
  *primary = NodeId();
  Made made = Made::kTaken;
  PutEntry(id, KindOf(metadata), std::make_shared<StoreMark>(size, std::span(&node, 1), attempt), Second::kMade, primary, &made);
  return made;
}

bool MemoryStore::AddCopy(const ObjectId& id, const NodeId& node, uint32_t attempt) {
  MutexLock lock(&mu_);
  auto it = entries_.find(id);
  if (it == entries_.end() || !it->second.in_store || MarkOf(it->second.value).attempt != attempt) return false;
  MarkOf(it->second.value).Add(node);
  return true;
}

void MemoryStore::ClearLocked(Map::iterator it) {
  --values_;
  entries_.erase(it);  // nobody waits for what is there
}

MemoryStore::Loss MemoryStore::LoseCopy(const ObjectId& id, const NodeId& node, uint32_t attempt, NodeId* primary) {
  *primary = NodeId();
  MutexLock lock(&mu_);
  auto it = entries_.find(id);
  if (it == entries_.end() || !it->second.in_store) return Loss::kNone;
  StoreMark& mark = MarkOf(it->second.value);
  if (mark.attempt != attempt) return Loss::kNone;
  const bool first = !mark.nodes.empty() && mark.nodes.front() == node;
  if (std::erase(mark.nodes, node) == 0) return Loss::kNone;
  if (!mark.nodes.empty()) {
    if (first) *primary = mark.nodes.front();
    return Loss::kCopy;
  }
  ClearLocked(it);
  return Loss::kLost;
}

MemoryStore::NodeLoss MemoryStore::LoseNode(const NodeId& node) {
  NodeLoss loss;
  {
    MutexLock lock(&mu_);
    for (auto it = entries_.begin(); it != entries_.end();) {
      auto at = it++;
      if (!at->second.in_store) continue;
      StoreMark& mark = MarkOf(at->second.value);
      const bool first = !mark.nodes.empty() && mark.nodes.front() == node;
      if (std::erase(mark.nodes, node) == 0) continue;
      if (mark.nodes.empty()) {
        loss.lost.push_back(at->first);
        ClearLocked(at);
      } else if (first) {
        loss.primaries.emplace_back(at->first, mark.nodes.front());
      }
    }
  }
  std::sort(loss.lost.begin(), loss.lost.end());
  std::sort(loss.primaries.begin(), loss.primaries.end());
  return loss;
}

bool MemoryStore::IsLocal(const ObjectId& id, const NodeId& node) const {
  MutexLock lock(&mu_);
  auto it = entries_.find(id);
  if (it == entries_.end() || it->second.value == nullptr) return false;
  if (!it->second.in_store) return true;
  const auto& nodes = MarkOf(it->second.value).nodes;
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

bool MemoryStore::Forget(const ObjectId& id, uint32_t attempt) {
  MutexLock lock(&mu_);
  auto it = entries_.find(id);
  if (it == entries_.end() || !it->second.in_store || MarkOf(it->second.value).attempt != attempt) return false;
  ClearLocked(it);
  return true;
}

void MemoryStore::FailInStore(const ObjectId& id, std::string_view metadata, BufferPtr blob) {
  MutexLock lock(&mu_);
  auto it = entries_.find(id);
  if (it == entries_.end() || !it->second.in_store) return;
  it->second.value.swap(blob);
  it->second.kind = KindOf(metadata);
  it->second.in_store = false;
}

void MemoryStore::Fill(const Entry& entry, StoredValue* out) {
  out->metadata = MetadataOf(entry.kind);
  out->in_store = entry.in_store;
  out->size = entry.value->size();
  if (entry.in_store) {
    out->blob = nullptr;
    const auto& mark = static_cast<const StoreMark&>(*entry.value);
    out->node_ids = mark.nodes;
    out->attempt = mark.attempt;
  } else {
    out->blob = entry.value;
    out->node_ids.clear();
  }
}

bool MemoryStore::Get(const ObjectId& id, StoredValue* out) const {
  MutexLock lock(&mu_);
  auto it = entries_.find(id);
  if (it == entries_.end() || it->second.value == nullptr) return false;
  Fill(it->second, out);
  it->second.read = true;
  return true;
}

bool MemoryStore::Contains(const ObjectId& id) const {
  MutexLock lock(&mu_);
  auto it = entries_.find(id);
  return it != entries_.end() && it->second.value != nullptr;
}

void MemoryStore::Delete(std::span<const ObjectId> ids, std::vector<StoredCopies>* in_store, std::vector<BufferPtr>* unread_errors) {
  std::vector<BufferPtr> dead;
  std::vector<CallbackNode*> callbacks;
  {
    MutexLock lock(&mu_);
    for (const ObjectId& id : ids) {
      auto it = entries_.find(id);
      if (it == entries_.end()) continue;
      if (it->second.waiters != nullptr) FireLocked(&it->second, /*failed=*/true, &callbacks);
      if (it->second.value != nullptr) {
        --values_;
        if (it->second.in_store && in_store != nullptr) {
          const StoreMark& mark = MarkOf(it->second.value);
          in_store->push_back({id, mark.nodes, mark.attempt});
        }
        if (unread_errors != nullptr && it->second.kind == kTaskError && !it->second.in_store && !it->second.read) {
          unread_errors->push_back(it->second.value);
        }
        dead.push_back(std::move(it->second.value));
      }
      entries_.erase(it);
    }
    ShrinkIfSparse(&entries_);
  }
  for (auto it = callbacks.rbegin(); it != callbacks.rend(); ++it) {
    (*it)->callback(true);
    delete *it;
  }
}

size_t MemoryStore::size() const {
  MutexLock lock(&mu_);
  return values_;
}

uint64_t MemoryStore::OnReady(const ObjectId& id, std::function<void(bool gone)> callback) {
  {
    MutexLock lock(&mu_);
    Entry& entry = entries_[id];
    if (entry.value == nullptr) {
      auto* node = new CallbackNode;
      node->id = id;
      node->token = next_token_++;
      node->callback = std::move(callback);
      callbacks_.emplace(node->token, node);
      Link(&entry, node);
      return node->token;
    }
  }
  callback(false);
  return 0;
}

bool MemoryStore::Cancel(uint64_t token) {
  std::unique_ptr<CallbackNode> node;  // its callback dies outside the lock
  MutexLock lock(&mu_);
  auto it = callbacks_.find(token);
  if (it == callbacks_.end()) return false;
  node.reset(it->second);
  callbacks_.erase(it);
  UnlinkLocked(node.get(), node->id);
  return true;
}

MemoryStore::Watch::Watch(MemoryStore* store, std::span<const ObjectId> ids, size_t need, bool stop_on_error)
    : store_(store), ids_(ids), ready_(ids.size()), stop_on_error_(stop_on_error) {
  need = std::min(need, ids.size());
  MutexLock lock(&store_->mu_);
  size_t found = 0;
  for (uint32_t i = 0; i < ids.size() && found < need; ++i) {
    auto it = store_->entries_.find(ids[i]);
    if (it != store_->entries_.end() && it->second.value != nullptr) {
      ready_[i] = true;
      ++found;
      if (stop_on_error && it->second.kind >= 0) found = need;
    } else {
      pending_.push_back(i);
    }
  }
  if (found >= need) {
    Complete();
    return;
  }
  remaining_ = need - found;
  nodes_ = std::make_unique<Node[]>(pending_.size());
  for (size_t k = 0; k < pending_.size(); ++k) {
    Node& node = nodes_[k];
    node.watch = this;
    node.position = pending_[k];
    Link(&store_->entries_[ids[pending_[k]]], &node);
  }
}

MemoryStore::Watch::~Watch() {
  if (nodes_ == nullptr) return;
  MutexLock lock(&store_->mu_);
  for (size_t k = 0; k < pending_.size(); ++k) {
    if (nodes_[k].entry != nullptr) store_->UnlinkLocked(&nodes_[k], ids_[pending_[k]]);
  }
}

void MemoryStore::Watch::Complete() {
  stop_on_error_ = false;
  waiter_.Notify();
}

std::vector<bool> MemoryStore::Watch::Ready() const {
  MutexLock lock(&store_->mu_);
  return ready_;
}

}  // namespace ray::core
