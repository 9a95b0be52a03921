#include "ray/raylet/logs/driver_relay.h"

#include <utility>

namespace ray::raylet {

void DriverRelay::Lines(const JobId& job, v1::LogLinesNotice lines) { Take(job, {std::move(lines), std::nullopt}); }

void DriverRelay::Message(const JobId& job, v1::DriverMessageNotice message) { Take(job, {std::nullopt, std::move(message)}); }

void DriverRelay::Take(const JobId& id, Notice notice) {
  if (jobs_.size() >= config_.max_jobs && !jobs_.contains(id))
    std::erase_if(jobs_, [](const auto& job) { return job.second.driver.has_value(); });
  auto [it, is_new] = jobs_.try_emplace(id);
  Job& job = it->second;
  if (job.driver) {
    if (*job.driver != self_ && !job.driver->IsNil()) Send(&job, std::move(notice));
    return;
  }
  if (job.kept.size() < config_.max_kept) {
    job.kept.push_back(std::move(notice));
  } else if (notice.lines) {
    job.dropped += static_cast<uint64_t>(notice.lines->lines_size());
  }
  if (!is_new) return;
  hooks_.find_driver(id, [this, id, alive = alive_](std::optional<NodeId> driver) {
    if (*alive) Found(id, driver);
  });
}

void DriverRelay::Found(const JobId& id, std::optional<NodeId> driver) {
  const auto it = jobs_.find(id);
  if (it == jobs_.end() || it->second.driver) return;
  if (!driver) {  // the next notice asks again
    jobs_.erase(it);
    return;
  }
  Job& job = it->second;
  job.driver = driver;
  std::deque<Notice> kept = std::exchange(job.kept, {});
  if (*driver == self_ || driver->IsNil()) {
    job.dropped = 0;
    return;
  }
  for (Notice& notice : kept) Send(&job, std::move(notice));
}

void DriverRelay::Send(Job* job, Notice notice) {
  const NodeId node = *job->driver;
  if (notice.message) {  // few, and of weight: never dropped while the node can be reached
    hooks_.send_message(node, *notice.message);
    return;
  }
  const std::optional<size_t> unsent = hooks_.unsent(node);
  if (!unsent || *unsent > config_.max_unsent_bytes) {
    job->dropped += static_cast<uint64_t>(notice.lines->lines_size());
    return;
  }
  if (const uint64_t dropped = std::exchange(job->dropped, 0); dropped > 0) {
    v1::LogLinesNotice told = *notice.lines;
    told.clear_lines();
    told.set_is_stderr(true);
    told.add_lines("[" + std::to_string(dropped) + " lines of this node came too fast and were left out here; they are in its log files]");
    hooks_.send_lines(node, told);
  }
  hooks_.send_lines(node, *notice.lines);
}

}  // namespace ray::raylet
