// TcpCarrier: links between nodes as frames straight on TCP connections.
//
// A connection is read and written by the loop itself, as a Unix socket is: a frame crosses no other thread, and costs a fifth of the processor time that it costs in a gRPC
// stream. It shares its port with gRPC: a connection that does not begin as a link (link_preface.h) is passed on, untouched. Nothing is served before the token was
// checked. Where TLS is configured, links are encrypted (tls_stream.h): others are closed at once, and what is passed on had better begin with a handshake.
//
// Silence is asked for a sign of life as on gRPC's connections, here by TCP itself: a cut cable shows, after kKeepAlive + kKeepAliveTimeout. A connection that cannot be
// made, since the cable is cut now, is nothing that has broken: what is sent on it waits for the next attempt (dial.h).
// On the loop, but for Connect. Owned by the composition root; Stop before the LocalCarrier's Shutdown.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "ray/async/loop.h"
#include "ray/rpc/core/dial.h"
#include "ray/rpc/grpc/security.h"
#include "ray/rpc/local/local_carrier.h"

namespace ray::rpc {

struct TcpCarrierOptions {
  Duration preface_timeout = std::chrono::seconds(5);  // a peer that has not shown its token by then is dropped
  size_t max_strangers = 256;                          // connections that have not shown it yet; beyond, the oldest goes
  Duration dial_timeout = std::chrono::seconds(2);     // of one attempt to reach a host that says nothing: enough for TCP to try twice
  Duration refusals_every =
      std::chrono::seconds(10);  // whoever reaches the port can be refused: the log has a line for it, and then one in so long
};

class TcpCarrier {
 public:
  struct Deps {
    async::EpollLoop* loop;
    LocalCarrier* carrier;  // serves the connections
    // Serves those for the chunks of objects; called when there is one. Its sockets may be read elsewhere, but its handlers run on `loop`.
    std::function<LocalCarrier*()> bulk;
    std::shared_ptr<Security> security;
    // Owns a connection of something else, of which nothing has been read.
    std::function<void(int fd)> other;
  };
  explicit TcpCarrier(Deps deps, TcpCarrierOptions options = {});
  ~TcpCarrier();  // stops

  // Whether Connect can: addresses in numbers, since looking a name up may block.
  static bool CanConnect(const std::string& target);
  // A link to "host:port", usable at once; as GrpcClient::Connect. Without `on_failed` it ends with the first attempt that fails, with it only by what no further
  // attempt would mend: a target that is none, certificates that cannot be used, a refusal by the peer.
  ConnectionPtr Connect(const std::string& target, bool bulk = false, DialFailed on_failed = nullptr);
  // Listens when it returns; the address with its port filled in. Any thread. INVALID_ARGUMENT for an address that Security::CheckListener refuses.
  Result<std::string> Listen(const std::string& address);
  // Takes no more connections, and makes none. Those that are links go on. Idempotent.
  void Stop();

 private:
  struct Impl;
  const std::shared_ptr<Impl> impl_;
};

}  // namespace ray::rpc
