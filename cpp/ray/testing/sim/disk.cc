#include "ray/testing/sim/disk.h"

#include <memory>
#include <string>

namespace ray::sim {

void SimDisk::Apply(const std::vector<gcs::StorageOp>& batch) {
  for (const gcs::StorageOp& op : batch) {
    if (op.erase) {
      const auto table = contents_.find(op.table);
      if (table != contents_.end()) table->second.erase(op.key);
      continue;
    }
    std::string& value = contents_[op.table][op.key];
    value.clear();
    for (const BufferPtr& piece : op.value) value += piece->view();
  }
  ++writes_;
}

void SimStorage::Write(std::vector<gcs::StorageOp> batch, std::function<void(Status)> done) {
  queue_.push_back({std::move(batch), std::move(done)});
  Begin();
}

void SimStorage::Begin() {
  if (writing_ != 0 || queue_.empty() || failed_) return;
  World* world = process_->world();
  const Duration took = world->random().Between(disk_->config_.min_write, disk_->config_.max_write) + disk_->extra_;
  writing_ = world->After(took, [this, world] {
    writing_ = 0;
    const auto batch = std::make_shared<Batch>(std::move(queue_.front()));
    queue_.pop_front();
    Status status;
    if (std::exchange(disk_->fail_next_, false)) {
      failed_ = true;
      status = Status::Internal("the disk failed");
      world->Record("write fails");
    } else {
      disk_->Apply(batch->ops);
      world->Record("write", {}, batch->ops.size());
    }
    process_->loop()->Post("written", [batch, status] { batch->done(status); });
    Begin();
  });
}

SimStorage::~SimStorage() {
  World* world = process_->world();
  if (writing_ != 0) world->Cancel(writing_);
  while (!queue_.empty() && !failed_ && world->random().Chance(0.5)) {
    disk_->Apply(queue_.front().ops);
    queue_.pop_front();
  }
}

}  // namespace ray::sim
