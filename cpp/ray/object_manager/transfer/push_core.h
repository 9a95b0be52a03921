// PushCore: which chunks this node gives to others, when, and whom it tells to ask somebody else.
//
// An object that is here is pinned in the store while others fetch it. One that is still being received is given on as far as it is here; requests for
// the rest wait. A node gives a large object to `fan_out` others at a time and names one of these to whoever else asks, so a broadcast grows like a
// tree: its time is that of one copy for each way out of a node, and hardly depends on the number of nodes. Who follows a name is deeper than the
// one that was named. One that left unheard, because its link broke, may be named to those who read from it: so a request waits here only if its
// reader is deeper than this node was when it last asked for something itself, and is refused otherwise. As depths never shrink while a node waits,
// each node that waits is deeper than the one it waits for: no circle of them closes, whatever is lost.
// What is handed to the links and not sent yet is bounded, over all objects; beyond that bound each reader still gets one chunk at a time, so that
// one that takes nothing holds up nobody else. Readers take turns.
// A copy that counts as an earlier run's than the one that is asked for is refused. One that is pinned may have become a later one's meanwhile: the store says.
// Every request is served or refused.
//
// Pure core: events and time in, effects out, in order. Owned by the TransferService; not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <variant>
#include <vector>

#include "ray/common/ids.h"
#include "ray/object_manager/transfer/pull_core.h"
#include "ray/util/clock.h"

namespace ray::object_manager {

using ServeNo = uint64_t;  // names a request until its reply; chosen by the shell, never reused

struct PushConfig {
  uint64_t chunk_bytes = uint64_t{4} << 20;
  uint32_t fan_out = 2;
  uint64_t tree_from_bytes = uint64_t{16} << 20;  // smaller objects are given to all who ask
  uint64_t max_sending_bytes = uint64_t{48} << 20;
  // A fetcher that asked for nothing for so long, and did not say that it left, has.
  Duration idle = std::chrono::seconds(30);
};

struct ServeRequest {
  ServeNo serve = 0;
  NodeId from;
  ObjectId id;
  uint64_t offset = 0, length = 0;  // as another node says; mostly one chunk
  bool insist = false;
  uint64_t depth = 0;                    // of the one who asks
  std::optional<uint32_t> attempt = {};  // a copy of an earlier run of its task is of no use; none: any will do
};

// Effects, to be carried out in order.
struct PinWanted {  // in the store of this node; then OnPinned. Of one that is pinned: only which run's it is by now
  ObjectId id;
};
struct PinDropped {
  ObjectId id;
};
struct ServeChunk {  // then OnSent
  ServeNo serve = 0;
  ObjectId id;
  uint64_t offset = 0, length = 0;
};
struct ServeRefused {
  ServeNo serve = 0;
  Refusal refusal = Refusal::kNotThere;
  NodeId other;  // kElsewhere
  uint64_t other_depth = 0;
};
using PushEffect = std::variant<PinWanted, PinDropped, ServeChunk, ServeRefused>;
using PushEffects = std::vector<PushEffect>;

class PushCore {
 public:
  explicit PushCore(const PushConfig& config) : config_(config) {}

  void OnRequest(const ServeRequest& request, Time now, PushEffects* out);
  // `attempt`: the latest run whose copy it counts as.
  void OnPinned(const ObjectId& id, bool there, uint64_t size, uint32_t attempt, Time now, PushEffects* out);
  // This node receives the object itself: it begins, a chunk is here, it ends (complete: all of it is here and stays as long as it is not dropped).
  void OnPartial(const ObjectId& id, uint64_t size, uint32_t attempt);
  void OnChunkHere(const ObjectId& id, uint64_t offset, Time now, PushEffects* out);
  // This node asks for chunks of it and is so deep; those that are not deeper are not kept waiting here in turn. Before it asks.
  void OnPartialDepth(const ObjectId& id, uint64_t depth, PushEffects* out);
  void OnPartialEnd(const ObjectId& id, bool complete, PushEffects* out);
  // The bytes have been taken by the link, or dropped with it.
  void OnSent(ServeNo serve, PushEffects* out);
  void OnLeft(const NodeId& from, const ObjectId& id, PushEffects* out);
  void OnNodeDead(const NodeId& node, PushEffects* out);
  void OnTimer(Time now, PushEffects* out);
  Time NextDeadline() const;

  uint64_t sending_bytes() const { return sending_bytes_; }
  size_t size() const { return objects_.size(); }

 private:
  enum class State { kPinning, kPartial, kWhole };
  struct Fetcher {
    Time asked;  // last; or when it was given what it had waited for
    uint64_t depth = 0;
  };
  struct Object {
    State state = State::kPinning;
    uint64_t size = 0;
    uint32_t attempt = 0;       // not kPinning
    bool asking_store = false;  // kWhole: which run's it is by now
    std::vector<bool> here;     // kPartial: by chunk
    uint64_t depth = 0;         // kPartial: of this node; 0: it has asked for nothing yet
    std::map<NodeId, Fetcher> fetchers;
    std::vector<NodeId> named;  // of the fetchers, in the order in which they came
    size_t next_named = 0;
    NodeId last_asker, last_named;      // who was told last to ask whom: all that a reader asks at a time gets the same answer
    std::vector<ServeRequest> waiting;  // kPinning: all; kPartial: for chunks that are not here; kWhole: for the store's word
    uint32_t queued = 0, sending = 0;   // requests that are ready; handed to links
  };
  using Map = std::map<ObjectId, Object>;

  void Consider(Object* object, const ServeRequest& request, Time now, PushEffects* out);
  static bool IsEarlier(const Object& object, const ServeRequest& request) { return request.attempt && *request.attempt > object.attempt; }
  // REQUIRES: kPartial; within the object, and not empty.
  bool IsHere(const Object& object, const ServeRequest& request) const;
  static bool Waits(const Object& object, const NodeId& from);
  void RefuseAll(Object* object, PushEffects* out);
  template <typename Predicate>
  static void RefuseWaiting(Object* object, Predicate whom, PushEffects* out);
  void Pump(PushEffects* out);
  void Leave(Map::iterator it, const NodeId& from, PushEffects* out);
  void MaybeDrop(Map::iterator it, PushEffects* out);

  // What a node has asked for and gets now.
  struct Reader {
    std::deque<ServeRequest> ready;
    uint64_t sending_bytes = 0;  // handed to its link
  };
  void AddReady(const ServeRequest& request);
  // Whose turn it is to get a chunk; turns_.end(): nobody may.
  std::deque<NodeId>::iterator NextTurn();

  const PushConfig config_;
  Map objects_;
  std::map<NodeId, Reader> readers_;  // those with something ready or under way
  std::deque<NodeId> turns_;          // of the readers with something ready
  std::map<ServeNo, ServeRequest> sending_;
  uint64_t sending_bytes_ = 0;
};

}  // namespace ray::object_manager
