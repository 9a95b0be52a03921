// Refs that are handed on: in arguments and results, kept by actors, lent to actors of other drivers.
#include <algorithm>
#include <sstream>
#include <utility>

#include "ray/testing/workload/code_driving.h"

namespace ray::sim {

using std::chrono::seconds;

namespace {

std::string LoanName(uint64_t number) { return "loan" + std::to_string(number); }

}  // namespace

// ---- what workers run ----

void CodeWorkload::DefineBorrows() {
  // Hands the refs inside its arguments on: to itself, so many times, and then back in its result; or reads the first.
  program_["relay"] = [this](TaskCall& call) -> TaskOutput {
    CountRun(call);
    const int64_t hops = Number(call.args.text);
    if (call.session->random().Chance(0.5)) call.session->Sleep(call.session->random().Between(Duration::zero(), kMaxRun));
    if (hops == 0) return {.kind = TaskOutput::kValue, .value = {"refs", call.args.refs}, .message = {}, .small = true};
    const Ref next = call.session->Call("relay", {std::to_string(hops - 1), call.args.refs}, {}, {.max_retries = kForEver});
    call.args.refs.clear();
    const Got got = call.session->Get(next, {}, "a relay");
    if (!got.ok()) return {.kind = TaskOutput::kError, .value = {}, .message = ErrorText(got)};
    return {.kind = TaskOutput::kValue, .value = got.value, .message = {}, .small = true};
  };
  program_["read"] = [this](TaskCall& call) -> TaskOutput {
    CountRun(call);
    const Got got = call.session->Get(call.args.refs.at(0), {}, "a borrowed ref");
    if (!got.ok()) return {.kind = TaskOutput::kError, .value = {}, .message = ErrorText(got)};
    return {.kind = TaskOutput::kValue, .value = {got.value.text, {}}, .message = {}, .small = true};
  };
  // "name", or "name inside": then what the value has inside is kept instead, which makes the actor a borrower of a process that it need never turn to.
  program_["keep"] = [this](TaskCall& call) -> TaskOutput {
    ++stats_.runs;
    auto* log = static_cast<LogState*>(call.state->get());
    std::istringstream in(call.args.text);
    std::string name, which;
    in >> name >> which;
    Ref ref = call.args.refs.at(0);
    if (which == "inside") {
      const Got got = call.session->Get(ref, {}, "a value that others have lent");
      if (got.ok() && !got.value.refs.empty()) ref = got.value.refs.at(0);
    }
    log->kept.insert_or_assign(name, ref);
    return {.kind = TaskOutput::kValue, .value = {"kept", {}}, .message = {}, .small = true};
  };
  // "name here" or "name out": what was kept under that name is read here, or handed out.
  program_["kept"] = [this](TaskCall& call) -> TaskOutput {
    ++stats_.runs;
    auto* log = static_cast<LogState*>(call.state->get());
    std::istringstream in(call.args.text);
    std::string name, how;
    in >> name >> how;
    const auto kept = log->kept.find(name);
    if (kept == log->kept.end())
      return {.kind = TaskOutput::kValue, .value = {"none", {}}, .message = {}};  // a new incarnation, or asked twice
    const Ref ref = std::move(kept->second);
    log->kept.erase(kept);
    if (how == "out") return {.kind = TaskOutput::kValue, .value = {"refs", {ref}}, .message = {}, .small = true};
    const Got got = ReadThrough(call.session, ref, "a ref that an actor kept");
    if (!got.ok()) return {.kind = TaskOutput::kError, .value = {}, .message = ErrorText(got)};
    return {.kind = TaskOutput::kValue, .value = {got.value.text, {}}, .message = {}, .small = true};
  };
}

// ---- what drivers do ----

// Of a put or of a task that is still to run; the driver lets go of it at once.
void CodeDriving::AddRelay() {
  const std::string text = std::to_string(random_.Below(1000));
  const bool put = random_.Chance(0.5);
  const Ref ref = put ? session_.Put({text, {}}) : session_.Call("add", {text, {}}, {}, {.max_retries = kForEver});
  ++workload_.stats_.borrows;
  if (random_.Chance(0.5)) {
    Add({.ref = session_.Call("read", {"", {ref}}, {}, {.max_retries = kForEver}),
         .what = "a read of a borrowed ref",
         .expected = text,
         .inner = {},
         .also = {},
         .call = {}});
  } else {
    Add({.ref = session_.Call("relay", {std::to_string(random_.Below(4)), {ref}}, {}, {.max_retries = kForEver}),
         .what = "a relay",
         .expected = {},
         .inner = text,
         .also = {},
         .call = {}});
  }
}

void CodeDriving::KeepAtActor() {
  if (actors_.empty()) return;
  const Actor& actor = actors_[random_.Below(actors_.size())];
  const std::string text = std::to_string(random_.Below(1000)), name = std::to_string(++kept_);
  ++workload_.stats_.borrows;
  {
    const Ref ref = random_.Chance(0.5) ? session_.Put({text, {}}) : session_.Call("add", {text, {}}, {}, {.max_retries = kForEver});
    Add({.ref = session_.CallActor(actor.handle.id, "keep", {name, {ref}}, {}, actor.retries),
         .what = "a call that keeps a ref",
         .expected = "kept",
         .inner = {},
         .may_fail = true,
         .also = {},
         .call = {}});
  }
  if (random_.Chance(0.5)) session_.Sleep(random_.Between(Duration::zero(), Duration(seconds(2))));
  const bool out = random_.Chance(0.5);
  // Who crashed between the two calls kept nothing.
  Add({.ref = session_.CallActor(actor.handle.id, "kept", {name + (out ? " out" : " here"), {}}, {}, actor.retries),
       .what = "a call that reads what was kept",
       .expected = out ? "" : text,
       .inner = out ? text : "",
       .may_fail = true,
       .also = {"none"},
       .call = {}});
}

// Of a put, or of a task that is still to run; alone, or inside of a value, and that may be one that others have lent to us. One of this driver and the one
// of the actor reads it, when the other one may have left long since.
void CodeDriving::Lend() {
  std::vector<CodeWorkload::OpenActor> others;
  for (const auto& open : workload_.open_actors_) {
    if (open.driver != session_.process()) others.push_back(open);
  }
  if (others.empty()) return;
  const CodeWorkload::OpenActor& to = others[random_.Below(others.size())];
  CodeWorkload::Loan loan{.to = to, .text = std::to_string(random_.Below(1000)), .put = true};
  Ref ref;
  bool inside = false;
  if (!lent_to_us_.empty() && random_.Chance(0.5)) {
    inside = random_.Chance(0.5);
    const size_t which = random_.Below(lent_to_us_.size());
    loan.text = lent_to_us_[which].second;
    loan.put = false;
    ref = session_.Put({"refs", {lent_to_us_[which].first}});
    if (random_.Chance(0.7)) lent_to_us_.erase(lent_to_us_.begin() + static_cast<std::ptrdiff_t>(which));
  } else {
    loan.put = random_.Chance(0.6);
    ref = loan.put ? session_.Put({loan.text, {}}) : session_.Call("add", {loan.text, {}}, {}, {.max_retries = kForEver});
    if (random_.Chance(0.5)) ref = session_.Put({"refs", {ref}});
  }
  ++workload_.stats_.loans;
  const uint64_t number = workload_.stats_.loans;
  workload_.loans_.emplace(number, loan);
  session_.worker()->actors().RegisterHandle(to.actor, -1, {});
  Add({.ref = session_.CallActor(to.actor, "keep", {LoanName(number) + (inside ? " inside" : ""), {ref}}, {}, to.retries),
       .what = "a call that lends a ref",
       .expected = "kept",
       .inner = {},
       .may_fail = true,
       .also = {},
       .lends = number,
       .call = {}});
  ours_.push_back(number);
}

void CodeDriving::ReadSomeLoan() {
  std::vector<uint64_t> loans;
  for (const auto& [number, loan] : workload_.loans_) {
    if (!loan.read && (loan.to.driver == session_.process() || std::ranges::find(ours_, number) != ours_.end())) loans.push_back(number);
  }
  if (!loans.empty()) ReadLoan(loans[random_.Below(loans.size())]);
}

void CodeDriving::ReadLoan(uint64_t number) {
  CodeWorkload::Loan& loan = workload_.loans_.at(number);
  if (std::exchange(loan.read, true)) return;
  const bool out = random_.Chance(0.5);
  Add({.ref = session_.CallActor(loan.to.actor, "kept", {LoanName(number) + (out ? " out" : " here"), {}}, {}, loan.to.retries),
       .what = "a call that reads what was lent",
       .expected = out ? "" : loan.text,
       .inner = out ? loan.text : "",
       .may_fail = true,
       .also = {"none"},
       .reads = number,
       .call = {}});
}

// What a read of a loan gave, that an actor was known to have: if its owner is gone it may be lost, but nobody has freed it.
void CodeDriving::CheckLoan(uint64_t number, const Got& got, const std::string& of) {
  const CodeWorkload::Loan& loan = workload_.loans_.at(number);
  if (got.ok() || !loan.acknowledged || workload_.MayBeLostPut(got)) return;
  const bool of_value = got.error != ErrorType::kActorDied && got.error != ErrorType::kActorUnavailable;
  if (got.message.find("freed") != std::string::npos || (of_value && loan.put && workload_.config_.faults == Duration::zero()))
    workload_.Fail(of + " gave " + ErrorText(got));
}

// Nobody lends to them any more.
void CodeDriving::CloseActors() {
  std::erase_if(workload_.open_actors_, [this](const auto& open) { return open.driver == session_.process(); });
}

}  // namespace ray::sim
