// Knock: whether anybody listens at an address. A host that refuses a connection is alive, and the process that listened there is not.
#pragma once

#include <functional>
#include <string>

#include "ray/async/loop.h"

namespace ray::rpc {

enum class KnockResult {
  kOpen,     // somebody took the connection, which is closed again
  kRefused,  // the host says that nobody listens
  kUnknown,  // no answer in time, no route, no address in numbers, no descriptor left
};

// On the loop, which must go on until `done` has run, on it; never from within the call. `address`: "10.0.0.1:6379", "[::1]:6379".
void Knock(async::EpollLoop* loop, const std::string& address, Duration patience, std::function<void(KnockResult)> done);

}  // namespace ray::rpc
