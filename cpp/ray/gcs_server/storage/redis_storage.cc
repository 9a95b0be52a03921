#include "ray/gcs_server/storage/redis_storage.h"

#include <cstdlib>
#include <thread>
#include <utility>

#include "ray/common/ids.h"
#include "ray/gcs_server/storage/write_thread.h"
#include "ray/util/logging.h"

namespace ray::gcs {
namespace {

constexpr int64_t kSchemaVersion = 1;  // grows with each change that older releases would misread
constexpr std::string_view kFenced = "FENCED";

// KEYS: meta, rows. ARGV: the owner, then for each row its field and "=" + value, or "-" to erase it.
constexpr std::string_view kWriteScript = R"(
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return redis.error_reply('FENCED') end
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '-' then redis.call('HDEL', KEYS[2], ARGV[i])
  else redis.call('HSET', KEYS[2], ARGV[i], string.sub(ARGV[i + 1], 2)) end
end
return 'OK')";

}  // namespace

class RedisStorage::Impl {
 public:
  Impl(RedisOptions options, async::Loop* loop)
      : options_(std::move(options)),
        meta_("raycore:" + options_.name_space + ":meta"),
        rows_("raycore:" + options_.name_space + ":rows"),
        clock_(&loop->clock()),
        thread_(loop, [this](const WriteThread::Batches& batches) { return Commit(batches); }) {}

  Status Open() {
    const Time deadline = clock_->Now() + options_.open_timeout;
    for (;;) {
      const Status status = Connect();
      if (status.ok()) break;
      if (status.code() != StatusCode::kUnavailable || clock_->Now() >= deadline) return status;
      std::this_thread::sleep_for(options_.retry);  // nothing else is to be done before there is a storage
    }
    const std::string where = " at the Redis server " + options_.server.Address() + " (namespace " + options_.name_space + ")";
    RAY_ASSIGN_OR_RETURN(const RedisReply version, connection_->Run({"HGET", meta_, "schema_version"}));
    if (version.is_nil) {
      RAY_ASSIGN_OR_RETURN(const RedisReply exists, connection_->Run({"EXISTS", rows_}));
      if (!exists.text.starts_with('0'))
        return Status::DataLoss("the GCS's tables" + where + " have no schema version; they were left as they are");
      RAY_RETURN_NOT_OK(connection_->Run({"HSET", meta_, "schema_version", std::to_string(kSchemaVersion)}).status());
    } else if (std::strtoll(version.text.c_str(), nullptr, 10) > kSchemaVersion) {
      return Status::FailedPrecondition("the GCS's tables" + where + " have schema version " + version.text +
                                        " of a newer release; this one knows versions up to " + std::to_string(kSchemaVersion) +
                                        ". They were left as they are");
    }
    return connection_->Run({"HSET", meta_, "owner", owner_}).status();
  }

  Result<StorageContents> Load() {
    RAY_ASSIGN_OR_RETURN(const RedisReply all, connection_->Run({"HGETALL", rows_}));
    StorageContents contents;
    for (size_t i = 0; i + 1 < all.elements.size(); i += 2) {
      const std::string& field = all.elements[i].text;
      const size_t end = field.find('\0');
      if (end == std::string::npos) return Status::DataLoss("a field of " + rows_ + " is no row of a GCS");
      contents[field.substr(0, end)][field.substr(end + 1)] = all.elements[i + 1].text;
    }
    return contents;
  }

  void Write(std::vector<StorageOp> batch, std::function<void(Status)> done) { thread_.Write(std::move(batch), std::move(done)); }

 private:
  Status Connect() {
    RAY_ASSIGN_OR_RETURN(connection_, RedisConnection::Open(options_.server));
    return {};
  }

  // A batch that was done although its answer was lost is done again: that changes nothing, since nobody else writes.
  Status Commit(const WriteThread::Batches& batches) {
    std::vector<std::string> words;
    for (const auto& batch : batches) {
      for (const StorageOp& op : batch) {
        words.push_back(op.table + '\0' + op.key);
        std::string& value = words.emplace_back(op.erase ? "-" : "=");
        for (const BufferPtr& piece : op.value) value += piece->view();
      }
    }
    std::vector<std::string_view> command{"EVAL", kWriteScript, "2", meta_, rows_, owner_};
    command.insert(command.end(), words.begin(), words.end());
    const Time deadline = clock_->Now() + options_.reconnect_timeout;
    for (bool told = false;;) {
      Status status = connection_ == nullptr ? Connect() : Status::Ok();
      if (status.ok()) status = connection_->Run(command).status();
      if (status.code() == StatusCode::kAborted && status.message().find(kFenced) != std::string::npos)
        return Status::FailedPrecondition("another GCS has taken over the tables in Redis; this one must end");
      if (status.code() != StatusCode::kUnavailable) return status;
      connection_ = nullptr;
      if (!told) RAY_LOG(ERROR) << status.message() << ": requests that change something wait for it";
      told = true;
      if (clock_->Now() >= deadline || !thread_.Sleep(options_.retry)) return status;
    }
  }

  const RedisOptions options_;
  const std::string meta_, rows_;
  const std::string owner_ = LeaseId::FromRandom().Hex();
  const Clock* const clock_;
  std::unique_ptr<RedisConnection> connection_;  // of the opening thread until the writing one starts, then of that one; null: lost
  WriteThread thread_;
};

RedisStorage::RedisStorage(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RedisStorage::~RedisStorage() = default;

Result<std::unique_ptr<RedisStorage>> RedisStorage::Open(RedisOptions options, async::Loop* loop) {
  auto impl = std::make_unique<Impl>(std::move(options), loop);
  RAY_RETURN_NOT_OK(impl->Open());
  return std::unique_ptr<RedisStorage>(new RedisStorage(std::move(impl)));
}

Result<StorageContents> RedisStorage::Load() { return impl_->Load(); }

void RedisStorage::Write(std::vector<StorageOp> batch, std::function<void(Status)> done) {
  impl_->Write(std::move(batch), std::move(done));
}

}  // namespace ray::gcs
