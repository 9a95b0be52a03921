// Storage: where the GCS keeps what must outlive it. Asynchronous and batched, so that a database with group commit fits.
// Used by the effect runner alone, on the loop; callbacks come on the loop, and may come before Write returns.
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

class Storage {
 public:
  virtual ~Storage() = default;
  // Applies the batch in order and as a whole. `done` with OK: it is durable, as far as this storage goes. Batches take effect in the
  // order of the calls.
  virtual void Write(std::vector<StorageOp> batch, std::function<void(Status)> done) = 0;
  // All of a table.
  virtual void Load(const std::string& table, std::function<void(Result<std::map<std::string, std::string>>)> done) = 0;
};

// Lives as long as the process; values are shared with the tables, not copied.
class MemoryStorage final : public Storage {
 public:
  void Write(std::vector<StorageOp> batch, std::function<void(Status)> done) override;
  void Load(const std::string& table, std::function<void(Result<std::map<std::string, std::string>>)> done) override;

 private:
  std::map<std::string, std::map<std::string, PartList>> tables_;
};

}  // namespace ray::gcs
