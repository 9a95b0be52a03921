#include "ray/raylet/adoption/adoption_core.h"

#include <algorithm>
#include <utility>

namespace ray::raylet {

void AdoptionCore::Adopt(const Address& owner, const ObjectId& id, AdoptedValue value, AdoptionEffects* out) {
  if (objects_.contains(id)) return;
  if (IsDead(owner)) {  // the news of its death was faster
    std::vector<ObjectId> let_go;
    LetGo(value.nested, owner.worker_id, out, &let_go);
    for (const ObjectId& inner : let_go) DropIfUnheld(inner, out);
    return;
  }
  Owner& of = owners_[owner.worker_id];
  of.node = owner.node_id;
  of.objects.insert(id);
  Object& object = objects_[id];
  object.owner = owner.worker_id;
  object.value = std::move(value);
  if (object.value.blob != nullptr) {
    inline_bytes_ += object.value.blob->size();
    return;
  }
  const std::vector<NodeId> nodes = object.value.nodes;
  for (const NodeId& node : nodes) {
    if (dead_nodes_.contains(node)) LoseNode(&object, id, node, out);
  }
}

void AdoptionCore::Complete(const Address& owner, uint32_t part, std::span<const BorrowCount> counts, bool last, AdoptionEffects* out) {
  const auto of = owners_.find(owner.worker_id);
  if (of == owners_.end() || of->second.complete || !of->second.parts.insert(part).second) return;
  for (const BorrowCount& item : counts) {
    const auto it = objects_.find(item.id);
    if (it != objects_.end() && it->second.owner == owner.worker_id) Count(&it->second, item.id, item.borrower, item.registrar, item.count);
  }
  if (!last) return;
  of->second.complete = true;
  of->second.parts.clear();
  const std::vector<ObjectId> ids(of->second.objects.begin(), of->second.objects.end());
  for (const ObjectId& id : ids) DropIfUnheld(id, out);
  SettleDead(ids, WorkerId::Nil(), out);
}

void AdoptionCore::Count(Object* object, const ObjectId& id, const Address& borrower, const Address& registrar, int64_t count) {
  if (IsDead(borrower)) return;
  object->borrowers[{borrower.worker_id, registrar.worker_id}] += count;
  for (const Address& process : {borrower, registrar}) {
    if (process.IsNil()) continue;
    Related& related = related_[process.worker_id];
    related.node = process.node_id;
    related.ids.insert(id);
  }
}

bool AdoptionCore::AddBorrower(const ObjectId& id, const Address& borrower, const Address& registrar, AdoptionEffects* out) {
  const auto it = objects_.find(id);
  if (it == objects_.end()) return false;
  Count(&it->second, id, borrower, registrar, 1);
  if (!registrar.IsNil() && IsDead(registrar)) SettleDead({&id, 1}, registrar.worker_id, out);  // it had said so before it died
  return true;
}

void AdoptionCore::RemoveBorrower(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar, uint32_t count,
                                  AdoptionEffects* out) {
  const auto it = objects_.find(id);
  if (it == objects_.end() || dead_.contains(borrower)) return;
  it->second.borrowers[{borrower, registrar}] -= count;
  DropIfUnheld(id, out);
}

void AdoptionCore::SettleBorrower(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar, uint32_t left,
                                  AdoptionEffects* out) {
  const auto it = objects_.find(id);
  if (it == objects_.end()) return;
  auto& borrowers = it->second.borrowers;
  const auto count = borrowers.find({borrower, registrar});
  if (count == borrowers.end()) return;
  count->second = std::min<int64_t>(count->second, left);
  if (count->second > 0 && borrower != self_.worker_id) {  // ours follow from what contains it
    borrowers[{borrower, WorkerId::Nil()}] += count->second;
    borrowers.erase(count);
    ForgetRelation(it->second, id, registrar);
  }
  DropIfUnheld(id, out);
}

bool AdoptionCore::HasBorrower(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar) const {
  const auto it = objects_.find(id);
  return it != objects_.end() && it->second.borrowers.contains({borrower, registrar});
}

std::vector<uint32_t> AdoptionCore::Contained(std::span<const ObjectId> ids, const WorkerId& registrar) const {
  std::map<ObjectId, uint32_t> counts;
  for (const ObjectId& id : ids) counts.emplace(id, 0);
  if (const auto of = owners_.find(registrar); of != owners_.end()) {
    for (const ObjectId& outer : of->second.objects) {
      for (const ObjectRefInfo& ref : objects_.at(outer).value.nested) {
        const auto count = counts.find(ref.id);
        if (count != counts.end() && ref.owner.worker_id != registrar) ++count->second;
      }
    }
  }
  std::vector<uint32_t> contained;
  for (const ObjectId& id : ids) contained.push_back(counts.at(id));
  return contained;
}

void AdoptionCore::SettleDead(std::span<const ObjectId> ids, const WorkerId& only, AdoptionEffects* out) {
  std::map<WorkerId, std::vector<ObjectId>> own;  // by registrar
  for (const ObjectId& id : ids) {
    const auto it = objects_.find(id);
    if (it == objects_.end()) continue;
    const Owner& owner = owners_.at(it->second.owner);
    if (!owner.complete) continue;  // with its last counts
    for (const auto& [who, count] : it->second.borrowers) {
      const Address registrar = AddressOf(who.second);
      if (registrar.IsNil() || !IsDead(registrar) || !(only.IsNil() || only == who.second)) continue;
      if (who.first == self_.worker_id) {
        own[who.second].push_back(id);
      } else {
        out->emplace_back(SettleAdopted{id, {owner.node, it->second.owner}, AddressOf(who.first), registrar});
      }
    }
  }
  for (const auto& [registrar, contained_ids] : own) {
    const std::vector<uint32_t> left = Contained(contained_ids, registrar);
    for (size_t i = 0; i < left.size(); ++i) SettleBorrower(contained_ids[i], self_.worker_id, registrar, left[i], out);
  }
}

void AdoptionCore::ForgetRelation(const Object& object, const ObjectId& id, const WorkerId& worker) {
  const bool named =
      std::ranges::any_of(object.borrowers, [&](const auto& b) { return b.first.first == worker || b.first.second == worker; });
  const auto related = related_.find(worker);
  if (named || related == related_.end()) return;
  related->second.ids.erase(id);
  if (related->second.ids.empty()) related_.erase(related);
}

Address AdoptionCore::AddressOf(const WorkerId& worker) const {
  if (worker.IsNil()) return {};
  const auto related = related_.find(worker);
  return {related == related_.end() ? NodeId::Nil() : related->second.node, worker};
}

void AdoptionCore::AddLocation(const ObjectId& id, const NodeId& node, uint32_t attempt, AdoptionEffects* out) {
  if (dead_nodes_.contains(node)) return;
  const auto it = objects_.find(id);
  if (it == objects_.end() || it->second.lost || it->second.value.blob != nullptr || it->second.value.attempt != attempt) {
    out->emplace_back(FreeAdopted{{id, attempt}, {node}});
    return;
  }
  std::vector<NodeId>& nodes = it->second.value.nodes;
  if (std::ranges::find(nodes, node) == nodes.end()) nodes.push_back(node);
}

void AdoptionCore::LoseCopy(const ObjectId& id, const NodeId& node, uint32_t attempt, AdoptionEffects* out) {
  const auto it = objects_.find(id);
  if (it != objects_.end() && it->second.value.attempt == attempt) LoseNode(&it->second, id, node, out);
}

void AdoptionCore::LoseNode(Object* object, const ObjectId& id, const NodeId& node, AdoptionEffects* out) {
  std::vector<NodeId>& nodes = object->value.nodes;
  const auto it = std::ranges::find(nodes, node);
  if (it == nodes.end()) return;
  const bool primary = it == nodes.begin();
  nodes.erase(it);
  if (nodes.empty()) {
    object->lost = true;
  } else if (primary) {
    out->emplace_back(KeepAdopted{{id, object->value.attempt}, nodes.front()});
  }
}

void AdoptionCore::DropIfUnheld(const ObjectId& first, AdoptionEffects* out) {
  // A work list, not recursion: chains of values that contain one another may be long.
  std::vector<ObjectId> todo{first};
  while (!todo.empty()) {
    const ObjectId id = todo.back();
    todo.pop_back();
    const auto it = objects_.find(id);
    if (it == objects_.end() || !owners_.at(it->second.owner).complete) continue;
    auto& borrowers = it->second.borrowers;
    for (auto b = borrowers.begin(); b != borrowers.end();) {
      if (b->second > 0) {
        ++b;
        continue;
      }
      const auto [borrower, registrar] = b->first;
      b = borrowers.erase(b);
      ForgetRelation(it->second, id, borrower);
      ForgetRelation(it->second, id, registrar);
    }
    if (borrowers.empty()) Drop(id, out, &todo);
  }
}

void AdoptionCore::LetGo(std::span<const ObjectRefInfo> nested, const WorkerId& outer_owner, AdoptionEffects* out,
                         std::vector<ObjectId>* let_go) {
  for (const ObjectRefInfo& ref : nested) {
    const auto it = objects_.find(ref.id);
    const WorkerId registrar = ref.owner.worker_id == outer_owner ? WorkerId::Nil() : outer_owner;
    if (it == objects_.end()) {
      out->emplace_back(GiveBackNested{ref.id, ref.owner, registrar});
    } else {
      --it->second.borrowers[{self_.worker_id, registrar}];
      let_go->push_back(ref.id);
    }
  }
}

void AdoptionCore::Drop(const ObjectId& id, AdoptionEffects* out, std::vector<ObjectId>* let_go) {
  auto node = objects_.extract(id);
  Object& object = node.mapped();
  for (const auto& [who, count] : std::exchange(object.borrowers, {})) {
    ForgetRelation(object, id, who.first);
    ForgetRelation(object, id, who.second);
  }
  const auto of = owners_.find(object.owner);
  of->second.objects.erase(id);
  if (of->second.objects.empty()) owners_.erase(of);
  if (object.value.blob != nullptr) inline_bytes_ -= object.value.blob->size();
  if (!object.value.nodes.empty()) out->emplace_back(FreeAdopted{{id, object.value.attempt}, std::move(object.value.nodes)});
  LetGo(object.value.nested, object.owner, out, let_go);
}

void AdoptionCore::OwnerDied(const WorkerId& owner, AdoptionEffects* out) {
  const auto of = owners_.find(owner);
  if (of == owners_.end() || of->second.complete) return;
  const std::vector<ObjectId> ids(of->second.objects.begin(), of->second.objects.end());
  std::vector<ObjectId> let_go;
  for (const ObjectId& id : ids) Drop(id, out, &let_go);
  for (const ObjectId& id : let_go) DropIfUnheld(id, out);
}

void AdoptionCore::WorkerDied(const WorkerId& worker, AdoptionEffects* out) {
  dead_.insert(worker);
  OwnerDied(worker, out);
  auto related = related_.extract(worker);
  if (!related) return;
  for (const ObjectId& id : related.mapped().ids) {
    const auto it = objects_.find(id);
    if (it == objects_.end()) continue;  // dropped just now
    auto& borrowers = it->second.borrowers;
    std::vector<WorkerId> registrars;  // of its own counts
    std::erase_if(borrowers, [&](const auto& b) {
      if (b.first.first != worker) return false;
      registrars.push_back(b.first.second);
      return true;
    });
    for (const WorkerId& registrar : registrars) ForgetRelation(it->second, id, registrar);
    if (std::ranges::any_of(borrowers, [&](const auto& b) { return b.first.second == worker; })) {
      related_[worker].node = related.mapped().node;
      related_[worker].ids.insert(id);
    }
    DropIfUnheld(id, out);
  }
  const std::vector<ObjectId> ids(related.mapped().ids.begin(), related.mapped().ids.end());
  SettleDead(ids, worker, out);
}

void AdoptionCore::NodeDied(const NodeId& node, AdoptionEffects* out) {
  dead_nodes_.insert(node);
  std::vector<WorkerId> workers;
  for (const auto& [worker, related] : related_) {
    if (related.node == node) workers.push_back(worker);
  }
  for (const auto& [owner, of] : owners_) {
    if (of.node == node && !of.complete) workers.push_back(owner);
  }
  for (const WorkerId& worker : workers) WorkerDied(worker, out);
  for (auto& [id, object] : objects_) LoseNode(&object, id, node, out);
}

const AdoptionCore::Object* AdoptionCore::Find(const ObjectId& id) const {
  const auto it = objects_.find(id);
  return it == objects_.end() ? nullptr : &it->second;
}

bool AdoptionCore::IsAdopted(const WorkerId& owner) const {
  const auto it = owners_.find(owner);
  return it != owners_.end() && it->second.complete;
}

bool AdoptionCore::IsTaking(const WorkerId& owner) const {
  const auto it = owners_.find(owner);
  return it != owners_.end() && !it->second.complete;
}

}  // namespace ray::raylet
