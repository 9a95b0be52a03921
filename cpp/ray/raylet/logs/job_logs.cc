#include "ray/raylet/logs/job_logs.h"

#include <memory>
#include <utility>

#include "ray/raylet/nodes/node_directory.h"
#include "ray/raylet/router/router.h"
#include "ray/raylet/workers/worker_service.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/node_link.pb.h"

namespace ray::raylet {
namespace {

constexpr Duration kDrainWait = std::chrono::milliseconds(300);

}  // namespace

JobLogs::JobLogs(const NodeId& self, WorkerService* workers, NodeDirectory* nodes, Router* router)
    : self_(self), workers_(workers), nodes_(nodes), router_(router), relay_(self, DriverRelayConfig{}, RelayHooks()) {}

DriverRelayHooks JobLogs::RelayHooks() {
  return {[this](const JobId& job, std::function<void(std::optional<NodeId>)> done) { FindDriver(job, std::move(done)); },
          [this](const NodeId& node) -> std::optional<size_t> {
            const rpc::ConnectionPtr link = nodes_->Link(node);
            return link == nullptr ? std::nullopt : std::optional(link->unsent_bytes());
          },
          [this](const NodeId& node, const v1::LogLinesNotice& lines) {
            if (const rpc::ConnectionPtr link = nodes_->Link(node)) link->Notify(MethodId::kLogLines, lines);
          },
          [this](const NodeId& node, const v1::DriverMessageNotice& message) {
            if (const rpc::ConnectionPtr link = nodes_->Link(node)) link->Notify(MethodId::kDriverMessage, message);
          }};
}

void JobLogs::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::DrainJobLogsRequest>(
      MethodId::kDrainJobLogs, [this](const v1::DrainJobLogsRequest& message, rpc::Request&, rpc::Responder responder) {
        const JobId job = JobId::FromBinaryOrNil(message.job_id());
        workers_->DrainLogs(job);
        relay_.Learn(job, NodeId::FromBinaryOrNil(message.driver_node_id()));
        if (responder.valid()) responder.Send(v1::WorkerEmpty());
      });
  // What comes from processes of this node is not for others to read: only the GCS and other raylets relay.
  dispatcher->RegisterTyped<v1::LogLinesNotice>(MethodId::kLogLines,
                                                [this](const v1::LogLinesNotice& lines, rpc::Request& request, rpc::Responder responder) {
                                                  if (workers_->WorkerOf(request.connection->id()).IsNil()) workers_->DeliverLines(lines);
                                                  if (responder.valid()) responder.Send(v1::WorkerEmpty());
                                                });
  dispatcher->RegisterTyped<v1::DriverMessageNotice>(
      MethodId::kDriverMessage, [this](const v1::DriverMessageNotice& message, rpc::Request& request, rpc::Responder responder) {
        if (workers_->WorkerOf(request.connection->id()).IsNil()) workers_->DeliverMessage(message);
        if (responder.valid()) responder.Send(v1::WorkerEmpty());
      });
}

void JobLogs::Drain(const JobId& job, std::function<void()> done) {
  workers_->DrainLogs(job);
  v1::DrainJobLogsRequest request;
  request.set_job_id(job.Binary());
  request.set_driver_node_id(self_.Binary());
  rpc::CallOptions options;
  options.timeout = kDrainWait;
  const auto end = std::make_shared<std::function<void()>>(std::move(done));
  const auto waiting = std::make_shared<size_t>(1);  // one for this function itself
  const auto answered = [end, waiting] {
    if (--*waiting == 0) (*end)();
  };
  for (const auto& [node, description] : nodes_->nodes()) {
    const rpc::ConnectionPtr link = nodes_->ExistingLink(node);  // what answered this node's drivers came over one
    if (link == nullptr) continue;
    ++*waiting;
    link->Call(
        MethodId::kDrainJobLogs, request, {}, [answered](Status, rpc::Reply) { answered(); }, options);
  }
  answered();
}

void JobLogs::FindDriver(const JobId& job, std::function<void(std::optional<NodeId>)> done) {
  router_->Ask(MethodId::kListJobs, v1::JobEmpty(), [job, done = std::move(done)](const Status& status, const rpc::Reply& answer) {
    v1::ListJobsReply reply;
    if (!status.ok() || !reply.ParseFromArray(answer.control.data(), static_cast<int>(answer.control.size()))) return done(std::nullopt);
    NodeId driver;  // nil: the job is unknown
    for (const v1::JobInfo& info : reply.jobs()) {
      // Also of one that has ended: its driver waits for what was printed last.
      if (JobId::FromBinaryOrNil(info.job_id()) == job) driver = NodeId::FromBinaryOrNil(info.driver_node_id());
    }
    done(driver);
  });
}

}  // namespace ray::raylet
