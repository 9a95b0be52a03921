// ExternalStorage: spilled objects at URIs (s3://bucket/folder, file:///folder, ...), through helper processes that speak to whatever is there.
//
// A helper (python -m ray._runtime.spill_helper) does one thing after the other, over a socket that is its standard input and output:
//   request   u8 what ('w', 'r', 'd'), u32 length of the URI, u64 offset, u64 size, little endian; the URI; for 'w' the bytes
//   answer    u8 outcome ('k' fine, 'l' lost, 'f' full, 'e' any other failure), u64 size; for 'r' the bytes, for a failure the text
// One writes for each URI, one reads and deletes for all; they start when they are first needed, a helper that ended or made no progress for a while is
// replaced. A file is named <uri>/ray_spilled_objects_<node>_<number>. Stop deletes what is left; after a crash nobody does (unlike in local folders).
// Memory segments come from the local disk. Threads: as LocalDisk. Thread-safe.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ray/object_manager/spill/local_disk.h"
#include "ray/object_manager/spill/spill_storage.h"
#include "ray/object_manager/spill/task_thread.h"
#include "ray/util/clock.h"
#include "ray/util/mutex.h"

namespace ray::object_manager {

struct ExternalStorageConfig {
  std::vector<std::string> uris;                         // at least one, without a slash at the end
  std::string node;                                      // name of the node, hexadecimal
  std::vector<std::string> helper;                       // command line of the helper
  LocalDiskConfig segments;                              // for files that are used as memory
  Duration progress_timeout = std::chrono::seconds(60);  // a helper that moves nothing for so long is killed, and its request fails
  Duration clean_up_timeout = std::chrono::seconds(5);   // for the deletions of Stop
};

class ExternalStorage final : public SpillStorage {
 public:
  explicit ExternalStorage(const ExternalStorageConfig& config);
  ~ExternalStorage() override;

  int num_directories() const override;
  void RemoveLeftovers() override { segments_.RemoveLeftovers(); }
  void Write(int directory, uint64_t file, std::vector<MemoryFile> ranges, Done done) override;
  void Read(int directory, uint64_t file, uint64_t offset, MemoryFile to, Done done) override;
  void Delete(int directory, uint64_t file) override;
  void MakeSegment(uint64_t size, SegmentDone done) override;
  void Stop() override;

 private:
  class Helper;
  std::string UriOf(int directory, uint64_t file) const;
  void DeleteNow(Helper* helper, int directory, uint64_t file);

  const ExternalStorageConfig config_;
  LocalDisk segments_;
  std::vector<std::unique_ptr<Helper>> write_helpers_;  // by URI; used on the thread of the same place
  std::unique_ptr<Helper> read_helper_;
  std::vector<std::unique_ptr<TaskThread>> writers_;
  std::unique_ptr<TaskThread> reader_;
  Mutex mu_;
  std::set<std::pair<int, uint64_t>> files_ GUARDED_BY(mu_);  // written, perhaps in part, and not deleted
  bool stopped_ = false;                                      // Stop only
};

}  // namespace ray::object_manager
