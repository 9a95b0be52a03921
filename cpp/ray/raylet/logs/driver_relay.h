// DriverRelay: takes what is meant for the drivers of a job, lines that its workers printed and messages, to the node where they are.
//
// Which node that is, the GCS knows; it is asked once per job, and what comes meanwhile is kept, up to a bound. A driver that reads slower
// than its workers print loses lines rather than filling this process: how many is told in their place. On the loop only; owned by JobLogs.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "ray/common/ids.h"
#include "ray/v1/raylet_worker.pb.h"

namespace ray::raylet {

struct DriverRelayConfig {
  size_t max_kept = 1000;              // notices of a job whose driver is still looked for
  size_t max_jobs = 1000;              // remembered; beyond it all are looked for anew
  size_t max_unsent_bytes = 4u << 20;  // on the way to a node; beyond it lines are dropped
};

struct DriverRelayHooks {
  // Calls back, on the loop, with the node of the job's driver; nil: the job is unknown; nullopt: it could not be found out.
  std::function<void(const JobId& job, std::function<void(std::optional<NodeId>)> done)> find_driver;
  // Bytes on the way to that node; nullopt: it cannot be reached now.
  std::function<std::optional<size_t>(const NodeId& node)> unsent;
  std::function<void(const NodeId& node, const v1::LogLinesNotice& lines)> send_lines;
  std::function<void(const NodeId& node, const v1::DriverMessageNotice& message)> send_message;
};

class DriverRelay {
 public:
  DriverRelay(const NodeId& self, DriverRelayConfig config, DriverRelayHooks hooks)
      : self_(self), config_(config), hooks_(std::move(hooks)) {}
  ~DriverRelay() { *alive_ = false; }

  // Nothing happens to what is for drivers of this node: they get it by themselves.
  void Lines(const JobId& job, v1::LogLinesNotice lines);
  void Message(const JobId& job, v1::DriverMessageNotice message);
  // The driver's node says so itself.
  void Learn(const JobId& job, const NodeId& driver) { Found(job, driver); }

 private:
  struct Notice {
    std::optional<v1::LogLinesNotice> lines;
    std::optional<v1::DriverMessageNotice> message;
  };
  struct Job {
    std::optional<NodeId> driver;  // unset: being looked for
    std::deque<Notice> kept;
    uint64_t dropped = 0;  // lines, since the last that got through
  };
  void Take(const JobId& job, Notice notice);
  void Found(const JobId& job, std::optional<NodeId> driver);
  void Send(Job* job, Notice notice);

  const NodeId self_;
  const DriverRelayConfig config_;
  const DriverRelayHooks hooks_;
  std::map<JobId, Job> jobs_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for answers that are still to come
};

}  // namespace ray::raylet
