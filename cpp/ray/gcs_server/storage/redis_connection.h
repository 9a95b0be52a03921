// RedisConnection: commands to a Redis server, one after the other, blocking. TLS by OpenSSL, since the hiredis of Debian 12 has none; of hiredis the
// reader and writer of the protocol are used. One thread at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ray/util/clock.h"
#include "ray/util/status.h"

namespace ray::gcs {

struct RedisServer {
  std::string host;
  int port = 6379;
  bool tls = false;
  std::string username, password;              // empty: not asked for
  std::string ca_cert;                         // files in PEM form; none: the system's authorities
  std::string client_cert, client_key;         // both or none
  std::string server_name;                     // in its certificate; empty: `host`
  Duration timeout = std::chrono::seconds(5);  // to connect, and for each answer

  // "redis://HOST:PORT" or "rediss://HOST:PORT", which is with TLS. The port may be left out. One with a name or a
  // password in it is refused.
  static Result<RedisServer> FromUrl(const std::string& url);
  std::string Address() const { return host + ":" + std::to_string(port); }
};

struct RedisReply {
  bool is_nil = false;
  std::string text;  // of a string, a status or, in decimal, a number
  std::vector<RedisReply> elements;
};

class RedisConnection {
 public:
  // Connects and authenticates. UNAVAILABLE: not reached. UNAUTHENTICATED: the password was refused. FAILED_PRECONDITION: TLS failed.
  static Result<std::unique_ptr<RedisConnection>> Open(const RedisServer& server);
  ~RedisConnection();
  // UNAVAILABLE: try again over another connection; the command may or may not have been done. ABORTED: the server refused it, with its words.
  Result<RedisReply> Run(const std::vector<std::string_view>& command);

 private:
  struct Impl;
  explicit RedisConnection(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ray::gcs
