#include "ray/testing/sim/fake_worker.h"

#include <memory>
#include <utility>

#include "ray/rpc/core/dispatcher.h"
#include "ray/v1/raylet_worker.pb.h"
#include "ray/v1/worker_task.pb.h"
#include "ray/wire/version.h"

namespace ray::sim {
namespace {

class FakeWorker {
 public:
  FakeWorker(SimNetwork* network, const FakeWorkerConfig& config, Process* process)
      : network_(network), config_(config), process_(process) {
    dispatcher_.RegisterTyped<v1::PushTaskRequest>(
        MethodId::kPushTask, [this](const v1::PushTaskRequest&, rpc::Request&, rpc::Responder responder) { Create(std::move(responder)); });
    dispatcher_.RegisterTyped<v1::ExitRequest>(MethodId::kExit,
                                               [this](const v1::ExitRequest& message, rpc::Request&, rpc::Responder responder) {
                                                 if (responder.valid()) responder.Send(v1::Empty());
                                                 Leave(message.force());
                                               });
  }

  void Register(const raylet::LaunchRequest& launch, const std::string& raylet_address) {
    raylet_ = network_->Connect(process_, raylet_address, &dispatcher_);
    raylet_->OnClose([this](const Status&) { process_->EndSoon(1); });
    v1::RegisterWorkerRequest request;
    request.set_worker_id(launch.worker.Binary());
    request.set_job_id(launch.job.Binary());
    request.set_pid(process_->pid());
    request.set_startup_token(launch.token);
    request.set_protocol_version(std::string(kProtocolVersion));
    request.set_python_version("3.11.7");
    raylet_->Call(MethodId::kRegisterWorker, request, {},
                  [this](const Status& status, const rpc::Reply&) {
                    if (!status.ok()) process_->EndSoon(1);
                  },
                  {});
  }

 private:
  Random& random() { return process_->world()->random(); }

  void Create(rpc::Responder responder) {
    const bool dies = random().Chance(config_.dies_in_creation);
    const auto answer = std::make_shared<rpc::Responder>(std::move(responder));
    process_->loop()->AddTimer(random().Between(Duration::zero(), config_.max_creation), [this, answer, dies] {
      if (dies) {
        dying_ = answer;  // no answer
        return process_->EndSoon(139);
      }
      v1::PushTaskReply reply;
      reply.set_is_application_error(random().Chance(config_.creation_fails));
      if (answer->valid()) answer->Send(reply);
    });
  }

  void Leave(bool force) {
    if (!force && random().Chance(config_.ignores_exit)) return;
    v1::AnnounceExitRequest announce;
    announce.set_reason("it was asked to leave");
    announce.set_intended(true);
    raylet_->Notify(MethodId::kAnnounceExit, announce);
    process_->loop()->AddTimer(random().Between(Duration::zero(), config_.max_creation), [this] { process_->EndSoon(0); });
  }

  SimNetwork* const network_;
  const FakeWorkerConfig config_;
  Process* const process_;
  rpc::Dispatcher dispatcher_;
  rpc::ConnectionPtr raylet_;
  std::shared_ptr<rpc::Responder> dying_;
};

}  // namespace

void RunFakeWorker(SimNetwork* network, const FakeWorkerConfig& config, Process* process, const raylet::LaunchRequest& request,
                   const std::string& raylet_address) {
  const auto worker = std::make_shared<FakeWorker>(network, config, process);
  process->Own(worker);
  worker->Register(request, raylet_address);
}

}  // namespace ray::sim
