// CodeCounts: the core workers of a simulated cluster, what they wait for, and whether what they count of one another is so. Counts are exact sums (docs/architecture/ownership.md), so when
// nothing is under way any more, whoever is counted as a borrower lives and knows of each of the counts, by registrar: one too many would keep the object for good, one
// too few shows in what is read.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ray/raylet/adoption/adoption_core.h"
#include "ray/testing/workload/session.h"

namespace ray::sim {

class CodeCounts {
 public:
  // Until the process dies.
  void Add(Session* session);
  // `adopted`: what the adopter has, on that node. Empty: all is well.
  std::string Check(const NodeId& adopter, const raylet::AdoptionCore& adopted) const;
  // For people.
  std::vector<std::string> Waiting() const;

 private:
  // What is wrong with that one being counted so often; empty: nothing.
  std::string Unfounded(const ObjectId& id, const WorkerId& borrower, const WorkerId& registrar, int64_t count, const NodeId& adopter,
                        const raylet::AdoptionCore& adopted) const;

  std::map<WorkerId, Session*> live_;
};

}  // namespace ray::sim
