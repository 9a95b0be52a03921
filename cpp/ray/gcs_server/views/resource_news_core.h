// ResourceNewsCore: which raylet is told of which node's resources, and when.
//
// Problem: with N nodes that change all the time, N² views go out in a round if everybody hears of everything at once. So
//   * that a node is there, goes, or has other totals or labels, all hear in the next round: it is rare, and decides where things may run at all;
//   * what is free they hear in the next round if they look for room on other nodes. Rounds are `interval` apart; where they would carry more than
//     `views_per_second` they are further apart;
//   * the others, who would use it only if they began to look, take turns: in each round so many of them as `idle_views_per_second` allows. Who begins
//     to look hears at once of what it has not been told yet.
// A raylet that was told up to some change is told of what has changed since; so each change costs the same, and those told up to the same one share a message.
// Pure; part of GcsState; on the loop.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "ray/common/ids.h"
#include "ray/util/clock.h"

namespace ray::gcs {

struct ResourceNewsConfig {
  Duration interval = std::chrono::milliseconds(100);  // least time between two rounds
  int64_t views_per_second = 4'000'000;                // a view of what is free takes some 12 bytes
  int64_t idle_views_per_second = 100'000;
};

class ResourceNewsCore {
 public:
  // To each raylet of `to` the same.
  struct Message {
    std::vector<NodeId> to;
    std::vector<NodeId> whole;  // all that is known of these nodes
    std::vector<NodeId> free;   // of these, told of before, what is free
    std::vector<NodeId> gone;
  };
  using Messages = std::vector<Message>;

  explicit ResourceNewsCore(ResourceNewsConfig config = {}) : config_(config) {}

  // The node is there. `whole`: something else than what is free is new.
  void Changed(const NodeId& node, bool whole);
  // For good: it is told no more, either.
  void Gone(const NodeId& node);
  // It is told everything, and of changes from now on. Of itself as well: it has to know its own number to read columns that it is in.
  void Joins(const NodeId& node, Messages* out);
  // What it was told does not count any more; it will join anew.
  void Leaves(const NodeId& node);
  void LooksElsewhere(const NodeId& node, bool looks, Messages* out);
  void Tick(Time now, Messages* out);
  // When Tick has something to do next; infinite: nothing.
  Time NextDue() const { return behind_ || !whole_.empty() || !gone_.empty() ? next_round_ : Time::Infinite(); }
  // Names the node as long as it is there, small, never 0. 0: it is not there.
  uint32_t NumberOf(const NodeId& node) const;

 private:
  struct Node {
    uint32_t number = 0;
    uint64_t changed = 0;  // its last change
    // As one that is told.
    bool joined = false, looks = false;
    uint64_t told = 0;  // changes up to this one
  };
  // What those have to be told who were told up to `told`; `free` or not. Empty if there is nothing.
  Message Since(uint64_t told, bool free) const;

  const ResourceNewsConfig config_;
  std::map<NodeId, Node> nodes_;
  std::map<uint64_t, NodeId> by_change_;  // each node once
  uint64_t change_ = 0;
  std::set<uint32_t> free_numbers_;
  std::set<NodeId> whole_, gone_;  // not told to all yet
  bool behind_ = false;            // somebody has not been told all that has changed
  NodeId last_idle_;               // whose turn was last
  Time next_round_{INT64_MIN / 2};
};

}  // namespace ray::gcs
