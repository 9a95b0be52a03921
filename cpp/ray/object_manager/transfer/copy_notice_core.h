// CopyNoticeCore: what owners have to say of copies on other nodes, until these nodes have heard it: that they are of no use any more, or that they must stay.
//
// One message to a node is under way at a time; what comes meanwhile goes with the next one. A message that is not confirmed is sent again, with back-off, until
// it is or its node is dead: a repeat has no effect. It may come late, and the task may have run again meanwhile; so each copy is named with the run that made it.
//
// Pure core: events and time in, effects out, in order. Owned by the TransferService, one for each kind of message; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "ray/common/copy_run.h"
#include "ray/util/clock.h"
#include "ray/util/recent_set.h"

namespace ray::object_manager {

struct CopyNoticeConfig {
  size_t max_copies = 65536;  // of a message
  Duration retry_min = std::chrono::milliseconds(50), retry_max = std::chrono::seconds(2);
};

struct NoticeWanted {  // then OnAnswer
  uint64_t call = 0;
  NodeId node;
  std::vector<CopyRun> copies;
};
using CopyNoticeEffects = std::vector<NoticeWanted>;

class CopyNoticeCore {
 public:
  explicit CopyNoticeCore(const CopyNoticeConfig& config = {}) : config_(config) {}

  void Add(const NodeId& node, std::span<const CopyRun> copies, Time now, CopyNoticeEffects* out);
  // `confirmed`: the node has got it. Of calls that are not under way any more: nothing.
  void OnAnswer(const NodeId& node, uint64_t call, bool confirmed, Time now, CopyNoticeEffects* out);
  void OnNodeDead(const NodeId& node);
  void OnTimer(Time now, CopyNoticeEffects* out);
  Time NextDeadline() const;
  // Nodes that have something to confirm.
  size_t size() const { return nodes_.size(); }

 private:
  struct Node {
    std::vector<CopyRun> waiting, sent;
    uint64_t call = 0;  // that is under way; 0: none
    int failures = 0;   // in a row
    Time not_before{INT64_MIN / 2};
  };
  void Pump(const NodeId& id, Node* node, Time now, CopyNoticeEffects* out);

  const CopyNoticeConfig config_;
  std::map<NodeId, Node> nodes_;
  RecentSet<NodeId, IdHash> dead_;
  uint64_t last_call_ = 0;
};

}  // namespace ray::object_manager
