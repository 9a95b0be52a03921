#include "ray/raylet/router/gcs_calls.h"

#include <utility>
#include <vector>

namespace ray::raylet {

void GcsCalls::SetLink(rpc::ConnectionPtr link) {
  link_ = std::move(link);
  failed_.reset();
  std::vector<uint64_t> numbers;
  for (const auto& [number, call] : pending_) numbers.push_back(number);
  for (const uint64_t number : numbers) Send(number);
}

void GcsCalls::Fail(const Status& reason) {
  link_ = nullptr;
  failed_ = reason;
  bytes_ = 0;
  for (auto& [number, call] : std::exchange(pending_, {})) {
    if (call.callback != nullptr) call.callback(reason, {});
  }
}

void GcsCalls::Call(MethodId method, std::string control, PartList parts, rpc::ReplyCallback callback) {
  Status refused = failed_.value_or(Status::Ok());
  size_t bytes = control.size();
  for (const BufferPtr& part : parts) bytes += part->size();
  if (refused.ok() && link_ == nullptr && bytes_ + bytes > max_waiting_bytes_) {
    refused = Status::ResourceExhausted("the GCS does not answer, and " + std::to_string(bytes_ >> 20) +
                                        " MiB of requests of this node wait for it already");
  }
  if (!refused.ok()) {
    if (callback != nullptr) callback(refused, {});
    return;
  }
  const uint64_t number = ++last_;
  bytes_ += bytes;
  pending_.emplace(number, Pending{method, std::move(control), std::move(parts), std::move(callback), bytes});
  if (link_ != nullptr) Send(number);
}

void GcsCalls::Send(uint64_t number) {
  const auto it = pending_.find(number);
  if (it == pending_.end()) return;
  Pending& call = it->second;
  const uint32_t time = ++call.sent;
  link_->CallRaw(call.method, call.control, call.parts,
                 // Weak: the link holds this.
                 [this, number, time, weak = std::weak_ptr(link_), alive = alive_](Status status, rpc::Reply reply) {
                   if (!*alive) return;
                   const auto pending = pending_.find(number);
                   if (pending == pending_.end() || pending->second.sent != time) return;
                   // The link took it along: nobody knows whether it was done. It waits for the next one.
                   const rpc::ConnectionPtr link = weak.lock();
                   if (!status.ok() && (link == nullptr || link->closed())) return;
                   Finish(number, std::move(status), std::move(reply));
                 });
}

void GcsCalls::Finish(uint64_t number, Status status, rpc::Reply reply) {
  const auto it = pending_.find(number);
  const rpc::ReplyCallback callback = std::move(it->second.callback);
  bytes_ -= it->second.bytes;
  pending_.erase(it);
  if (callback != nullptr) callback(std::move(status), std::move(reply));
}

}  // namespace ray::raylet
