#include "ray/gcs_server/storage/storage.h"

namespace ray::gcs {

void MemoryStorage::Write(std::vector<StorageOp> batch, std::function<void(Status)> done) {
  for (StorageOp& op : batch) {
    if (op.erase) {
      tables_[op.table].erase(op.key);
    } else {
      tables_[op.table][op.key] = std::move(op.value);
    }
  }
  done({});
}

void MemoryStorage::Load(const std::string& table, std::function<void(Result<std::map<std::string, std::string>>)> done) {
  std::map<std::string, std::string> rows;
  for (const auto& [key, pieces] : tables_[table]) {
    std::string& value = rows[key];
    for (const BufferPtr& piece : pieces) value += piece->view();
  }
  done(std::move(rows));
}

}  // namespace ray::gcs
