#include "ray/gcs_server/tables/kv_table_core.h"

#include <charconv>

namespace ray::gcs {

Result<KvTableCore::Key> KvTableCore::ParseStorageKey(std::string_view row) {
  size_t ns_size = 0;
  const auto [end, error] = std::from_chars(row.data(), row.data() + row.size(), ns_size);
  const auto digits = static_cast<size_t>(end - row.data());
  if (error != std::errc() || digits >= row.size() || row[digits] != ':' || row.size() - digits - 1 < ns_size)
    return Status::DataLoss("a stored key of table " + std::string(kTable) + " cannot be read");
  return Key(row.substr(digits + 1, ns_size), row.substr(digits + 1 + ns_size));
}

Status KvTableCore::Restore(const StorageContents& stored) {
  if (const auto rows = stored.find(kTable); rows != stored.end()) {
    for (const auto& [row, value] : rows->second) {
      RAY_ASSIGN_OR_RETURN(Key key, ParseStorageKey(row));
      values_[std::move(key)] = HeapBuffer::CopyOf(value);
    }
  }
  if (const auto rows = stored.find(kJobTable); rows != stored.end()) {
    for (const auto& [row, value] : rows->second) {
      RAY_ASSIGN_OR_RETURN(const JobId job, JobId::FromBinary(row.substr(0, JobId::kSize)));
      RAY_ASSIGN_OR_RETURN(const Key key, ParseStorageKey(std::string_view(row).substr(JobId::kSize)));
      jobs_of_[key].insert(job);
      keys_of_[job].insert(key);
    }
  }
  return Status::Ok();
}

void KvTableCore::Put(const v1::KvPutRequest& request, CallToken call, Effects* out) {
  Key key(request.ns(), request.key());
  auto it = values_.find(key);
  bool added = it == values_.end();
  if (added || request.overwrite()) {
    BufferPtr value = HeapBuffer::CopyOf(request.value());
    out->push_back(Persist{kTable, StorageKey(key), {value}, false});
    values_[key] = std::move(value);
  }
  // One that nobody's job has put stays, whoever puts it again.
  if (const JobId job = JobId::FromBinaryOrNil(request.job_id()); !job.IsNil() && (added || jobs_of_.contains(key))) {
    if (keys_of_[job].insert(key).second) out->push_back(Persist{kJobTable, job.Binary() + StorageKey(key), {}, false});
    jobs_of_[key].insert(job);
  }
  v1::KvPutReply reply;
  reply.set_added(added);
  Reply(call, std::move(reply), out);
}

void KvTableCore::Get(const v1::KvGetRequest& request, CallToken call, Effects* out) const {
  v1::KvGetReply reply;
  if (auto it = values_.find({request.ns(), request.key()}); it != values_.end()) {
    reply.set_found(true);
    reply.set_value(it->second->data(), it->second->size());
  }
  Reply(call, std::move(reply), out);
}

void KvTableCore::Exists(const v1::KvGetRequest& request, CallToken call, Effects* out) const {
  v1::KvExistsReply reply;
  reply.set_exists(values_.contains({request.ns(), request.key()}));
  Reply(call, std::move(reply), out);
}

void KvTableCore::Del(const v1::KvDelRequest& request, CallToken call, Effects* out) {
  std::vector<Key> doomed;
  if (request.by_prefix()) {
    ForPrefix(request.ns(), request.key(), [&](const Key& key) { doomed.push_back(key); });
  } else if (Key key(request.ns(), request.key()); values_.contains(key)) {
    doomed.push_back(std::move(key));
  }
  for (const Key& key : doomed) Erase(key, out);
  v1::KvDelReply reply;
  reply.set_deleted(static_cast<int64_t>(doomed.size()));
  Reply(call, std::move(reply), out);
}

void KvTableCore::Erase(const Key& key, Effects* out) {
  out->push_back(Persist{kTable, StorageKey(key), {}, true});
  values_.erase(key);
  const auto jobs = jobs_of_.extract(key);
  if (jobs.empty()) return;
  for (const JobId& job : jobs.mapped()) {
    out->push_back(Persist{kJobTable, job.Binary() + StorageKey(key), {}, true});
    const auto keys = keys_of_.find(job);
    keys->second.erase(key);
    if (keys->second.empty()) keys_of_.erase(keys);
  }
}

void KvTableCore::JobGone(const JobId& job, Effects* out) {
  const auto keys = keys_of_.extract(job);
  if (keys.empty()) return;
  for (const Key& key : keys.mapped()) {
    out->push_back(Persist{kJobTable, job.Binary() + StorageKey(key), {}, true});
    const auto jobs = jobs_of_.find(key);
    jobs->second.erase(job);
    if (jobs->second.empty()) Erase(key, out);
  }
}

std::vector<JobId> KvTableCore::Jobs() const {
  std::vector<JobId> jobs;
  for (const auto& [job, keys] : keys_of_) jobs.push_back(job);
  return jobs;
}

void KvTableCore::Keys(const v1::KvKeysRequest& request, CallToken call, Effects* out) const {
  v1::KvKeysReply reply;
  ForPrefix(request.ns(), request.prefix(), [&](const Key& key) { reply.add_keys(key.second); });
  Reply(call, std::move(reply), out);
}

}  // namespace ray::gcs
