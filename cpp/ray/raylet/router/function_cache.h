// FunctionCache: definitions of functions and classes that this node's workers have fetched, so that the next worker is answered here.
//
// They are the values of the key-value namespace "fun", whose keys are hashes of the values: what is stored under a key never changes, so
// a copy is never stale. The least recently used go first when the cache is full. On the loop; owned by Router.
#pragma once

#include <cstddef>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

namespace ray::raylet {

struct FunctionCacheConfig {
  size_t max_bytes = 64 << 20;       // of all values
  size_t max_value_bytes = 8 << 20;  // a larger one is not kept
};

class FunctionCache {
 public:
  static constexpr std::string_view kNamespace = "fun";

  explicit FunctionCache(FunctionCacheConfig config = {}) : config_(config) {}
  // The encoded KvGetReply for `key`, valid until the next Put; null where it is not known.
  const std::string* Find(const std::string& key);
  void Put(const std::string& key, std::string reply);
  size_t bytes() const { return bytes_; }

 private:
  struct Entry {
    std::string key, reply;
  };
  const FunctionCacheConfig config_;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
  size_t bytes_ = 0;
};

}  // namespace ray::raylet
