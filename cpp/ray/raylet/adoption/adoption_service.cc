#include "ray/raylet/adoption/adoption_service.h"

#include <algorithm>
#include <bit>
#include <set>
#include <tuple>
#include <utility>

#include "ray/common/errors.h"
#include "ray/raylet/workers/json.h"
#include "ray/util/logging.h"
#include "ray/wire/convert.h"
#include "ray/wire/error_detail.h"
#include "ray/wire/wait_fact.h"

namespace ray::raylet {
namespace {

constexpr Duration kReownTimeout = std::chrono::seconds(5);
constexpr Duration kReownPause = std::chrono::milliseconds(100);
constexpr Duration kSettlePause = std::chrono::milliseconds(500);

// Runs `done` when all its copies are gone.
std::shared_ptr<void> WhenLetGo(std::function<void()> done) {
  return {nullptr, [done = std::move(done)](void*) { done(); }};
}

ErrorValue LostError(const ObjectId& id) {
  return MakeErrorValue(ErrorType::kObjectUnreconstructableOwnerLeft,
                        "object " + id.Hex() + " is lost: no copy of it is left, and its owner, which has left, could have made it again");
}

}  // namespace

AdoptionService::AdoptionService(Deps deps)
    : deps_(std::move(deps)), core_(deps_.self), mail_key_(LeaseId::FromRandom().Binary().substr(0, 12)), mail_timer_(deps_.loop, [this] {
        OwnerMailEffects effects;
        mail_.Tick(Now(), &effects);
        Run(effects);
      }) {}

AdoptionService::~AdoptionService() { *alive_ = false; }

void AdoptionService::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::AdoptObjectsRequest>(
      MethodId::kAdoptObjects, [this](const v1::AdoptObjectsRequest& m, rpc::Request& request, rpc::Responder responder) {
        HandleAdopt(m, request, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::CompleteAdoptionRequest>(
      MethodId::kCompleteAdoption,
      [this](const v1::CompleteAdoptionRequest& m, rpc::Request&, rpc::Responder responder) { HandleComplete(m, std::move(responder)); });
  dispatcher->RegisterTyped<v1::FindAdoptedRequest>(MethodId::kFindAdopted,
                                                    [this](const v1::FindAdoptedRequest& m, rpc::Request&, rpc::Responder responder) {
                                                      v1::FindAdoptedReply reply;
                                                      reply.set_adopted(core_.IsAdopted(WorkerId::FromBinaryOrNil(m.owner_worker_id())));
                                                      if (responder.valid()) responder.Send(reply);
                                                    });
  dispatcher->RegisterTyped<v1::ReownCopiesRequest>(MethodId::kReownCopies,
                                                    [this](const v1::ReownCopiesRequest& m, rpc::Request&, rpc::Responder responder) {
                                                      std::vector<ObjectId> ids;
                                                      for (const std::string& id : m.object_ids())
                                                        ids.push_back(ObjectId::FromBinaryOrNil(id));
                                                      deps_.reown(std::move(ids), FromProto(m.owner()));
                                                      if (responder.valid()) responder.Send(v1::AdoptionEmpty());
                                                    });
  dispatcher->RegisterTyped<v1::GetObjectRequest>(MethodId::kGetObject,
                                                  [this](const v1::GetObjectRequest& m, rpc::Request& request, rpc::Responder responder) {
                                                    HandleGet(m, request, std::move(responder));
                                                  });
  dispatcher->RegisterTyped<v1::AddBorrowersRequest>(
      MethodId::kAddBorrowers,
      [this](const v1::AddBorrowersRequest& m, rpc::Request&, rpc::Responder responder) { HandleAddBorrowers(m, std::move(responder)); });
  dispatcher->RegisterTyped<v1::RemoveBorrowersRequest>(
      MethodId::kRemoveBorrowers, [this](const v1::RemoveBorrowersRequest& m, rpc::Request&, rpc::Responder responder) {
        HandleRemoveBorrowers(m, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::SettleBorrowsRequest>(
      MethodId::kSettleBorrows,
      [this](const v1::SettleBorrowsRequest& m, rpc::Request&, rpc::Responder responder) { HandleSettleBorrows(m, std::move(responder)); });
  dispatcher->RegisterTyped<v1::MoveCopiesRequest>(
      MethodId::kMoveCopies,
      [this](const v1::MoveCopiesRequest& m, rpc::Request&, rpc::Responder responder) { HandleMoveCopies(m, std::move(responder)); });
  dispatcher->RegisterTyped<v1::GetLocationsRequest>(
      MethodId::kGetLocations,
      [this](const v1::GetLocationsRequest& m, rpc::Request&, rpc::Responder responder) { HandleGetLocations(m, std::move(responder)); });
  dispatcher->RegisterTyped<v1::AddLocationNotice>(
      MethodId::kAddLocation, [this](const v1::AddLocationNotice& m, rpc::Request&, rpc::Responder responder) {
        AddLocation({ObjectId::FromBinaryOrNil(m.object_id()), m.attempt()}, NodeId::FromBinaryOrNil(m.node_id()));
        if (responder.valid()) responder.Send(v1::BorrowersEmpty());
      });
}

// ---- taking over ----

void AdoptionService::HandleAdopt(const v1::AdoptObjectsRequest& message, rpc::Request& request, rpc::Responder responder) {
  const Address owner = FromProto(message.owner());
  AdoptionEffects effects;
  std::map<NodeId, std::vector<ObjectId>> copies;
  std::vector<ObjectId> ids;
  size_t part = 0;
  for (const auto& item : message.objects()) {
    const ObjectId id = ObjectId::FromBinaryOrNil(item.object_id());
    AdoptedValue value;
    value.metadata = item.metadata();
    value.size = item.size();
    value.attempt = item.attempt();
    value.nested = RefsFromProto(item.nested(), owner);
    if (!item.in_store()) {
      value.blob = part < request.parts.size() ? request.parts[part] : HeapBuffer::CopyOf({});
      ++part;
    }
    for (const std::string& node : item.node_ids()) value.nodes.push_back(NodeId::FromBinaryOrNil(node));
    for (const NodeId& node : value.nodes) copies[node].push_back(id);
    ids.push_back(id);
    core_.Adopt(owner, id, std::move(value), &effects);
  }
  Run(effects);
  RAY_LOG(INFO) << "worker " << owner.worker_id << " hands over " << ids.size() << " objects";
  auto answer = std::make_shared<rpc::Responder>(std::move(responder));
  const std::shared_ptr<void> settled = WhenLetGo([answer] {
    if (answer->valid()) answer->Send(v1::AdoptionEmpty());
  });
  Reown(owner.worker_id, copies, [settled] {});
  if (message.node_leaves() && owner.node_id != deps_.self) SaveFrom(owner.node_id, ids, [settled] {});
}

void AdoptionService::Reown(const WorkerId& owner, const std::map<NodeId, std::vector<ObjectId>>& copies, std::function<void()> done) {
  const std::shared_ptr<void> heard = WhenLetGo(std::move(done));
  for (const auto& [node, ids] : copies) {
    if (node == deps_.self) {
      deps_.reown(ids, RayletAsProcess(deps_.self));
    } else {
      ReownOn(owner, node, ids, heard);
    }
  }
}

void AdoptionService::ReownOn(const WorkerId& owner, const NodeId& node, const std::vector<ObjectId>& ids, std::shared_ptr<void> heard,
                              uint64_t failures) {
  if (core_.IsDeadNode(node)) return;  // its copies have gone
  const auto again = [this, alive = alive_, owner, node, ids, heard, failures] {
    deps_.loop->AddTimer(kReownPause, [this, alive, owner, node, ids, heard, failures] {
      if (*alive && core_.IsTaking(owner)) ReownOn(owner, node, ids, heard, failures + 1);
    });
  };
  const rpc::ConnectionPtr link = deps_.link(node);
  if (link == nullptr) return again();  // cut off; or it will be known to be dead
  v1::ReownCopiesRequest request;
  for (const ObjectId& id : ids) request.add_object_ids(id.Binary());
  ToProto(RayletAsProcess(deps_.self), request.mutable_owner());
  rpc::CallOptions options;
  options.timeout = kReownTimeout;
  link->Call(
      MethodId::kReownCopies, request, {},
      [alive = alive_, node, heard, again, failures](const Status& status, const rpc::Reply&) {
        if (!*alive || status.ok()) return;
        // Said of the first, second, fourth attempt and so on.
        if (std::has_single_bit(failures + 1)) {
          RAY_LOG(WARNING) << "node " << node << " may drop copies of objects that were handed over (attempt " << failures + 1
                           << "): " << status.ToString();
        }
        again();
      },
      options);
}

void AdoptionService::AddLocation(const CopyRun& copy, const NodeId& node) {
  AdoptionEffects effects;
  core_.AddLocation(copy.id, node, copy.attempt, &effects);
  Run(effects);
}

void AdoptionService::SaveFrom(const NodeId& node, const std::vector<ObjectId>& ids, std::function<void()> done) {
  const std::shared_ptr<void> saved = WhenLetGo(std::move(done));
  for (const ObjectId& id : ids) {
    const AdoptionCore::Object* object = core_.Find(id);
    if (object == nullptr || object->value.nodes.size() != 1 || object->value.nodes[0] != node) continue;
    const uint32_t attempt = object->value.attempt;
    deps_.save({id, object->value.size, object->value.metadata, RayletAsProcess(deps_.self), {node}, attempt},
               [this, alive = alive_, id, attempt, saved](const Status& status) {
                 if (!*alive) return;
                 if (!status.ok()) {
                   RAY_LOG(WARNING) << "object " << id << " goes with the node of its owner: " << status.ToString();
                   return;
                 }
                 AddLocation({id, attempt}, deps_.self);
               });
  }
}

// ---- in the owner's place ----

void AdoptionService::HandleGet(const v1::GetObjectRequest& message, rpc::Request& request, rpc::Responder responder) {
  const ObjectId id = ObjectId::FromBinaryOrNil(message.object_id());
  const Address requester = FromProto(message.requester());
  if (!requester.IsNil()) {
    auto& slot = incoming_[requester.worker_id];
    if (slot != request.connection) {
      slot = request.connection;
      slot->OnClose([this, alive = alive_, worker = requester.worker_id, raw = slot.get()](const Status&) {
        if (!*alive) return;
        const auto it = incoming_.find(worker);
        if (it != incoming_.end() && it->second.get() == raw) incoming_.erase(it);
      });
    }
  }
  AdoptionEffects effects;
  for (const auto& lost : message.lost_copies()) core_.LoseCopy(id, NodeId::FromBinaryOrNil(lost.node_id()), lost.attempt(), &effects);
  Run(effects);
  auto reply = std::make_shared<v1::GetObjectReply>();
  PartList parts;
  const AdoptionCore::Object* object = core_.Find(id);
  const WorkerId owner = WorkerId::FromBinaryOrNil(message.owner_worker_id());
  std::vector<ObjectRefInfo> nested;
  if (object == nullptr && !owner.IsNil() && !core_.IsAdopted(owner)) {
    // It died before it had handed everything over.
    ErrorValue error = MakeOwnerDiedValue(id.Hex(), {NodeId::Nil(), owner});
    reply->set_metadata(error.metadata);
    parts.push_back(std::move(error.blob));
  } else if (object == nullptr) {
    reply->set_freed(true);
  } else if (object->lost) {
    ErrorValue error = LostError(id);
    reply->set_metadata(error.metadata);
    parts.push_back(std::move(error.blob));
  } else {
    const AdoptedValue& value = object->value;
    reply->set_metadata(value.metadata);
    reply->set_size(value.size);
    reply->set_attempt(value.attempt);
    reply->set_in_store(value.blob == nullptr);
    for (const NodeId& node : value.nodes) reply->add_node_ids(node.Binary());
    for (const ObjectRefInfo& ref : value.nested) ToProto(ref, reply->add_nested());
    if (value.blob != nullptr) parts.push_back(value.blob);
    nested = value.nested;
  }
  auto answer = std::make_shared<rpc::Responder>(std::move(responder));
  if (!nested.empty() && message.request_id() != 0 && answer->valid() &&
      !given_.Begin(requester.worker_id.Binary() + std::to_string(message.request_id()), answer.get()))
    return;
  HandOver(nested, requester, [answer, reply, parts = std::move(parts)] {
    if (answer->valid()) answer->Send(*reply, parts);
  });
}

void AdoptionService::HandOver(const std::vector<ObjectRefInfo>& nested, const Address& receiver, std::function<void()> done) {
  std::map<WorkerId, std::pair<Address, std::vector<ObjectId>>> others;
  AdoptionEffects none;  // this process lives
  if (!receiver.IsNil()) {
    for (const ObjectRefInfo& ref : nested) {
      if (core_.AddBorrower(ref.id, receiver, RayletAsProcess(deps_.self), &none) || ref.owner == receiver) continue;
      auto& [owner, ids] = others[ref.owner.worker_id];
      owner = ref.owner;
      ids.push_back(ref.id);
    }
  }
  const std::shared_ptr<void> counted = WhenLetGo(std::move(done));
  OwnerMailEffects effects;
  for (auto& [worker, to] : others) counting_.emplace(mail_.Count(to.first, receiver, std::move(to.second), Now(), &effects), counted);
  Run(effects);
}

void AdoptionService::HandleAddBorrowers(const v1::AddBorrowersRequest& message, rpc::Responder responder) {
  if (responder.valid() && !message.request_id().empty() && !counted_.Begin(message.request_id(), &responder)) return;
  const Address borrower = FromProto(message.borrower());
  const Address registrar = FromProto(message.registrar());
  for (const Address& process : {borrower, registrar}) deps_.watch(process);
  AdoptionEffects effects;
  v1::AddBorrowersReply reply;
  for (const auto& bytes : message.object_ids()) {
    if (!core_.AddBorrower(ObjectId::FromBinaryOrNil(bytes), borrower, registrar, &effects)) reply.add_unknown(bytes);
  }
  if (responder.valid()) responder.Send(reply);
  Run(effects);
}

void AdoptionService::HandleRemoveBorrowers(const v1::RemoveBorrowersRequest& message, rpc::Responder responder) {
  if (const WorkerId owner = WorkerId::FromBinaryOrNil(message.owner_worker_id()); core_.IsTaking(owner)) {
    held_[owner].push_back({message, std::move(responder)});
    return;
  }
  RemoveBorrowers(message);
  if (responder.valid()) responder.Send(v1::BorrowersEmpty());
}

void AdoptionService::RemoveBorrowers(const v1::RemoveBorrowersRequest& message) {
  const WorkerId owner = WorkerId::FromBinaryOrNil(message.owner_worker_id());
  if (!core_.IsAdopted(owner)) return;  // nothing of it is here
  const Address borrower = FromProto(message.borrower());
  if (core_.IsDead(borrower)) return;  // nothing counts for it any more
  LastHeard& last = heard_[owner][borrower.worker_id];
  last.node = borrower.node_id;
  if (message.number() <= last.number) return;  // it was had before, here or by the owner, and only the answer lost
  last.number = message.number();
  AdoptionEffects effects;
  for (const auto& item : message.counts()) {
    core_.RemoveBorrower(ObjectId::FromBinaryOrNil(item.object_id()), borrower.worker_id,
                         WorkerId::FromBinaryOrNil(item.registrar_worker_id()), item.count(), &effects);
  }
  for (const auto& item : message.left()) {
    core_.SettleBorrower(ObjectId::FromBinaryOrNil(item.object_id()), borrower.worker_id,
                         WorkerId::FromBinaryOrNil(item.registrar_worker_id()), item.count(), &effects);
  }
  Run(effects);
}

// As a borrower. Nothing of the registrar's that counts can come any more: an owner completes its adoption when all it has handed over is here, and
// what is not complete goes with its death.
void AdoptionService::HandleSettleBorrows(const v1::SettleBorrowsRequest& message, rpc::Responder responder) {
  const Address owner = FromProto(message.owner());
  if (!core_.IsAdopted(owner.worker_id)) {  // else they are this process's own counts, and settled
    const WorkerId registrar = WorkerId::FromBinaryOrNil(message.registrar().worker_id());
    std::vector<ObjectId> ids;
    for (const std::string& id : message.object_ids()) ids.push_back(ObjectId::FromBinaryOrNil(id));
    const std::vector<uint32_t> left = core_.Contained(ids, registrar);
    for (size_t i = 0; i < ids.size(); ++i) mail_.Tell(owner, ids[i], registrar, left[i]);
    OwnerMailEffects effects;
    mail_.Flush(Now(), &effects);
    Run(effects);
  }
  if (responder.valid()) responder.Send(v1::BorrowersEmpty());
}

void AdoptionService::Send(const std::shared_ptr<Settlement>& settlement) {
  const WorkerId registrar = WorkerId::FromBinaryOrNil(settlement->request.registrar().worker_id());
  const bool wanted =
      !core_.IsDead(settlement->borrower) && std::ranges::any_of(settlement->request.object_ids(), [&](const std::string& id) {
        return core_.HasBorrower(ObjectId::FromBinaryOrNil(id), settlement->borrower.worker_id, registrar);
      });
  if (!wanted) return;
  const auto silent = [this, alive = alive_, settlement] {
    deps_.loop->AddTimer(kSettlePause, [this, alive, settlement] {
      if (*alive) Send(settlement);
    });
  };
  const rpc::ConnectionPtr connection = ConnectionTo(settlement->borrower);
  if (connection == nullptr) return silent();
  connection->Call(MethodId::kSettleBorrows, settlement->request, {}, [alive = alive_, silent](const Status& status, const rpc::Reply&) {
    if (!*alive) return;
    if (status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kResourceExhausted) silent();
  });
}

void AdoptionService::ServeHeld(const WorkerId& owner) {
  auto held = held_.extract(owner);
  if (!held) return;
  for (HeldRemoval& removal : held.mapped()) {
    RemoveBorrowers(removal.message);
    if (removal.responder.valid()) removal.responder.Send(v1::BorrowersEmpty());
  }
}

void AdoptionService::HandleComplete(const v1::CompleteAdoptionRequest& message, rpc::Responder responder) {
  const Address owner = FromProto(message.owner());
  std::vector<BorrowCount> counts;
  for (const auto& item : message.borrowers())
    counts.push_back({ObjectId::FromBinaryOrNil(item.object_id()), FromProto(item.borrower()), item.count(), FromProto(item.registrar())});
  const bool was_taking = core_.IsTaking(owner.worker_id);
  if (was_taking) {
    auto& heard = heard_[owner.worker_id];
    for (const auto& item : message.heard()) heard[WorkerId::FromBinaryOrNil(item.worker_id())].number = item.number();
    if (message.last()) {
      // Before its counts settle: as a borrower of its objects this process was one, too.
      OwnerMailEffects moved;
      const auto of_ours = heard.find(RayletAsProcess(deps_.self).worker_id);
      mail_.OwnerAdopted(owner.worker_id, of_ours == heard.end() ? 0 : of_ours->second.number, &moved);
      Run(moved);
    }
  }
  // They had to do with the owner, and need never have met this node.
  for (const BorrowCount& count : counts) {
    for (const Address& process : {count.borrower, count.registrar}) deps_.watch(process);
  }
  AdoptionEffects effects;
  core_.Complete(owner, message.part(), counts, message.last(), &effects);
  Run(effects);
  if (was_taking && message.last()) ServeHeld(owner.worker_id);
  if (responder.valid()) responder.Send(v1::AdoptionEmpty());
}

// Copies come to this node, whatever node was named: the adopter stays as long as the cluster. Those of other nodes may have been evicted.
void AdoptionService::HandleMoveCopies(const v1::MoveCopiesRequest& message, rpc::Responder responder) {
  struct Answer {
    explicit Answer(rpc::Responder r) : responder(std::move(r)) {}
    ~Answer() {  // the last copy has come, or will not
      if (responder.valid()) responder.Send(reply);
    }
    rpc::Responder responder;
    v1::MoveCopiesReply reply;
  };
  const auto answer = std::make_shared<Answer>(std::move(responder));
  std::set<NodeId> leaving{NodeId::FromBinaryOrNil(message.node_id())};
  for (const std::string& node : message.leaving_node_ids()) leaving.insert(NodeId::FromBinaryOrNil(node));
  for (const std::string& binary : message.object_ids()) {
    const ObjectId id = ObjectId::FromBinaryOrNil(binary);
    const AdoptionCore::Object* object = core_.Find(id);
    if (object == nullptr || object->value.blob != nullptr || object->lost) continue;
    if (leaving.contains(deps_.self)) {
      answer->reply.add_not_moved(binary);
      continue;
    }
    deps_.save({id, object->value.size, object->value.metadata, RayletAsProcess(deps_.self), object->value.nodes, object->value.attempt},
               [this, alive = alive_, answer, id, attempt = object->value.attempt](const Status& status) {
                 if (!*alive) return;
                 if (!status.ok()) return answer->reply.add_not_moved(id.Binary());
                 AdoptionEffects moved;
                 core_.AddLocation(id, deps_.self, attempt, &moved);
                 Run(moved);
               });
  }
}

void AdoptionService::HandleGetLocations(const v1::GetLocationsRequest& message, rpc::Responder responder) {
  v1::GetLocationsReply reply;
  for (const auto& bytes : message.object_ids()) {
    auto* location = reply.add_locations();
    location->set_object_id(bytes);
    const AdoptionCore::Object* object = core_.Find(ObjectId::FromBinaryOrNil(bytes));
    location->set_known(object != nullptr);
    if (object == nullptr) continue;
    location->set_size(object->value.size);
    for (const NodeId& node : object->value.nodes) location->add_node_ids(node.Binary());
  }
  if (responder.valid()) responder.Send(reply);
}

// ---- deaths and effects ----

void AdoptionService::OnWorkerDied(const WorkerId& worker) {
  AdoptionEffects effects;
  core_.WorkerDied(worker, &effects);
  Run(effects);
  OwnerMailEffects mail;
  mail_.WorkerDied(worker, &mail);
  Run(mail);
  for (auto& [owner, borrowers] : heard_) borrowers.erase(worker);
  ServeHeld(worker);
  if (const auto connection = outgoing_.extract(worker)) connection.mapped()->Close(Status::Unavailable("its process has ended"));
}

void AdoptionService::OnNodeDead(const NodeId& node) {
  AdoptionEffects effects;
  core_.NodeDied(node, &effects);
  Run(effects);
  OwnerMailEffects mail;
  mail_.NodeDied(node, &mail);
  Run(mail);
  for (auto& [owner, borrowers] : heard_) std::erase_if(borrowers, [&](const auto& entry) { return entry.second.node == node; });
  std::vector<WorkerId> owners;
  for (const auto& [owner, held] : held_) owners.push_back(owner);
  for (const WorkerId& owner : owners) {
    if (!core_.IsTaking(owner)) ServeHeld(owner);
  }
}

rpc::ConnectionPtr AdoptionService::ConnectionTo(const Address& process) {
  auto& slot = outgoing_[process.worker_id];
  if (slot != nullptr && !slot->closed()) return slot;
  slot = deps_.connect(process);
  if (slot == nullptr) {
    outgoing_.erase(process.worker_id);
    return nullptr;
  }
  slot->OnClose([this, alive = alive_, worker = process.worker_id, raw = slot.get()](const Status&) {
    if (!*alive) return;
    const auto it = outgoing_.find(worker);
    if (it != outgoing_.end() && it->second.get() == raw) outgoing_.erase(it);
  });
  return slot;
}

void AdoptionService::Run(const AdoptionEffects& effects) {
  std::map<NodeId, std::vector<CopyRun>> frees, keeps;
  std::map<std::tuple<WorkerId, WorkerId, WorkerId>, std::shared_ptr<Settlement>> settlements;
  for (const AdoptionEffect& effect : effects) {
    if (const auto* free = std::get_if<FreeAdopted>(&effect)) {
      for (const NodeId& node : free->nodes) frees[node].push_back(free->copy);
    } else if (const auto* keep = std::get_if<KeepAdopted>(&effect)) {
      keeps[keep->node].push_back(keep->copy);
    } else if (const auto* back = std::get_if<GiveBackNested>(&effect)) {
      mail_.GiveBack(back->owner, back->id, back->registrar);
    } else if (const auto* settle = std::get_if<SettleAdopted>(&effect)) {
      auto& settlement = settlements[{settle->owner.worker_id, settle->borrower.worker_id, settle->registrar.worker_id}];
      if (settlement == nullptr) {
        settlement = std::make_shared<Settlement>();
        settlement->borrower = settle->borrower;
        ToProto(settle->owner, settlement->request.mutable_owner());
        ToProto(settle->registrar, settlement->request.mutable_registrar());
      }
      settlement->request.add_object_ids(settle->id.Binary());
    }
  }
  for (const auto& [key, settlement] : settlements) Send(settlement);
  for (auto& [node, copies] : frees) deps_.free(node, std::move(copies));
  for (auto& [node, copies] : keeps) deps_.keep(node, std::move(copies));
  OwnerMailEffects mail;
  mail_.Flush(Now(), &mail);
  Run(mail);
  if (heard_.size() > core_.num_owners()) {
    std::erase_if(heard_, [this](const auto& entry) { return !core_.IsTaking(entry.first) && !core_.IsAdopted(entry.first); });
  }
}

void AdoptionService::Run(const OwnerMailEffects& effects) {
  AdoptionEffects adopted;
  for (const OwnerMailEffect& effect : effects) {
    if (const auto* ask = std::get_if<AskToCount>(&effect)) {
      Send(*ask);
    } else if (const auto* back = std::get_if<ReturnCounts>(&effect)) {
      Send(*back);
    } else if (const auto* here = std::get_if<CountHere>(&effect)) {
      core_.AddBorrower(here->id, here->receiver, RayletAsProcess(deps_.self), &adopted);
    } else if (const auto* release = std::get_if<ReleaseHere>(&effect)) {
      core_.RemoveBorrower(release->id, RayletAsProcess(deps_.self).worker_id, release->registrar, release->count, &adopted);
    } else if (const auto* settled = std::get_if<CountSettled>(&effect)) {
      counting_.erase(settled->number);
    }
  }
  if (!adopted.empty()) Run(adopted);
  mail_timer_.Arm(mail_.NextDeadline());
}

void AdoptionService::Send(const AskToCount& effect) {
  const auto silent = [this, alive = alive_, number = effect.number] {
    if (!*alive) return;
    OwnerMailEffects effects;
    mail_.OnSilence(number, Now(), &effects);
    Run(effects);
  };
  const rpc::ConnectionPtr connection = ConnectionTo(effect.owner);
  if (connection == nullptr) return deps_.loop->Post("adoption.silent", silent);
  v1::AddBorrowersRequest request;
  ToProto(effect.receiver, request.mutable_borrower());
  ToProto(RayletAsProcess(deps_.self), request.mutable_registrar());
  request.set_request_id(mail_key_ + std::to_string(effect.number));
  for (const ObjectId& id : effect.ids) request.add_object_ids(id.Binary());
  rpc::CallTyped<v1::AddBorrowersReply>(
      *connection, MethodId::kAddBorrowers, request, {},
      [this, alive = alive_, number = effect.number, silent](const Status& status, v1::AddBorrowersReply& reply, PartList) {
        if (!*alive) return;
        if (status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kResourceExhausted) return silent();
        OwnerMailEffects effects;
        if (status.ok() && !reply.moved_node_id().empty()) {
          mail_.OnMoved(number, &effects);
        } else {
          mail_.OnAnswer(number, &effects);  // who refuses it will refuse it again
        }
        Run(effects);
      });
}

void AdoptionService::Send(const ReturnCounts& effect) {
  const auto asked = incoming_.find(effect.owner.worker_id);
  const rpc::ConnectionPtr connection = asked != incoming_.end() ? asked->second : ConnectionTo(effect.owner);
  const auto answered = [this, alive = alive_, owner = effect.owner.worker_id, number = effect.number](const Status& status) {
    if (!*alive) return;
    OwnerMailEffects effects;
    if (status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kResourceExhausted) {
      mail_.OnSilence(number, Now(), &effects);
    } else {
      mail_.OnReturned(owner, number, Now(), &effects);
    }
    Run(effects);
  };
  if (connection == nullptr) {
    return deps_.loop->Post("adoption.silent", [answered] { answered(Status::Unavailable("it cannot be reached")); });
  }
  v1::RemoveBorrowersRequest request;
  ToProto(RayletAsProcess(deps_.self), request.mutable_borrower());
  request.set_owner_worker_id(effect.owner.worker_id.Binary());
  request.set_number(effect.number);
  const auto set = [](const ReturnCounts::Item& item, v1::BorrowCount* out) {
    out->set_object_id(item.id.Binary());
    out->set_count(item.count);
    if (!item.registrar.IsNil()) out->set_registrar_worker_id(item.registrar.Binary());
  };
  for (const auto& item : effect.counts) set(item, request.add_counts());
  for (const auto& item : effect.left) set(item, request.add_left());
  connection->Call(MethodId::kRemoveBorrowers, request, {}, [answered](const Status& status, const rpc::Reply&) { answered(status); });
}

void AdoptionService::WriteStats(JsonWriter* json) const {
  json->Key("adopted").BeginObject().Key("objects").Int(static_cast<int64_t>(core_.num_objects()));
  json->Key("owners").Int(static_cast<int64_t>(core_.num_owners()));
  json->Key("inline_bytes").Int(static_cast<int64_t>(core_.inline_bytes())).EndObject();
}

bool AdoptionService::Explain(const ObjectId& id, v1::WaitFact* out) const {
  const AdoptionCore::Object* object = core_.Find(id);
  if (object == nullptr) return false;
  SetSubject(v1::SUBJECT_KIND_OBJECT, id.View(), object->lost ? v1::WAIT_STATE_FAILED : v1::WAIT_STATE_READY, out);
  out->set_node_id(deps_.self.Binary());
  const std::string owner = "its owner, worker " + object->owner.Hex() + ", has left in good order and this node keeps it";
  out->set_detail(object->lost ? owner + "; its last copy is lost, and nobody can make it again"
                               : owner + ", " + std::to_string(object->value.size) + " bytes");
  for (const NodeId& node : object->value.nodes) AddPointer(v1::SUBJECT_KIND_OBJECT, id.View(), Address{node, WorkerId::Nil()}, out);
  return true;
}

}  // namespace ray::raylet
