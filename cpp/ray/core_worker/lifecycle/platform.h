// Platform: what a core worker has of the machine under it: a loop, connections to processes of its node, the node's store, and its own end. The real one is
// the UnixPlatform; a simulation has one on virtual time. Owned by the CoreWorker. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ray/async/loop.h"
#include "ray/common/ids.h"
#include "ray/core_worker/objects/value_store.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/util/status.h"

namespace ray::rpc {
class FaultInjector;
}

namespace ray::core {

class Platform {
 public:
  virtual ~Platform() = default;
  // Runs until StopLoop.
  virtual async::UserLoop* loop() = 0;
  // Once, before Listen and Connect: who answers what comes on connections. `faults`: of what is sent on them; null: none.
  virtual Status Open(std::shared_ptr<const rpc::Dispatcher> dispatcher, std::shared_ptr<rpc::FaultInjector> faults) = 0;
  // Under that name in the folder of the node's sockets. Connect is immediate, and fails if nobody listens.
  virtual Status Listen(const std::string& socket) = 0;
  virtual Result<rpc::ConnectionPtr> Connect(const std::string& socket) = 0;
  // Closes all connections and refuses new ones. Idempotent.
  virtual void CloseConnections() = 0;
  // The store of this node, for the process of that id. Used while the loop runs, destroyed before the platform.
  virtual std::unique_ptr<ValueStore> MakeStore(const WorkerId& self) = 0;
  virtual int64_t pid() const = 0;
  // Ends the process at once; what calls it does nothing more.
  virtual void Exit(int code) = 0;
  // Nothing runs on the loop once it has returned. Idempotent.
  virtual void StopLoop() = 0;
  // The process has ended around the worker, which is only destroyed now. Never seen by real ones.
  virtual bool ended() const { return false; }
};

}  // namespace ray::core
