// TaskChannel: one connection as tasks are pushed over it: interning of templates and the decision when a frame may wait for others.
//
// A single call leaves at once; while several are unanswered, frames gather in the connection's buffer, which leaves when it is full, when the
// calling thread waits, or within a millisecond. Thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "ray/common/address.h"
#include "ray/core_worker/tasks/task_history.h"
#include "ray/rpc/core/connection.h"
#include "ray/util/mutex.h"
#include "ray/v1/raylet_lease.pb.h"
#include "ray/wire/task_spec.h"

namespace ray::core {

using Instances = std::vector<v1::AssignedInstances>;

class TaskChannel {
 public:
  // `numbers`: from which pushes get the number by which the receiver knows a repeat; several channels may share the connection. Null: nothing is sent again.
  TaskChannel(rpc::ConnectionPtr connection, const TaskWorker& worker, std::atomic<uint64_t>* numbers)
      : connection_(std::move(connection)), worker_(worker), numbers_(numbers) {}

  // `callback` runs on the loop, never before the return. It must call OnAnswer.
  void Push(const TaskSpec& spec, const Instances* instances, rpc::ReplyCallback callback);
  void OnAnswer() { in_flight_.fetch_sub(1, std::memory_order_relaxed); }
  const rpc::ConnectionPtr& connection() const { return connection_; }
  const Address& peer() const { return worker_.address; }
  const TaskWorker& worker() const { return worker_; }

 private:
  static constexpr int32_t kUncorked = 4;  // unanswered calls up to which a frame leaves at once
  const rpc::ConnectionPtr connection_;
  const TaskWorker worker_;
  std::atomic<uint64_t>* const numbers_;
  std::atomic<int32_t> in_flight_{0};
  Mutex mu_;  // held over encoding and sending: a template's definition leaves before its uses
  TemplateSender sender_ GUARDED_BY(mu_);
};

}  // namespace ray::core
