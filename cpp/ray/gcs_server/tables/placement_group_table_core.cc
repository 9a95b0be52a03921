#include "ray/gcs_server/tables/placement_group_table_core.h"

#include <algorithm>

#include "ray/v1/gcs_storage.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/wait_fact.h"

namespace ray::gcs {
namespace {

using scheduling::BundleStrategy;

BundleStrategy StrategyOf(v1::PlacementStrategy strategy) {
  switch (strategy) {
    case v1::PLACEMENT_STRATEGY_SPREAD: return BundleStrategy::kSpread;
    case v1::PLACEMENT_STRATEGY_STRICT_PACK: return BundleStrategy::kStrictPack;
    case v1::PLACEMENT_STRATEGY_STRICT_SPREAD: return BundleStrategy::kStrictSpread;
    default: return BundleStrategy::kPack;
  }
}

std::string NameOf(const v1::PlacementGroupInfo& info) {
  std::string text = "placement group " + BytesToHex(info.placement_group_id());
  return info.name().empty() ? text : text + " named \"" + info.name() + "\"";
}

}  // namespace

PlacementGroupTableCore::GroupPtr PlacementGroupTableCore::Lookup(const PlacementGroupId& group) const {
  const auto it = groups_.find(group);
  return it == groups_.end() ? nullptr : it->second;
}

bool PlacementGroupTableCore::Explain(const PlacementGroupId& id, int64_t wall_ms, v1::WaitFact* out) const {
  const GroupPtr group = Lookup(id);
  if (group == nullptr) return false;
  const v1::PlacementGroupInfo& info = group->info;
  SetSubject(v1::SUBJECT_KIND_PLACEMENT_GROUP, id.View(), v1::WAIT_STATE_PENDING, out);
  out->set_name(info.name());
  out->set_attempt(info.attempts());
  const int64_t since = info.placed_at_ms() > 0 ? info.placed_at_ms() : info.created_at_ms();
  if (since > 0) out->set_age_ms(std::max<int64_t>(0, wall_ms - since));
  if (info.state() == v1::PLACEMENT_GROUP_STATE_CREATED) {
    out->set_state(v1::WAIT_STATE_CREATED);
    return true;
  }
  if (group->IsRemoved()) {
    out->set_state(v1::WAIT_STATE_REMOVED);
    out->set_detail(info.scheduling_state());
    return true;
  }
  if (info.state() == v1::PLACEMENT_GROUP_STATE_RESCHEDULING) out->set_state(v1::WAIT_STATE_RESCHEDULING);
  if (!group->round.empty()) {
    out->set_detail(group->committing ? "its nodes have reserved its bundles and are told to commit them" : "nodes reserve its bundles");
    return true;
  }
  out->set_detail(info.scheduling_state());
  // The bundle that no node has room for alone, if there is one; else it is their combination.
  for (size_t i = 0; i < group->wants.size(); ++i) {
    if (!info.bundles(static_cast<int>(i)).node_id().empty()) continue;
    const scheduling::BundleWant& want = group->wants[i];
    if (view_->Any({&want.need, &want.labels}, scheduling::ClusterView::Fit::kNow)) continue;
    out->set_detail("bundle " + std::to_string(i) + ": " + out->detail());
    ToProto(want.need, out->mutable_need());
    break;
  }
  ToProto(view_->Total(), out->mutable_total());
  return true;
}

const v1::PlacementGroupInfo* PlacementGroupTableCore::Find(const PlacementGroupId& group) const {
  const GroupPtr found = Lookup(group);
  return found ? &found->info : nullptr;
}

void PlacementGroupTableCore::Save(const Group& group, Effects* out) const {
  v1::StoredPlacementGroup stored;
  *stored.mutable_info() = group.info;
  for (const auto& [node, there] : group.round) {
    v1::BundlesOnNode* part = stored.add_round();
    part->set_node_id(node.Binary());
    for (const int32_t index : there) part->add_indices(index);
  }
  out->push_back(PersistMessage(kTable, group.id.Binary(), stored));
}

Status PlacementGroupTableCore::Restore(const StorageContents& stored, const std::function<bool(const NodeId&)>& is_alive,
                                        const std::function<bool(const JobId&)>& is_over, Time now) {
  const auto rows = stored.find(kTable);
  if (rows == stored.end()) return Status::Ok();
  std::vector<GroupPtr> waiting;
  for (const auto& [key, row] : rows->second) {
    RAY_ASSIGN_OR_RETURN(v1::StoredPlacementGroup read, ReadRow<v1::StoredPlacementGroup>(kTable, key, row));
    const PlacementGroupId id = PlacementGroupId::FromBinaryOrNil(key);
    const GroupPtr group = groups_[id] = std::make_shared<Group>();
    group->id = id;
    group->info = std::move(*read.mutable_info());
    for (const v1::Bundle& bundle : group->info.bundles())
      group->wants.push_back({FromProto(bundle.resources()), scheduling::LabelSelector(bundle.label_selector())});
    group->attempt = group->info.attempts();
    if (group->IsRemoved()) {
      removed_.push_back(id);
      continue;
    }
    if (!group->info.name().empty()) names_[{group->info.ray_namespace(), group->info.name()}] = id;
    group->creator = ActorId::FromBinaryOrNil(group->info.creator_actor_id());
    if (!group->creator.IsNil()) by_creator_[group->creator].insert(id);
    group->job_finished = is_over(JobId::FromBinaryOrNil(group->info.job_id()));
    changed_.push_back(id);
    if (group->info.state() == v1::PLACEMENT_GROUP_STATE_CREATED) continue;
    // A round goes on as its nodes come back; NodeDied ends it if one does not. One with a node that is dead already has failed.
    for (const v1::BundlesOnNode& part : read.round()) {
      const NodeId node = NodeId::FromBinaryOrNil(part.node_id());
      group->round[node] = {part.indices().begin(), part.indices().end()};
      group->steps[node] = Step::kAsked;
    }
    const bool goes_on = !group->round.empty() &&
                         std::all_of(group->round.begin(), group->round.end(), [&](const auto& part) { return is_alive(part.first); });
    group->committing = goes_on && group->info.state() == v1::PLACEMENT_GROUP_STATE_PREPARED;
    if (goes_on) continue;
    group->round.clear();
    group->steps.clear();
    if (group->info.state() == v1::PLACEMENT_GROUP_STATE_PREPARED) {
      const bool had_some = group->info.placed_at_ms() != 0;
      group->info.set_state(had_some ? v1::PLACEMENT_GROUP_STATE_RESCHEDULING : v1::PLACEMENT_GROUP_STATE_PENDING);
    }
    waiting.push_back(group);
  }
  // In the order in which they came.
  std::sort(waiting.begin(), waiting.end(), [](const GroupPtr& a, const GroupPtr& b) {
    return std::pair(a->info.created_at_ms(), a->id) < std::pair(b->info.created_at_ms(), b->id);
  });
  for (const GroupPtr& group : waiting) {
    RetryAt(*group, now);
    Place(*group);
  }
  return Status::Ok();
}

void PlacementGroupTableCore::NodeReturned(const NodeId& node, const std::vector<v1::BundleOnNode>& bundles, Time now, int64_t,
                                           Effects* out) {
  std::set<std::pair<PlacementGroupId, int32_t>> there;
  for (const v1::BundleOnNode& found : bundles) {
    const PlacementGroupId id = PlacementGroupId::FromBinaryOrNil(found.placement_group_id());
    const GroupPtr group = Lookup(id);
    bool wanted = false;
    if (group && !group->IsRemoved() && found.index() >= 0 && found.index() < group->info.bundles_size()) {
      const auto part = group->round.find(node);
      wanted = group->info.bundles(found.index()).node_id() == node.View() ||
               (part != group->round.end() && std::find(part->second.begin(), part->second.end(), found.index()) != part->second.end());
    }
    there.emplace(id, found.index());
    if (wanted) continue;
    const std::string reason = !group ? "it is not known any more" : group->IsRemoved() ? group->info.scheduling_state() : "";
    out->push_back(ReturnOnNode{node, id, 0, {found.index()}, reason});
  }
  for (const auto& [id, group] : groups_) {
    if (group->IsRemoved()) continue;
    bool lost = false;
    for (int32_t i = 0; i < group->info.bundles_size(); ++i) {
      v1::Bundle* bundle = group->info.mutable_bundles(i);
      if (bundle->node_id() != node.View() || there.contains({id, i})) continue;
      bundle->clear_node_id();
      lost = true;
    }
    if (lost) {
      Reschedule(*group, "bundles on node " + node.Hex() + " were lost and are to be placed anew", now, out);
    } else if (group->round.contains(node)) {
      AskNode(*group, node, out);
    }
  }
}

void PlacementGroupTableCore::Reschedule(Group& group, const std::string& why, Time now, Effects* out) {
  if (!group.round.empty()) FailRound(group, why, now, out);
  group.info.set_state(v1::PLACEMENT_GROUP_STATE_RESCHEDULING);
  group.info.set_scheduling_state(why);
  Changed(group, 0, out);
  Unqueue(group);  // ahead of the new ones from now on
  RetryAt(group, now);
  Place(group);
}

void PlacementGroupTableCore::AskNode(Group& group, const NodeId& node, Effects* out) {
  const std::vector<int32_t>& there = group.round.at(node);
  group.steps[node] = Step::kAsked;
  if (group.committing) {
    out->push_back(CommitOnNode{node, group.id, group.attempt, there});
    return;
  }
  PrepareOnNode prepare{node, group.id, group.attempt, {}, group.round.size() == 1};
  for (const int32_t i : there) prepare.bundles.emplace_back(i, group.wants[static_cast<size_t>(i)].need);
  out->push_back(std::move(prepare));
}

void PlacementGroupTableCore::Changed(Group& group, CallToken call, Effects* out) {
  group.info.set_version(group.info.version() + 1);
  Save(group, out);
  Reply(call, v1::PlacementGroupEmpty(), out);
  Publish publish;
  publish.notice.set_channel(v1::CHANNEL_PLACEMENT_GROUP);
  publish.notice.set_key(group.id.Binary());
  *publish.notice.mutable_placement_group() = group.info;
  out->push_back(std::move(publish));
  changed_.push_back(group.id);
}

void PlacementGroupTableCore::Create(const v1::CreatePlacementGroupRequest& request, CallToken call, Time now, int64_t wall_ms,
                                     Effects* out) {
  const PlacementGroupId id = PlacementGroupId::FromBinaryOrNil(request.group().placement_group_id());
  if (id.IsNil()) return Fail(call, Status::InvalidArgument("a placement group without a valid id"), out);
  if (groups_.contains(id)) return Reply(call, v1::PlacementGroupEmpty(), out);
  if (request.group().bundles().empty()) return Fail(call, Status::InvalidArgument("a placement group without bundles"), out);
  if (!request.group().name().empty()) {
    const auto [it, added] = names_.try_emplace({request.group().ray_namespace(), request.group().name()}, id);
    if (!added) {
      return Fail(call,
                  Status::AlreadyExists("a placement group named \"" + request.group().name() + "\" exists in namespace \"" +
                                        request.group().ray_namespace() + "\" already"),
                  out);
    }
  }
  const GroupPtr group = groups_[id] = std::make_shared<Group>();
  group->id = id;
  group->info = request.group();
  group->info.set_state(v1::PLACEMENT_GROUP_STATE_PENDING);
  group->info.set_created_at_ms(wall_ms);
  group->info.set_version(0);
  for (v1::Bundle& bundle : *group->info.mutable_bundles()) {
    bundle.clear_node_id();
    group->wants.push_back({FromProto(bundle.resources()), scheduling::LabelSelector(bundle.label_selector())});
  }
  group->creator = ActorId::FromBinaryOrNil(group->info.creator_actor_id());
  if (!group->creator.IsNil()) by_creator_[group->creator].insert(id);
  Changed(*group, call, out);
  Place(*group);
  // At once, unless others that wait for the same would have the first go: a try that fails leaves it behind them.
  TryPlace(*group, now, out);
}

std::string PlacementGroupTableCore::ShapeOf(const Group& group) {
  std::string shape = std::to_string(group.info.strategy()) + group.info.topology_label() + group.info.soft_target_node_id();
  for (int i = 0; i < group.info.bundles_size(); ++i) {
    const scheduling::BundleWant& want = group.wants[static_cast<size_t>(i)];
    shape += want.need.ToString() + want.labels.ToString() + group.info.bundles(i).node_id();
  }
  return shape;
}

void PlacementGroupTableCore::Place(Group& group) {
  if (queued_.contains(group.id)) return;
  const Turn turn(group.info.state() == v1::PLACEMENT_GROUP_STATE_RESCHEDULING ? 0 : 1, next_order_++);
  group.shape = ShapeOf(group);
  Shape& shape = shapes_[group.shape];
  shape.waiting[turn] = group.id;
  shape.tried_epoch = 0;
  queued_[group.id] = turn;
  due_.emplace(group.retry_at, group.id);
}

void PlacementGroupTableCore::Unqueue(Group& group) {
  const auto queued = queued_.find(group.id);
  if (queued == queued_.end()) return;
  const auto shape = shapes_.find(group.shape);
  shape->second.waiting.erase(queued->second);
  if (shape->second.waiting.empty()) shapes_.erase(shape);
  due_.erase({group.retry_at, group.id});
  queued_.erase(queued);
}

void PlacementGroupTableCore::RetryAt(Group& group, Time at) {
  if (queued_.contains(group.id)) {
    due_.erase({group.retry_at, group.id});
    due_.emplace(at, group.id);
  }
  group.retry_at = at;
}

ResourceSet PlacementGroupTableCore::SumOf(const Group& group, const std::vector<int32_t>& indices) const {
  ResourceSet sum;
  for (const int32_t i : indices) sum.Add(group.wants[static_cast<size_t>(i)].need);
  return sum;
}

bool PlacementGroupTableCore::TryPlace(Group& group, Time now, Effects* out) {
  scheduling::BundlePlanRequest request;
  request.strategy = StrategyOf(group.info.strategy());
  request.soft_target = NodeId::FromBinaryOrNil(group.info.soft_target_node_id());
  request.topology_label = group.info.topology_label();
  std::vector<int32_t> indices;
  for (int32_t i = 0; i < group.info.bundles_size(); ++i) {
    const NodeId node = NodeId::FromBinaryOrNil(group.info.bundles(i).node_id());
    if (node.IsNil()) {
      indices.push_back(i);
      request.bundles.push_back(group.wants[static_cast<size_t>(i)]);
    } else {
      request.placed.push_back(node);
    }
  }
  const scheduling::BundlePlan plan = scheduling::PlanBundles(request, view_);
  group.info.set_infeasible(plan.nodes.empty() && !plan.feasible);
  if (plan.nodes.empty()) {
    group.info.set_scheduling_state(plan.why_not);
    WaitAgain(group, now);
    shapes_.at(group.shape).tried_epoch = view_->epoch();
    if (!plan.feasible && !expecting_nodes_ && told_infeasible_.emplace(JobId::FromBinaryOrNil(group.info.job_id()), group.shape).second) {
      out->push_back(TellDriver{{},
                                JobId::FromBinaryOrNil(group.info.job_id()),
                                "infeasible",
                                "The " + NameOf(group.info) + " waits: " + plan.why_not + ". The cluster's nodes have " +
                                    view_->Total().ToString() + " in all. It will be placed as soon as nodes that fit join."});
    }
    return false;
  }
  Unqueue(group);
  group.info.set_attempts(group.info.attempts() + 1);
  ++group.attempt;
  group.committing = false;
  group.round.clear();
  group.steps.clear();
  for (size_t i = 0; i < indices.size(); ++i) group.round[plan.nodes[i]].push_back(indices[i]);
  Save(group, out);  // before the orders: the process after this one must know what may be reserved, and that the round's number is taken
  for (const auto& [node, there] : group.round) {
    view_->Take(node, SumOf(group, there));
    AskNode(group, node, out);
  }
  return true;
}

void PlacementGroupTableCore::WaitAgain(Group& group, Time now) {
  group.retry_delay = group.retry_delay == Duration::zero()
                          ? config_.min_retry
                          : std::min<Duration>(group.retry_delay + group.retry_delay / 2, config_.max_retry);
  RetryAt(group, now + group.retry_delay);
  group.info.set_highest_retry_delay_ms(std::chrono::duration_cast<std::chrono::milliseconds>(group.retry_delay).count());
  Place(group);
}

void PlacementGroupTableCore::FailRound(Group& group, const std::string& why, Time now, Effects* out) {
  for (const auto& [node, there] : group.round) {
    view_->GiveBack(node, SumOf(group, there));
    // To all that were asked: an answer may still be on its way. The messages of one link stay in order.
    out->push_back(ReturnOnNode{node, group.id, group.attempt, there, ""});
  }
  group.round.clear();
  group.steps.clear();
  group.committing = false;
  group.info.set_scheduling_state(why);
  if (group.info.state() == v1::PLACEMENT_GROUP_STATE_PREPARED) {
    const bool had_some = group.info.placed_at_ms() != 0;
    group.info.set_state(had_some ? v1::PLACEMENT_GROUP_STATE_RESCHEDULING : v1::PLACEMENT_GROUP_STATE_PENDING);
    Changed(group, 0, out);
  }
  WaitAgain(group, now);
}

void PlacementGroupTableCore::Prepared(const PlacementGroupId& id, uint32_t attempt, const NodeId& node, bool prepared, Time now,
                                       int64_t wall_ms, Effects* out) {
  const GroupPtr group = Lookup(id);
  if (!group || group->attempt != attempt || !group->steps.contains(node)) {
    if (prepared) TakeBackLate(group.get(), id, attempt, node, out);
    return;
  }
  if (group->committing) return;
  const auto step = group->steps.find(node);
  if (!prepared) return FailRound(*group, "node " + node.Hex() + " had less free than it was thought to have", now, out);
  step->second = Step::kReserved;
  const bool all = std::all_of(group->steps.begin(), group->steps.end(), [](const auto& s) { return s.second == Step::kReserved; });
  if (!all) return;
  if (group->round.size() == 1) return FinishRound(*group, wall_ms, out);  // committed with it
  Commit(*group, out);
}

// What was reserved in a round that is over was told to go back. But where the order to reserve was sent again, it may have come behind that.
void PlacementGroupTableCore::TakeBackLate(const Group* group, const PlacementGroupId& id, uint32_t attempt, const NodeId& node,
                                           Effects* out) {
  std::vector<int32_t> nowhere;
  if (group != nullptr && !group->IsRemoved()) {
    for (int32_t i = 0; i < group->info.bundles_size(); ++i) {
      if (group->info.bundles(i).node_id() != node.View()) nowhere.push_back(i);
    }
    if (nowhere.empty()) return;
  }
  out->push_back(ReturnOnNode{node, id, attempt, nowhere, ""});
}

void PlacementGroupTableCore::Commit(Group& group, Effects* out) {
  group.committing = true;
  group.info.set_state(v1::PLACEMENT_GROUP_STATE_PREPARED);
  Changed(group, 0, out);
  for (const auto& [node, there] : group.round) AskNode(group, node, out);
}

void PlacementGroupTableCore::Committed(const PlacementGroupId& id, uint32_t attempt, const NodeId& node, bool committed, Time now,
                                        int64_t wall_ms, Effects* out) {
  const GroupPtr group = Lookup(id);
  if (!group || group->attempt != attempt || !group->committing) return;
  const auto step = group->steps.find(node);
  if (step == group->steps.end()) return;
  if (!committed) return FailRound(*group, "node " + node.Hex() + " no longer had what it had reserved", now, out);
  step->second = Step::kReserved;
  const bool all = std::all_of(group->steps.begin(), group->steps.end(), [](const auto& s) { return s.second == Step::kReserved; });
  if (all) FinishRound(*group, wall_ms, out);
}

void PlacementGroupTableCore::FinishRound(Group& group, int64_t wall_ms, Effects* out) {
  for (const auto& [node, there] : group.round) {
    for (const int32_t i : there) group.info.mutable_bundles(i)->set_node_id(node.Binary());
  }
  group.round.clear();
  group.steps.clear();
  group.committing = false;
  group.retry_delay = Duration::zero();
  if (group.info.placed_at_ms() == 0) group.info.set_placed_at_ms(wall_ms);
  group.info.set_state(v1::PLACEMENT_GROUP_STATE_CREATED);
  group.info.set_scheduling_state("FINISHED");
  Changed(group, 0, out);
}

void PlacementGroupTableCore::ResourcesChanged(Time now, int64_t, Effects* out) {
  // In turn, the first of each shape at a time: those behind one that does not fit do not fit either.
  std::map<Turn, const std::string*> heads;
  for (const auto& [name, shape] : shapes_) {
    if (shape.tried_epoch != view_->epoch()) heads.emplace(shape.waiting.begin()->first, &name);
  }
  while (!heads.empty()) {
    const std::string name = *heads.begin()->second;
    heads.erase(heads.begin());
    if (!TryPlace(*Lookup(shapes_.at(name).waiting.begin()->second), now, out)) continue;
    if (const auto rest = shapes_.find(name); rest != shapes_.end()) heads.emplace(rest->second.waiting.begin()->first, &rest->first);
  }
}

void PlacementGroupTableCore::TryDue(Time now, Effects* out) {
  std::map<Turn, GroupPtr> due;
  for (auto it = due_.begin(); it != due_.end() && it->first <= now; ++it) due.emplace(queued_.at(it->second), Lookup(it->second));
  std::set<std::string> in_vain;
  for (const auto& [turn, group] : due) {
    if (in_vain.contains(group->shape)) {
      WaitAgain(*group, now);
    } else if (!TryPlace(*group, now, out)) {
      in_vain.insert(group->shape);
    }
  }
}

void PlacementGroupTableCore::Tick(Time now, int64_t, Effects* out) { TryDue(now, out); }

Time PlacementGroupTableCore::NextDeadline() const { return due_.empty() ? Time::Infinite() : due_.begin()->first; }

bool PlacementGroupTableCore::LoseNode(Group& group, const NodeId& node) {
  bool lost = false;
  for (v1::Bundle& bundle : *group.info.mutable_bundles()) {
    if (bundle.node_id() != node.View()) continue;
    bundle.clear_node_id();
    lost = true;
  }
  return lost;
}

void PlacementGroupTableCore::NodeDied(const NodeId& node, Time now, int64_t, Effects* out) {
  for (const auto& [id, group] : groups_) {
    if (group->IsRemoved()) continue;
    const bool lost = LoseNode(*group, node);
    if (group->round.contains(node)) {
      group->round.erase(node);  // it needs no roll-back
      FailRound(*group, "node " + node.Hex() + " died", now, out);
      RetryAt(*group, now);
    }
    if (lost) Reschedule(*group, "bundles on node " + node.Hex() + ", which died, are to be placed anew", now, out);
  }
  TryDue(now, out);
}

void PlacementGroupTableCore::Remove(const PlacementGroupId& id, CallToken call, Time, Effects* out) {
  const GroupPtr group = Lookup(id);
  if (!group || group->IsRemoved()) return Reply(call, v1::PlacementGroupEmpty(), out);
  BecomeRemoved(*group, "it was removed by remove_placement_group", call, out);
}

void PlacementGroupTableCore::BecomeRemoved(Group& group, const std::string& reason, CallToken call, Effects* out) {
  Unqueue(group);
  if (!group.info.name().empty()) names_.erase({group.info.ray_namespace(), group.info.name()});
  if (const auto it = by_creator_.find(group.creator); it != by_creator_.end()) {
    it->second.erase(group.id);
    if (it->second.empty()) by_creator_.erase(it);
  }
  // Each node that has, or may come to have, something of it.
  std::set<NodeId> nodes;
  for (const auto& [node, there] : group.round) {
    nodes.insert(node);
    view_->GiveBack(node, SumOf(group, there));
  }
  for (int32_t i = 0; i < group.info.bundles_size(); ++i) {
    const NodeId node = NodeId::FromBinaryOrNil(group.info.bundles(i).node_id());
    if (!node.IsNil()) nodes.insert(node);
  }
  group.round.clear();
  group.steps.clear();
  group.info.set_state(v1::PLACEMENT_GROUP_STATE_REMOVED);
  group.info.set_scheduling_state(reason);
  group.wants.clear();
  removed_.push_back(group.id);
  Changed(group, call, out);
  for (const NodeId& node : nodes) out->push_back(ReturnOnNode{node, group.id, 0, {}, reason});
}

void PlacementGroupTableCore::ForgetRemoved(Effects* out) {
  while (removed_.size() > config_.max_removed) {
    out->push_back(Persist{kTable, removed_.front().Binary(), {}, true});
    groups_.erase(removed_.front());
    removed_.pop_front();
  }
}

void PlacementGroupTableCore::Get(const v1::GetPlacementGroupRequest& request, CallToken call, Effects* out) const {
  GroupPtr group;
  if (!request.placement_group_id().empty()) {
    group = Lookup(PlacementGroupId::FromBinaryOrNil(request.placement_group_id()));
    if (!group) {
      return Fail(call, Status::NotFound("no placement group has the id " + BytesToHex(request.placement_group_id())), out);
    }
  } else {
    const auto it = names_.find({request.ray_namespace(), request.name()});
    if (it == names_.end()) {
      return Fail(
          call, Status::NotFound("no placement group is named \"" + request.name() + "\" in namespace \"" + request.ray_namespace() + "\""),
          out);
    }
    group = Lookup(it->second);
  }
  v1::GetPlacementGroupReply reply;
  *reply.mutable_group() = group->info;
  Reply(call, std::move(reply), out);
}

void PlacementGroupTableCore::List(CallToken call, Effects* out) const {
  v1::ListPlacementGroupsReply reply;
  for (const auto& [id, group] : groups_) *reply.add_groups() = group->info;
  Reply(call, std::move(reply), out);
}

void PlacementGroupTableCore::JobFinished(const JobId& job, const std::function<bool(const ActorId&)>& actor_lives, Time, Effects* out) {
  std::erase_if(told_infeasible_, [&](const auto& told) { return told.first == job; });
  std::vector<GroupPtr> over;
  for (const auto& [id, group] : groups_) {
    if (group->IsRemoved() || group->info.detached() || group->info.job_id() != job.View()) continue;
    group->job_finished = true;
    if (group->creator.IsNil() || !actor_lives(group->creator)) over.push_back(group);
  }
  for (const GroupPtr& group : over) BecomeRemoved(*group, "job " + job.Hex() + ", to which it belonged, has finished", 0, out);
}

std::set<JobId> PlacementGroupTableCore::Jobs() const {
  std::set<JobId> jobs;
  for (const auto& [id, group] : groups_) {
    if (!group->IsRemoved()) jobs.insert(JobId::FromBinaryOrNil(group->info.job_id()));
  }
  return jobs;
}

void PlacementGroupTableCore::ActorDied(const ActorId& actor, Time, Effects* out) {
  const auto it = by_creator_.find(actor);
  if (it == by_creator_.end()) return;
  for (const PlacementGroupId& id : std::set<PlacementGroupId>(it->second)) {
    const GroupPtr group = Lookup(id);
    if (group->info.detached() || !group->job_finished) continue;
    BecomeRemoved(*group, "actor " + actor.Hex() + ", which created it, has died", 0, out);
  }
}

}  // namespace ray::gcs
