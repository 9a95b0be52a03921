#include "ray/gcs_server/tables/actor_table_core.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "ray/v1/gcs_storage.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/wait_fact.h"

namespace ray::gcs {
namespace {

Status NoSuchActor(const ActorId& actor) { return Status::NotFound("no actor has the id " + actor.Hex()); }

// Sizes of the pieces first, so that they can be told apart again.
PartList Flatten(const CreationSpec& spec) {
  std::string head;
  auto put = [&head](uint64_t n) { head.append(reinterpret_cast<const char*>(&n), sizeof n); };
  put(spec.parts.size());
  put(spec.control.size());
  for (const BufferPtr& part : spec.parts) put(part->size());
  PartList pieces{HeapBuffer::CopyOf(head + spec.control)};
  pieces.insert(pieces.end(), spec.parts.begin(), spec.parts.end());
  return pieces;
}

// Null: these are not bytes that Flatten gave.
std::shared_ptr<const CreationSpec> Unflatten(const std::string& bytes) {
  std::string_view rest = bytes;
  auto take = [&rest](size_t size, std::string_view* piece) {
    if (rest.size() < size) return false;
    *piece = rest.substr(0, size);
    rest.remove_prefix(size);
    return true;
  };
  auto get = [&take](uint64_t* n) {
    std::string_view piece;
    if (!take(sizeof *n, &piece)) return false;
    std::memcpy(n, piece.data(), sizeof *n);
    return true;
  };
  uint64_t count, control_size;
  if (!get(&count) || !get(&control_size) || count > rest.size() / sizeof(uint64_t)) return nullptr;
  std::vector<uint64_t> sizes(count);
  for (uint64_t& size : sizes) {
    if (!get(&size)) return nullptr;
  }
  auto spec = std::make_shared<CreationSpec>();
  std::string_view piece;
  if (!take(control_size, &piece)) return nullptr;
  spec->control = piece;
  for (const uint64_t size : sizes) {
    if (!take(size, &piece)) return nullptr;
    spec->parts.push_back(HeapBuffer::CopyOf(piece));
  }
  return rest.empty() ? spec : nullptr;
}

// The predicate of a process's end; `detail` as in "killed by signal 9" or "exit code 1".
std::string Ended(const std::string& detail) { return detail.empty() ? "died" : "ended: " + detail; }

}  // namespace

ActorTableCore::ActorPtr ActorTableCore::Lookup(const ActorId& actor) const {
  auto it = actors_.find(actor);
  return it == actors_.end() ? nullptr : it->second;
}

bool ActorTableCore::Explain(const ActorId& id, int64_t wall_ms, v1::WaitFact* out) const {
  const ActorPtr actor = Lookup(id);
  if (actor == nullptr) return false;
  const v1::ActorInfo& info = actor->info;
  const v1::ActorCreation& creation = info.creation();
  SetSubject(v1::SUBJECT_KIND_ACTOR, id.View(), v1::WAIT_STATE_PENDING_CREATION, out);
  out->set_name(creation.class_name());
  out->set_attempt(info.num_restarts());
  out->set_pid(info.pid());
  *out->mutable_owner() = creation.owner();
  if (!actor->node.IsNil()) out->set_node_id(actor->node.Binary());
  if (!actor->worker.IsNil()) out->set_worker_id(actor->worker.Binary());
  switch (info.state()) {
    case v1::ACTOR_STATE_DEPENDENCIES_UNREADY:
      out->set_state(v1::WAIT_STATE_DEPENDENCIES_UNREADY);
      out->set_detail("its constructor's arguments are not there; the process that created it knows which");
      AddPointer(v1::SUBJECT_KIND_ACTOR, id.View(), FromProto(creation.owner()), out);
      return true;
    case v1::ACTOR_STATE_ALIVE: out->set_state(v1::WAIT_STATE_ALIVE); return true;
    case v1::ACTOR_STATE_DEAD:
      out->set_state(v1::WAIT_STATE_DEAD);
      out->set_detail(info.death_cause().message());
      if (info.end_time_ms() > 0) out->set_age_ms(std::max<int64_t>(0, wall_ms - info.end_time_ms()));
      return true;
    case v1::ACTOR_STATE_RESTARTING: out->set_state(v1::WAIT_STATE_RESTARTING); break;
    default: break;
  }
  if (actor->starting && !actor->node.IsNil()) {
    out->set_detail("a node was told to start it");
    AddPointer(v1::SUBJECT_KIND_ACTOR, id.View(), Address{actor->node, WorkerId::Nil()}, out);
    return true;
  }
  ToProto(actor->wish.need, out->mutable_need());
  ToProto(view_->Total(), out->mutable_total());
  out->set_detail(actor->unplaced);
  if (!actor->group.IsNil()) AddPointer(v1::SUBJECT_KIND_PLACEMENT_GROUP, actor->group.View(), Address(), out);
  return true;
}

const v1::ActorInfo* ActorTableCore::Find(const ActorId& actor) const {
  ActorPtr found = Lookup(actor);
  return found ? &found->info : nullptr;
}

std::string ActorTableCore::Describe(const Actor& actor) const {
  const v1::ActorCreation& creation = actor.info.creation();
  std::string text = "actor " + creation.class_name() + "(" + actor.id.Hex() + ")";
  return creation.name().empty() ? text : text + " named \"" + creation.name() + "\"";
}

v1::ErrorDetail ActorTableCore::DiedOf(const Actor& actor, const std::string& reason, ErrorType type) const {
  v1::ErrorDetail detail;
  detail.set_error_type(static_cast<int32_t>(type));
  detail.set_message("The actor died because " + reason + ".");
  return detail;
}

void ActorTableCore::ChangedAndReply(Actor& actor, CallToken call, const google::protobuf::MessageLite* reply, Effects* out) {
  actor.info.set_version(actor.info.version() + 1);
  Save(actor, out);
  if (call != 0) {
    std::shared_ptr<google::protobuf::MessageLite> copy(reply->New());
    copy->CheckTypeAndMergeFrom(*reply);
    out->push_back(Answer{call, {}, std::move(copy)});
  }
  Publish publish;
  publish.notice.set_channel(v1::CHANNEL_ACTOR);
  publish.notice.set_key(actor.id.Binary());
  *publish.notice.mutable_actor() = actor.info;
  out->push_back(std::move(publish));
}

void ActorTableCore::Save(const Actor& actor, Effects* out) const {
  v1::StoredActor stored;
  *stored.mutable_info() = actor.info;
  if (actor.starting) stored.set_node_id(actor.node.Binary());
  if (actor.last_words) stored.set_last_words(*actor.last_words);
  stored.set_killed(actor.killed);
  stored.set_out_of_scope(actor.out_of_scope);
  stored.set_moving(actor.moving);
  out->push_back(PersistMessage(kTable, actor.id.Binary(), stored));
}

Status ActorTableCore::Restore(const StorageContents& stored) {
  const auto rows = stored.find(kTable);
  if (rows == stored.end()) return Status::Ok();
  const StorageTable none;
  const auto specs = stored.find(kSpecTable);
  for (const auto& [key, row] : rows->second) RAY_RETURN_NOT_OK(RestoreActor(key, row, specs == stored.end() ? none : specs->second));
  std::sort(dead_.begin(), dead_.end(), [this](const ActorId& a, const ActorId& b) {
    return std::pair(Lookup(a)->info.end_time_ms(), a) < std::pair(Lookup(b)->info.end_time_ms(), b);
  });
  return Status::Ok();
}

Status ActorTableCore::RestoreActor(const std::string& key, const std::string& row, const StorageTable& specs) {
  RAY_ASSIGN_OR_RETURN(v1::StoredActor stored, ReadRow<v1::StoredActor>(kTable, key, row));
  const ActorPtr actor = std::make_shared<Actor>();
  actor->id = ActorId::FromBinaryOrNil(key);
  actor->info = std::move(*stored.mutable_info());
  actors_[actor->id] = actor;
  if (actor->IsDead()) {
    dead_.push_back(actor->id);
    return Status::Ok();
  }
  ++living_[actor->info.job_id()];
  const v1::ActorCreation& creation = actor->info.creation();
  if (!creation.name().empty()) names_[{creation.ray_namespace(), creation.name()}] = actor->id;
  const Address owner = FromProto(creation.owner());
  actor->owner_node = owner.node_id;
  actor->owner_worker = owner.worker_id;
  if (NeedsOwner(*actor)) by_owner_[owner.worker_id].insert(actor->id);
  if (!stored.last_words().empty()) actor->last_words = stored.last_words();
  actor->killed = stored.killed();
  actor->out_of_scope = stored.out_of_scope();
  actor->moving = stored.moving();
  actor->without_template = true;
  if (actor->info.state() == v1::ACTOR_STATE_DEPENDENCIES_UNREADY) return Status::Ok();

  const auto spec = specs.find(key);
  if (spec != specs.end()) actor->spec = Unflatten(spec->second);
  v1::TaskSpec task;
  if (actor->spec == nullptr || !task.ParseFromString(actor->spec->control))
    return Status::DataLoss("the stored specification of actor " + actor->id.Hex() + " is missing or cannot be read");
  ReadTemplate(*actor, task.template_());
  if (actor->info.state() == v1::ACTOR_STATE_ALIVE) {
    const Address address = FromProto(actor->info.address());
    actor->node = address.node_id;
    actor->worker = address.worker_id;
    by_worker_[actor->worker] = actor->id;
  } else if (!stored.node_id().empty()) {
    actor->node = NodeId::FromBinaryOrNil(stored.node_id());
    actor->starting = true;
  } else {
    unplaced_.insert(actor->id);
    return Status::Ok();
  }
  by_node_[actor->node].insert(actor->id);
  if (const auto group = groups_.find(actor->group); group != groups_.end()) {
    const auto& bundles = group->second.bundles;
    for (int32_t i = 0; i < static_cast<int32_t>(bundles.size()); ++i) {
      if (bundles[static_cast<size_t>(i)].node != actor->node || (actor->bundle >= 0 && actor->bundle != i)) continue;
      AccountInBundle(*actor, i, actor->starting ? actor->wish.need : actor->kept);
      break;
    }
  }
  return Status::Ok();
}

void ActorTableCore::ReadTemplate(Actor& actor, const v1::TaskTemplate& task) {
  actor.without_template = false;
  actor.wish = scheduling::MakePlacementRequest(FromProto(actor.info.creation().placement_resources()), FromProto(task.strategy()));
  actor.kept = FromProto(task.resources());
  if (task.strategy().kind() != v1::STRATEGY_KIND_PLACEMENT_GROUP) return;
  actor.group = PlacementGroupId::FromBinaryOrNil(task.strategy().placement_group_id());
  actor.bundle = task.strategy().bundle_index();
  if (const auto group = groups_.find(actor.group); group != groups_.end()) group->second.actors.insert(actor.id);
}

void ActorTableCore::ExpectNodes(bool expecting, int64_t wall_ms, Effects* out) {
  expecting_nodes_ = expecting;
  unplaced_epoch_ = 0;
  if (!expecting) NodeChanged(wall_ms, out);
}

void ActorTableCore::NodeReturned(const NodeId& node, const std::vector<v1::ActorOnNode>& actors, int64_t wall_ms, Effects* out) {
  std::set<ActorId> there;
  for (const v1::ActorOnNode& found : actors) {
    const ActorId id = ActorId::FromBinaryOrNil(found.actor_id());
    const WorkerId worker = WorkerId::FromBinaryOrNil(found.worker_id());
    const ActorPtr actor = Lookup(id);
    if (actor && !actor->IsDead() && actor->node == node && actor->info.num_restarts() == found.restart()) {
      there.insert(id);
    } else {
      out->push_back(KillOnNode{node, id, worker, true, "the control service has given it up"});
    }
  }
  const auto known = by_node_.find(node);
  if (known == by_node_.end()) return;
  for (const ActorId& id : std::set<ActorId>(known->second)) {
    const ActorPtr actor = Lookup(id);
    if (actor->starting) {
      // The raylet takes it for the same start, if it has had the order; else it is the first.
      const Duration patience = actor->group.IsNil() ? config_.start_patience : Duration::zero();
      out->push_back(StartOnNode{node, id, ++actor->start, actor->info.num_restarts(), actor->spec, patience});
    } else if (!there.contains(id)) {
      OnEnded(*actor, "its worker process died", ErrorType::kActorDied, wall_ms, out);
    } else if (actor->killed) {
      out->push_back(KillOnNode{node, id, actor->worker, true, "it was killed by `ray.kill`"});
    } else if (actor->out_of_scope) {
      out->push_back(KillOnNode{node, id, actor->worker, false, "all handles to it have gone out of scope"});
    } else if (actor->moving) {
      out->push_back(MoveOrder(*actor));
    }
  }
}

void ActorTableCore::Changed(Actor& actor, Effects* out) { ChangedAndReply(actor, 0, nullptr, out); }

void ActorTableCore::Register(const v1::RegisterActorRequest& request, CallToken call, int64_t wall_ms, Effects* out) {
  const v1::TaskTemplate& task = request.spec().template_();
  const v1::ActorCreation& creation = request.spec().creation();
  ActorId id = ActorId::FromBinaryOrNil(creation.actor_id());
  if (id.IsNil()) return Fail(call, Status::InvalidArgument("an actor without a valid id"), out);
  if (actors_.contains(id)) return Reply(call, v1::RegisterActorReply(), out);
  std::pair<std::string, std::string> name(creation.ray_namespace(), creation.name());
  if (!creation.name().empty()) {
    if (auto it = names_.find(name); it != names_.end()) {
      v1::RegisterActorReply reply;
      *reply.mutable_existing() = Lookup(it->second)->info;
      return Reply(call, std::move(reply), out);
    }
    names_.emplace(name, id);
  }
  ActorPtr actor = actors_[id] = std::make_shared<Actor>();
  actor->id = id;
  v1::ActorInfo& info = actor->info;
  info.set_actor_id(id.Binary());
  info.set_state(v1::ACTOR_STATE_DEPENDENCIES_UNREADY);
  *info.mutable_creation() = creation;
  info.set_job_id(task.job_id());
  ++living_[task.job_id()];
  info.set_function_name(task.function_name());
  info.set_function_id(task.function_id());
  info.set_start_time_ms(wall_ms);
  ReadTemplate(*actor, task);
  Address owner = FromProto(creation.owner());
  actor->owner_node = owner.node_id;
  actor->owner_worker = owner.worker_id;
  if (NeedsOwner(*actor)) by_owner_[owner.worker_id].insert(id);
  v1::RegisterActorReply reply;
  ChangedAndReply(*actor, call, &reply, out);
}

void ActorTableCore::Create(const ActorId& id, std::shared_ptr<const CreationSpec> spec, CallToken call, int64_t wall_ms, Effects* out) {
  ActorPtr actor = Lookup(id);
  if (!actor) return Fail(call, NoSuchActor(id), out);
  // Repeated, or dead meanwhile: the actor's state tells.
  if (actor->info.state() != v1::ACTOR_STATE_DEPENDENCIES_UNREADY) return Reply(call, v1::ActorEmpty(), out);
  out->push_back(Persist{kSpecTable, id.Binary(), Flatten(*spec), false});
  actor->spec = std::move(spec);
  if (actor->without_template) {
    v1::TaskSpec task;
    if (!task.ParseFromString(actor->spec->control)) return Fail(call, Status::InvalidArgument("a creation spec that cannot be read"), out);
    ReadTemplate(*actor, task.template_());
  }
  actor->info.set_state(v1::ACTOR_STATE_PENDING_CREATION);
  if (!NeedsOwner(*actor)) ForgetOwner(*actor);
  v1::ActorEmpty reply;
  ChangedAndReply(*actor, call, &reply, out);
  Place(*actor, wall_ms, out);
}

void ActorTableCore::AccountInBundle(Actor& actor, int32_t bundle, const ResourceSet& amount) {
  const auto group = groups_.find(actor.group);
  if (group != groups_.end()) {
    auto& bundles = group->second.bundles;
    if (actor.taken_from >= 0) bundles[static_cast<size_t>(actor.taken_from)].used.Subtract(actor.taken);
    if (bundle >= 0) bundles[static_cast<size_t>(bundle)].used.Add(amount);
  }
  actor.taken_from = bundle;
  actor.taken = bundle >= 0 ? amount : ResourceSet();
}

std::optional<size_t> ActorTableCore::AlternativeAt(const Actor& actor, const NodeId& node) const {
  const auto& selectors = actor.wish.selectors;
  if (selectors.empty()) return 0;
  const scheduling::ClusterView::Node* known = view_->Find(node);
  if (known == nullptr) return std::nullopt;
  const auto it = std::find_if(selectors.begin(), selectors.end(), [&](const auto& selector) { return selector.Matches(known->labels); });
  if (it == selectors.end()) return std::nullopt;
  return static_cast<size_t>(it - selectors.begin());
}

void ActorTableCore::WaitInGroup(Actor& actor, bool misplaced, Effects* out) {
  unplaced_.insert(actor.id);
  actor.unplaced = "no bundle of its placement group that it may use is on a node";
  if (!misplaced) return;
  actor.unplaced += " with the labels " + scheduling::AnyOf(actor.wish.selectors);
  if (expecting_nodes_ || std::exchange(actor.told_infeasible, true)) return;
  out->push_back(
      TellDriver{actor.owner_node, JobId::FromBinaryOrNil(actor.info.job_id()), "infeasible",
                 "The " + Describe(actor) + " waits: " + actor.unplaced + ". It will start as soon as one is placed on such a node."});
}

bool ActorTableCore::ChooseInGroup(Actor& actor, int64_t wall_ms, NodeId* node, Effects* out) {
  const auto found = groups_.find(actor.group);
  if (found == groups_.end()) {
    BecomeDead(actor,
               DiedOf(actor, "its placement group " + actor.group.Hex() + " has been removed", ErrorType::kActorPlacementGroupRemoved), 0,
               wall_ms, out);
    return false;
  }
  found->second.actors.insert(actor.id);
  const auto& bundles = found->second.bundles;
  int32_t chosen = -1;
  std::pair<size_t, bool> chosen_rank;  // the earliest alternative, then where there is room: the lower the better
  bool fits = false, misplaced = true;
  for (int32_t i = 0; i < static_cast<int32_t>(bundles.size()); ++i) {
    const Group::Bundle& bundle = bundles[static_cast<size_t>(i)];
    if (actor.bundle >= 0 && i != actor.bundle) continue;
    if (!bundle.total.Covers(actor.wish.need)) continue;
    fits = true;
    if (bundle.node.IsNil()) misplaced = false;
    const auto alternative = bundle.node.IsNil() ? std::nullopt : AlternativeAt(actor, bundle.node);
    if (!alternative) continue;
    ResourceSet left = bundle.total;
    left.Subtract(bundle.used);
    const std::pair rank(*alternative, !left.Covers(actor.wish.need));
    if (chosen < 0 || rank < chosen_rank) {
      chosen = i;
      chosen_rank = rank;
    }
  }
  if (!fits) {
    BecomeDead(actor,
               DiedOf(actor,
                      "no bundle of its placement group that it may use has " + actor.wish.need.ToString() + " (bundle index " +
                          std::to_string(actor.bundle) + ")",
                      ErrorType::kActorUnschedulable),
               0, wall_ms, out);
    return false;
  }
  if (chosen < 0) {
    WaitInGroup(actor, misplaced, out);
    return true;
  }
  *node = bundles[static_cast<size_t>(chosen)].node;
  AccountInBundle(actor, chosen, actor.wish.need);
  return true;
}

void ActorTableCore::GroupChanged(const v1::PlacementGroupInfo& info, int64_t wall_ms, Effects* out) {
  const PlacementGroupId id = PlacementGroupId::FromBinaryOrNil(info.placement_group_id());
  if (info.state() == v1::PLACEMENT_GROUP_STATE_REMOVED) {
    auto gone = groups_.extract(id);
    if (gone.empty()) return;
    const std::string reason = "its placement group " + id.Hex() + " was removed (" + info.scheduling_state() + ")";
    for (const ActorId& actor_id : gone.mapped().actors) {
      ActorPtr actor = Lookup(actor_id);
      if (!actor || actor->IsDead()) continue;
      KillOnNode kill{actor->node, actor->id, actor->worker, true, reason};
      BecomeDead(*actor, DiedOf(*actor, reason, ErrorType::kActorPlacementGroupRemoved), 0, wall_ms, out);
      if (!kill.node.IsNil()) out->push_back(std::move(kill));
    }
    return;
  }
  auto [it, fresh] = groups_.try_emplace(id);
  Group& group = it->second;
  group.bundles.resize(static_cast<size_t>(info.bundles_size()));
  for (int i = 0; i < info.bundles_size(); ++i) {
    Group::Bundle& bundle = group.bundles[static_cast<size_t>(i)];
    if (fresh) bundle.total = FromProto(info.bundles(i).resources());
    bundle.node = NodeId::FromBinaryOrNil(info.bundles(i).node_id());
  }
  for (const ActorId& actor_id : std::set<ActorId>(group.actors)) {
    if (!unplaced_.contains(actor_id)) continue;
    if (ActorPtr actor = Lookup(actor_id)) Place(*actor, wall_ms, out);
  }
}

void ActorTableCore::Place(Actor& actor, int64_t wall_ms, Effects* out) {
  std::optional<NodeId> node;
  Duration patience = Duration::zero();
  if (!actor.group.IsNil()) {
    NodeId in_group;
    if (!ChooseInGroup(actor, wall_ms, &in_group, out)) return;
    if (in_group.IsNil()) return;  // GroupChanged comes
    node = in_group;
  } else {
    node = ChooseNode(actor, &patience, wall_ms, out);
    if (!node) return;
  }
  unplaced_.erase(actor.id);
  actor.node = *node;
  actor.starting = true;
  by_node_[*node].insert(actor.id);
  Save(actor, out);  // before the order: the process after this one must know where it may be
  out->push_back(StartOnNode{*node, actor.id, ++actor.start, actor.info.num_restarts(), actor.spec, patience});
}

std::optional<NodeId> ActorTableCore::ChooseNode(Actor& actor, Duration* patience, int64_t wall_ms, Effects* out) {
  std::set<NodeId> except;
  if (!actor.turned_away_by.IsNil()) except.insert(actor.turned_away_by);
  const scheduling::Placement placement = policy_.Choose(actor.wish, actor.owner_node, except);
  if (expecting_nodes_ && (placement.kind == scheduling::Placement::kRefused || placement.kind == scheduling::Placement::kInfeasible)) {
    unplaced_.insert(actor.id);
    actor.unplaced = placement.reason + "; nodes that were there before the GCS restarted may still come back";
    return std::nullopt;
  }
  if (placement.kind == scheduling::Placement::kRefused) {
    BecomeDead(actor, DiedOf(actor, placement.reason, ErrorType::kActorUnschedulable), 0, wall_ms, out);
    return std::nullopt;
  }
  if (placement.kind == scheduling::Placement::kInfeasible) {
    unplaced_.insert(actor.id);
    actor.unplaced = placement.reason;
    if (actor.told_infeasible) return std::nullopt;
    actor.told_infeasible = true;
    out->push_back(TellDriver{actor.owner_node, JobId::FromBinaryOrNil(actor.info.job_id()), "infeasible",
                              "The " + Describe(actor) + " waits: " + placement.reason + ". The cluster's nodes have " +
                                  view_->Total().ToString() + " in all. It will start as soon as a node that fits joins."});
    return std::nullopt;
  }
  NodeId node = placement.node;
  if (placement.kind == scheduling::Placement::kWait) {
    // All are full. It queues at one, since room there may be a matter of milliseconds (most actors keep nothing of what it takes to place
    // them), but not for long while others could have room before.
    bool fulfilled = false;
    const scheduling::LabelSelector* selector = policy_.SelectorOf(actor.wish, &fulfilled);
    const auto could = view_->Search({&actor.wish.need, selector}, scheduling::ClusterView::Fit::kEver, {64});
    const scheduling::ClusterView::Node* best = nullptr;  // the least used
    const auto order_of = [this](const scheduling::ClusterView::Node& node) { return std::pair(view_->RankOf(node, {}), node.id); };
    for (const auto& [candidate, rank] : could) {
      if (could.size() > 1 && candidate->id == actor.turned_away_by) continue;
      if (best == nullptr || order_of(*candidate) < order_of(*best)) best = candidate;
    }
    if (best == nullptr) {  // the only one that could has been left out, and is not left out any more
      unplaced_.insert(actor.id);
      actor.unplaced = "no node has room";
      return std::nullopt;
    }
    node = best->id;
    if (could.size() > 1) *patience = config_.start_patience;
  } else if (placement.kind == scheduling::Placement::kBind && actor.wish.strategy == scheduling::Strategy::kSpread && view_->size() > 1) {
    *patience = config_.start_patience;
  } else if (placement.kind == scheduling::Placement::kNode && view_->size() > 1) {
    *patience = config_.start_patience;
  }
  view_->Take(node, actor.wish.need);
  return node;
}

void ActorTableCore::ReleaseWorker(Actor& actor) {
  if (!actor.worker.IsNil()) by_worker_.erase(actor.worker);
  if (auto it = by_node_.find(actor.node); it != by_node_.end()) {
    it->second.erase(actor.id);
    if (it->second.empty()) by_node_.erase(it);
  }
  AccountInBundle(actor, -1, {});
  actor.node = {};
  actor.worker = {};
  actor.starting = false;
  actor.info.clear_address();
}

void ActorTableCore::BecomeAlive(Actor& actor, const v1::StartActorReply& reply, Effects* out) {
  actor.starting = false;
  actor.turned_away_by = {};
  if (actor.taken_from >= 0) AccountInBundle(actor, actor.taken_from, actor.kept);
  actor.worker = WorkerId::FromBinaryOrNil(reply.worker().worker_id());
  by_worker_[actor.worker] = actor.id;
  actor.info.set_state(v1::ACTOR_STATE_ALIVE);
  *actor.info.mutable_address() = reply.worker();
  actor.info.set_pid(reply.pid());
  actor.info.set_node_ip(reply.node_ip());
  actor.info.set_repr_name(reply.repr_name());
  Changed(actor, out);
  // The order to end it came too early for a worker that was just ready, or went to a node that turned it away. Its callers send nothing to this one any more.
  if (actor.killed) out->push_back(KillOnNode{actor.node, actor.id, actor.worker, true, "it was killed by `ray.kill`"});
  // Published as alive first, so that the calls which were sent before can still reach it.
  if (actor.out_of_scope) out->push_back(KillOnNode{actor.node, actor.id, actor.worker, false, "all handles to it have gone out of scope"});
}

void ActorTableCore::BecomeDead(Actor& actor, v1::ErrorDetail cause, CallToken call, int64_t wall_ms, Effects* out) {
  const v1::ActorCreation& creation = actor.info.creation();
  cause.set_actor_id(actor.id.Binary());
  cause.set_class_name(creation.class_name());
  cause.set_actor_name(creation.name());
  cause.set_ray_namespace(creation.ray_namespace());
  if (cause.pid() == 0) cause.set_pid(actor.info.pid());
  if (cause.node_ip().empty()) cause.set_node_ip(actor.info.node_ip());
  if (actor.info.num_restarts() == 0 && actor.info.state() != v1::ACTOR_STATE_ALIVE) cause.set_never_ran(true);
  ReleaseWorker(actor);
  unplaced_.erase(actor.id);
  if (const auto living = living_.find(actor.info.job_id()); --living->second == 0) living_.erase(living);
  if (const auto group = groups_.find(actor.group); group != groups_.end()) group->second.actors.erase(actor.id);
  if (!creation.name().empty()) names_.erase({creation.ray_namespace(), creation.name()});
  ForgetOwner(actor);
  if (actor.spec) {
    actor.spec = nullptr;
    out->push_back(Persist{kSpecTable, actor.id.Binary(), {}, true});
  }
  actor.info.mutable_creation()->clear_method_table();  // nobody makes handles of it by its name any more
  actor.info.set_state(v1::ACTOR_STATE_DEAD);
  actor.info.set_end_time_ms(wall_ms);
  *actor.info.mutable_death_cause() = std::move(cause);
  v1::ActorEmpty reply;
  ChangedAndReply(actor, call, &reply, out);
  dead_.push_back(actor.id);
  while (dead_.size() > config_.max_dead) {
    out->push_back(Persist{kTable, dead_.front().Binary(), {}, true});
    actors_.erase(dead_.front());
    dead_.pop_front();
  }
}

KillOnNode ActorTableCore::MoveOrder(const Actor& actor) {
  return {actor.node, actor.id, actor.worker, /*force=*/false, "its node is draining, and it goes on elsewhere", /*move=*/true};
}

bool ActorTableCore::MayRestart(const Actor& actor) const {
  const int32_t max_restarts = actor.info.creation().max_restarts();
  return max_restarts < 0 || actor.info.num_restarts() - actor.info.num_moves() < static_cast<uint32_t>(max_restarts);
}

void ActorTableCore::NodeDraining(const NodeId& node, Effects* out) {
  const auto there = by_node_.find(node);
  if (there == by_node_.end()) return;
  for (const ActorId& id : there->second) {
    const ActorPtr actor = Lookup(id);
    if (actor == nullptr || actor->info.state() != v1::ACTOR_STATE_ALIVE || actor->moving || actor->killed || actor->last_words) continue;
    if (!actor->group.IsNil() || !MayRestart(*actor)) continue;  // bundles stay where they are; the others live as long as their node
    bool fulfilled = false;
    const scheduling::LabelSelector* selector = policy_.SelectorOf(actor->wish, &fulfilled);
    if (!view_->Any({&actor->wish.need, selector}, scheduling::ClusterView::Fit::kEver)) continue;
    actor->moving = true;
    Save(*actor, out);  // before the order: when it says that it leaves, the process after this one must know what for
    out->push_back(MoveOrder(*actor));
  }
}

void ActorTableCore::OnEnded(Actor& actor, const std::string& reason, ErrorType type, int64_t wall_ms, Effects* out, bool in_order) {
  const bool moved = std::exchange(actor.moving, false) && in_order;
  if (actor.last_words) return BecomeDead(actor, DiedOf(actor, *actor.last_words), 0, wall_ms, out);
  std::string why = actor.killed ? "it was killed by `ray.kill`" : reason;
  if (actor.killed) type = ErrorType::kActorDied;
  actor.killed = false;
  if (!MayRestart(actor)) {
    const int32_t max_restarts = actor.info.creation().max_restarts();
    if (max_restarts > 0) why += ", after " + std::to_string(max_restarts) + (max_restarts == 1 ? " restart" : " restarts");
    return BecomeDead(actor, DiedOf(actor, why, type), 0, wall_ms, out);
  }
  ReleaseWorker(actor);
  actor.info.set_num_restarts(actor.info.num_restarts() + 1);
  if (moved) actor.info.set_num_moves(actor.info.num_moves() + 1);
  actor.info.set_moved(moved);
  actor.info.set_state(v1::ACTOR_STATE_RESTARTING);
  actor.info.set_pid(0);
  actor.info.clear_node_ip();
  actor.told_infeasible = false;
  Changed(actor, out);
  Place(actor, wall_ms, out);
}

void ActorTableCore::FailCreation(const ActorId& id, const v1::ErrorDetail& cause, CallToken call, int64_t wall_ms, Effects* out) {
  ActorPtr actor = Lookup(id);
  if (!actor) return Fail(call, NoSuchActor(id), out);
  if (actor->info.state() != v1::ACTOR_STATE_DEPENDENCIES_UNREADY) return Reply(call, v1::ActorEmpty(), out);
  BecomeDead(*actor, cause, call, wall_ms, out);
}

void ActorTableCore::Kill(const ActorId& id, bool no_restart, CallToken call, int64_t wall_ms, Effects* out) {
  const std::string reason = "it was killed by `ray.kill`";
  ActorPtr actor = Lookup(id);
  if (!actor) return Fail(call, NoSuchActor(id), out);
  if (actor->IsDead()) return Reply(call, v1::ActorEmpty(), out);
  KillOnNode kill{actor->node, id, actor->worker, true, reason};
  if (no_restart) {
    if (kill.node.IsNil()) return BecomeDead(*actor, DiedOf(*actor, reason), call, wall_ms, out);
    // Who asks is answered when its process has ended: what is asked of it later, on whatever way, finds nobody.
    kill.call = call;
    BecomeDead(*actor, DiedOf(*actor, reason), 0, wall_ms, out);
    out->push_back(std::move(kill));
    return;
  }
  if (!kill.node.IsNil()) {
    // The end of its process, or of its start, brings the restart.
    actor->killed = true;
    Save(*actor, out);
    Reply(call, v1::ActorEmpty(), out);
    out->push_back(std::move(kill));
  } else if (actor->info.state() == v1::ACTOR_STATE_DEPENDENCIES_UNREADY) {
    // Nothing has started that could start again.
    BecomeDead(*actor, DiedOf(*actor, reason), call, wall_ms, out);
  } else {
    actor->killed = true;
    Reply(call, v1::ActorEmpty(), out);
    OnEnded(*actor, reason, ErrorType::kActorDied, wall_ms, out);
  }
}

void ActorTableCore::OutOfScope(const ActorId& id, CallToken call, int64_t wall_ms, Effects* out) {
  ActorPtr actor = Lookup(id);
  if (!actor || actor->IsDead() || actor->info.creation().detached()) return Reply(call, v1::ActorEmpty(), out);
  const std::string reason = "all handles to it have gone out of scope";
  actor->last_words = reason;
  actor->out_of_scope = true;
  if (actor->node.IsNil()) return BecomeDead(*actor, DiedOf(*actor, reason), call, wall_ms, out);
  Save(*actor, out);
  Reply(call, v1::ActorEmpty(), out);
  // One that is still starting gets this once it is alive.
  if (!actor->starting) out->push_back(KillOnNode{actor->node, id, actor->worker, false, reason});
}

void ActorTableCore::Exiting(const ActorId& id, const WorkerId& worker, CallToken call, Effects* out) {
  ActorPtr actor = Lookup(id);
  // It may tell before the answer to its start has come. Dead only when the process is: results of its last calls are still on their way.
  // One that is moved says the same, and is not meant to end.
  if (actor && !actor->IsDead() && !actor->moving && (actor->worker == worker || actor->starting)) {
    actor->last_words = "it left by itself (exit_actor or __ray_terminate__)";
    Save(*actor, out);
  }
  Reply(call, v1::ActorEmpty(), out);
}

void ActorTableCore::Get(const ActorId& id, CallToken call, Effects* out) const {
  ActorPtr actor = Lookup(id);
  if (!actor) return Fail(call, NoSuchActor(id), out);
  v1::GetActorReply reply;
  *reply.mutable_actor() = actor->info;
  Reply(call, std::move(reply), out);
}

void ActorTableCore::GetNamed(const std::string& ray_namespace, const std::string& name, CallToken call, Effects* out) const {
  auto it = names_.find({ray_namespace, name});
  if (it == names_.end()) {
    return Fail(call, Status::NotFound("no actor is named \"" + name + "\" in namespace \"" + ray_namespace + "\""), out);
  }
  Get(it->second, call, out);
}

void ActorTableCore::List(const v1::ListActorsRequest& request, CallToken call, Effects* out) const {
  v1::ListActorsReply reply;
  for (const auto& [id, actor] : actors_) {
    const v1::ActorCreation& creation = actor->info.creation();
    if (request.named_only() && (creation.name().empty() || actor->IsDead())) continue;
    if (!request.all_namespaces() && creation.ray_namespace() != request.ray_namespace()) continue;
    *reply.add_actors() = actor->info;
  }
  Reply(call, std::move(reply), out);
}

void ActorTableCore::Started(const ActorId& id, uint32_t start, const Status& status, const v1::StartActorReply& reply, int64_t wall_ms,
                             Effects* out) {
  ActorPtr actor = Lookup(id);
  if (!actor || actor->start != start || !actor->starting) {
    // Killed or moved on meanwhile, and the order to end it may have come too early for a worker that was just ready.
    NodeId node = NodeId::FromBinaryOrNil(reply.worker().node_id());
    WorkerId worker = WorkerId::FromBinaryOrNil(reply.worker().worker_id());
    if (status.ok() && !node.IsNil() && !worker.IsNil() && !reply.has_creation_error() && !reply.cancelled()) {
      out->push_back(KillOnNode{node, id, worker, true, "it was ended while it started"});
    }
    return;
  }
  // The link broke: the end of the node follows, and brings the restart.
  if (status.code() == StatusCode::kUnavailable) return;
  if (!status.ok()) {
    return BecomeDead(*actor, DiedOf(*actor, "its node could not start it: " + status.message(), ErrorType::kActorUnschedulable), 0,
                      wall_ms, out);
  }
  if (reply.has_creation_error()) {
    const v1::ErrorDetail& error = reply.creation_error();
    auto type = static_cast<ErrorType>(error.error_type());
    bool worker_died = !error.actor_init_failed() && (type == ErrorType::kWorkerDied || type == ErrorType::kActorDied ||
                                                      type == ErrorType::kOutOfMemory || type == ErrorType::kNodeDied);
    actor->info.set_pid(error.pid() != 0 ? error.pid() : reply.pid());
    actor->info.set_node_ip(error.node_ip());
    if (!error.argument_of().empty())
      return BecomeDead(*actor, DiedOf(*actor, "an argument of its constructor failed: " + error.message()), 0, wall_ms, out);
    // What raised once would raise again.
    if (!worker_died) return BecomeDead(*actor, error, 0, wall_ms, out);
    std::string how = error.message().empty() ? "its worker process died while its constructor ran" : error.message();
    while (how.ends_with('.')) how.pop_back();
    if (how.starts_with("The ")) how[0] = 't';  // it goes on a sentence
    return OnEnded(*actor, how, type == ErrorType::kOutOfMemory ? type : ErrorType::kActorDied, wall_ms, out);
  }
  if (reply.rejected()) {  // its bundle has moved, or the node is fuller than it was thought to be
    actor->turned_away_by = actor->node;
    ReleaseWorker(*actor);
    return Place(*actor, wall_ms, out);
  }
  if (reply.cancelled()) {
    if (actor->killed || actor->last_words) return OnEnded(*actor, "its start was cancelled", ErrorType::kActorDied, wall_ms, out);
    return BecomeDead(*actor, DiedOf(*actor, "its node cancelled its start"), 0, wall_ms, out);
  }
  BecomeAlive(*actor, reply, out);
}

void ActorTableCore::NodeChanged(int64_t wall_ms, Effects* out) {
  if (view_->epoch() == unplaced_epoch_) return;  // no node has more than at the last try of all
  unplaced_epoch_ = view_->epoch();
  std::set<scheduling::PlacementRequest> in_vain;  // those that want the same as one that found no place find none either
  for (const ActorId& id : std::set<ActorId>(unplaced_)) {
    ActorPtr actor = Lookup(id);
    // Those in groups wait for news of their group, save that after a restart the labels of a bundle's node are known only when it is back.
    if (!actor || (!actor->group.IsNil() && actor->wish.selectors.empty()) || in_vain.contains(actor->wish)) continue;
    Place(*actor, wall_ms, out);
    if (unplaced_.contains(id) && actor->group.IsNil()) in_vain.insert(actor->wish);
  }
}

void ActorTableCore::NodeDied(const NodeId& node, const std::string& reason, int64_t wall_ms, Effects* out) {
  // Ahead of the news of their groups: actors that lived in bundles there wait for the bundle's next node, and are not started on this one.
  for (auto& [id, group] : groups_) {
    for (Group::Bundle& bundle : group.bundles) {
      if (bundle.node == node) bundle.node = NodeId::Nil();
    }
  }
  if (auto there = by_node_.extract(node)) {
    for (const ActorId& id : there.mapped()) {
      if (ActorPtr actor = Lookup(id))
        OnEnded(*actor, "its node " + node.Hex() + " died (" + reason + ")", ErrorType::kActorDied, wall_ms, out);
    }
  }
  OwnerDied([&node](const Actor& actor) { return actor.owner_node == node; }, "was on node " + node.Hex() + ", which died (" + reason + ")",
            wall_ms, out);
}

void ActorTableCore::WorkerDied(const v1::ReportWorkerDiedRequest& report, int64_t wall_ms, Effects* out) {
  WorkerId worker = WorkerId::FromBinaryOrNil(report.worker_id());
  if (auto it = by_worker_.find(worker); it != by_worker_.end()) {
    ActorPtr actor = Lookup(it->second);
    std::string reason = "its worker process " + Ended(report.detail());
    if (report.with_node()) reason = "its node " + actor->node.Hex() + " died (it was stopped)";
    if (report.out_of_memory()) reason = "its worker process was ended because its node ran out of memory (" + report.detail() + ")";
    OnEnded(*actor, reason, report.out_of_memory() ? ErrorType::kOutOfMemory : ErrorType::kActorDied, wall_ms, out, report.in_order());
  }
  if (by_owner_.contains(worker)) {
    OwnerDied([&worker](const Actor& actor) { return actor.owner_worker == worker; },
              "(" + std::string(report.is_driver() ? "driver " : "worker ") + worker.Hex() + ", pid " + std::to_string(report.pid()) +
                  ") " + Ended(report.detail()),
              wall_ms, out);
  }
}

// A detached one is made by its owner as any other: until then nobody else could.
bool ActorTableCore::NeedsOwner(const Actor& actor) {
  return !actor.info.creation().detached() || actor.info.state() == v1::ACTOR_STATE_DEPENDENCIES_UNREADY;
}

void ActorTableCore::ForgetOwner(const Actor& actor) {
  const auto owned = by_owner_.find(actor.owner_worker);
  if (owned == by_owner_.end()) return;
  owned->second.erase(actor.id);
  if (owned->second.empty()) by_owner_.erase(owned);
}

void ActorTableCore::OwnerWasDead(const ActorId& id, const std::string& detail, int64_t wall_ms, Effects* out) {
  OwnerDied([&id](const Actor& actor) { return actor.id == id; }, Ended(detail), wall_ms, out);
}

void ActorTableCore::OwnerDied(const std::function<bool(const Actor&)>& is_owned, const std::string& what, int64_t wall_ms, Effects* out) {
  std::vector<ActorPtr> doomed;
  for (const auto& [owner, ids] : by_owner_) {
    for (const ActorId& id : ids) {
      if (ActorPtr actor = Lookup(id); is_owned(*actor)) doomed.push_back(std::move(actor));
    }
  }
  const std::string reason = "its owner " + what;
  for (const ActorPtr& actor : doomed) {
    KillOnNode kill{actor->node, actor->id, actor->worker, true, reason};
    BecomeDead(*actor, DiedOf(*actor, reason), 0, wall_ms, out);
    if (!kill.node.IsNil()) out->push_back(std::move(kill));
  }
}

std::vector<WorkerId> ActorTableCore::StayingWorkers() const {
  std::vector<WorkerId> workers;
  for (const ActorId& id : Staying()) {
    if (const ActorPtr actor = Lookup(id); !actor->worker.IsNil()) workers.push_back(actor->worker);
  }
  return workers;
}

bool ActorTableCore::AnyLives(const JobId& job) const { return living_.contains(job.View()); }

std::set<ActorId> ActorTableCore::Staying() const {
  std::set<ActorId> staying;
  std::deque<WorkerId> owners;
  auto stay = [&](const Actor& actor) {
    if (staying.insert(actor.id).second && !actor.worker.IsNil()) owners.push_back(actor.worker);
  };
  for (const auto& [id, actor] : actors_) {
    if (!actor->IsDead() && actor->info.creation().detached()) stay(*actor);
  }
  for (; !owners.empty(); owners.pop_front()) {
    auto it = by_owner_.find(owners.front());
    if (it == by_owner_.end()) continue;
    for (const ActorId& id : it->second) stay(*Lookup(id));
  }
  return staying;
}

void ActorTableCore::JobFinished(const JobId& job, int64_t wall_ms, Effects* out) {
  // Detached actors stay, and so does what they created.
  const std::set<ActorId> staying = Staying();
  OwnerDied([&](const Actor& actor) { return actor.info.job_id() == job.View() && !staying.contains(actor.id); },
            "belonged to job " + job.Hex() + ", which has finished", wall_ms, out);
}

}  // namespace ray::gcs
