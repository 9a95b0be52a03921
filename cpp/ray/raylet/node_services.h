// NodeServices: what a raylet does, whatever it stands on: worker pool, leases, bundles, routing, links to the GCS and to other nodes, drain, reports.
//
// It is the composition of the node's services. Their carriers, object store and launcher come from outside (NodeCarriers, NodeObjects, WorkerLauncher): Raylet
// gives it sockets, gRPC and shared memory, the simulation its own. On the loop only; owned by Raylet.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ray/async/loop.h"
#include "ray/common/address.h"
#include "ray/common/ids.h"
#include "ray/raylet/nodes/link_core.h"
#include "ray/raylet/objects/node_objects.h"
#include "ray/raylet/raylet_config.h"
#include "ray/raylet/workers/worker_launcher.h"
#include "ray/rpc/core/dial.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/util/status.h"

namespace ray::raylet {

class AdoptionService;
class LeaseService;
class LogTailer;
class NodeDirectory;
class WorkerService;
struct WorkerLines;

// How the node reaches others, and its processes reach it. What arrives is served by NodeServices::dispatcher().
class NodeCarriers {
 public:
  virtual ~NodeCarriers() = default;
  // A new link, usable at once; that nobody answers shows by its end.
  virtual rpc::ConnectionPtr ConnectGcs() = 0;
  // The same to another raylet. `plain`: it takes frames on plain TCP. `on_failed`: of an attempt that had better be repeated; not every carrier tells.
  virtual rpc::ConnectionPtr Dial(const std::string& address, Lane lane, bool plain, rpc::DialFailed on_failed) = 0;
  // The node's own processes may connect from now on.
  virtual Status ListenForProcesses() = 0;
  // Why they have to wait for that now ("cannot ..."), as when there is no descriptor left for them; empty: nothing is known of it.
  virtual std::string ProcessesShutOut() const { return {}; }
  // No link to another node is made or taken any more.
  virtual void StopLinks() = 0;
  // Every connection ends.
  virtual void Shutdown() = 0;
};

class NodeServices {
 public:
  struct Deps {
    async::Loop* loop = nullptr;
    NodeId node_id;
    NodeCarriers* carriers = nullptr;
    NodeObjects* objects = nullptr;
    WorkerLauncher* launcher = nullptr;
    std::string hostname;             // for people
    int64_t pid = -1;                 // for people
    std::function<void()> kill_node;  // as kill -9 of this process
  };
  // What the pointers point to must outlive it, and may be used from its destructor on no more.
  NodeServices(RayletConfig config, Deps deps);
  ~NodeServices();
  const std::shared_ptr<rpc::Dispatcher>& dispatcher() const;
  // May be null. Before the first worker.
  void SetLogTailer(LogTailer* logs);
  void ForwardLines(WorkerLines lines);
  void NotifyDrivers(const JobId& job, const std::string& kind, const std::string& message);

  // Of a copy that has come to the store of this node.
  void TellOwner(const Address& owner, const CopyRun& copy);

  // Registers with the GCS; see Raylet::Start. `listen_address`: where other nodes reach this one, empty: nowhere; `plain_links`: also by frames on plain TCP.
  void Start(const std::string& listen_address, bool plain_links, std::function<void()> on_ready,
             std::function<void(const Status&)> on_end);
  // The store's fill has changed since NodeObjects::ArmUse.
  void OnStoreUse();
  // The store has an object of that process of another node.
  void OnOwnerElsewhere(const Address& owner);
  // The launcher can make processes, or never will.
  void OnLauncherReady(const Status& status);
  void Stop(const std::string& reason, std::function<void()> done);
  // Nothing is begun any more; before the destructor, where Stop was not called.
  void Abandon();
  void Drain(const std::string& reason, Duration deadline);
  void SetShutdownHandler(std::function<void(const std::string& reason)> fn);

  NodeDirectory* nodes() const;
  const LeaseService& leases() const;
  const WorkerService& workers() const;
  const AdoptionService& adoption() const;
  bool registered() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ray::raylet
