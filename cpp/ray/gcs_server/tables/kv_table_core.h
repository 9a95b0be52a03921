// KvTableCore: the internal key-value table: functions, classes, settings. Pure; part of GcsState; on the loop.
// Values are shared with whoever reads and stores them, never copied.
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "ray/common/ids.h"
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
  // Nothing of that job will ask again: keys go that no other job has put.
  void JobGone(const JobId& job, Effects* out);
  // Those that keys belong to.
  std::vector<JobId> Jobs() const;

 private:
  using Key = std::pair<std::string, std::string>;  // namespace, key
  static constexpr char kTable[] = "kv";
  static constexpr char kJobTable[] = "kv_job";  // a row for each key and job that has put it: the job's id, then the key as in kTable
  static std::string StorageKey(const Key& key) { return std::to_string(key.first.size()) + ":" + key.first + key.second; }
  // Those of a namespace whose key begins with `prefix`.
  template <typename F>
  void ForPrefix(const std::string& ns, const std::string& prefix, F visit) const {
    for (auto it = values_.lower_bound({ns, prefix}); it != values_.end() && it->first.first == ns && it->first.second.starts_with(prefix);
         ++it) {
      visit(it->first);
    }
  }

  static Result<Key> ParseStorageKey(std::string_view row);
  void Erase(const Key& key, Effects* out);

  std::map<Key, BufferPtr> values_;
  std::map<Key, std::set<JobId>> jobs_of_;  // of keys that belong to jobs
  std::map<JobId, std::set<Key>> keys_of_;  // the same, by job
};

}  // namespace ray::gcs
