// What the tables want done. Each event of a core appends its effects in the order persist, reply, then everything that others see;
// the runner (services/effect_runner.h) makes what is to be persisted durable before it does the rest.
//
// The records are the messages of protos/ray/v1, since those are what is stored, answered and published.
#pragma once

#include <google/protobuf/message_lite.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ray/common/buffer.h"
#include "ray/common/ids.h"
#include "ray/common/resources.h"
#include "ray/gcs_server/storage/storage.h"
#include "ray/util/clock.h"
#include "ray/util/status.h"
#include "ray/v1/pubsub.pb.h"

namespace ray::gcs {

// Names a request that waits for its answer; 0: nobody waits.
using CallToken = uint64_t;

using Persist = StorageOp;
struct Answer {
  CallToken call;
  Status status;
  std::shared_ptr<const google::protobuf::MessageLite> reply;  // with OK
};
struct Publish {
  v1::PublishNotice notice;
  std::optional<std::vector<NodeId>> nodes = {};  // only their raylets need to hear of it; none: every subscriber
};
// What an actor is created from; kept as it came, for the first start and for restarts.
struct CreationSpec {
  std::string control;  // v1::TaskSpec
  PartList parts;
};
struct StartOnNode {  // the raylet's answer comes back as ActorTableCore::Started
  NodeId node;
  ActorId actor;
  uint32_t start;    // names the attempt
  uint32_t restart;  // as in StartActorRequest
  std::shared_ptr<const CreationSpec> spec;
  Duration patience = Duration::zero();  // for resources there; zero: without end
};
struct KillOnNode {
  NodeId node;
  ActorId actor;
  WorkerId worker;  // nil: still starting
  bool force;
  std::string reason;
  bool move = false;   // it goes on elsewhere
  CallToken call = 0;  // to be answered when the node has done it, or has gone
};
// Bundles of a placement group; `attempt` numbers the round. Answers come back as PlacementGroupTableCore::Prepared and Committed.
struct PrepareOnNode {
  NodeId node;
  PlacementGroupId group;
  uint32_t attempt;
  std::vector<std::pair<int32_t, ResourceSet>> bundles;
  bool commit;  // too, at once
};
struct CommitOnNode {
  NodeId node;
  PlacementGroupId group;
  uint32_t attempt;
  std::vector<int32_t> indices;
};
struct ReturnOnNode {
  NodeId node;
  PlacementGroupId group;
  uint32_t attempt;              // 0: of any round
  std::vector<int32_t> indices;  // none: all
  std::string reason;            // empty: a roll-back
};
struct TellJobFinished {
  JobId job;
  NodeId node = {};  // nil: every raylet
};
struct TellDriver {
  NodeId node;  // nil: every node, its driver may be anywhere
  JobId job;
  std::string kind;
  std::string message;
};
using Effect =
    std::variant<Persist, Answer, Publish, StartOnNode, KillOnNode, PrepareOnNode, CommitOnNode, ReturnOnNode, TellJobFinished, TellDriver>;
using Effects = std::vector<Effect>;

// A row that was stored by PersistMessage.
template <typename Message>
Result<Message> ReadRow(const std::string& table, const std::string& key, const std::string& value) {
  Message message;
  if (!message.ParseFromString(value))
    return Status::DataLoss("the stored row " + BytesToHex(key) + " of table " + table + " cannot be read");
  return message;
}

inline Persist PersistMessage(std::string table, std::string key, const google::protobuf::MessageLite& message) {
  return {std::move(table), std::move(key), {HeapBuffer::CopyOf(message.SerializeAsString())}, false};
}
template <typename Message>
void Reply(CallToken call, Message message, Effects* out) {
  if (call != 0) out->push_back(Answer{call, {}, std::make_shared<const Message>(std::move(message))});
}
inline void Fail(CallToken call, Status status, Effects* out) {
  if (call != 0) out->push_back(Answer{call, std::move(status), nullptr});
}

}  // namespace ray::gcs
