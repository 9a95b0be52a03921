// PullCore: which objects this node fetches from others, in which order, from where, chunk by chunk.
//
// An object is wanted by one or more waiters, each with a priority: get before wait before task argument. As many are received at a time as fit the
// budget; one that is wanted more pushes out what is wanted less. The receiver asks for each chunk and so sets the pace: no more is under way than
// `max_asked_bytes`, over all objects, and one chunk from each source beyond that: one that gives nothing holds up no other. All chunks of an object come from one source at a time; when that dies, stalls or does not have it, the
// others do the rest, and what is here stays. A source that serves enough others already names one of those instead (broadcast grows like a tree),
// and the reader takes its place below that one. Its depth goes with its questions and only grows; nobody is kept waiting by a node that is not
// less deep (PushCore), so there are no circles of nodes that wait for each other.
// All bytes are of one run of the task that made the object: when a waiter joins that knows of a later run, what an earlier one's copies gave is dropped,
// and the object comes anew, from the nodes that have the later run's. Who still asks for the earlier one's is given that, too. Sources refuse copies of earlier
// runs; and where a copy counts as a later run's than the one that wrote it, chunks tell who did: one that another run wrote is not joined with what is here.
// Every want ends with an answer or its cancellation.
//
// Pure core: events and time in, effects out, in order. Owned by the TransferService; not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "ray/common/ids.h"
#include "ray/util/clock.h"
#include "ray/util/recent_set.h"
#include "ray/util/status.h"

namespace ray::object_manager {

using WantNo = uint64_t;   // names a waiter; chosen by the shell, never reused
using FetchNo = uint64_t;  // names a chunk that was asked for; chosen by the core, never reused

enum class PullPriority : uint8_t { kGet = 0, kWait = 1, kTaskArgument = 2 };

struct PullConfig {
  NodeId self;  // spreads the readers of several copies
  uint64_t chunk_bytes = uint64_t{4} << 20;
  // Chunks of one object that are asked for at a time. More hides longer ways; fewer keeps memory small.
  uint32_t window = 4;
  uint64_t max_asked_bytes = uint64_t{48} << 20;
  // Sizes of the objects that are being received. One alone may be larger.
  uint64_t budget_bytes = uint64_t{1} << 30;
  // Without any chunk from a source for so long, another one is tried.
  Duration stall = std::chrono::seconds(10);
  // A source that could not be reached is tried again after this, doubling to the maximum.
  Duration retry_min = std::chrono::milliseconds(50), retry_max = std::chrono::seconds(2);
  // Somebody is told of an object of which nothing came for so long; again each time after twice the time.
  Duration warn_after = std::chrono::minutes(1);
  // An object of which nothing came for so long is given up.
  Duration give_up = std::chrono::minutes(10);
};

struct PullRequest {
  WantNo want = 0;
  ObjectId id;
  uint64_t size = 0;
  std::vector<NodeId> nodes;  // that are said to have it
  PullPriority priority = PullPriority::kGet;
  uint32_t attempt = 0;  // which run of its task made those copies
};

// Effects, to be carried out in order.
struct RoomWanted {  // in the store, for a copy; then OnRoom
  ObjectId id;
  uint64_t round = 0;  // of the object; what belongs to an earlier one is of no interest any more
  uint64_t size = 0;
};
struct FetchWanted {  // then OnArrived and OnWritten, or OnRefused
  FetchNo fetch = 0;
  NodeId node;
  ObjectId id;
  uint64_t round = 0;
  uint64_t offset = 0, length = 0;
  bool insist = false;   // the source shall not name another one
  uint32_t attempt = 0;  // an earlier run's copy is of no use
  uint64_t depth = 0;    // of this node, for this object; the readers here are to know it before the question is sent
};
struct FetchForgotten {  // its answer is of no interest any more
  FetchNo fetch = 0;
};
struct SourceLeft {  // nothing more will be asked of it for this object
  NodeId node;
  ObjectId id;
};
struct PullComplete {  // every byte is there: seal it
  ObjectId id;
  uint64_t round = 0;
};
struct PullDropped {  // the room is of no use any more
  ObjectId id;
  uint64_t round = 0;
};
struct PullLate {  // nothing of it has come for so long
  ObjectId id;
  Duration silence{};
};
struct PullAnswered {
  WantNo want = 0;
  Status status;                // NOT_FOUND: no source is left; DEADLINE_EXCEEDED: given up; or why there is no room
  std::vector<NodeId> missing;  // nodes that do not have it, or are dead
  uint32_t attempt = 0;         // the run whose copy has come, which may be a later one than was wanted
};
using PullEffect = std::variant<RoomWanted, FetchWanted, FetchForgotten, SourceLeft, PullComplete, PullDropped, PullLate, PullAnswered>;
using PullEffects = std::vector<PullEffect>;

enum class Refusal { kNotThere, kElsewhere, kUnreachable };

class PullCore {
 public:
  explicit PullCore(const PullConfig& config) : config_(config) {}

  void Want(PullRequest request, Time now, PullEffects* out);
  // It is not answered any more. Unknown or answered: nothing.
  void Cancel(WantNo want, Time now, PullEffects* out);
  // `exists`: the store has it already, sealed.
  void OnRoom(const ObjectId& id, uint64_t round, const Status& status, bool exists, Time now, PullEffects* out);
  // True: the bytes are wanted; write them, then call OnWritten. `made_by`: the run that wrote them, if the source has told.
  bool OnArrived(FetchNo fetch, std::optional<uint32_t> made_by, Time now, PullEffects* out);
  void OnWritten(FetchNo fetch, Time now, PullEffects* out);
  // `other`, and how deep it is: kElsewhere only.
  void OnRefused(FetchNo fetch, Refusal refusal, const NodeId& other, uint64_t other_depth, Time now, PullEffects* out);
  void OnNodeDead(const NodeId& node, Time now, PullEffects* out);
  // It cannot be received here; all who want it are told.
  void Fail(const ObjectId& id, const Status& status, Time now, PullEffects* out);
  void OnTimer(Time now, PullEffects* out);
  Time NextDeadline() const;

  // Of an object that has room or waits for it; 0: none.
  uint64_t RoundOf(const ObjectId& id) const;
  bool Wants(const ObjectId& id) const { return objects_.contains(id); }
  uint64_t active_bytes() const { return active_bytes_; }
  uint64_t asked_bytes() const { return asked_bytes_; }
  size_t size() const { return objects_.size(); }
  // For people: what it does about the object; empty: nothing.
  std::string Explain(const ObjectId& id, Time now) const;

 private:
  enum class State { kQueued, kRoom, kReceiving };
  enum class Chunk : uint8_t { kMissing, kAsked, kWriting, kHere };
  struct Source {
    int failures = 0;  // in a row
    Time not_before{INT64_MIN / 2};
  };
  struct Object {
    ObjectId id;
    uint64_t size = 0;
    uint32_t attempt = 0;  // the latest run that a waiter knows of; whose copies the sources have
    uint64_t seq = 0;      // order of arrival
    std::map<WantNo, PullPriority> waiters;
    PullPriority priority = PullPriority::kTaskArgument;  // the highest of them
    State state = State::kQueued;
    uint64_t round = 0;
    std::map<NodeId, Source> sources;
    std::set<NodeId> missing;  // never sources again
    NodeId source;             // the one in use; nil: none
    NodeId via;                // it was named by this one; nil: it was not
    int hops = 0;              // names followed in a row
    uint64_t depth = 1;        // more than that of any node that was asked by name; never less than it was
    bool insist = false;
    std::optional<uint32_t> made_by;  // of what has come in this round
    std::vector<Chunk> chunks;
    uint32_t here = 0, busy = 0;  // chunks kHere; kAsked or kWriting
    uint32_t first_missing = 0;   // none before it is kMissing
    Time last_progress;           // when the last chunk came, or the wait for the first began
    int warnings = 0;             // since then
    Time asked_at;                // when it was asked for something after it had waited for nothing
  };
  struct Fetch {
    ObjectId id;
    uint32_t chunk = 0;
    NodeId node;
    uint64_t bytes = 0;
    bool arrived = false;
  };
  using Map = std::unordered_map<ObjectId, Object, IdHash>;
  using QueueKey = std::pair<PullPriority, uint64_t>;

  // Something of it has come, or may come from now on.
  static void Progressed(Object* object, Time now);
  Duration NextWarning(const Object& object) const { return config_.warn_after * (int64_t{1} << std::min(object.warnings, 20)); }
  Time StallsAt(const Object& object) const { return std::max(object.last_progress, object.asked_at) + config_.stall; }
  uint64_t LengthOf(const Object& object, uint32_t chunk) const;
  void Asked(const NodeId& node, uint64_t bytes);
  void NoLongerAsked(const Fetch& fetch);
  void Schedule(Time now, PullEffects* out);
  void Activate(Object* object, PullEffects* out);
  // Back to the queue, without what it had received.
  void Deactivate(Object* object, PullEffects* out);
  void SetPriority(Object* object);
  // Its task has run again.
  void StartOver(Object* object, const PullRequest& request, Time now, PullEffects* out);
  // Makes a source the one in use. False: there is none now.
  bool PickSource(Object* object, Time now);
  void LeaveSource(Object* object, PullEffects* out);
  void ForgetFetches(Object* object, const NodeId& node, PullEffects* out);
  void Fill(Object* object, Time now, PullEffects* out);
  void FillAll(Time now, PullEffects* out);
  // The one in use failed: others are tried, or it again later.
  void OnUnreachable(Object* object, Time now, PullEffects* out);
  void OnMissing(Object* object, const NodeId& node, PullEffects* out);
  // It has what another run wrote than what is here.
  void OnOtherRun(Object* object, const NodeId& node, PullEffects* out);
  void Answer(Object* object, const Status& status, PullEffects* out);  // and drops it
  void MaybeFail(const ObjectId& id, PullEffects* out);

  const PullConfig config_;
  Map objects_;
  std::unordered_map<WantNo, ObjectId> wants_;
  std::set<std::pair<QueueKey, ObjectId>> queued_;
  std::set<std::pair<QueueKey, ObjectId>> active_;
  std::map<FetchNo, Fetch> fetches_;
  RecentSet<NodeId, IdHash> dead_;
  uint64_t active_bytes_ = 0;
  uint64_t asked_bytes_ = 0;
  std::map<NodeId, uint64_t> asked_of_;  // of these, by source
  uint64_t last_seq_ = 0;
  uint64_t last_round_ = 0;
  FetchNo last_fetch_ = 0;
};

}  // namespace ray::object_manager
