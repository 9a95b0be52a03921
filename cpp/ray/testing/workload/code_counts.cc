#include "ray/testing/workload/code_counts.h"

#include <algorithm>

namespace ray::sim {

void CodeCounts::Add(Session* session) {
  const WorkerId id = session->worker()->info().address.worker_id;
  live_.emplace(id, session);
  session->process()->OnDeath([this, id](int) { live_.erase(id); });
}

std::vector<std::string> CodeCounts::Waiting() const {
  std::vector<std::string> all;
  for (const auto& [id, session] : live_) {
    for (const std::string& what : session->waiting()) all.push_back("p" + std::to_string(session->process()->id()) + ": " + what);
  }
  return all;
}

std::string CodeCounts::Unfounded(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar, int64_t count,
                                  const NodeId& adopter, const raylet::AdoptionCore& adopted) const {
  if (borrower == RayletAsProcess(adopter).worker_id) {
    if (registrar.IsNil()) {
      // What the owner itself has put into its objects.
      int64_t contained = 0;
      for (const auto& [outer, object] : adopted.objects()) {
        contained += std::ranges::count_if(object.value.nested,
                                           [&](const ObjectRefInfo& ref) { return ref.id == id && ref.owner.worker_id == object.owner; });
      }
      return contained == count ? "" : "the adopter, which has it " + std::to_string(contained) + " times";
    }
    const uint32_t contained = adopted.Contained({&id, 1}, registrar)[0];
    return contained == count ? "" : "the adopter, which has it " + std::to_string(contained) + " times of process " + registrar.Hex();
  }
  const auto live = live_.find(borrower);
  if (live == live_.end()) return "process " + borrower.Hex() + ", which is dead";
  if (live->second->worker()->info().adopter != adopter) return {};  // it was there before this head, and asks the one that is gone
  const core::ReferenceTable& references = live->second->worker()->objects().references();
  const std::string name = "p" + std::to_string(live->second->process()->id());
  if (!references.Contains(id)) return name + ", which does not hold it";
  const uint32_t given = references.GivenBy(id, registrar);
  if (given == count) return {};
  return name + ", which knows of " + std::to_string(given) + (registrar.IsNil() ? "" : " by process " + registrar.Hex());
}

std::string CodeCounts::Check(const NodeId& adopter, const raylet::AdoptionCore& adopted) const {
  for (const auto& [owner, live] : live_) {
    for (const core::ReferenceTable::Lent& lent : live->worker()->objects().references().LentOut()) {
      for (const auto& to : lent.borrowers) {
        if (const std::string who = Unfounded(lent.id, to.borrower.worker_id, to.registrar.worker_id, to.count, adopter, adopted);
            !who.empty())
          return "p" + std::to_string(live->process()->id()) + " counts " + std::to_string(to.count) + " of object " + lent.id.Hex() +
                 " for " + who;
      }
    }
  }
  for (const auto& [id, object] : adopted.objects()) {
    if (!adopted.IsAdopted(object.owner)) return "the adopter has object " + id.Hex() + " of an owner that has not told its counts";
    for (const auto& [whom, count] : object.borrowers) {
      if (const std::string who = Unfounded(id, whom.first, whom.second, count, adopter, adopted); !who.empty())
        return "the adopter counts " + std::to_string(count) + " of object " + id.Hex() + " for " + who;
    }
  }
  return {};
}

}  // namespace ray::sim
