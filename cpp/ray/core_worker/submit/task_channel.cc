#include "ray/core_worker/submit/task_channel.h"

#include "ray/v1/worker_task.pb.h"

namespace ray::core {

void TaskChannel::Push(const TaskSpec& spec, const Instances* instances, rpc::ReplyCallback callback) {
  // Reused: a message's strings and lists keep their memory when cleared.
  static thread_local v1::PushTaskRequest request;
  static thread_local PartList parts;
  rpc::CallOptions options;
  options.corked = in_flight_.fetch_add(1, std::memory_order_relaxed) >= kUncorked;
  request.clear_instances();
  if (instances != nullptr) {
    for (const auto& instance : *instances) *request.add_instances() = instance;
  }
  {
    MutexLock lock(&mu_);
    if (numbers_ != nullptr) request.set_push(numbers_->fetch_add(1, std::memory_order_relaxed) + 1);
    sender_.Encode(spec, request.mutable_spec(), &parts);
    connection_->Call(MethodId::kPushTask, request, parts, std::move(callback), options);
  }
  parts.clear();
}

}  // namespace ray::core
