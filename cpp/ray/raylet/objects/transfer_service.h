// TransferService: brings objects from other nodes to this one, gives those that are here to others, and tells other nodes what becomes of
// their copies. Shell of the PullCore, the PushCore and the CopyNoticeCore.
//
// Links on TCP, encrypted or not, receive straight into the store's memory; what gRPC streams bring (of older raylets with TLS) is copied there from their buffers,
// by a thread of its own, so that copying holds up no lease. From there it goes to the links as parts. What is received is given on chunk by chunk. See docs/architecture/object-manager.md.
// On the loop only, but for what the store and the copying thread post to it; owned by Raylet.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/async/loop.h"
#include "ray/async/tick_timer.h"
#include "ray/object_manager/spill/task_thread.h"
#include "ray/object_manager/store/store_service.h"
#include "ray/object_manager/transfer/copy_notice_core.h"
#include "ray/object_manager/transfer/pull_core.h"
#include "ray/object_manager/transfer/push_core.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/v1/object_transfer.pb.h"

namespace ray::raylet {

// A copy to be brought to this node from one of `nodes`.
struct CopyToSave {
  ObjectId id;
  uint64_t size = 0;
  std::string metadata;
  Address owner;
  std::vector<NodeId> nodes;
  uint32_t attempt = 0;  // which run of its task made it
};

class TransferService {
 public:
  struct Deps {
    async::Loop* loop = nullptr;
    object_manager::StoreService* store = nullptr;
    NodeId self;
    // Links to the raylet of another node, for chunks and for notices; null: it is dead or unknown.
    std::function<rpc::ConnectionPtr(const NodeId&)> bulk_link, link;
    // Tells an owner of a copy that has come here; not set: nobody.
    std::function<void(const Address& owner, const CopyRun& copy)> tell = nullptr;
    // Tells the drivers of the job; not set: nobody.
    std::function<void(const JobId& job, const std::string& message)> warn = nullptr;
  };
  // `copier`: copies chunks, and makes pages for those that need no copy; null: a thread does.
  TransferService(Deps deps, const object_manager::PullConfig& pull, const object_manager::PushConfig& push,
                  std::unique_ptr<object_manager::TaskRunner> copier = nullptr);
  ~TransferService();
  void RegisterHandlers(rpc::Dispatcher* dispatcher);
  void OnNodeDead(const NodeId& node);
  // Brings a copy here to stay: from then on this node's is the one that is not evicted. `done` on the loop, once.
  void Save(const CopyToSave& copy, std::function<void(const Status&)> done);
  // What an owner has to say of copies on this node or another: they are of no use any more; or, they must not be evicted.
  void Free(const NodeId& node, std::vector<CopyRun> copies);
  void Keep(const NodeId& node, std::vector<CopyRun> copies);
  // For people: what it does to bring the object here; empty: nothing.
  std::string Explain(const ObjectId& id) const { return pull_.Explain(id, Now()); }
  // Brings copies here that will be wanted soon, with the least priority, as long as the answer lives. What the store has no free room for is left out.
  // The answer must go on the loop.
  std::shared_ptr<void> Prefetch(std::vector<CopyToSave> copies);
  // Bytes of objects that this node has given to others, and received, so far. Any thread.
  uint64_t given_bytes() const { return given_bytes_.load(std::memory_order_relaxed); }
  uint64_t received_bytes() const { return received_bytes_.load(std::memory_order_relaxed); }
  // Nothing is received or given from now on. Idempotent; before the store stops.
  void Stop();

 private:
  struct Receiving {
    uint64_t round = 0;
    std::shared_ptr<object_manager::ObjectRoom> room;
    uint32_t made_by = 0;  // the run that wrote what has come
    bool complete = false;
  };
  struct Wanted {  // what the store has to know about an object
    std::string metadata;
    Address owner;
    uint32_t attempt = 0;
  };
  struct Pull {
    rpc::Responder responder;
    uint64_t connection = 0, pull_id = 0;
    ObjectId id;
    std::function<void(const Status&)> done = nullptr;  // instead of the responder: it is wanted by this raylet
    bool keep = false;
    std::optional<uint32_t> owner_knows = {};  // the owner asks, and knows of a copy of that run by the answer
  };
  struct Arrival {
    Address owner;
    uint32_t attempt = 0;
    bool owner_knows = false;
  };

  // Asks for it, for `pull`.
  void Want(object_manager::PullRequest request, Wanted wanted, Pull pull);
  void HandlePull(const v1::PullObjectRequest& message, rpc::Request& request, rpc::Responder responder);
  void HandleFetch(const v1::FetchChunkRequest& message, rpc::Responder responder);
  void HandleFindSpilled(const v1::FindSpilledRequest& message, rpc::Responder responder);
  void HandleCopies(MethodId method, const v1::CopiesNotice& message, rpc::Responder responder);
  // One kind of message about copies on other nodes.
  struct Notices {
    MethodId method;
    object_manager::CopyNoticeCore core;
    object_manager::CopyNoticeEffects out;
  };
  // Carries out what has gathered.
  void SendNotices(Notices* notices);
  void Answer(Pull* pull, const Status& status, const std::vector<NodeId>& missing);
  void CancelWant(object_manager::WantNo want);
  void CancelPull(uint64_t connection, uint64_t pull_id);
  void OnRequesterGone(uint64_t connection);

  // Carries out what has gathered in pulls_out_ and pushes_out_.
  void Settle();
  void Apply(const object_manager::RoomWanted& effect);
  void Apply(const object_manager::FetchWanted& effect);
  void Apply(const object_manager::FetchForgotten& effect);
  void Apply(const object_manager::SourceLeft& effect);
  void Apply(const object_manager::PullComplete& effect);
  void Apply(const object_manager::PullDropped& effect);
  void Apply(const object_manager::PullLate& effect);
  void Apply(const object_manager::PullAnswered& effect);
  void Apply(const object_manager::PinWanted& effect);
  void Apply(const object_manager::PinDropped& effect);
  void Apply(const object_manager::ServeChunk& effect);
  void Apply(const object_manager::ServeRefused& effect);
  void OnChunk(const object_manager::FetchWanted& fetch, const Status& status, const v1::FetchChunkReply& reply, PartList parts);
  void OnWritten(const object_manager::FetchWanted& fetch, const Status& status);
  void OnTick();
  Time Now() const { return deps_.loop->clock().Now(); }

  const Deps deps_;
  const Duration stall_, give_up_;
  const std::unique_ptr<object_manager::TaskRunner> copier_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  object_manager::PullCore pull_;
  object_manager::PushCore push_;
  object_manager::PullEffects pulls_out_;
  object_manager::PushEffects pushes_out_;
  Notices frees_{MethodId::kFreeCopies, object_manager::CopyNoticeCore(), {}},
      keeps_{MethodId::kKeepCopies, object_manager::CopyNoticeCore(), {}};
  bool settling_ = false;
  std::atomic<uint64_t> given_bytes_{0}, received_bytes_{0};
  std::unordered_map<ObjectId, Wanted, IdHash> wanted_;
  std::unordered_map<ObjectId, Receiving, IdHash> receiving_;
  std::map<ObjectId, Arrival> arrived_;  // copies that have come, until their owners are told: at the end of the effects
  std::unordered_map<object_manager::FetchNo, std::shared_ptr<Landing>> landings_;         // of chunks that are asked for
  std::unordered_map<ObjectId, object_manager::StoreService::PinnedCopy, IdHash> pinned_;  // while others fetch them
  std::map<object_manager::WantNo, Pull> pulls_;
  std::map<std::pair<uint64_t, uint64_t>, object_manager::WantNo> by_caller_;  // connection, pull id
  std::set<uint64_t> watched_;                                                 // connections whose end we hear of
  std::map<object_manager::ServeNo, rpc::Responder> serving_;
  object_manager::WantNo last_want_ = 0;
  object_manager::ServeNo last_serve_ = 0;
  async::TickTimer timer_, notice_timer_;
};

}  // namespace ray::raylet
