// RedisStorage: the GCS's tables in a Redis server, as the fields of one hash. How durable that is is the server's matter.
//
// A batch is one script, which Redis runs as a whole. The process that opened the storage last owns it: a write of an earlier one is refused, so two GCSs
// never mix. A server that cannot be reached is waited for.
#pragma once

#include <memory>
#include <string>

#include "ray/async/loop.h"
#include "ray/gcs_server/storage/redis_connection.h"
#include "ray/gcs_server/storage/storage.h"

namespace ray::gcs {

struct RedisOptions {
  RedisServer server;
  std::string name_space = "default";                     // several clusters may share a server
  Duration open_timeout = std::chrono::seconds(20);       // for the server to answer at the start
  Duration reconnect_timeout = std::chrono::seconds(60);  // for it to be there again
  Duration retry = std::chrono::milliseconds(100);
};

class RedisStorage final : public Storage {
 public:
  // The loop must outlive the storage. FAILED_PRECONDITION: tables of a newer release, which are left as they are. DATA_LOSS: rows without a schema
  // version. Blocks.
  static Result<std::unique_ptr<RedisStorage>> Open(RedisOptions options, async::Loop* loop);
  // Writes what was given, then closes; callbacks that are left do not run.
  ~RedisStorage() override;

  Result<StorageContents> Load() override;
  void Write(std::vector<StorageOp> batch, std::function<void(Status)> done) override;
  bool durable() const override { return true; }

 private:
  class Impl;
  explicit RedisStorage(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ray::gcs
