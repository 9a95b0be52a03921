// Named actors, of one driver or detached: looked up and called by any driver, ended by any, their names taken again.
#include <algorithm>
#include <utility>

#include "ray/testing/workload/code_driving.h"

namespace ray::sim {
namespace {

constexpr uint64_t kNames = 3;

std::string NameNo(uint64_t number) { return "name" + std::to_string(number); }

}  // namespace

// ---- what must hold ----

ActorId CodeWorkload::LastingUnder(const std::string& name) const {
  const auto holders = names_.find(name);
  if (holders == names_.end()) return {};
  const auto lasting = std::ranges::find_if(holders->second, &NamedActor::Lasts);
  return lasting == holders->second.end() ? ActorId() : lasting->id;
}

std::set<ActorId> CodeWorkload::EndedUnder(const std::string& name) const {
  std::set<ActorId> ended;
  if (const auto holders = names_.find(name); holders != names_.end()) {
    for (const NamedActor& actor : holders->second) {
      if (actor.ended) ended.insert(actor.id);
    }
  }
  return ended;
}

void CodeWorkload::CheckName(const std::string& name, const ActorId& found, const ActorId& lasting, const std::set<ActorId>& ended) {
  if (ended.contains(found)) Fail("actor " + found.Hex() + " was found under " + name + " after it had been ended");
  if (lasting.IsNil() || LastingUnder(name) != lasting || found == lasting) return;
  Fail("actor " + lasting.Hex() + " is called " + name + ", but " + (found.IsNil() ? "nobody" : "actor " + found.Hex()) +
       " was found under it");
}

CodeWorkload::NamedActor* CodeWorkload::FindNamed(const std::string& name, const ActorId& actor) {
  auto& holders = names_[name];
  const auto found = std::ranges::find(holders, actor, &NamedActor::id);
  return found == holders.end() ? nullptr : &*found;
}

// ---- what drivers do ----

ActorId CodeDriving::LookFor(const std::string& name) {
  ++workload_.stats_.look_ups;
  const ActorId lasting = workload_.LastingUnder(name);
  const std::set<ActorId> ended = workload_.EndedUnder(name);
  bool unknown = false;
  const ActorId found = session_.GetNamed(name, &unknown).value_or(ActorId());
  if (!unknown) workload_.CheckName(name, found, lasting, ended);
  return found;
}

void CodeDriving::ActOnNames() {
  const std::string name = NameNo(random_.Below(kNames));
  const ActorId found = LookFor(name);
  if (found.IsNil()) {
    CreateNamed(name);
  } else if (random_.Chance(0.2)) {
    KillNamed(name, found);
  } else {
    CallNamed(name, found);
  }
}

void CodeDriving::CreateNamed(const std::string& name) {
  const bool detached = random_.Chance(0.6);
  const ActorId lasting = workload_.LastingUnder(name);
  bool unknown = false;
  ActorOptions options{.max_restarts = kForEver, .max_task_retries = kForEver, .name = name, .detached = detached};
  const auto made = session_.CreateNamed("Log", {"", {}}, options, &unknown);
  if (!made) return;  // another driver was first
  if (!lasting.IsNil() && workload_.LastingUnder(name) == lasting)
    workload_.Fail("actor " + made->id.Hex() + " got the name " + name + ", which actor " + lasting.Hex() + " has");
  ++workload_.stats_.names;
  workload_.names_[name].push_back({.id = made->id, .detached = detached});
  named_.push_back(*made);
  CallNamed(name, made->id);
}

void CodeDriving::CallNamed(const std::string& name, const ActorId& actor) {
  auto [us, first] = named_callers_.try_emplace(actor);
  if (first) us->second.first = workload_.NewCaller(session_.process(), actor);
  const CallId id{us->second.first, us->second.second++};
  ++workload_.stats_.calls;
  Pending pending;
  pending.ref = workload_.CallLog(&session_, {actor, {}}, id, kForEver);
  pending.what = "a call of a named actor";
  pending.check = [this, id, name, actor](const Got& got) {
    workload_.SettleLog(&session_, actor, id, got);
    CodeWorkload::NamedActor* const holder = workload_.FindNamed(name, actor);
    if (holder == nullptr) return;  // whoever made it did not live to hear of it
    if (!got.ok() && holder->Lasts()) workload_.Fail("a call of " + name + ", which nobody has ended, gave " + ErrorText(got));
    holder->answered |= got.ok();
  };
  Add(std::move(pending));
}

void CodeDriving::KillNamed(const std::string& name, const ActorId& actor) {
  if (CodeWorkload::NamedActor* holder = workload_.FindNamed(name, actor); holder != nullptr) holder->doomed = true;
  ++workload_.stats_.kills;
  if (!session_.Kill(actor, /*no_restart=*/true).ok()) return;
  if (CodeWorkload::NamedActor* holder = workload_.FindNamed(name, actor); holder != nullptr) holder->ended = true;
}

void CodeDriving::CleanUp() {
  for (uint64_t number = 0; number < kNames; ++number) {
    const std::string name = NameNo(number);
    const ActorId found = LookFor(name);
    if (found.IsNil()) continue;
    CallNamed(name, found);
    while (!pending_.empty()) Settle(0);
    KillNamed(name, found);
    if (!LookFor(name).IsNil()) workload_.Fail(name + " is taken, and all drivers have left");
  }
  driver_->LeaveSoon();
}

}  // namespace ray::sim
