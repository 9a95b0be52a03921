// PublisherCore: who wants to hear of what. Pure state; owned by whoever publishes, and as confined as it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace ray::rpc {

class PublisherCore {
 public:
  // `subscriber` is any number that names a peer for life, such as a connection id. An empty key is a key like any other. Idempotent.
  // True if it is new.
  bool Subscribe(uint64_t subscriber, int channel, const std::string& key);
  void Unsubscribe(uint64_t subscriber, int channel, const std::string& key);
  // The peer has gone.
  void Drop(uint64_t subscriber);
  // In rising order.
  std::vector<uint64_t> Subscribers(int channel, const std::string& key) const;
  size_t num_subscribers() const { return topics_of_.size(); }

 private:
  using Topic = std::pair<int, std::string>;
  std::map<Topic, std::set<uint64_t>> subscribers_;  // no empty sets
  std::map<uint64_t, std::set<Topic>> topics_of_;    // the reverse
};

}  // namespace ray::rpc
