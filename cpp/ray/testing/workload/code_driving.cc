#include "ray/testing/workload/code_driving.h"

#include <algorithm>
#include <utility>

namespace ray::sim {

using std::chrono::seconds;

// What the ref stands for; or what the first ref inside of it does, and so on.
Got ReadThrough(Session* session, const Ref& ref, const std::string& what) {
  Got got = session->Get(ref, {}, what);
  while (got.ok() && !got.value.refs.empty()) {
    const Ref inner = got.value.refs.front();
    got = session->Get(inner, {}, what);
  }
  return got;
}

CodeDriving::CodeDriving(CodeWorkload* workload, CodeDriver* driver)
    : workload_(*workload), driver_(driver), session_(driver->session()), random_(session_.random().Fork()) {
  workload_.counts_.Add(&session_);
  session_.process()->OnDeath([all = &workload_, process = session_.process()](int) {
    std::erase_if(all->open_actors_, [process](const auto& open) { return open.driver == process; });
  });
}

void CodeDriving::Run() {
  const Time end = session_.now() + workload_.config_.driver.active;
  while (session_.now() < end) {
    Act();
    session_.Sleep(random_.Between(Duration::zero(), workload_.config_.driver.max_pause));
  }
  CloseActors();
  if (random_.Chance(0.3)) {  // at work as it is
    ++workload_.stats_.leavers;
    driver_->LeaveSoon();
    return Clear();
  }
  std::vector<uint64_t> loans;  // to actors of this one; others keep what comes later
  for (const auto& [number, loan] : workload_.loans_) {
    if (loan.to.driver == session_.process()) loans.push_back(number);
  }
  for (const uint64_t number : loans) ReadLoan(number);
  while (!groups_.empty()) RemoveGroup(0);
  while (!pending_.empty()) Settle(0);
  lent_to_us_.clear();
  for (Actor& actor : actors_) {
    if (actor.known && !actor.killed) driver_->Keep(std::move(actor.handle));
  }
  actors_.clear();
  named_.clear();
}

void CodeDriving::Clear() {
  groups_.clear();
  named_.clear();
  pending_.clear();
  lent_to_us_.clear();
  actors_.clear();
}

void CodeDriving::Act() {
  switch (random_.Below(22)) {
    case 0:
    case 1:
    case 2: return AddGraph();
    case 3: return AddShaky();
    case 4: return AddTree();
    case 5: return AddActor();
    case 6:
    case 7: return CallActor();
    case 8: return random_.Chance(0.5) ? CallFromTask() : KeepAtActor();
    case 9: return AddRelay();
    case 10: return random_.Chance(0.3) ? KillActor() : CancelOne();
    case 12: return ReadStream();
    case 13: return WaitForSome();
    case 14:
    case 15:
    case 16: return Lend();
    case 17: return ReadSomeLoan();
    case 18:
    case 19: return ActOnGroups();
    case 20:
    case 21: return ActOnNames();
    case 11:
      for (size_t n = random_.Below(4); n > 0 && !pending_.empty(); --n) Settle(random_.Below(pending_.size()));
      return;
  }
}

// What is ready can be had at once, save what the store may have put on disk or thrown away meanwhile.
void CodeDriving::WaitForSome() {
  if (pending_.empty()) return;
  std::vector<Ref> refs;
  for (size_t i = 0; i < pending_.size() && refs.size() < 5; ++i) {
    if (random_.Chance(0.5)) refs.push_back(pending_[i].ref);
  }
  if (refs.empty()) return;
  const size_t count = 1 + random_.Below(refs.size());
  const std::vector<bool> ready = session_.Wait(refs, count, random_.Between(Duration::zero(), Duration(seconds(2))));
  if (ready.empty()) return;
  if (static_cast<size_t>(std::ranges::count(ready, true)) != count) workload_.Fail("wait gave more or less than was asked for");
  for (size_t i = 0; i < ready.size(); ++i) {
    if (!ready[i] || session_.Get(refs[i], Duration::zero(), "what is ready").kind != Got::kTimeout) continue;
    if (const Got got = session_.Get(refs[i], {}, "what was ready"); got.ok() && !got.large)
      workload_.Fail("what wait took for ready (" + refs[i].id().Hex() + ") is not");
  }
}

void CodeDriving::CancelOne() {
  if (pending_.empty()) return;
  Pending& pending = pending_[random_.Below(pending_.size())];
  if (pending.actor >= 0 || pending.check || pending.what.starts_with("a call")) return;
  ++workload_.stats_.cancels;
  pending.cancelled = cancelled_ = true;
  (void)session_.Cancel(pending.ref, random_.Chance(0.5));
}

void CodeDriving::Settle(size_t which) {
  const Pending pending = std::move(pending_[which]);
  pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(which));
  const Got got = session_.Get(pending.ref, {}, pending.what);
  ++(got.ok() ? workload_.stats_.values : workload_.stats_.errors);
  if (pending.check) return pending.check(got);
  if (pending.actor >= 0) {
    Actor& actor = actors_[static_cast<size_t>(pending.actor)];
    if (got.ok() && !std::exchange(actor.known, true))
      workload_.open_actors_.push_back({session_.process(), actor.handle.id, actor.retries});
    return workload_.SettleLog(&session_, actor.handle.id, pending.call, got);
  }
  const std::string of = pending.what + " (" + pending.ref.id().Hex() + ")";
  if (pending.lends != 0 && got.ok()) workload_.loans_.at(pending.lends).acknowledged = true;
  if (pending.reads != 0) CheckLoan(pending.reads, got, of);
  if (!got.ok()) {
    // A worker that cannot be started is not made up for by retries; nor is an argument that was cancelled.
    const bool no_worker = got.error == ErrorType::kWorkerStartupFailed || got.message.find("error 33:") != std::string::npos;
    const bool cancelled = pending.cancelled || (got.error == ErrorType::kTaskCancelled && cancelled_);
    if (!pending.may_fail && !cancelled && !no_worker && !workload_.MayBeLostPut(got)) workload_.Fail(of + " gave " + ErrorText(got));
    return;
  }
  if (!pending.inner.empty() && got.value.text == "refs") {
    const Got inner = ReadThrough(&session_, got.value.refs.at(0), "a ref that came back");
    if (pending.reads != 0) {
      CheckLoan(pending.reads, inner, "what " + of + " had inside");
      if (!inner.ok()) return;
      lent_to_us_.emplace_back(got.value.refs.at(0), pending.inner);
    }
    // To make it again takes a worker.
    if (!inner.ok() && (workload_.MayBeLostPut(inner) || inner.error == ErrorType::kWorkerStartupFailed)) return;
    if (!inner.ok()) return workload_.Fail("what " + of + " had inside gave " + ErrorText(inner));
    if (inner.value.text != pending.inner)
      workload_.Fail("what " + of + " had inside is " + inner.value.text + " instead of " + pending.inner);
    return;
  }
  if (std::ranges::find(pending.also, got.value.text) != pending.also.end()) return;
  if (got.value.text != pending.expected) workload_.Fail(of + " is " + got.value.text + " instead of " + pending.expected);
}

}  // namespace ray::sim
