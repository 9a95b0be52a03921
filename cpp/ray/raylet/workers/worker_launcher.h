// WorkerLauncher: makes worker processes. The real one forks them from a zygote; tests and the simulation put their own underneath.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "ray/common/ids.h"

namespace ray::raylet {

struct LaunchRequest {
  uint64_t token = 0;  // comes back with the outcome, and with the worker's registration
  WorkerId worker;
  JobId job;
  std::map<std::string, std::string> env;  // set on top of the zygote's environment
};

// Called on the loop.
struct LauncherEvents {
  std::function<void(uint64_t token, int64_t pid)> on_started;
  std::function<void(uint64_t token, const std::string& message)> on_failed;
  std::function<void(int64_t pid, int wait_status)> on_exited;  // a started process has ended
  // In place of on_failed: the machine has no process to give now, as when a limit is reached.
  std::function<void(uint64_t token, const std::string& message)> on_refused;
};

// On the loop only.
class WorkerLauncher {
 public:
  virtual ~WorkerLauncher() = default;
  // REQUIRES: called once, before Launch.
  virtual void SetEvents(LauncherEvents events) = 0;
  // on_started, on_failed or on_refused follows.
  virtual void Launch(const LaunchRequest& request) = 0;
  // Sends a signal to a process that was started and whose end has not been told. Others are left alone.
  virtual void Signal(int64_t pid, int signal) = 0;
  // A child of this process (a subreaper) has ended, and is about to be reaped: until then its number is nobody else's.
  virtual void OnChildEnded(int64_t pid) = 0;
  // It was reaped: the zygote itself, or a worker that a dead zygote left.
  virtual void OnChildReaped(int64_t pid, int wait_status) = 0;
  // No more launches; ends the helper processes. No events afterwards.
  virtual void Stop() = 0;
};

}  // namespace ray::raylet
