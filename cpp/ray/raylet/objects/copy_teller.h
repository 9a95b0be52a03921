// CopyTeller: tells owners of the copies of their objects that have come to this node, until they have heard it: they free what they know of, and nothing else does.
//
// The raylet tells it, and not the process that wanted the copy: that may end, and then the copy is left. Nobody waits for the answer. An owner that has freed the
// object meanwhile, or had it made again, has the copy freed in its turn. With the owner's end its objects go (StoreService::OnWorkerDied), and there is nobody to tell.
// Shell of a CopyNoticeCore. On the loop only; owned by NodeServices.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <unordered_map>

#include "ray/async/loop.h"
#include "ray/async/tick_timer.h"
#include "ray/common/address.h"
#include "ray/common/copy_run.h"
#include "ray/object_manager/transfer/copy_notice_core.h"
#include "ray/rpc/core/connection.h"

namespace ray::raylet {

class CopyTeller {
 public:
  struct Deps {
    async::Loop* loop = nullptr;
    NodeId self;
    // A process of this node; null: it has ended. The raylet of another; null: it is dead, or cannot be reached now. A process of another node.
    std::function<rpc::ConnectionPtr(const WorkerId&)> process;
    std::function<rpc::ConnectionPtr(const NodeId&)> raylet;
    std::function<rpc::ConnectionPtr(const Address&)> connect;
    // Told in place of an owner that has left, by this raylet as the adopter.
    std::function<void(const CopyRun&)> adopted;
  };
  explicit CopyTeller(Deps deps);
  ~CopyTeller() { Stop(); }
  CopyTeller(const CopyTeller&) = delete;
  CopyTeller& operator=(const CopyTeller&) = delete;

  void Tell(const Address& owner, const CopyRun& copy);
  void OnNodeDead(const NodeId& node);
  // Nobody is told anything from now on. Idempotent.
  void Stop();

 private:
  struct Batch;
  // Carries out what has gathered.
  void Run();
  void Send(const object_manager::NoticeWanted& effect);
  // Null, and `*ended`: there is nobody to tell.
  rpc::ConnectionPtr ConnectionTo(const Address& owner, bool* ended);
  void OnAnswers(const Address& owner, uint64_t call, bool confirmed, bool ended);
  void CloseIdle();
  Time Now() const { return deps_.loop->clock().Now(); }

  const Deps deps_;
  object_manager::CopyNoticeCore core_;
  object_manager::CopyNoticeEffects out_;
  struct Way {
    rpc::ConnectionPtr connection;
    Address owner;
    Time used;
  };
  std::unordered_map<WorkerId, Way, IdHash> ways_;  // to owners of other nodes; closed after a while without use
  async::TickTimer timer_, idle_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for callbacks that connections keep
};

}  // namespace ray::raylet
