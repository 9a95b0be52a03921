// Placement groups: placed by every strategy, waited for, used by tasks and actors, removed while they are used.
#include <sstream>
#include <utility>

#include "ray/testing/workload/code_driving.h"

namespace ray::sim {

using std::chrono::seconds;

// ---- what workers run ----

void CodeWorkload::DefineGroups() {
  // "number children": the number, and one for each child, which runs in the group as well if it captures them.
  program_["inside"] = [this](TaskCall& call) -> TaskOutput {
    CountRun(call);
    const SchedulingStrategy& strategy = call.task->spec.tmpl->strategy;
    if (strategy.kind == SchedulingStrategy::kPlacementGroup)
      groups_[strategy.placement_group_id].ran[strategy.bundle_index].insert(call.session->worker()->info().address.node_id);
    std::istringstream in(call.args.text);
    int64_t number = 0, children = 0;
    in >> number >> children;
    Random& random = call.session->random();
    if (random.Chance(0.7)) call.session->Sleep(random.Between(Duration::zero(), kMaxRun));
    TaskOptions options{.max_retries = kForEver};
    if (strategy.capture_child_tasks) {
      options.group = strategy.placement_group_id;
      options.capture = true;
    }
    std::vector<Ref> refs;
    for (int64_t i = 0; i < children; ++i)
      refs.push_back(call.session->Call(options.group.IsNil() ? "add" : "inside", {"1 0", {}}, {}, options));
    for (const Ref& ref : refs) {
      const Got got = call.session->Get(ref, {}, "a child of a task in a group");
      if (!got.ok()) return {.kind = TaskOutput::kError, .value = {}, .message = ErrorText(got)};
      number += Number(got.value.text);
    }
    return {.kind = TaskOutput::kValue, .value = {std::to_string(number), {}}, .message = {}};
  };
}

// ---- what drivers do ----

void CodeDriving::ActOnGroups() {
  if (groups_.empty() || (groups_.size() < 2 && random_.Chance(0.3))) return AddGroup();
  const size_t which = random_.Below(groups_.size());
  switch (random_.Below(6)) {
    case 0:
    case 1:
    case 2: return UseGroup(&groups_[which]);
    case 3: return AddActorInGroup(&groups_[which]);
    case 4: return WaitForGroup(&groups_[which]);
    default: return RemoveGroup(which);
  }
}

void CodeDriving::AddGroup() {
  const auto strategy =
      static_cast<v1::PlacementStrategy>(random_.Between(v1::PLACEMENT_STRATEGY_PACK, v1::PLACEMENT_STRATEGY_STRICT_SPREAD));
  Group group;
  for (int64_t n = random_.Between(1, 3); n > 0; --n) group.bundles.push_back(random_.Between(1, 2));
  group.id = session_.CreateGroup(strategy, group.bundles);
  group.removed = std::make_shared<bool>(false);
  workload_.groups_[group.id].strategy = strategy;
  ++workload_.stats_.groups;
  if (random_.Chance(0.5))
    group.waiting.push_back(
        OfGroup(group, session_.GroupReady(group.id, {"placed", {}}), "the placing of a group", "placed", /*may_fail=*/false));
  groups_.push_back(std::move(group));
}

TaskOptions CodeDriving::InGroup(const Group& group) {
  TaskOptions options{.max_retries = AnyRetries(), .group = group.id};
  if (random_.Chance(0.5)) options.bundle = static_cast<int32_t>(random_.Below(group.bundles.size()));
  return options;
}

CodeDriving::Pending CodeDriving::OfGroup(const Group& group, Ref ref, std::string what, std::string expected, bool may_fail) {
  Pending pending;
  pending.ref = std::move(ref);
  pending.what = what;
  const std::string of = what + " (" + pending.ref.id().Hex() + ")";
  pending.check = [this, of, expected, may_fail, removed = group.removed](const Got& got) {
    if (got.ok()) {
      if (got.value.text != expected) workload_.Fail(of + " is " + got.value.text + " instead of " + expected);
      return;
    }
    const bool no_worker = got.error == ErrorType::kWorkerStartupFailed || got.message.find("error 33:") != std::string::npos;
    const bool gone = got.error == ErrorType::kTaskPlacementGroupRemoved || got.message.find("error 16:") != std::string::npos;
    if (!may_fail && !no_worker && !(*removed && gone))
      workload_.Fail(of + " gave " + ErrorText(got) + (*removed ? "; its group was removed" : ""));
  };
  return pending;
}

void CodeDriving::UseGroup(Group* group) {
  // A task that waits gives only its CPU back: where as many wait as there are slots, no child gets one.
  const auto room_for_a_child = [&] { return group->bundles.size() > 1 && group->waiting.empty() && group->actors.empty(); };
  TaskOptions options = InGroup(*group);
  options.capture = random_.Chance(0.4);
  const auto number = static_cast<int64_t>(random_.Below(1000));
  const int64_t children = random_.Chance(0.5) && (!options.capture || room_for_a_child()) ? 1 : 0;
  ++workload_.stats_.in_groups;
  Ref ref = session_.Call("inside", {std::to_string(number) + " " + std::to_string(children), {}}, {}, options);
  group->waiting.push_back(
      OfGroup(*group, std::move(ref), "a task in a group", std::to_string(number + children), options.max_retries != kForEver));
}

void CodeDriving::AddActorInGroup(Group* group) {
  if (group->actors.empty()) {
    const TaskOptions where = InGroup(*group);
    Actor actor;
    actor.retries = AnyRetries();
    actor.handle = session_.Create(
        "Log", {"", {}}, {.max_restarts = AnyRetries(), .max_task_retries = actor.retries, .group = where.group, .bundle = where.bundle});
    actor.caller = workload_.NewCaller(session_.process(), actor.handle.id);
    group->actors.push_back(std::move(actor));
    ++workload_.stats_.actors;
    ++workload_.stats_.in_groups;
  }
  Actor& actor = group->actors.front();
  for (size_t n = 1 + random_.Below(4); n > 0; --n) {
    const CallId id{actor.caller, actor.calls++};
    ++workload_.stats_.calls;
    Pending pending;
    pending.ref = workload_.CallLog(&session_, actor.handle, id, actor.retries);
    pending.what = "a call of an actor in a group";
    pending.check = [this, id, actor = actor.handle.id](const Got& got) { workload_.SettleLog(&session_, actor, id, got); };
    group->waiting.push_back(std::move(pending));
  }
}

// And for something that waits for it, if it is there in time.
void CodeDriving::WaitForGroup(Group* group) {
  const core::GroupState state = session_.WaitForGroup(group->id, random_.Between(Duration::zero(), Duration(seconds(3))));
  // With its node, which has gone or is taken for dead, this driver will end.
  const bool removed = state.why.find("has been removed") != std::string::npos && state.why.find("has finished") == std::string::npos;
  if (state.kind == core::GroupState::kGone && removed)
    return workload_.Fail("group " + group->id.Hex() + ", which nobody has removed, is gone: " + state.why);
  if (state.kind != core::GroupState::kPlaced || group->waiting.empty()) return;
  const size_t which = random_.Below(group->waiting.size());
  const Got got =
      session_.Get(group->waiting[which].ref, random_.Between(Duration::zero(), Duration(seconds(2))), group->waiting[which].what);
  if (got.kind == Got::kTimeout) return;
  ++(got.ok() ? workload_.stats_.values : workload_.stats_.errors);
  const Pending pending = std::move(group->waiting[which]);
  group->waiting.erase(group->waiting.begin() + static_cast<std::ptrdiff_t>(which));
  pending.check(got);
}

void CodeDriving::RemoveGroup(size_t which) {
  Group group = std::move(groups_[which]);
  groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(which));
  session_.RemoveGroup(group.id);
  *group.removed = true;
  if (random_.Chance(0.3)) UseGroup(&group);  // too late
  for (Pending& pending : group.waiting) Add(std::move(pending));
}

// ---- what must hold ----

// Where nothing failed each bundle stayed where it was put.
std::string CodeWorkload::CheckGroups() const {
  if (config_.faults > Duration::zero()) return {};
  for (const auto& [id, group] : groups_) {
    std::set<NodeId> all;
    for (const auto& [bundle, nodes] : group.ran) {
      if (bundle < 0) continue;
      if (nodes.size() > 1) return "what was sent to one bundle of group " + id.Hex() + " has run on several nodes";
      if (!all.insert(*nodes.begin()).second && group.strategy == v1::PLACEMENT_STRATEGY_STRICT_SPREAD)
        return "two bundles of group " + id.Hex() + ", which is spread strictly, were on one node";
    }
    if (group.strategy == v1::PLACEMENT_STRATEGY_STRICT_PACK && all.size() > 1)
      return "bundles of group " + id.Hex() + ", which is packed strictly, were on several nodes";
  }
  return {};
}

}  // namespace ray::sim
