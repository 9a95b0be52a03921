// Raylet: one node of a cluster, on sockets, gRPC, shared memory and forked processes: what NodeServices stands on, and those services.
//
// Everything runs on the loop of the main thread, save the store, which has a thread and a socket of its own. Owned by main.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "ray/async/loop.h"
#include "ray/common/ids.h"
#include "ray/raylet/raylet_config.h"
#include "ray/util/status.h"

namespace ray::raylet {

class Raylet {
 public:
  // The loop must outlive it. Nothing is started yet.
  static Result<std::unique_ptr<Raylet>> Make(RayletConfig config, async::EpollLoop* loop);
  ~Raylet();

  // Starts store, zygote and listener and registers with the GCS. `on_ready` runs on the loop once drivers may come and
  // workers can be forked; `on_end` when the raylet cannot go on: no worker can be started, the GCS refused it, never answered, or its link
  // broke (before or after it was ready) and no GCS that knows the cluster came in time.
  Status Start(std::function<void()> on_ready, std::function<void(const Status&)> on_end);
  // On the loop. Asks the workers to leave, kills what is left after the grace, leaves the GCS, removes the sockets; then `done`.
  void Stop(const std::string& reason, std::function<void()> done);
  // On the loop. Takes no more work and lets what runs finish, for at most `deadline`; then the shutdown handler runs, with the reason.
  void Drain(const std::string& reason, Duration deadline);
  // On the loop: SIGCHLD came. Reaps every child that has ended.
  void ReapChildren();
  // Runs when the node is to stop: a message Shutdown of the GCS asks for it, or a drain is over.
  void SetShutdownHandler(std::function<void(const std::string& reason)> fn);

  const NodeId& node_id() const;
  // Where other nodes reach this one, port filled in, once started; empty: nowhere.
  std::string listen_address() const;

 private:
  struct Impl;
  explicit Raylet(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ray::raylet
