#include "ray/gcs_server/services/gcs_state.h"
#include "ray/util/logging.h"

namespace ray::gcs {

void FinishJob(GcsState* gcs, const JobId& job, CallToken call, Effects* out) {
  if (!gcs->jobs.Finish(job, call, gcs->wall_ms(), out)) return;
  RAY_LOG(INFO) << "job " << job << " has finished";
  gcs->actors.JobFinished(job, gcs->wall_ms(), out);
  EndGroupsOfJob(gcs, job, out);
  RouteGroups(gcs, out);
  DropDefinitions(gcs, job, out);
}

void DropDefinitions(GcsState* gcs, const JobId& job, Effects* out) {
  if (gcs->jobs.IsOver(job) && !gcs->actors.AnyLives(job)) gcs->kv.JobGone(job, out);
}

void FinishJobsOf(GcsState* gcs, const WorkerId& driver, Effects* out) {
  for (const JobId& job : gcs->jobs.RunningOf(driver)) FinishJob(gcs, job, 0, out);
}

void EndGroupsOfJob(GcsState* gcs, const JobId& job, Effects* out) {
  const auto lives = [gcs](const ActorId& actor) {
    const v1::ActorInfo* info = gcs->actors.Find(actor);
    return info != nullptr && info->state() != v1::ACTOR_STATE_DEAD;
  };
  gcs->groups.JobFinished(job, lives, gcs->now(), out);
}

void TellNodesJobFinished(GcsState* gcs, const TellJobFinished& order) {
  v1::JobFinishedNotice notice;
  notice.set_job_id(order.job.Binary());
  for (const WorkerId& worker : gcs->actors.StayingWorkers()) notice.add_kept_workers(worker.Binary());
  for (const auto& [node, link] : gcs->links) {
    if (order.node.IsNil() || order.node == node) link->Notify(MethodId::kJobFinished, notice);
  }
}

void RegisterJobService(GcsState* gcs, rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::AddJobRequest>(
      MethodId::kAddJob, [gcs](const v1::AddJobRequest& message, rpc::Request&, rpc::Responder responder) {
        Effects out;
        gcs->jobs.Add(message.job(), gcs->runner.Hold(std::move(responder)), gcs->wall_ms(), &out);
        // The news of its driver's end, or of its node's, came first.
        const WorkerId driver = WorkerId::FromBinaryOrNil(message.job().driver_worker_id());
        if (gcs->workers.IsDead(driver) || gcs->nodes.IsDead(NodeId::FromBinaryOrNil(message.job().driver_node_id())))
          FinishJobsOf(gcs, driver, &out);
        gcs->runner.Run(std::move(out));
      });
  dispatcher->RegisterTyped<v1::FinishJobRequest>(
      MethodId::kFinishJob, [gcs](const v1::FinishJobRequest& message, rpc::Request&, rpc::Responder responder) {
        Effects out;
        FinishJob(gcs, JobId::FromBinaryOrNil(message.job_id()), gcs->runner.Hold(std::move(responder)), &out);
        gcs->runner.Run(std::move(out));
      });
  dispatcher->RegisterTyped<v1::JobEmpty>(MethodId::kListJobs, [gcs](const v1::JobEmpty&, rpc::Request&, rpc::Responder responder) {
    Effects out;
    gcs->jobs.List(gcs->runner.Hold(std::move(responder)), &out);
    gcs->runner.Run(std::move(out));
  });
}

}  // namespace ray::gcs
