#include "ray/gcs_server/tables/job_table_core.h"

#include <algorithm>
#include <charconv>

namespace ray::gcs {

Status JobTableCore::Restore(const StorageContents& stored) {
  if (const auto counters = stored.find(kCounterTable); counters != stored.end()) {
    if (const auto row = counters->second.find("job"); row != counters->second.end()) {
      const std::string& text = row->second;
      if (std::from_chars(text.data(), text.data() + text.size(), last_).ec != std::errc())
        return Status::DataLoss("the stored number of the last job cannot be read");
    }
  }
  const auto rows = stored.find(kTable);
  if (rows == stored.end()) return Status::Ok();
  for (const auto& [key, value] : rows->second) {
    RAY_ASSIGN_OR_RETURN(v1::JobInfo info, ReadRow<v1::JobInfo>(kTable, key, value));
    const JobId id = JobId::FromBinaryOrNil(key);
    last_ = std::max(last_, id.ToInt());
    if (info.end_time_ms() != 0) over_.push_back(id);
    if (!info.driver_worker_id().empty()) by_driver_[info.driver_worker_id()] = id;
    jobs_[id] = std::move(info);
  }
  const auto end = [this](const JobId& id) { return std::pair(jobs_.at(id).end_time_ms(), id); };
  std::sort(over_.begin(), over_.end(), [&end](const JobId& a, const JobId& b) { return end(a) < end(b); });
  return Status::Ok();
}

void JobTableCore::Add(const v1::JobInfo& job, CallToken call, int64_t wall_ms, Effects* out) {
  v1::AddJobReply reply;
  if (const auto known = by_driver_.find(job.driver_worker_id()); known != by_driver_.end()) {
    reply.set_job_id(known->second.Binary());
    return Reply(call, std::move(reply), out);
  }
  if (last_ == UINT32_MAX - 1) return Fail(call, Status::ResourceExhausted("this cluster has used up its job numbers"), out);
  JobId id = JobId::FromInt(++last_);
  v1::JobInfo& info = jobs_[id] = job;
  info.set_job_id(id.Binary());
  info.set_start_time_ms(wall_ms);
  info.set_end_time_ms(0);
  out->push_back(Persist{kCounterTable, "job", {HeapBuffer::CopyOf(std::to_string(last_))}, false});
  out->push_back(PersistMessage(kTable, id.Binary(), info));
  if (!info.driver_worker_id().empty()) by_driver_[info.driver_worker_id()] = id;
  reply.set_job_id(id.Binary());
  Reply(call, std::move(reply), out);
}

bool JobTableCore::Finish(const JobId& job, CallToken call, int64_t wall_ms, Effects* out) {
  auto it = jobs_.find(job);
  bool ends = it != jobs_.end() && it->second.end_time_ms() == 0;
  if (ends) {
    it->second.set_end_time_ms(wall_ms);
    out->push_back(PersistMessage(kTable, job.Binary(), it->second));
    over_.push_back(job);
    if (over_.size() > max_over_) {
      out->push_back(Persist{kTable, over_.front().Binary(), {}, true});
      by_driver_.erase(jobs_.at(over_.front()).driver_worker_id());
      jobs_.erase(over_.front());
      over_.pop_front();
    }
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

bool JobTableCore::IsOver(const JobId& job) const {
  const auto it = jobs_.find(job);
  if (it != jobs_.end()) return it->second.end_time_ms() != 0;
  return !job.IsNil() && job.ToInt() <= last_;
}

std::vector<JobId> JobTableCore::RunningOn(const NodeId& node) const {
  std::vector<JobId> jobs;
  for (const auto& [id, job] : jobs_) {
    if (job.end_time_ms() == 0 && job.driver_node_id() == node.View()) jobs.push_back(id);
  }
  return jobs;
}

std::vector<JobId> JobTableCore::RunningOf(const WorkerId& driver) const {
  std::vector<JobId> jobs;
  for (const auto& [id, job] : jobs_) {
    if (job.end_time_ms() == 0 && job.driver_worker_id() == driver.View()) jobs.push_back(id);
  }
  return jobs;
}

std::set<JobId> JobTableCore::OverOfLate() const {
  return {over_.end() - static_cast<std::ptrdiff_t>(std::min(over_.size(), kOfLate)), over_.end()};
}

}  // namespace ray::gcs
