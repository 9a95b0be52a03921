// CodeWorker: the program of a worker process that runs code: the product's CoreWorker, and in the place of the Python executor one that knows the functions and
// classes of a Program. Owned by its process.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ray/core_worker/core_worker.h"
#include "ray/raylet/workers/worker_launcher.h"
#include "ray/testing/sim/network.h"
#include "ray/testing/workload/code_counts.h"
#include "ray/testing/workload/session.h"

namespace ray::sim {

// A run of a function or method, as its code sees it.
struct TaskCall {
  Session* session;
  const core::ReceivedTask* task;
  Value args;
  std::vector<Value> values;                // of the refs that were arguments themselves
  std::shared_ptr<void>* state = nullptr;   // of the actor; set by its constructor
  std::function<bool(const Value&)> yield;  // of a stream: one more item; false: no more are wanted
};

struct TaskOutput {
  enum Kind { kValue, kError, kCrash };
  Kind kind = kValue;
  Value value;             // kValue
  std::string message;     // kError
  bool retryable = false;  // kError
  // kValue: it must not go through the store, where it may be lost, and what made it be run again. For methods that change their actor, and for what was given refs
  // inside of its arguments: nothing holds them for another run (docs/architecture/failure.md).
  bool small = false;
};

using Function = std::function<TaskOutput(TaskCall&)>;
// Functions, constructors and methods by name. Outlives the World.
using Program = std::map<std::string, Function>;

// Begins to run in `process`; is added to `counts`.
void RunCodeWorker(SimNetwork* network, const Program* program, CodeCounts* counts, Process* process, const raylet::LaunchRequest& request,
                   const std::string& raylet_address);

}  // namespace ray::sim
