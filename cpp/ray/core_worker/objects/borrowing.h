// Borrowing: the messages by which owners and borrowers tell each other who holds what (docs/architecture/ownership.md, "Handing a ref over").
//
// Shell around the ReferenceTable, which decides; part of the ObjectService. Thread-safe; nothing blocks, and no lock is held while calling out.
#pragma once

#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ray/core_worker/objects/object_context.h"
#include "ray/rpc/core/answer_log.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/util/mutex.h"
#include "ray/v1/worker_object.pb.h"

namespace ray::core {

class Borrowing {
 public:
  explicit Borrowing(ObjectContext* context) : context_(*context) {}

  // The table said Borrow::kRegister of the object: tells the owner, soon. `outer` covers it until then.
  void RegisterSoon(const ObjectRefInfo& ref, const ObjectId& outer);
  void GiveBackSoon(std::span<const RefEffects::GiveBack> counts);
  // As in ObjectService.
  void HandOver(std::span<const ObjectRefInfo> nested, const Address& receiver, std::function<void()> done);
  void RegisterBorrowsAndThen(uint64_t task, std::function<void()> done);

  void HandleAddBorrowers(const v1::AddBorrowersRequest& message, rpc::Responder responder);
  void HandleRemoveBorrowers(const v1::RemoveBorrowersRequest& message, rpc::Responder responder);
  void HandleSettleBorrows(const v1::SettleBorrowsRequest& message, rpc::Responder responder);
  // Asks the borrowers, each until it answers, is dead, or has nothing of that left.
  void SettleSoon(std::span<const RefEffects::Settle> counts);
  // It gives nothing back any more.
  void ForgetBorrower(const WorkerId& worker);
  // Nor do those that lived on that node, which are known as dead already.
  void ForgetNode(const NodeId& node);
  // By borrower: the last of its RemoveBorrowers that the counts have in them.
  std::unordered_map<WorkerId, uint64_t, IdHash> Heard() const;
  // How many borrowers are remembered for what they gave back last.
  size_t num_heard();

 private:
  // What borrowers tell owners is gathered for a moment, so that a list of refs costs one message for each owner.
  struct Mail {
    Address owner;
    std::vector<std::pair<ObjectId, ObjectId>> add;  // id, outer
    std::vector<RefEffects::GiveBack> remove;
  };
  Mail* MailToLocked(const Address& owner, bool* post) REQUIRES(mu_);
  void PostMail();
  void SendMail();
  // Runs while the service is alive, once the owner has answered, or is gone.
  using Registered = std::function<void(bool sent, const ObjectIdSet& unknown)>;
  // One AddBorrowers. An owner that is silent for now is asked again, until it is known to be dead.
  struct Registration {
    Address owner, borrower;
    v1::AddBorrowersRequest request;
    Registered done;
  };
  void SendAddBorrowers(const Address& owner, const Address& borrower, const std::vector<ObjectId>& ids, Registered done);
  void Send(const std::shared_ptr<Registration>& registration);
  void OnSilent(const std::shared_ptr<Registration>& registration, const Status& status);
  // Counts on their way back to one owner: one message at a time, whose number tells a repeat.
  struct Returning {
    Address owner;
    v1::RemoveBorrowersRequest message;
    bool under_way = false;
    std::vector<RefEffects::GiveBack> next;              // gathered meanwhile
    std::vector<std::pair<ObjectId, WorkerId>> to_tell;  // the same: what is left of what that registrar had counted
  };
  // On the loop, as are the next.
  void SendNextCounts(const WorkerId& owner);
  void SendCounts(const WorkerId& owner);
  void OnSilent(const WorkerId& owner, const Status& status);
  // Of one borrower and one registrar.
  struct Settlement {
    Address borrower;
    v1::SettleBorrowsRequest request;
  };
  void Send(const std::shared_ptr<Settlement>& settlement);
  bool IsSettled(const Settlement& settlement) const;
  // Ids with the outer ones that cover them. Answers the table's registrations, then the barrier (may be null).
  void RegisterSelf(const Address& owner, std::vector<std::pair<ObjectId, ObjectId>> id_and_outer, std::shared_ptr<Barrier> barrier);

  ObjectContext& context_;
  rpc::AnswerLog counted_{16384};                              // AddBorrowers, by request id
  std::unordered_map<WorkerId, Returning, IdHash> returning_;  // by owner; on the loop
  uint64_t last_number_ = 0;                                   // the same; of all Returning messages
  mutable Mutex mu_;
  std::unordered_map<WorkerId, Mail, IdHash> mail_ GUARDED_BY(mu_);  // empty: no SendMail is posted
  std::unordered_map<ObjectId, std::vector<std::shared_ptr<Barrier>>, IdHash> awaited_
      GUARDED_BY(mu_);  // registrations that replies wait for
  struct LastHeard {
    NodeId node;
    uint64_t last = 0;  // number of its last RemoveBorrowers
  };
  std::unordered_map<WorkerId, LastHeard, IdHash> heard_ GUARDED_BY(mu_);  // by borrower, until it dies
};

}  // namespace ray::core
