// ObjectService: the objects of one worker or driver: put, get, wait, references, and the serving of those who ask for what this process owns.
//
// Shell around the ReferenceTable (who holds what) and the MemoryStore (values and waiters): it carries their effects out. The rest lies with its
// parts: ObjectReader (get, wait, watch), Pulls and ObjectCopies (copies on nodes), Borrowing (who holds what, told to others). Owned by the CoreWorker.
// Thread-safe; no lock is held while calling out. Methods marked [blocks] may wait and must not be called on the loop or with the GIL; all others never
// block and may be called anywhere. Callbacks run on the thread that completes what they wait for: a user thread, the loop, or the caller itself before
// the method returns; they must not block.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ray/core_worker/objects/blocked_calls.h"
#include "ray/core_worker/objects/borrowing.h"
#include "ray/core_worker/objects/handover.h"
#include "ray/core_worker/objects/object_context.h"
#include "ray/core_worker/objects/object_copies.h"
#include "ray/core_worker/objects/object_reader.h"
#include "ray/core_worker/objects/owners.h"
#include "ray/core_worker/objects/pulls.h"
#include "ray/rpc/core/answer_log.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/v1/explain.pb.h"
#include "ray/v1/worker_object.pb.h"

namespace ray::core {

// A value to store, not copied before the call. Metadata "PYTHON" and "3": `data` is the pickle and `buffers` its out-of-band buffers; any other:
// `data` is the blob.
struct ValueView {
  std::string_view metadata;
  std::string_view data;
  std::span<const std::pair<const char*, size_t>> buffers;
  std::span<const ObjectRefInfo> nested;  // refs inside; a nil owner is this process
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
  WorkerId sender;                    // that had us counted
};

// Where a return goes.
enum class ReturnPlace {
  kBySize,  // inline up to max_inline_bytes
  kInline,
  kStore,
};

// What a process made of a return: to be put into the reply.
struct StoredReturn {
  bool in_store = false;
  uint64_t size = 0;
  BufferPtr blob;  // not in_store
};

class ObjectService : public std::enable_shared_from_this<ObjectService>, private ObjectHost {
 public:
  struct Deps {
    async::UserLoop* loop = nullptr;
    ValueStore* store = nullptr;
    std::shared_ptr<PeerPool> peers;
    Address self;
    JobId job_id;
    ObjectOptions options;
    HandoverOptions handover;
    // The calling thread has been blocked in Get or Wait for `blocked_after` / goes on now. May be empty.
    std::function<void(bool blocked)> on_blocked;
    // The task that the calling thread runs; nil: none. May be empty.
    std::function<TaskId()> current_task;
    // Objects of ours that nobody holds any more, and those of them that were in the store. Called on whatever thread dropped the last hold, maybe
    // with the GIL. May be empty.
    std::function<void(std::span<const ObjectId> ids, std::span<const ObjectId> in_store)> on_freed;
    // For the lineage of what could be lost (recovery/). A value of ours is about to be known as stored; and: the last copy of one is gone, it is
    // pending now until a value comes (StoreReturn, StoreError). Without `on_lost` it fails.
    std::function<void(const ObjectId&id)> on_stored, on_lost;
    // The blob of a task's error that went without anybody having read it. May be empty.
    std::function<void(BufferPtr blob)> on_unread_error;
    // No handle of these actors is left: anywhere, of those that we created; here, of those whose handles we borrowed. As above.
    std::function<void(const std::vector<ActorId>& created, const std::vector<ActorId>& borrowed)> on_handles_gone;
  };
  // Must be called before the first kWorkerDied is passed to `peers`.
  static std::shared_ptr<ObjectService> Make(Deps deps);
  ~ObjectService();
  // Handlers of kGetObject, kAddBorrowers, kRemoveBorrowers, kSettleBorrows, kGetLocations, kAddLocation, kOwnerMoved.
  void RegisterHandlers(rpc::Dispatcher* dispatcher);
  // Wakes every blocked call with kClosed; later ones fail too.
  void Shutdown() { calls_.Close(); }

  // [blocks] As this process leaves in good order, before it stops serving: what others hold goes to who answers for it from now on. Once. See Handover.
  void HandOverObjects(bool wait_for_tasks) { handover_.Run(wait_for_tasks); }

  // --- values
  // One handle is counted. [blocks] on values beyond max_inline_bytes.
  Status Put(const ValueView& value, ObjectId* id);
  // Values in the order of `refs`. An error among them ends the wait early: then kReady with those values that are there, the error among
  // them. A negative timeout: none. [blocks]
  ReadResult Get(std::span<const ObjectRefInfo> refs, int64_t timeout_ms, std::vector<ReadValue>* out) {
    return reader_.Get(refs, timeout_ms, out);
  }
  // False: not ready in this process.
  bool TryGet(const ObjectRefInfo& ref, ReadValue* out) { return reader_.TryGet(ref, out); }
  // It has a value, or has failed, wherever that is, as far as this process knows; asks nobody.
  bool IsReady(const ObjectId& id) const { return context_.memory.Contains(id); }
  // The same, and a get needs nothing from another node.
  bool IsLocal(const ObjectId& id) const { return reader_.IsLocal(id); }
  // (*ready)[i] for the first at most `num_returns` ready ones in order; kTimeout when fewer are. `fetch_local`: those in stores are ready once this
  // node has a copy, which is fetched. [blocks]
  ReadResult Wait(std::span<const ObjectRefInfo> refs, size_t num_returns, int64_t timeout_ms, bool fetch_local, std::vector<bool>* ready) {
    return reader_.Wait(refs, num_returns, timeout_ms, fetch_local, ready);
  }
  // Blocks the calling thread as Get does: `on_blocked` hears of it, Shutdown ends it. For others that wait for what tasks make. [blocks]
  ReadResult Block(async::Waiter* waiter, Time deadline) { return calls_.Block(waiter, deadline); }
  // Negative: never.
  Time DeadlineOf(int64_t timeout_ms) const { return calls_.DeadlineOf(timeout_ms); }
  // Once, when the object is ready, has failed, or has been dropped by everybody here. Starts fetching it if it is not ours. Returns a number for
  // Unwatch, 0 if the callback has run.
  uint64_t WatchObject(const ObjectRefInfo& ref, std::function<void()> callback) { return reader_.WatchObject(ref, std::move(callback)); }
  // The callback will not run, unless it is about to, or waits anew since the object was dropped and taken up again.
  void Unwatch(uint64_t number) { context_.memory.Cancel(number); }
  // As WatchObject, and what is in stores is brought to this node first, as the argument of a task: a get right afterwards waits for nobody. One that
  // cannot be brought counts as ready; a get says why.
  void BringObject(const ObjectRefInfo& ref, std::function<void()> callback) { reader_.BringObject(ref, std::move(callback)); }
  // [blocks] until all owners, and all nodes with copies, have answered. NOT_FOUND is told by Location::known.
  Status GetLocations(std::span<const ObjectRefInfo> refs, int64_t timeout_ms, std::vector<Location>* out);
  // The same, of what this process knows; only whether it is spilled is asked of the nodes, for a second at most. [blocks]
  Status GetKnownLocations(std::span<const ObjectRefInfo> refs, std::vector<Location>* out);
  // What is known of an object here, without fetching. False: pending or unknown. (Dependency resolution: inline it, or pass in_store on.)
  bool Lookup(const ObjectId& id, StoredValue* out) const { return context_.memory.Get(id, out); }
  // The copy that an attempt of one of our tasks may have left on that node is of no use.
  void FreeCopy(const CopyRun& copy, const NodeId& node) { copies_.FreeCopy(copy, node); }
  // Every process of it is dead, and so are the copies in its store.
  void OnNodeDied(const NodeId& node);
  // Refs inside a known value, with their owners, for TaskArg.nested.
  std::vector<ObjectRefInfo> NestedOf(const ObjectId& id) const { return context_.table.NestedOf(id); }

  // --- references
  void AddLocalRef(const ObjectId& id);
  void RemoveLocalRef(const ObjectId& id);
  // A handle for a ref that was read from a value: `task` != 0: it came in by the arguments of that running task, whose caller covers it; else it came
  // out of the value of `outer`, which is held until the owner knows us; both empty: out of band, registered at once.
  void AddBorrowedRef(const ObjectRefInfo& ref, const ObjectId& outer, uint64_t task);
  // Task in flight: arguments, top-level and nested. A submitted object stays.
  void AddSubmitted(std::span<const ObjectId> ids) { context_.table.AddSubmitted(ids); }
  void RemoveSubmitted(std::span<const ObjectId> ids);
  bool HoldIfKnown(const ObjectId& id) { return context_.table.AddSubmittedIfKnown(id); }  // one such hold
  // One such hold on the arguments of a task that has ended, for its lineage. What they contain is not held by them any more: as with arguments that
  // travel inline, objects go when the program lets go of them, and a run of the task has those that are there or can be made again.
  void KeepArguments(const ObjectId& id);
  // Nil: unknown here.
  Address OwnerOf(const ObjectId& id) const { return context_.table.OwnerOf(id); }
  bool IsOwned(const ObjectId& id) const { return context_.table.IsOwned(id); }
  // What is known of the object here. `owner`, if not nil, is asked for one that nobody here holds. False: nothing is known, and there is nobody to ask.
  // Of a pending one of ours only that it is pending.
  bool Explain(const ObjectId& id, const Address& owner, v1::WaitFact* out) const;
  // What the threads of a task wait for in get or wait. False: none of them does.
  bool BlockedOn(const TaskId& task, v1::WaitFact* out) const;
  BlockedCalls::Call BlockedCallOf(const TaskId& task) const { return calls_.CallOf(task); }

  // --- results of tasks, at their owner
  // New pending objects of ours (returns, generator items, actor handle objects), with one handle each.
  void AddOwned(std::span<const ObjectId> ids, uint32_t handles = 1);
  // A value arrived. Dropped (with its copy in the store) when nobody holds the object any more; the first value stays.
  void StoreReturn(const ReturnValue& value);
  // A value that nobody will read (of a cancelled or repeated attempt): its copy in the store and its nested counts are given back.
  void Discard(const ReturnValue& value);
  // Holds an object of ours like a task in flight, until RemoveSubmitted. True: it was gone; now it is pending, held by nothing else.
  bool Revive(const ObjectId& id) { return context_.table.Revive(id); }
  // The object fails. Same rules.
  void StoreError(const ObjectId& id, std::string_view metadata, BufferPtr blob);

  // --- results of tasks, at the executor
  // Lays out what a run of a task returns, for its owner: inline, or sealed in the store under its id. [blocks] in the latter case.
  Status MakeReturn(const CopyRun& run, const Address& owner, const ValueView& value, StoredReturn* out,
                    ReturnPlace place = ReturnPlace::kBySize);
  // `done` runs when it is safe to tell `receiver` about `nested`: it is a borrower of each (see "Ownership protocol"). They are held until then.
  // At once, on this thread, when nobody has to be asked.
  void HandOver(std::span<const ObjectRefInfo> nested, const Address& receiver, std::function<void()> done) {
    borrowing_.HandOver(nested, receiver, std::move(done));
  }
  // How many borrowers it remembers for what they gave back last, until they die.
  size_t num_heard() { return borrowing_.num_heard(); }
  // End of a task: the refs that came in by its arguments and are still held get registered with their owners; `done` once they have
  // acknowledged. At once, on this thread, when there are none. Call it once for each token that AddBorrowedRef may have seen.
  void RegisterBorrowsAndThen(uint64_t task, std::function<void()> done) { borrowing_.RegisterBorrowsAndThen(task, std::move(done)); }

  // --- lower-level access for tests and services
  const Address& self() const { return deps_.self; }
  const ReferenceTable& references() const { return context_.table; }
  const MemoryStore& memory() const { return context_.memory; }
  ValueStore* store() const { return deps_.store; }

 private:
  explicit ObjectService(Deps deps);
  void CarryOut(const RefEffects& effects) override;
  void Fail(const ObjectId& id, const ErrorValue& error) override;
  void DropIfUnheld(const ObjectId& id) override;
  void OnLost(const ObjectId& id) override;
  bool IsLeaving() const override { return handover_.active(); }
  void DeleteValues(std::span<const ObjectId> ids, std::vector<StoredCopies>* in_store);
  void TrimSoon();
  void OnWorkerDied(const WorkerId& worker);
  BufferPtr LayOut(const ValueView& value, size_t size) const;
  Status WriteToStore(const ObjectId& id, const ValueView& value, size_t size, const Address& owner, uint32_t attempt);
  void HandleGetObject(const v1::GetObjectRequest& message, const rpc::ConnectionPtr& connection, rpc::Responder responder);
  void ServeObject(const v1::GetObjectRequest& message, const rpc::ConnectionPtr& connection, rpc::Responder responder);
  void LoseOwner(const Address& owner, std::span<const ObjectId> orphans);
  void HandleAddBorrowers(const v1::AddBorrowersRequest& message, rpc::Responder responder);
  void SendObject(const ObjectId& id, const Address& requester, uint64_t request, std::shared_ptr<rpc::Responder> responder);

  const Deps deps_;
  ObjectContext context_;
  PutIdGenerator put_ids_;
  std::atomic<bool> trim_due_{false};
  rpc::AnswerLog given_{1024};  // GetObject of values with refs inside, by requester and request
  BlockedCalls calls_;
  ObjectCopies copies_;
  Borrowing borrowing_;
  Pulls pulls_;
  ObjectReader reader_;
  Owners owners_;
  Handover handover_;
};

}  // namespace ray::core
