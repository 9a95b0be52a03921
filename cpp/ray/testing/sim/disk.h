// SimDisk and SimStorage: what the GCS keeps. The disk belongs to a host and outlives processes; the storage is one process's gcs::Storage over it.
//
// A write takes a while, and is durable at some moment before its caller is told. When the process dies, what was acknowledged is there; of what was not, some
// of the oldest writes may be, each as a whole. A disk can be slow, stand still for a while, and fail, which ends the process that wrote.
#pragma once

#include <deque>
#include <functional>
#include <utility>
#include <vector>

#include "ray/gcs_server/storage/storage.h"
#include "ray/testing/sim/process.h"

namespace ray::sim {

struct DiskConfig {
  Duration min_write = std::chrono::microseconds(100), max_write = std::chrono::milliseconds(3);
};

class SimDisk {
 public:
  SimDisk(World* world, DiskConfig config = {}) : world_(world), config_(config) {}
  const gcs::StorageContents& contents() const { return contents_; }
  // Writes take at least that long from now on; zero: as usual.
  void SetSlow(Duration extra) { extra_ = extra; }
  // The next write fails.
  void FailNext() { fail_next_ = true; }
  uint64_t writes() const { return writes_; }

 private:
  friend class SimStorage;
  void Apply(const std::vector<gcs::StorageOp>& batch);

  World* const world_;
  const DiskConfig config_;
  gcs::StorageContents contents_;
  Duration extra_ = Duration::zero();
  bool fail_next_ = false;
  uint64_t writes_ = 0;
};

// Of one process; owned by it (Process::Own), before what uses it.
class SimStorage final : public gcs::Storage {
 public:
  SimStorage(Process* process, SimDisk* disk) : process_(process), disk_(disk) {}
  ~SimStorage() override;  // the crash
  Result<gcs::StorageContents> Load() override { return disk_->contents_; }
  void Write(std::vector<gcs::StorageOp> batch, std::function<void(Status)> done) override;
  bool durable() const override { return true; }

 private:
  struct Batch {
    std::vector<gcs::StorageOp> ops;
    std::function<void(Status)> done;
  };
  void Begin();

  Process* const process_;
  SimDisk* const disk_;
  std::deque<Batch> queue_;
  EventId writing_ = 0;  // the oldest of the queue
  bool failed_ = false;
};

}  // namespace ray::sim
