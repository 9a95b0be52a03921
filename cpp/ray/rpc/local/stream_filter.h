// StreamFilter: what lies between a connection and its socket, such as encryption. Owned by the connection; thread-safe.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "ray/util/status.h"

namespace ray::rpc {

class StreamFilter {
 public:
  virtual ~StreamFilter() = default;
  // As recv and sendmsg on `fd`, which does not block: bytes of the stream that were received, or taken over; 0 received: the peer's end; -1 with errno: EAGAIN,
  // as there; EINPROGRESS from Send: until is_open. What Receive is not asked for, though the socket has nothing more, it gives the next time.
  virtual ssize_t Receive(int fd, uint8_t* to, size_t n) = 0;
  virtual ssize_t Send(int fd, const iovec* iov, int count) = 0;
  // What both ends have to say before the stream has been said: bytes are taken. Turns true within Receive, or Send.
  virtual bool is_open() const = 0;
  // The socket has not taken all that was taken over: Send is to be called when it takes more, if with nothing.
  virtual bool has_unsent() const = 0;
  // Why calls fail, if it is not the socket's fault.
  virtual Status failure() const = 0;
};

}  // namespace ray::rpc
