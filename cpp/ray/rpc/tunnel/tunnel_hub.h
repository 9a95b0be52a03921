// TunnelHub: a process's connections to processes of other nodes.
//
// They look like any other Connection: calls both ways, corked sends, OnClose. Their frames travel in envelopes by way of the raylets of both nodes, and end up at
// the dispatcher of the other process. Such a connection ends, with UNAVAILABLE, when the peer closes it or has gone, when its node is dead, or when the way there
// broke: then frames may be lost, and whoever sent them decides what to do, as after the end of a socket.
// One hub per process: worker, driver or raylet. Thread-safe; handlers, callbacks and OnClose run on the loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ray/async/loop.h"
#include "ray/common/address.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/util/mutex.h"
#include "ray/v1/tunnel.pb.h"

namespace ray::rpc {

class FaultInjector;  // faulty_connection.h

class TunnelConnection;

struct TunnelConfig {
  uint64_t window_bytes = uint64_t{4} << 20;   // under way on one channel in one direction; what is beyond waits in the sender's process
  size_t max_frame_bytes = size_t{256} << 20;  // larger messages are not sent
};

class TunnelHub : public std::enable_shared_from_this<TunnelHub> {
 public:
  struct Deps {
    async::Loop* loop = nullptr;
    Address self;  // worker_id nil: a raylet
    std::shared_ptr<const Dispatcher> dispatcher;
    // Towards the other node: to the own raylet, or, in a raylet, on to the link. Any thread; must not block or call back. Envelopes leave in the order of the calls.
    std::function<void(MethodId method, std::string_view control, const PartList& parts)> send;
    // What was sent must leave now.
    std::function<void()> flush;
    // The process `peer` has ended for good: its raylet says so. On the loop; may be empty. All that it said has come before, and its connections end with the
    // cause kWorkerDied.
    std::function<void(const Address& peer)> on_peer_gone;
    TunnelConfig config;
    std::shared_ptr<FaultInjector> faults = nullptr;  // for tests; null: none
  };
  static std::shared_ptr<TunnelHub> Make(Deps deps);

  // A new connection to the process; worker_id nil: the raylet of that node. Usable at once; that there is no such peer shows by its end.
  ConnectionPtr Connect(const Address& peer);
  // kTunnel and kTunnelClosed, as they arrive. On the loop.
  void OnFrames(const v1::TunnelFrames& envelope, const PartList& parts);
  void OnClosed(const v1::TunnelClosed& message);
  // Ends every connection to that node.
  void CloseNode(const NodeId& node, const std::string& reason);
  // Ends all; later ones end at once. Idempotent.
  void Shutdown();
  // The process has ended, with its loop: nobody is told of anything, and what the connections and those who wait on them hold of one another goes.
  void Drop();

  const Address& self() const { return deps_.self; }
  size_t size() const;

 private:
  friend class TunnelConnection;
  using TunnelPtr = std::shared_ptr<TunnelConnection>;
  struct Incoming {
    Address peer;
    uint64_t channel;
    friend bool operator==(const Incoming&, const Incoming&) = default;
  };
  struct IncomingHash {
    size_t operator()(const Incoming& key) const {
      return key.peer.worker_id.Hash() ^ (key.peer.node_id.Hash() * 31) ^ (key.channel * 0x9e3779b97f4a7c15ull);
    }
  };
  explicit TunnelHub(Deps deps) : deps_(std::move(deps)) {}
  TunnelPtr Find(const v1::TunnelFrames& envelope);
  std::vector<TunnelPtr> Matching(const std::function<bool(const TunnelConnection&)>& wanted) const;
  void Forget(const TunnelConnection& connection);
  void Refuse(const v1::TunnelFrames& envelope);
  void AddDirty(TunnelPtr connection);
  void FlushDirty();  // on the loop

  const Deps deps_;
  mutable Mutex mu_;
  uint64_t last_channel_ GUARDED_BY(mu_) = 0;
  std::unordered_map<uint64_t, TunnelPtr> opened_ GUARDED_BY(mu_);                  // by us
  std::unordered_map<Incoming, TunnelPtr, IncomingHash> incoming_ GUARDED_BY(mu_);  // by others
  std::vector<TunnelPtr> dirty_ GUARDED_BY(mu_);                                    // have corked frames
  bool shut_down_ GUARDED_BY(mu_) = false;
};

}  // namespace ray::rpc
