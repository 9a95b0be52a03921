#include "ray/object_manager/transfer/push_core.h"

#include <algorithm>
#include <utility>

namespace ray::object_manager {

template <typename Predicate>
void PushCore::RefuseWaiting(Object* object, Predicate whom, PushEffects* out) {
  std::erase_if(object->waiting, [&](const ServeRequest& request) {
    if (!whom(request)) return false;
    out->push_back(ServeRefused{request.serve, Refusal::kNotThere, {}});
    return true;
  });
}

void PushCore::OnRequest(const ServeRequest& request, Time now, PushEffects* out) {
  auto [it, is_new] = objects_.try_emplace(request.id);
  Object& object = it->second;
  if (is_new) out->push_back(PinWanted{request.id});
  if (object.state == State::kPinning) {
    object.waiting.push_back(request);
    return;
  }
  if (object.state == State::kWhole && IsEarlier(object, request)) {
    object.waiting.push_back(request);
    if (!std::exchange(object.asking_store, true)) out->push_back(PinWanted{request.id});
    return;
  }
  Consider(&object, request, now, out);
  Pump(out);
}

void PushCore::Consider(Object* object, const ServeRequest& request, Time now, PushEffects* out) {
  if (request.length == 0 || request.offset > object->size || request.length > object->size - request.offset ||
      IsEarlier(*object, request)) {
    out->push_back(ServeRefused{request.serve, Refusal::kNotThere, {}});
    return;
  }
  const bool known = object->fetchers.contains(request.from);
  if (!known && !request.insist && object->size >= config_.tree_from_bytes && object->fetchers.size() >= config_.fan_out &&
      !object->named.empty()) {
    const auto& named = object->named;
    if (object->last_asker != request.from || std::find(named.begin(), named.end(), object->last_named) == named.end()) {
      object->last_asker = request.from;
      object->last_named = named[object->next_named++ % named.size()];
    }
    out->push_back(ServeRefused{request.serve, Refusal::kElsewhere, object->last_named, object->fetchers.at(object->last_named).depth});
    return;
  }
  if (object->state == State::kPartial && request.depth <= object->depth && !IsHere(*object, request)) {
    out->push_back(ServeRefused{request.serve, Refusal::kNotThere, {}});
    return;
  }
  object->fetchers[request.from] = {now, request.depth};
  if (!known) object->named.push_back(request.from);
  if (object->state == State::kPartial && !IsHere(*object, request)) {
    object->waiting.push_back(request);
    return;
  }
  ++object->queued;
  AddReady(request);
}

// Where another node's chunks begin and end is not known: none of them may show what memory held before.
bool PushCore::IsHere(const Object& object, const ServeRequest& request) const {
  const auto chunk = [&](uint64_t byte) { return object.here.begin() + static_cast<std::ptrdiff_t>(byte / config_.chunk_bytes); };
  return std::all_of(chunk(request.offset), chunk(request.offset + request.length - 1) + 1, [](bool here) { return here; });
}

bool PushCore::Waits(const Object& object, const NodeId& from) {
  return std::any_of(object.waiting.begin(), object.waiting.end(), [&](const ServeRequest& r) { return r.from == from; });
}

void PushCore::OnPinned(const ObjectId& id, bool there, uint64_t size, uint32_t attempt, Time now, PushEffects* out) {
  auto it = objects_.find(id);
  const bool again = it != objects_.end() && std::exchange(it->second.asking_store, false);
  if (!again && (it == objects_.end() || it->second.state != State::kPinning)) {
    if (there) out->push_back(PinDropped{id});
    return;
  }
  Object& object = it->second;
  if (!again) {
    if (!there) {
      RefuseAll(&object, out);
      objects_.erase(it);
      return;
    }
    object.state = State::kWhole;
    object.size = size;
  }
  if (there) object.attempt = attempt;  // else what is pinned has been freed, and is what it was
  for (const ServeRequest& request : std::exchange(object.waiting, {})) Consider(&object, request, now, out);
  Pump(out);
  MaybeDrop(it, out);
}

void PushCore::OnPartial(const ObjectId& id, uint64_t size, uint32_t attempt) {
  Object& object = objects_[id];
  // Who asked too early is answered by the pin, which is not there.
  if (object.state == State::kPartial || object.state == State::kWhole || !object.waiting.empty()) return;
  object.state = State::kPartial;
  object.size = size;
  object.attempt = attempt;
  object.here.assign((size + config_.chunk_bytes - 1) / config_.chunk_bytes, false);
}

void PushCore::OnChunkHere(const ObjectId& id, uint64_t offset, Time now, PushEffects* out) {
  auto it = objects_.find(id);
  if (it == objects_.end() || it->second.state != State::kPartial) return;
  Object& object = it->second;
  object.here[offset / config_.chunk_bytes] = true;
  auto here = std::stable_partition(object.waiting.begin(), object.waiting.end(),
                                    [&](const ServeRequest& request) { return !IsHere(object, request); });
  for (auto at = here; at != object.waiting.end(); ++at) {
    object.fetchers.at(at->from).asked = now;  // its silence begins
    ++object.queued;
    AddReady(*at);
  }
  object.waiting.erase(here, object.waiting.end());
  Pump(out);
}

void PushCore::OnPartialDepth(const ObjectId& id, uint64_t depth, PushEffects* out) {
  auto it = objects_.find(id);
  if (it == objects_.end() || it->second.state != State::kPartial || it->second.depth == depth) return;
  it->second.depth = depth;
  RefuseWaiting(
      &it->second, [depth](const ServeRequest& request) { return request.depth <= depth; }, out);
}

void PushCore::OnPartialEnd(const ObjectId& id, bool complete, PushEffects* out) {
  auto it = objects_.find(id);
  if (it == objects_.end() || it->second.state != State::kPartial) {
    // Nobody was given a part of it. One that is to be pinned will be, by the store.
    if (complete && (it == objects_.end() || it->second.state == State::kPinning)) out->push_back(PinDropped{id});
    return;
  }
  if (complete) {
    it->second.state = State::kWhole;
  } else {
    RefuseAll(&it->second, out);
    for (auto& [node, reader] : readers_) {
      std::erase_if(reader.ready, [&](const ServeRequest& request) {
        if (request.id != id) return false;
        out->push_back(ServeRefused{request.serve, Refusal::kNotThere, {}});
        return true;
      });
    }
    std::erase_if(turns_, [this](const NodeId& node) { return readers_.at(node).ready.empty(); });
    std::erase_if(readers_, [](const auto& entry) { return entry.second.ready.empty() && entry.second.sending_bytes == 0; });
    // What is being sent stays readable; nothing else refers to the object here.
    out->push_back(PinDropped{id});
    objects_.erase(it);
    return;
  }
  MaybeDrop(it, out);
}

void PushCore::RefuseAll(Object* object, PushEffects* out) {
  RefuseWaiting(
      object, [](const ServeRequest&) { return true; }, out);
}

void PushCore::AddReady(const ServeRequest& request) {
  Reader& reader = readers_[request.from];
  if (reader.ready.empty()) turns_.push_back(request.from);
  reader.ready.push_back(request);
}

std::deque<NodeId>::iterator PushCore::NextTurn() {
  return std::find_if(turns_.begin(), turns_.end(), [this](const NodeId& node) {
    const Reader& reader = readers_.at(node);
    return reader.sending_bytes == 0 || sending_bytes_ + reader.ready.front().length <= config_.max_sending_bytes;
  });
}

void PushCore::Pump(PushEffects* out) {
  for (auto turn = NextTurn(); turn != turns_.end(); turn = NextTurn()) {
    const NodeId node = *turn;
    turns_.erase(turn);
    Reader& reader = readers_.at(node);
    const ServeRequest request = reader.ready.front();
    reader.ready.pop_front();
    if (!reader.ready.empty()) turns_.push_back(node);
    Object& object = objects_.at(request.id);
    --object.queued;
    ++object.sending;
    reader.sending_bytes += request.length;
    sending_bytes_ += request.length;
    sending_.emplace(request.serve, request);
    out->push_back(ServeChunk{request.serve, request.id, request.offset, request.length});
  }
}

void PushCore::OnSent(ServeNo serve, PushEffects* out) {
  auto node = sending_.extract(serve);
  if (node.empty()) return;
  const ServeRequest& request = node.mapped();
  sending_bytes_ -= request.length;
  const auto reader = readers_.find(request.from);
  reader->second.sending_bytes -= request.length;
  if (reader->second.sending_bytes == 0 && reader->second.ready.empty()) readers_.erase(reader);
  if (auto it = objects_.find(request.id); it != objects_.end() && it->second.sending > 0) {
    --it->second.sending;
    MaybeDrop(it, out);
  }
  Pump(out);
}

void PushCore::Leave(Map::iterator it, const NodeId& from, PushEffects* out) {
  Object& object = it->second;
  object.fetchers.erase(from);
  std::erase(object.named, from);
  RefuseWaiting(
      &object, [&from](const ServeRequest& request) { return request.from == from; }, out);
  MaybeDrop(it, out);
}

void PushCore::OnLeft(const NodeId& from, const ObjectId& id, PushEffects* out) {
  if (auto it = objects_.find(id); it != objects_.end()) Leave(it, from, out);
}

void PushCore::OnNodeDead(const NodeId& node, PushEffects* out) {
  for (auto at = objects_.begin(); at != objects_.end();) {
    auto it = at++;
    if (it->second.fetchers.contains(node) || !it->second.waiting.empty()) Leave(it, node, out);
  }
}

void PushCore::MaybeDrop(Map::iterator it, PushEffects* out) {
  const Object& object = it->second;
  if (object.state != State::kWhole || !object.fetchers.empty() || object.queued != 0 || object.sending != 0 || object.asking_store) return;
  out->push_back(PinDropped{it->first});
  objects_.erase(it);
}

void PushCore::OnTimer(Time now, PushEffects* out) {
  for (auto at = objects_.begin(); at != objects_.end();) {
    auto it = at++;
    std::vector<NodeId> gone;
    for (const auto& [node, fetcher] : it->second.fetchers) {
      if (fetcher.asked + config_.idle <= now && !Waits(it->second, node)) gone.push_back(node);
    }
    // The last one that leaves may take the object along.
    for (size_t i = 0; i < gone.size(); ++i) Leave(it, gone[i], out);
  }
}

Time PushCore::NextDeadline() const {
  Time next = Time::Infinite();
  for (const auto& [id, object] : objects_) {
    for (const auto& [node, fetcher] : object.fetchers) {
      if (!Waits(object, node)) next = std::min(next, fetcher.asked + config_.idle);  // who waits stays, and his time may be long over
    }
  }
  return next;
}

}  // namespace ray::object_manager
