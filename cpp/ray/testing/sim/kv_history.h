// KvHistory: what clients asked of the cluster's key-value table and what they were told, and whether that can be: for each key there must be one order of the
// operations, each between its call and its reply, in which every reply is what a single table would have said (linearizability). Operations that
// were never answered may have been done at any later time, or not at all.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ray/util/clock.h"

namespace ray::sim {

struct KvOperation {
  enum class Kind { kPut, kPutIfAbsent, kDelete, kGet };
  Kind kind = Kind::kGet;
  std::string value;                         // written; kGet: read, where `truth`
  bool truth = false;                        // kPut*: the key was new; kDelete: there was one; kGet: found
  Time called, returned = Time::Infinite();  // infinite: never answered
};

class KvHistory {
 public:
  static constexpr size_t kMaxPerKey = 60;
  // The operation begins; `Returned` ends it. Nullopt: the key has had as many as can be checked.
  std::optional<size_t> Called(const std::string& key, KvOperation operation);
  void Returned(const std::string& key, size_t index, bool truth, const std::string& value, Time now);
  // Empty: all is well; else a key, its operations and why they cannot be.
  std::string Check() const;
  size_t num_operations() const;
  size_t num_answered() const;

 private:
  std::map<std::string, std::vector<KvOperation>> by_key_;
};

// Whether one key's operations, which began with the key absent, can be put in such an order. REQUIRES: at most 64; no value is written twice.
bool IsLinearizable(const std::vector<KvOperation>& operations);

}  // namespace ray::sim
