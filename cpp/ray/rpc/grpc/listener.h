// Listener: accepts connections at an address and hands their descriptors on. gRPC's own listeners are not used: the first connection for which there is no
// descriptor ends them for good. This one waits until there are some, at the cost of a look every 100 ms.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ray/async/loop.h"
#include "ray/util/mutex.h"
#include "ray/util/status.h"

namespace ray::rpc {

class Listener : public std::enable_shared_from_this<Listener> {
 public:
  // "unix:/path" of any length, where the socket of a process that has ended is replaced, or "host:port" with all addresses of that host, port 0: any that is
  // free. Connections wait in the backlog until Start. ALREADY_EXISTS: somebody listens at that path; UNAVAILABLE says why else it cannot be.
  static Result<std::shared_ptr<Listener>> Make(const std::string& address, async::EpollLoop* loop);
  ~Listener();
  // That of Make, with the port.
  const std::string& address() const { return address_; }
  // `on_accept`, on the loop, owns the descriptor, which does not block; connections over TCP are prepared.
  Status Start(std::function<void(int fd)> on_accept);
  // Removes the socket, if it is still ours. `on_accept` is not running once it has returned, and is not called again. Idempotent; not from within on_accept.
  void Stop();

 private:
  Listener(std::string address, async::EpollLoop* loop) : address_(std::move(address)), loop_(loop) {}
  Status ListenUnix();
  Status ListenTcp();
  void CloseOnLoop();
  void OnReadable(int fd);
  void Pause(int fd, int err);

  std::string address_;
  async::EpollLoop* const loop_;
  std::vector<int> fds_;     // listening; the loop's once started
  int folder_fd_ = -1;       // of a Unix socket
  std::string socket_;       // its name there
  uint64_t inode_ = 0;       // of what this one made there
  bool in_trouble_ = false;  // on the loop; the last attempt to accept failed
  Mutex mu_;
  std::function<void(int fd)> on_accept_ GUARDED_BY(mu_);  // null: stopped, or not started
};

// What every TCP connection of ours wants: no delay, and signs of life.
void PrepareTcp(int fd);

}  // namespace ray::rpc
