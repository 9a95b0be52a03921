// Where a process can be reached. Value type.
#pragma once

#include "ray/common/ids.h"

namespace ray {

struct Address {
  NodeId node_id;
  WorkerId worker_id;  // nil: the raylet of node_id
  bool IsNil() const { return worker_id.IsNil() && node_id.IsNil(); }
  friend bool operator==(const Address&, const Address&) = default;
};

// A raylet among the owners and borrowers of objects, which are named by the id of a worker: it takes that of its node.
inline Address RayletAsProcess(const NodeId& node) { return {node, WorkerId::FromBytes(node.data())}; }

// A ref as one process tells another of it.
struct ObjectRefInfo {
  ObjectId id;
  Address owner;
};

}  // namespace ray
