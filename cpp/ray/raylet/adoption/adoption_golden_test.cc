// Replays tests/scenarios/adoption. Objects, processes and nodes are numbers; process 12 is of node 1, 34 of node 3; the adopter is node 9, as a process 99.
// The events:
//   adopt OWNER OBJECT [on=NODE,NODE attempt=] [has=OBJECT:OWNER,...]      complete OWNER [OBJECT:BORROWER:COUNT[:REGISTRAR] ...] [more] [part=]
//   add OBJECT BORROWER [by=REGISTRAR]    remove OBJECT BORROWER [COUNT] [by=]    left OBJECT BORROWER COUNT by=
//   location OBJECT NODE attempt=    lose OBJECT NODE attempt=    worker-died PROCESS    node-died NODE    show
#include <gtest/gtest.h>

#include <memory>
#include <sstream>

#include "ray/raylet/adoption/adoption_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::raylet {
namespace {

using testing::GoldenEvent;

ObjectId Object(uint64_t n) { return ObjectId::FromBinaryOrNil(std::string(ObjectId::kSize, static_cast<char>(n))); }
NodeId Node(uint64_t n) { return NodeId::FromBinaryOrNil(std::string(NodeId::kSize, static_cast<char>(n))); }
Address Process(uint64_t n) {
  if (n == 99) return RayletAsProcess(Node(9));
  return {Node(n / 10), WorkerId::FromBinaryOrNil(std::string(WorkerId::kSize, static_cast<char>(n)))};
}
template <typename Id>
std::string No(const Id& id) {
  return std::to_string(id.data()[0]);
}
std::string Name(const WorkerId& id) { return id.data()[0] == 9 ? "99" : No(id); }
std::string By(const WorkerId& registrar) { return registrar.IsNil() ? "" : " by " + Name(registrar); }

std::vector<uint64_t> Numbers(const std::string& text, char separator) {
  std::vector<uint64_t> numbers;
  std::istringstream stream(text);
  for (std::string item; std::getline(stream, item, separator);) numbers.push_back(std::stoull(item));
  return numbers;
}

std::string Run(const CopyRun& copy) { return No(copy.id) + (copy.attempt == 0 ? "" : " of run " + std::to_string(copy.attempt)); }

struct Show {
  std::string operator()(const FreeAdopted& e) {
    std::string text = "free " + Run(e.copy) + " on";
    for (const NodeId& node : e.nodes) text += " " + No(node);
    return text;
  }
  std::string operator()(const KeepAdopted& e) { return "keep " + Run(e.copy) + " on " + No(e.node); }
  std::string operator()(const GiveBackNested& e) { return "give " + No(e.id) + " back to " + Name(e.owner.worker_id) + By(e.registrar); }
  std::string operator()(const SettleAdopted& e) {
    return "ask " + Name(e.borrower.worker_id) + " what is left of " + No(e.id) + " of " + Name(e.owner.worker_id) +
           By(e.registrar.worker_id);
  }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    AdoptionEffects effects;
    std::vector<std::string> lines;
    Carry(event, &effects, &lines);
    for (const AdoptionEffect& effect : effects) lines.push_back(std::visit(Show{}, effect));
    return lines;
  }

 private:
  void Carry(const GoldenEvent& event, AdoptionEffects* out, std::vector<std::string>* lines) {
    const std::string& name = event.name();
    const uint32_t attempt = static_cast<uint32_t>(event.Number("attempt", 0));
    const uint64_t by = static_cast<uint64_t>(event.Number("by", 0));
    const Address registrar = by == 0 ? Address() : Process(by);
    if (name == "adopt") {
      AdoptedValue value;
      value.metadata = "RAW";
      value.attempt = attempt;
      if (const std::string on = event.Word("on", ""); !on.empty()) {
        for (uint64_t node : Numbers(on, ',')) value.nodes.push_back(Node(node));
      } else {
        value.blob = HeapBuffer::CopyOf("value");
      }
      std::istringstream has(event.Word("has", ""));
      for (std::string item; std::getline(has, item, ',');) {
        const auto ref = Numbers(item, ':');
        value.nested.push_back({Object(ref[0]), Process(ref[1])});
      }
      core_->Adopt(Process(event.Number(0)), Object(event.Number(1)), std::move(value), out);
    } else if (name == "complete") {
      std::vector<BorrowCount> counts;
      bool more = false;
      for (size_t i = 1; i < event.num_words(); ++i) {
        const std::string word = event.Word(i);
        if (word == "more") {
          more = true;
          continue;
        }
        const auto numbers = Numbers(word, ':');
        counts.push_back({Object(numbers[0]), Process(numbers[1]), static_cast<uint32_t>(numbers[2]),
                          numbers.size() > 3 ? Process(numbers[3]) : Address()});
      }
      core_->Complete(Process(event.Number(0)), static_cast<uint32_t>(event.Number("part", 0)), counts, !more, out);
    } else if (name == "add") {
      if (!core_->AddBorrower(Object(event.Number(0)), Process(event.Number(1)), registrar, out)) lines->push_back("unknown");
    } else if (name == "remove") {
      const uint32_t count = event.num_words() > 2 ? static_cast<uint32_t>(event.Number(2)) : 1;
      core_->RemoveBorrower(Object(event.Number(0)), Process(event.Number(1)).worker_id, registrar.worker_id, count, out);
    } else if (name == "left") {
      core_->SettleBorrower(Object(event.Number(0)), Process(event.Number(1)).worker_id, registrar.worker_id,
                            static_cast<uint32_t>(event.Number(2)), out);
    } else if (name == "location") {
      core_->AddLocation(Object(event.Number(0)), Node(event.Number(1)), attempt, out);
    } else if (name == "lose") {
      core_->LoseCopy(Object(event.Number(0)), Node(event.Number(1)), attempt, out);
    } else if (name == "worker-died") {
      core_->WorkerDied(Process(event.Number(0)).worker_id, out);
    } else if (name == "node-died") {
      core_->NodeDied(Node(event.Number(0)), out);
    } else if (name == "show") {
      for (uint64_t n = 1; n < 100; ++n) {
        const AdoptionCore::Object* object = core_->Find(Object(n));
        if (object == nullptr) continue;
        std::string text = std::to_string(n) + " of " + No(object->owner) + (core_->IsAdopted(object->owner) ? "" : " (not yet)") +
                           (object->lost ? ", lost" : "") + ":";
        for (const auto& [who, count] : object->borrowers) text += " " + Name(who.first) + "x" + std::to_string(count) + By(who.second);
        lines->push_back(text);
      }
      lines->push_back(std::to_string(core_->num_objects()) + " objects of " + std::to_string(core_->num_owners()) + " owners, " +
                       std::to_string(core_->inline_bytes()) + " bytes");
    } else {
      event.Fail("no such event: " + name);
    }
  }

  std::shared_ptr<AdoptionCore> core_ = std::make_shared<AdoptionCore>(Node(9));
};

TEST(AdoptionGoldenTest, Scenarios) {
  testing::ReplayGoldens("adoption", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::raylet
