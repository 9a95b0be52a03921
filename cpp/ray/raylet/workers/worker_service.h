// WorkerService: the processes of this node that speak to the raylet: its workers and the drivers.
//
// It owns the worker pool's core, uses the launcher and the log tailer, carries out the pool's effects, and knows for each process its
// connection, its job and how it ended. What others learn of a process's end comes from here, once per process and in this order: the lines it
// printed, the hook, then WorkerDied to every process of the node. On the loop only; owned by NodeServices.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ray/async/loop.h"
#include "ray/async/tick_timer.h"
#include "ray/common/ids.h"
#include "ray/raylet/logs/log_tailer.h"
#include "ray/raylet/workers/worker_launcher.h"
#include "ray/raylet/workers/worker_pool_core.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/raylet_worker.pb.h"

namespace ray::raylet {

class JsonWriter;

struct WorkerServiceConfig {
  WorkerPoolConfig pool;
  NodeId node_id;
  std::string node_ip;
  std::string sockets_dir;          // where processes that end leave their sockets; empty: not looked after
  v1::RegisterWorkerReply welcome;  // what every registered process is told
  // How long a closed connection waits for its process's exit status, which the zygote tells when it is its turn; and, the other way round, the
  // end of a process for that of its connection, which a child may hold open.
  Duration exit_status_wait = std::chrono::seconds(1), close_wait = std::chrono::milliseconds(100);
  Duration exit_grace = std::chrono::seconds(5);  // from asking a worker to leave, where it must, to SIGKILL
};

// Why a worker is killed whose owner found that it does not answer. As often as not somebody else has ended it already.
inline constexpr std::string_view kOwnerLostIt = "its owner lost the connection to it";
inline constexpr std::string_view kNodeStops = "the node is stopping";

// A process has ended.
struct ProcessEnd {
  WorkerId worker;
  JobId job;
  int64_t pid = -1;
  bool is_driver = false;
  std::string detail;          // for people
  bool intended = false;       // it said so, or was told to
  bool out_of_memory = false;  // ended by the memory monitor
  bool in_order = false;       // it was asked to leave, said so and left by itself
  bool with_node = false;      // the raylet is leaving, and ended it
};

struct WorkerServiceHooks {
  std::function<void(const LeaseId& lease, const WorkerId& worker)> on_assigned;
  std::function<void(const WorkerPopFailed& failure)> on_pop_failed;
  std::function<void(const ProcessEnd& end)> on_ended;  // registered processes only
  // For the drivers of a job that has none here. May be null (tests).
  std::function<void(const JobId& job, v1::LogLinesNotice lines)> on_lines_for_elsewhere;
  std::function<void(const JobId& job, v1::DriverMessageNotice message)> on_message_for_elsewhere;
  std::function<void(const WorkerId& worker, const rpc::ConnectionPtr& connection)> on_registered = nullptr;  // before it is answered
  std::function<void(const WorkerId& worker)> on_killed = nullptr;  // it was sent SIGKILL: its end is certain, and will be told
  // Why processes that have started cannot come in now; empty: nothing is known of that.
  std::function<std::string()> shut_out = nullptr;
};

class WorkerService {
 public:
  // Loop and launcher must outlive the service; `logs` may be null (tests).
  WorkerService(WorkerServiceConfig config, async::Loop* loop, WorkerLauncher* launcher, WorkerServiceHooks hooks);
  ~WorkerService();
  void SetLogTailer(LogTailer* logs) { logs_ = logs; }
  // Workers find this node's socket, and the cluster's configuration. Until then none is launched: other nodes hear of this one as soon as the GCS has it, and may send
  // work before its answer is here.
  void Open();
  // What the GCS says of the whole cluster. `session_name` empty: that of this node's folder stays.
  void SetClusterConfig(std::string json, const std::string& session_name) {
    config_.welcome.set_config_json(std::move(json));
    if (!session_name.empty()) config_.welcome.set_session_name(session_name);
  }
  // Whose raylet answers for objects of owners that have left.
  void SetAdopter(const NodeId& node) { config_.welcome.set_adopter_node_id(node.Binary()); }
  void RegisterHandlers(rpc::Dispatcher* dispatcher);

  void Pop(const LeaseId& lease, const WorkerKey& key, bool fresh, bool actor);
  bool CancelPop(const LeaseId& lease) { return pool_.CancelPop(lease); }
  void Return(const WorkerId& worker, bool reusable);
  // SIGKILL. `intended`: nobody need be surprised.
  void Kill(const WorkerId& worker, const std::string& reason, bool intended);
  // As Kill, by the memory monitor.
  void KillForMemory(const WorkerId& worker, const std::string& reason);
  // Asks it to leave once what it runs and has queued is done; with `must`, it is killed if it has not left after exit_grace.
  // `leave_queued`: an actor that is to go on elsewhere; only what it runs is done.
  void AskExit(const WorkerId& worker, const std::string& reason, bool must, bool leave_queued = false);
  // All workers, as AskExit without `must`; those that were asked before are left alone.
  void AskAllExit(const std::string& reason);
  // Registered ones, and those that are about to be; drivers do not count.
  size_t num_workers() const;
  size_t num_drivers() const { return processes_.size() - num_workers(); }
  bool IsDriver(const WorkerId& process) const;
  // What keeps workers from starting, for people; empty: nothing is known of that.
  std::string StartTrouble() const;
  // The process behind the connection has made that actor; see WorkerPoolCore::Keep.
  void Keep(uint64_t connection_id, const ActorId& actor) { pool_.Keep(WorkerOf(connection_id), actor); }
  // The actor is dead, or never was.
  void OnActorEnded(const ActorId& actor);
  void JobStarted(const JobId& job);
  void JobFinished(const JobId& job, const std::function<bool(const WorkerId&)>& keep_worker,
                   const std::function<bool(const LeaseId&)>& keep_lease);
  // A driver's job became known, before or after it registered. Workers of the job are told what it is when they register.
  void BindDriverJob(uint64_t connection_id, const v1::JobInfo& job);

  // The process behind a connection; nil for one that has not registered.
  WorkerId WorkerOf(uint64_t connection_id) const;
  // Null when it is not registered or has gone.
  rpc::ConnectionPtr ConnectionOf(const WorkerId& worker) const;
  int64_t PidOf(const WorkerId& worker) const;
  std::vector<rpc::ConnectionPtr> ConnectionsOf(const JobId& job) const;  // of its registered processes
  std::vector<int64_t> Pids() const;                                      // of the workers and drivers
  std::set<JobId> Jobs() const;                                           // of them
  // To the drivers of the job (nil: every driver) that are on this node.
  bool DeliverMessage(const v1::DriverMessageNotice& message);
  bool DeliverLines(const v1::LogLinesNotice& lines);
  // To the drivers of the job, wherever they are.
  void NotifyDrivers(const JobId& job, const std::string& kind, const std::string& message);
  // One-way, to every process of the node.
  void NotifyAll(MethodId method, const rpc::MessageLite& message) const;
  void ForwardLines(WorkerLines lines);
  void DrainLogs(const JobId& job) {
    if (logs_ != nullptr) logs_->DrainJob(job);
  }
  void WriteStats(JsonWriter* json) const;

  // Asks all workers to leave; calls `done` when none is left, or after `grace`, having killed the rest. New workers are refused from now on.
  void Shutdown(Duration grace, std::function<void()> done);

 private:
  struct Process {
    WorkerId id;
    JobId job;
    bool is_driver = false;
    uint64_t token = 0;  // of the launch; 0 for drivers
    int64_t pid = -1;
    rpc::ConnectionPtr connection;   // null until registered
    bool closed = false;             // the connection has ended
    std::optional<int> wait_status;  // the process has ended
    std::string announced;           // reason given by itself
    std::string kill_reason;
    bool intended = false;
    bool with_node = false;  // ended since the raylet leaves
    bool asked = false;      // to leave
    bool out_of_memory = false;
    async::TimerId timer = 0;  // bounds the wait for the other sign of its end, or for a demanded exit
  };

  void Register(const v1::RegisterWorkerRequest& message, rpc::Request& request, rpc::Responder responder);
  Status Admit(const v1::RegisterWorkerRequest& message, const WorkerId& worker, const rpc::Connection& connection);
  v1::RegisterWorkerReply Welcome(const JobId& job) const;
  void Run(PoolEffects effects);
  void Apply(const PoolEffect& effect);
  void OnTick();
  void OnStarted(uint64_t token, int64_t pid);
  void OnStartFailed(uint64_t token, const std::string& message, WorkerEnd how);
  void OnExited(int64_t pid, int wait_status);
  void OnClosed(const WorkerId& worker);
  void SetTimer(Process* process, Duration delay, void (WorkerService::*fn)(const WorkerId&));
  void OnExitOverdue(const WorkerId& worker);
  void OnSignOverdue(const WorkerId& worker);
  void Finish(const WorkerId& worker);
  void MaybeShutdownDone();
  Process* Find(const WorkerId& worker);
  const Process* Find(const WorkerId& worker) const;

  WorkerServiceConfig config_;
  async::Loop* const loop_;
  WorkerLauncher* const launcher_;
  const WorkerServiceHooks hooks_;
  LogTailer* logs_ = nullptr;
  WorkerPoolCore pool_;
  std::map<WorkerId, Process> processes_;
  std::map<uint64_t, WorkerId> by_connection_;
  std::map<uint64_t, WorkerId> by_token_;
  std::map<int64_t, WorkerId> by_pid_;
  std::map<JobId, v1::JobInfo> jobs_;  // running, of this node's drivers
  std::string python_version_;         // that of the first process; the others must match
  std::deque<PoolEffect> effects_;
  bool running_effects_ = false;
  async::TickTimer timer_;
  std::function<void()> shutdown_done_;
  bool open_ = false;
  std::vector<LaunchRequest> launches_;  // that wait for Open
  bool shutting_down_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for callbacks that connections keep
};

// "exit code 1", "killed by signal 9 (Killed)", from a raw wait status.
std::string DescribeWaitStatus(int wait_status);

}  // namespace ray::raylet
