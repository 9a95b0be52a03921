#include "ray/core_worker/objects/borrowing.h"

#include <algorithm>
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
    for (const auto& back : counts) MailToLocked(back.owner, &post)->remove.emplace_back(back.id, back.count);
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
    // After every reply that told the owner of one of these: replies leave on the connection that the owner opened.
    auto connection = context_.owners->ReplyRoute(to.owner);
    if (connection.status().code() == StatusCode::kResourceExhausted) {  // this process is out of descriptors: later
      context_.loop->AddTimer(context_.options.owner_retry,
                              [this, alive = context_.alive, owner = to.owner, remove = std::move(to.remove)] {
                                const auto service = alive.lock();
                                if (service == nullptr) return;
                                std::vector<RefEffects::GiveBack> counts;
                                for (const auto& [id, count] : remove) counts.push_back({id, owner, count});
                                GiveBackSoon(counts);
                              });
      continue;
    }
    if (!connection.ok()) continue;  // a dead owner keeps no counts
    v1::RemoveBorrowersRequest message;
    ToProto(context_.self, message.mutable_borrower());
    for (const auto& [id, count] : to.remove) {
      auto* item = message.add_counts();
      item->set_object_id(id.data(), ObjectId::kSize);
      item->set_count(count);
    }
    (*connection)->Notify(MethodId::kRemoveBorrowers, message);
  }
}

void Borrowing::SendAddBorrowers(const Address& owner, const Address& borrower, const std::vector<ObjectId>& ids,
                                 std::function<void(bool sent, const ObjectIdSet& unknown)> done) {
  auto silent = [this, service = context_.alive.lock(), owner, borrower, ids, done](const Status& status) {
    if (!context_.owners->IsGone(owner, status)) return done(false, {});
    context_.owners->Find(owner, [=, this](bool moved) {
      if (!moved) return done(false, {});
      SendAddBorrowers(owner, borrower, ids, done);
    });
  };
  auto connection = context_.owners->Get(owner);
  if (connection.status().code() ==
      StatusCode::kResourceExhausted) {  // this process is out of descriptors; unregistered, the objects might be freed
    context_.loop->AddTimer(context_.options.owner_retry, [=, this, alive = context_.alive] {
      const auto service = alive.lock();
      if (service != nullptr) SendAddBorrowers(owner, borrower, ids, done);
    });
    return;
  }
  if (!connection.ok()) return silent(connection.status());
  v1::AddBorrowersRequest request;
  ToProto(borrower, request.mutable_borrower());
  request.set_request_id(LeaseId::FromRandom().Binary().substr(0, 16));
  for (const ObjectId& id : ids) request.add_object_ids(id.data(), ObjectId::kSize);
  rpc::CallTyped<v1::AddBorrowersReply>(**connection, MethodId::kAddBorrowers, request, {},
                                        [=, this](const Status& status, v1::AddBorrowersReply& reply, PartList) {
                                          if (!status.ok()) return silent(status);
                                          if (!reply.moved_node_id().empty()) {
                                            context_.owners->Move(owner.worker_id, NodeId::FromBinaryOrNil(reply.moved_node_id()));
                                            return SendAddBorrowers(owner, borrower, ids, done);
                                          }
                                          ObjectIdSet unknown;
                                          for (const auto& id : reply.unknown()) unknown.insert(ObjectId::FromBinaryOrNil(id));
                                          done(true, unknown);
                                        });
}

void Borrowing::RegisterSelf(const Address& owner, std::vector<std::pair<ObjectId, ObjectId>> id_and_outer,
                             std::shared_ptr<Barrier> barrier) {
  std::vector<ObjectId> ids;
  ids.reserve(id_and_outer.size());
  for (const auto& [id, outer] : id_and_outer) ids.push_back(id);
  auto done = [this, service = context_.alive.lock(), list = std::move(id_and_outer), barrier = std::move(barrier)](
                  bool sent, const ObjectIdSet& unknown) {
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
  if (!receiver.worker_id.IsNil() && receiver != context_.self) {
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
  std::vector<ObjectId> held = IdsOf(nested);
  context_.table.AddSubmitted(held);
  const auto groups = GroupByOwner(others);
  auto barrier =
      std::make_shared<Barrier>(groups.size(), [this, service = context_.alive.lock(), held = std::move(held), done = std::move(done)] {
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
  v1::AddBorrowersReply reply;
  for (const auto& bytes : message.object_ids()) {
    if (!context_.table.AddBorrower(ObjectId::FromBinaryOrNil(bytes), borrower)) reply.add_unknown(bytes);
  }
  responder.Send(reply);
}

void Borrowing::HandleRemoveBorrowers(const v1::RemoveBorrowersRequest& message) {
  const WorkerId borrower = WorkerId::FromBinaryOrNil(message.borrower().worker_id());
  RefEffects effects;
  for (const auto& item : message.counts())
    context_.table.RemoveBorrower(ObjectId::FromBinaryOrNil(item.object_id()), borrower, item.count(), &effects);
  context_.host->CarryOut(effects);
}

}  // namespace ray::core
