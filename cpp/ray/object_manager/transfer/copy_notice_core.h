// CopyNoticeCore: what is to be said of copies, until it has been heard. Owners tell raylets: they are of no use any more, or they must stay. Raylets tell owners:
// they have come.
//
// One message to a process is under way at a time; what comes meanwhile goes with the next one. A message that is not confirmed is sent again, with back-off, until
// it is or the process is dead: a repeat has no effect. It may come late, and the task may have run again meanwhile; so each copy is named with the run that made it.
//
// Pure core: events and time in, effects out, in order. Owned by the TransferService and the CopyTeller, one for each kind of message; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "ray/common/address.h"
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
  Address to;
  std::vector<CopyRun> copies;
};
using CopyNoticeEffects = std::vector<NoticeWanted>;

class CopyNoticeCore {
 public:
  explicit CopyNoticeCore(const CopyNoticeConfig& config = {}) : config_(config) {}

  void Add(const Address& to, std::span<const CopyRun> copies, Time now, CopyNoticeEffects* out);
  // `confirmed`: it has got it. Of calls that are not under way any more: nothing.
  void OnAnswer(const Address& to, uint64_t call, bool confirmed, Time now, CopyNoticeEffects* out);
  void OnEnded(const Address& process) { listeners_.erase(process); }
  // And all its processes.
  void OnNodeDead(const NodeId& node);
  void OnTimer(Time now, CopyNoticeEffects* out);
  Time NextDeadline() const;
  // Processes that have something to confirm.
  size_t size() const { return listeners_.size(); }
  bool Tells(const Address& process) const { return listeners_.contains(process); }

 private:
  struct Listener {
    std::vector<CopyRun> waiting, sent;
    uint64_t call = 0;  // that is under way; 0: none
    int failures = 0;   // in a row
    Time not_before{INT64_MIN / 2};
  };
  struct ByNode {
    bool operator()(const Address& a, const Address& b) const {
      return std::tie(a.node_id, a.worker_id) < std::tie(b.node_id, b.worker_id);
    }
  };
  void Pump(const Address& to, Listener* listener, Time now, CopyNoticeEffects* out);

  const CopyNoticeConfig config_;
  std::map<Address, Listener, ByNode> listeners_;
  RecentSet<NodeId, IdHash> dead_;
  uint64_t last_call_ = 0;
};

}  // namespace ray::object_manager
