// Security: who may speak to this process over TCP, and how it proves itself to others. One per process, shared by its server and its client.
//
// Every call on a TCP connection, unary or stream, carries the cluster's token as the metadata "authorization: Bearer <token>". Unix sockets need none: they
// lie in a folder that only their user can enter. The token's file is looked at again at most once a second, when it is used; after a
// change the token before stays good for a while, so that the nodes of a cluster need not change over at the same instant; with a state file also over a restart of this
// process, and if the change was made meanwhile. Streams that are open stay open.
// Thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "ray/util/clock.h"
#include "ray/util/mutex.h"
#include "ray/util/status.h"

namespace ray::rpc {

struct SecurityConfig {
  std::string token_file;                          // one line, readable by its owner alone; empty: no token
  bool disabled = false;                           // no token is asked for; for listeners on loopback addresses only
  Duration token_grace = std::chrono::minutes(1);  // how long the token before the last change stays good
  std::string state_file;                          // where this process notes both, for the next one in its place; empty: nowhere
  std::string tls_cert, tls_key, tls_ca;  // PEM files: certificate, its key, the cluster's authority; none or all: mutual TLS on TCP
};

// Which tokens are good when. Pure.
class TokenCore {
 public:
  explicit TokenCore(Duration grace) : grace_(grace) {}
  void Set(std::string token, Time now);
  // What an earlier process knew. REQUIRES: nothing was set yet.
  void Restore(std::string current, std::string previous, Time previous_until);
  bool Accepts(std::string_view token, Time now) const;
  const std::string& current() const { return current_; }
  const std::string& previous() const { return previous_; }  // empty: there was none
  Time previous_until() const { return previous_until_; }

 private:
  const Duration grace_;
  std::string current_, previous_;
  Time previous_until_{INT64_MIN};
};

class Security {
 public:
  // INVALID_ARGUMENT or PERMISSION_DENIED: the token file is missing, open to others, or holds no token. `clock` must outlive it.
  static Result<std::shared_ptr<Security>> Make(SecurityConfig config, const Clock* clock);

  // Whether a listener may be opened there: any Unix socket; TCP with a token; TCP without one on loopback if that was asked for.
  Status CheckListener(const std::string& address) const;
  const SecurityConfig& config() const { return config_; }
  bool has_tls() const { return !config_.tls_cert.empty(); }
  // What to present to a TCP peer; empty: nothing.
  std::string Token();
  // The value of the metadata "authorization" of a call that came over TCP; nullopt: it had none. UNAUTHENTICATED says what to set.
  Status Check(std::optional<std::string_view> authorization);

 private:
  Security(SecurityConfig config, const Clock* clock) : config_(std::move(config)), clock_(clock), tokens_(config_.token_grace) {}
  // Takes the file's token over if the file has changed since. `even_so`: also if it was looked at a moment ago.
  void RefreshLocked(bool even_so) REQUIRES(mu_);
  // A state that cannot be read or written costs the grace over a restart, no more.
  void LoadStateLocked() REQUIRES(mu_);
  void SaveStateLocked() REQUIRES(mu_);

  const SecurityConfig config_;
  const Clock* const clock_;
  Mutex mu_;
  TokenCore tokens_ GUARDED_BY(mu_);
  std::string stamp_ GUARDED_BY(mu_);  // of the file as it was read last
  Time looked_at_ GUARDED_BY(mu_);
};

// Takes a time that depends on the length of `b` only.
bool ConstantTimeEquals(std::string_view a, std::string_view b);

}  // namespace ray::rpc
