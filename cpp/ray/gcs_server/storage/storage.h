// Storage: where the GCS keeps what must outlive it. Batched and asynchronous, so that a database with group commit fits.
// Used on the loop: by GcsServer, which loads it once, and by the effect runner, which writes. Callbacks come on the loop, and may come before Write
// returns.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "ray/common/buffer.h"
#include "ray/util/status.h"

namespace ray::gcs {

struct StorageOp {
  std::string table;
  std::string key;
  PartList value;      // pieces of the value, to be stored one after the other
  bool erase = false;  // then without a value
};

using StorageTable = std::map<std::string, std::string>;      // key -> value
using StorageContents = std::map<std::string, StorageTable>;  // table -> its rows

class Storage {
 public:
  virtual ~Storage() = default;
  // All rows of all tables. Before the first Write; blocks.
  virtual Result<StorageContents> Load() = 0;
  // Applies the batch in order and as a whole. `done` with OK: it is durable, as far as this storage goes. Batches take effect in the
  // order of the calls. After a failure what is stored is behind what was decided: the process must end.
  virtual void Write(std::vector<StorageOp> batch, std::function<void(Status)> done) = 0;
  // Whether what is written outlives the process.
  virtual bool durable() const = 0;
};

// Lives as long as the process; values are shared with the tables, not copied.
class MemoryStorage final : public Storage {
 public:
  Result<StorageContents> Load() override;
  void Write(std::vector<StorageOp> batch, std::function<void(Status)> done) override;
  bool durable() const override { return false; }

 private:
  std::map<std::string, std::map<std::string, PartList>> tables_;
};

}  // namespace ray::gcs
