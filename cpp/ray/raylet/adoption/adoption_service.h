// AdoptionService: the raylet's part when an owner of objects leaves in good order. Shell of the AdoptionCore.
//
// On the head it takes over what leaving owners hand to it and from then on answers for it, as they would: values, borrowers, places of copies. On every
// node it lets the adopter have the copies in its store. See docs/architecture/ownership.md, "Leaving in good order".
// On the loop only; owned by NodeServices.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ray/async/loop.h"
#include "ray/async/tick_timer.h"
#include "ray/raylet/adoption/adoption_core.h"
#include "ray/raylet/adoption/owner_mail_core.h"
#include "ray/raylet/objects/transfer_service.h"
#include "ray/rpc/core/answer_log.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/v1/explain.pb.h"
#include "ray/v1/object_adoption.pb.h"
#include "ray/v1/object_transfer.pb.h"
#include "ray/v1/worker_object.pb.h"

namespace ray::raylet {

class JsonWriter;

class AdoptionService {
 public:
  struct Deps {
    async::Loop* loop = nullptr;
    NodeId self;
    // The control link to another raylet; null: it is dead or cannot be reached.
    std::function<rpc::ConnectionPtr(const NodeId&)> link;
    // Its end is to be told to this node.
    std::function<void(const Address& process)> watch;
    // A new connection to a worker or driver, wherever it is.
    std::function<rpc::ConnectionPtr(const Address&)> connect;
    // This node's store: these objects are that process's from now on.
    std::function<void(std::vector<ObjectId> ids, const Address& owner)> reown;
    // See TransferService.
    std::function<void(const NodeId&node, std::vector<CopyRun> copies)> free, keep;
    std::function<void(CopyToSave copy, std::function<void(const Status&)> done)> save;
  };
  explicit AdoptionService(Deps deps);
  ~AdoptionService();
  void RegisterHandlers(rpc::Dispatcher* dispatcher);
  // Of any node.
  void OnWorkerDied(const WorkerId& worker);
  void OnNodeDead(const NodeId& node);
  // A copy of what was adopted, or of what is of no use any more.
  void AddLocation(const CopyRun& copy, const NodeId& node);
  const AdoptionCore& core() const { return core_; }
  void WriteStats(JsonWriter* json) const;
  // What is known of an object whose owner has left. False: nothing.
  bool Explain(const ObjectId& id, v1::WaitFact* out) const;

 private:
  void HandleAdopt(const v1::AdoptObjectsRequest& message, rpc::Request& request, rpc::Responder responder);
  void HandleGet(const v1::GetObjectRequest& message, rpc::Request& request, rpc::Responder responder);
  void HandleAddBorrowers(const v1::AddBorrowersRequest& message, rpc::Responder responder);
  void HandleComplete(const v1::CompleteAdoptionRequest& message, rpc::Responder responder);
  void HandleRemoveBorrowers(const v1::RemoveBorrowersRequest& message, rpc::Responder responder);
  void HandleSettleBorrows(const v1::SettleBorrowsRequest& message, rpc::Responder responder);
  void RemoveBorrowers(const v1::RemoveBorrowersRequest& message);
  // Those that waited for the owner to be complete, or dead.
  void ServeHeld(const WorkerId& owner);
  void HandleMoveCopies(const v1::MoveCopiesRequest& message, rpc::Responder responder);
  void HandleGetLocations(const v1::GetLocationsRequest& message, rpc::Responder responder);
  // `done` once the owners of `nested` know `receiver` as a borrower, or cannot be told.
  void HandOver(const std::vector<ObjectRefInfo>& nested, const Address& receiver, std::function<void()> done);
  // The copies of these objects belong to the adopter; `done` when every node has heard.
  void Reown(const WorkerId& owner, const std::map<NodeId, std::vector<ObjectId>>& copies, std::function<void()> done);
  void ReownOn(const WorkerId& owner, const NodeId& node, const std::vector<ObjectId>& ids, std::shared_ptr<void> heard,
               uint64_t failures = 0);
  // What is only on `node` is brought here.
  void SaveFrom(const NodeId& node, const std::vector<ObjectId>& ids, std::function<void()> done);
  rpc::ConnectionPtr ConnectionTo(const Address& process);
  void Run(const AdoptionEffects& effects);
  void Run(const OwnerMailEffects& effects);
  void Send(const AskToCount& effect);
  void Send(const ReturnCounts& effect);
  // Of one owner, borrower and registrar: the borrower is asked until it answers, is dead, or has nothing of that left.
  struct Settlement {
    Address borrower;
    v1::SettleBorrowsRequest request;
  };
  void Send(const std::shared_ptr<Settlement>& settlement);
  Time Now() const { return deps_.loop->clock().Now(); }

  const Deps deps_;
  AdoptionCore core_;
  OwnerMailCore mail_;
  const std::string mail_key_;                          // with a number the request id of our AddBorrowers
  std::map<uint64_t, std::shared_ptr<void>> counting_;  // by number of mail: let go of when it is settled
  async::TickTimer mail_timer_;
  rpc::AnswerLog counted_{16384};  // AddBorrowers, by request id
  rpc::AnswerLog given_{16384};    // GetObject of values with refs inside, by requester and request
  // Number of the last RemoveBorrowers that an owner's counts have in them; the node is nil until the borrower has sent one here.
  struct LastHeard {
    NodeId node;
    uint64_t number = 0;
  };
  // By owner, while it has objects here, and borrower, until it dies.
  std::map<WorkerId, std::map<WorkerId, LastHeard>> heard_;
  // RemoveBorrowers for owners that have not told their counts: those say whether the owner has had them already.
  struct HeldRemoval {
    v1::RemoveBorrowersRequest message;
    rpc::Responder responder;
  };
  std::map<WorkerId, std::vector<HeldRemoval>> held_;
  std::map<WorkerId, rpc::ConnectionPtr> outgoing_;  // that we opened
  // On which processes asked for values: what we tell them after a reply must not overtake it.
  std::map<WorkerId, rpc::ConnectionPtr> incoming_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for callbacks that connections keep
};

}  // namespace ray::raylet
