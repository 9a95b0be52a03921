// ChaosService: ends processes of this node on request, as a crash would, so that programs can be tested (ray.util.chaos).
//
// A worker is named by the lease that it holds: one that has moved on to other work since it was looked at is left alone.
// On the loop only; owned by NodeServices.
#pragma once

#include <functional>
#include <string>

#include "ray/async/loop.h"
#include "ray/common/ids.h"
#include "ray/raylet/leases/lease_service.h"
#include "ray/raylet/workers/worker_service.h"
#include "ray/rpc/core/dispatcher.h"

namespace ray::raylet {

class ChaosService {
 public:
  struct Deps {
    async::Loop* loop;
    LeaseService* leases;
    WorkerService* workers;
    NodeId node_id;
    std::function<std::string(int64_t pid)> title_of;  // under which a process is shown: "ray::NAME" while a worker runs NAME
    std::function<void()> die;                         // ends this process at once; does not return, but in tests
  };
  // What it is given must outlive it.
  explicit ChaosService(Deps deps) : deps_(std::move(deps)) {}
  void RegisterHandlers(rpc::Dispatcher* dispatcher);

 private:
  std::string RunningIn(const WorkerId& worker) const;

  const Deps deps_;
};

}  // namespace ray::raylet
