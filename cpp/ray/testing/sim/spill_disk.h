// SimSpillDisk and SimTasks: what a simulated node's store and transfers have instead of threads and folders: files in memory, and tasks beside the loop, which
// both take virtual time. Of one process each; everything that was not done when it dies is dropped.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ray/object_manager/spill/spill_storage.h"
#include "ray/object_manager/spill/task_thread.h"
#include "ray/testing/sim/process.h"

namespace ray::sim {

struct SpillDiskConfig {
  int directories = 2;
  Duration min_take = std::chrono::microseconds(50), max_take = std::chrono::milliseconds(8);  // of a request
  double write_fails = 0;  // share of writes, and of segments; half of these since the disk is full
  double read_fails = 0;   // share of reads, each of which is tried several times
};

// Does one task after the other, each in a while. None after Stop.
class SimTasks final : public object_manager::TaskRunner {
 public:
  SimTasks(Process* process, Duration min_take, Duration max_take) : process_(process), min_take_(min_take), max_take_(max_take) {}
  ~SimTasks() override { Stop(); }
  void Add(std::function<void()> task) override;
  void Stop() override;

 private:
  void Begin();

  Process* const process_;
  const Duration min_take_, max_take_;
  std::deque<std::function<void()>> tasks_;
  EventId running_ = 0;  // the oldest
  bool stopped_ = false;
};

class SimSpillDisk final : public object_manager::SpillStorage {
 public:
  SimSpillDisk(Process* process, SpillDiskConfig config);

  int num_directories() const override { return config_.directories; }
  void RemoveLeftovers() override {}  // files end with their process
  void Write(int directory, uint64_t file, std::vector<object_manager::MemoryFile> ranges, Done done) override;
  void Read(int directory, uint64_t file, uint64_t offset, object_manager::MemoryFile to, Done done) override;
  void Delete(int directory, uint64_t file) override;
  void MakeSegment(uint64_t size, SegmentDone done) override;
  void Stop() override;

  size_t num_files() const { return files_.size(); }
  uint64_t files_written() const { return files_written_; }

 private:
  Status AnyFailure();
  Process* const process_;
  const SpillDiskConfig config_;
  std::vector<std::unique_ptr<SimTasks>> writers_;  // by directory
  SimTasks reader_;
  std::map<std::pair<int, uint64_t>, std::string> files_;
  uint64_t files_written_ = 0;
};

}  // namespace ray::sim
