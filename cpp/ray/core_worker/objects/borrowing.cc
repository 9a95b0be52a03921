#include "ray/core_worker/objects/borrowing.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "ray/core_worker/objects/owners.h"
#include "ray/wire/convert.h"

namespace ray::core {

void Borrowing::RegisterSoon(const ObjectRefInfo& ref, const ObjectId& outer) {
  bool post = false;
  {
    MutexLock lock(&mu_);
    MailToLocked(ref.owner, &post)->add.emplace_back(ref.id, outer);
  }
  if (post) PostMail();
}

void Borrowing::GiveBackSoon(std::span<const RefEffects::GiveBack> counts) {
  bool post = false;
  {
    MutexLock lock(&mu_);
    for (const auto& back : counts) MailToLocked(back.owner, &post)->remove.push_back(back);
  }
  if (post) PostMail();
}

Borrowing::Mail* Borrowing::MailToLocked(const Address& owner, bool* post) {
  *post = *post || mail_.empty();
  Mail& mail = mail_[owner.worker_id];
  mail.owner = owner;
  return &mail;
}

void Borrowing::PostMail() {
  context_.loop->Post("objects.mail", [this, service = context_.alive.lock()] { SendMail(); });
}

void Borrowing::SendMail() {
  std::unordered_map<WorkerId, Mail, IdHash> mail;
  {
    MutexLock lock(&mu_);
    mail.swap(mail_);
  }
  for (auto& [worker, to] : mail) {
    if (!to.add.empty()) RegisterSelf(to.owner, std::move(to.add), nullptr);
    if (to.remove.empty()) continue;
    Returning& back = returning_[worker];
    back.owner = to.owner;
    std::ranges::move(to.remove, std::back_inserter(back.next));
    if (!back.under_way) SendNextCounts(worker);
  }
}

void Borrowing::SendNextCounts(const WorkerId& owner) {
  const auto it = returning_.find(owner);
  if (it == returning_.end()) return;
  Returning& back = it->second;
  if (back.next.empty() && back.to_tell.empty()) {
    returning_.erase(it);
    return;
  }
  back.message.Clear();
  ToProto(context_.self, back.message.mutable_borrower());
  back.message.set_owner_worker_id(owner.Binary());
  back.message.set_number(++last_number_);
  const auto set = [](const ObjectId& id, const WorkerId& registrar, uint32_t count, v1::BorrowCount* item) {
    item->set_object_id(id.data(), ObjectId::kSize);
    item->set_count(count);
    if (!registrar.IsNil()) item->set_registrar_worker_id(registrar.Binary());
  };
  for (const auto& count : back.next) set(count.id, count.registrar, count.count, back.message.add_counts());
  // What goes back later was had now: all that a registrar gave goes back at once, and one that is dead gives nothing more.
  for (const auto& [id, registrar] : back.to_tell) set(id, registrar, context_.table.TakeGivenBy(id, registrar), back.message.add_left());
  back.next.clear();
  back.to_tell.clear();
  back.under_way = true;
  SendCounts(owner);
}

void Borrowing::SendCounts(const WorkerId& owner) {
  const auto it = returning_.find(owner);
  if (it == returning_.end()) return;
  Returning& back = it->second;
  // The owner may have had it before it handed its counts over: then the adopter knows the number from it. After every reply that told the owner of one of these: replies leave on the connection that the owner opened.
  auto connection = context_.owners->ReplyRoute(back.owner);
  if (!connection.ok()) return OnSilent(owner, connection.status());
  (*connection)
      ->Call(MethodId::kRemoveBorrowers, back.message, {},
             [this, service = context_.alive.lock(), owner](const Status& status, const rpc::Reply&) {
               if (status.ok()) {
                 SendNextCounts(owner);
               } else {
                 OnSilent(owner, status);
               }
             });
}

void Borrowing::OnSilent(const WorkerId& owner, const Status& status) {
  const auto it = returning_.find(owner);
  if (it == returning_.end()) return;
  switch (context_.owners->Judge(it->second.owner, status)) {
    case Owners::Silence::kGone:
      context_.owners->Find(it->second.owner, [this, service = context_.alive.lock(), owner](bool moved) {
        context_.loop->Post("objects.counts", [this, service, owner, moved] {
          if (moved) {
            SendCounts(owner);
          } else {
            returning_.erase(owner);  // a dead owner keeps no counts
          }
        });
      });
      return;
    case Owners::Silence::kForNow:
      context_.loop->AddTimer(context_.options.owner_retry, [this, alive = context_.alive, owner] {
        if (auto service = alive.lock()) SendCounts(owner);
      });
      return;
    case Owners::Silence::kRefusal: returning_.erase(it);
  }
}

void Borrowing::SendAddBorrowers(const Address& owner, const Address& borrower, const std::vector<ObjectId>& ids, Registered done) {
  auto registration = std::make_shared<Registration>();
  registration->owner = owner;
  registration->borrower = borrower;
  registration->done = std::move(done);
  v1::AddBorrowersRequest& request = registration->request;
  ToProto(borrower, request.mutable_borrower());
  if (borrower != context_.self) ToProto(context_.self, request.mutable_registrar());
  request.set_request_id(LeaseId::FromRandom().Binary().substr(0, 16));
  for (const ObjectId& id : ids) request.add_object_ids(id.data(), ObjectId::kSize);
  Send(registration);
}

void Borrowing::Send(const std::shared_ptr<Registration>& registration) {
  auto connection = context_.owners->Get(registration->owner);
  if (!connection.ok()) return OnSilent(registration, connection.status());
  rpc::CallTyped<v1::AddBorrowersReply>(
      **connection, MethodId::kAddBorrowers, registration->request, {},
      [this, service = context_.alive.lock(), registration](const Status& status, v1::AddBorrowersReply& reply, PartList) {
        if (!status.ok()) return OnSilent(registration, status);
        if (!reply.moved_node_id().empty()) {
          context_.owners->Move(registration->owner.worker_id, NodeId::FromBinaryOrNil(reply.moved_node_id()));
          return Send(registration);
        }
        ObjectIdSet unknown;
        for (const auto& id : reply.unknown()) unknown.insert(ObjectId::FromBinaryOrNil(id));
        registration->done(true, unknown);
      });
}

void Borrowing::OnSilent(const std::shared_ptr<Registration>& registration, const Status& status) {
  switch (context_.owners->Judge(registration->owner, status)) {
    case Owners::Silence::kGone:
      context_.owners->Find(registration->owner, [this, service = context_.alive.lock(), registration](bool moved) {
        if (!moved) return registration->done(false, {});
        Send(registration);
      });
      return;
    case Owners::Silence::kForNow:
      if (context_.peers->IsDead(registration->borrower)) return registration->done(false, {});
      // With the same request id, since the owner may have counted and only its answer be lost.
      context_.loop->AddTimer(context_.options.owner_retry, [this, alive = context_.alive, registration] {
        if (auto service = alive.lock()) Send(registration);
      });
      return;
    case Owners::Silence::kRefusal: registration->done(false, {});
  }
}

void Borrowing::RegisterSelf(const Address& owner, std::vector<std::pair<ObjectId, ObjectId>> id_and_outer,
                             std::shared_ptr<Barrier> barrier) {
  std::vector<ObjectId> ids;
  ids.reserve(id_and_outer.size());
  for (const auto& [id, outer] : id_and_outer) ids.push_back(id);
  auto done = [this, list = std::move(id_and_outer), barrier = std::move(barrier)](bool sent, const ObjectIdSet& unknown) {
    RefEffects effects;
    std::vector<std::shared_ptr<Barrier>> arrived;
    for (const auto& [id, outer] : list) {
      const bool freed = unknown.contains(id);
      context_.table.OnRegistered(id, outer, sent && !freed, &effects);
      if (freed) context_.host->Fail(id, LostValue(id, "its owner has freed it"));
    }
    {
      MutexLock lock(&mu_);
      for (const auto& [id, outer] : list) {
        auto node = awaited_.empty() ? decltype(awaited_)::node_type() : awaited_.extract(id);
        if (node) std::move(node.mapped().begin(), node.mapped().end(), std::back_inserter(arrived));
      }
    }
    context_.host->CarryOut(effects);
    for (const auto& waiting : arrived) waiting->Arrive();
    if (barrier != nullptr) barrier->Arrive();
  };
  SendAddBorrowers(owner, context_.self, ids, std::move(done));
}

void Borrowing::RegisterBorrowsAndThen(uint64_t task, std::function<void()> done) {
  std::vector<ObjectId> in_flight;
  const std::vector<ObjectRefInfo> to_register = context_.table.EndTask(task, &in_flight);
  if (to_register.empty() && in_flight.empty()) {
    done();
    return;
  }
  const auto groups = GroupByOwner(to_register);
  auto barrier = std::make_shared<Barrier>(groups.size() + in_flight.size(), std::move(done));
  for (const ObjectId& id : in_flight) {
    {
      MutexLock lock(&mu_);
      awaited_[id].push_back(barrier);
    }
    if (context_.table.IsRegistering(id)) continue;
    // The answer came in between. Whoever takes the barrier out counts it.
    bool mine = false;
    {
      MutexLock lock(&mu_);
      if (auto it = awaited_.find(id); it != awaited_.end()) {
        mine = std::erase(it->second, barrier) != 0;
        if (it->second.empty()) awaited_.erase(it);
      }
    }
    if (mine) barrier->Arrive();
  }
  for (const auto& [owner, ids] : groups) {
    std::vector<std::pair<ObjectId, ObjectId>> list;
    for (const ObjectId& id : ids) list.emplace_back(id, ObjectId::Nil());
    RegisterSelf(owner, std::move(list), barrier);
  }
}

void Borrowing::HandOver(std::span<const ObjectRefInfo> nested, const Address& receiver, std::function<void()> done) {
  std::vector<ObjectRefInfo> others;
  if (!receiver.worker_id.IsNil() && receiver != context_.self && !context_.peers->IsDead(receiver)) {
    for (const ObjectRefInfo& ref : nested) {
      if (context_.IsOurs(ref)) {
        context_.table.AddBorrower(ref.id, receiver);
      } else if (ref.owner != receiver) {  // its own: ReplyRoute keeps the order
        others.push_back(ref);
      }
    }
  }
  if (others.empty()) {
    done();
    return;
  }
  std::vector<ObjectId> held = context_.table.AddSubmittedIfKnown(IdsOf(nested));
  const auto groups = GroupByOwner(others);
  auto barrier = std::make_shared<Barrier>(groups.size(), [this, held = std::move(held), done = std::move(done)] {
    done();
    RefEffects effects;
    context_.table.RemoveSubmitted(held, &effects);
    context_.host->CarryOut(effects);
  });
  for (const auto& [owner, ids] : groups) {
    // An owner that is gone, or does not know the object, is for the receiver to find out.
    SendAddBorrowers(owner, receiver, ids, [barrier](bool, const ObjectIdSet&) { barrier->Arrive(); });
  }
}

void Borrowing::HandleAddBorrowers(const v1::AddBorrowersRequest& message, rpc::Responder responder) {
  if (!message.request_id().empty() && !counted_.Begin(message.request_id(), &responder)) return;
  const Address borrower = FromProto(message.borrower());
  const Address registrar = FromProto(message.registrar());
  // It has asked the registrar, and need never have turned to us.
  if (!registrar.IsNil()) context_.peers->Watch(borrower);
  RefEffects effects;
  v1::AddBorrowersReply reply;
  for (const auto& bytes : message.object_ids()) {
    if (!context_.table.AddBorrower(ObjectId::FromBinaryOrNil(bytes), borrower, registrar, &effects)) reply.add_unknown(bytes);
  }
  responder.Send(reply);
  context_.host->CarryOut(effects);
}

void Borrowing::HandleRemoveBorrowers(const v1::RemoveBorrowersRequest& message, rpc::Responder responder) {
  const Address borrower = FromProto(message.borrower());
  bool repeated = false;
  if (!context_.peers->IsDead(borrower)) {  // of the dead nothing is counted
    MutexLock lock(&mu_);
    LastHeard& heard = heard_[borrower.worker_id];
    heard.node = borrower.node_id;
    repeated = message.number() <= heard.last;
    heard.last = std::max(heard.last, message.number());
  }
  if (!repeated) {
    RefEffects effects;
    for (const auto& item : message.counts()) {
      context_.table.RemoveBorrower(ObjectId::FromBinaryOrNil(item.object_id()), borrower.worker_id,
                                    WorkerId::FromBinaryOrNil(item.registrar_worker_id()), item.count(), &effects);
    }
    for (const auto& item : message.left()) {
      context_.table.SettleBorrower(ObjectId::FromBinaryOrNil(item.object_id()), borrower.worker_id,
                                    WorkerId::FromBinaryOrNil(item.registrar_worker_id()), item.count(), &effects);
    }
    context_.host->CarryOut(effects);
  }
  responder.Send(v1::BorrowersEmpty());
}

void Borrowing::SettleSoon(std::span<const RefEffects::Settle> counts) {
  std::map<std::pair<WorkerId, WorkerId>, std::shared_ptr<Settlement>> all;
  for (const auto& count : counts) {
    auto& settlement = all[{count.borrower.worker_id, count.registrar.worker_id}];
    if (settlement == nullptr) {
      settlement = std::make_shared<Settlement>();
      settlement->borrower = count.borrower;
      ToProto(context_.self, settlement->request.mutable_owner());
      ToProto(count.registrar, settlement->request.mutable_registrar());
    }
    settlement->request.add_object_ids(count.id.Binary());
  }
  for (const auto& [key, settlement] : all) {
    context_.loop->Post("objects.settle", [this, service = context_.alive.lock(), settlement] { Send(settlement); });
  }
}

bool Borrowing::IsSettled(const Settlement& settlement) const {
  if (context_.peers->IsDead(settlement.borrower)) return true;
  const WorkerId registrar = WorkerId::FromBinaryOrNil(settlement.request.registrar().worker_id());
  return std::ranges::none_of(settlement.request.object_ids(), [&](const std::string& id) {
    return context_.table.HasBorrower(ObjectId::FromBinaryOrNil(id), settlement.borrower.worker_id, registrar);
  });
}

void Borrowing::Send(const std::shared_ptr<Settlement>& settlement) {
  if (IsSettled(*settlement)) return;
  const auto silent = [this, settlement] {
    context_.loop->AddTimer(context_.options.owner_retry, [this, alive = context_.alive, settlement] {
      if (const auto service = alive.lock()) Send(settlement);
    });
  };
  const Address& borrower = settlement->borrower;
  const auto connection =
      borrower == RayletAsProcess(borrower.node_id) ? context_.peers->GetRaylet(borrower.node_id) : context_.peers->Get(borrower);
  if (!connection.ok()) {
    if (connection.status().code() != StatusCode::kFailedPrecondition) silent();  // else this process ends
    return;
  }
  (*connection)
      ->Call(MethodId::kSettleBorrows, settlement->request, {}, [alive = context_.alive, silent](const Status& status, const rpc::Reply&) {
        const auto service = alive.lock();
        if (service == nullptr) return;
        if (status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kResourceExhausted) silent();
      });
}

void Borrowing::HandleSettleBorrows(const v1::SettleBorrowsRequest& message, rpc::Responder responder) {
  const Address owner = FromProto(message.owner());
  const WorkerId registrar = WorkerId::FromBinaryOrNil(message.registrar().worker_id());
  // What it sent before it died may still be on its way here.
  context_.peers->AfterLastWords(FromProto(message.registrar()),
                                 [this, alive = context_.alive, owner, registrar, ids = message.object_ids()] {
                                   const auto service = alive.lock();
                                   if (service == nullptr) return;
                                   context_.loop->Post("objects.settled", [this, service, owner, registrar, ids] {
                                     Returning& back = returning_[owner.worker_id];
                                     back.owner = owner;
                                     for (const std::string& id : ids) back.to_tell.emplace_back(ObjectId::FromBinaryOrNil(id), registrar);
                                     if (!back.under_way) SendNextCounts(owner.worker_id);
                                   });
                                 });
  responder.Send(v1::BorrowersEmpty());
}

std::unordered_map<WorkerId, uint64_t, IdHash> Borrowing::Heard() const {
  MutexLock lock(&mu_);
  std::unordered_map<WorkerId, uint64_t, IdHash> numbers;
  for (const auto& [worker, heard] : heard_) numbers.emplace(worker, heard.last);
  return numbers;
}

void Borrowing::ForgetBorrower(const WorkerId& worker) {
  MutexLock lock(&mu_);
  heard_.erase(worker);
}

void Borrowing::ForgetNode(const NodeId& node) {
  MutexLock lock(&mu_);
  std::erase_if(heard_, [&node](const auto& entry) { return entry.second.node == node; });
}

size_t Borrowing::num_heard() {
  MutexLock lock(&mu_);
  return heard_.size();
}

}  // namespace ray::core
