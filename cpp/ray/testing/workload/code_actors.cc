// Actors that keep a log of their calls, and are restarted and killed.
#include <sstream>
#include <utility>

#include "ray/testing/workload/code_driving.h"

namespace ray::sim {

// ---- what workers run ----

// An actor whose state is a log, and refs that it was told to keep (code_borrows.cc).
void CodeWorkload::DefineActors() {
  program_["Log"] = [this](TaskCall& call) -> TaskOutput {
    ++stats_.runs;
    auto state = std::make_shared<LogState>();
    state->incarnation = ++actors_[call.task->spec.creation->actor_id].incarnations;
    *call.state = std::move(state);
    if (call.session->random().Chance(0.3)) call.session->Sleep(call.session->random().Between(Duration::zero(), kMaxRun));
    return {};
  };
  program_["append"] = [this](TaskCall& call) -> TaskOutput {
    ++stats_.runs;
    auto* log = static_cast<LogState*>(call.state->get());
    std::istringstream in(call.args.text);
    CallId id;
    in >> id.caller >> id.number;
    const LogPlace place{log->incarnation, log->next++};
    actors_[call.task->spec.task_id.actor_id()].history.Executed(id, place, call.session->now());
    if (call.session->random().Chance(0.2)) call.session->Sleep(call.session->random().Between(Duration::zero(), kMaxRun));
    return {.kind = TaskOutput::kValue,
            .value = {std::to_string(place.incarnation) + " " + std::to_string(place.index), {}},
            .message = {},
            .small = true};
  };
  // "calls retries": calls the actor whose handle it was given.
  program_["caller"] = [this](TaskCall& call) -> TaskOutput {
    CountRun(call);
    std::istringstream in(call.args.text);
    uint64_t calls = 0;
    int32_t retries = 0;
    in >> calls >> retries;
    const ActorHandle actor = call.session->HandleOf(call.args.refs.at(0));
    const uint64_t caller = NewCaller(call.session->process(), actor.id);
    std::vector<std::pair<CallId, Ref>> made;
    for (uint64_t i = 0; i < calls; ++i) {
      const CallId id{caller, i};
      made.emplace_back(id, CallLog(call.session, actor, id, retries));
      if (call.session->random().Chance(0.3)) call.session->Sleep(call.session->random().Between(Duration::zero(), kMaxRun));
    }
    for (const auto& [id, ref] : made) SettleLog(call.session, actor.id, id, call.session->Get(ref, {}, "a call of an actor from a task"));
    return {.kind = TaskOutput::kValue, .value = {std::to_string(calls), {}}, .message = {}};
  };
}

uint64_t CodeWorkload::NewCaller(Process* process, const ActorId& actor) {
  const uint64_t caller = ++last_caller_;
  process->OnDeath([this, actor, caller](int) { actors_[actor].history.CallerDied(caller); });
  return caller;
}

Ref CodeWorkload::CallLog(Session* session, const ActorHandle& actor, CallId id, int32_t retries) {
  actors_[actor.id].history.Submitted(id, retries, session->now());
  return session->CallActor(actor.id, "append", {std::to_string(id.caller) + " " + std::to_string(id.number), {}}, {}, retries);
}

void CodeWorkload::SettleLog(Session* session, const ActorId& actor, CallId id, const Got& got) {
  ActorHistory& history = actors_[actor].history;
  if (got.ok()) {
    LogPlace place;
    std::istringstream in(got.value.text);
    in >> place.incarnation >> place.index;
    history.Settled(id, CallOutcome::kDone, place, session->now());
  } else if (got.error == ErrorType::kActorDied || got.error == ErrorType::kActorPlacementGroupRemoved) {
    history.Settled(id, CallOutcome::kDead, {}, session->now());
  } else {
    history.Settled(id, CallOutcome::kUnavailable, {}, session->now());
    // Cancelled with the task that made it; or it has no worker, as none could be started several times in a row.
    if (got.error != ErrorType::kActorUnavailable && got.error != ErrorType::kTaskCancelled && got.error != ErrorType::kWorkerStartupFailed)
      Fail("a call of an actor gave " + ErrorText(got));
  }
}

// ---- what drivers do ----

void CodeDriving::AddActor() {
  if (actors_.size() >= 4) return;
  Actor actor;
  actor.restarts = AnyRetries();
  actor.retries = AnyRetries();
  actor.handle = session_.Create("Log", {"", {}}, {.max_restarts = actor.restarts, .max_task_retries = actor.retries});
  actor.caller = workload_.NewCaller(session_.process(), actor.handle.id);
  actors_.push_back(std::move(actor));
  ++workload_.stats_.actors;
}

void CodeDriving::CallActor() {
  if (actors_.empty()) return;
  const size_t which = random_.Below(actors_.size());
  for (size_t n = 1 + random_.Below(8); n > 0; --n) {
    Actor& actor = actors_[which];
    const CallId id{actor.caller, actor.calls++};
    ++workload_.stats_.calls;
    Add({.ref = workload_.CallLog(&session_, actor.handle, id, actor.retries),
         .what = "a call of an actor",
         .expected = {},
         .inner = {},
         .also = {},
         .actor = static_cast<int>(which),
         .call = id});
  }
}

void CodeDriving::CallFromTask() {
  if (actors_.empty()) return;
  const Actor& actor = actors_[random_.Below(actors_.size())];
  const uint64_t calls = 1 + random_.Below(4);
  ++workload_.stats_.borrows;
  Add({.ref = session_.Call("caller", {std::to_string(calls) + " " + std::to_string(actor.retries), {actor.handle.ref}}, {},
                            {.max_retries = kForEver}),
       .what = "a task that calls an actor",
       .expected = std::to_string(calls),
       .inner = {},
       .also = {},
       .call = {}});
}

void CodeDriving::KillActor() {
  if (actors_.empty()) return;
  Actor& actor = actors_[random_.Below(actors_.size())];
  const bool no_restart = random_.Chance(0.5);
  ++workload_.stats_.kills;
  actor.killed |= no_restart;
  (void)session_.Kill(actor.handle.id, no_restart);
}

}  // namespace ray::sim
