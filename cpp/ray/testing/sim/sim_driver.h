// SimDriver: a driver that runs no code: it registers with the raylet of its host, gets a job, and asks for leases, actors and placement groups in the product's own
// messages, as owners do: it follows spillback to other raylets through tunnels, gives every lease back, and ends some things while it lives. Every
// request that waits for an answer is listed. It leaves in three steps, so that a cluster can be looked at between them: Run, Hold, Finish.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "ray/common/address.h"
#include "ray/common/resources.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/rpc/tunnel/tunnel_hub.h"
#include "ray/testing/sim/cluster_driver.h"
#include "ray/testing/sim/kv_history.h"
#include "ray/testing/sim/network.h"
#include "ray/v1/raylet_lease.pb.h"
#include "ray/v1/types.pb.h"

namespace ray::sim {

struct DriverConfig {
  Duration active = std::chrono::seconds(20);            // from then on nothing new is asked for
  Duration max_pause = std::chrono::milliseconds(1500);  // between two requests
  Duration max_hold = std::chrono::seconds(4);           // of a lease
  int kv_keys = 4;
  // More than none: the driver asks for leases for so many tasks, for at most `parallel` at once, holds each as long as its task runs, and for nothing else.
  int64_t tasks = 0;
  int64_t parallel = 100;
};

class SimDriver final : public ClusterDriver {
 public:
  // In a new process on that host, which owns it. `history` outlives it.
  static SimDriver* Start(SimNetwork* network, HostId host, const Address& raylet, const std::string& raylet_address, DriverConfig config,
                          KvHistory* history);
  SimDriver(SimNetwork* network, Process* process, const Address& raylet, DriverConfig config, KvHistory* history);
  ~SimDriver() override;
  // One CPU of that node and no other. On its loop; `done` hears of the end of the way there, or of an answer, which is not heeded otherwise.
  void AskForLease(const LeaseId& lease, const NodeId& node, std::function<void(const Status&)> done);

  Process* process() const override { return process_; }
  bool holds_only() const override { return !active_ && leases_.empty() && waiting_.empty(); }
  void Finish() override;
  std::vector<std::string> Waiting() const override;
  JobId job() const override { return job_; }
  const std::set<ActorId>& actors() const override { return actors_; }
  const std::set<PlacementGroupId>& groups() const override { return groups_; }
  // Whose lease was granted, held and given back.
  int64_t tasks_done() const override { return tasks_done_; }
  int64_t asked() const override { return asked_; }

 private:
  struct Lease {
    LeaseId id;
    ResourceSet need;
    bool spread = false;
    NodeId node;  // that was asked last; nil: ours
    std::vector<NodeId> rejected_by;
    int hops = 0;
    uint32_t asks = 0;
  };
  void Register(const std::string& raylet_address);
  void AddJob();
  void Next();
  void Act();
  void RequestLease();
  void MoreTasks();
  // The lease was not granted, and will not be: a task is asked for anew.
  void GiveUp(uint64_t no);
  void CancelWaiting();
  void AskForLease(uint64_t no, const NodeId& node, v1::LeasePlacement placement);
  void OnLease(uint64_t no, const Status& status, const v1::RequestLeaseReply& reply);
  void ReturnLease(uint64_t no, bool failed);
  void CreateActor();
  void EndActor();
  void CreateGroup();
  void RemoveGroup();
  void Kv();
  // A call to the own raylet, for the GCS or itself. `done` gets the control part.
  void Ask(const std::string& what, MethodId method, const rpc::MessageLite& message,
           std::function<void(const Status&, std::string_view)> done);
  rpc::ConnectionPtr RayletOf(const NodeId& node);

  SimNetwork* const network_;
  Process* const process_;
  const DriverConfig config_;
  KvHistory* const history_;
  Random random_;
  const Address self_;
  JobId job_;
  std::shared_ptr<rpc::Dispatcher> dispatcher_ = std::make_shared<rpc::Dispatcher>();
  rpc::ConnectionPtr raylet_;
  std::shared_ptr<rpc::TunnelHub> hub_;
  std::map<NodeId, rpc::ConnectionPtr> remote_;
  bool active_ = true;
  uint64_t last_ = 0;
  int64_t tasks_left_ = 0, tasks_done_ = 0, asked_ = 0;
  std::map<uint64_t, std::string> waiting_;
  std::map<uint64_t, Lease> leases_;
  std::set<ActorId> actors_;
  std::set<PlacementGroupId> groups_;
};

}  // namespace ray::sim
