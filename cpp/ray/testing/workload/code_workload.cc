#include "ray/testing/workload/code_workload.h"

#include <utility>

#include "ray/raylet/adoption/adoption_service.h"
#include "ray/testing/workload/code_driving.h"

namespace ray::sim {

CodeWorkload::CodeWorkload(uint64_t seed) : config_(ClusterConfig::FromSeed(seed)) {
  Random stores(seed ^ 0x570eull);
  config_.store.capacity = stores.Chance(0.3) ? 256 << 10 : 4 << 20;  // the small ones spill
  if (stores.Chance(0.5)) config_.store.disk.write_fails = 0.3;       // what is tried again, so that nobody notices
  if (stores.Chance(0.3)) config_.store.disk.read_fails = 0.4;        // and one in 16 restores finds its file unreadable
  DefineTasks();
  DefineActors();
  DefineBorrows();
  DefineGroups();
}

CodeStats& operator+=(CodeStats& sum, const CodeStats& more) {
  for (const auto member :
       {&CodeStats::tasks, &CodeStats::trees, &CodeStats::streams, &CodeStats::actors, &CodeStats::calls, &CodeStats::borrows,
        &CodeStats::loans, &CodeStats::leavers, &CodeStats::kills, &CodeStats::cancels, &CodeStats::groups, &CodeStats::in_groups,
        &CodeStats::names, &CodeStats::look_ups, &CodeStats::runs, &CodeStats::values, &CodeStats::errors})
    sum.*member += more.*member;
  return sum;
}

std::ostream& operator<<(std::ostream& out, const CodeStats& stats) {
  return out << stats.tasks << " tasks, " << stats.trees << " trees, " << stats.streams << " streams, " << stats.actors << " actors, "
             << stats.calls << " calls, " << stats.borrows << " refs handed on, " << stats.loans << " lent, " << stats.leavers
             << " drivers that left early, " << stats.kills << " kills, " << stats.cancels << " cancels, " << stats.groups
             << " groups with " << stats.in_groups << " tasks and actors, " << stats.names << " named actors that were looked for "
             << stats.look_ups << " times; " << stats.runs << " runs; " << stats.values << " values, " << stats.errors << " errors";
}

void CodeWorkload::CountRun(const TaskCall& call) {
  ++stats_.runs;
  const int32_t runs = ++runs_[call.task->spec.task_id];
  const int32_t retries = call.task->spec.tmpl->max_retries;
  if (retries >= 0 && runs > retries + 1)
    Fail("task " + call.task->spec.task_id.Hex() + " ran " + std::to_string(runs) + " times, with " + std::to_string(retries) + " retries");
}

bool CodeWorkload::MayBeLostPut(const Got& got) const {
  const std::string kind = "error " + std::to_string(static_cast<int32_t>(ErrorType::kObjectUnreconstructablePut)) + ":";
  return config_.store.disk.read_fails > 0 && !got.ok() &&
         (got.error == ErrorType::kObjectUnreconstructablePut || got.error == ErrorType::kObjectUnreconstructableOwnerLeft ||
          got.message.find(kind) != std::string::npos);
}

ClusterConfig CodeWorkload::Config() {
  ClusterConfig config = config_;
  config.start_driver = [this](SimNetwork* network, HostId host, const SimRaylet& raylet) -> ClusterDriver* {
    return CodeDriver::Start(network, host, raylet.address(), [this](CodeDriver* driver) { CodeDriving(this, driver).Run(); });
  };
  config.start_last_driver = [this](SimNetwork* network, HostId host, const SimRaylet& raylet) -> ClusterDriver* {
    return CodeDriver::Start(network, host, raylet.address(), [this](CodeDriver* driver) { CodeDriving(this, driver).CleanUp(); });
  };
  config.slots = 3;
  config.run_worker = [this](SimNetwork* network, Process* process, const raylet::LaunchRequest& request,
                             const std::string& raylet_address) {
    RunCodeWorker(network, &program_, &counts_, process, request, raylet_address);
  };
  config.waiting = [this] { return counts_.Waiting(); };
  config.check_held = [this](const SimRaylet& head) { return counts_.Check(head.node_id(), head.services().adoption().core()); };
  return config;
}

std::string CodeWorkload::Check() const {
  if (!problem_.empty()) return problem_;
  for (const auto& [actor, record] : actors_) {
    if (std::string fault = record.history.Check(); !fault.empty()) return "actor " + actor.Hex() + ": " + fault;
  }
  return CheckGroups();
}

}  // namespace ray::sim
