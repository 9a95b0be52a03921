// JobLogs: lines and messages for the drivers of a job, wherever they are: between nodes they go through DriverRelay, and a driver that leaves gets
// what is still on its way first. On the loop only; owned by NodeServices.
#pragma once

#include <functional>
#include <optional>

#include "ray/common/ids.h"
#include "ray/raylet/logs/driver_relay.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dispatcher.h"

namespace ray::raylet {

class NodeDirectory;
class Router;
class WorkerService;

class JobLogs {
 public:
  JobLogs(const NodeId& self, WorkerService* workers, NodeDirectory* nodes, Router* router);
  void RegisterHandlers(rpc::Dispatcher* dispatcher);

  void Lines(const JobId& job, v1::LogLinesNotice lines) { relay_.Lines(job, std::move(lines)); }
  void Message(const JobId& job, v1::DriverMessageNotice message) { relay_.Message(job, std::move(message)); }
  // `done` once what the job's workers printed until now is here, or after a short while. A driver that leaves right after its last `get` still shows what
  // they printed before they answered.
  void Drain(const JobId& job, std::function<void()> done);

 private:
  DriverRelayHooks RelayHooks();
  void FindDriver(const JobId& job, std::function<void(std::optional<NodeId>)> done);

  const NodeId self_;
  WorkerService* const workers_;
  NodeDirectory* const nodes_;
  Router* const router_;
  DriverRelay relay_;
};

}  // namespace ray::raylet
