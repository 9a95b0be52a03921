// LocalCarrier: connections over Unix stream sockets, between processes of one user on one machine.
//
// All sockets lie in one private directory; a peer of another user (but root) is turned away. Sends go straight from the calling thread to the socket;
// what it does not take, and what is sent on the loop or corked, waits in the connection's buffer and leaves in one write. Bytes are read on the loop,
// where handlers and callbacks run (see LocalCarrierOptions::handlers for another way). One carrier serves all connections of a process on one loop.
//
// Thread-safe. Owned by the process's main object; Shutdown (or the destructor) before the loop stops, so that close callbacks run.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "ray/async/loop.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/rpc/local/stream_filter.h"

namespace ray::rpc {

class FaultInjector;  // faulty_connection.h

struct LocalCarrierOptions {
  std::string sockets_dir;                       // made with mode 0700 if missing; refused if others may enter it
  size_t max_frame_bytes = size_t{1} << 30;      // larger messages are not sent, and end the connection that brings them
  size_t socket_buffer_bytes = size_t{1} << 20;  // asked of the kernel; less is fine
  int backlog = 4096;                            // connections not yet accepted
  // Where handlers, callbacks and OnClose run, if not on the carrier's loop: that one then only reads and writes. For connections that bring much: what
  // they bring delays nothing else. Must outlive the carrier and its connections. Descriptors do not travel on them.
  async::Loop* handlers = nullptr;
  std::shared_ptr<FaultInjector> faults;  // for tests; null: none
};

// A stream socket that does not come from a Unix socket of ours: of another machine, say. The peer's user is not looked at, and descriptors do not travel on it.
struct StreamOptions {
  std::string greeting;  // leaves before the first frame
  // Takes what the peer sends before its first frame: gets all that has come so far, returns how much of it that was (0: more must come), or why the connection
  // is to end. `*answer` leaves at once, also in that case. On the loop.
  std::function<Result<size_t>(std::string_view bytes, std::string* answer)> preamble;
  // Between all of this and the socket; null: nothing.
  std::unique_ptr<StreamFilter> filter;
};

class LocalCarrier {
 public:
  // The loop must outlive the carrier and its connections.
  static Result<std::unique_ptr<LocalCarrier>> Make(async::EpollLoop* loop, std::shared_ptr<const Dispatcher> dispatcher,
                                                    LocalCarrierOptions options);
  ~LocalCarrier();

  // Connects to the socket of that name in the directory. Immediate: NOT_FOUND or UNAVAILABLE if nobody listens; RESOURCE_EXHAUSTED says nothing about
  // the peer: this process is out of descriptors, or too many others are about to connect.
  Result<ConnectionPtr> Connect(const std::string& socket_name);
  // Accepts connections under that name; a socket left by a dead process is replaced, ALREADY_EXISTS if one listens.
  // `on_accept` runs on the loop, before anything is read from the connection.
  Status Listen(const std::string& socket_name, std::function<void(const ConnectionPtr&)> on_accept);
  // Why connections wait to be accepted, as when this process is out of descriptors; empty: they do not.
  std::string AcceptTrouble() const;
  // Takes a connected stream socket (of a socketpair, or inherited); owns it from now on.
  Result<ConnectionPtr> Adopt(int fd);
  // The same for one that `options` describe.
  Result<ConnectionPtr> AdoptStream(int fd, StreamOptions options);
  // A connection whose stream socket is yet to come: what is sent waits for it. BeginStream gives it one, once, and owns `fd` from now on; it ends where that fails.
  Result<ConnectionPtr> AwaitStream();
  Status BeginStream(const ConnectionPtr& awaiting, int fd, StreamOptions options);
  // A connection that has ended for that reason.
  ConnectionPtr Closed(Status reason);
  // Removes the sockets, closes all connections with UNAVAILABLE and refuses new ones. Idempotent.
  void Shutdown();

  struct Shared;  // internal

 private:
  explicit LocalCarrier(std::shared_ptr<Shared> shared);
  std::shared_ptr<Shared> shared_;
};

}  // namespace ray::rpc
