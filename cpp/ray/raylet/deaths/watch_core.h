// WatchCore: the processes of other nodes whose end somebody of this node has to hear of, though they need never have met it (MetNodes).
//
//   Watch ──AskNode, one to a node at a time──▶ alive: that node tells the GCS of the end, and the GCS this node
//              │ silence: asked again, with back-off      │ ended: nobody would tell of it any more, so ProcessEnded
//              └── until it is answered, or the node is dead, and with it the process
//
// A process is asked for once, however many want to hear of it: what is told of it is told to all. Asked for again after its end it is found to have ended.
// Pure core: events and time in, effects out, in order. Owned by the WatchService; on the loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <variant>
#include <vector>

#include "ray/common/address.h"
#include "ray/util/clock.h"
#include "ray/util/recent_set.h"

namespace ray::raylet {

struct WatchConfig {
  size_t max_processes = 4096;  // of a question
  Duration retry_min = std::chrono::milliseconds(50), retry_max = std::chrono::seconds(2);
};

// Effects, to be carried out in order.
struct AskNode {  // then OnAnswer
  uint64_t call = 0;
  NodeId node;
  std::vector<WorkerId> processes;
};
struct ProcessEnded {
  Address process;
};
using WatchEffect = std::variant<AskNode, ProcessEnded>;
using WatchEffects = std::vector<WatchEffect>;

class WatchCore {
 public:
  explicit WatchCore(WatchConfig config = {}) : config_(config) {}

  // Of another node.
  void Watch(const Address& process, Time now, WatchEffects* out);
  // Of calls that are not under way any more: nothing. `answered`: the node has it; else nobody knows whether it has.
  void OnAnswer(const NodeId& node, uint64_t call, bool answered, std::span<const WorkerId> ended, Time now, WatchEffects* out);
  // Its end was told, whoever asked for it.
  void OnEnded(const Address& process);
  void OnNodeDead(const NodeId& node);
  void OnTimer(Time now, WatchEffects* out);
  Time NextDeadline() const;
  // Processes that are watched, or asked for.
  size_t size() const;

 private:
  struct Node {
    std::set<WorkerId> waiting, sent, watched;
    uint64_t call = 0;  // that is under way; 0: none
    int failures = 0;   // in a row
    Time not_before{INT64_MIN / 2};
  };
  void Pump(const NodeId& id, Node* node, Time now, WatchEffects* out);
  void MaybeForget(std::map<NodeId, Node>::iterator it);

  const WatchConfig config_;
  std::map<NodeId, Node> nodes_;
  RecentSet<NodeId, IdHash> dead_;
  uint64_t last_call_ = 0;
};

}  // namespace ray::raylet
