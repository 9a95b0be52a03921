// MemoryMonitor: shell of MemoryMonitorCore. Reads the memory in use at an interval, and has workers ended while it is short. While no worker runs anything there is
// none to end, and nothing is read: an idle node wakes nobody.
// On the loop only; owned by NodeServices.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ray/async/loop.h"
#include "ray/raylet/memory/memory_monitor_core.h"
#include "ray/raylet/memory/memory_reader.h"

namespace ray::raylet {

struct MemoryMonitorOptions {
  MemoryMonitorConfig core;
  Duration interval = std::chrono::milliseconds(250);  // between two readings; zero: no monitor
  std::string root = "/";                              // where proc/ and sys/ are; tests make their own
  bool count_swap = false;
};

class MemoryMonitor {
 public:
  struct Deps {
    async::Loop* loop;
    std::string node;                                          // for people
    std::function<bool()> works;                               // whether some worker runs something
    std::function<std::vector<MemoryCandidate>()> candidates;  // rss need not be set
    std::function<std::vector<int64_t>()> pids;                // of all processes that belong to the node
    std::function<void(const MemoryCandidate& victim, const std::string& reason)> end;
  };
  MemoryMonitor(MemoryMonitorOptions options, Deps deps);
  ~MemoryMonitor();
  void Start();
  void Stop();
  // A worker was given something to run.
  void OnWork() { Arm(); }
  void OnEnded(const WorkerId& worker) { core_.OnEnded(worker); }

 private:
  void Look();
  void Arm();

  const MemoryMonitorOptions options_;
  const Deps deps_;
  const MemoryReader reader_;
  MemoryMonitorCore core_;
  bool on_ = false;
  async::TimerId timer_ = 0;  // 0: nobody works
};

}  // namespace ray::raylet
