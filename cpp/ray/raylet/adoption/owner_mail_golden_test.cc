// Replays tests/scenarios/owner_mail. Processes and objects are numbers; process 12 is of node 1, 34 of node 3. Times are milliseconds. The events:
//   count OWNER RECEIVER OBJECT... at=    give-back OWNER OBJECT [by=]    tell OWNER OBJECT LEFT by=    flush at=    answer NUMBER    moved NUMBER    returned OWNER NUMBER at=
//   silence NUMBER at=    adopted OWNER heard=    worker-died PROCESS    node-died NODE    tick at=
#include <gtest/gtest.h>

#include <memory>

#include "ray/raylet/adoption/owner_mail_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::raylet {
namespace {

using testing::GoldenEvent;

ObjectId Object(uint64_t n) { return ObjectId::FromBinaryOrNil(std::string(ObjectId::kSize, static_cast<char>(n))); }
NodeId Node(uint64_t n) { return NodeId::FromBinaryOrNil(std::string(NodeId::kSize, static_cast<char>(n))); }
Address Process(uint64_t n) { return {Node(n / 10), WorkerId::FromBinaryOrNil(std::string(WorkerId::kSize, static_cast<char>(n)))}; }
template <typename Id>
std::string No(const Id& id) {
  return std::to_string(id.data()[0]);
}
std::string By(const WorkerId& registrar) { return registrar.IsNil() ? "" : " by " + No(registrar); }

struct Show {
  std::string operator()(const AskToCount& e) {
    std::string text = "ask " + No(e.owner.worker_id) + " to count " + No(e.receiver.worker_id) + " for";
    for (const ObjectId& id : e.ids) text += " " + No(id);
    return text + " (" + std::to_string(e.number) + ")";
  }
  std::string operator()(const ReturnCounts& e) {
    std::string text = "return to " + No(e.owner.worker_id);
    for (const auto& item : e.counts) text += " " + No(item.id) + "x" + std::to_string(item.count) + By(item.registrar);
    for (const auto& item : e.left) text += ", left of " + No(item.id) + By(item.registrar) + " " + std::to_string(item.count);
    return text + " (" + std::to_string(e.number) + ")";
  }
  std::string operator()(const CountHere& e) { return "count " + No(e.receiver.worker_id) + " for " + No(e.id) + " here"; }
  std::string operator()(const ReleaseHere& e) { return "release " + No(e.id) + "x" + std::to_string(e.count) + By(e.registrar) + " here"; }
  std::string operator()(const CountSettled& e) { return "settled (" + std::to_string(e.number) + ")"; }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    OwnerMailEffects out;
    const std::string& name = event.name();
    const Time now = Time{} + std::chrono::milliseconds(event.Number("at", 0));
    if (name == "count") {
      std::vector<ObjectId> ids;
      for (size_t i = 2; i < event.num_words(); ++i) ids.push_back(Object(event.Number(i)));
      core_->Count(Process(event.Number(0)), Process(event.Number(1)), std::move(ids), now, &out);
    } else if (name == "give-back") {
      core_->GiveBack(Process(event.Number(0)), Object(event.Number(1)), Registrar(event));
    } else if (name == "tell") {
      core_->Tell(Process(event.Number(0)), Object(event.Number(1)), Registrar(event), static_cast<uint32_t>(event.Number(2)));
    } else if (name == "flush") {
      core_->Flush(now, &out);
    } else if (name == "answer") {
      core_->OnAnswer(event.Number(0), &out);
    } else if (name == "moved") {
      core_->OnMoved(event.Number(0), &out);
    } else if (name == "returned") {
      core_->OnReturned(Process(event.Number(0)).worker_id, event.Number(1), now, &out);
    } else if (name == "silence") {
      core_->OnSilence(event.Number(0), now, &out);
    } else if (name == "adopted") {
      core_->OwnerAdopted(Process(event.Number(0)).worker_id, static_cast<uint64_t>(event.Number("heard", 0)), &out);
    } else if (name == "worker-died") {
      core_->WorkerDied(Process(event.Number(0)).worker_id, &out);
    } else if (name == "node-died") {
      core_->NodeDied(Node(event.Number(0)), &out);
    } else if (name == "tick") {
      core_->Tick(now, &out);
    } else {
      event.Fail("no such event: " + name);
    }
    std::vector<std::string> lines;
    for (const OwnerMailEffect& effect : out) lines.push_back(std::visit(Show{}, effect));
    if (name == "tick" || name == "silence") {
      const Time next = core_->NextDeadline();
      lines.push_back(next.is_infinite() ? "nothing is due" : "due at " + std::to_string(next.ns / 1'000'000));
    }
    if (core_->size() == 0) lines.emplace_back("empty");
    return lines;
  }

 private:
  static WorkerId Registrar(const GoldenEvent& event) {
    const int64_t by = event.Number("by", 0);
    return by == 0 ? WorkerId::Nil() : Process(static_cast<uint64_t>(by)).worker_id;
  }
  std::shared_ptr<OwnerMailCore> core_ = std::make_shared<OwnerMailCore>();
};

TEST(OwnerMailGoldenTest, Scenarios) {
  testing::ReplayGoldens("owner_mail", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::raylet
