// raylet: one node's scheduler, worker pool and object store. Flags -> RayletConfig -> Raylet -> run -> stop.
//
// Exit codes: 0 stopped in good order, 1 could not start, 2 bad flags, 3 a watched process or the GCS is gone.

#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "ray/async/loop.h"
#include "ray/main/fault_flags.h"
#include "ray/main/gcs_query.h"
#include "ray/main/security_flags.h"
#include "ray/main/session_lock.h"
#include "ray/raylet/memory/memory_reader.h"
#include "ray/raylet/raylet.h"
#include "ray/raylet/workers/json.h"
#include "ray/rpc/grpc/host_port.h"
#include "ray/util/flags.h"
#include "ray/util/fs.h"
#include "ray/util/log_rotation.h"
#include "ray/util/logging.h"
#include "ray/util/sd_notify.h"
#include "ray/util/signals.h"
#include "ray/util/subprocess.h"

namespace ray::raylet {
namespace {

constexpr Duration kLinkSpin = std::chrono::microseconds(100);

enum ExitCode { kOk = 0, kCannotStart = 1, kBadFlags = 2, kPeerGone = 3 };

struct Options {
  FaultFlags faults;
  RayletConfig config;
  double num_cpus = -1;
  double num_gpus = 0;
  uint64_t memory = 0;
  uint64_t object_store_memory = 0;
  std::string accelerator_type;
  std::vector<std::string> resources;
  std::vector<std::string> labels;
  std::vector<std::string> spilling_directories;
  std::vector<int64_t> watch_pids;
  bool local_mode = false;
  std::string auth_mode = "token";
  int ready_fd = -1;
  Duration drain_deadline = Duration::zero();
  LogOptions log;
  std::string log_level = "info";
  int max_starts = 0, max_idle = -1, prestart = -1;
};

int UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

// Bytes that new processes may take, by the machine and by this process's control group.
uint64_t AvailableMemory() {
  uint64_t available = uint64_t{1} << 30;
  if (auto info = ReadFile("/proc/meminfo"); info.ok()) {
    if (const size_t at = info->find("MemAvailable:"); at != std::string::npos) {
      available = std::strtoull(info->c_str() + at + std::string_view("MemAvailable:").size(), nullptr, 10) << 10;
    }
  }
  const raylet::MemoryUse tightest = raylet::MemoryReader("/").Read();
  if (tightest.total > 0) available = std::min(available, tightest.total - std::min(tightest.used, tightest.total));
  return available;
}

// "a=1,b=x" or a flat JSON object, each flag adding to the last.
Status ParsePairs(const std::string& flag, const std::vector<std::string>& texts, std::map<std::string, std::string>* out) {
  for (const auto& text : texts) {
    if (text.starts_with('{')) {
      auto object = ParseFlatJson(text);
      if (!object.ok()) return Status::InvalidArgument("--" + flag + ": " + object.status().message());
      for (const auto& [name, value] : *object) {
        if (const auto* number = std::get_if<double>(&value)) {
          std::ostringstream shown;
          shown.precision(17);
          shown << *number;
          (*out)[name] = shown.str();
        } else if (const auto* string = std::get_if<std::string>(&value)) {
          (*out)[name] = *string;
        } else {
          return Status::InvalidArgument("--" + flag + ": the value of '" + name + "' must be a number or a string");
        }
      }
      continue;
    }
    for (std::string_view rest = text; !rest.empty();) {
      const std::string_view item = rest.substr(0, rest.find(','));
      rest.remove_prefix(std::min(rest.size(), item.size() + 1));
      const size_t equals = item.find('=');
      if (equals == item.npos || equals == 0)
        return Status::InvalidArgument("--" + flag + ": '" + std::string(item) + "' is not NAME=VALUE");
      (*out)[std::string(item.substr(0, equals))] = item.substr(equals + 1);
    }
  }
  return Status::Ok();
}

void AddFlags(FlagParser* flags, Options* options) {
  RayletConfig& config = options->config;
  flags->Group("Where");
  flags->Add("session-dir", "folder of the session: logs and spilled objects", &config.session_dir).Required();
  flags->Add("node-dir", "folder of this node's sockets, where one session has several nodes on a machine; empty: the session's",
             &config.node_dir);
  flags->Add("gcs-address", "where the GCS listens, unix:/path or HOST:PORT", &config.gcs_address).Required();
  flags->Add("listen", "HOST:PORT for the other nodes (port 0: any; IPv6 as [ADDRESS]:PORT); empty: this node only dials out",
             &config.listen);
  flags->Add("node-ip", "address of this node, as others see it", &config.node_ip);
  flags->Add("node-name", "name for people; empty: the node's id", &config.node_name);
  flags->Add("head", "this is the node of the GCS", &config.is_head);
  flags->Add("python", "interpreter of the workers", &config.python);
  flags->Add("python-version", "X.Y.Z of that interpreter, which the cluster compares; empty: it does not", &config.python_version);
  AddSecurityFlags(flags, &options->auth_mode, &config.security);
  flags->Group("Resources");
  flags->Add("num-cpus", "CPUs to schedule; negative: the cores that this process may use", &options->num_cpus);
  flags->Add("num-gpus", "GPUs to schedule", &options->num_gpus);
  flags->Add("accelerator-type", "kind of the GPUs; gives the resource accelerator_type:KIND", &options->accelerator_type);
  flags->AddBytes("memory", "bytes of memory to schedule; 0: 70 % of what is available", &options->memory);
  flags->AddBytes("object-store-memory", "capacity of the object store; 0: 30 % of the memory that is available",
                  &options->object_store_memory);
  flags->Add("resources", "custom resources: NAME=AMOUNT,... or a JSON object; repeatable", &options->resources);
  flags->Add("labels", "labels of the node: NAME=VALUE,... or a JSON object; repeatable", &options->labels);
  flags->Group("Life");
  flags->Add("watch-pid", "stop when this process ends; repeatable", &options->watch_pids);
  flags->Add("local-mode", "the cluster is this node and lives with its driver: no TCP address is accepted", &options->local_mode);
  flags->Add("drain-deadline",
             "after SIGTERM, how long running work may go on; 0: it ends at once. SIGINT, or a second SIGTERM, does not wait",
             &options->drain_deadline);
  flags->Add("driver-only", "offer nothing to the cluster: this node is the way in of the driver that starts it", &config.driver_only);
  flags->Add("ready-fd", "descriptor that gets 'READY <node id> <listen address or ->' once workers and drivers may come",
             &options->ready_fd);
  flags->Add("log-file", "file for the log; empty: stderr", &options->log.file);
  flags->Add("log-level", "debug, info, warning, error or off", &options->log_level);
  flags->ConfigGroup("Worker pool");
  flags->Add("worker-max-parallel-starts", "workers started at once; 0: twice the cores", &options->max_starts);
  flags->Add("worker-max-idle", "idle workers kept; negative: as many as CPUs", &options->max_idle);
  flags->Add("worker-prestart", "workers started ahead for a new job; negative: the smaller of CPUs and cores", &options->prestart);
  flags->Add("worker-idle-timeout", "how long an idle worker beyond the kept ones stays", &config.pool.idle_timeout);
  flags->Add("worker-register-timeout", "how long a started worker may take to report", &config.pool.register_timeout);
  flags->Add("worker-max-start-attempts", "failed starts in a row before those who wait are told", &config.pool.max_start_attempts);
  flags->ConfigGroup("Memory monitor");
  flags->Add("memory-monitor-refresh", "time between two looks at the memory in use; 0: workers are not ended when it runs out",
             &config.memory_monitor.interval);
  flags->Add("memory-usage-threshold", "share of the node's or the control group's memory above which workers are ended",
             &config.memory_monitor.core.threshold);
  flags->Add("min-memory-free-bytes", "the threshold is not below the total less this; negative: not looked at",
             &config.memory_monitor.core.min_free_bytes);
  flags->Add("count-swap", "swap counts as memory of the node", &config.memory_monitor.count_swap);
  flags->Add("worker-killing-policy-by-group", "the owner with the most workers loses one first, else who was leased last",
             &config.memory_monitor.core.by_group);
  flags->Add("memory-root", "folder that holds proc/ and sys/", &config.memory_monitor.root);
  flags->ConfigGroup("Leases");
  flags->Add("infeasible-notice", "how long a request beyond the node's totals waits before its driver is told",
             &config.leases.infeasible_notice);
  flags->Add("reclaim-interval", "least time between two requests to owners for unused leases", &config.leases.reclaim_interval);
  flags->Add("worker-cap", "tasks that block let others of their kind in only after a growing delay", &config.leases.worker_cap.enabled);
  flags->Add("worker-cap-delay", "that delay, for the first one beyond the CPUs", &config.leases.worker_cap.delay);
  flags->Add("worker-cap-max-delay", "that delay after repeated doubling", &config.leases.worker_cap.max_delay);
  flags->Add("max-reclaim-interval", "that time after repeated doubling", &config.leases.max_reclaim_interval);
  flags->Add("spread-patience", "how long a task that is spread waits at the node whose turn it is before another node gets it",
             &config.leases.spread_patience);
  flags->ConfigGroup("Links to other nodes");
  flags->Add("link-min-backoff", "after the first failure to reach another node; doubles with each", &config.links.min_backoff);
  flags->Add("link-max-backoff", "the longest wait between two attempts", &config.links.max_backoff);
  flags->ConfigGroup("Object spilling");
  flags->Add("object-spilling-directory",
             "folders for objects that the store has no room for, separated by commas; repeatable; none: the session's",
             &options->spilling_directories);
  flags->Add("object-spilling-uri", "they go to this URI instead, through the Python package smart_open; repeatable",
             &config.object_spilling_uris);
  flags->Add("object-spilling-options-file",
             "for smart_open: file with a JSON object of buffer_size and transport_params, which may have keys of the storage in it",
             &config.object_spilling_options_file);
  flags->Add("max-disk-use", "share of a disk above which nothing is spilled to it", &config.max_disk_use);
  flags->AddBytes("max-spill-file-bytes", "small objects share files up to this size", &config.max_spill_file_bytes);
  flags->Add("max-spill-file-objects", "and at most so many of them", &config.max_spill_file_objects);
  flags->Add("spill-threshold", "share of the store above which objects are spilled ahead of need", &config.spill_threshold);
  flags->Add("overflow-grace", "how long a put waits for memory before it gets a file instead", &config.overflow_grace);
  flags->ConfigGroup("Reports");
  flags->Add("report-interval", "least time between two resource reports to the GCS", &config.report_interval);
  flags->Add("store-report-interval", "for how long changes of the store's fill are gathered before one", &config.store_report_interval);
  flags->Add("log-coalesce", "how long printed lines are gathered before they go to the driver", &config.log_coalesce);
  flags->Add("gcs-reconnect-timeout", "how long a GCS that keeps its tables may be away before this node ends; 0: not at all",
             &config.gcs_reconnect_timeout);
  flags->Add("gcs-connect-timeout", "how long the GCS may take to answer at first", &config.connect_timeout);
  flags->Add("stop-grace", "from asking the workers to leave to killing them, when the node stops", &config.stop_grace);
}

Status Complete(Options* options) {
  RayletConfig& config = options->config;
  RAY_ASSIGN_OR_RETURN(options->log.level, ParseLogLevel(options->log_level));
  if (options->local_mode && !config.gcs_address.starts_with("unix:")) {
    return Status::InvalidArgument("--gcs-address: local mode wants unix:/path, not '" + config.gcs_address + "'");
  }
  if (options->local_mode && !config.listen.empty()) return Status::InvalidArgument("--listen: local mode opens no TCP address");
  if (!rpc::IsUnixAddress(config.gcs_address)) RAY_RETURN_NOT_OK(rpc::ParseHostPort(config.gcs_address).status());
  if (!config.listen.empty()) RAY_RETURN_NOT_OK(rpc::ParseHostPort(config.listen).status());
  RAY_RETURN_NOT_OK(CompleteSecurity(options->auth_mode, &config.security));
  for (std::string* dir : {&config.session_dir, &config.node_dir}) {
    while (dir->size() > 1 && dir->back() == '/') dir->pop_back();
  }
  if (config.node_dir.empty()) config.node_dir = config.session_dir;
  for (const std::string& list : options->spilling_directories) {
    for (std::string_view rest = list; !rest.empty();) {
      const std::string_view item = rest.substr(0, rest.find(','));
      rest.remove_prefix(std::min(rest.size(), item.size() + 1));
      if (!item.starts_with('/')) {
        return Status::InvalidArgument("--object-spilling-directory: '" + std::string(item) + "' is not an absolute path");
      }
      config.object_spilling_directories.emplace_back(item);
    }
  }
  std::map<std::string, std::string> custom;
  RAY_RETURN_NOT_OK(ParsePairs("resources", options->resources, &custom));
  RAY_RETURN_NOT_OK(ParsePairs("labels", options->labels, &config.labels));
  const uint64_t available = AvailableMemory();
  if (options->memory == 0) options->memory = available * 7 / 10;
  config.object_store_memory = options->object_store_memory != 0 ? options->object_store_memory : available * 3 / 10;
  if (options->num_cpus < 0) options->num_cpus = UsableCores();

  std::map<std::string, double> amounts;
  for (const auto& [name, text] : custom) {
    char* end = nullptr;
    const double amount = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0') return Status::InvalidArgument("--resources: '" + text + "' of " + name + " is not a number");
    if (name == "CPU" || name == "GPU" || name == "memory" || name == "object_store_memory") {
      return Status::InvalidArgument("--resources: " + name + " has a flag of its own");
    }
    amounts[name] = amount;
  }
  amounts["CPU"] = options->num_cpus;
  amounts["GPU"] = options->num_gpus;
  amounts["memory"] = static_cast<double>(options->memory);
  if (!options->accelerator_type.empty()) amounts["accelerator_type:" + options->accelerator_type] = 1;
  RAY_ASSIGN_OR_RETURN(config.resources, ResourceSet::FromDoubles(amounts));

  const int cpus = static_cast<int>(options->num_cpus), cores = UsableCores();
  config.pool.max_parallel_starts = options->max_starts > 0 ? options->max_starts : 2 * cores;
  // One zygote may take so many with it at a time.
  config.pool.max_killed_starts = std::max(config.pool.max_killed_starts, 4 * config.pool.max_parallel_starts);
  config.pool.max_idle = options->max_idle >= 0 ? options->max_idle : std::max(cpus, 1);
  config.pool.prestart = options->prestart >= 0 ? options->prestart : std::min(cpus, cores);
  return Status::Ok();
}

// Everything that ends the run goes through Stop; the loop ends when the raylet has left.
class Main {
 public:
  explicit Main(Options options) : options_(std::move(options)) {}

  int Run() {
    if (const char* socket = std::getenv("NOTIFY_SOCKET")) notify_socket_ = socket;
    auto signals = OpenSignalFd({SIGTERM, SIGINT, SIGCHLD});  // before any thread exists
    if (!signals.ok()) return Fail(signals.status());
    // Workers that a dead zygote leaves become our children, so that their ends are seen.
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return Fail(Status::FromErrno(errno, "becoming a subreaper"));
    async::LoopOptions loop_options;
    loop_options.name = "raylet";
    loop_options.max_spin = Duration::zero();  // the cores are the workers'
    loop_options.expect_spin = kLinkSpin;      // but a call to another node passes here four times
    auto loop = async::EpollLoop::Make(loop_options);
    if (!loop.ok()) return Fail(loop.status());
    loop_ = std::move(*loop);
    RayletConfig config = options_.config;
    config.faults = options_.faults.Make(loop_.get());
    auto raylet = Raylet::Make(std::move(config), loop_.get());
    if (!raylet.ok()) return Fail(raylet.status());
    raylet_ = std::move(*raylet);
    if (Status status = HoldSession(options_.config.session_dir); !status.ok()) return Fail(status);
    if (Status status = Wire(*signals); !status.ok()) return Fail(status);
    loop_->Run();
    raylet_.reset();
    for (const int fd : pidfds_) close(fd);
    close(*signals);
    RAY_LOG(INFO) << "raylet ends with code " << code_;
    return code_;
  }

 private:
  static int Fail(const Status& status) {
    RAY_LOG(ERROR) << "the raylet cannot start: " << status.ToString();
    std::cerr << "raylet: " << status.message() << std::endl;
    return kCannotStart;
  }

  Status Wire(int signal_fd) {
    RAY_RETURN_NOT_OK(loop_->WatchFd(signal_fd, EPOLLIN, [this, signal_fd](uint32_t) { OnSignals(signal_fd); }));
    for (const int64_t pid : options_.watch_pids) {
      auto fd = OpenPidFd(static_cast<pid_t>(pid));
      if (!fd.ok()) {
        loop_->Post("watch", [this, pid] { Stop(kPeerGone, "watched process " + std::to_string(pid) + " is gone"); });
        continue;
      }
      pidfds_.push_back(*fd);
      RAY_RETURN_NOT_OK(loop_->WatchFd(*fd, EPOLLIN, [this, pid, fd = *fd](uint32_t) {
        loop_->UnwatchFd(fd);
        Stop(kPeerGone, "watched process " + std::to_string(pid) + " has ended");
      }));
    }
    raylet_->SetShutdownHandler([this](const std::string& reason) { Stop(kOk, reason); });
    return raylet_->Start([this] { OnReady(); },
                          [this](const Status& status) {
                            if (ready_) {
                              Stop(kPeerGone, status.message());
                            } else {
                              Fail(status);
                              Stop(kCannotStart, status.message());
                            }
                          });
  }

  void OnReady() {
    ready_ = true;
    if (options_.ready_fd >= 0) {
      const std::string address = raylet_->listen_address();
      const std::string line = "READY " + raylet_->node_id().Hex() + " " + (address.empty() ? "-" : address) + "\n";
      if (write(options_.ready_fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
        RAY_LOG(WARNING) << Status::FromErrno(errno, "writing to --ready-fd").ToString();
      }
      close(options_.ready_fd);
    }
    Notify("READY=1");
  }

  void OnSignals(int fd) {
    while (const int signal = ReadSignalFd(fd)) {
      if (signal == SIGCHLD) {
        raylet_->ReapChildren();
      } else if (stopping_) {
        RAY_LOG(WARNING) << "asked again to stop: at once, then";
        loop_->Stop();
      } else if (signal == SIGTERM && options_.drain_deadline > Duration::zero() && !draining_) {
        draining_ = true;
        raylet_->Drain("SIGTERM", options_.drain_deadline);
      } else {
        Stop(kOk, signal == SIGTERM ? "SIGTERM" : "SIGINT");
      }
    }
    raylet_->ReapChildren();  // several SIGCHLD may have become one
  }

  void Stop(int code, const std::string& reason) {
    if (stopping_) return;
    stopping_ = true;
    code_ = code;
    Notify("STOPPING=1");
    raylet_->Stop(reason, [this] { loop_->Stop(); });
  }

  void Notify(std::string_view state) const {
    if (Status status = SdNotify(notify_socket_, state); !status.ok()) {
      RAY_LOG(WARNING) << "telling the service manager: " << status.ToString();
    }
  }

  Options options_;
  std::string notify_socket_;
  std::unique_ptr<async::EpollLoop> loop_;
  std::unique_ptr<Raylet> raylet_;
  std::vector<int> pidfds_;
  bool ready_ = false;
  bool stopping_ = false;
  bool draining_ = false;  // SIGTERM came
  int code_ = kOk;
};

// A worker takes a connection, a pidfd and two logs: with the usual soft limit of 1024 a node would end at 250. Workers inherit it.
void RaiseDescriptorLimit() {
  constexpr rlim_t kWanted = 65536;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= kWanted) return;
  limit.rlim_cur = std::min(limit.rlim_max, kWanted);
  setrlimit(RLIMIT_NOFILE, &limit);
}

int RunMain(int argc, char** argv) {
  Options options;
  options.config.python = "python3";
  FlagParser flags(
      "raylet",
      "One node's scheduler, worker pool and object store. Exit codes: 0 stopped in good order, 1 could not start, 2 bad flags, "
      "3 a watched process or the GCS is gone.");
  AddFlags(&flags, &options);
  options.faults.Add(&flags);
  auto help = flags.Parse(argc, argv);
  if (help.ok() && help->has_value()) {
    std::cout << **help;
    return kOk;
  }
  Status status = help.ok() ? Complete(&options) : help.status();
  if (status.ok()) status = options.faults.Check();
  if (!status.ok()) {
    std::cerr << "raylet: " << status.message() << "\nTry --help." << std::endl;
    return kBadFlags;
  }
  IgnoreSigPipe();
  RaiseDescriptorLimit();
  InstallCrashReport();
  ReadRotationLimits(&options.log);
  if (status = StartLogging(options.log); !status.ok()) {
    std::cerr << "raylet: " << status.message() << std::endl;
    return kCannotStart;
  }
  return Main(std::move(options)).Run();
}

}  // namespace
}  // namespace ray::raylet

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "query") return ray::raylet::RunQuery(argc - 1, argv + 1);
  return ray::raylet::RunMain(argc, argv);
}
