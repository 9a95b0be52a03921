#include "ray/core_worker/objects/owners.h"

#include <utility>

#include "ray/util/logging.h"
#include "ray/v1/object_adoption.pb.h"

namespace ray::core {
namespace {

constexpr Duration kAskTimeout = std::chrono::seconds(5);
constexpr Duration kAskFor = std::chrono::seconds(15);  // then the adopter counts as one that knows nothing

}  // namespace

NodeId Owners::AdopterOf(const Address& owner) const {
  MutexLock lock(&mu_);
  if (moved_.empty()) return NodeId::Nil();
  const auto it = moved_.find(owner.worker_id);
  return it == moved_.end() ? NodeId::Nil() : it->second;
}

Result<rpc::ConnectionPtr> Owners::Route(const Address& owner, const NodeId& adopter, bool for_reply) const {
  if (!adopter.IsNil()) return context_.peers->GetRaylet(adopter);
  return for_reply ? context_.peers->ReplyRoute(owner) : context_.peers->Get(owner);
}

Result<rpc::ConnectionPtr> Owners::Get(const Address& owner, Address* asked) const {
  const NodeId adopter = AdopterOf(owner);
  *asked = adopter.IsNil() ? owner : RayletAsProcess(adopter);
  return Route(owner, adopter, /*for_reply=*/false);
}

Address Owners::InStores(const Address& owner) const {
  const NodeId adopter = AdopterOf(owner);
  return adopter.IsNil() ? owner : RayletAsProcess(adopter);
}

Owners::Silence Owners::Judge(const Address& owner, const Status& status) const {
  const bool unavailable = status.code() == StatusCode::kUnavailable;
  const Silence otherwise = unavailable || status.code() == StatusCode::kResourceExhausted ? Silence::kForNow : Silence::kRefusal;
  {
    MutexLock lock(&mu_);
    if (const auto it = moved_.find(owner.worker_id); it != moved_.end())
      return context_.peers->IsDead(Address{it->second, WorkerId::Nil()}) ? Silence::kGone : otherwise;
  }
  if (context_.peers->IsDead(owner)) return Silence::kGone;
  // On one node a connection ends only with its process; the way to another node may break for a while.
  const bool near = owner.node_id == context_.self.node_id || owner.node_id.IsNil();
  return unavailable && near ? Silence::kGone : otherwise;
}

void Owners::Move(const WorkerId& owner, const NodeId& adopter) {
  const std::vector<WorkerId> forgotten = context_.table.OwnerMoved(owner, adopter);
  MutexLock lock(&mu_);
  for (const WorkerId& other : forgotten) moved_.erase(other);
  moved_[owner] = adopter;
}

void Owners::Find(const Address& owner, std::function<void(bool moved)> done) {
  bool moved = false, known = true, ask = false;
  {
    MutexLock lock(&mu_);
    if (const auto it = moved_.find(owner.worker_id); it != moved_.end()) {
      moved = !context_.peers->IsDead(Address{it->second, WorkerId::Nil()});
    } else if (!adopter_.IsNil() && !lost_.contains(owner.worker_id)) {
      known = false;
      auto& waiting = asking_[owner.worker_id];
      ask = waiting.empty();
      waiting.push_back(std::move(done));
    }
  }
  if (known) return done(moved);
  if (ask) Ask(owner.worker_id, context_.loop->clock().Now() + kAskFor);
}

void Owners::Ask(const WorkerId& owner, Time give_up) {
  auto connection = context_.peers->GetRaylet(adopter_);
  if (!connection.ok()) return Answer(owner, false);
  v1::FindAdoptedRequest request;
  request.set_owner_worker_id(owner.Binary());
  rpc::CallOptions options;
  options.timeout = kAskTimeout;
  rpc::CallTyped<v1::FindAdoptedReply>(
      **connection, MethodId::kFindAdopted, request, {},
      [this, alive = context_.alive, owner, give_up](const Status& status, v1::FindAdoptedReply& reply, PartList) {
        const auto service = alive.lock();
        if (service == nullptr) return;
        const bool again = status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kDeadlineExceeded;
        if (!again || context_.loop->clock().Now() >= give_up) return Answer(owner, status.ok() && reply.adopted());
        context_.loop->AddTimer(context_.options.owner_retry, [this, alive, owner, give_up] {
          if (const auto later = alive.lock()) Ask(owner, give_up);
        });
      },
      options);
}

void Owners::Answer(const WorkerId& owner, bool moved) {
  if (moved) {
    Move(owner, adopter_);
    RAY_LOG(INFO) << "owner " << owner << " has left; its objects were handed over";
  }
  std::vector<std::function<void(bool)>> waiting;
  {
    MutexLock lock(&mu_);
    if (!moved) lost_.insert(owner);
    if (auto node = asking_.extract(owner)) waiting = std::move(node.mapped());
  }
  for (const auto& done : waiting) done(moved);
}

}  // namespace ray::core
