// ActorSubmitter: shell of the ActorQueueCores, one for each actor that this process calls.
//
// A queue's lock is held while its frames are handed to the connection (which never blocks or calls back): so they leave in the order of their
// numbers, and a call is on record before it can be answered. Everything else is called without it. Thread-safe. Owned by the CoreWorker.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "ray/async/loop.h"
#include "ray/core_worker/peers/peer_pool.h"
#include "ray/core_worker/submit/actor_queue_core.h"
#include "ray/core_worker/submit/task_channel.h"
#include "ray/core_worker/tasks/task_manager.h"
#include "ray/util/mutex.h"
#include "ray/v1/explain.pb.h"
#include "ray/v1/gcs_actor.pb.h"

namespace ray::core {

class ActorSubmitter {
 public:
  struct Deps {
    async::Loop* loop = nullptr;
    PeerPool* peers = nullptr;
    TaskManager* tasks = nullptr;
    ObjectService* objects = nullptr;
    Address self;
    std::atomic<uint64_t>* push_numbers = nullptr;  // see TaskChannel
  };
  explicit ActorSubmitter(Deps deps) : deps_(deps) {}
  ~ActorSubmitter();

  // False: known already.
  bool AddActor(const ActorId& actor, ActorPhase phase, int64_t max_pending_calls, const std::string& class_name);
  bool Knows(const ActorId& actor);
  // REQUIRES: not in the table yet. NOT_FOUND: never added. RESOURCE_EXHAUSTED: too many calls are pending; nothing was done.
  Status Submit(const ActorId& actor, const PendingTaskPtr& task);
  // A call that was done, to bring back what it made; it is in the table of tasks. Its place is behind what was called meanwhile.
  void Resubmit(const ActorId& actor, const PendingTaskPtr& task);
  // Marked cancelled before.
  void Cancel(const ActorId& actor, const PendingTaskPtr& task, bool recursive);
  // News from the GCS (kPublish), or of our own failed creation.
  void OnActorInfo(const v1::ActorInfo& info);
  void OnDead(const ActorId& actor, const v1::ErrorDetail& cause);
  // How often it was restarted, as far as is known here; none: it is unknown.
  std::optional<uint64_t> IncarnationOf(const ActorId& actor);
  // That incarnation was told to end: what is submitted from now on is not done by it.
  void OnEnding(const ActorId& actor, uint64_t incarnation);
  // No counted handle of it is left here, and no call is pending: once it is dead, it is forgotten.
  void OnHandlesGone(const ActorId& actor);
  // Where a call is, whether its arguments are ready or not.
  void Explain(const ActorId& actor, const PendingTask& task, v1::WaitFact* out);
  // The calls that were sent, by number, and where to.
  std::unordered_map<CallNo, TaskWorker> Sent();
  // Where that one was sent to; nullopt: it was not, or is not there any more.
  std::optional<TaskWorker> SentTo(const PendingTask& task);

 private:
  struct Queue {
    Queue(ActorPhase phase, int64_t max_pending) : core(phase, max_pending) {}
    ActorId id;
    std::string class_name;
    Mutex mu;
    ActorQueueCore core GUARDED_BY(mu);
    std::shared_ptr<TaskChannel> channel GUARDED_BY(mu);
    Address address GUARDED_BY(mu);
    int64_t pid GUARDED_BY(mu) = 0;
    ErrorValue death GUARDED_BY(mu);
    std::string trouble GUARDED_BY(mu);        // why the last attempt to connect failed; empty: it did not
    bool reconnecting GUARDED_BY(mu) = false;  // a timer runs
  };
  using QueuePtr = std::shared_ptr<Queue>;
  struct Later {
    PendingTaskPtr task;
    ActorEffect::Kind kind;
    uint32_t attempt;   // that ends
    TaskWorker worker;  // where it was sent; nil: nowhere
  };

  QueuePtr Find(const ActorId& actor);
  // A call of an actor that is dead and was forgotten here.
  void FailForgotten(const ActorId& actor, const PendingTaskPtr& task);
  // Forgets it, if it is dead and has no counted handle here.
  void MaybeForget(const QueuePtr& queue);
  // Applies `event` to the core and carries out what it says.
  template <typename Event>
  void Run(const QueuePtr& queue, Event event);
  bool CarryOutLocked(const QueuePtr& queue, const ActorEffects& effects, std::vector<Later>* later);
  void Connect(const QueuePtr& queue);
  void UseConnection(const QueuePtr& queue, const Address& address, const rpc::ConnectionPtr& connection);
  void OnConnectionLost(const QueuePtr& queue, uint64_t epoch);
  void ReconnectLaterLocked(const QueuePtr& queue);
  void OnAnswer(const QueuePtr& queue, const std::shared_ptr<TaskChannel>& channel, const PendingTaskPtr& task, uint64_t epoch,
                uint64_t sequence, Status status, rpc::Reply reply);
  // `charged`: as ActorQueueCore::Submit.
  void Enqueue(const QueuePtr& queue, const PendingTaskPtr& task, bool ready, bool charged);
  void EnqueueAndResolve(const QueuePtr& queue, const PendingTaskPtr& task, bool charged);
  void Settle(const QueuePtr& queue, const std::vector<Later>& later);

  static constexpr size_t kDeathsKept = 256;

  const Deps deps_;
  Mutex mu_;  // taken before a queue's
  std::unordered_map<ActorId, QueuePtr, IdHash> queues_ GUARDED_BY(mu_);
  std::unordered_map<ActorId, ErrorValue, IdHash> deaths_ GUARDED_BY(mu_);  // of those that were forgotten last
  std::deque<ActorId> forgotten_ GUARDED_BY(mu_);                           // the keys of deaths_, oldest first
};

}  // namespace ray::core
