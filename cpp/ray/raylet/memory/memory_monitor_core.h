// MemoryMonitorCore: which worker to end when the node runs out of memory.
//
// Problem: past the limit the kernel ends some process, perhaps the raylet's or the user's shell, and nobody learns why. So a worker is ended
// first, one at a time, as long as use is above the threshold: the one whose loss costs least and that most likely began the growth. By
// default that is the one leased last among those whose work can be run again; an owner that has several workers loses one before an owner
// that has only one, so that everybody gets on. Work that must not run twice goes last.
// Pure core: readings and time in, a verdict out. Owned by MemoryMonitor; not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ray/common/ids.h"
#include "ray/util/clock.h"

namespace ray::raylet {

struct MemoryUse {
  uint64_t used = 0, total = 0;  // bytes, of the node or of the control group that bounds us
};

// A worker that runs something.
struct MemoryCandidate {
  WorkerId worker;
  WorkerId owner;    // whose work it does
  std::string name;  // of the task or actor
  int64_t pid = -1;
  uint64_t rss = 0;  // bytes
  bool retriable = false;
  Time leased;  // since when it does this work
};

struct MemoryMonitorConfig {
  double threshold = 0.95;                      // share of `total` above which workers are ended
  int64_t min_free_bytes = -1;                  // the threshold is not below total - this; negative: not looked at
  bool by_group = false;                        // choose the owner first: the one with the most workers on work that can be run again
  Duration patience = std::chrono::seconds(5);  // for a killed worker to be gone, before another one is chosen
};

class MemoryMonitorCore {
 public:
  explicit MemoryMonitorCore(MemoryMonitorConfig config) : config_(config) {}

  // Bytes in use above which workers are ended.
  uint64_t ThresholdOf(uint64_t total) const;
  // Whether a victim is wanted now. Not while the last one has still to go.
  bool WantsVictim(const MemoryUse& use, Time now);
  // The index of the worker to end; nullopt if there is none. It counts as going until OnEnded.
  std::optional<size_t> Choose(const std::vector<MemoryCandidate>& candidates, Time now);
  void OnEnded(const WorkerId& worker);

 private:
  const MemoryMonitorConfig config_;
  WorkerId going_;  // nil: none
  Time since_;
};

// "The node ran low on memory: 9.60 GB of 10.00 GB (0.960) were in use, more than the threshold of 0.950. ...", for people.
struct MemoryProcess {
  int64_t pid;
  uint64_t rss;
  std::string command;
};
std::string DescribeOutOfMemory(const MemoryUse& use, uint64_t threshold, const MemoryCandidate& victim, const std::string& node,
                                std::vector<MemoryProcess> processes);

}  // namespace ray::raylet
