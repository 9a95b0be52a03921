// ExplainService: what this node knows of where leases, actors and copies of objects stand; and, for who looks for somebody that knows an id, what the
// processes of this node know of it. Keeps what processes that left knew of their tasks.
//
// On the loop only; owned by NodeServices.
#pragma once

#include <functional>
#include <memory>

#include "ray/async/loop.h"
#include "ray/raylet/adoption/adoption_service.h"
#include "ray/raylet/explain/left_tasks.h"
#include "ray/raylet/leases/lease_service.h"
#include "ray/raylet/objects/node_objects.h"
#include "ray/raylet/workers/worker_service.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/v1/explain.pb.h"

namespace ray::raylet {

class ExplainService {
 public:
  struct Deps {
    async::Loop* loop = nullptr;
    NodeId self;
    WorkerService* workers = nullptr;
    LeaseService* leases = nullptr;
    AdoptionService* adoption = nullptr;
    NodeObjects* objects = nullptr;
    Duration process_timeout = std::chrono::seconds(1);  // for the answer of a process of this node; its answer is left out after that
  };
  explicit ExplainService(const Deps& deps) : deps_(deps) {}
  ~ExplainService() { *alive_ = false; }
  void RegisterHandlers(rpc::Dispatcher* dispatcher);

 private:
  // Collects the facts of several, and answers when the last has told what it knows.
  struct Gathering;
  void Explain(const v1::ExplainRequest& message, rpc::Responder responder);
  void AskStore(const ObjectId& id, const std::shared_ptr<Gathering>& gathering);
  void AskProcesses(const v1::ExplainRequest& message, const std::shared_ptr<Gathering>& gathering);

  const Deps deps_;
  LeftTasks left_tasks_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what the store posts back
};

}  // namespace ray::raylet
