#include "ray/rpc/pubsub/publisher_core.h"

namespace ray::rpc {

bool PublisherCore::Subscribe(uint64_t subscriber, int channel, const std::string& key) {
  Topic topic(channel, key);
  topics_of_[subscriber].insert(topic);
  return subscribers_[topic].insert(subscriber).second;
}

void PublisherCore::Unsubscribe(uint64_t subscriber, int channel, const std::string& key) {
  Topic topic(channel, key);
  if (auto it = subscribers_.find(topic); it != subscribers_.end()) {
    it->second.erase(subscriber);
    if (it->second.empty()) subscribers_.erase(it);
  }
  if (auto it = topics_of_.find(subscriber); it != topics_of_.end()) {
    it->second.erase(topic);
    if (it->second.empty()) topics_of_.erase(it);
  }
}

void PublisherCore::Drop(uint64_t subscriber) {
  auto topics = topics_of_.extract(subscriber);
  if (topics.empty()) return;
  for (const Topic& topic : topics.mapped()) {
    auto it = subscribers_.find(topic);
    it->second.erase(subscriber);
    if (it->second.empty()) subscribers_.erase(it);
  }
}

std::vector<uint64_t> PublisherCore::Subscribers(int channel, const std::string& key) const {
  auto it = subscribers_.find({channel, key});
  if (it == subscribers_.end()) return {};
  return {it->second.begin(), it->second.end()};
}

}  // namespace ray::rpc
