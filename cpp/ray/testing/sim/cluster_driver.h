// ClusterDriver: what a SimCluster knows of the drivers that work in it. A driver works for a while (which ends by itself), then holds what it has, and leaves
// when told, so that the cluster can be looked at in between.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "ray/common/ids.h"
#include "ray/testing/sim/process.h"

namespace ray::sim {

class ClusterDriver {
 public:
  virtual ~ClusterDriver() = default;
  virtual Process* process() const = 0;
  // Nothing new is asked for, and of what was only actors and placement groups are left.
  virtual bool holds_only() const = 0;
  // The job ends, then the process.
  virtual void Finish() = 0;
  // What waits for an answer, for people.
  virtual std::vector<std::string> Waiting() const = 0;
  virtual JobId job() const = 0;  // nil: none yet
  // Of those that were acknowledged, and whose end was not asked for.
  virtual const std::set<ActorId>& actors() const = 0;
  virtual const std::set<PlacementGroupId>& groups() const = 0;
  // While it holds only these: what else it has left, for people. Empty: nothing.
  virtual std::string Left() const { return {}; }
  // Tasks of DriverConfig::tasks that are done, and requests for a lease, with those that were sent on to another node.
  virtual int64_t tasks_done() const { return 0; }
  virtual int64_t asked() const { return 0; }
};

}  // namespace ray::sim
