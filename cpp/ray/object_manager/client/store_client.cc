#include "ray/object_manager/client/store_client.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "ray/common/errors.h"
#include "ray/object_manager/client/slab_pool.h"
#include "ray/object_manager/shm/arena_writer.h"
#include "ray/util/check.h"
#include "ray/util/mutex.h"
#include "ray/v1/store.pb.h"

namespace ray::object_manager {
namespace {

constexpr Duration kConnectTimeout = std::chrono::seconds(30);
// Beyond a get's own timeout, which the store keeps: only a store that hangs lets this one pass.
constexpr Duration kReplyGrace = std::chrono::seconds(30);

Status Translate(Status status) {
  if (status.code() != StatusCode::kUnavailable) return status;
  return Status(StatusCode::kUnavailable, "the object store of this node is gone: " + status.message(),
                static_cast<int32_t>(ErrorType::kLocalRayletDied));
}

// What a blocked caller and the reply's callback share; the caller may give up before the reply comes.
template <typename T>
struct Answer {
  Mutex mu;
  bool given_up GUARDED_BY(mu) = false;
  Status status;  // these two: written before the waiter is set, read after
  T value;
  async::Waiter waiter;
};

Status Await(async::UserLoop* loop, const rpc::Connection& connection, async::Waiter* waiter, const Interrupted& interrupted) {
  for (;;) {
    if (loop->Wait(waiter, Time::Infinite()) == async::WaitResult::kDone || waiter->IsSet()) return {};
    if (interrupted && interrupted()) return Status::Cancelled("interrupted");
    // A loop that was stopped would run no callback any more.
    if (connection.closed()) return Translate(Status::Unavailable("connection closed"));
  }
}

}  // namespace

// Thread-safe. Buffers hold it beyond the life of the client.
struct StoreClient::Shared : std::enable_shared_from_this<StoreClient::Shared> {
  // Constant after Connect.
  WorkerId worker;
  rpc::ConnectionPtr connection;
  std::shared_ptr<const Mapping> mapping;  // for reading
  std::shared_ptr<ArenaWriter> writer;

  struct Entry {
    std::shared_ptr<const Mapping> mapping;  // of the arena or of a segment
    uint64_t offset = 0;
    uint64_t size = 0;
    std::string metadata;
    uint64_t grants = 0;  // pins that the store counts for this client
    uint64_t uses = 0;    // buffers alive
    bool own = false;     // made here by its owner, and not freed yet: kept pinned without buffers
  };
  // Held while drops go into the connection's buffer, taken before `mu`: what is sent after FlushDrops comes after all that was dropped before,
  // even if another thread is at it.
  Mutex flush_mu;
  Mutex mu;
  async::UserLoop* loop GUARDED_BY(mu) = nullptr;                      // null once the client is gone: then there is nobody to tell
  std::unordered_map<ObjectId, Entry, IdHash> entries GUARDED_BY(mu);  // all that this process has pinned
  std::vector<ObjectId> releases GUARDED_BY(mu);                       // not sent yet
  std::vector<ObjectId> frees GUARDED_BY(mu);
  std::optional<SlabPool> slabs GUARDED_BY(mu);                                        // set by Connect
  std::unordered_map<uint64_t, std::weak_ptr<const Mapping>> segments GUARDED_BY(mu);  // mapped for reading, now or once

  class ArenaBuffer;
  StoredValue UseLocked(const ObjectId& id, Entry* entry) REQUIRES(mu);
  void DropLocked(const ObjectId& id) REQUIRES(mu);
  void Unuse(const ObjectId& id);
  // `corked`: whatever is sent next takes it along.
  void FlushDrops(bool corked = false);
  // With what the store said when it was connected to. Owns `fd`.
  Status Open(std::string_view control, int fd);
  // A place in a slab for an object of this size, if there is one; asks for the next slab ahead.
  std::optional<SlabPool::Place> AllocateInSlab(uint64_t size);
  // On the loop, forever: gives back what is not used whenever the store asks.
  void AwaitReclaim();
  // The descriptor that comes with the reply, the caller's. The callback runs on the loop.
  using FdCallback = std::function<void(Status status, std::string_view control, int fd)>;
  void CallForFd(MethodId method, const rpc::MessageLite& request, Duration timeout, FdCallback callback);
  // Read-only. Without a round trip if somebody uses it already.
  using MappingCallback = std::function<void(Status status, std::shared_ptr<const Mapping> mapping)>;
  void MapSegment(uint64_t segment, MappingCallback callback);
  // [blocks] For writing.
  Result<std::shared_ptr<ArenaWriter>> OpenSegment(uint64_t segment, uint64_t size, const Interrupted& interrupted);
  struct PendingGet;
  void FinishGet(const std::shared_ptr<PendingGet>& get);
  // Calls and waits. A reply that comes after the caller gave up goes to `on_late`.
  template <typename ReplyMessage>
  Result<ReplyMessage> CallSync(async::UserLoop* on_loop, MethodId method, const rpc::MessageLite& request, const Interrupted& interrupted,
                                std::function<void(const ReplyMessage&)> on_late = {});
  async::UserLoop* Loop() {
    MutexLock lock(&mu);
    return loop;
  }
};

struct StoreClient::Shared::PendingGet {
  std::vector<ObjectId> ids;
  std::vector<size_t> missing;  // positions that the store was asked for
  std::vector<std::optional<StoredValue>> values;
  GetCallback callback;
  // On the loop.
  v1::StoreGetReply reply;
  std::map<uint64_t, std::shared_ptr<const Mapping>> mappings;  // by segment
  size_t unmapped = 0;                                          // segments not mapped yet
  Status status;
};

class StoreClient::Shared::ArenaBuffer final : public Buffer {
 public:
  ArenaBuffer(std::shared_ptr<Shared> shared, const ObjectId& id, const Entry& entry)
      : Buffer(entry.mapping->data() + entry.offset, entry.size), shared_(std::move(shared)), mapping_(entry.mapping), id_(id) {}
  ~ArenaBuffer() override { shared_->Unuse(id_); }

 private:
  const std::shared_ptr<Shared> shared_;
  const std::shared_ptr<const Mapping> mapping_;
  const ObjectId id_;
};

StoredValue StoreClient::Shared::UseLocked(const ObjectId& id, Entry* entry) {
  ++entry->uses;
  return {entry->metadata, std::make_shared<ArenaBuffer>(shared_from_this(), id, *entry)};
}

void StoreClient::Shared::DropLocked(const ObjectId& id) {
  auto it = entries.find(id);
  if (it == entries.end() || it->second.uses > 0 || it->second.own) return;
  releases.insert(releases.end(), it->second.grants, id);
  entries.erase(it);
  // Under the lock, since the loop may go as soon as it is released. Does not block.
  if (loop != nullptr) loop->RequestFlush();
}

void StoreClient::Shared::Unuse(const ObjectId& id) {
  MutexLock lock(&mu);
  auto it = entries.find(id);
  --it->second.uses;
  DropLocked(id);
}

void StoreClient::Shared::FlushDrops(bool corked) {
  v1::StoreReleaseRequest release;
  v1::StoreFreeRequest free;
  v1::StoreReturnSlabRequest returned;
  {
    MutexLock order(&flush_mu);
    {
      MutexLock lock(&mu);
      if (releases.empty() && frees.empty() && !slabs->has_returned()) return;
      for (const auto& [range, touched] : slabs->TakeReturned()) {
        auto* out = returned.add_ranges();
        out->set_offset(range.begin);
        out->set_size(range.size());
        out->set_touched(touched);
      }
      for (const ObjectId& id : releases) release.add_object_ids(id.Binary());
      for (const ObjectId& id : frees) free.add_object_ids(id.Binary());
      releases.clear();
      frees.clear();
    }
    if (release.object_ids_size() > 0) connection->Notify(MethodId::kStoreRelease, release, {}, /*corked=*/true);
    if (free.object_ids_size() > 0) connection->Notify(MethodId::kStoreFree, free, {}, /*corked=*/true);
    if (returned.ranges_size() > 0) connection->Notify(MethodId::kStoreReturnSlab, returned, {}, /*corked=*/true);
  }
  // On the loop a notice stays in the send buffer, and its own flusher may have run before this one.
  if (!corked) connection->Flush();
}

std::optional<SlabPool::Place> StoreClient::Shared::AllocateInSlab(uint64_t size) {
  std::optional<SlabPool::Place> place;
  bool lease = false;
  {
    MutexLock lock(&mu);
    place = slabs->Allocate(size);
    lease = slabs->StartLease();
  }
  if (lease) {
    rpc::CallTyped<v1::StoreLeaseSlabReply>(
        *connection, MethodId::kStoreLeaseSlab, v1::StoreEmpty(), {},
        [self = shared_from_this()](const Status& status, const v1::StoreLeaseSlabReply& reply, const PartList&) {
          const bool fits = reply.offset() <= self->mapping->size() && reply.size() <= self->mapping->size() - reply.offset();
          MutexLock lock(&self->mu);
          self->slabs->OnSlab(reply.offset(), status.ok() && fits ? reply.size() : 0, reply.warm_bytes());
        });
  }
  return place;
}

void StoreClient::Shared::AwaitReclaim() {
  rpc::CallTyped<v1::StoreReclaimReply>(
      *connection, MethodId::kStoreReclaim, v1::StoreEmpty(), {},
      [weak = weak_from_this()](const Status& status, const v1::StoreReclaimReply& reply, const PartList&) {
        auto self = weak.lock();
        if (!status.ok() || self == nullptr) return;
        {
          MutexLock lock(&self->mu);
          for (const std::string& binary : reply.object_ids()) {
            const ObjectId id = ObjectId::FromBinaryOrNil(binary);
            auto it = self->entries.find(id);
            if (it == self->entries.end()) continue;
            it->second.own = false;  // from now on only as long as it is used
            self->DropLocked(id);
          }
          if (reply.slabs()) self->slabs->GiveBack();
        }
        self->FlushDrops();  // before the next call, which says that all was given back
        self->AwaitReclaim();
      });
}

void StoreClient::Shared::CallForFd(MethodId method, const rpc::MessageLite& request, Duration timeout, FdCallback callback) {
  connection->Call(method, request, {},
                   [callback = std::move(callback)](Status status, rpc::Reply reply) {
                     // The store sends none without one: this process had no room for it.
                     if (status.ok() && reply.fd < 0)
                       status = Status::FromErrno(EMFILE, "no descriptor could be taken from the object store");
                     callback(std::move(status), reply.control, std::exchange(reply.fd, -1));
                   },
                   {.timeout = timeout});
}

void StoreClient::Shared::MapSegment(uint64_t segment, MappingCallback callback) {
  {
    std::shared_ptr<const Mapping> known;
    {
      MutexLock lock(&mu);
      if (auto it = segments.find(segment); it != segments.end()) known = it->second.lock();
    }
    if (known != nullptr) return callback({}, std::move(known));
  }
  v1::StoreSegmentRequest request;
  request.set_segment(segment);
  CallForFd(MethodId::kStoreSegment, request, kReplyGrace,
            [self = shared_from_this(), segment, callback = std::move(callback)](Status status, std::string_view control, int fd) {
              v1::StoreSegmentReply reply;
              if (status.ok() && !reply.ParseFromArray(control.data(), static_cast<int>(control.size()))) {
                status = Status::DataLoss("StoreSegment: a reply that cannot be parsed");
              }
              std::shared_ptr<const Mapping> mapping;
              if (status.ok()) {
                auto made = Mapping::Make(fd, reply.size(), Mapping::Mode::kRead);
                if (made.ok()) mapping = std::move(made).value();
                status = made.status();
              }
              if (fd >= 0) ::close(fd);
              if (mapping != nullptr) {
                MutexLock lock(&self->mu);
                std::erase_if(self->segments, [](const auto& known) { return known.second.expired(); });
                self->segments[segment] = mapping;
              }
              callback(std::move(status), std::move(mapping));
            });
}

template <typename ReplyMessage>
Result<ReplyMessage> StoreClient::Shared::CallSync(async::UserLoop* on_loop, MethodId method, const rpc::MessageLite& request,
                                                   const Interrupted& interrupted, std::function<void(const ReplyMessage&)> on_late) {
  auto answer = std::make_shared<Answer<ReplyMessage>>();
  rpc::CallTyped<ReplyMessage>(*connection, method, request, {}, [answer, on_late](Status status, ReplyMessage& reply, PartList) {
    {
      MutexLock lock(&answer->mu);
      if (!answer->given_up) {
        answer->status = std::move(status);
        answer->value = std::move(reply);
        answer->waiter.Notify();
        return;
      }
    }
    if (status.ok() && on_late) on_late(reply);
  });
  if (Status s = Await(on_loop, *connection, &answer->waiter, interrupted); !s.ok()) {
    MutexLock lock(&answer->mu);
    if (!answer->waiter.IsSet()) {
      answer->given_up = true;
      return s;
    }
  }
  if (!answer->status.ok()) return Translate(answer->status);
  return std::move(answer->value);
}

void StoreClient::ConnectAsync(Result<rpc::ConnectionPtr> connection, async::UserLoop* loop, const WorkerId& worker,
                               ConnectCallback callback) {
  if (!connection.ok()) return callback(Translate(connection.status()));
  auto shared = std::make_shared<Shared>();
  shared->worker = worker;
  shared->connection = *connection;
  shared->loop = loop;
  v1::StoreConnectRequest request;
  request.set_worker_id(worker.Binary());
  shared->CallForFd(
      MethodId::kStoreConnect, request, kConnectTimeout,
      [shared, callback = std::move(callback)](Status status, std::string_view control, int fd) {
        if (status.code() == StatusCode::kDeadlineExceeded) {  // of no caller of ours
          status = Status::ResourceExhausted(
              "the object store of this node takes no connection: its raylet hangs, or has no descriptor left; see raylet.out");
        }
        if (status.ok()) status = shared->Open(control, fd);
        if (!status.ok()) {
          shared->connection->Close(Status::Cancelled("the connection to the object store was not established"));
          return callback(Translate(status));
        }
        callback(std::unique_ptr<StoreClient>(new StoreClient(shared)));
      });
}

Status StoreClient::Shared::Open(std::string_view control, int fd) {
  v1::StoreConnectReply reply;
  const bool parsed = reply.ParseFromArray(control.data(), static_cast<int>(control.size()));
  auto made = parsed ? Mapping::Make(fd, reply.arena_size(), Mapping::Mode::kRead)
                     : Status::DataLoss("StoreConnect: a reply that cannot be parsed");
  if (!made.ok()) {
    ::close(fd);
    return made.status();
  }
  mapping = std::move(made).value();
  RAY_ASSIGN_OR_RETURN(writer, ArenaWriter::Make(fd, reply.arena_size()));
  async::UserLoop* on_loop = nullptr;
  {
    MutexLock lock(&mu);
    slabs.emplace(reply.slab_bytes());
    on_loop = loop;
  }
  on_loop->AddFlusher([weak = weak_from_this()] {
    if (auto self = weak.lock()) self->FlushDrops();
  });
  AwaitReclaim();
  return {};
}

Result<std::unique_ptr<StoreClient>> StoreClient::Connect(Result<rpc::ConnectionPtr> connection, async::UserLoop* loop,
                                                          const WorkerId& worker) {
  const rpc::ConnectionPtr link = connection.ok() ? *connection : nullptr;
  auto answer = std::make_shared<Answer<std::optional<Result<std::unique_ptr<StoreClient>>>>>();
  ConnectAsync(std::move(connection), loop, worker, [answer](Result<std::unique_ptr<StoreClient>> client) {
    answer->value = std::move(client);
    answer->waiter.Notify();
  });
  if (!answer->waiter.IsSet()) RAY_RETURN_NOT_OK(Await(loop, *link, &answer->waiter, {}));
  return std::move(*answer->value);
}

StoreClient::~StoreClient() {
  shared_->FlushDrops();
  {
    MutexLock lock(&shared_->mu);
    shared_->loop = nullptr;
  }
  shared_->connection->Flush();
  shared_->connection->Close(Status::Cancelled("the store client was closed"));
}

Result<WriteHandle> StoreClient::Create(const ObjectId& id, uint64_t size, std::string_view metadata, const Address& owner,
                                        const Interrupted& interrupted, uint32_t attempt) {
  WriteHandle handle;
  handle.attempt_ = attempt;
  handle.id_ = id;
  handle.size_ = size;
  handle.metadata_ = std::string(metadata);
  // What this process keeps pinned of its own must be where it says: so nobody else may make an object of that id.
  const bool own = owner.worker_id == shared_->worker;
  if (!own || id.IsPut()) {
    if (auto place = shared_->AllocateInSlab(size)) {
      handle.client_ = this;
      handle.writer_ = shared_->writer;
      handle.offset_ = place->offset;
      handle.warm_end_ = place->warm_end;
      handle.own_ = own;
      handle.slab_owner_ = owner;
      return handle;
    }
  }
  shared_->FlushDrops(/*corked=*/true);  // first, so that this object can have the memory of what was just freed, which is warm
  v1::StoreCreateRequest request;
  request.set_object_id(id.Binary());
  request.set_size(size);
  request.set_metadata(std::string(metadata));
  request.set_owner_worker_id(owner.worker_id.Binary());
  if (!owner.node_id.IsNil()) request.set_owner_node_id(owner.node_id.Binary());
  if (attempt != 0) request.set_attempt(attempt);
  auto on_late = [connection = shared_->connection, id](const v1::StoreCreateReply& reply) {
    if (reply.exists()) return;
    v1::StoreAbortRequest abort;
    abort.set_object_id(id.Binary());
    connection->Notify(MethodId::kStoreAbort, abort);
  };
  RAY_ASSIGN_OR_RETURN(v1::StoreCreateReply reply,
                       shared_->CallSync<v1::StoreCreateReply>(shared_->Loop(), MethodId::kStoreCreate, request, interrupted, on_late));
  if (reply.exists()) return Status::AlreadyExists("object " + id.Hex() + " is in the object store already");
  handle.client_ = this;  // from here on a failure aborts the object
  handle.writer_ = shared_->writer;
  if (reply.segment() != 0) {
    RAY_ASSIGN_OR_RETURN(handle.writer_, shared_->OpenSegment(reply.segment(), size, interrupted));
  }
  if (reply.offset() > handle.writer_->size() || size > handle.writer_->size() - reply.offset()) {
    return Status::DataLoss("the object store gave a place outside its memory");
  }
  handle.offset_ = reply.offset();
  handle.warm_end_ = reply.offset() + reply.warm_bytes();
  handle.own_ = own && reply.segment() == 0;  // what lies on disk is not kept mapped without a use
  return handle;
}

Result<std::shared_ptr<ArenaWriter>> StoreClient::Shared::OpenSegment(uint64_t segment, uint64_t size, const Interrupted& interrupted) {
  struct Opened {
    int fd = -1;
    ~Opened() {
      if (fd >= 0) ::close(fd);
    }
  };
  v1::StoreSegmentRequest request;
  request.set_segment(segment);
  auto answer = std::make_shared<Answer<Opened>>();
  CallForFd(MethodId::kStoreSegment, request, kReplyGrace, [answer](Status status, std::string_view, int fd) {
    answer->value.fd = fd;
    answer->status = std::move(status);
    answer->waiter.Notify();
  });
  RAY_RETURN_NOT_OK(Await(Loop(), *connection, &answer->waiter, interrupted));
  if (!answer->status.ok()) return Translate(answer->status);
  RAY_ASSIGN_OR_RETURN(auto made, ArenaWriter::Make(std::exchange(answer->value.fd, -1), size));
  return std::shared_ptr<ArenaWriter>(std::move(made));
}

WriteHandle& WriteHandle::operator=(WriteHandle&& other) noexcept {
  if (this == &other) return *this;
  Abort();
  client_ = std::exchange(other.client_, nullptr);
  id_ = other.id_;
  writer_ = std::move(other.writer_);
  offset_ = other.offset_;
  size_ = other.size_;
  warm_end_ = other.warm_end_;
  metadata_ = std::move(other.metadata_);
  attempt_ = other.attempt_;
  own_ = other.own_;
  slab_owner_ = other.slab_owner_;
  return *this;
}

uint8_t* WriteHandle::data() const { return writer_->data() + offset_; }

Status WriteHandle::Write(uint64_t offset, const void* bytes, size_t size) {
  RAY_CHECK(client_ != nullptr && offset <= size_ && size <= size_ - offset);
  return writer_->Write(offset_ + offset, bytes, size, warm_end_);
}

void WriteHandle::Seal() {
  RAY_CHECK(client_ != nullptr);
  StoreClient::Shared& shared = *std::exchange(client_, nullptr)->shared_;
  writer_.reset();
  if (own_) {
    MutexLock lock(&shared.mu);
    auto& entry = shared.entries[id_];
    entry.mapping = shared.mapping;
    entry.offset = offset_;
    entry.size = size_;
    entry.metadata = metadata_;
    entry.own = true;
    ++entry.grants;
  }
  if (slab_owner_) {
    v1::StorePutRequest request;
    request.set_object_id(id_.data(), ObjectId::kSize);
    request.set_offset(offset_);
    request.set_size(size_);
    request.set_owner_worker_id(slab_owner_->worker_id.data(), WorkerId::kSize);
    if (!slab_owner_->node_id.IsNil()) request.set_owner_node_id(slab_owner_->node_id.data(), NodeId::kSize);
    request.set_metadata(std::move(metadata_));
    request.set_keep_pin(own_);
    if (attempt_ != 0) request.set_attempt(attempt_);
    shared.FlushDrops(/*corked=*/true);  // so that the next slab can have the memory
    shared.connection->Notify(MethodId::kStorePut, request);
    return;
  }
  v1::StoreSealRequest request;
  request.set_object_id(id_.Binary());
  request.set_keep_pin(own_);
  shared.connection->Notify(MethodId::kStoreSeal, request);
}

void WriteHandle::Abort() {
  if (client_ == nullptr) return;
  writer_.reset();
  StoreClient::Shared& shared = *std::exchange(client_, nullptr)->shared_;
  if (slab_owner_) {
    MutexLock lock(&shared.mu);
    shared.slabs->OnAborted(offset_, size_);
    if (shared.loop != nullptr) shared.loop->RequestFlush();
    return;
  }
  v1::StoreAbortRequest request;
  request.set_object_id(id_.Binary());
  shared.connection->Notify(MethodId::kStoreAbort, request);
}

void StoreClient::GetAsync(const std::vector<ObjectId>& ids, Duration timeout, GetCallback callback) {
  std::vector<std::optional<StoredValue>> values(ids.size());
  std::vector<size_t> missing;
  {
    MutexLock lock(&shared_->mu);
    for (size_t i = 0; i < ids.size(); ++i) {
      auto it = shared_->entries.find(ids[i]);
      if (it != shared_->entries.end()) {
        values[i] = shared_->UseLocked(ids[i], &it->second);
      } else {
        missing.push_back(i);
      }
    }
  }
  if (missing.empty()) return callback(Status(), std::move(values));
  v1::StoreGetRequest request;
  for (size_t i : missing) request.add_object_ids(ids[i].Binary());
  rpc::CallOptions options;
  if (timeout < Duration::zero()) {
    request.set_timeout_ms(-1);
  } else {
    request.set_timeout_ms(std::chrono::ceil<std::chrono::milliseconds>(timeout).count());
    options.timeout = std::min<Duration>(timeout, Duration::max() - kReplyGrace) + kReplyGrace;
  }
  auto get = std::make_shared<Shared::PendingGet>();
  get->ids = ids;
  get->missing = std::move(missing);
  get->values = std::move(values);
  get->callback = std::move(callback);
  rpc::CallTyped<v1::StoreGetReply>(
      *shared_->connection, MethodId::kStoreGet, request, {},
      [shared = shared_, get](const Status& status, v1::StoreGetReply& reply, const PartList&) {
        if (!status.ok()) return get->callback(Translate(status), {});
        get->reply = std::move(reply);
        std::set<uint64_t> segments;
        for (const v1::StoreObject& object : get->reply.objects()) {
          if (object.found() && object.segment() != 0) segments.insert(object.segment());
        }
        get->unmapped = segments.size();
        if (segments.empty()) return shared->FinishGet(get);
        for (uint64_t segment : segments) {
          shared->MapSegment(segment, [shared, get, segment](const Status& mapped, std::shared_ptr<const Mapping> mapping) {
            if (!mapped.ok()) get->status = Translate(mapped);
            get->mappings[segment] = std::move(mapping);
            if (--get->unmapped == 0) shared->FinishGet(get);
          });
        }
      },
      options);
}

void StoreClient::Shared::FinishGet(const std::shared_ptr<PendingGet>& get) {
  // The store counts a pin for each object it found, whether or not anyone still waits here: they are taken in first, and what the
  // callback does not keep gives its pin back by itself.
  {
    MutexLock lock(&mu);
    for (size_t k = 0; k < get->missing.size() && k < static_cast<size_t>(get->reply.objects_size()); ++k) {
      v1::StoreObject& object = *get->reply.mutable_objects(static_cast<int>(k));
      const ObjectId& id = get->ids[get->missing[k]];
      if (object.lost()) get->values[get->missing[k]].emplace();
      if (!object.found()) continue;
      std::shared_ptr<const Mapping> from = object.segment() == 0 ? mapping : get->mappings[object.segment()];
      if (from == nullptr || object.offset() > from->size() || object.size() > from->size() - object.offset()) {
        releases.push_back(id);  // a pin without a use
        continue;
      }
      // While it has uses here, the object stays where it is.
      auto& entry = entries[id];
      entry.mapping = std::move(from);
      entry.offset = object.offset();
      entry.size = object.size();
      entry.metadata = std::move(*object.mutable_metadata());
      ++entry.grants;
      get->values[get->missing[k]] = UseLocked(id, &entry);
    }
  }
  if (!get->status.ok()) return get->callback(get->status, {});
  get->callback(Status(), std::move(get->values));
}

Result<std::vector<std::optional<StoredValue>>> StoreClient::Get(const std::vector<ObjectId>& ids, Duration timeout,
                                                                 const Interrupted& interrupted) {
  using Values = std::vector<std::optional<StoredValue>>;
  auto answer = std::make_shared<Answer<Values>>();
  GetAsync(ids, timeout, [answer](Status status, Values values) {
    answer->status = std::move(status);
    answer->value = std::move(values);
    answer->waiter.Notify();
  });
  if (!answer->waiter.IsSet()) RAY_RETURN_NOT_OK(Await(shared_->Loop(), *shared_->connection, &answer->waiter, interrupted));
  if (!answer->status.ok()) return answer->status;
  return std::move(answer->value);
}

std::optional<StoredValue> StoreClient::TryGet(const ObjectId& id) {
  MutexLock lock(&shared_->mu);
  auto it = shared_->entries.find(id);
  if (it == shared_->entries.end()) return std::nullopt;
  return shared_->UseLocked(id, &it->second);
}

void StoreClient::Free(const std::vector<ObjectId>& ids) {
  if (ids.empty()) return;
  MutexLock lock(&shared_->mu);
  for (const ObjectId& id : ids) {
    shared_->frees.push_back(id);
    auto it = shared_->entries.find(id);
    if (it == shared_->entries.end()) continue;
    it->second.own = false;
    shared_->DropLocked(id);
  }
  shared_->loop->RequestFlush();
}

Result<std::vector<bool>> StoreClient::Contains(const std::vector<ObjectId>& ids, const Interrupted& interrupted) {
  shared_->FlushDrops(/*corked=*/true);  // what this process freed is not there any more
  v1::StoreFreeRequest request;
  for (const ObjectId& id : ids) request.add_object_ids(id.Binary());
  RAY_ASSIGN_OR_RETURN(v1::StoreContainsReply reply,
                       shared_->CallSync<v1::StoreContainsReply>(shared_->Loop(), MethodId::kStoreContains, request, interrupted));
  std::vector<bool> out(reply.contained().begin(), reply.contained().end());
  out.resize(ids.size());
  return out;
}

Result<StoreClientStats> StoreClient::Stats(const Interrupted& interrupted) {
  shared_->FlushDrops();  // what this process dropped no longer counts
  RAY_ASSIGN_OR_RETURN(v1::StoreStatsReply reply,
                       shared_->CallSync<v1::StoreStatsReply>(shared_->Loop(), MethodId::kStoreStats, v1::StoreEmpty(), interrupted));
  return StoreClientStats{.capacity = reply.capacity(),
                          .used = reply.used(),
                          .num_objects = reply.num_objects(),
                          .pinned = reply.pinned(),
                          .spilled_bytes = reply.spilled_bytes(),
                          .spilled_objects = reply.spilled_objects(),
                          .overflow_bytes = reply.overflow_bytes(),
                          .total_spilled_bytes = reply.total_spilled_bytes(),
                          .total_restored_bytes = reply.total_restored_bytes(),
                          .slab_bytes = reply.slab_bytes()};
}

}  // namespace ray::object_manager
