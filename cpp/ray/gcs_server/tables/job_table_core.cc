#include "ray/gcs_server/tables/job_table_core.h"

namespace ray::gcs {

void JobTableCore::Add(const v1::JobInfo& job, CallToken call, int64_t wall_ms, Effects* out) {
  if (last_ == UINT32_MAX - 1) return Fail(call, Status::ResourceExhausted("this cluster has used up its job numbers"), out);
  JobId id = JobId::FromInt(++last_);
  v1::JobInfo& info = jobs_[id] = job;
  info.set_job_id(id.Binary());
  info.set_start_time_ms(wall_ms);
  info.set_end_time_ms(0);
  out->push_back(Persist{kCounterTable, "job", {HeapBuffer::CopyOf(std::to_string(last_))}, false});
  out->push_back(PersistMessage(kTable, id.Binary(), info));
  v1::AddJobReply reply;
  reply.set_job_id(id.Binary());
  Reply(call, std::move(reply), out);
}

bool JobTableCore::Finish(const JobId& job, CallToken call, int64_t wall_ms, Effects* out) {
  auto it = jobs_.find(job);
  bool ends = it != jobs_.end() && it->second.end_time_ms() == 0;
  if (ends) {
    it->second.set_end_time_ms(wall_ms);
    out->push_back(PersistMessage(kTable, job.Binary(), it->second));
  }
  Reply(call, v1::JobEmpty(), out);
  if (ends) out->push_back(TellJobFinished{job});
  return ends;
}

void JobTableCore::List(CallToken call, Effects* out) const {
  v1::ListJobsReply reply;
  for (const auto& [id, job] : jobs_) *reply.add_jobs() = job;
  Reply(call, std::move(reply), out);
}

std::vector<JobId> JobTableCore::RunningOn(const NodeId& node) const {
  std::vector<JobId> jobs;
  for (const auto& [id, job] : jobs_) {
    if (job.end_time_ms() == 0 && job.driver_node_id() == node.View()) jobs.push_back(id);
  }
  return jobs;
}

}  // namespace ray::gcs
