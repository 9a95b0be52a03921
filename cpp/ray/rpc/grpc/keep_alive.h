// When a TCP connection between nodes counts as broken though nobody said so. For every carrier.
#pragma once

namespace ray::rpc {

inline constexpr int kKeepAliveMs = 10000;  // a connection that is silent for this long is asked for a sign of life
// And is broken when none comes for this long. gRPC takes it, too, for how long bytes may go without an acknowledgement. It is more than the GCS's probes take
// to find a node dead, so that it is they who decide.
inline constexpr int kKeepAliveTimeoutMs = 10000;

}  // namespace ray::rpc
