#include "ray/core_worker/objects/object_copies.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include "ray/core_worker/objects/owners.h"

namespace ray::core {
namespace {

using LocationMap = std::unordered_map<ObjectId, Location, IdHash>;

// Answers of several processes, which are waited for together. Outlives the wait if that ends early.
template <typename Answers>
struct Asked {
  explicit Asked(size_t count) : count(count), left(count) {}
  void Arrive() {
    if (left.fetch_sub(1) == 1) waiter.Notify();
  }
  // What has come, in any case.
  Status Wait(const ObjectCopies::Block& block, const char* late, Answers* out) {
    const ReadResult result = count == 0 ? ReadResult::kReady : block(&waiter);
    {
      MutexLock lock(&mu);
      *out = answers;
    }
    switch (result) {
      case ReadResult::kReady: break;
      case ReadResult::kTimeout: return Status::DeadlineExceeded(late);
      case ReadResult::kInterrupted: return Status(StatusCode::kAborted, "interrupted by a signal");
      case ReadResult::kClosed: return Status::Cancelled("this process is shutting down");
    }
    return Status::Ok();
  }
  const size_t count;
  std::atomic<size_t> left;
  async::Waiter waiter;
  Mutex mu;
  Answers answers GUARDED_BY(mu);
};

}  // namespace

void ObjectCopies::FreeCopies(const std::vector<StoredCopies>& copies) {
  std::vector<ObjectId> here;
  std::map<NodeId, v1::CopiesNotice::Node*> elsewhere;
  v1::CopiesNotice notice;
  for (const StoredCopies& object : copies) {
    for (const NodeId& node : object.nodes) {
      if (node == context_.self.node_id || node.IsNil()) {
        here.push_back(object.id);
        continue;
      }
      auto [it, is_new] = elsewhere.try_emplace(node, nullptr);
      if (is_new) {
        it->second = notice.add_nodes();
        it->second->set_node_id(node.Binary());
      }
      it->second->add_object_ids(object.id.data(), ObjectId::kSize);
      it->second->add_attempts(object.attempt);
    }
  }
  if (!here.empty()) context_.store->Free(here);
  if (elsewhere.empty()) return;
  if (auto raylet = context_.peers->raylet()) raylet->Notify(MethodId::kFreeCopies, notice);
}

void ObjectCopies::KeepCopies(const std::vector<std::pair<ObjectId, NodeId>>& copies) {
  v1::CopiesNotice notice;
  for (const auto& [id, node] : copies) {
    if (!context_.table.IsOwned(id)) continue;
    auto* to = notice.add_nodes();
    to->set_node_id(node.Binary());
    to->add_object_ids(id.data(), ObjectId::kSize);
  }
  if (notice.nodes_size() == 0) return;
  if (auto raylet = context_.peers->raylet()) raylet->Notify(MethodId::kKeepCopies, notice);
}

MemoryStore::Made ObjectCopies::AddReturn(const CopyRun& run, std::string_view metadata, uint64_t size, const NodeId& node) {
  NodeId primary;
  const MemoryStore::Made made = context_.memory.PutReturn(run.id, metadata, size, node, run.attempt, &primary);
  if (made != MemoryStore::Made::kTaken) FreeCopy(run, node);
  if (!primary.IsNil()) KeepCopies({{run.id, primary}});
  return made;
}

void ObjectCopies::ReportLost(const ObjectRefInfo& ref, const NodeId& node, uint32_t attempt) {
  if (context_.IsOurs(ref)) {
    LoseCopy(ref.id, node, attempt);
    return;
  }
  const LostCopy lost{node, attempt};
  TellOwner(ref.id, {&lost, 1});
  if (!context_.memory.Forget(ref.id, attempt)) return;
  RefEffects effects;
  context_.table.ForgetNested(ref.id, &effects);
  context_.host->CarryOut(effects);
}

void ObjectCopies::LoseCopy(const ObjectId& id, const NodeId& node, uint32_t attempt) {
  NodeId primary;
  if (context_.memory.LoseCopy(id, node, attempt, &primary) == MemoryStore::Loss::kLost) {
    context_.host->OnLost(id);
  } else if (!primary.IsNil()) {
    KeepCopies({{id, primary}});
  }
}

std::vector<LostCopy> ObjectCopies::TakeLostCopies(const ObjectId& id) {
  MutexLock lock(&mu_);
  if (lost_copies_.empty()) return {};
  auto node = lost_copies_.extract(id);
  return node.empty() ? std::vector<LostCopy>() : std::move(node.mapped());
}

void ObjectCopies::TellOwner(const ObjectId& id, std::span<const LostCopy> copies) {
  {
    MutexLock lock(&mu_);
    auto& gathered = lost_copies_[id];
    gathered.insert(gathered.end(), copies.begin(), copies.end());
  }
  if (!context_.table.Contains(id)) ForgetLostCopies({&id, 1});  // it was dropped meanwhile, and will not be fetched
}

void ObjectCopies::ForgetLostCopies(std::span<const ObjectId> ids) {
  MutexLock lock(&mu_);
  if (lost_copies_.empty()) return;
  for (const ObjectId& id : ids) lost_copies_.erase(id);
}

bool ObjectCopies::NoteDeadNode(const NodeId& node) {
  MutexLock lock(&mu_);
  return dead_nodes_.insert(node);
}

bool ObjectCopies::IsDeadNode(const NodeId& node) {
  MutexLock lock(&mu_);
  return dead_nodes_.contains(node);
}

void ObjectCopies::LoseNode(const NodeId& node) {
  MoveEffects effects;
  moves_.OnNodeDead(node, &effects);
  RunMoves(std::move(effects));
  const MemoryStore::NodeLoss loss = context_.memory.LoseNode(node);
  for (const ObjectId& id : loss.lost) context_.host->OnLost(id);
  KeepCopies(loss.primaries);
}

Location ObjectCopies::KnownLocation(const ObjectId& id) const {
  Location location;
  location.known = context_.table.IsOwned(id);
  if (StoredValue value; context_.memory.Get(id, &value)) {
    location.known = true;
    location.node_ids = std::move(value.node_ids);
    location.size = value.size;
  }
  return location;
}

Status ObjectCopies::GetKnownLocations(std::span<const ObjectRefInfo> refs, const Block& block, std::vector<Location>* out) {
  out->clear();
  for (const ObjectRefInfo& ref : refs) out->push_back(KnownLocation(ref.id));
  const Status asked = AskNodes(refs, block, out);
  return asked.code() == StatusCode::kDeadlineExceeded ? Status::Ok() : asked;
}

Status ObjectCopies::GetLocations(std::span<const ObjectRefInfo> refs, const Block& block, std::vector<Location>* out) {
  out->clear();
  std::vector<ObjectRefInfo> foreign;
  for (const ObjectRefInfo& ref : refs) {
    const bool ours = context_.IsOurs(ref);
    out->push_back(ours ? KnownLocation(ref.id) : Location());
    if (!ours) foreign.push_back(ref);
  }
  LocationMap found;
  RAY_RETURN_NOT_OK(AskOwners(foreign, block, &found));
  for (size_t i = 0; i < refs.size(); ++i) {
    if (const auto it = found.find(refs[i].id); it != found.end()) (*out)[i] = it->second;
  }
  return AskNodes(refs, block, out);
}

Status ObjectCopies::AskOwners(std::span<const ObjectRefInfo> foreign, const Block& block, LocationMap* found) {
  const auto groups = GroupByOwner(foreign);
  const auto asked = std::make_shared<Asked<LocationMap>>(groups.size());
  for (const auto& [owner, ids] : groups) {
    const auto connection = context_.owners->Get(owner);
    if (!connection.ok()) {
      asked->Arrive();
      continue;
    }
    v1::GetLocationsRequest request;
    for (const ObjectId& id : ids) request.add_object_ids(id.data(), ObjectId::kSize);
    rpc::CallTyped<v1::GetLocationsReply>(**connection, MethodId::kGetLocations, request, {},
                                          [asked](const Status&, v1::GetLocationsReply& reply, PartList) {
                                            MutexLock lock(&asked->mu);
                                            for (const auto& location : reply.locations()) {
                                              Location& at = asked->answers[ObjectId::FromBinaryOrNil(location.object_id())];
                                              at.known = location.known();
                                              at.size = location.size();
                                              for (const auto& node : location.node_ids())
                                                at.node_ids.push_back(NodeId::FromBinaryOrNil(node));
                                            }
                                            asked->Arrive();
                                          });
  }
  return asked->Wait(block, "an owner has not told where its objects are", found);
}

Status ObjectCopies::AskNodes(std::span<const ObjectRefInfo> refs, const Block& block, std::vector<Location>* out) {
  std::map<NodeId, v1::FindSpilledRequest> questions;
  for (size_t i = 0; i < refs.size(); ++i) {
    for (const NodeId& node : (*out)[i].node_ids) questions[node].add_object_ids(refs[i].id.data(), ObjectId::kSize);
  }
  const auto asked = std::make_shared<Asked<ObjectIdSet>>(questions.size());
  for (const auto& [node, question] : questions) {
    const auto raylet = context_.peers->GetRaylet(node);
    if (!raylet.ok()) {  // it is dead, and so are its files
      asked->Arrive();
      continue;
    }
    rpc::CallTyped<v1::FindSpilledReply>(**raylet, MethodId::kFindSpilled, question, {},
                                         [asked](const Status&, const v1::FindSpilledReply& reply, PartList) {
                                           MutexLock lock(&asked->mu);
                                           for (const auto& id : reply.object_ids()) asked->answers.insert(ObjectId::FromBinaryOrNil(id));
                                           asked->Arrive();
                                         });
  }
  ObjectIdSet spilled;
  const Status status = asked->Wait(block, "a node has not told which of its objects are spilled", &spilled);
  for (size_t i = 0; i < refs.size(); ++i) (*out)[i].spilled = spilled.contains(refs[i].id);
  return status;
}

void ObjectCopies::HandleGetLocations(const v1::GetLocationsRequest& message, rpc::Responder responder) {
  v1::GetLocationsReply reply;
  for (const auto& bytes : message.object_ids()) {
    const ObjectId id = ObjectId::FromBinaryOrNil(bytes);
    auto* location = reply.add_locations();
    location->set_object_id(bytes);
    location->set_known(context_.table.IsOwned(id));
    StoredValue value;
    if (!context_.memory.Get(id, &value)) continue;
    location->set_size(value.size);
    for (const NodeId& node : value.node_ids) location->add_node_ids(node.data(), NodeId::kSize);
  }
  responder.Send(reply);
}

void ObjectCopies::HandleAddLocation(const v1::AddLocationNotice& message, rpc::Responder responder) {
  const ObjectId id = ObjectId::FromBinaryOrNil(message.object_id());
  const NodeId node = NodeId::FromBinaryOrNil(message.node_id());
  // Freed or made again meanwhile: that copy came too late to go with the others.
  if (!context_.memory.AddCopy(id, node, message.attempt())) FreeCopy({id, message.attempt()}, node);
  if (responder.valid()) responder.Send(v1::BorrowersEmpty());
}

void ObjectCopies::HandleMoveCopies(const v1::MoveCopiesRequest& message, rpc::Responder responder) {
  std::set<std::string_view> leaving(message.leaving_node_ids().begin(), message.leaving_node_ids().end());
  leaving.insert(message.node_id());
  const NodeId target = NodeId::FromBinaryOrNil(message.target_node_id());
  const uint64_t number = ++last_question_;
  MoveQuestion& question = move_questions_[number];
  question.responder = std::move(responder);
  question.open = 1;  // until all are asked about
  MoveEffects effects;
  for (const std::string& binary : message.object_ids()) {
    const ObjectId id = ObjectId::FromBinaryOrNil(binary);
    StoredValue value;
    if (!context_.table.IsOwned(id) || !context_.memory.Get(id, &value) || !value.in_store) continue;  // nothing goes with that copy
    // One that has a copy may have evicted it: it is asked to keep one like any other.
    const auto other = std::ranges::find_if(value.node_ids, [&](const NodeId& node) { return !leaving.contains(node.View()); });
    ++question.open;
    moves_.Move(number, {id, value.attempt}, other != value.node_ids.end() ? *other : target, &effects);
  }
  effects.emplace_back(MoveAnswered{.question = number, .copy = {}, .safe = true});
  RunMoves(std::move(effects));
}

void ObjectCopies::RunMoves(MoveEffects effects) {
  for (const MoveEffect& effect : effects) std::visit([this](const auto& e) { Apply(e); }, effect);
  if (move_timer_ != 0) context_.loop->CancelTimer(std::exchange(move_timer_, 0));
  if (moves_.NextDeadline().is_infinite()) return;
  move_timer_ = context_.loop->AddTimer(std::max(moves_.NextDeadline() - Now(), Duration::zero()), [this, alive = context_.alive] {
    const auto service = alive.lock();
    if (service == nullptr) return;
    move_timer_ = 0;
    MoveEffects due;
    moves_.OnTimer(Now(), &due);
    RunMoves(std::move(due));
  });
}

void ObjectCopies::OnMoved(uint64_t call, MoveCore::Outcome outcome) {
  MoveEffects effects;
  moves_.OnAnswer(call, outcome, Now(), &effects);
  RunMoves(std::move(effects));
}

void ObjectCopies::Apply(const PullKept& effect) {
  // Pulls of ours are numbered from below; these may go to the same raylet.
  constexpr uint64_t kMoves = uint64_t{1} << 63;
  // Never from within: the effects that come of it would overtake others.
  const auto later = [this, alive = context_.alive, call = effect.call](MoveCore::Outcome outcome) {
    context_.loop->Post("move", [this, alive, call, outcome] {
      if (const auto service = alive.lock()) OnMoved(call, outcome);
    });
  };
  StoredValue value;
  const bool wanted = context_.table.IsOwned(effect.copy.id) && context_.memory.Get(effect.copy.id, &value) && value.in_store &&
                      value.attempt == effect.copy.attempt;
  if (!wanted) {
    FreeCopy(effect.copy, effect.node);
    return later(MoveCore::Outcome::kNotThere);
  }
  const auto raylet = context_.peers->GetRaylet(effect.node);
  if (!raylet.ok()) return later(MoveCore::Outcome::kNotSent);
  v1::PullObjectRequest request;
  request.set_pull_id(kMoves | effect.call);
  request.set_object_id(effect.copy.id.Binary());
  request.set_owner_worker_id(context_.self.worker_id.Binary());
  request.set_owner_node_id(context_.self.node_id.Binary());
  request.set_size(value.size);
  request.set_metadata(value.metadata);
  request.set_reason(v1::PULL_REASON_TASK_ARGUMENT);
  request.set_keep(true);
  request.set_attempt(value.attempt);
  if (effect.bring) {
    for (const NodeId& node : value.node_ids) {
      if (node != effect.node) request.add_node_ids(node.data(), NodeId::kSize);
    }
  }
  rpc::CallTyped<v1::PullObjectReply>(
      **raylet, MethodId::kPullObject, request, {},
      [this, alive = context_.alive, call = effect.call](const Status& status, v1::PullObjectReply& reply, PartList) {
        const auto service = alive.lock();
        if (service == nullptr) return;
        const bool unknown = status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kCancelled;
        OnMoved(call, unknown                        ? MoveCore::Outcome::kUnknown
                      : status.ok() && reply.ready() ? MoveCore::Outcome::kThere
                                                     : MoveCore::Outcome::kNotThere);
      });
}

void ObjectCopies::Apply(const CopyKept& effect) {
  const auto& [id, attempt] = effect.copy;
  if (!context_.memory.AddCopy(id, effect.node, attempt)) FreeCopy(effect.copy, effect.node);  // nobody wants it any more
}

void ObjectCopies::Apply(const MoveAnswered& effect) {
  const auto it = move_questions_.find(effect.question);
  // Who takes over what is ours may not hear of that copy any more: it is asked then.
  if (!effect.safe || (context_.host->IsLeaving() && !effect.copy.id.IsNil())) it->second.reply.add_not_moved(effect.copy.id.Binary());
  if (--it->second.open > 0) return;
  MoveQuestion question = std::move(it->second);
  move_questions_.erase(it);
  if (question.responder.valid()) question.responder.Send(question.reply);
}

}  // namespace ray::core
