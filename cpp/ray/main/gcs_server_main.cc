// gcs_server: the cluster's control service. Flags -> composition -> run -> stop.
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "ray/async/loop.h"
#include "ray/gcs_server/gcs_server.h"
#include "ray/gcs_server/storage/redis_storage.h"
#include "ray/gcs_server/storage/sqlite_storage.h"
#include "ray/main/fault_flags.h"
#include "ray/main/security_flags.h"
#include "ray/main/session_lock.h"
#include "ray/rpc/grpc/grpc_server.h"
#include "ray/rpc/grpc/host_port.h"
#include "ray/rpc/tcp/knock.h"
#include "ray/util/flags.h"
#include "ray/util/fs.h"
#include "ray/util/log_rotation.h"
#include "ray/util/logging.h"
#include "ray/util/sd_notify.h"
#include "ray/util/signals.h"

namespace ray {
namespace {

enum ExitCode { kOk = 0, kFailed = 1, kBadFlags = 2, kWatchedGone = 3 };

constexpr Duration kEndPatience = std::chrono::seconds(1);  // for nodes to hear that the cluster ends
constexpr std::string_view kMemoryStorage = "memory";
constexpr std::string_view kSqliteStorage = "sqlite:";

struct Options {
  FaultFlags faults;
  std::vector<std::string> listen;
  std::string session_dir;
  std::string log_file;
  std::string log_level = "info";
  std::vector<int64_t> watch_pids;
  int ready_fd = -1;
  bool exit_when_empty = false;
  std::string auth_mode = "token";
  rpc::SecurityConfig security;
  gcs::RememberedCounts remembered;
  // A node that hangs is dead within 10 s, and most of that passes before one that was only cut off is.
  gcs::HealthConfig health{.period = std::chrono::milliseconds(1500), .timeout = std::chrono::milliseconds(2800)};
  std::string config_file;
  std::string storage{kMemoryStorage};
  gcs::RedisServer redis;  // what flags say of it; where it is says `storage`
  std::string redis_namespace = "default";
  std::string redis_password_file;
  Duration node_return_timeout = std::chrono::seconds(30);
};

bool IsRedis(const std::string& storage) { return storage.starts_with("redis://") || storage.starts_with("rediss://"); }

// Text to print, or nothing: run.
Result<std::optional<std::string>> ParseFlags(int argc, char** argv, Options* options) {
  FlagParser flags("gcs_server",
                   "The control service of a raycore cluster: nodes, jobs, actors and the key-value table. "
                   "SIGTERM ends this process only, SIGINT the whole cluster. "
                   "Exit codes: 0 ended as asked, 1 could not start or lost its storage, 2 bad flags, 3 a watched process has gone.");
  flags.Group("Where");
  flags.Add("listen",
            "address to serve: unix:/path or HOST:PORT (port 0: any; IPv6 as [ADDRESS]:PORT); may be repeated; default: "
            "unix:<session-dir>/sockets/gcs.sock",
            &options->listen);
  flags.Add("session-dir", "folder of the session; sockets and logs are made in it", &options->session_dir);
  AddSecurityFlags(&flags, &options->auth_mode, &options->security);
  flags.Group("Storage");
  flags.Add(
      "storage",
      "where the tables are kept. memory: they end with this process, and with it the cluster. sqlite:/path: in that file, from which the "
      "next process goes on. redis://HOST:PORT, or rediss:// with TLS: in that Redis server",
      &options->storage);
  flags.Add("redis-namespace", "clusters that share a Redis server have different ones", &options->redis_namespace);
  flags.Add("redis-username", "for the Redis server; empty: its default user", &options->redis.username);
  flags.Add("redis-password-file", "file with the password for the Redis server", &options->redis_password_file);
  flags.Add("redis-ca-cert", "with TLS: authority of the Redis server's certificate, in PEM form; empty: those of this machine",
            &options->redis.ca_cert);
  flags.Add("redis-client-cert", "with TLS: certificate to show to the Redis server", &options->redis.client_cert);
  flags.Add("redis-client-key", "with TLS: the key of that certificate", &options->redis.client_key);
  flags.Add("redis-server-name", "with TLS: the name in the Redis server's certificate; empty: its host", &options->redis.server_name);
  flags.Group("Logging");
  flags.Add("log-file", "file to log to, rotated by size; default: stderr", &options->log_file);
  flags.Add("log-level", "debug, info, warning, error or off", &options->log_level);
  flags.Group("Life");
  flags.Add("watch-pid", "end at once when this process ends; may be repeated", &options->watch_pids);
  flags.Add("ready-fd",
            "descriptor that gets the line 'READY' (with the first TCP address, if there is one) when the service is up, and is closed "
            "then; -1: none",
            &options->ready_fd);
  flags.Add("exit-when-empty", "end when the last node has gone", &options->exit_when_empty);
  flags.ConfigGroup("Health of nodes");
  flags.Add("health-check-period",
            "between two probes of a node; 0: none. Without a TCP address there are none, since a link that closes says all",
            &options->health.period);
  flags.Add("health-check-timeout", "how long a node may take to answer a probe; the next one follows at once then",
            &options->health.timeout);
  flags.Add("health-check-threshold", "unanswered probes in a row that make a node dead", &options->health.threshold);
  flags.Add("node-return-timeout", "after a restart, how long nodes that were alive before may take to come back",
            &options->node_return_timeout);
  flags.ConfigGroup("What has ended");
  flags.Add("max-dead-nodes", "how many dead nodes are remembered, with their reasons; a raylet that comes back from them is refused",
            &options->remembered.nodes);
  flags.Add("max-dead-actors", "how many dead actors are remembered", &options->remembered.actors);
  flags.Add("max-dead-workers", "how many dead workers are remembered", &options->remembered.workers);
  flags.Add("max-removed-placement-groups", "how many removed placement groups are remembered", &options->remembered.placement_groups);
  flags.Add("max-finished-jobs", "how many finished jobs are remembered", &options->remembered.jobs);
  flags.ConfigGroup("Cluster");
  flags.Add("config-file", "file with a JSON object of settings for the whole cluster, handed to every raylet as it is",
            &options->config_file);
  options->faults.Add(&flags);
  RAY_ASSIGN_OR_RETURN(std::optional<std::string> text, flags.Parse(argc, argv));
  if (text) return text;
  RAY_RETURN_NOT_OK(options->faults.Check());
  RAY_RETURN_NOT_OK(ParseLogLevel(options->log_level).status());
  if (IsRedis(options->storage)) {
    RAY_RETURN_NOT_OK(gcs::RedisServer::FromUrl(options->storage).status());
    if (options->redis.client_cert.empty() != options->redis.client_key.empty())
      return Status::InvalidArgument("--redis-client-cert and --redis-client-key go together");
  } else if (options->storage != kMemoryStorage &&
             !(options->storage.starts_with(kSqliteStorage) && options->storage.size() > kSqliteStorage.size())) {
    // Not shown: it may be a URL with a password in it, and mistyped.
    return Status::InvalidArgument("--storage is none of memory, sqlite:/path and redis://HOST:PORT");
  }
  if (options->listen.empty()) {
    if (options->session_dir.empty()) return Status::InvalidArgument("one of --listen and --session-dir is needed");
    options->listen.push_back("unix:" + options->session_dir + "/sockets/gcs.sock");
  }
  RAY_RETURN_NOT_OK(CompleteSecurity(options->auth_mode, &options->security));
  if (!options->session_dir.empty()) options->security.state_file = options->session_dir + "/gcs_tokens";
  for (const std::string& address : options->listen) {
    if (address == "unix:") return Status::InvalidArgument("--listen unix: wants a path");
    if (!rpc::IsUnixAddress(address)) RAY_RETURN_NOT_OK(rpc::ParseHostPort(address).status());
  }
  return text;
}

void WriteReady(int fd, const std::vector<std::string>& addresses) {
  if (fd < 0) return;
  const auto tcp = std::find_if_not(addresses.begin(), addresses.end(), rpc::IsUnixAddress);
  const std::string line = tcp == addresses.end() ? "READY\n" : "READY " + *tcp + "\n";
  if (::write(fd, line.data(), line.size()) < 0) RAY_LOG(WARNING) << "nobody reads the ready descriptor";
  ::close(fd);
}

class Process {
 public:
  explicit Process(Options options) : options_(std::move(options)) {}

  int Run() {
    Status status = Start();
    if (!status.ok()) {
      if (code_ == kOk) code_ = kFailed;
      RAY_LOG(ERROR) << "gcs_server cannot start: " << status.ToString();
      std::fprintf(stderr, "gcs_server: %s\n", status.message().c_str());
      return code_;
    }
    loop_->Run();
    (void)SdNotify(notify_socket_, "STOPPING=1");
    grpc_->Stop();
    RAY_LOG(INFO) << "gcs_server ends: " << reason_;
    return code_;
  }

 private:
  Status Start() {
    ::umask(0077);
    if (!options_.session_dir.empty()) {
      RAY_RETURN_NOT_OK(MakeDirs(options_.session_dir + "/sockets"));
      RAY_RETURN_NOT_OK(MakeDirs(options_.session_dir + "/logs"));
    }
    LogOptions log;
    log.file = options_.log_file;
    ReadRotationLimits(&log);
    RAY_ASSIGN_OR_RETURN(log.level, ParseLogLevel(options_.log_level));
    RAY_RETURN_NOT_OK(StartLogging(log));
    if (!options_.session_dir.empty()) RAY_RETURN_NOT_OK(HoldSession(options_.session_dir));
    IgnoreSigPipe();
    InstallCrashReport();
    if (const char* socket = std::getenv("NOTIFY_SOCKET")) notify_socket_ = socket;
    // Before any thread is started: signals are for the loop alone.
    RAY_ASSIGN_OR_RETURN(int signals, OpenSignalFd({SIGTERM, SIGINT, SIGHUP}));

    async::LoopOptions loop_options;
    loop_options.name = "gcs";
    loop_options.max_spin = Duration::zero();  // not on any hot path: never burn a core that a worker could use
    RAY_ASSIGN_OR_RETURN(loop_, async::EpollLoop::Make(loop_options));
    RAY_RETURN_NOT_OK(loop_->WatchFd(signals, EPOLLIN, [this, signals](uint32_t) {
      if (int signal = ReadSignalFd(signals); signal != 0) OnSignal(signal);
    }));
    for (int64_t pid : options_.watch_pids) RAY_RETURN_NOT_OK(Watch(pid));

    gcs::GcsServerOptions server_options;
    if (!options_.config_file.empty()) {
      RAY_ASSIGN_OR_RETURN(server_options.config_json, ReadFile(options_.config_file));
    }
    const bool local = std::all_of(options_.listen.begin(), options_.listen.end(), rpc::IsUnixAddress);
    if (!local) server_options.health = options_.health;
    server_options.remembered = options_.remembered;
    server_options.node_return_timeout = options_.node_return_timeout;
    server_options.knock = [loop = loop_.get()](const std::string& ip, int port, std::function<void(bool)> done) {
      constexpr Duration kPatience = std::chrono::seconds(1);
      rpc::Knock(loop, rpc::FormatHostPort(ip, port), kPatience,
                 [done = std::move(done)](rpc::KnockResult result) { done(result == rpc::KnockResult::kRefused); });
    };
    server_options.session_name = options_.session_dir.substr(options_.session_dir.rfind('/') + 1);
    if (options_.exit_when_empty) server_options.on_empty = [this] { Stop(kOk, "the last node has gone"); };
    server_options.on_storage_failed = [this](const Status& status) { Stop(kFailed, "storage failed: " + status.ToString()); };
    RAY_RETURN_NOT_OK(OpenStorage());
    RAY_ASSIGN_OR_RETURN(server_, gcs::GcsServer::Make(std::move(server_options), loop_.get(), storage_.get()));
    RAY_ASSIGN_OR_RETURN(auto security, rpc::Security::Make(options_.security, &clock_));
    RAY_ASSIGN_OR_RETURN(grpc_,
                         rpc::GrpcServer::Make({options_.listen, std::move(security), /*adopts=*/false, options_.faults.Make(loop_.get())},
                                               server_->dispatcher(), loop_.get()));
    for (const std::string& address : grpc_->addresses()) RAY_LOG(INFO) << "gcs_server serves " << address << ", pid " << ::getpid();
    WriteReady(options_.ready_fd, grpc_->addresses());
    (void)SdNotify(notify_socket_, "READY=1");
    return {};
  }

  Status OpenStorage() {
    if (options_.storage == kMemoryStorage) {
      storage_ = std::make_unique<gcs::MemoryStorage>();
      return {};
    }
    if (IsRedis(options_.storage)) {
      gcs::RedisOptions redis;
      RAY_ASSIGN_OR_RETURN(redis.server, gcs::RedisServer::FromUrl(options_.storage));
      redis.server.username = options_.redis.username;
      redis.server.ca_cert = options_.redis.ca_cert;
      redis.server.client_cert = options_.redis.client_cert;
      redis.server.client_key = options_.redis.client_key;
      redis.server.server_name = options_.redis.server_name;
      redis.name_space = options_.redis_namespace;
      if (!options_.redis_password_file.empty()) {
        RAY_ASSIGN_OR_RETURN(redis.server.password, ReadFile(options_.redis_password_file));
        while (redis.server.password.ends_with('\n')) redis.server.password.pop_back();
      }
      RAY_ASSIGN_OR_RETURN(storage_, gcs::RedisStorage::Open(std::move(redis), loop_.get()));
      RAY_LOG(INFO) << "tables are kept in " << options_.storage;
      return {};
    }
    gcs::SqliteOptions sqlite;
    sqlite.path = options_.storage.substr(kSqliteStorage.size());
    RAY_ASSIGN_OR_RETURN(storage_, gcs::SqliteStorage::Open(std::move(sqlite), loop_.get()));
    RAY_LOG(INFO) << "tables are kept in " << options_.storage;
    return {};
  }

  Status Watch(int64_t pid) {
    int fd = static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0));
    if (fd < 0) {
      int error = errno;
      if (error == ESRCH) code_ = kWatchedGone;
      return Status::FromErrno(error, "watching process " + std::to_string(pid));
    }
    return loop_->WatchFd(fd, EPOLLIN, [this, pid](uint32_t) { Stop(kWatchedGone, "process " + std::to_string(pid) + " has gone"); });
  }

  // SIGINT is the end of the cluster; with any other one this process ends, and the next may go on.
  void OnSignal(int signal) {
    const std::string reason = "signal " + std::to_string(signal);
    if (signal != SIGINT || ending_ || server_ == nullptr) return Stop(kOk, reason);
    ending_ = true;
    server_->EndCluster(kEndPatience, [this, reason] { Stop(kOk, reason); });
  }

  void Stop(int code, std::string reason) {
    if (!reason_.empty()) return;
    code_ = code;
    reason_ = std::move(reason);
    loop_->Stop();
  }

  const Options options_;
  std::string notify_socket_;
  int code_ = kOk;
  std::string reason_;
  bool ending_ = false;
  SystemClock clock_;
  std::unique_ptr<async::EpollLoop> loop_;
  std::unique_ptr<gcs::Storage> storage_;
  std::unique_ptr<gcs::GcsServer> server_;
  std::unique_ptr<rpc::GrpcServer> grpc_;  // last: goes first
};

int Main(int argc, char** argv) {
  Options options;
  Result<std::optional<std::string>> text = ParseFlags(argc, argv, &options);
  if (!text.ok()) {
    std::fprintf(stderr, "gcs_server: %s\nTry --help.\n", text.status().message().c_str());
    return kBadFlags;
  }
  if (*text) {
    std::fputs((*text)->c_str(), stdout);
    return kOk;
  }
  return Process(std::move(options)).Run();
}

}  // namespace
}  // namespace ray

int main(int argc, char** argv) { return ray::Main(argc, argv); }
