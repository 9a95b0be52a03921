// LinkCore: which nodes there are, and which links to them are to be opened, used and dropped.
//
// A node has two lanes, each a link of its own: control for frames, bulk for the chunks of objects, so that these never delay calls. Either end may open a link; when
// both do so at once there are two of a lane, and each end goes on sending over the one that it used first, so that what it sends stays in order.
// A link is dialled when it is wanted. Where the peer cannot be reached, as during a cut, nothing of what was sent on the link can have arrived: it waits, and the link is
// dialled again with back-off, until it is answered, the node is dead, or the patience is over. What has been answered and breaks is not mended: the next that is wanted is
// another link. A node that cannot be dialled opens its links itself: to every node, as soon as it hears of it, and again whenever one breaks.
// Pure core: events and time in, effects out. Owned by NodeDirectory; on the loop.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ray/common/ids.h"
#include "ray/util/clock.h"

namespace ray::raylet {

enum class Lane : uint8_t { kControl = 0, kBulk = 1 };
inline constexpr Lane kLanes[] = {Lane::kControl, Lane::kBulk};
using LinkNo = uint64_t;  // names one connection; never reused; 0: none

struct LinkConfig {
  Duration min_backoff = std::chrono::milliseconds(50);  // after the first failure to open a link; doubles up to the maximum
  Duration max_backoff = std::chrono::seconds(5);
  // The same while a link is dialled on which frames wait: when a cut ends it is there again as soon as one that had been there.
  Duration max_redial = std::chrono::milliseconds(500);
  // How long a link may be dialled, and wait for the answer: as long as one that was answered lives without a sign of life. More than the GCS takes to find a node dead, so
  // that this is what ends the wait; else it is that the two nodes alone do not reach each other.
  Duration patience = std::chrono::seconds(20);
  size_t max_dead = 10000;  // dead nodes remembered, and refused
};

// Effects, in order.
struct DialLink {
  NodeId node;
  Lane lane;
  LinkNo link;
  std::string address;
};
struct DialAgain {  // what waits on the link goes on waiting
  LinkNo link;
};
struct DropLink {
  LinkNo link;
  std::string reason;
};
struct NodeJoined {
  NodeId node;
};
struct NodeGone {
  NodeId node;
};
struct LinkUp {  // frames may be sent to the node where there was no link before
  NodeId node;
  Lane lane;
};
struct LinkBroke {  // what was under way on it, in either direction, may be lost
  NodeId node;
  Lane lane;
  std::string reason;
};
using LinkEffect = std::variant<DialLink, DialAgain, DropLink, NodeJoined, NodeGone, LinkUp, LinkBroke>;
using LinkEffects = std::vector<LinkEffect>;

class LinkCore {
 public:
  // `listens`: others can dial this node.
  LinkCore(const NodeId& self, bool listens, LinkConfig config) : self_(self), listens_(listens), config_(config) {}

  // The GCS says so. `address` is empty for a node that only dials out. Repeated news change nothing.
  void OnAlive(const NodeId& node, const std::string& address, Time now, LinkEffects* out);
  void OnDead(const NodeId& node, const std::string& reason, LinkEffects* out);
  // Somebody wants to send: dials if there is no link and none is due later.
  void Want(const NodeId& node, Lane lane, Time now, LinkEffects* out);
  // The link that `node` dialled, once it has said so. False: the node is dead and the link must be refused.
  bool OnIncoming(const NodeId& node, Lane lane, LinkNo link, LinkEffects* out);
  // The node answered on a link that we dialled.
  void OnUp(const NodeId& node, Lane lane, LinkNo link);
  // It could not be reached: nothing has left on the link, which waits to be dialled again.
  void OnDialFailed(const NodeId& node, Lane lane, LinkNo link, const std::string& reason, Time now, LinkEffects* out);
  void OnClosed(const NodeId& node, Lane lane, LinkNo link, const std::string& reason, Time now, LinkEffects* out);
  void Tick(Time now, LinkEffects* out);
  Time NextDeadline() const;

  LinkNo NewLink() { return ++last_link_; }
  // What to send on; 0: there is none now.
  LinkNo Current(const NodeId& node, Lane lane) const;
  bool IsAlive(const NodeId& node) const;
  bool IsDead(const NodeId& node) const { return dead_.contains(node); }
  // There is no link, and one may come without our doing: the node dials out, or is not known yet.
  bool MayComeUp(const NodeId& node) const;

 private:
  struct LaneState {
    std::vector<LinkNo> links;  // the first is what we send on
    LinkNo dialled = 0;         // of these, the one that has not been answered yet
    int failures = 0;           // dials in a row that were never answered
    Time not_before{INT64_MIN / 2};
    // Of the dialled one.
    Time again = Time::Infinite();    // when it is dialled again; infinite: it is being dialled, or was dropped
    Time give_up = Time::Infinite();  // infinite: it was dropped
    std::string failure;              // why it could not be reached, the last time
    bool beside = false;              // it has been dialled again since the node opened a link itself
  };
  struct Node {
    bool alive = false;  // else: only its link is known so far
    std::string address;
    LaneState lanes[2];
  };
  LaneState& LaneOf(Node& node, Lane lane) const { return node.lanes[static_cast<size_t>(lane)]; }
  // Links that nobody but we can open have to be there before they are wanted.
  bool KeepsOpen(const Node& node) const { return !listens_ && node.alive && !node.address.empty(); }
  void Dial(const NodeId& id, Node& node, Lane lane, Time now, LinkEffects* out);
  void Redial(LaneState& state, LinkEffects* out);
  void GiveUp(LaneState& state, const std::string& reason, LinkEffects* out);
  // The dialled one is no more.
  void Settle(const NodeId& id, Lane lane, LaneState& state);

  const NodeId self_;
  const bool listens_;
  const LinkConfig config_;
  LinkNo last_link_ = 0;
  std::map<NodeId, Node> nodes_;
  std::set<std::pair<NodeId, Lane>> dialled_;  // the lanes that have one
  std::map<NodeId, std::string> dead_;         // reason
  std::deque<NodeId> dead_order_;              // oldest first
};

}  // namespace ray::raylet
