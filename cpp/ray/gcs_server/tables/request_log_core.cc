#include "ray/gcs_server/tables/request_log_core.h"

namespace ray::gcs {

void RequestLogCore::Restore(const StorageContents& stored) {
  const auto rows = stored.find(kTable);
  if (rows == stored.end()) return;
  for (const auto& [id, reply] : rows->second) {
    replies_[id] = reply;
    order_.push_back(id);
  }
}

const std::string* RequestLogCore::Find(const std::string& id) const {
  const auto it = replies_.find(id);
  return it == replies_.end() ? nullptr : &it->second;
}

void RequestLogCore::Done(const std::string& id, CallToken call, Effects* effects) {
  std::string reply;
  for (const Effect& effect : *effects) {
    const auto* answer = std::get_if<Answer>(&effect);
    if (answer == nullptr || answer->call != call) continue;
    if (!answer->status.ok()) return;
    reply = answer->reply->SerializeAsString();
  }
  effects->push_back(Persist{kTable, id, {HeapBuffer::CopyOf(reply)}, false});
  if (replies_.emplace(id, std::move(reply)).second) order_.push_back(id);
  if (order_.size() <= max_remembered_) return;
  effects->push_back(Persist{kTable, order_.front(), {}, true});
  replies_.erase(order_.front());
  order_.pop_front();
}

}  // namespace ray::gcs
