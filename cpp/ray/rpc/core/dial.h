// How a carrier tells of a new connection whose peer cannot be reached yet.
#pragma once

#include <functional>

#include "ray/util/status.h"

namespace ray::rpc {

// An attempt to reach the peer has failed: nothing that was sent on the connection has left. That waits, until `again` makes another attempt, or for
// Connection::Close. On the loop; so is `again`.
using DialFailed = std::function<void(const Status& why, std::function<void()> again)>;

}  // namespace ray::rpc
