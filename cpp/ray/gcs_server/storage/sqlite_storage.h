// SqliteStorage: the GCS's tables in a file, through SQLite. What was acknowledged is on disk, whatever ends the process or the machine.
//
// One thread of its own writes: a transaction for all that has queued up, one sync to disk for it (write-ahead log). The file belongs to one
// process at a time. A file that is damaged, in use, of a newer release or no GCS's is refused, and left as it is. A full disk is waited for: what is
// written meanwhile is not acknowledged.
#pragma once

#include <memory>
#include <string>

#include "ray/async/loop.h"
#include "ray/gcs_server/storage/storage.h"

namespace ray::gcs {

struct SqliteOptions {
  std::string path;
  std::string vfs;                                       // of SQLite, for tests; empty: its own
  Duration busy_timeout = std::chrono::seconds(5);       // for a process that has the file and is about to end
  Duration full_retry = std::chrono::milliseconds(500);  // between two attempts while the disk is full
};

class SqliteStorage final : public Storage {
 public:
  // Opens the file, or makes it. The loop must outlive the storage. DATA_LOSS: damaged. UNAVAILABLE: in use. FAILED_PRECONDITION: of a newer release,
  // not a GCS's, or it cannot be opened. Blocks.
  static Result<std::unique_ptr<SqliteStorage>> Open(SqliteOptions options, async::Loop* loop);
  // Writes what was given, then closes; callbacks that are left do not run. What a full disk has no room for is dropped.
  ~SqliteStorage() override;

  Result<StorageContents> Load() override;
  void Write(std::vector<StorageOp> batch, std::function<void(Status)> done) override;
  bool durable() const override { return true; }

 private:
  class Impl;
  explicit SqliteStorage(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ray::gcs
