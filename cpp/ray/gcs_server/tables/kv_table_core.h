// KvTableCore: the internal key-value table: functions, classes, settings. Pure; owned by KvService; on the loop.
// Values are shared with whoever reads and stores them, never copied.
#pragma once

#include <map>
#include <utility>

#include "ray/gcs_server/tables/effects.h"
#include "ray/v1/gcs_kv.pb.h"

namespace ray::gcs {

class KvTableCore {
 public:
  // What an earlier process stored. On an empty table.
  Status Restore(const StorageContents& stored);
  void Put(const v1::KvPutRequest& request, CallToken call, Effects* out);
  void Get(const v1::KvGetRequest& request, CallToken call, Effects* out) const;
  void Exists(const v1::KvGetRequest& request, CallToken call, Effects* out) const;
  void Del(const v1::KvDelRequest& request, CallToken call, Effects* out);
  void Keys(const v1::KvKeysRequest& request, CallToken call, Effects* out) const;

 private:
  using Key = std::pair<std::string, std::string>;  // namespace, key
  static constexpr char kTable[] = "kv";
  static std::string StorageKey(const Key& key) { return std::to_string(key.first.size()) + ":" + key.first + key.second; }
  // Those of a namespace whose key begins with `prefix`.
  template <typename F>
  void ForPrefix(const std::string& ns, const std::string& prefix, F visit) const {
    for (auto it = values_.lower_bound({ns, prefix}); it != values_.end() && it->first.first == ns && it->first.second.starts_with(prefix);
         ++it) {
      visit(it->first);
    }
  }

  std::map<Key, BufferPtr> values_;
};

}  // namespace ray::gcs
