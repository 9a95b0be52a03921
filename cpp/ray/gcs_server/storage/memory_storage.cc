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

Result<StorageContents> MemoryStorage::Load() {
  StorageContents contents;
  for (const auto& [table, rows] : tables_) {
    for (const auto& [key, pieces] : rows) {
      std::string& value = contents[table][key];
      for (const BufferPtr& piece : pieces) value += piece->view();
    }
  }
  return contents;
}

}  // namespace ray::gcs
