#include "ray/raylet/router/function_cache.h"

namespace ray::raylet {

const std::string* FunctionCache::Find(const std::string& key) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, it->second);
  return &it->second->reply;
}

void FunctionCache::Put(const std::string& key, std::string reply) {
  if (reply.size() > config_.max_value_bytes || by_key_.contains(key)) return;
  bytes_ += reply.size();
  entries_.push_front({key, std::move(reply)});
  by_key_.emplace(key, entries_.begin());
  while (bytes_ > config_.max_bytes) {
    bytes_ -= entries_.back().reply.size();
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
}

}  // namespace ray::raylet
