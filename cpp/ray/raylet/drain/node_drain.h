// NodeDrain: the shell of DrainCore: takes the node's work away, has its objects saved, and asks for its end. On the loop only; owned by NodeServices.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ray/async/loop.h"
#include "ray/common/address.h"
#include "ray/raylet/drain/drain_core.h"
#include "ray/raylet/drain/evacuation.h"
#include "ray/rpc/core/connection.h"

namespace ray::raylet {

class LeaseService;
class NodeDirectory;
class WorkerService;

class NodeDrain {
 public:
  struct Deps {
    async::Loop* loop = nullptr;
    NodeId node_id;
    LeaseService* leases = nullptr;
    WorkerService* workers = nullptr;
    NodeDirectory* nodes = nullptr;
    NodeObjects* objects = nullptr;
    std::function<rpc::ConnectionPtr(const Address& process)> connect;
    std::function<void(const std::string& reason, Duration left)> tell_gcs;
    std::function<void(const std::string& reason)> leave;
  };
  explicit NodeDrain(Deps deps);
  ~NodeDrain() {
    *alive_ = false;
    Stop();
  }

  void Begin(const std::string& reason, Duration deadline);
  // Begins if nothing runs or lies here, or it drains already; else FAILED_PRECONDITION says what. `answer` on the loop, at most once: not after the end.
  void BeginIfIdle(const std::string& reason, Duration deadline, std::function<void(const Status&)> answer);
  bool draining() const { return core_.draining(); }
  // Leases or workers have come or gone; the second, where their own services are still at it. Nothing happens while it does not drain.
  void OnWork();
  void OnWorkSoon();
  // No deadline comes any more.
  void Stop();

 private:
  void CountWork();
  void Run(const DrainEffects& effects);
  std::vector<Evacuation::Target> Targets() const;
  std::vector<NodeId> Leaving() const;
  Evacuation::Deps EvacuationDeps();

  const Deps deps_;
  DrainCore core_;
  Evacuation evacuation_;
  async::TimerId timer_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace ray::raylet
