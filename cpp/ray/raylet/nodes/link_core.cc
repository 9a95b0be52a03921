#include "ray/raylet/nodes/link_core.h"

#include <algorithm>

namespace ray::raylet {

void LinkCore::OnAlive(const NodeId& id, const std::string& address, Time now, LinkEffects* out) {
  if (id == self_ || IsDead(id)) return;
  Node& node = nodes_[id];
  node.address = address;
  if (node.alive) return;
  node.alive = true;
  out->push_back(NodeJoined{id});
  if (!KeepsOpen(node)) return;
  for (Lane lane : kLanes) Want(id, lane, now, out);
}

void LinkCore::OnDead(const NodeId& id, const std::string& reason, LinkEffects* out) {
  if (id == self_ || !dead_.try_emplace(id, reason).second) return;
  dead_order_.push_back(id);
  if (dead_order_.size() > config_.max_dead) {
    dead_.erase(dead_order_.front());
    dead_order_.pop_front();
  }
  const auto it = nodes_.find(id);
  const bool known = it != nodes_.end();
  std::vector<LinkNo> links;
  if (known) {
    for (Lane lane : kLanes) {
      LaneState& state = LaneOf(it->second, lane);
      links.insert(links.end(), state.links.begin(), state.links.end());
      Settle(id, lane, state);
    }
    nodes_.erase(it);
  }
  // The news before the end of its links, so that nobody takes that for a failure of the network.
  out->push_back(NodeGone{id});
  for (LinkNo link : links) out->push_back(DropLink{link, "node " + id.Hex() + " is dead: " + reason});
}

void LinkCore::Dial(const NodeId& id, Node& node, Lane lane, Time now, LinkEffects* out) {
  LaneState& state = LaneOf(node, lane);
  state.dialled = NewLink();
  state.give_up = now + config_.patience;
  state.failure = "nobody has answered";
  dialled_.emplace(id, lane);
  state.links.push_back(state.dialled);
  out->push_back(DialLink{id, lane, state.dialled, node.address});
}

void LinkCore::Redial(LaneState& state, LinkEffects* out) {
  state.again = Time::Infinite();
  state.beside = state.links.size() > 1;
  out->emplace_back(DialAgain{state.dialled});
}

void LinkCore::GiveUp(LaneState& state, const std::string& reason, LinkEffects* out) {
  state.again = state.give_up = Time::Infinite();
  out->push_back(DropLink{state.dialled, reason});
}

void LinkCore::Settle(const NodeId& id, Lane lane, LaneState& state) {
  state.dialled = 0;
  state.again = state.give_up = Time::Infinite();
  state.beside = false;
  state.failure.clear();
  dialled_.erase({id, lane});
}

void LinkCore::Want(const NodeId& id, Lane lane, Time now, LinkEffects* out) {
  const auto it = nodes_.find(id);
  if (it == nodes_.end() || !it->second.alive || it->second.address.empty()) return;
  const LaneState& state = LaneOf(it->second, lane);
  if (!state.links.empty() || now < state.not_before) return;
  Dial(id, it->second, lane, now, out);
}

bool LinkCore::OnIncoming(const NodeId& id, Lane lane, LinkNo link, LinkEffects* out) {
  if (id == self_ || IsDead(id)) return false;
  LaneState& state = LaneOf(nodes_[id], lane);
  state.links.push_back(link);
  if (state.links.size() == 1) out->push_back(LinkUp{id, lane});
  if (!state.again.is_infinite()) Redial(state, out);  // the node can be reached, it seems
  return true;
}

void LinkCore::OnUp(const NodeId& id, Lane lane, LinkNo link) {
  const auto it = nodes_.find(id);
  if (it == nodes_.end()) return;
  LaneState& state = LaneOf(it->second, lane);
  if (state.dialled != link) return;
  Settle(id, lane, state);
  state.failures = 0;
}

void LinkCore::OnDialFailed(const NodeId& id, Lane lane, LinkNo link, const std::string& reason, Time now, LinkEffects* out) {
  const auto it = nodes_.find(id);
  if (it == nodes_.end()) return;  // it is dead, and the link is being dropped
  LaneState& state = LaneOf(it->second, lane);
  if (state.dialled != link || state.give_up.is_infinite()) return;
  state.failure = reason;
  const int doublings = std::min(state.failures++, 20);
  if (state.links.size() == 1) {
    state.again = now + std::min(config_.max_redial, config_.min_backoff * (int64_t{1} << doublings));
  } else if (!state.beside) {
    Redial(state, out);  // the attempt may have begun while nothing got through
  } else {
    // The node reaches us, and we do not reach it: what is sent from now on goes over its own link.
    GiveUp(state, reason, out);
  }
}

void LinkCore::OnClosed(const NodeId& id, Lane lane, LinkNo link, const std::string& reason, Time now, LinkEffects* out) {
  const auto it = nodes_.find(id);
  if (it == nodes_.end()) return;  // it is dead, and that was told
  LaneState& state = LaneOf(it->second, lane);
  const auto found = std::find(state.links.begin(), state.links.end(), link);
  if (found == state.links.end()) return;
  state.links.erase(found);
  if (state.dialled == link) {
    Settle(id, lane, state);
    const int doublings = std::min(state.failures++, 20);
    state.not_before = now + std::min(config_.max_backoff, config_.min_backoff * (int64_t{1} << doublings));
  } else {
    state.not_before = now + config_.min_backoff;
  }
  out->push_back(LinkBroke{id, lane, reason});
  const auto unused = [](const LaneState& l) { return l.links.empty(); };
  if (!it->second.alive && std::all_of(std::begin(it->second.lanes), std::end(it->second.lanes), unused)) nodes_.erase(it);
}

void LinkCore::Tick(Time now, LinkEffects* out) {
  for (const auto& [id, lane] : dialled_) {
    LaneState& state = LaneOf(nodes_.at(id), lane);
    if (now >= state.give_up) {
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(config_.patience).count();
      GiveUp(state, "it could not be reached for " + std::to_string(seconds) + " s: " + state.failure, out);
    } else if (now >= state.again) {
      Redial(state, out);
    }
  }
  for (auto& [id, node] : nodes_) {
    if (!KeepsOpen(node)) continue;
    for (Lane lane : kLanes) Want(id, lane, now, out);
  }
}

Time LinkCore::NextDeadline() const {
  Time next = Time::Infinite();
  for (const auto& [id, lane] : dialled_) {
    const LaneState& state = nodes_.at(id).lanes[static_cast<size_t>(lane)];
    next = std::min({next, state.again, state.give_up});
  }
  if (listens_) return next;  // it keeps none open; asked for with each news of a node
  for (const auto& [id, node] : nodes_) {
    if (!KeepsOpen(node)) continue;
    for (const LaneState& lane : node.lanes) {
      if (lane.links.empty()) next = std::min(next, lane.not_before);
    }
  }
  return next;
}

LinkNo LinkCore::Current(const NodeId& id, Lane lane) const {
  const auto it = nodes_.find(id);
  if (it == nodes_.end()) return 0;
  const LaneState& state = it->second.lanes[static_cast<size_t>(lane)];
  return state.links.empty() ? 0 : state.links.front();
}

bool LinkCore::MayComeUp(const NodeId& id) const {
  if (id == self_ || IsDead(id)) return false;
  const auto it = nodes_.find(id);
  return it == nodes_.end() || !it->second.alive || (listens_ && it->second.address.empty());
}

bool LinkCore::IsAlive(const NodeId& id) const {
  const auto it = nodes_.find(id);
  return it != nodes_.end() && it->second.alive;
}

}  // namespace ray::raylet
