// The Core of bindings/core.h over core::CoreWorker: ids and structs to and fro, nothing else.
#include "ray/bindings/core.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "ray/bindings/values.h"
#include "ray/core_worker/core_worker.h"
#include "ray/core_worker/lifecycle/unix_platform.h"
#include "ray/util/log_rotation.h"
#include "ray/util/logging.h"
#include "ray/util/process_title.h"
#include "ray/wire/convert.h"
#include "ray/wire/value_layout.h"

namespace ray::bindings {

namespace {

Status StartLog(const CoreOptions& options) {
  static std::mutex mu;  // two cores may start at once
  std::lock_guard lock(mu);
  // The log is that of the core which the program runs on; one that only looks has it as long as there was no such core.
  if (options.is_observer && !log_internal::ToStderr()) return Status::Ok();
  RAY_ASSIGN_OR_RETURN(LogLevel level, ParseLogLevel(options.log_level));
  LogOptions log{.file = options.log_file, .level = level};
  ReadRotationLimits(&log);
  return StartLogging(log);
}

}  // namespace

bool PrepareProcessTitle() { return ray::PrepareProcessTitle(); }
void SetProcessTitle(const char* title, size_t size) { ray::SetProcessTitle({title, size}); }

Core::Core(std::unique_ptr<core::CoreWorker> worker, async::EpollLoop* loop, const CoreOptions& options)
    : worker_(std::move(worker)), loop_(loop), namespace_(options.ray_namespace) {
  const core::CoreWorkerInfo& i = worker_->info();
  info_.worker_id = i.address.worker_id.Binary();
  info_.node_id = i.address.node_id.Binary();
  info_.job_id = i.job_id.Binary();
  info_.node_ip = i.node_ip;
  info_.session_dir = i.session_dir;
  info_.session_name = i.session_name;
  info_.gcs_address = i.gcs_address;
  info_.config_json = i.config_json;
  info_.job_known = i.job_known;
  info_.job_namespace = i.job_namespace;
  info_.job_config_json = i.job_config_json;
  info_.address = PackAddress(i.address);
}

Core::~Core() = default;

void Core::Shutdown(const std::string& reason) { worker_->Shutdown(reason); }

bool Core::NextEvent(int64_t timeout_ms, Event* out) {
  core::UserEvent event;
  if (!worker_->events().Next(timeout_ms, &event)) return false;
  *out = {event.kind,
          std::move(event.name),
          std::move(event.text),
          std::move(event.node_ip),
          std::move(event.message_kind),
          event.pid,
          event.is_stderr,
          {}};
  if (event.blob != nullptr) {
    out->error.metadata = ErrorMetadata(ErrorType::kTaskExecutionException);
    out->error.blob = std::move(event.blob);
    if (!ParsePythonBlob(&out->error).ok()) return false;
  }
  return true;
}

std::string Core::Namespace(const std::string& given) {
  if (!given.empty()) return given;
  std::lock_guard lock(mu_);
  return namespace_;
}

Status Core::Start(const CoreOptions& options, std::unique_ptr<Core>* out) {
  RAY_RETURN_NOT_OK(StartLog(options));
  core::CoreWorkerConfig config;
  config.is_driver = options.is_driver;
  config.is_observer = options.is_observer;
  config.session_dir = options.session_dir;
  config.worker_id = options.worker_id.empty() ? WorkerId::FromRandom() : WorkerId::FromBinaryOrNil(options.worker_id);
  if (config.worker_id.IsNil()) return Status::InvalidArgument("a worker id has 28 bytes");
  config.startup_token = options.startup_token;
  config.job_id = JobId::FromBinaryOrNil(options.job_id);
  config.ray_namespace = options.ray_namespace;
  config.entrypoint = options.entrypoint;
  config.job_config_json = options.job_config_json;
  config.python_version = options.python_version;
  RAY_ASSIGN_OR_RETURN(config.faults, rpc::FaultConfig::Parse(options.rpc_faults, options.rpc_faults_seed));
  config.max_inline_bytes = static_cast<size_t>(std::max<int64_t>(0, options.max_inline_bytes));
  config.oom_retries = options.oom_retries;
  config.gcs_timeout = std::chrono::milliseconds(std::max<int64_t>(1, options.gcs_timeout_ms));
  config.oom_backoff = std::chrono::milliseconds(std::max<int64_t>(0, options.oom_backoff_ms));
  config.max_ended_tasks = static_cast<size_t>(std::max<int64_t>(0, options.max_ended_tasks));
  config.lineage_cap_bytes = static_cast<uint64_t>(std::max<int64_t>(0, options.lineage_cap_bytes));
  RAY_ASSIGN_OR_RETURN(auto platform, core::UnixPlatform::Make(config.session_dir + "/sockets"));
  async::EpollLoop* loop = platform->loop();
  RAY_ASSIGN_OR_RETURN(auto worker, core::CoreWorker::Start(config, std::move(platform)));
  *out = std::unique_ptr<Core>(new Core(std::move(worker), loop, options));
  return Status::Ok();
}

}  // namespace ray::bindings
