// ActorQueueCore: the calls of this process to one actor, from submission to answer.
//
// Calls leave in the order of submission, as soon as the arguments of all before them are ready (a call marked out_of_order neither waits nor holds
// up). They are numbered from 0 within an epoch; a new connection begins a new epoch, so that the executor can tell a resent call from a late one.
// When the connection breaks nobody knows which calls ran: they wait for the GCS's word. RESTARTING or ALIVE again: those with retries left go
// first in the next epoch, in their old order, the others fail as "unavailable"; DEAD: all fail. While the actor restarts, calls without retries
// fail at once, since "at most once" cannot wait for what may never come; after a kill they wait for what it has led to.
// The news that a process has gone travels another way than its answers, and may overtake them. So while calls are in flight it waits for the end of their
// connection, behind which no answer comes. Nothing more is sent there; what is submitted meanwhile waits too, or fails if the actor is dead.
// An actor that is *moved* ends its process in good order: whatever that has not answered by the end of its connection was not begun. So nothing fails, and
// nothing is charged: such calls, and those that are made meanwhile, wait for the next process.
//
// Pure; not thread-safe, its shell holds a lock.
#pragma once

#include <algorithm>
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
    kAwaitEnd,         // the process of `epoch` has gone: if its connection does not end by itself soon, end it
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
  // `ready`: its arguments are. `retries`: -1 without end. `charged`: it is made again, which has used up a retry that lets it wait for a restart too.
  void Submit(CallNo call, bool ready, bool out_of_order, int32_t retries, bool charged, ActorEffects* out);
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
  // `moved`: the restart that began it was a move. False: it is of an earlier process than the last that was told of.
  bool OnAlive(uint64_t incarnation, bool moved, ActorEffects* out);
  void OnRestarting(uint64_t incarnation, bool moved, ActorEffects* out);
  void OnDead(ActorEffects* out);
  // The process of that incarnation was told to end: nothing more is sent to it. Its end will be told as always.
  void OnEnding(uint64_t incarnation) { ending_ = std::max(ending_, static_cast<int64_t>(incarnation)); }
  // The process that OnAlive told of last has gone, which the GCS may not have said yet: nothing more is sent to it.
  void OnProcessGone() { ending_ = std::max(ending_, told_alive_); }
  // Results of kConnect, and the end of a connection. `epoch`: the one that ended.
  void Connected(ActorEffects* out);
  void ConnectionLost(uint64_t epoch, ActorEffects* out);

  ActorPhase phase() const { return phase_; }
  // Nothing that is submitted now will be done.
  bool dead() const { return phase_ == ActorPhase::kDead || (deferred_ && deferred_->kind == News::kDead); }
  uint64_t epoch() const { return epoch_; }
  uint64_t incarnation() const { return incarnation_; }
  size_t pending() const { return waiting_.size() + in_flight_live_ + lost_.size(); }
  size_t in_flight() const { return in_flight_live_; }
  // For people; looks through the queues.
  struct CallPlace {
    bool sent = false;
    size_t behind = 0;      // calls that were made earlier and are not answered
    CallNo held_up_by = 0;  // not sent: the first call before it, or it itself, whose arguments are not ready; 0: none
  };
  std::optional<CallPlace> PlaceOf(CallNo call) const;
  // The calls that were sent over the present connection and are not answered.
  std::vector<CallNo> Sent() const;

 private:
  struct Call {
    CallNo no = 0;
    int32_t retries = 0;
    bool ready = false, out_of_order = false;
    bool retried = false;  // used up a retry, which lets it wait for the restart
    bool done = false;     // in flight: answered
  };
  struct News {
    enum Kind { kAlive, kRestarting, kDead } kind;
    uint64_t incarnation;
    bool moved;
  };
  // Whether what is ready is sent at once.
  bool Sends() const { return phase_ == ActorPhase::kAlive && static_cast<int64_t>(incarnation_) > ending_ && !deferred_; }
  // Whether it has to wait; then it was noted.
  bool Defer(News news, ActorEffects* out);
  void Drain(ActorEffects* out);
  void Send(Call call, ActorEffects* out);
  void LoseInFlight();
  void SettleLost(ActorEffects* out);

  ActorPhase phase_;
  int64_t max_pending_;
  uint64_t incarnation_ = 0;
  uint64_t epoch_ = 0;            // of the present or last connection
  uint64_t first_sequence_ = 0;   // of in_flight_.front()
  std::deque<Call> in_flight_;    // by sequence; empty unless kAlive
  size_t in_flight_live_ = 0;     // those not done
  std::deque<Call> lost_;         // were in flight when the connection broke; not empty only while kDisconnected
  std::deque<Call> waiting_;      // in order of submission
  bool overtakers_ = false;       // an out_of_order call was seen
  bool moving_ = false;           // between the connections of a move
  int64_t told_alive_ = -1;       // the last incarnation that was told to be alive
  int64_t ending_ = -1;           // the last incarnation that was told to end
  std::optional<News> deferred_;  // the latest, until the connection ends; only while kAlive
};

}  // namespace ray::core
