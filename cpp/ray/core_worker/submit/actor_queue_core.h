// ActorQueueCore: the calls of this process to one actor, from submission to answer.
//
// Calls leave in the order of submission, as soon as the arguments of all before them are ready (a call marked out_of_order neither waits nor holds
// up). They are numbered from 0 within an epoch; a new connection begins a new epoch, so that the executor can tell a resent call from a late one.
// When the connection breaks nobody knows which calls ran: they wait for the GCS's word. RESTARTING or ALIVE again: those with retries left go
// first in the next epoch, in their old order, the others fail as "unavailable"; DEAD: all fail. While the actor restarts, calls without retries
// fail at once, since "at most once" cannot wait for what may never come.
// An actor that is *moved* ends its process in good order: whatever that has not answered by the end of its connection was not begun. So nothing fails, and
// nothing is charged: such calls, and those that are made meanwhile, wait for the next process. News of the move may overtake answers; it waits for that end.
//
// Pure; not thread-safe, its shell holds a lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace ray::core {

using CallNo = uint64_t;  // names a pending call; opaque here

enum class ActorPhase {
  kDependencies,  // registered; its constructor's arguments are not ready
  kPending,       // the GCS starts it
  kAlive,         // connected
  kDisconnected,  // the connection broke (or has yet to be made); the GCS has not said why
  kRestarting,
  kDead,
};

struct ActorEffect {
  enum Kind {
    kConnect,          // open a connection to the address last told, then call Connected or ConnectionLost
    kSend,             // push `call` as number `sequence` of `epoch`
    kRetried,          // `call` uses up a retry; it will be sent again
    kFailUnavailable,  // `call` may have run, or cannot wait
    kFailDead,         // with the cause of death
  };
  Kind kind;
  CallNo call = 0;
  uint64_t sequence = 0, epoch = 0;
};
using ActorEffects = std::vector<ActorEffect>;

class ActorQueueCore {
 public:
  // max_pending: calls not answered yet; -1: no limit.
  explicit ActorQueueCore(ActorPhase phase = ActorPhase::kPending, int64_t max_pending = -1) : phase_(phase), max_pending_(max_pending) {}

  bool Full() const { return max_pending_ >= 0 && pending() >= static_cast<size_t>(max_pending_); }
  void SetMaxPending(int64_t max_pending) { max_pending_ = max_pending; }
  // `ready`: its arguments are. `retries`: -1 without end.
  void Submit(CallNo call, bool ready, bool out_of_order, int32_t retries, ActorEffects* out);
  void Ready(CallNo call, ActorEffects* out);
  // With nobody now: forgets it (its arguments failed, or it was cancelled). False: sent, or unknown; a sent one is not sent again.
  bool Remove(CallNo call, ActorEffects* out);
  // The answer to number `sequence` of `epoch` came. False: that epoch is over and the call was dealt with.
  bool Answered(uint64_t epoch, uint64_t sequence);

  // What the GCS says. `incarnation` counts restarts; older news is ignored.
  void OnPending(bool dependencies) {
    if (phase_ == ActorPhase::kDependencies || phase_ == ActorPhase::kPending)
      phase_ = dependencies ? ActorPhase::kDependencies : ActorPhase::kPending;
  }
  // `moved`: the restart that began it was a move.
  void OnAlive(uint64_t incarnation, bool moved, ActorEffects* out);
  void OnRestarting(uint64_t incarnation, bool moved, ActorEffects* out);
  void OnDead(ActorEffects* out);
  // Results of kConnect, and the end of a connection. `epoch`: the one that ended.
  void Connected(ActorEffects* out);
  void ConnectionLost(uint64_t epoch, ActorEffects* out);

  ActorPhase phase() const { return phase_; }
  uint64_t epoch() const { return epoch_; }
  size_t pending() const { return waiting_.size() + in_flight_live_ + lost_.size(); }
  size_t in_flight() const { return in_flight_live_; }
  // For people; looks through the queues.
  struct CallPlace {
    bool sent = false;
    size_t behind = 0;      // calls that were made earlier and are not answered
    CallNo held_up_by = 0;  // not sent: the first call before it, or it itself, whose arguments are not ready; 0: none
  };
  std::optional<CallPlace> PlaceOf(CallNo call) const;

 private:
  struct Call {
    CallNo no = 0;
    int32_t retries = 0;
    bool ready = false, out_of_order = false;
    bool retried = false;  // used up a retry to wait for the restart
    bool done = false;     // in flight: answered
  };
  void Drain(ActorEffects* out);
  void Send(Call call, ActorEffects* out);
  void LoseInFlight();
  void SettleLost(ActorEffects* out);

  ActorPhase phase_;
  int64_t max_pending_;
  uint64_t incarnation_ = 0;
  uint64_t epoch_ = 0;           // of the present or last connection
  uint64_t first_sequence_ = 0;  // of in_flight_.front()
  std::deque<Call> in_flight_;   // by sequence; empty unless kAlive
  size_t in_flight_live_ = 0;    // those not done
  std::deque<Call> lost_;        // were in flight when the connection broke; not empty only while kDisconnected
  std::deque<Call> waiting_;     // in order of submission
  bool overtakers_ = false;      // an out_of_order call was seen
  bool moving_ = false;          // between the connections of a move
  struct Deferred {
    uint64_t incarnation;
    bool alive;
  };
  std::optional<Deferred> deferred_;  // news of a move, until the connection ends; only while kAlive
};

}  // namespace ray::core
