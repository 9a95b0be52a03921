// For tests of ObjectService: processes that each are one, and the store of a node.
#pragma once

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "ray/core_worker/objects/object_service.h"
#include "ray/rpc/local/local_carrier.h"
#include "ray/wire/convert.h"
#include "ray/wire/value_layout.h"

namespace ray::core {

// The store of a node, shared by its processes.
class MapStore final : public ValueStore {
 public:
  Status Write(const ObjectId& id, uint64_t size, std::string_view, const Address&, uint32_t,
               const std::function<Status(const PieceWriter&)>& fill) override {
    auto buffer = std::make_shared<HeapBuffer>(size);
    RAY_RETURN_NOT_OK(fill([&](size_t offset, const char* bytes, size_t n) {
      if (n != 0) std::memcpy(buffer->mutable_data() + offset, bytes, n);
      return Status::Ok();
    }));
    MutexLock lock(&mu_);
    objects_[id] = buffer;
    return Status::Ok();
  }
  Result<std::vector<FoundValue>> Get(const std::vector<ObjectId>& ids, Time, bool* interrupted) override {
    std::vector<FoundValue> found(ids.size());
    if ((*interrupted = interrupt_next_get.exchange(false))) return found;
    if (gone) return Status(StatusCode::kUnavailable, "the object store is gone", static_cast<int32_t>(ErrorType::kLocalRayletDied));
    found.clear();
    for (const ObjectId& id : ids) found.push_back({TryGet(id)});
    return found;
  }
  BufferPtr TryGet(const ObjectId& id) override {
    MutexLock lock(&mu_);
    auto it = objects_.find(id);
    return it == objects_.end() || gone ? nullptr : it->second;
  }
  Result<std::vector<bool>> Contains(const std::vector<ObjectId>& ids) override {
    std::vector<bool> contained;
    for (const ObjectId& id : ids) contained.push_back(TryGet(id) != nullptr);
    return contained;
  }
  void Free(const std::vector<ObjectId>& ids) override {
    MutexLock lock(&mu_);
    for (const ObjectId& id : ids) objects_.erase(id);
  }
  Status FreeAndWait(const std::vector<ObjectId>& ids) override {
    Free(ids);
    return Status::Ok();
  }
  size_t size() {
    MutexLock lock(&mu_);
    return objects_.size();
  }

  std::atomic<bool> interrupt_next_get = false;
  std::atomic<bool> gone = false;  // with its raylet

 private:
  Mutex mu_;
  std::unordered_map<ObjectId, BufferPtr, IdHash> objects_;
};

// One process: a loop with its I/O thread, a carrier that listens under the worker's name, and the service.
struct Process {
  Process(const std::string& dir, MapStore* store, const NodeId& node, Duration pull_linger = std::chrono::seconds(1))
      : self{node, WorkerId::FromRandom()} {
    auto made = async::EpollLoop::Make({});
    RAY_CHECK(made.ok());
    loop = *std::move(made);
    auto dispatcher = std::make_shared<rpc::Dispatcher>(), front = std::make_shared<rpc::Dispatcher>();
    front->RegisterFallback([this, dispatcher](rpc::Request request, rpc::Responder responder) {
      const rpc::ConnectionPtr connection = request.connection;
      const Way fares = way ? way(request.method) : Way::kHolds;
      if (fares != Way::kHolds) connection->Close(Status::Unavailable("the way broke"));
      if (fares != Way::kBreaksBefore) dispatcher->Dispatch(std::move(request), std::move(responder));
    });
    peers = PeerPool::Make(
        [this](const std::string& name) -> Result<rpc::ConnectionPtr> {
          if (out_of_descriptors) return Status::ResourceExhausted("too many open files");
          return carrier->Connect(name);
        },
        loop.get());
    ObjectService::Deps deps;
    deps.loop = loop.get();
    deps.store = store;
    deps.peers = peers;
    deps.self = self;
    deps.job_id = JobId::FromInt(1);
    deps.options.missing_after = std::chrono::milliseconds(1);
    deps.options.pull_linger = pull_linger;
    deps.options.owner_retry = std::chrono::milliseconds(1);
    deps.on_lost = [this](const ObjectId& id) {
      if (on_lost) {
        on_lost(id);
      } else {
        ErrorValue error = MakeErrorValue(ErrorType::kObjectLost, "lost");
        objects->StoreError(id, error.metadata, error.blob);
      }
    };
    deps.on_blocked = [this](bool on) { blocked += on ? 1 : 0; };
    deps.on_freed = [this](std::span<const ObjectId> ids, std::span<const ObjectId>) { freed += ids.size(); };
    objects = ObjectService::Make(std::move(deps));
    objects->RegisterHandlers(dispatcher.get());
    auto carried = rpc::LocalCarrier::Make(loop.get(), front, {.sockets_dir = dir});
    RAY_CHECK(carried.ok()) << carried.status().ToString();
    carrier = *std::move(carried);
    RAY_CHECK(carrier->Listen(WorkerSocketName(self.worker_id), [](const rpc::ConnectionPtr&) {}).ok());
    RAY_CHECK(loop->Start().ok());
  }
  ~Process() {
    objects->Shutdown();
    peers->Close();
    carrier->Shutdown();
    loop->Stop();
  }
  ObjectId Put(std::string_view text, std::vector<ObjectRefInfo> nested = {}) {
    ObjectId id;
    RAY_CHECK(objects->Put({.metadata = "RAW", .data = text, .nested = nested}, &id).ok());
    return id;
  }
  std::string Get(const ObjectId& id, const Address& owner, int64_t timeout_ms = 20000) {
    std::vector<ReadValue> out;
    const ObjectRefInfo ref{id, owner};
    ReadResult result;
    while ((result = objects->Get({&ref, 1}, timeout_ms, &out)) == ReadResult::kInterrupted) {
    }
    if (result != ReadResult::kReady) return "timeout";
    return out[0].metadata + ":" + std::string(out[0].blob->view());
  }
  ObjectId NewPending() {
    const ObjectId id = ObjectId::ForReturn(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 0);
    objects->AddOwned({&id, 1});
    return id;
  }
  void Complete(const ObjectId& id, std::string_view text) {
    ReturnValue value;
    value.id = id;
    value.metadata = "RAW";
    value.blob = HeapBuffer::CopyOf(text);
    objects->StoreReturn(value);
  }
  // What other threads bring about; bounded by the test's own time limit.
  template <typename Condition>
  void Until(Condition condition) {
    while (!condition()) std::this_thread::yield();
  }

  const Address self;
  std::function<void(const ObjectId&)> on_lost;  // set before anything is lost
  // How a request that arrives fares, if its way breaks: it gets here and is not handled, or is and its answer gets lost. Set before the first comes.
  enum class Way { kHolds, kBreaksBefore, kBreaksBehind };
  std::function<Way(MethodId)> way;
  std::atomic<bool> out_of_descriptors{false};
  std::atomic<int> blocked{0};
  std::atomic<size_t> freed{0};
  std::unique_ptr<async::EpollLoop> loop;
  std::unique_ptr<rpc::LocalCarrier> carrier;
  std::shared_ptr<PeerPool> peers;
  std::shared_ptr<ObjectService> objects;
};

}  // namespace ray::core
