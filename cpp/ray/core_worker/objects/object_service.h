// ObjectService: the objects of one worker or driver: put, get, wait, references, and the serving of those who ask for what this process owns.
//
// Shell around the ReferenceTable (who holds what) and the MemoryStore (values and waiters): it carries their effects out, talks to other owners
// over the PeerPool and to the shared-memory store. Owned by the CoreWorker. Thread-safe; no lock is held while calling out. Methods marked
// [blocks] may wait and must not be called on the loop or with the GIL; all others never block and may be called anywhere. Callbacks run on
// the thread that completes what they wait for: a user thread, the loop, or the caller itself before the method returns; they must not block.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ray/async/loop.h"
#include "ray/common/address.h"
#include "ray/common/errors.h"
#include "ray/core_worker/memory_store/memory_store.h"
#include "ray/core_worker/objects/value_store.h"
#include "ray/core_worker/ownership/reference_table.h"
#include "ray/core_worker/peers/peer_pool.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/util/mutex.h"
#include "ray/v1/object_transfer.pb.h"
#include "ray/v1/worker_object.pb.h"
#include "ray/wire/error_detail.h"

namespace ray::core {

// A value to store, not copied before the call. Metadata "PYTHON" and "3": `data` is the pickle and `buffers` its out-of-band buffers; any other:
// `data` is the blob.
struct ValueView {
  std::string_view metadata;
  std::string_view data;
  std::span<const std::pair<const char*, size_t>> buffers;
  std::span<const ObjectRefInfo> nested;  // refs inside; a nil owner is this process
};

// A value as read. `metadata` is empty where there is none (not ready).
struct ReadValue {
  std::string metadata;
  BufferPtr blob;
};

// One return of a task, or one item of a generator, as its owner gets it.
struct ReturnValue {
  ObjectId id;
  std::string metadata;
  bool in_store = false;
  NodeId node_id;  // in_store: where it is sealed
  uint64_t size = 0;
  uint32_t attempt = 0;               // which run of its task made it
  BufferPtr blob;                     // not in_store
  std::vector<ObjectRefInfo> nested;  // we were made a borrower of each that is not ours, once
};

// What a process made of a return: to be put into the reply.
struct StoredReturn {
  bool in_store = false;
  uint64_t size = 0;
  BufferPtr blob;  // not in_store
};

struct Location {
  bool known = false;
  std::vector<NodeId> node_ids;
  uint64_t size = 0;
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

class ObjectService : public std::enable_shared_from_this<ObjectService> {
 public:
  struct Deps {
    async::EpollLoop* loop = nullptr;
    ValueStore* store = nullptr;
    std::shared_ptr<PeerPool> peers;
    Address self;
    JobId job_id;
    ObjectOptions options;
    // The calling thread has been blocked in Get or Wait for `blocked_after` / goes on now. May be empty.
    std::function<void(bool blocked)> on_blocked;
    // Objects of ours that nobody holds any more, and those of them that were in the store. Called on whatever thread dropped the last hold, maybe
    // with the GIL. May be empty.
    std::function<void(std::span<const ObjectId> ids, std::span<const ObjectId> in_store)> on_freed;
    // For the lineage of what could be lost (recovery/). A value of ours is about to be known as stored; and: the last copy of one is gone, it is
    // pending now until a value comes (StoreReturn, StoreError). Without `on_lost` it fails.
    std::function<void(const ObjectId&id)> on_stored, on_lost;
    // The blob of a task's error that went without anybody having read it. May be empty.
    std::function<void(BufferPtr blob)> on_unread_error;
    // No handle of an actor that we created is left. As above.
    std::function<void(const std::vector<ActorId>& ids)> on_actor_out_of_scope;
  };
  // Must be called before the first kWorkerDied is passed to `peers`.
  static std::shared_ptr<ObjectService> Make(Deps deps);
  ~ObjectService();
  // Handlers of kGetObject, kAddBorrowers, kRemoveBorrowers, kGetLocations, kAddLocation.
  void RegisterHandlers(rpc::Dispatcher* dispatcher);
  // Wakes every blocked call with kClosed; later ones fail too.
  void Shutdown();

  // --- values
  // One handle is counted. [blocks] on values beyond max_inline_bytes.
  Status Put(const ValueView& value, ObjectId* id);
  // Values in the order of `refs`. An error among them ends the wait early: then kReady with those values that are there, the error among
  // them. A negative timeout: none. [blocks]
  ReadResult Get(std::span<const ObjectRefInfo> refs, int64_t timeout_ms, std::vector<ReadValue>* out);
  // False: not ready in this process.
  bool TryGet(const ObjectRefInfo& ref, ReadValue* out);
  // It has a value, or has failed, wherever that is, as far as this process knows; asks nobody.
  bool IsReady(const ObjectId& id) const { return memory_.Contains(id); }
  // The same, and a get needs nothing from another node.
  bool IsLocal(const ObjectId& id) const { return memory_.IsLocal(id, deps_.self.node_id); }
  // (*ready)[i] for the first at most `num_returns` ready ones in order; kTimeout when fewer are. `fetch_local`: those in stores are ready once this
  // node has a copy, which is fetched. [blocks]
  ReadResult Wait(std::span<const ObjectRefInfo> refs, size_t num_returns, int64_t timeout_ms, bool fetch_local, std::vector<bool>* ready);
  // Blocks the calling thread as Get does: `on_blocked` hears of it, Shutdown ends it. For others that wait for what tasks make. [blocks]
  ReadResult Block(async::Waiter* waiter, Time deadline);
  // Once, when the object is ready, has failed, or has been dropped by everybody here. Starts fetching it if it is not ours.
  void WatchObject(const ObjectRefInfo& ref, std::function<void()> callback);
  // [blocks] until all owners have answered. NOT_FOUND is told by Location::known.
  Status GetLocations(std::span<const ObjectRefInfo> refs, int64_t timeout_ms, std::vector<Location>* out);
  // What is known of an object here, without fetching. False: pending or unknown. (Dependency resolution: inline it, or pass in_store on.)
  bool Lookup(const ObjectId& id, StoredValue* out) const { return memory_.Get(id, out); }
  // The copy that an attempt of one of our tasks may have left on that node is of no use.
  void FreeCopy(const ObjectId& id, const NodeId& node);
  // Every process of it is dead, and so are the copies in its store.
  void OnNodeDied(const NodeId& node);
  // Refs inside a known value, with their owners, for TaskArg.nested.
  std::vector<ObjectRefInfo> NestedOf(const ObjectId& id) const { return table_.NestedOf(id); }

  // --- references
  void AddLocalRef(const ObjectId& id);
  void RemoveLocalRef(const ObjectId& id);
  // A handle for a ref that was read from a value: `task` != 0: it came in by the arguments of that running task, whose caller covers it; else it came
  // out of the value of `outer`, which is held until the owner knows us; both empty: out of band, registered at once.
  void AddBorrowedRef(const ObjectRefInfo& ref, const ObjectId& outer, uint64_t task);
  // Task in flight: arguments, top-level and nested. A submitted object stays.
  void AddSubmitted(std::span<const ObjectId> ids) { table_.AddSubmitted(ids); }
  void RemoveSubmitted(std::span<const ObjectId> ids);
  bool HoldIfKnown(const ObjectId& id) { return table_.AddSubmittedIfKnown(id); }  // one such hold
  // Nil: unknown here.
  Address OwnerOf(const ObjectId& id) const { return table_.OwnerOf(id); }
  bool IsOwned(const ObjectId& id) const { return table_.IsOwned(id); }
  std::string Explain(const ObjectId& id) const;

  // --- results of tasks, at their owner
  // New pending objects of ours (returns, generator items, actor handle objects), with one handle each.
  void AddOwned(std::span<const ObjectId> ids, uint32_t handles = 1);
  // A value arrived. Dropped (with its copy in the store) when nobody holds the object any more; the first value stays.
  void StoreReturn(const ReturnValue& value);
  // A value that nobody will read (of a cancelled or repeated attempt): its copy in the store and its nested counts are given back.
  void Discard(const ReturnValue& value);
  // Holds an object of ours like a task in flight, until RemoveSubmitted. True: it was gone; now it is pending, held by nothing else.
  bool Revive(const ObjectId& id) { return table_.Revive(id); }
  // The object fails. Same rules.
  void StoreError(const ObjectId& id, std::string_view metadata, BufferPtr blob);

  // --- results of tasks, at the executor
  // Lays a return out for its owner: inline up to max_inline_bytes, else sealed in the store under `id`. [blocks] in the latter case.
  Status MakeReturn(const ObjectId& id, const Address& owner, const ValueView& value, StoredReturn* out);
  // `done` runs when it is safe to tell `receiver` about `nested`: it is a borrower of each (see "Ownership protocol"). They are held until then.
  // At once, on this thread, when nobody has to be asked.
  void HandOver(std::span<const ObjectRefInfo> nested, const Address& receiver, std::function<void()> done);
  // End of a task: the refs that came in by its arguments and are still held get registered with their owners; `done` once they have
  // acknowledged. At once, on this thread, when there are none. Call it once for each token that AddBorrowedRef may have seen.
  void RegisterBorrowsAndThen(uint64_t task, std::function<void()> done);

  // --- lower-level access for tests and services
  const Address& self() const { return deps_.self; }
  const ReferenceTable& references() const { return table_; }
  const MemoryStore& memory() const { return memory_; }
  ValueStore* store() const { return deps_.store; }

 private:
  class Barrier;
  explicit ObjectService(Deps deps);
  ObjectRefInfo Normal(const ObjectRefInfo& ref) const;
  void CarryOut(const RefEffects& effects);
  void TrimSoon();
  // After a value was stored: it goes again if the last hold on its object went meanwhile.
  void DeleteValues(std::span<const ObjectId> ids, std::vector<StoredCopies>* in_store);
  void FreeCopies(const std::vector<StoredCopies>& copies);
  void KeepCopies(const std::vector<std::pair<ObjectId, NodeId>>& copies);
  void DropIfUnheld(const ObjectId& id);
  // Wakes who waits for objects that nobody here holds (any more): nothing would ever complete them.
  void WakeUnheld(std::span<const ObjectId> ids, std::span<const uint32_t> positions);
  void Fail(const ObjectId& id, const ErrorValue& error);
  // False: not there. `in_store`: known, but its bytes are in the store and `out` has only the metadata.
  bool Read(const ObjectId& id, ReadValue* out, bool* in_store) const;
  // Objects of which only other nodes have copies, brought here by this node's raylet.
  struct Pull;
  struct PullOutcome {
    Status status;  // of the pull itself; what is known of the object may have changed
  };
  using PullDone = std::function<void(const PullOutcome& outcome)>;
  // `done` once a copy is here, or the pull ended otherwise; maybe at once. Returns a token for LeavePull; 0: done has run.
  uint64_t PullHere(const ObjectRefInfo& ref, const StoredValue& known, FetchReason reason, PullDone done);
  void LeavePull(const ObjectId& id, uint64_t token);
  void OnPulled(const std::shared_ptr<Pull>& pull, const Status& status, const v1::PullObjectReply& reply);
  bool IsElsewhere(const StoredValue& value) const;
  // Starts to bring a copy here, if there is only one elsewhere. Nobody is told; who asks soon finds it on its way.
  void Prefetch(const ObjectRefInfo& ref, FetchReason reason);
  // Waits until those of `positions` that are elsewhere have been pulled, and reads them. `*again` as below; errors of a pull become values of `out`.
  ReadResult Localize(std::span<const ObjectRefInfo> refs, std::span<const uint32_t> positions, Time deadline, std::vector<ReadValue>* out,
                      bool* again);
  // The second part of a wait: until so many of those that are ready are on this node.
  ReadResult WaitLocal(std::span<const ObjectRefInfo> refs, size_t num_returns, Time deadline, std::vector<bool>* ready);
  // `*again`: some are not in the store any more; what is known of them has changed, and they have no value here.
  ReadResult ReadFromStore(std::span<const ObjectRefInfo> refs, std::span<const uint32_t> positions, Time deadline,
                           std::vector<ReadValue>* out, bool* again);
  // Of `missing`, which the store did not give in time, those that may still come; for the others `*again`.
  std::vector<uint32_t> StillMissing(std::span<const ObjectRefInfo> refs, std::vector<uint32_t> missing, std::span<const uint32_t> attempts,
                                     std::unordered_set<ObjectId, IdHash>* suspects, bool* again);
  // The copy on `node` that run `attempt` made was looked for in vain.
  void ReportLost(const ObjectRefInfo& ref, const NodeId& node, uint32_t attempt);
  // Of an object of ours. The same from others.
  void LoseCopy(const ObjectId& id, const NodeId& node, uint32_t attempt);
  void OnLost(const ObjectId& id);
  void TakeLostCopies(const ObjectId& id, v1::GetObjectRequest* request);
  void StartFetch(std::span<const ObjectRefInfo> refs, std::span<const uint32_t> positions);
  void OnFetched(const ObjectRefInfo& ref, const Status& status, const v1::GetObjectReply& reply, PartList parts);
  void OnWorkerDied(const WorkerId& worker);
  Time DeadlineOf(int64_t timeout_ms) const;
  // What borrowers tell owners is gathered for a moment, so that a list of refs costs one message for each owner.
  struct Mail {
    Address owner;
    std::vector<std::pair<ObjectId, ObjectId>> add;     // id, outer
    std::vector<std::pair<ObjectId, uint32_t>> remove;  // id, count
  };
  Mail* MailToLocked(const Address& owner, bool* post) REQUIRES(mu_);
  void PostMail();
  void SendMail();
  // `done(sent, unknown)` once the owner has answered, or cannot.
  void SendAddBorrowers(const Address& owner, const Address& borrower, const std::vector<ObjectId>& ids,
                        std::function<void(bool sent, const std::unordered_set<ObjectId, IdHash>& unknown)> done);
  // Ids with the outer ones that cover them. Answers the table's registrations, then the barrier (may be null).
  void RegisterSelf(const Address& owner, std::vector<std::pair<ObjectId, ObjectId>> id_and_outer, std::shared_ptr<Barrier> barrier);
  BufferPtr LayOut(const ValueView& value, size_t size) const;
  Status WriteToStore(const ObjectId& id, const ValueView& value, size_t size, const Address& owner);

  void HandleGetObject(const v1::GetObjectRequest& message, rpc::Request& request, rpc::Responder responder);
  void SendObject(const ObjectId& id, const Address& requester, std::shared_ptr<rpc::Responder> responder);
  void HandleAddBorrowers(const v1::AddBorrowersRequest& message, rpc::Responder responder);
  void HandleRemoveBorrowers(const v1::RemoveBorrowersRequest& message);
  void HandleGetLocations(const v1::GetLocationsRequest& message, rpc::Responder responder);
  void HandleAddLocation(const v1::AddLocationNotice& message);

  const Deps deps_;
  ReferenceTable table_;
  MemoryStore memory_;
  PutIdGenerator put_ids_;
  std::atomic<bool> closed_{false};
  std::atomic<bool> trim_due_{false};
  Mutex mu_;
  std::unordered_set<ObjectId, IdHash> fetching_ GUARDED_BY(mu_);
  struct LostCopy {
    NodeId node;
    uint32_t attempt;
  };
  std::unordered_map<ObjectId, std::vector<LostCopy>, IdHash> lost_copies_ GUARDED_BY(mu_);  // to be told to the owner with the next fetch
  std::unordered_map<WorkerId, Mail, IdHash> mail_ GUARDED_BY(mu_);                          // empty: no SendMail is posted
  std::unordered_map<ObjectId, std::vector<std::shared_ptr<Barrier>>, IdHash> awaited_
      GUARDED_BY(mu_);  // registrations that replies wait for
  std::unordered_set<async::Waiter*> blocked_ GUARDED_BY(mu_);
  std::unordered_map<ObjectId, std::shared_ptr<Pull>, IdHash> pulls_ GUARDED_BY(mu_);
  std::unordered_set<NodeId, IdHash> dead_nodes_ GUARDED_BY(mu_);
  uint64_t last_pull_ GUARDED_BY(mu_) = 0;  // of pulls and their waiters
};

}  // namespace ray::core
