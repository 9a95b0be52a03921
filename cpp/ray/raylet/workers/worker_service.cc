#include "ray/raylet/workers/worker_service.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "ray/common/socket_name.h"
#include "ray/raylet/workers/json.h"
#include "ray/util/logging.h"
#include "ray/v1/worker_task.pb.h"
#include "ray/wire/version.h"

namespace ray::raylet {
namespace {

// "3.11" of "3.11.7".
std::string_view MinorVersion(std::string_view python) { return python.substr(0, python.find('.', python.find('.') + 1)); }

}  // namespace

std::string DescribeWaitStatus(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    const char* name = strsignal(signal);
    return "killed by signal " + std::to_string(signal) + (name == nullptr ? "" : " (" + std::string(name) + ")");
  }
  return "exit code " + std::to_string(WEXITSTATUS(wait_status));
}

WorkerService::WorkerService(WorkerServiceConfig config, async::Loop* loop, WorkerLauncher* launcher, WorkerServiceHooks hooks)
    : config_(std::move(config)),
      loop_(loop),
      launcher_(launcher),
      hooks_(std::move(hooks)),
      pool_(config_.pool, [] { return WorkerId::FromRandom(); }),
      timer_(loop, [this] { OnTick(); }) {
  launcher_->SetEvents({[this](uint64_t token, int64_t pid) { OnStarted(token, pid); },
                        [this](uint64_t token, const std::string& message) { OnStartFailed(token, message, WorkerEnd::kFailed); },
                        [this](int64_t pid, int status) { OnExited(pid, status); },
                        [this](uint64_t token, const std::string& message) { OnStartFailed(token, message, WorkerEnd::kRefused); }});
}

WorkerService::~WorkerService() {
  *alive_ = false;
  launcher_->SetEvents(
      {[](uint64_t, int64_t) {}, [](uint64_t, const std::string&) {}, [](int64_t, int) {}, [](uint64_t, const std::string&) {}});
  for (auto& [id, process] : processes_) {
    if (process.timer != 0) loop_->CancelTimer(process.timer);
  }
}

void WorkerService::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::RegisterWorkerRequest>(
      MethodId::kRegisterWorker, [this](const v1::RegisterWorkerRequest& message, rpc::Request& request, rpc::Responder responder) {
        Register(message, request, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::AnnounceExitRequest>(
      MethodId::kAnnounceExit, [this](const v1::AnnounceExitRequest& message, rpc::Request& request, rpc::Responder responder) {
        if (Process* process = Find(WorkerOf(request.connection->id()))) {
          process->announced = message.reason();
          process->intended = process->intended || message.intended();
        }
        if (responder.valid()) responder.Send(v1::WorkerEmpty());
      });
}

// ---- who is there ----

WorkerService::Process* WorkerService::Find(const WorkerId& worker) {
  const auto it = processes_.find(worker);
  return it == processes_.end() ? nullptr : &it->second;
}

const WorkerService::Process* WorkerService::Find(const WorkerId& worker) const {
  const auto it = processes_.find(worker);
  return it == processes_.end() ? nullptr : &it->second;
}

WorkerId WorkerService::WorkerOf(uint64_t connection_id) const {
  const auto it = by_connection_.find(connection_id);
  return it == by_connection_.end() ? WorkerId::Nil() : it->second;
}

rpc::ConnectionPtr WorkerService::ConnectionOf(const WorkerId& worker) const {
  const Process* process = Find(worker);
  return process == nullptr || process->closed ? nullptr : process->connection;
}

int64_t WorkerService::PidOf(const WorkerId& worker) const {
  const Process* process = Find(worker);
  return process == nullptr ? -1 : process->pid;
}

std::set<JobId> WorkerService::Jobs() const {
  std::set<JobId> jobs;
  for (const auto& [id, process] : processes_) {
    if (!process.job.IsNil()) jobs.insert(process.job);
  }
  return jobs;
}

std::vector<rpc::ConnectionPtr> WorkerService::ConnectionsOf(const JobId& job) const {
  std::vector<rpc::ConnectionPtr> found;
  for (const auto& [id, process] : processes_) {
    if (process.job == job && process.connection != nullptr && !process.closed) found.push_back(process.connection);
  }
  return found;
}

std::vector<int64_t> WorkerService::Pids() const {
  std::vector<int64_t> pids;
  for (const auto& [id, process] : processes_) {
    if (process.pid > 0) pids.push_back(process.pid);
  }
  return pids;
}

Status WorkerService::Admit(const v1::RegisterWorkerRequest& message, const WorkerId& worker, const rpc::Connection& connection) {
  if (shutting_down_) return Status::FailedPrecondition("the node is stopping");
  if (message.protocol_version() != kProtocolVersion) {
    return Status::FailedPrecondition("this process speaks protocol " + message.protocol_version() + ", the raylet speaks " +
                                      std::string(kProtocolVersion) + ": both must come from the same version of ray");
  }
  if (worker.IsNil()) return Status::InvalidArgument("RegisterWorker needs a worker_id of " + std::to_string(WorkerId::kSize) + " bytes");
  if (connection.peer_pid() < 0) return Status::PermissionDenied("only processes of this machine may register with its raylet");
  if (connection.peer_pid() > 0 && message.pid() != connection.peer_pid()) {
    // Seen through a pid namespace the numbers differ; what the kernel says is what can be signalled from here.
    RAY_LOG(DEBUG) << "process " << connection.peer_pid() << " calls itself " << message.pid();
  }
  // Bytecode, by which functions travel, is the same within a minor version.
  if (!python_version_.empty() && MinorVersion(message.python_version()) != MinorVersion(python_version_)) {
    return Status::FailedPrecondition("this process runs Python " + message.python_version() + ", but the cluster runs Python " +
                                      python_version_ + ": values could not be exchanged");
  }
  return Status::Ok();
}

void WorkerService::Register(const v1::RegisterWorkerRequest& message, rpc::Request& request, rpc::Responder responder) {
  const WorkerId worker = WorkerId::FromBinaryOrNil(message.worker_id());
  auto refuse = [&](const Status& status) {
    RAY_LOG(WARNING) << "process " << message.pid() << " was refused: " << status.message();
    if (responder.valid()) responder.Fail(status);
  };
  if (Status status = Admit(message, worker, *request.connection); !status.ok()) return refuse(status);
  Process* process = Find(worker);
  if (process != nullptr && process->connection != nullptr) {
    if (process->connection == request.connection) {  // repeated
      if (responder.valid()) responder.Send(Welcome(process->job));
      return;
    }
    return refuse(Status::AlreadyExists("a process with this worker_id is registered"));
  }
  if (message.is_driver()) {
    process = &processes_[worker];
    process->id = worker;
    process->is_driver = true;
    process->job = JobId::FromBinaryOrNil(message.job_id());
  } else if (process == nullptr || process->token != message.startup_token()) {
    return refuse(Status::FailedPrecondition("no worker process with this identity is expected"));
  }
  if (python_version_.empty()) python_version_ = message.python_version();
  process->pid = message.pid();
  process->connection = request.connection;
  by_connection_[request.connection->id()] = worker;
  if (!process->is_driver) by_pid_[process->pid] = worker;
  request.connection->OnClose([this, worker, alive = alive_](const Status&) {
    if (*alive) OnClosed(worker);
  });
  if (hooks_.on_registered != nullptr) hooks_.on_registered(worker, request.connection);
  if (responder.valid()) responder.Send(Welcome(process->job));
  if (process->is_driver) {
    RAY_LOG(INFO) << "driver " << worker << " registered, pid " << process->pid << ", job " << process->job;
    if (!process->job.IsNil()) JobStarted(process->job);
    return;
  }
  if (logs_ != nullptr) logs_->Track(worker, process->job, process->pid);
  PoolEffects effects;
  if (!pool_.Registered(worker, message.startup_token(), loop_->clock().Now(), &effects)) {
    Kill(worker, "it registered too late", /*intended=*/false);
  }
  Run(std::move(effects));
}

v1::RegisterWorkerReply WorkerService::Welcome(const JobId& job) const {
  v1::RegisterWorkerReply reply = config_.welcome;
  if (const auto it = jobs_.find(job); it != jobs_.end()) {
    reply.set_job_known(true);
    reply.set_job_namespace(it->second.ray_namespace());
    reply.set_job_config_json(it->second.config_json());
  }
  return reply;
}

void WorkerService::BindDriverJob(uint64_t connection_id, const v1::JobInfo& info) {
  const JobId job = JobId::FromBinaryOrNil(info.job_id());
  jobs_[job] = info;
  Process* process = Find(WorkerOf(connection_id));
  if (process == nullptr || !process->is_driver || !process->job.IsNil()) return;
  process->job = job;
  JobStarted(job);
}

// ---- the pool ----

void WorkerService::Pop(const LeaseId& lease, const WorkerKey& key, bool fresh, bool actor) {
  PoolEffects effects;
  pool_.Pop(lease, key, fresh, actor, loop_->clock().Now(), &effects);
  Run(std::move(effects));
}

void WorkerService::Return(const WorkerId& worker, bool reusable) {
  PoolEffects effects;
  const Process* process = Find(worker);
  reusable = reusable && process != nullptr && !process->closed && !process->wait_status && process->announced.empty() &&
             process->kill_reason.empty();
  pool_.Returned(worker, reusable, loop_->clock().Now(), &effects);
  Run(std::move(effects));
}

void WorkerService::JobStarted(const JobId& job) {
  PoolEffects effects;
  pool_.JobStarted(job, loop_->clock().Now(), &effects);
  Run(std::move(effects));
}

void WorkerService::JobFinished(const JobId& job, const std::function<bool(const WorkerId&)>& keep_worker,
                                const std::function<bool(const LeaseId&)>& keep_lease) {
  jobs_.erase(job);
  PoolEffects effects;
  pool_.JobFinished(job, keep_worker, keep_lease, loop_->clock().Now(), &effects);
  Run(std::move(effects));
}

void WorkerService::OnActorEnded(const ActorId& actor) {
  PoolEffects effects;
  pool_.ActorEnded(actor, loop_->clock().Now(), &effects);
  Run(std::move(effects));
}

void WorkerService::Open() {
  open_ = true;
  for (const LaunchRequest& launch : std::exchange(launches_, {})) {
    if (!shutting_down_) launcher_->Launch(launch);
  }
}

void WorkerService::Run(PoolEffects effects) {
  // Carrying one out may cause others (a hook pops again): they queue up behind, so that each list stays in order.
  for (auto& effect : effects) effects_.push_back(std::move(effect));
  if (running_effects_) return;
  running_effects_ = true;
  while (!effects_.empty()) {
    const PoolEffect effect = std::move(effects_.front());
    effects_.pop_front();
    Apply(effect);
  }
  running_effects_ = false;
  timer_.Arm(pool_.NextDeadline());
}

void WorkerService::Apply(const PoolEffect& effect) {
  if (const auto* assigned = std::get_if<WorkerAssigned>(&effect)) {
    hooks_.on_assigned(assigned->lease, assigned->worker);
  } else if (const auto* fork = std::get_if<WorkerFork>(&effect)) {
    Process& process = processes_[fork->worker];
    process.id = fork->worker;
    process.job = fork->key.job;
    process.token = fork->token;
    by_token_[fork->token] = fork->worker;
    LaunchRequest launch{fork->token, fork->worker, fork->key.job, {}};
    if (!fork->key.runtime_env.empty()) launch.env["RAY_RUNTIME_ENV"] = fork->key.runtime_env;
    if (shutting_down_) return;
    if (open_) {
      launcher_->Launch(launch);
    } else {
      launches_.push_back(std::move(launch));
    }
  } else if (const auto* ask = std::get_if<WorkerAskExit>(&effect)) {
    AskExit(ask->worker, ask->reason, /*must=*/false);
  } else if (const auto* kill = std::get_if<WorkerKill>(&effect)) {
    Kill(kill->worker, kill->reason, /*intended=*/true);
  } else if (const auto* failed = std::get_if<WorkerPopFailed>(&effect)) {
    hooks_.on_pop_failed(*failed);
  } else if (const auto* held_up = std::get_if<WorkersHeldUp>(&effect)) {
    RAY_LOG(WARNING) << "no worker can be started now: " << held_up->reason;
    NotifyDrivers(held_up->job, "worker_start_held_up", "No worker process can be started now, it is tried again: " + held_up->reason);
  }
}

std::string WorkerService::StartTrouble() const {
  if (std::string why = hooks_.shut_out == nullptr ? "" : hooks_.shut_out(); !why.empty()) return why;
  return pool_.refusal();
}

void WorkerService::OnTick() {
  PoolEffects effects;
  pool_.Tick(loop_->clock().Now(), &effects);
  Run(std::move(effects));
}

void WorkerService::Kill(const WorkerId& worker, const std::string& reason, bool intended) {
  Process* process = Find(worker);
  if (process == nullptr || process->is_driver || process->wait_status) return;
  if (process->kill_reason.empty()) process->kill_reason = reason;
  process->intended = process->intended || intended;
  if (process->pid > 0) launcher_->Signal(process->pid, SIGKILL);
  // Otherwise OnStarted does it.
  if (hooks_.on_killed != nullptr) hooks_.on_killed(worker);
}

void WorkerService::KillForMemory(const WorkerId& worker, const std::string& reason) {
  Process* process = Find(worker);
  if (process == nullptr || process->wait_status) return;
  process->out_of_memory = true;
  NotifyDrivers(process->job, "out_of_memory", reason.substr(0, reason.find("\nTop memory")));
  Kill(worker, reason, /*intended=*/false);
}

void WorkerService::AskAllExit(const std::string& reason) {
  std::vector<WorkerId> asked;
  for (const auto& [id, process] : processes_) {
    if (!process.is_driver && !process.asked && process.connection != nullptr) asked.push_back(id);
  }
  for (const WorkerId& worker : asked) AskExit(worker, reason, /*must=*/false);
}

size_t WorkerService::num_workers() const {
  return static_cast<size_t>(std::ranges::count_if(processes_, [](const auto& entry) { return !entry.second.is_driver; }));
}

bool WorkerService::IsDriver(const WorkerId& process) const {
  const Process* found = Find(process);
  return found != nullptr && found->is_driver;
}

void WorkerService::AskExit(const WorkerId& worker, const std::string& reason, bool must, bool leave_queued) {
  Process* process = Find(worker);
  if (process == nullptr || process->closed) return;
  if (process->connection == nullptr) {
    if (must) Kill(worker, reason, true);
    return;
  }
  process->intended = true;
  process->asked = true;
  v1::ExitRequest exit;
  exit.set_reason(reason);
  exit.set_leave_queued(leave_queued);
  process->connection->Notify(MethodId::kExit, exit);
  if (must) SetTimer(process, config_.exit_grace, &WorkerService::OnExitOverdue);
}

// ---- their ends ----

void WorkerService::SetTimer(Process* process, Duration delay, void (WorkerService::*fn)(const WorkerId&)) {
  if (process->timer != 0) loop_->CancelTimer(process->timer);
  process->timer = loop_->AddTimer(delay, [this, fn, worker = process->id] {
    if (Process* late = Find(worker)) {
      late->timer = 0;
      (this->*fn)(worker);
    }
  });
}

void WorkerService::OnExitOverdue(const WorkerId& worker) { Kill(worker, "it was asked to leave and did not", true); }

void WorkerService::OnSignOverdue(const WorkerId& worker) {
  Process* process = Find(worker);
  if (!process->closed) {
    // The process is gone, but something (a child that it forked) holds its socket open.
    process->connection->Close(Status::Unavailable("its process has ended"));
    return;  // OnClosed follows
  }
  if (!process->is_driver) Kill(worker, "its connection to the raylet closed", false);
  Finish(worker);
}

void WorkerService::OnStarted(uint64_t token, int64_t pid) {
  const auto it = by_token_.find(token);
  Process* process = it == by_token_.end() ? nullptr : Find(it->second);
  if (process == nullptr) {
    launcher_->Signal(pid, SIGKILL);
    return;
  }
  if (process->connection == nullptr) process->pid = pid;
  by_pid_[pid] = process->id;
  if (!process->kill_reason.empty()) launcher_->Signal(pid, SIGKILL);
}

void WorkerService::OnStartFailed(uint64_t token, const std::string& message, WorkerEnd how) {
  const auto it = by_token_.find(token);
  if (it == by_token_.end()) return;
  const WorkerId worker = it->second;
  if (how != WorkerEnd::kRefused) RAY_LOG(ERROR) << "worker " << worker << " could not be started: " << message;
  by_token_.erase(it);
  processes_.erase(worker);
  PoolEffects effects;
  pool_.Died(worker, message, how, loop_->clock().Now(), &effects);
  Run(std::move(effects));
  MaybeShutdownDone();
}

void WorkerService::OnExited(int64_t pid, int wait_status) {
  const auto it = by_pid_.find(pid);
  if (it == by_pid_.end()) return;
  const WorkerId worker = it->second;
  Process* process = Find(worker);
  process->wait_status = wait_status;
  // What it sent before it ended (AnnounceExit, replies) may still be in the socket: its end closes the connection in a moment.
  if (process->connection == nullptr || process->closed) {
    Finish(worker);
  } else {
    SetTimer(process, config_.close_wait, &WorkerService::OnSignOverdue);
  }
}

void WorkerService::OnClosed(const WorkerId& worker) {
  Process* process = Find(worker);
  if (process == nullptr) return;
  process->closed = true;
  by_connection_.erase(process->connection->id());
  if (process->is_driver || process->wait_status) {
    Finish(worker);
  } else {
    SetTimer(process, config_.exit_status_wait, &WorkerService::OnSignOverdue);
  }
}

void WorkerService::Finish(const WorkerId& worker) {
  Process* found = Find(worker);
  if (found->timer != 0) loop_->CancelTimer(found->timer);
  const Process process = std::move(*found);
  if (process.token != 0) by_token_.erase(process.token);
  if (const auto pid = by_pid_.find(process.pid); pid != by_pid_.end() && pid->second == worker) by_pid_.erase(pid);
  processes_.erase(worker);

  ProcessEnd end{worker, process.job, process.pid, process.is_driver, "", process.intended};
  end.out_of_memory = process.out_of_memory;
  end.with_node = process.with_node && !process.out_of_memory;
  end.in_order = process.asked && !process.announced.empty() && process.kill_reason.empty() &&
                 (!process.wait_status || (WIFEXITED(*process.wait_status) && WEXITSTATUS(*process.wait_status) == 0));
  if (process.out_of_memory) {
    end.detail = process.kill_reason;
  } else if (!process.announced.empty()) {
    end.detail = process.announced;
  } else if (process.with_node) {
    end.detail = "ended by the raylet: " + std::string(kNodeStops);
  } else if (process.wait_status && !(WIFSIGNALED(*process.wait_status) && WTERMSIG(*process.wait_status) == SIGKILL)) {
    end.detail = DescribeWaitStatus(*process.wait_status);  // it had ended by itself before it could be killed
  } else if (process.kill_reason == kOwnerLostIt && process.wait_status) {
    end.detail = DescribeWaitStatus(*process.wait_status) + "; " + process.kill_reason;  // which of the two came first is not known
  } else if (!process.kill_reason.empty()) {
    end.detail = "ended by the raylet: " + process.kill_reason;
  } else if (process.wait_status) {
    end.detail = DescribeWaitStatus(*process.wait_status);
  } else {
    end.detail = process.is_driver ? "the driver disconnected" : "its connection closed";
  }
  RAY_LOG(INFO) << (process.is_driver ? "driver " : "worker ") << worker << " (pid " << process.pid << ", job " << process.job
                << ") ended: " << end.detail;
  if (process.connection == nullptr) end.detail += " before it registered; see " + WorkerLogName(worker, process.job, process.pid) + ".err";
  if (logs_ != nullptr) logs_->Untrack(worker);
  // One that was killed could not do it.
  if (!config_.sockets_dir.empty()) unlink((config_.sockets_dir + "/" + WorkerSocketName(worker)).c_str());
  if (!process.is_driver) {
    PoolEffects effects;
    const bool killed = process.wait_status && WIFSIGNALED(*process.wait_status) && WTERMSIG(*process.wait_status) == SIGKILL;
    WorkerEnd how = killed && process.kill_reason.empty() ? WorkerEnd::kKilled : WorkerEnd::kFailed;
    if (process.connection == nullptr && hooks_.shut_out != nullptr) {
      if (std::string why = hooks_.shut_out(); !why.empty()) {  // it was kept waiting at the door
        how = WorkerEnd::kRefused;
        end.detail = std::move(why);
      }
    }
    pool_.Died(worker, end.detail, how, loop_->clock().Now(), &effects);
    Run(std::move(effects));
  }
  if (process.connection != nullptr) {
    hooks_.on_ended(end);
    v1::WorkerDiedNotice notice;
    notice.set_worker_id(worker.Binary());
    notice.set_node_id(config_.node_id.Binary());
    notice.set_detail(end.detail);
    notice.set_intended(end.intended);
    notice.set_out_of_memory(end.out_of_memory);
    notice.set_with_node(end.with_node);
    NotifyAll(MethodId::kWorkerDied, notice);
  }
  MaybeShutdownDone();
}

// ---- messages to drivers ----

bool WorkerService::DeliverMessage(const v1::DriverMessageNotice& message) {
  const JobId job = JobId::FromBinaryOrNil(message.job_id());
  bool delivered = false;
  for (const auto& [id, process] : processes_) {
    if (!process.is_driver || process.closed || (!job.IsNil() && process.job != job)) continue;
    process.connection->Notify(MethodId::kDriverMessage, message);
    delivered = true;
  }
  return delivered;
}

void WorkerService::NotifyDrivers(const JobId& job, const std::string& kind, const std::string& message) {
  v1::DriverMessageNotice notice;
  notice.set_job_id(job.IsNil() ? "" : job.Binary());
  notice.set_kind(kind);
  notice.set_message(message);
  if (!DeliverMessage(notice) && !job.IsNil() && hooks_.on_message_for_elsewhere) hooks_.on_message_for_elsewhere(job, std::move(notice));
}

bool WorkerService::DeliverLines(const v1::LogLinesNotice& lines) {
  const JobId job = JobId::FromBinaryOrNil(lines.job_id());
  bool delivered = false;
  for (const auto& [id, process] : processes_) {
    if (!process.is_driver || process.closed || process.job != job) continue;
    process.connection->Notify(MethodId::kLogLines, lines);
    delivered = true;
  }
  return delivered;
}

void WorkerService::NotifyAll(MethodId method, const rpc::MessageLite& message) const {
  for (const auto& [id, process] : processes_) {
    if (process.connection != nullptr && !process.closed) process.connection->Notify(method, message);
  }
}

void WorkerService::ForwardLines(WorkerLines lines) {
  v1::LogLinesNotice notice;
  notice.set_job_id(lines.job.Binary());
  notice.set_pid(lines.pid);
  notice.set_name(lines.batch.name);
  notice.set_is_stderr(lines.is_stderr);
  notice.set_node_ip(config_.node_ip);
  for (auto& line : lines.batch.lines) notice.add_lines(std::move(line));
  if (!DeliverLines(notice) && hooks_.on_lines_for_elsewhere) hooks_.on_lines_for_elsewhere(lines.job, std::move(notice));
}

void WorkerService::WriteStats(JsonWriter* json) const {
  json->Key("workers").BeginArray();
  for (const auto& [id, process] : processes_) {
    const auto state = pool_.StateOf(id);
    json->BeginObject().Key("worker_id").String(id.Hex()).Key("job_id").String(process.job.Hex()).Key("pid").Int(process.pid);
    json->Key("is_driver")
        .Bool(process.is_driver)
        .Key("state")
        .String(state               ? WorkerStateName(*state)
                : process.is_driver ? "driver"
                                    : "ending");
    json->EndObject();
  }
  json->EndArray();
  json->Key("pool").BeginObject().Key("waiting").Int(static_cast<int64_t>(pool_.num_waiting()));
  for (const auto& [state, count] : pool_.CountByState()) json->Key(WorkerStateName(state)).Int(count);
  json->EndObject();
}

// ---- the end of all ----

void WorkerService::Shutdown(Duration grace, std::function<void()> done) {
  if (shutting_down_) return;
  shutting_down_ = true;
  shutdown_done_ = std::move(done);
  for (auto& [id, process] : processes_) {
    if (process.is_driver) continue;
    process.with_node = true;
    if (process.connection != nullptr && !process.closed) {
      v1::ExitRequest exit;
      exit.set_force(true);
      exit.set_reason(std::string(kNodeStops));
      process.intended = true;
      process.connection->Notify(MethodId::kExit, exit);
    } else if (process.pid > 0) {
      launcher_->Signal(process.pid, SIGKILL);
    }
  }
  loop_->AddTimer(grace, [this, alive = alive_] {
    if (!*alive || shutdown_done_ == nullptr) return;
    for (auto& [id, process] : processes_) {
      if (!process.is_driver && process.pid > 0 && !process.wait_status) launcher_->Signal(process.pid, SIGKILL);
    }
    std::exchange(shutdown_done_, nullptr)();
  });
  MaybeShutdownDone();
}

void WorkerService::MaybeShutdownDone() {
  if (shutdown_done_ == nullptr) return;
  // A launch that has not been answered ends with the zygote.
  const bool left =
      std::any_of(processes_.begin(), processes_.end(), [](const auto& p) { return !p.second.is_driver && p.second.pid > 0; });
  if (!left) std::exchange(shutdown_done_, nullptr)();
}

}  // namespace ray::raylet
