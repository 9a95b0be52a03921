// ActorService: what this process does about actors besides calling them: creating, naming, killing, following their state.
//
// An actor that we create is ours: its handles are counted as an object of ours, the arguments of its constructor are kept for as long as it may be
// started again. Every actor that we have a handle of is subscribed to; news reach the ActorSubmitter. Owned by the CoreWorker. Thread-safe.
#pragma once

#include <functional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ray/async/loop.h"
#include "ray/core_worker/objects/object_service.h"
#include "ray/core_worker/peers/peer_pool.h"
#include "ray/core_worker/submit/actor_submitter.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/util/mutex.h"
#include "ray/v1/gcs_actor.pb.h"

namespace ray::core {

class ActorService {
 public:
  struct Deps {
    async::UserLoop* loop = nullptr;
    PeerPool* peers = nullptr;
    ObjectService* objects = nullptr;
    ActorSubmitter* submitter = nullptr;
    TaskManager* tasks = nullptr;
    Address self;
    Duration gcs_timeout = std::chrono::seconds(60);  // for each answer that a user waits for
  };
  explicit ActorService(Deps deps) : deps_(deps) {}
  // `task` is the creation task, arguments not resolved. Named actors are registered before the return (ALREADY_EXISTS), others on the way. One
  // handle is counted for the caller.
  Status Create(const PendingTaskPtr& task);
  // A handle that came from elsewhere. Idempotent.
  void RegisterHandle(const ActorId& actor, int64_t max_pending_calls, const std::string& class_name);
  Status Kill(const ActorId& actor, bool no_restart);
  Status GetNamed(const std::string& name, const std::string& ray_namespace, v1::ActorInfo* out);
  Status List(const v1::ListActorsRequest& request, v1::ListActorsReply* out);
  // No handle is left: anywhere, of actors that we created; here, of others.
  void OnHandlesGone(const std::vector<ActorId>& created, const std::vector<ActorId>& borrowed);
  // News from the GCS (kPublish), on the loop.
  void OnPublish(const v1::ActorInfo& info);
  // The creation task of an actor that we created and that is not dead; null: none.
  PendingTaskPtr CreationOf(const ActorId& actor) const;
  // Creations by us that have not ended: the first ones, and those of restarts.
  struct Creation {
    PendingTaskPtr task;
    uint32_t attempt = 0;
    bool ended = false;  // the actor is alive, or was; it may be started again
  };
  std::vector<Creation> PendingCreations() const;
  // This worker's actor leaves by itself. Waits until the GCS knows.
  Status AnnounceExiting(const ActorId& actor, const WorkerId& worker);

 private:
  void Subscribe(const ActorId& actor);
  void SendCreation(const PendingTaskPtr& task);
  void OnCreationRefused(const PendingTaskPtr& task, const Status& status);
  // The GCS is told that the actor, whose constructor has not been sent, is not to be made. Returns the cause in full.
  v1::ErrorDetail TellFailed(const ActorId& actor, v1::ErrorDetail cause);
  // Follows how the attempts to create an actor of ours go.
  void NoteCreation(const v1::ActorInfo& info);
  // It is dead; `cause` if it is so before it was created.
  void Drop(const ActorId& actor, const v1::ErrorDetail& cause);
  void DropArguments(const ActorId& actor);

  const Deps deps_;
  mutable Mutex mu_;
  std::unordered_map<ActorId, Creation, IdHash> created_ GUARDED_BY(mu_);  // by us and not dead: holds the constructor's arguments
  std::unordered_set<ActorId, IdHash> detached_ GUARDED_BY(mu_);           // created by us; their handles are counted in vain
};

}  // namespace ray::core
