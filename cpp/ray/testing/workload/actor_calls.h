// Calls to one actor from several processes, as the product orders them: each caller is an ActorQueueCore over a connection of its own, the actor a RunQueueCore
// that serves them, and ActorCluster restarts the actor and tells the callers of it, as the GCS does. The cores are the product's; what stands around them here
// keeps to the rules of ActorSubmitter and TaskReceiver, without values, ownership or the store.
//
//   World world(seed);
//   SimNetwork network(&world);
//   ActorCluster cluster(&world, &network, {});
//   cluster.Start();
//   world.RunUntil([&] { return cluster.Done(); }, deadline);
//   cluster.history().Check();
#pragma once

#include <cstdint>
#include <vector>

#include "ray/testing/sim/network.h"
#include "ray/testing/workload/actor_history.h"

namespace ray::sim {

struct ActorCallsConfig {
  uint32_t callers = 4;
  uint64_t calls = 60;                                    // of each caller
  int32_t max_retries = 2;                                // of a call: from 0 to that, or without end
  uint64_t max_restarts = 8;                              // then the actor is dead
  Duration max_pause = std::chrono::milliseconds(800);    // between two calls of a caller; half of them follow at once
  Duration max_run = std::chrono::milliseconds(20);       // of a call
  Duration max_late = std::chrono::milliseconds(200);     // until arguments are ready, for one call in ten at each end
  Duration max_news = std::chrono::milliseconds(300);     // from the actor's death, or start, until a caller hears of it
  Duration max_restart = std::chrono::milliseconds(500);  // until it runs again
};

class CallerProgram;

class ActorCluster {
 public:
  static constexpr HostId kActorHost = 0;  // callers are on 1, 2, ...

  ActorCluster(World* world, SimNetwork* network, ActorCallsConfig config);
  void Start();
  // One of them; nothing happens if it is dead.
  void KillActor();
  void KillCaller(uint32_t caller);
  Process* actor() { return actor_; }
  // Every call of a living caller is settled.
  bool Done() const;
  const ActorHistory& history() const { return history_; }

 private:
  enum class News { kAlive, kRestarting, kDead };
  struct Caller {
    Process* process = nullptr;
    CallerProgram* program = nullptr;  // while the process is alive
    Time told{0};                      // news comes in its order
  };
  void StartActor();
  void OnActorDeath();
  void Tell(News news);

  World* const world_;
  SimNetwork* const network_;
  const ActorCallsConfig config_;
  Random random_;
  ActorHistory history_;
  std::vector<Caller> callers_;
  Process* actor_ = nullptr;
  uint64_t incarnation_ = 0;
};

}  // namespace ray::sim
