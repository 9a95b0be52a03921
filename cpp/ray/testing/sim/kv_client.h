// KvClient: a process that reads and writes a few keys of the cluster's key-value table, one operation at a time, and notes what it was told (KvHistory).
// It speaks to the GCS as a raylet does: over one link, which it opens again when it breaks, by GcsCalls, which asks again what was not answered.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "ray/raylet/router/gcs_calls.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/testing/sim/kv_history.h"
#include "ray/testing/sim/network.h"

namespace ray::sim {

struct KvClientConfig {
  int operations = 20;
  int keys = 3;                                         // shared by all clients
  Duration max_pause = std::chrono::milliseconds(500);  // between two operations
};

class KvClient {
 public:
  // Begins at once; lives as long as the process. `history` outlives it.
  static void Start(SimNetwork* network, Process* process, KvClientConfig config, KvHistory* history, std::function<void()> done);

  KvClient(SimNetwork* network, Process* process, KvClientConfig config, KvHistory* history, std::function<void()> done);

 private:
  void Connect();
  void Next();
  void Ask();

  SimNetwork* const network_;
  Process* const process_;
  const KvClientConfig config_;
  KvHistory* const history_;
  const std::function<void()> done_;
  Random random_;
  rpc::Dispatcher dispatcher_;
  raylet::GcsCalls calls_;
  rpc::ConnectionPtr link_;
  int asked_ = 0;
};

}  // namespace ray::sim
