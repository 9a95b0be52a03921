#include "ray/raylet/deaths/watch_service.h"

#include <utility>
#include <vector>

#include "ray/v1/raylet_worker.pb.h"
#include "ray/wire/convert.h"

namespace ray::raylet {
namespace {

constexpr Duration kAnswerTimeout = std::chrono::seconds(10);

}  // namespace

WatchService::WatchService(Deps deps)
    : deps_(std::move(deps)), timer_(deps_.loop, [this] {
        core_.OnTimer(Now(), &out_);
        Run();
      }) {}

WatchService::~WatchService() { *alive_ = false; }

void WatchService::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::WatchProcessNotice>(MethodId::kWatchProcess,
                                                    [this](const v1::WatchProcessNotice& message, rpc::Request&, rpc::Responder responder) {
                                                      Watch(FromProto(message.process()));
                                                      if (responder.valid()) responder.Send(v1::WorkerEmpty());
                                                    });
  dispatcher->RegisterTyped<v1::WatchRequest>(
      MethodId::kLinkWatch,
      [this](const v1::WatchRequest& message, rpc::Request&, rpc::Responder responder) { HandleWatch(message, std::move(responder)); });
}

void WatchService::HandleWatch(const v1::WatchRequest& message, rpc::Responder responder) {
  const NodeId node = NodeId::FromBinaryOrNil(message.node_id());
  v1::WatchReply reply;
  for (const std::string& id : message.worker_ids()) {
    if (!deps_.meet(WorkerId::FromBinaryOrNil(id), node)) reply.add_ended_worker_ids(id);
  }
  if (responder.valid()) responder.Send(reply);
}

void WatchService::Watch(const Address& process) {
  if (process.node_id.IsNil() || process.node_id == deps_.self || process.worker_id.IsNil()) return;
  if (process == RayletAsProcess(process.node_id)) return;
  core_.Watch(process, Now(), &out_);
  Run();
}

void WatchService::Run() {
  if (std::exchange(running_, true)) return;  // what was added is seen by the loop below
  while (!out_.empty()) {
    for (const WatchEffect& effect : std::exchange(out_, {})) {
      if (const auto* ask = std::get_if<AskNode>(&effect)) {
        Ask(*ask);
      } else {
        deps_.ended(std::get<ProcessEnded>(effect).process);
      }
    }
  }
  running_ = false;
  timer_.Arm(core_.NextDeadline());
}

void WatchService::Ask(const AskNode& effect) {
  const rpc::ConnectionPtr link = deps_.link(effect.node);
  if (link == nullptr) return core_.OnAnswer(effect.node, effect.call, /*answered=*/false, {}, Now(), &out_);
  v1::WatchRequest request;
  request.set_node_id(deps_.self.Binary());
  for (const WorkerId& worker : effect.processes) request.add_worker_ids(worker.data(), WorkerId::kSize);
  rpc::CallOptions options;
  options.timeout = kAnswerTimeout;
  rpc::CallTyped<v1::WatchReply>(
      *link, MethodId::kLinkWatch, request, {},
      [this, node = effect.node, call = effect.call, alive = alive_](const Status& status, const v1::WatchReply& reply, const PartList&) {
        if (!*alive) return;
        // One of an earlier release does not know the question, and tells everybody of every end.
        const bool answered = status.ok() || status.code() == StatusCode::kUnimplemented;
        std::vector<WorkerId> ended;
        for (const std::string& id : reply.ended_worker_ids()) ended.push_back(WorkerId::FromBinaryOrNil(id));
        core_.OnAnswer(node, call, answered, ended, Now(), &out_);
        Run();
      },
      options);
}

}  // namespace ray::raylet
