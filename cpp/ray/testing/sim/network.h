// SimNetwork: connections between the processes of a World. They keep what rpc::Connection and its carriers promise, and break it in no way in which they may not:
// a connection delivers what was sent in order and once, until it ends; then the rest is lost, and each end learns of it in its own time. So
//   * frames of different connections overtake one another; those of one never;
//   * a message is lost only with its connection, and the sender cannot know which were;
//   * where a cable is cut, nothing arrives and nobody is told: what was sent waits (TCP repeats it), and arrives late if the cable is mended before the ends give
//     up by themselves, which each does between keep_alive_min and keep_alive_max, so that for a while one of them thinks it is connected (half open);
//   * a cable may be cut for one direction only: then what is sent the other way arrives, nobody can connect, and both ends give up, since neither is answered;
//   * who dials while the cable is cut, or nobody listens, is told so after a while if it asks for that, and may try again on the same connection (rpc/core/dial.h);
//   * the crash of a host looks like a cut; the end of a process, like its kernel closing its sockets behind what it had sent.
// Single messages are lost, doubled, late and overtaken by the product's own means (rpc/core/faulty_connection.h), which every process has that starts after
// SetMessageFaults: so only in ways which the rules of their methods allow.
//
//   network.Listen(gcs_process, "gcs", server->dispatcher());
//   ConnectionPtr c = network.Connect(raylet_process, "gcs", raylet_dispatcher);  // usable at once; serves the peer's requests with the dispatcher
//   network.Cut(host_a, host_b); network.Mend(host_a, host_b); network.BreakConnections(host_a, host_b);
//
// Addresses are any strings; names of Unix sockets should hold their node's folder, since there is one space of them.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dial.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/rpc/core/pending_calls.h"
#include "ray/testing/sim/process.h"
#include "ray/testing/sim/world.h"

namespace ray::sim {

struct NetworkConfig {
  Duration local_min = std::chrono::microseconds(5), local_max = std::chrono::microseconds(50);      // within a host
  Duration remote_min = std::chrono::microseconds(80), remote_max = std::chrono::microseconds(600);  // between hosts
  double spike = 0.01;                                  // share of remote messages that are repeated
  Duration spike_max = std::chrono::milliseconds(220);  // until such a one arrives
  Duration keep_alive_min = std::chrono::seconds(10),
           keep_alive_max = std::chrono::seconds(16);                               // until an end of a cut connection gives up
  Duration dial_min = std::chrono::seconds(1), dial_max = std::chrono::seconds(3);  // until who dials over a cut cable is told
};

class SimNetwork;
struct SentDescriptor;
using AcceptCallback = std::function<void(const rpc::ConnectionPtr&)>;

class SimConnection : public rpc::Connection {
 public:
  SimConnection(SimNetwork* network, Process* process, Process* peer_process, HostId peer_host, uint64_t id,
                const rpc::Dispatcher* dispatcher);

  void Call(MethodId method, const rpc::MessageLite& request, const PartList& parts, rpc::ReplyCallback callback,
            rpc::CallOptions options) override;
  void CallRaw(MethodId method, std::string_view control, const PartList& parts, rpc::ReplyCallback callback,
               rpc::CallOptions options) override;
  void Notify(MethodId method, const rpc::MessageLite& message, const PartList& parts, bool corked) override;
  void NotifyRaw(MethodId method, std::string_view control, const PartList& parts) override;
  void Flush() override {}
  void Close(Status reason) override;
  bool closed() const override { return closed_; }
  void OnClose(std::function<void(const Status&)> callback) override;
  uint64_t id() const override { return id_; }
  int64_t peer_pid() const override;
  size_t unsent_bytes() const override { return unsent_; }
  bool LandsReplies() const override { return lands_; }

  // Calls that wait for their reply, for the check that none waits for ever.
  size_t pending_calls() const { return calls_ == nullptr ? 0 : calls_->size(); }
  // Its process is gone, and with it all that waited. Only for Process.
  void Drop();
  Process* process() const { return process_; }

 protected:
  void SendReply(MethodId method, uint64_t call_id, rpc::FrameKind kind, std::string_view control, const rpc::MessageLite* message,
                 const PartList& parts, int fd, bool corked) override;

 private:
  friend class SimNetwork;
  enum class Kind : uint8_t { kFrame, kOpen, kEnd };
  struct Message {
    Kind kind = Kind::kFrame;
    rpc::FrameKind frame = rpc::FrameKind::kRequest;
    MethodId method{};
    uint64_t call_id = 0;
    std::string control;  // kOpen: the address; kEnd: the reason
    PartList parts;
    Time due;
    std::shared_ptr<const SentDescriptor> fd = nullptr;  // within a host
    size_t bytes() const;
  };

  void Send(Message message);
  void Teardown();

  SimNetwork* const network_;
  Process* const process_;
  const HostId peer_host_;
  const uint64_t id_;
  const rpc::Dispatcher* const dispatcher_;
  std::unique_ptr<rpc::PendingCalls> calls_;  // null: dropped
  bool closed_ = false, torn_down_ = false;
  bool lands_ = false;  // replies go where their callers want them, as on a bulk link
  Status reason_;
  std::vector<std::function<void(const Status&)>> on_close_;
  rpc::DialFailed on_dial_failed_;  // while nobody has accepted it; null: it ends instead
  std::string undialled_;           // the address, while it waits to be dialled again
  size_t unsent_ = 0;

  // Of the network. What is on its way from here to the peer, oldest first.
  std::deque<Message> out_;
  Time last_due_{0};
  bool delivery_scheduled_ = false;
  Process* peer_process_;  // null: nobody has accepted it yet
  std::weak_ptr<SimConnection> peer_;
  bool ended_ = false;  // nothing is sent any more: it said that it ends, or its process is dead
};

class SimNetwork {
 public:
  SimNetwork(World* world, NetworkConfig config = {}) : world_(world), config_(config) {}
  ~SimNetwork() { world_->EndProcesses(); }
  World* world() const { return world_; }

  bool Listens(const std::string& address) const { return listeners_.contains(address); }
  // Until StopListening, or the process's end. `on_accept` runs on its loop before anything is received. A second listener: ALREADY_EXISTS.
  // The dispatcher must live as long as the process.
  Status Listen(Process* process, const std::string& address, const rpc::Dispatcher* dispatcher, AcceptCallback on_accept = nullptr);
  void StopListening(const std::string& address) { listeners_.erase(address); }
  bool IsListening(const std::string& address) const { return listeners_.contains(address); }
  // Immediate; that nobody listens, or that nobody can be reached, shows by its end, or is told to `on_failed`.
  // `lands`: a bulk link, both ends of which heed CallOptions::landing.
  rpc::ConnectionPtr Connect(Process* process, const std::string& address, const rpc::Dispatcher* dispatcher, bool lands = false,
                             rpc::DialFailed on_failed = nullptr);

  // Between two hosts, both ways. Idempotent.
  void Cut(HostId a, HostId b);
  // What `from` sends does not reach `to`.
  void CutOneWay(HostId from, HostId to);
  // Both ways.
  void Mend(HostId a, HostId b);
  void MendAll();
  // As a cut from every other host: for one that is down.
  void SetDown(HostId host, bool down);
  // Whether nothing that `from` sends reaches `to`.
  bool IsCut(HostId from, HostId to) const {
    return from != to && (cuts_.contains({from, to}) || down_.contains(from) || down_.contains(to));
  }
  // Every connection between the hosts is reset: what is on its way is lost, both ends learn of it soon.
  void BreakConnections(HostId a, HostId b);
  // From now on messages between the two take that much longer.
  void SetExtraLatency(HostId a, HostId b, Duration extra) { extra_[Pair(a, b)] = extra; }
  void ClearExtraLatency() { extra_.clear(); }

  // How single messages fare that are sent by processes which have not sent anything yet; `seed` is drawn for each. Empty: well, which is how it begins.
  void SetMessageFaults(rpc::FaultConfig faults) { message_faults_ = std::move(faults); }
  // All fare well from now on; processes still count on repeats.
  void StopMessageFaults();
  // For a process that makes its FaultInjector itself, and gives it to Use.
  rpc::FaultConfig DrawMessageFaults();
  void Use(Process* process, std::shared_ptr<rpc::FaultInjector> faults);
  // That of a process, for connections that it makes itself, as tunnels; null: none.
  const std::shared_ptr<rpc::FaultInjector>& FaultsOf(Process* process);
  // How many messages have fared badly.
  uint64_t num_message_faults() const;

 private:
  friend class SimConnection;
  struct Listener {
    Process* process;
    const rpc::Dispatcher* dispatcher;
    AcceptCallback on_accept;
  };
  static std::pair<HostId, HostId> Pair(HostId a, HostId b) { return a < b ? std::pair(a, b) : std::pair(b, a); }
  std::shared_ptr<SimConnection> Add(Process* process, Process* peer, HostId peer_host, const rpc::Dispatcher* dispatcher);
  void Watch(Process* process);
  void OnDeath(Process* process, Death death);
  Duration Latency(HostId from, HostId to, size_t bytes);
  void Queue(const std::shared_ptr<SimConnection>& from, SimConnection::Message message);
  void Schedule(const std::shared_ptr<SimConnection>& from);
  void Deliver(const std::shared_ptr<SimConnection>& from);
  void TakeIn(const std::shared_ptr<SimConnection>& to, SimConnection::Message* message);
  // Its first message, which opens it, leaves.
  void Dial(const std::shared_ptr<SimConnection>& from, const std::string& address);
  void DialFailed(const std::shared_ptr<SimConnection>& from, const std::string& address, const Status& why);
  void Accept(const std::shared_ptr<SimConnection>& from, const std::string& address);
  void Receive(const std::shared_ptr<SimConnection>& to, SimConnection::Message message);
  void Resume();
  // Whether what is next from that end cannot get through.
  bool IsHeldUp(const SimConnection& from) const;
  bool IsCutAnyWay(HostId a, HostId b) const { return IsCut(a, b) || IsCut(b, a); }
  // The ends of connections between the two notice that, some day.
  void NoticeCut(HostId a, HostId b);
  // An end of a connection that carries nothing gives up some day, unless it is mended.
  void GiveUpLater(const std::shared_ptr<SimConnection>& end);
  // Every connection end of a living process, in the order of their ids.
  std::vector<std::shared_ptr<SimConnection>> Ends(HostId host, HostId peer) const;

  World* const world_;
  const NetworkConfig config_;
  uint64_t last_id_ = 0;
  std::map<std::string, Listener> listeners_;
  std::map<std::string, HostId> homes_;       // of addresses that were listened on
  std::set<std::pair<HostId, HostId>> cuts_;  // from, to
  std::map<std::pair<HostId, HostId>, Duration> extra_;
  std::set<HostId> down_;
  std::map<uint64_t, std::shared_ptr<SimConnection>> waiting_;  // for a cable, to send
  std::set<uint32_t> watched_;                                  // processes
  rpc::FaultConfig message_faults_;
  bool messages_fare_well_ = false;                             // all of them, from now on
  std::vector<std::shared_ptr<rpc::FaultInjector>> injectors_;  // every one there was
};

}  // namespace ray::sim
