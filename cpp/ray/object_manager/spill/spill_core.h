// SpillCore: which object of a node's store lies in which file on which disk.
//
// Which objects leave the memory, and when, the ObjectTableCore says; here small ones are fused into files, files are spread over the
// directories, a failed write is tried in every other directory and a failed read again, and a file goes with the last of its objects.
// Pure core (docs/contributing/style.md): events and time in, effects out, in order. Owned by the StoreService; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "ray/common/ids.h"
#include "ray/util/clock.h"
#include "ray/util/status.h"

namespace ray::object_manager {

struct SpillConfig {
  int num_directories = 1;
  // A file takes objects until it has so much of either; a larger object has a file of its own. Larger: fewer system calls for small objects,
  // but space comes back later, since a file stays until its last object is freed.
  uint64_t max_file_bytes = uint64_t{100} << 20;
  size_t max_file_objects = 2000;
  int read_attempts = 3;
  // How long a directory that failed is used only where no other is left.
  Duration shun_directory = std::chrono::seconds(30);
};

using FileId = uint64_t;  // never reused

// Where the bytes of an object are in memory, as the shell knows it.
struct MemoryRange {
  uint64_t segment = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
  friend bool operator==(const MemoryRange&, const MemoryRange&) = default;
};

// Effects, to be carried out in order.
struct WriteFile {  // the ranges, one after the other, to a new file; then call OnWritten
  FileId file = 0;
  int directory = 0;
  std::vector<MemoryRange> ranges;
};
struct ReadRange {  // then call OnRead
  uint64_t read = 0;
  FileId file = 0;
  int directory = 0;
  uint64_t offset = 0;  // in the file
  MemoryRange to;
};
struct DeleteFile {
  FileId file = 0;
  int directory = 0;
};
struct Spilled {
  ObjectId id;
  Status status;  // RESOURCE_EXHAUSTED with cause OUT_OF_DISK if no directory had room
};
struct Restored {
  ObjectId id;
  Status status;
};
using SpillEffect = std::variant<WriteFile, ReadRange, DeleteFile, Spilled, Restored>;
using SpillEffects = std::vector<SpillEffect>;

class SpillCore {
 public:
  explicit SpillCore(const SpillConfig& config);

  // The bytes stay where they are until Spilled. REQUIRES: not spilled yet.
  void Spill(const ObjectId& id, uint64_t offset, uint64_t size);
  // Nothing more belongs to this step: what was added is written.
  void Flush(Time now, SpillEffects* out);
  // REQUIRES: spilled.
  void Restore(const ObjectId& id, uint64_t segment, uint64_t offset, SpillEffects* out);
  // REQUIRES: spilled, and no restore under way.
  void Forget(const ObjectId& id, SpillEffects* out);

  void OnWritten(FileId file, const Status& status, Time now, SpillEffects* out);
  void OnRead(uint64_t read, const Status& status, SpillEffects* out);

  size_t num_files() const { return files_.size(); }

 private:
  struct Piece {
    ObjectId id;
    uint64_t offset = 0;  // in the arena
    uint64_t size = 0;
  };
  struct File {
    int directory = 0;
    size_t live = 0;            // objects that still need it
    std::vector<Piece> pieces;  // while it is being written, in their order in the file
    std::vector<bool> tried;    // directories, while it is being written
    Status failure;             // the most telling one so far
  };
  struct Location {
    FileId file = 0;
    uint64_t offset = 0;
    uint64_t size = 0;
  };
  struct Read {
    ObjectId id;
    MemoryRange to;
    int attempts = 0;
  };
  void Write(FileId id, File* file, Time now, SpillEffects* out);

  const SpillConfig config_;
  std::vector<Piece> added_;  // since the last Flush
  FileId last_file_ = 0;
  uint64_t last_read_ = 0;
  int next_directory_ = 0;           // the one whose turn it is
  std::vector<Time> shunned_until_;  // by directory
  std::map<FileId, File> files_;
  std::unordered_map<ObjectId, Location, IdHash> locations_;  // of what is completely written
  std::map<uint64_t, Read> reads_;
};

}  // namespace ray::object_manager
