// GcsCalls: the node's calls to the GCS, which outlive the link. While there is none they wait; over a new one all that were not answered are sent
// again, in the order in which they came. So every method of the GCS must bear to be asked twice (protos say how).
// On the loop; owned by Router.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "ray/rpc/core/connection.h"

namespace ray::raylet {

class GcsCalls {
 public:
  // `max_waiting_bytes`: of requests that wait while there is no link; more are refused.
  explicit GcsCalls(size_t max_waiting_bytes = size_t{256} << 20) : max_waiting_bytes_(max_waiting_bytes) {}
  ~GcsCalls() { *alive_ = false; }

  // Over which the node is registered.
  void SetLink(rpc::ConnectionPtr link);
  // The link has ended; there will be another one.
  void Wait() { link_ = nullptr; }
  // There will be none: what waits, and what comes from now on, fails with this.
  void Fail(const Status& reason);

  // `callback`, which may be null, runs once, unless this object ends first.
  void Call(MethodId method, std::string control, PartList parts, rpc::ReplyCallback callback);
  const rpc::ConnectionPtr& link() const { return link_; }
  size_t num_pending() const { return pending_.size(); }

 private:
  struct Pending {
    MethodId method;
    std::string control;
    PartList parts;
    rpc::ReplyCallback callback;
    size_t bytes = 0;
    uint32_t sent = 0;  // times
  };
  void Send(uint64_t number);
  void Finish(uint64_t number, Status status, rpc::Reply reply);

  const size_t max_waiting_bytes_;
  rpc::ConnectionPtr link_;  // null: none now
  std::optional<Status> failed_ = Status::Unavailable("this node has no connection to the GCS yet");
  uint64_t last_ = 0;
  std::map<uint64_t, Pending> pending_;  // in the order of the calls
  size_t bytes_ = 0;                     // of all pending ones
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace ray::raylet
