#include "ray/core_worker/ownership/reference_table.h"

#include <algorithm>
#include <utility>

#include "ray/util/check.h"
#include "ray/util/sparse.h"

namespace ray::core {

struct ReferenceTable::Rare {
  bool borrowed = false;
  Address owner;                                        // borrowed: whose it is
  uint32_t given = 0;                                   // borrowed: counts that the owner keeps for us, by itself or since we asked for it
  std::vector<std::pair<WorkerId, uint32_t>> given_by;  // borrowed: those that it keeps since a third process asked for it
  uint32_t registering = 0;  // borrowed: our own registrations on their way; the entry stays until they are answered
  struct Borrower {
    WorkerId process, registrar;
    uint32_t count;  // not 0
  };
  std::vector<Borrower> borrowers;  // owned: who else has it
  std::vector<ObjectId> nested;     // what its value contains, once for each time

  bool IsGiven() const { return given != 0 || !given_by.empty(); }
  auto Find(const WorkerId& process, const WorkerId& registrar) {
    return std::ranges::find_if(borrowers, [&](const Borrower& b) { return b.process == process && b.registrar == registrar; });
  }
  bool Names(const WorkerId& worker) const {
    return std::ranges::any_of(borrowers, [&](const Borrower& b) { return b.process == worker || b.registrar == worker; });
  }
  uint32_t NumBorrowers() const {
    std::unordered_set<WorkerId, IdHash> processes;
    for (const Borrower& b : borrowers) processes.insert(b.process);
    return static_cast<uint32_t>(processes.size());
  }
};

ReferenceTable::Entry::Entry() = default;
ReferenceTable::Entry::~Entry() = default;
ReferenceTable::ReferenceTable(const Address& self) : self_(self) {}
ReferenceTable::~ReferenceTable() = default;

ReferenceTable::Rare& ReferenceTable::RareOf(Entry* entry) {
  if (entry->rare == nullptr) entry->rare = std::make_unique<Rare>();
  return *entry->rare;
}

ReferenceTable::Entry* ReferenceTable::FindLocked(const ObjectId& id) {
  auto it = entries_.find(id);
  return it == entries_.end() ? nullptr : &it->second;
}

ReferenceTable::Entry* ReferenceTable::FindOrBorrowLocked(const ObjectRefInfo& ref) {
  auto [it, is_new] = entries_.try_emplace(ref.id);
  if (is_new) {
    Rare& rare = RareOf(&it->second);
    rare.borrowed = true;
    rare.owner = ref.owner;
    RelateLocked(ref.owner, ref.id);
  }
  return &it->second;
}

void ReferenceTable::ForgetRelationLocked(const WorkerId& worker, const ObjectId& id) {
  auto it = related_.find(worker);
  if (it == related_.end()) return;
  it->second.ids.erase(id);
  if (it->second.ids.empty()) related_.erase(it);
}

void ReferenceTable::RelateLocked(const Address& process, const ObjectId& id) {
  Related& related = related_[process.worker_id];
  related.node = process.node_id;
  related.ids.insert(id);
}

void ReferenceTable::ContainLocked(Entry* outer, std::span<const ObjectId> nested) {
  for (const ObjectId& id : nested) {
    Entry* inner = FindLocked(id);
    if (inner == nullptr) continue;
    ++inner->contained;
    RareOf(outer).nested.push_back(id);
  }
}

void ReferenceTable::MaybeDropLocked(const ObjectId& first, RefEffects* effects) {
  // A work list, not recursion: chains of values that contain one another may be long.
  std::vector<ObjectId> more;
  ObjectId id = first;
  while (true) {
    auto it = entries_.find(id);
    if (it != entries_.end()) {
      Entry& entry = it->second;
      Rare* rare = entry.rare.get();
      const bool held = entry.local != 0 || entry.submitted != 0 || entry.contained != 0 ||
                        (rare != nullptr && (rare->registering != 0 || !rare->borrowers.empty()));
      if (!held) {
        effects->dropped.push_back(id);
        if (rare != nullptr && rare->borrowed) {
          if (id.index() == 0) effects->handles_given_back.push_back(id.task_id().actor_id());
          ForgetRelationLocked(rare->owner.worker_id, id);
          if (rare->IsGiven() && !IsLostLocked(rare->owner)) {
            if (rare->given != 0) effects->give_back.push_back({id, rare->owner, WorkerId::Nil(), rare->given});
            for (const auto& [registrar, count] : rare->given_by) effects->give_back.push_back({id, rare->owner, registrar, count});
          }
        } else if (id.index() == 0) {
          effects->actors_out_of_scope.push_back(id.task_id().actor_id());
        } else {
          effects->freed.push_back(id);
        }
        if (rare != nullptr) {
          for (const ObjectId& inner_id : rare->nested) {
            Entry* inner = FindLocked(inner_id);
            RAY_CHECK(inner != nullptr && inner->contained != 0) << "containment of " << inner_id;
            if (--inner->contained == 0) more.push_back(inner_id);
          }
        }
        entries_.erase(it);
      }
    }
    if (more.empty()) {
      effects->shrunk |= ShrinkIfSparse(&entries_);
      return;
    }
    id = more.back();
    more.pop_back();
  }
}

void ReferenceTable::AddOwned(const ObjectId& id, uint32_t local, std::span<const ObjectId> nested) {
  MutexLock lock(&mu_);
  auto [it, is_new] = entries_.try_emplace(id);
  it->second.local += local;
  if (is_new && !nested.empty()) ContainLocked(&it->second, nested);
}

bool ReferenceTable::AddLocal(const ObjectId& id) {
  MutexLock lock(&mu_);
  Entry* entry = FindLocked(id);
  if (entry == nullptr) return false;
  ++entry->local;
  return true;
}

void ReferenceTable::RemoveLocal(const ObjectId& id, RefEffects* effects) {
  MutexLock lock(&mu_);
  Entry* entry = FindLocked(id);
  if (entry == nullptr || entry->local == 0) return;
  if (--entry->local == 0) MaybeDropLocked(id, effects);
}

void ReferenceTable::AddSubmitted(std::span<const ObjectId> ids) {
  if (ids.empty()) return;
  MutexLock lock(&mu_);
  for (const ObjectId& id : ids) {
    if (Entry* entry = FindLocked(id)) ++entry->submitted;
  }
}

void ReferenceTable::RemoveSubmitted(std::span<const ObjectId> ids, RefEffects* effects) {
  if (ids.empty()) return;
  MutexLock lock(&mu_);
  for (const ObjectId& id : ids) {
    Entry* entry = FindLocked(id);
    if (entry == nullptr || entry->submitted == 0) continue;
    if (--entry->submitted == 0) MaybeDropLocked(id, effects);
  }
}

std::vector<ObjectId> ReferenceTable::AddSubmittedIfKnown(std::span<const ObjectId> ids) {
  std::vector<ObjectId> held;
  MutexLock lock(&mu_);
  for (const ObjectId& id : ids) {
    Entry* entry = FindLocked(id);
    if (entry == nullptr) continue;
    ++entry->submitted;
    held.push_back(id);
  }
  return held;
}

bool ReferenceTable::AddSubmittedIfKnown(const ObjectId& id) {
  MutexLock lock(&mu_);
  Entry* entry = FindLocked(id);
  if (entry != nullptr) ++entry->submitted;
  return entry != nullptr;
}

bool ReferenceTable::Revive(const ObjectId& id) {
  MutexLock lock(&mu_);
  auto [it, is_new] = entries_.try_emplace(id);
  ++it->second.submitted;
  return is_new;
}

void ReferenceTable::ForgetNested(const ObjectId& outer, RefEffects* effects) {
  MutexLock lock(&mu_);
  Entry* entry = FindLocked(outer);
  if (entry == nullptr || entry->rare == nullptr) return;
  for (const ObjectId& id : std::exchange(entry->rare->nested, {})) {
    Entry* inner = FindLocked(id);
    RAY_CHECK(inner != nullptr && inner->contained != 0) << "containment of " << id;
    if (--inner->contained == 0) MaybeDropLocked(id, effects);
  }
}

ReferenceTable::Borrow ReferenceTable::AddBorrowed(const ObjectRefInfo& ref, uint64_t task, ObjectId* outer) {
  MutexLock lock(&mu_);
  if (ref.owner.IsNil() || ref.owner == self_) {
    *outer = ObjectId::Nil();
    auto [it, is_new] = entries_.try_emplace(ref.id);
    ++it->second.local;
    return is_new ? Borrow::kFreed : Borrow::kKnown;
  }
  Entry* entry = FindOrBorrowLocked(ref);
  ++entry->local;
  const Rare* rare = entry->rare.get();
  // With an owner of another name on file (a faulty peer), the first one stays.
  if (rare == nullptr || !rare->borrowed || rare->IsGiven()) {
    *outer = ObjectId::Nil();
    return Borrow::kKnown;
  }
  if (task != 0) {
    *outer = ObjectId::Nil();
    covered_[task].push_back(ref.id);
    return Borrow::kCovered;
  }
  if (rare->registering != 0) {  // its own cover lasts until the answer
    *outer = ObjectId::Nil();
    return Borrow::kKnown;
  }
  ++entry->rare->registering;
  if (Entry* cover = FindLocked(*outer)) {
    ++cover->submitted;
  } else {
    *outer = ObjectId::Nil();
  }
  return Borrow::kRegister;
}

void ReferenceTable::OnRegistered(const ObjectId& id, const ObjectId& outer, bool counted, RefEffects* effects) {
  MutexLock lock(&mu_);
  Entry* entry = FindLocked(id);
  RAY_CHECK(entry != nullptr && entry->rare != nullptr && entry->rare->registering != 0) << "registration of " << id;
  --entry->rare->registering;
  if (counted) ++entry->rare->given;
  MaybeDropLocked(id, effects);
  if (outer.IsNil()) return;
  Entry* cover = FindLocked(outer);
  RAY_CHECK(cover != nullptr && cover->submitted != 0) << "cover by " << outer;
  if (--cover->submitted == 0) MaybeDropLocked(outer, effects);
}

std::vector<ObjectRefInfo> ReferenceTable::EndTask(uint64_t task, std::vector<ObjectId>* in_flight) {
  std::vector<ObjectRefInfo> to_register;
  MutexLock lock(&mu_);
  if (covered_.empty()) return to_register;
  auto node = covered_.extract(task);
  if (!node) return to_register;
  std::vector<ObjectId>& ids = node.mapped();
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  for (const ObjectId& id : ids) {
    Entry* entry = FindLocked(id);
    if (entry == nullptr || entry->rare == nullptr || !entry->rare->borrowed || entry->rare->IsGiven()) continue;
    if (entry->rare->registering != 0) {
      in_flight->push_back(id);
    } else {  // one that is dead may have handed it over
      ++entry->rare->registering;
      to_register.push_back({id, entry->rare->owner});
    }
  }
  return to_register;
}

bool ReferenceTable::IsRegistering(const ObjectId& id) const {
  MutexLock lock(&mu_);
  auto it = entries_.find(id);
  return it != entries_.end() && it->second.rare != nullptr && it->second.rare->registering != 0;
}

void ReferenceTable::AddGiven(const ObjectId& outer, std::span<const ObjectRefInfo> nested, const WorkerId& sender, RefEffects* effects) {
  if (nested.empty()) return;
  std::vector<ObjectId> ids;
  ids.reserve(nested.size());
  MutexLock lock(&mu_);
  for (const ObjectRefInfo& ref : nested) {
    ids.push_back(ref.id);
    if (ref.owner.IsNil() || ref.owner == self_) continue;
    Entry* entry = FindOrBorrowLocked(ref);
    if (entry->rare == nullptr || !entry->rare->borrowed) continue;
    if (sender.IsNil() || ref.owner.worker_id == sender) {
      ++entry->rare->given;
      continue;
    }
    auto& given_by = entry->rare->given_by;
    const auto it = std::ranges::find(given_by, sender, [](const auto& by) { return by.first; });
    if (it != given_by.end()) {
      ++it->second;
    } else {
      given_by.emplace_back(sender, 1);
    }
  }
  Entry* holder = FindLocked(outer);
  if (holder != nullptr && (holder->rare == nullptr || holder->rare->nested.empty())) {
    ContainLocked(holder, ids);
  } else {
    for (const ObjectId& id : ids) MaybeDropLocked(id, effects);
  }
}

uint32_t ReferenceTable::TakeGivenBy(const ObjectId& id, const WorkerId& registrar) {
  MutexLock lock(&mu_);
  const auto entry = entries_.find(id);
  if (entry == entries_.end() || entry->second.rare == nullptr) return 0;
  Rare& rare = *entry->second.rare;
  const auto it = std::ranges::find(rare.given_by, registrar, [](const auto& by) { return by.first; });
  if (it == rare.given_by.end()) return 0;
  const uint32_t count = it->second;
  rare.given_by.erase(it);
  rare.given += count;
  return count;
}

uint32_t ReferenceTable::GivenBy(const ObjectId& id, const WorkerId& registrar) const {
  MutexLock lock(&mu_);
  const auto entry = entries_.find(id);
  if (entry == entries_.end() || entry->second.rare == nullptr) return 0;
  if (registrar.IsNil()) return entry->second.rare->given;
  const auto& given_by = entry->second.rare->given_by;
  const auto it = std::ranges::find(given_by, registrar, [](const auto& by) { return by.first; });
  return it == given_by.end() ? 0 : it->second;
}

std::vector<ObjectRefInfo> ReferenceTable::NestedOf(const ObjectId& outer) const {
  std::vector<ObjectRefInfo> nested;
  MutexLock lock(&mu_);
  auto it = entries_.find(outer);
  if (it == entries_.end() || it->second.rare == nullptr) return nested;
  for (const ObjectId& id : it->second.rare->nested) {
    auto inner = entries_.find(id);
    RAY_CHECK(inner != entries_.end()) << "containment of " << id;
    const Rare* rare = inner->second.rare.get();
    nested.push_back({id, rare != nullptr && rare->borrowed ? rare->owner : self_});
  }
  return nested;
}

bool ReferenceTable::AddBorrower(const ObjectId& id, const Address& borrower) {
  RefEffects none;  // nobody else is involved
  return AddBorrower(id, borrower, Address(), &none);
}

bool ReferenceTable::AddBorrower(const ObjectId& id, const Address& borrower, const Address& registrar, RefEffects* effects) {
  MutexLock lock(&mu_);
  Entry* entry = FindLocked(id);
  if (entry == nullptr || (entry->rare != nullptr && entry->rare->borrowed)) return false;
  if (IsDeadLocked(borrower)) return true;
  Rare& rare = RareOf(entry);
  const auto it = rare.Find(borrower.worker_id, registrar.worker_id);
  if (it != rare.borrowers.end()) {
    ++it->count;
  } else {
    rare.borrowers.push_back({borrower.worker_id, registrar.worker_id, 1});
    RelateLocked(borrower, id);
    if (!registrar.IsNil()) RelateLocked(registrar, id);
  }
  if (!registrar.IsNil() && IsDeadLocked(registrar)) effects->settle.push_back({id, borrower, registrar});
  return true;
}

void ReferenceTable::RemoveBorrower(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar, uint32_t count,
                                    RefEffects* effects) {
  MutexLock lock(&mu_);
  Entry* entry = FindLocked(id);
  if (entry == nullptr || entry->rare == nullptr) return;
  const auto it = entry->rare->Find(borrower, registrar);
  if (it == entry->rare->borrowers.end()) return;
  it->count -= std::min(it->count, count);
  if (it->count != 0) return;
  ForgetBorrowerLocked(id, entry, borrower, registrar);
  MaybeDropLocked(id, effects);
}

void ReferenceTable::SettleBorrower(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar, uint32_t left,
                                    RefEffects* effects) {
  MutexLock lock(&mu_);
  Entry* entry = FindLocked(id);
  if (entry == nullptr || entry->rare == nullptr) return;
  Rare& rare = *entry->rare;
  const auto it = rare.Find(borrower, registrar);
  if (it == rare.borrowers.end()) return;
  it->count = std::min(it->count, left);
  if (it->count != 0) {
    if (AddressLocked(borrower) == RayletAsProcess(AddressLocked(borrower).node_id)) return;  // an adopter gives back by the registrar
    const uint32_t count = it->count;
    if (const auto own = rare.Find(borrower, WorkerId::Nil()); own != rare.borrowers.end()) {
      own->count += count;
    } else {
      rare.borrowers.push_back({borrower, WorkerId::Nil(), count});
    }
  }
  ForgetBorrowerLocked(id, entry, borrower, registrar);
  MaybeDropLocked(id, effects);
}

bool ReferenceTable::HasBorrower(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar) const {
  MutexLock lock(&mu_);
  const auto entry = entries_.find(id);
  return entry != entries_.end() && entry->second.rare != nullptr &&
         entry->second.rare->Find(borrower, registrar) != entry->second.rare->borrowers.end();
}

void ReferenceTable::ForgetBorrowerLocked(const ObjectId& id, Entry* entry, const WorkerId& borrower, const WorkerId& registrar) {
  entry->rare->borrowers.erase(entry->rare->Find(borrower, registrar));
  for (const WorkerId& worker : {borrower, registrar}) {
    if (!entry->rare->Names(worker)) ForgetRelationLocked(worker, id);
  }
}

Address ReferenceTable::AddressLocked(const WorkerId& worker) const {
  if (worker.IsNil()) return {};
  const auto related = related_.find(worker);
  return {related == related_.end() ? NodeId::Nil() : related->second.node, worker};
}

std::vector<ObjectId> ReferenceTable::WorkerDied(const WorkerId& worker, RefEffects* effects, Address* address) {
  std::vector<ObjectId> orphans;
  MutexLock lock(&mu_);
  dead_.insert(worker);
  auto related = related_.extract(worker);
  if (!related) return orphans;
  const auto adopter = moved_.find(worker);
  const bool adopted = adopter != moved_.end() && !dead_nodes_.contains(adopter->second);
  std::vector<ObjectId> ids(related.mapped().ids.begin(), related.mapped().ids.end());
  std::sort(ids.begin(), ids.end());
  for (const ObjectId& id : ids) {
    Entry* entry = FindLocked(id);
    if (entry == nullptr || entry->rare == nullptr) continue;  // dropped just now, by containment
    if (entry->rare->borrowed) {
      *address = entry->rare->owner;
      orphans.push_back(id);
      continue;
    }
    std::vector<WorkerId> registrars;  // of its own counts
    std::erase_if(entry->rare->borrowers, [&](const Rare::Borrower& b) {
      if (b.process != worker) return false;
      if (!b.registrar.IsNil()) registrars.push_back(b.registrar);
      return true;
    });
    for (const WorkerId& other : registrars) {
      if (!entry->rare->Names(other)) ForgetRelationLocked(other, id);
    }
    const Address registrar{related.mapped().node, worker};
    for (const Rare::Borrower& b : entry->rare->borrowers) {
      if (b.registrar == worker) effects->settle.push_back({id, AddressLocked(b.process), registrar});
    }
    if (entry->rare->Names(worker)) RelateLocked(registrar, id);
    MaybeDropLocked(id, effects);
  }
  if (!adopted) return orphans;
  for (const ObjectId& id : orphans) {
    if (entries_.contains(id)) RelateLocked({adopter->second, worker}, id);
  }
  return {};
}

std::vector<WorkerId> ReferenceTable::OwnerMoved(const WorkerId& owner, const NodeId& adopter) {
  std::vector<WorkerId> forgotten;
  MutexLock lock(&mu_);
  moved_[owner] = adopter;
  if (moved_.size() <= max_moved_) return forgotten;
  std::erase_if(moved_, [&](const auto& entry) {
    if (entry.first == owner || related_.contains(entry.first)) return false;
    forgotten.push_back(entry.first);
    return true;
  });
  max_moved_ = std::max(kMinMoved, moved_.size() * 2);
  return forgotten;
}

std::vector<WorkerId> ReferenceTable::NodeDied(const NodeId& node) {
  std::vector<WorkerId> workers;
  MutexLock lock(&mu_);
  dead_nodes_.insert(node);
  for (const auto& [worker, related] : related_) {
    // Of an owner that has left the node does not matter, but that of who answers for it.
    const auto adopter = moved_.find(worker);
    if (related.node == node || (adopter != moved_.end() && adopter->second == node)) workers.push_back(worker);
  }
  std::sort(workers.begin(), workers.end());
  return workers;
}

std::vector<ReferenceTable::Lent> ReferenceTable::LentOut() const {
  std::vector<Lent> lent;
  MutexLock lock(&mu_);
  std::vector<ObjectId> todo;
  for (const auto& [id, entry] : entries_) {
    if (entry.rare != nullptr && !entry.rare->borrowed && !entry.rare->borrowers.empty() && id.index() != 0) todo.push_back(id);
  }
  std::unordered_set<ObjectId, IdHash> seen(todo.begin(), todo.end());
  while (!todo.empty()) {
    const auto it = entries_.find(todo.back());
    todo.pop_back();
    Lent& item = lent.emplace_back();
    item.id = it->first;
    const Rare* rare = it->second.rare.get();
    if (rare == nullptr) continue;
    for (const Rare::Borrower& b : rare->borrowers) {
      item.borrowers.push_back({AddressLocked(b.process), AddressLocked(b.registrar), b.count});
    }
    std::ranges::stable_sort(item.borrowers, {}, [](const LentTo& to) { return to.borrower.worker_id; });
    for (const ObjectId& inner : rare->nested) {
      const auto contained = entries_.find(inner);
      const bool ours = contained != entries_.end() && (contained->second.rare == nullptr || !contained->second.rare->borrowed);
      if (ours && inner.index() != 0 && seen.insert(inner).second) todo.push_back(inner);
    }
  }
  std::ranges::sort(lent, {}, &Lent::id);
  return lent;
}

bool ReferenceTable::Contains(const ObjectId& id) const {
  MutexLock lock(&mu_);
  return entries_.contains(id);
}

bool ReferenceTable::IsOwned(const ObjectId& id) const {
  MutexLock lock(&mu_);
  auto it = entries_.find(id);
  return it != entries_.end() && (it->second.rare == nullptr || !it->second.rare->borrowed);
}

Address ReferenceTable::OwnerOf(const ObjectId& id) const {
  MutexLock lock(&mu_);
  auto it = entries_.find(id);
  if (it == entries_.end()) return {};
  return it->second.rare != nullptr && it->second.rare->borrowed ? it->second.rare->owner : self_;
}

std::vector<ReferenceTable::Held> ReferenceTable::All(size_t limit, size_t* left_out) const {
  std::vector<Held> all;
  MutexLock lock(&mu_);
  *left_out = entries_.size() - std::min(entries_.size(), limit);
  all.reserve(entries_.size() - *left_out);
  for (const auto& [id, entry] : entries_) {
    if (all.size() == limit) break;
    const Rare* rare = entry.rare.get();
    all.push_back({id, rare != nullptr && rare->borrowed ? rare->owner : self_, entry.local, entry.submitted, entry.contained,
                   rare == nullptr ? 0 : rare->NumBorrowers()});
  }
  return all;
}

std::string ReferenceTable::Describe(const ObjectId& id) const {
  MutexLock lock(&mu_);
  auto it = entries_.find(id);
  if (it == entries_.end()) return "unknown here";
  const Entry& entry = it->second;
  const Rare* rare = entry.rare.get();
  std::string text = rare != nullptr && rare->borrowed ? "owned by worker " + rare->owner.worker_id.Hex() : "owned here";
  auto say = [&](size_t n, const char* what) {
    if (n != 0) text += ", " + std::to_string(n) + what;
  };
  say(entry.local, " handle(s)");
  say(entry.submitted, " use(s) by tasks in flight");
  say(entry.contained, " time(s) inside other values");
  if (rare != nullptr) {
    say(rare->NumBorrowers(), " borrower(s)");
    size_t given = rare->given;
    for (const auto& [registrar, count] : rare->given_by) given += count;
    say(given, " count(s) at its owner");
    say(rare->registering, " registration(s) on the way");
  }
  return text;
}

size_t ReferenceTable::size() const {
  MutexLock lock(&mu_);
  return entries_.size();
}

}  // namespace ray::core
