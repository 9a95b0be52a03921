// CodeDriver: a driver process that runs code over the product's CoreWorker. Its main function works; when it returns, the driver holds what `kept` has, until it
// is told to leave, or leaves at once. It ends when the session does.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "ray/core_worker/core_worker.h"
#include "ray/testing/sim/cluster_driver.h"
#include "ray/testing/sim/network.h"
#include "ray/testing/workload/session.h"

namespace ray::sim {

class CodeDriver final : public ClusterDriver {
 public:
  using Main = std::function<void(CodeDriver*)>;
  // In a new process on that host, which owns it.
  static CodeDriver* Start(SimNetwork* network, HostId host, const std::string& raylet_address, Main main);
  CodeDriver(SimNetwork* network, Process* process, std::string sockets_dir, Main main);

  // Of its main function.
  Session& session() { return *session_; }
  // Held until the driver leaves; of actors that are known to be there.
  void Keep(ActorHandle actor);
  // It does not hold anything when its main function returns, but leaves in good order.
  void LeaveSoon() { finish_.Notify(); }

  Process* process() const override { return process_; }
  bool holds_only() const override { return holds_; }
  void Finish() override;
  std::vector<std::string> Waiting() const override;
  std::string Left() const override;
  JobId job() const override { return worker_ == nullptr ? JobId::Nil() : worker_->info().job_id; }
  const std::set<ActorId>& actors() const override { return actors_; }
  const std::set<PlacementGroupId>& groups() const override { return groups_; }

 private:
  void Run();

  SimNetwork* const network_;
  Process* const process_;
  const std::string sockets_dir_;
  Main main_;
  std::unique_ptr<core::CoreWorker> worker_;
  std::unique_ptr<Session> session_;
  std::vector<ActorHandle> kept_;
  std::set<ActorId> actors_;
  std::set<PlacementGroupId> groups_;
  async::Waiter finish_;
  bool holds_ = false;
};

}  // namespace ray::sim
