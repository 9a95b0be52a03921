// TaskEngine: gRPC's timers and deferred work on one thread. gRPC's own engine starts a thread per core and two more for that.
#pragma once

namespace ray::rpc {

// Makes it gRPC's engine in this process; before gRPC is used. Idempotent, thread-safe.
void UseTaskEngine();

}  // namespace ray::rpc
