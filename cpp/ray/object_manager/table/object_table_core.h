// ObjectTableCore: which objects the store of one node holds, where, for whom; who waits for them, and who for room.
//
// An object is created (room is found), written by its creator, sealed (immutable, visible), pinned by clients that use its bytes, and freed
// by its owner. Its bytes go when it was freed and nobody pins it. A copy that is not primary (its owner knows another one) may also be
// evicted, least recently used first, while nobody pins it. Creates that find no room wait in one queue, first come, first served: a large
// request is never starved by small ones behind it.
//
// Where there is a disk, primary copies go to files when room is short (the SpillCore says to which): in memory -> spilling (still readable)
// -> in memory with a file (evictable) -> spilled -> restoring -> in memory with a file. A get of a spilled object waits for its restore.
// A client that makes many objects of moderate size leases slabs, pieces of the arena, and makes objects there without asking first (Put). The
// rest of a slab comes back when the client has no use for it, dies, was idle, or is asked since memory is short.
//
// What its maker keeps pinned without using it is first asked back from that client. When all else is in use, an object is given a file of
// its own as memory (a segment other than 0). A create fails only when the disk refuses too, and nothing at all was freed for a while.
//
// Pure core (docs/contributing/style.md): events and time in, effects out, in order. Owned by the StoreService; not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

#include "ray/common/copy_run.h"
#include "ray/common/ids.h"
#include "ray/object_manager/table/arena_allocator.h"
#include "ray/util/clock.h"
#include "ray/util/recent_set.h"
#include "ray/util/status.h"

namespace ray::object_manager {

using ClientId = uint64_t;  // one per connection, never reused
using Token = uint64_t;     // names a create or get until its reply; chosen by the shell, never reused

struct ObjectTableConfig {
  uint64_t capacity = 0;  // bytes of the arena
  // How long a create waits while nothing is freed. Longer: bursts survive slow consumers; shorter: a program that can never go on is told sooner.
  Duration create_grace = std::chrono::seconds(10);
  // Whether there is a disk: the shell carries out SpillStarted, RestoreStarted, OverflowWanted and what belongs to them.
  bool disk = false;
  // Above this share of the capacity, files are written ahead of need. Lower: bursts find room sooner; higher: less is written for nothing.
  double spill_threshold = 0.8;
  // At least so much is spilled at a time, if there is so much, so that small objects share files. Never more than a quarter of the capacity.
  uint64_t spill_batch_bytes = uint64_t{100} << 20;
  // How long a create or restore waits for memory before it gets a file instead. Longer: less disk; shorter: less waiting.
  Duration overflow_grace = std::chrono::seconds(1);
  // After a failed write, how long until the next is tried.
  Duration spill_retry = std::chrono::seconds(1);
  // Size of a slab, never more than 1/32 of the capacity; a client has at most two at a time. Larger: fewer leases; smaller: less lies idle.
  uint64_t slab_bytes = uint64_t{8} << 20;
  // All slabs together take at most this share of the capacity.
  double slab_share = 0.125;
  // How long a free of an unknown object waits for the object's put, which may come later though it was sent before.
  Duration early_free = std::chrono::seconds(10);
  // How long a restore keeps its place, and its grace, while nobody waits for it: a get that ended may only have been a slice of a longer one.
  Duration restore_linger = std::chrono::seconds(2);
  // A client that made nothing in its slabs for so long is asked to give them back.
  Duration slab_idle = std::chrono::seconds(10);
};

// Where an object's bytes are: in the arena (segment 0) or in a file of its own.
struct Place {
  uint64_t segment = 0;
  uint64_t offset = 0;
  friend bool operator==(const Place&, const Place&) = default;
};

struct CreateRequest {
  Token token = 0;
  ClientId client = 0;
  ObjectId id;
  uint64_t size = 0;
  std::string metadata;
  WorkerId owner;
  bool primary = true;    // false: a copy that may be evicted
  bool try_only = false;  // fail instead of waiting
  uint32_t attempt = 0;   // which run of its task makes it
};

// An object that is complete when the store hears of it: its client wrote it to a place in one of its slabs.
struct PutRequest {
  ClientId client = 0;
  ObjectId id;
  uint64_t offset = 0;
  uint64_t size = 0;
  std::string metadata;
  WorkerId owner;
  bool keep_pin = false;  // REQUIRES: nobody else makes an object of this id
  uint32_t attempt = 0;   // as CreateRequest's
};

// Effects, to be carried out in order.
struct CreateReplied {
  Token token = 0;
  Status status;
  bool exists = false;  // sealed already; nothing was pinned
  Place place;
  uint64_t warm_bytes = 0;
};
struct FoundObject {
  ObjectId id;
  bool found = false;
  bool lost = false;  // not found, and never will be: its file could not be read
  Place place;
  uint64_t size = 0;
  std::string metadata;
  uint32_t attempt = 0, made_by = 0;  // see Object
};
struct GetReplied {  // every found object is pinned once more for the client
  Token token = 0;
  std::vector<FoundObject> objects;  // as asked
  Status status;  // not OK: there is no room to restore one of them, or the client has gone; nothing is found or pinned then
};
struct ObjectSealed {
  ObjectId id;
  uint64_t size = 0;
};
struct ObjectDeleted {  // its bytes may be given away from now on
  ObjectId id;
  uint64_t size = 0;
};
struct ObjectEvicted {  // the same of the copy in memory; the file stays
  ObjectId id;
  uint64_t size = 0;
};
struct SpillStarted {  // write it to a file, then call OnSpilled; its bytes stay until then. Those of one step may share files
  ObjectId id;
  uint64_t offset = 0;  // in the arena
  uint64_t size = 0;
};
struct RestoreStarted {  // read it from its file to `place`, then call OnRestored
  ObjectId id;
  Place place;
  uint64_t size = 0;
};
struct SpillForgotten {  // its part of a file is of no use any more
  ObjectId id;
};
struct OverflowWanted {  // make a file to be used as memory, then call OnOverflow
  uint64_t segment = 0;  // its number, never reused
  uint64_t size = 0;
};
struct OverflowReleased {  // the store has no more use for the file
  uint64_t segment = 0;
};
struct ReclaimAsked {  // the client keeps these without, perhaps, using them: it should release what it can, then call OnReclaimed
  ClientId client = 0;
  std::vector<ObjectId> ids;
  bool slabs = false;  // the same for what is unused of its slabs
};
struct SlabReplied {
  Token token = 0;
  uint64_t offset = 0;
  uint64_t size = 0;  // 0: none now
  uint64_t warm_bytes = 0;
};
using Effect = std::variant<CreateReplied, GetReplied, ObjectSealed, ObjectDeleted, ObjectEvicted, SpillStarted, RestoreStarted,
                            SpillForgotten, OverflowWanted, OverflowReleased, ReclaimAsked, SlabReplied>;
using Effects = std::vector<Effect>;

struct TableStats {
  uint64_t capacity = 0;
  uint64_t used = 0;  // sizes of the objects in the arena, as asked for
  uint64_t num_objects = 0;
  uint64_t pinned = 0;  // objects with at least one pin
  uint64_t queued_creates = 0;
  uint64_t spilled_bytes = 0;  // sizes of the objects that have a file, in memory or not
  uint64_t spilled_objects = 0;
  uint64_t overflow_bytes = 0;  // sizes of the objects in segments other than 0
  uint64_t slab_bytes = 0;      // leased to clients, and no object's yet
  // Since the start.
  uint64_t total_spilled_bytes = 0;
  uint64_t total_restored_bytes = 0;
  friend bool operator==(const TableStats&, const TableStats&) = default;
};

class ObjectTableCore {
 public:
  explicit ObjectTableCore(const ObjectTableConfig& config);

  // Replies with room for the object, which is pinned for the client until it seals without keeping the pin, releases or aborts.
  // Again by the same client before the seal: the same room. While another client writes it: waits for that one's seal or end.
  void Create(CreateRequest request, Time now, Effects* out);
  // Of an object that is not there or not this client's to seal: nothing.
  // `made_by`: which run wrote its bytes, if not the one that it was created for.
  void Seal(ClientId client, const ObjectId& id, bool keep_pin, Time now, Effects* out, std::optional<uint32_t> made_by = std::nullopt);
  void Abort(ClientId client, const ObjectId& id, Time now, Effects* out);
  // Replies when all are found or at `deadline`, with what there is then.
  void Get(Token token, ClientId client, std::vector<ObjectId> ids, Time now, Time deadline, Effects* out);
  // Undoes one pin. More releases than pins are ignored: a client can only hurt itself.
  void Release(ClientId client, const ObjectId& id, Time now, Effects* out);
  // The owner has no more use for it. An object that is still being written goes when it is sealed; one that is not there yet, when it is put.
  // What a later run than `copy.attempt` made stays. `client`: whose connection it came on, if any.
  void Free(const CopyRun& copy, Time now, Effects* out, ClientId client = 0);
  // A copy that could be evicted is from now on one that could not: others are gone. One of a later run stays as it is.
  void Keep(const CopyRun& copy, Time now, Effects* out);
  // It is another process's from now on: the end of the one that owned it does not concern it any more. Of one that is not there yet: once it is put.
  void Reown(const ObjectId& id, const WorkerId& owner, Time now);
  // The connection ended: its pins, waits and unfinished objects go. What it waited for is answered with CANCELLED.
  void ClientGone(ClientId client, Time now, Effects* out);
  // Frees all objects of this owner, those yet to come too.
  void OwnerDied(const WorkerId& owner, Time now, Effects* out);
  // Replies at once, and with nothing while memory is short or the client has its share.
  void LeaseSlab(Token token, ClientId client, Time now, Effects* out);
  // Creates and seals in one. Should another client be writing the object at the moment, it takes this place if that one gives up. What lies in no
  // slab of the client is ignored: a client can only hurt itself.
  void Put(const PutRequest& request, Time now, Effects* out);
  // The client makes nothing in `range` of its slab. `touched`: it has written there.
  void ReturnSlab(ClientId client, Range range, bool touched, Time now, Effects* out);
  // What became of an effect. A failed spill is tried again later; an object that cannot be restored is lost, and those who wait are told.
  void OnSpilled(const ObjectId& id, const Status& status, Time now, Effects* out);
  void OnRestored(const ObjectId& id, const Status& status, Time now, Effects* out);
  void OnOverflow(uint64_t segment, const Status& status, Time now, Effects* out);
  // The client may be asked to give back what it keeps: first when it has connected, then when it has done what it was asked.
  void OnReclaimed(ClientId client, Time now, Effects* out);
  // To be called at NextDeadline(); earlier does no harm.
  void OnTimer(Time now, Effects* out);

  Time NextDeadline() const;
  // The copy here is not the one that counts any more: it may be evicted.
  void Unkeep(const ObjectId& id, Time now, Effects* out);
  // Sealed primary copies that were not freed.
  struct PrimaryCopy {
    ObjectId id;
    uint64_t size = 0;
    WorkerId owner;
  };
  std::vector<PrimaryCopy> PrimaryCopies() const;
  // For people: where an object is, as the store of its node sees it.
  enum class Whereabouts { kAbsent, kUnsealed, kInMemory, kSpilled, kRestoring };
  Whereabouts WhereIs(const ObjectId& id) const;
  bool HasFile(const ObjectId& id) const;   // it is on disk, whether or not it is in memory, too
  bool Contains(const ObjectId& id) const;  // sealed, and not freed: a pin of somebody may keep a freed one for a while
  bool MayCome(const ObjectId& id) const;   // nobody has put it yet, or who writes it has not sealed it
  TableStats Stats() const;
  // Size of a slab; 0: the store is too small for any.
  uint64_t slab_bytes() const;
  // For the shell's care of pages.
  ArenaAllocator& allocator() { return allocator_; }
  std::string TEST_CheckInvariants() const;

 private:
  enum class Disk { kNone, kSpilling, kRestoring };  // what is going on; its memory is not touched meanwhile
  enum class List { kNone, kEvictable, kSpillable, kKept };
  struct Object {
    Place place;  // if in_memory
    uint64_t warm_bytes = 0;
    uint64_t size = 0;
    std::string metadata;
    WorkerId owner;
    ClientId creator = 0;
    uint32_t attempt = 0;  // the latest run of its task that made it, or would have had it not been here
    uint32_t made_by = 0;  // whose bytes these are: not a later run than `attempt`, and unlike it never another one
    bool sealed = false;
    bool primary = true;
    bool freed = false;     // by its owner; deleted as soon as it is sealed and unpinned
    bool in_memory = true;  // has a place (while kRestoring: not readable yet)
    bool has_file = false;
    Disk disk = Disk::kNone;
    ClientId keeper = 0;  // the client whose one pin is kept without, perhaps, a use; it was not asked to give it back
    uint64_t pins = 0;    // over all clients, the keeper's included
    // The list it is in: evictable ones could go at once, spillable ones after a write, kept ones after their keeper's release.
    List list = List::kNone;
    std::list<ObjectId>::iterator at;
    uint64_t stamp = 0;  // when it came to the list of its keeper, to compare those lists
    bool Readable() const { return sealed && in_memory && disk != Disk::kRestoring; }
  };
  struct Client {
    // What is left of its slabs, by begin: blocks of the allocator.
    struct Piece {
      uint64_t size = 0;
      uint64_t warm_end = 0;  // in the arena; below, it has pages
    };
    std::map<uint64_t, Piece> slabs;
    uint64_t slab_bytes = 0;   // their sum
    Time slab_used{};          // when it last leased one or made something there
    bool slabs_asked = false;  // since it leased the last one
    std::unordered_map<ObjectId, uint64_t, IdHash> pins;
    std::set<ObjectId> unsealed;
    std::set<Token> gets;
    std::list<ObjectId> kept;  // objects that it keeps and nobody else pins, the oldest first
    bool reclaimable = false;  // takes part in ReclaimAsked, and is not busy with one
    uint64_t asked_bytes = 0;  // of what it was asked for last and has not answered
  };
  struct PendingGet {
    ClientId client = 0;
    std::vector<FoundObject> objects;
    size_t missing = 0;
    Time deadline;
  };
  // A wait for a file to be used as memory.
  struct Overflow {
    uint64_t segment = 0;        // asked for; 0: none
    Status refused;              // why the last one could not be had
    Time not_before{INT64_MIN};  // the next one
  };
  struct PendingCreate {
    CreateRequest request;
    Time since;
    Overflow overflow;
    std::optional<PutRequest> put;  // it has its place: waits for who writes the same object, and nobody for its answer
  };
  struct PendingRestore {
    ObjectId id;
    Time since;
    Time wanted;  // when a get asked for it last
    Overflow overflow;
  };

  enum class Outcome { kDone, kNoRoom, kOtherWrites };
  Outcome TryCreate(const CreateRequest& request, std::optional<uint64_t> segment, Time now, Effects* out);
  Outcome TryPut(const PutRequest& request, Time now, Effects* out);
  Object* AddObject(ClientId client, const ObjectId& id, const WorkerId& owner);
  void SealObject(ClientId client, const ObjectId& id, Object* object, bool keep_pin, Time now, Effects* out);
  // Takes [begin, end) out of the client's slabs, as a block of its own. False: it is not there, or not in one piece.
  bool TakeFromSlab(Client* client, Range range, uint64_t* warm_bytes);
  uint64_t KeepFree() const;  // what spilling ahead of need keeps free
  std::optional<ArenaAllocator::Block> MakeRoom(uint64_t size, Time now, Effects* out);
  void WantRestore(const ObjectId& id, Time now);
  // When the restore needs a look: for a file, for its failure, or to be given up.
  Time LookAt(const PendingRestore& restore) const;
  void StartRestore(const ObjectId& id, Object* object, Place place, Effects* out);
  // Gives room to those who wait, in order; then frees memory for the first that still does.
  void ServeQueue(Time now, Effects* out);
  void ServeRestores(Time now, Effects* out);
  void ServeCreates(Time now, Effects* out);
  void MaybeSpill(Time now, Effects* out);
  void AskBack(uint64_t bytes, Effects* out);
  // For the slabs of those who have not been asked; idle since `unused_since` only.
  void AskForSlabs(Time unused_since, Effects* out);
  static FoundObject FoundAt(const ObjectId& id, const Object& object);
  // Tells the getters of `id`: it is there, or lost if `object` is null.
  void Announce(const ObjectId& id, Object* object, Effects* out);
  void Pin(ClientId client, const ObjectId& id, Object* object);
  void Unpin(ClientId client, const ObjectId& id, uint64_t count, Time now, Effects* out);
  // Deletes it or moves it to the list where its state says it belongs.
  void Settle(const ObjectId& id, Object* object, Time now, Effects* out);
  void Enlist(const ObjectId& id, Object* object, List list);
  void DropMemory(Object* object, Time now, Effects* out);
  void Delete(const ObjectId& id, Time now, Effects* out);
  // A free; with an owner: a Reown.
  struct Early {
    Time at;
    ClientId client = 0;
    WorkerId owner;                    // nil: freed
    uint32_t attempt = CopyRun::kAny;  // freed: what later runs make stays
  };
  void NoteEarly(const ObjectId& id, Early early);
  void FinishGet(Token token, Effects* out);
  Time OverflowAt(const Overflow& overflow, Time since) const;  // when to ask for a file
  Time FailAt(const Overflow& overflow, Time since) const;
  void FailGets(const ObjectId& id, const Status& status, Time now, Effects* out);
  Status NoRoom(const ObjectId& id, uint64_t size, const Status& refused) const;

  const ObjectTableConfig config_;
  ArenaAllocator allocator_;
  std::unordered_map<ObjectId, Object, IdHash> objects_;
  std::unordered_map<WorkerId, std::set<ObjectId>, IdHash> by_owner_;
  RecentSet<WorkerId, IdHash> dead_owners_;  // their late objects are born freed
  std::map<ClientId, Client> clients_;
  std::list<ObjectId> evictable_;  // the least recently used first; so is the next
  std::list<ObjectId> spillable_;
  uint64_t evictable_bytes_ = 0;  // of blocks, as are these
  uint64_t spilling_bytes_ = 0;
  uint64_t asked_bytes_ = 0;            // sum over the clients
  Time slab_check_ = Time::Infinite();  // when to look for idle slabs; infinite: there are none
  uint64_t kept_objects_ = 0;
  uint64_t last_stamp_ = 0;
  std::list<PendingRestore> restores_;  // served before the creates: they let someone go on who may then free
  std::unordered_map<ObjectId, std::list<PendingRestore>::iterator, IdHash> in_restores_;
  std::list<PendingCreate> queue_;
  uint64_t blocked_bytes_ = 0;  // the block that the first in line still waits for
  Time last_freed_{};           // when bytes last became free: the queue's hope
  bool spill_paused_ = false;   // since writing failed, until spill_after_
  Time spill_after_{};
  Status spill_failure_;  // the last one
  uint64_t last_segment_ = 0;
  std::unordered_set<ObjectId, IdHash> lost_;  // until they are made again or freed
  // Freed before they were there: the put of an object and the free by its owner come on different connections. (On one connection they are in
  // order: who frees and then puts has cleared an earlier attempt away.) Each with its time. The same of those that were given another owner.
  static constexpr size_t kMaxEarly = 100'000;
  std::unordered_map<ObjectId, Early, IdHash> early_;
  std::deque<std::pair<Time, ObjectId>> early_order_;
  std::unordered_map<Token, PendingGet> gets_;
  std::unordered_map<ObjectId, std::vector<Token>, IdHash> awaited_;  // getters of objects not sealed; some may have ended
  std::set<std::pair<Time, Token>> get_deadlines_;
  TableStats stats_;  // capacity, num_objects and queued_creates are filled in by Stats
};

}  // namespace ray::object_manager
