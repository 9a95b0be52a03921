#include "ray/core_worker/placement_groups/placement_group_service.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "ray/core_worker/services/sync_call.h"
#include "ray/util/logging.h"
#include "ray/v1/pubsub.pb.h"
#include "ray/wire/convert.h"

namespace ray::core {
namespace {

GroupState StateFrom(const v1::PlacementGroupInfo& info) {
  GroupState state;
  for (const v1::Bundle& bundle : info.bundles()) state.nodes.push_back(NodeId::FromBinaryOrNil(bundle.node_id()));
  if (info.state() == v1::PLACEMENT_GROUP_STATE_REMOVED) {
    state.kind = GroupState::kGone;
    state.why = "Placement group " + BytesToHex(info.placement_group_id()) + " has been removed: " + info.scheduling_state() + ".";
  } else {
    // PREPARED again after a loss: what stayed where it was is still usable.
    state.kind = info.placed_at_ms() != 0 ? GroupState::kPlaced : GroupState::kWaiting;
  }
  return state;
}

}  // namespace

PlacementGroupService::Group& PlacementGroupService::FollowLocked(const PlacementGroupId& id, bool* fresh) {
  const auto [it, added] = groups_.try_emplace(id);
  *fresh = added;
  return it->second;
}

void PlacementGroupService::Subscribe(const PlacementGroupId& id) {
  const auto raylet = deps_.peers->raylet();
  if (raylet == nullptr) return;
  v1::SubscribeRequest request;
  request.set_channel(v1::CHANNEL_PLACEMENT_GROUP);
  request.set_key(id.Binary());
  raylet->Call(MethodId::kSubscribe, request, {}, [this, id](const Status& status, const rpc::Reply&) {
    if (status.ok()) return;
    Update(id, UINT64_MAX, {GroupState::kGone, {}, "The state of placement group " + id.Hex() + " is not known: " + status.message()});
  });
  // A group that the GCS has never heard of, or has forgotten, is not published: ask for it, too.
  v1::GetPlacementGroupRequest get;
  get.set_placement_group_id(id.Binary());
  rpc::CallTyped<v1::GetPlacementGroupReply>(
      *raylet, MethodId::kGetPlacementGroup, get, {},
      [this, id](const Status& status, const v1::GetPlacementGroupReply& reply, const PartList&) {
        if (status.ok()) return OnPublish(reply.group());
        if (status.code() != StatusCode::kNotFound) return;
        Update(id, UINT64_MAX, {GroupState::kGone, {}, "Placement group " + id.Hex() + " does not exist."});
      });
}

Status PlacementGroupService::Create(v1::PlacementGroupInfo info, PlacementGroupId* id) {
  const auto raylet = deps_.peers->raylet();
  if (raylet == nullptr) return Status::Unavailable("not connected to the raylet");
  *id = PlacementGroupId::FromRandom();
  std::memcpy(id->mutable_data() + PlacementGroupId::kSize - JobId::kSize, deps_.job_id.data(), JobId::kSize);
  info.set_placement_group_id(id->Binary());
  info.set_job_id(deps_.job_id.Binary());
  {
    MutexLock lock(&mu_);
    groups_.try_emplace(*id);  // before its news can come
  }
  const bool named = !info.name().empty();
  v1::CreatePlacementGroupRequest request;
  *request.mutable_group() = std::move(info);
  if (named) {
    v1::PlacementGroupEmpty reply;
    if (Status status = SyncCall(deps_.loop, raylet, MethodId::kCreatePlacementGroup, request, {}, &reply, deps_.gcs_timeout);
        !status.ok()) {
      // Whoever asked hears of a failure, so it must not come into being when the GCS is back. The removal follows the creation on the same way.
      if (status.code() == StatusCode::kDeadlineExceeded) Remove(*id);
      MutexLock lock(&mu_);
      groups_.erase(*id);
      return status;
    }
  } else {
    raylet->Call(MethodId::kCreatePlacementGroup, request, {}, [this, group = *id](const Status& status, const rpc::Reply&) {
      if (status.ok()) return;
      Update(group, UINT64_MAX, {GroupState::kGone, {}, "Placement group " + group.Hex() + " could not be created: " + status.message()});
    });
  }
  // Follows the creation on the same way, so the GCS knows the group by then.
  v1::SubscribeRequest subscribe;
  subscribe.set_channel(v1::CHANNEL_PLACEMENT_GROUP);
  subscribe.set_key(id->Binary());
  raylet->Call(MethodId::kSubscribe, subscribe, {}, [group = *id](const Status& status, const rpc::Reply&) {
    if (!status.ok()) RAY_LOG(INFO) << "subscribing to placement group " << group << ": " << status.ToString();
  });
  return Status::Ok();
}

void PlacementGroupService::Remove(const PlacementGroupId& id) {
  v1::RemovePlacementGroupRequest request;
  request.set_placement_group_id(id.Binary());
  if (const auto raylet = deps_.peers->raylet()) raylet->Notify(MethodId::kRemovePlacementGroup, request);
}

GroupState PlacementGroupService::StateOf(const PlacementGroupId& id) {
  bool fresh;
  GroupState state;
  {
    MutexLock lock(&mu_);
    state = FollowLocked(id, &fresh).state;
  }
  if (fresh) Subscribe(id);
  return state;
}

ReadResult PlacementGroupService::Wait(const PlacementGroupId& id, int64_t timeout_ms, GroupState* state) {
  const Time deadline = deps_.objects->DeadlineOf(timeout_ms);
  const auto waiter = std::make_shared<async::Waiter>();
  bool fresh;
  {
    MutexLock lock(&mu_);
    Group& group = FollowLocked(id, &fresh);
    *state = group.state;
    if (state->kind >= GroupState::kPlaced) return ReadResult::kReady;
    group.waiters.push_back(waiter);
  }
  if (fresh) Subscribe(id);
  const ReadResult result = deps_.objects->Block(waiter.get(), deadline);
  MutexLock lock(&mu_);
  Group& group = FollowLocked(id, &fresh);
  std::erase(group.waiters, waiter);
  *state = group.state;
  return state->kind >= GroupState::kPlaced ? ReadResult::kReady : result;
}

Status PlacementGroupService::WhenReady(const PlacementGroupId& id, const ValueView& value, ObjectId* object) {
  *object = ObjectId::ForReturn(TaskId::Of(deps_.job_id, ActorId::Nil()), 0);
  StoredReturn stored;
  // Here however large it is: no task could make it again if a store lost it.
  RAY_RETURN_NOT_OK(deps_.objects->MakeReturn({*object, 0}, deps_.self, value, &stored, ReturnPlace::kInline));
  ReturnValue promised;
  promised.id = *object;
  promised.metadata = std::string(value.metadata);
  promised.size = stored.size;
  promised.blob = stored.blob;
  deps_.objects->AddOwned(std::span(object, 1));
  bool fresh;
  GroupState state;
  {
    MutexLock lock(&mu_);
    Group& group = FollowLocked(id, &fresh);
    state = group.state;
    if (state.kind < GroupState::kPlaced) {
      if (group.promised.size() >= group.many_promised) {  // a program may ask in a loop, and drop what it got
        std::erase_if(group.promised, [this](const ReturnValue& value) { return !deps_.objects->references().Contains(value.id); });
        group.many_promised = std::max(kFewPromised, 2 * group.promised.size());
      }
      group.promised.push_back(promised);
    }
  }
  if (fresh) Subscribe(id);
  if (state.kind >= GroupState::kPlaced) Settle(state, {promised});
  return Status::Ok();
}

void PlacementGroupService::Settle(const GroupState& state, std::vector<ReturnValue> promised) {
  for (const ReturnValue& value : promised) {
    if (state.kind == GroupState::kPlaced) {
      deps_.objects->StoreReturn(value);
    } else {
      const ErrorValue error = MakeErrorValue(ErrorType::kTaskPlacementGroupRemoved, state.why);
      deps_.objects->StoreError(value.id, error.metadata, error.blob);
    }
  }
}

void PlacementGroupService::OnPublish(const v1::PlacementGroupInfo& info) {
  const PlacementGroupId id = PlacementGroupId::FromBinaryOrNil(info.placement_group_id());
  Update(id, info.version(), StateFrom(info));
  if (info.state() != v1::PLACEMENT_GROUP_STATE_REMOVED) return;
  v1::SubscribeRequest request;  // the last news of it
  request.set_channel(v1::CHANNEL_PLACEMENT_GROUP);
  request.set_key(info.placement_group_id());
  if (const auto raylet = deps_.peers->raylet()) raylet->Notify(MethodId::kUnsubscribe, request);
}

void PlacementGroupService::Update(const PlacementGroupId& id, uint64_t version, GroupState state) {
  std::vector<std::shared_ptr<async::Waiter>> waiters;
  std::vector<ReturnValue> promised;
  {
    MutexLock lock(&mu_);
    const auto it = groups_.find(id);
    if (it == groups_.end() || version <= it->second.version || it->second.state.kind == GroupState::kGone) return;
    Group& group = it->second;
    group.version = version;
    group.state = state;
    if (state.kind >= GroupState::kPlaced) {
      waiters = std::exchange(group.waiters, {});
      promised = std::exchange(group.promised, {});
    }
    if (state.kind == GroupState::kGone) {
      gone_.push_back(id);
      if (gone_.size() > kGoneKept) {
        groups_.erase(gone_.front());
        gone_.pop_front();
      }
    }
  }
  for (const auto& waiter : waiters) waiter->Notify();
  Settle(state, std::move(promised));
  if (handler_ != nullptr) handler_(id);
}

Status PlacementGroupService::Get(const v1::GetPlacementGroupRequest& request, v1::PlacementGroupInfo* out) {
  v1::GetPlacementGroupReply reply;
  RAY_RETURN_NOT_OK(SyncCall(deps_.loop, deps_.peers->raylet(), MethodId::kGetPlacementGroup, request, {}, &reply, deps_.gcs_timeout));
  out->Swap(reply.mutable_group());
  return Status::Ok();
}

Status PlacementGroupService::List(v1::ListPlacementGroupsReply* out) {
  return SyncCall(deps_.loop, deps_.peers->raylet(), MethodId::kListPlacementGroups, v1::PlacementGroupEmpty(), {}, out, deps_.gcs_timeout);
}

}  // namespace ray::core
