#include "ray/gcs_server/tables/kv_table_core.h"

#include <charconv>

namespace ray::gcs {

Status KvTableCore::Restore(const StorageContents& stored) {
  const auto rows = stored.find(kTable);
  if (rows == stored.end()) return Status::Ok();
  for (const auto& [row, value] : rows->second) {
    size_t ns_size = 0;
    const auto [end, error] = std::from_chars(row.data(), row.data() + row.size(), ns_size);
    const auto digits = static_cast<size_t>(end - row.data());
    if (error != std::errc() || digits >= row.size() || row[digits] != ':' || row.size() - digits - 1 < ns_size)
      return Status::DataLoss("a stored key of table " + std::string(kTable) + " cannot be read");
    values_[{row.substr(digits + 1, ns_size), row.substr(digits + 1 + ns_size)}] = HeapBuffer::CopyOf(value);
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
  for (const Key& key : doomed) {
    out->push_back(Persist{kTable, StorageKey(key), {}, true});
    values_.erase(key);
  }
  v1::KvDelReply reply;
  reply.set_deleted(static_cast<int64_t>(doomed.size()));
  Reply(call, std::move(reply), out);
}

void KvTableCore::Keys(const v1::KvKeysRequest& request, CallToken call, Effects* out) const {
  v1::KvKeysReply reply;
  ForPrefix(request.ns(), request.prefix(), [&](const Key& key) { reply.add_keys(key.second); });
  Reply(call, std::move(reply), out);
}

}  // namespace ray::gcs
