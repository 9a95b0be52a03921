// HealthCore: decides that a node is dead. A raylet holds one link to the GCS; when it closes the node is dead at once, unless it has come
// with a newer link. A link that stays open says little of a raylet that hangs or of a cable that was cut: so nodes are probed, and one that misses several
// probes in a row is dead. Probes of a node that answers are far apart, and those of several nodes are sent together, so that an idle cluster sleeps; after a
// miss the next follows at once. So a node is found dead within period + threshold * timeout; until then it is only suspect, and nothing is taken from it.
// A miss that is reported long after its time says that this process itself stood still (stopped, swapped out, its machine suspended), and the answer may
// lie unread: it does not count.
// Pure; part of GcsState; on the loop.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "ray/common/ids.h"
#include "ray/util/clock.h"

namespace ray::gcs {

struct HealthConfig {
  Duration period = Duration::zero();          // between two probes of a node; 0: none are sent, as where all nodes are on this machine
  Duration timeout = std::chrono::seconds(2);  // for the answer
  int threshold = 3;                           // misses in a row that make a node dead
};

class HealthCore {
 public:
  enum class Verdict { kAlive, kSuspect, kDead };

  explicit HealthCore(HealthConfig config = {}) : config_(config) {}
  const HealthConfig& config() const { return config_; }

  // The node registered over this link. True if the link is new to it: its end is to be reported with LinkDown. `attempt`: as in RegisterNodeRequest.
  bool LinkUp(const NodeId& node, uint64_t link, Time now = {}, uint64_t attempt = 0) {
    auto [it, is_new] = nodes_.try_emplace(node, Node{link, attempt, now + config_.period, {}});
    if (!is_new && it->second.link == link) return false;
    it->second = Node{link, attempt, now + config_.period, {}};
    return true;
  }
  // The raylet has registered again since, over another link; what it sends over that one may come first. Taken for the newer, the end of the link of this
  // attempt, which the raylet has given up, would be the node's.
  bool IsStale(const NodeId& node, uint64_t attempt) const {
    auto it = nodes_.find(node);
    return it != nodes_.end() && attempt != 0 && attempt < it->second.attempt;
  }
  // The very registration that counts has come again. What it says of the node is as old as the first one, and more may have happened there since.
  bool IsRepeat(const NodeId& node, uint64_t link, uint64_t attempt) const {
    auto it = nodes_.find(node);
    return it != nodes_.end() && attempt != 0 && it->second.link == link && it->second.attempt == attempt;
  }
  // True if the node is dead by that.
  bool LinkDown(const NodeId& node, uint64_t link) {
    auto it = nodes_.find(node);
    if (it == nodes_.end() || it->second.link != link) return false;
    nodes_.erase(it);
    return true;
  }
  // It left in good order: the end of its link says nothing new.
  void Left(const NodeId& node) { nodes_.erase(node); }
  std::optional<uint64_t> LinkOf(const NodeId& node) const {
    auto it = nodes_.find(node);
    if (it == nodes_.end()) return std::nullopt;
    return it->second.link;
  }

  // When Due has something next; infinite: nothing is to be probed.
  Time NextDue() const {
    Time next = Time::Infinite();
    if (config_.period <= Duration::zero()) return next;
    for (const auto& [id, node] : nodes_) {
      if (!node.probing) next = std::min(next, node.next);
    }
    return next;
  }
  // The nodes to probe now, with those that are due soon; at most one probe of a node is under way.
  std::vector<std::pair<NodeId, uint64_t>> Due(Time now) {
    std::vector<std::pair<NodeId, uint64_t>> due;
    if (config_.period <= Duration::zero()) return due;
    for (auto& [id, node] : nodes_) {
      if (node.probing || now + config_.period / 4 < node.next) continue;
      node.probing = true;
      node.probed = now;
      node.next = now + config_.period;
      due.emplace_back(id, node.link);
    }
    return due;
  }
  // A probe over that link was answered, or was not within the timeout: then the next is due at once.
  Verdict OnProbe(const NodeId& id, uint64_t link, bool answered, Time now) {
    auto it = nodes_.find(id);
    if (it == nodes_.end() || it->second.link != link) return Verdict::kAlive;
    Node& node = it->second;
    node.probing = false;
    if (answered) {
      node.misses = 0;
      return Verdict::kAlive;
    }
    node.next = now;
    if (now - node.probed > config_.timeout + Grace()) return node.misses > 0 ? Verdict::kSuspect : Verdict::kAlive;
    if (++node.misses < config_.threshold) return Verdict::kSuspect;
    nodes_.erase(it);
    return Verdict::kDead;
  }
  // In a row. 0 for a node that is not known.
  int MissesOf(const NodeId& id) const {
    auto it = nodes_.find(id);
    return it == nodes_.end() ? 0 : it->second.misses;
  }

 private:
  struct Node {
    uint64_t link = 0, attempt = 0;
    Time next;    // when the next probe is due
    Time probed;  // when the last one was sent
    bool probing = false;
    int misses = 0;
  };
  // By how much a miss may be late on a machine that is merely busy.
  Duration Grace() const { return std::max<Duration>(config_.timeout / 2, std::chrono::milliseconds(500)); }

  const HealthConfig config_;
  std::map<NodeId, Node> nodes_;  // that are alive
};

}  // namespace ray::gcs
