// LocalDisk: spilled objects as files under one or more folders of this machine.
//
// Each folder given gets a sub-folder ray_spilled_objects_<node>, made with the first file and removed by Stop. While it is used it is locked
// (flock), so that whoever starts next can tell the leftovers of a crashed node from the files of a live one, and removes them.
// Threads: one for each folder's writes, one for reads and all that is short, started when they are first needed. Thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ray/object_manager/spill/spill_storage.h"
#include "ray/object_manager/spill/task_thread.h"

namespace ray::object_manager {

struct LocalDiskConfig {
  std::vector<std::string> directories;  // at least one; made if they are not there
  std::string node;                      // name of the node, hexadecimal
  // A disk is full when more than this share of it would be used: others need some, and file systems get slow.
  double max_disk_use = 0.95;
};

class LocalDisk final : public SpillStorage {
 public:
  explicit LocalDisk(const LocalDiskConfig& config);
  ~LocalDisk() override;

  int num_directories() const override;
  void RemoveLeftovers() override;
  void Write(int directory, uint64_t file, std::vector<MemoryFile> ranges, Done done) override;
  void Read(int directory, uint64_t file, uint64_t offset, MemoryFile to, Done done) override;
  void Delete(int directory, uint64_t file) override;
  void MakeSegment(uint64_t size, SegmentDone done) override;
  void Stop() override;

 private:
  class Folder;
  const LocalDiskConfig config_;
  std::vector<std::unique_ptr<Folder>> folders_;
  std::vector<std::unique_ptr<TaskThread>> writers_;  // by folder
  std::unique_ptr<TaskThread> reader_;
  uint64_t last_segment_ = 0;  // on the reader
};

}  // namespace ray::object_manager
