// Tells the service manager how we are (systemd's notification protocol, without its library).
#pragma once

#include <string>
#include <string_view>

#include "ray/util/status.h"

namespace ray {

// Sends `state` ("READY=1", "STOPPING=1", "STATUS=...") to the datagram socket `notify_socket`, the value of $NOTIFY_SOCKET, which main
// reads. Empty: nobody wants to know, which is fine. Never blocks.
Status SdNotify(const std::string& notify_socket, std::string_view state);

}  // namespace ray
