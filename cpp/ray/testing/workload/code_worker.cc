#include "ray/testing/workload/code_worker.h"

#include <utility>

#include "ray/testing/workload/sim_platform.h"
#include "ray/util/check.h"
#include "ray/wire/value_layout.h"

namespace ray::sim {

class CodeWorker {
 public:
  CodeWorker(SimNetwork* network, const Program* program, CodeCounts* counts, Process* process, const raylet::LaunchRequest& request,
             std::string sockets_dir)
      : network_(network), program_(program), counts_(counts), process_(process), sockets_dir_(std::move(sockets_dir)) {
    config_.session_dir = sockets_dir_;
    config_.worker_id = request.worker;
    config_.job_id = request.job;
    config_.startup_token = request.token;
    config_.python_version = "3.11.7";
    config_.max_inline_bytes = kMaxInline;
    config_.faults = network_->DrawMessageFaults();
  }

  void Main() {
    auto worker = core::CoreWorker::Start(config_, std::make_unique<SimPlatform>(network_, process_, sockets_dir_));
    if (!worker.ok()) return process_->EndSoon(1);
    worker_ = std::move(*worker);
    process_->loop()->SetSignals(kSignals);
    session_ = std::make_unique<Session>(worker_.get(), process_);
    counts_->Add(session_.get());
    core::TaskReceiver& receiver = worker_->receiver();
    for (;;) {
      core::NextItem item;
      if (!receiver.TryNext(&item)) {
        receiver.WaitForWork(Time::Infinite());
        continue;
      }
      if (item.kind == core::NextItem::kExit) return Leave(item.reason);
      if (item.kind == core::NextItem::kCancel || !receiver.Prepare(item)) continue;
      if (!Execute(item.task)) return process_->EndAtOnce(139);
    }
  }

 private:
  // False: its code crashes.
  bool Execute(const core::ReceivedTaskPtr& task) {
    core::TaskReceiver::SetCurrent(task.get());
    const TaskTemplate& tmpl = *task->spec.tmpl;
    TaskCall call{session_.get(), task.get(), {}, {}, &state_, nullptr};
    int64_t items = 0;
    call.yield = [this, task, &items](const Value& value) {
      bool stop = false;
      const Session::Packed packed = Session::Pack(value, FillingOf(task->spec.task_id, ++items), task->spec.attempt);
      return worker_->receiver().ReportItem(task->token, items - 1, packed.View(kMetadataRaw), &stop).ok() && !stop;
    };
    if (!task->args.metadata.empty()) call.args = session_->Read(task->args, ObjectId::Nil(), task->token).value;
    for (size_t i = 0; i < task->ref_values.size(); ++i) {
      call.values.push_back(session_->Read(task->ref_values[i], task->spec.refs[i].ref.id, task->token).value);
    }
    const auto function = program_->find(tmpl.function_name);
    RAY_CHECK(function != program_->end()) << tmpl.function_name;
    TaskOutput output;
    try {
      output = function->second(call);
    } catch (const SessionOver&) {
      output = {.kind = TaskOutput::kError, .value = {}, .message = "the session is over"};
    }
    if (output.kind == TaskOutput::kCrash) return false;
    if (session_->random().Chance(0.5)) {  // arguments go before the answer, or after it
      call.args = {};
      call.values.clear();
    }
    core::TaskResult result;
    result.generator_items = items;
    const Session::Packed packed = Session::Pack(output.value, output.small ? 0 : FillingOf(task->spec.task_id, 0), task->spec.attempt);
    const std::string error_metadata = ErrorMetadata(ErrorType::kTaskExecutionException);
    if (output.kind == TaskOutput::kError) {
      result.application_error = true;
      result.retryable_error = output.retryable;
      result.returns.push_back({error_metadata, output.message, {}, {}});
    } else {
      result.returns.push_back(packed.View(kMetadataRaw));
    }
    (void)worker_->receiver().Finish(task, result);
    core::TaskReceiver::SetCurrent(nullptr);
    return true;
  }

  static uint32_t FillingOf(const TaskId& task, int64_t result) {
    return Session::FillingOf(Trace::HashOf(task.Binary()) + static_cast<uint64_t>(result));
  }

  void Leave(const std::string& reason) {
    worker_->AnnounceExit(reason, /*intended=*/true);
    state_ = nullptr;
    worker_->Shutdown(reason);
    process_->EndSoon(0);
  }

  SimNetwork* const network_;
  const Program* const program_;
  CodeCounts* const counts_;
  Process* const process_;
  const std::string sockets_dir_;
  core::CoreWorkerConfig config_;
  std::unique_ptr<core::CoreWorker> worker_;
  std::unique_ptr<Session> session_;
  std::shared_ptr<void> state_;  // of the actor that lives here; may hold refs
};

void RunCodeWorker(SimNetwork* network, const Program* program, CodeCounts* counts, Process* process, const raylet::LaunchRequest& request,
                   const std::string& raylet_address) {
  const auto worker =
      std::make_shared<CodeWorker>(network, program, counts, process, request, raylet_address.substr(0, raylet_address.rfind('/')));
  process->Own(worker);
  process->StartThread([worker] { worker->Main(); });
}

}  // namespace ray::sim
