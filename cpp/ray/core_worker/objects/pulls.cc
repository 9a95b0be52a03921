#include "ray/core_worker/objects/pulls.h"

#include <utility>

#include "ray/core_worker/objects/owners.h"
#include "ray/rpc/core/dispatcher.h"

namespace ray::core {

uint64_t Pulls::Start(const ObjectRefInfo& ref, const StoredValue& known, FetchReason reason, Done done) {
  auto raylet = context_.peers->raylet();
  if (raylet == nullptr) {
    done(Status::Unavailable("there is no raylet that could fetch objects of other nodes"));
    return 0;
  }
  std::shared_ptr<Pull> pull;
  uint64_t token;
  {
    MutexLock lock(&mu_);
    token = ++last_pull_;
    auto& slot = pulls_[ref.id];
    if (slot != nullptr && slot->attempt == known.attempt && slot->reason <= reason) {
      slot->waiters.emplace(token, std::move(done));
      return token;
    }
    pull = std::make_shared<Pull>();
    pull->number = token;
    pull->ref = ref;
    pull->attempt = known.attempt;
    pull->reason = reason;
    pull->waiters.emplace(token, std::move(done));
    if (slot != nullptr) {
      // Wanted for a better reason, or as another run made it: who waits for the old one hears of the new one. The raylet fetches once.
      for (auto& [waiter, then] : slot->waiters) pull->waiters.emplace(waiter, std::move(then));
      slot->waiters.clear();
    }
    slot = pull;
  }
  v1::PullObjectRequest request;
  request.set_pull_id(pull->number);
  request.set_object_id(ref.id.data(), ObjectId::kSize);
  const Address owner = ref.owner.IsNil() ? context_.self : context_.owners->InStores(ref.owner);
  request.set_owner_worker_id(owner.worker_id.Binary());
  request.set_owner_node_id(owner.node_id.Binary());
  request.set_size(known.size);
  request.set_metadata(known.metadata);
  request.set_attempt(known.attempt);
  request.set_by_owner(context_.IsOurs(ref));
  request.set_reason(static_cast<v1::PullReason>(reason));
  for (const NodeId& node : known.node_ids) request.add_node_ids(node.data(), NodeId::kSize);
  rpc::CallTyped<v1::PullObjectReply>(*raylet, MethodId::kPullObject, request, {},
                                      // Weak: an answer may never come, and the connection is the service's own.
                                      [this, alive = context_.alive, pull](const Status& status, v1::PullObjectReply& reply, PartList) {
                                        if (auto service = alive.lock()) OnPulled(pull, status, reply);
                                      });
  return token;
}

void Pulls::Leave(const ObjectId& id, uint64_t token) {
  uint64_t left;
  {
    MutexLock lock(&mu_);
    auto it = pulls_.find(id);
    if (it == pulls_.end() || it->second->waiters.erase(token) == 0 || !it->second->waiters.empty()) return;
    left = ++it->second->last_left;
  }
  context_.loop->AddTimer(context_.options.pull_linger, [this, alive = context_.alive, id, left] {
    if (auto service = alive.lock()) CancelIfStillLeft(id, left);
  });
}

void Pulls::CancelIfStillLeft(const ObjectId& id, uint64_t left) {
  v1::CancelPullNotice notice;
  {
    MutexLock lock(&mu_);
    auto it = pulls_.find(id);
    if (it == pulls_.end() || !it->second->waiters.empty() || it->second->last_left != left) return;
    notice.set_pull_id(it->second->number);
    pulls_.erase(it);
  }
  if (auto raylet = context_.peers->raylet()) raylet->Notify(MethodId::kCancelPull, notice);
}

void Pulls::OnPulled(const std::shared_ptr<Pull>& pull, const Status& status, const v1::PullObjectReply& reply) {
  const ObjectRefInfo& ref = pull->ref;
  Status outcome = status;
  if (status.ok() && reply.ready()) {
    context_.memory.AddCopy(ref.id, context_.self.node_id, pull->attempt);  // the raylet tells the owner, if that is another process
  } else if (status.ok() && reply.timed_out()) {
    outcome = Status(StatusCode::kDeadlineExceeded, "no node gave object " + ref.id.Hex() + " in time",
                     static_cast<int32_t>(ErrorType::kObjectFetchTimedOut));
  } else if (status.ok()) {
    for (const std::string& node : reply.missing_node_ids()) copies_.ReportLost(ref, NodeId::FromBinaryOrNil(node), pull->attempt);
  }
  std::map<uint64_t, Done> waiters;
  {
    MutexLock lock(&mu_);
    waiters.swap(pull->waiters);
    if (auto it = pulls_.find(ref.id); it != pulls_.end() && it->second == pull) pulls_.erase(it);
  }
  for (auto& [token, done] : waiters) done(outcome);
}

bool Pulls::IsPulling(const ObjectId& id) const {
  MutexLock lock(&mu_);
  return pulls_.contains(id);
}

void Pulls::Prefetch(const ObjectRefInfo& ref, FetchReason reason) {
  StoredValue value;
  if (!context_.memory.Get(ref.id, &value) || !context_.IsElsewhere(value)) return;
  const uint64_t token = Start(ref, value, reason, [](const Status&) {});
  if (token != 0) Leave(ref.id, token);
}

}  // namespace ray::core
