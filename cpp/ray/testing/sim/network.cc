#include "ray/testing/sim/network.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "ray/util/check.h"

namespace ray::sim {
namespace {

const Status kReset = Status::Unavailable("connection reset by the peer");
const Status kTimedOut = Status::Unavailable("the peer does not answer");

constexpr Duration kMaxRepeat = std::chrono::seconds(1);  // until TCP tries again

std::string_view KindName(rpc::FrameKind kind) {
  switch (kind) {
    case rpc::FrameKind::kRequest: return "request";
    case rpc::FrameKind::kReply: return "reply";
    case rpc::FrameKind::kError: return "error";
    case rpc::FrameKind::kNotify: return "notify";
  }
  return "frame";
}

}  // namespace

// A descriptor on its way, which is closed if it does not arrive.
struct SentDescriptor {
  explicit SentDescriptor(int from) : fd(::dup(from)) { RAY_CHECK(fd >= 0) << "no descriptor is left"; }
  ~SentDescriptor() { ::close(fd); }
  SentDescriptor(const SentDescriptor&) = delete;
  SentDescriptor& operator=(const SentDescriptor&) = delete;
  const int fd;
};

size_t SimConnection::Message::bytes() const {
  size_t bytes = rpc::kFrameHeaderBytes + control.size();
  for (const BufferPtr& part : parts) bytes += part->size();
  return bytes;
}

SimConnection::SimConnection(SimNetwork* network, Process* process, Process* peer_process, HostId peer_host, uint64_t id,
                             const rpc::Dispatcher* dispatcher)
    : network_(network),
      process_(process),
      peer_host_(peer_host),
      id_(id),
      dispatcher_(dispatcher),
      calls_(std::make_unique<rpc::PendingCalls>(process->loop())),
      peer_process_(peer_process) {}

void SimConnection::Call(MethodId method, const rpc::MessageLite& request, const PartList& parts, rpc::ReplyCallback callback,
                         rpc::CallOptions options) {
  CallRaw(method, request.SerializeAsString(), parts, std::move(callback), options);
}

void SimConnection::CallRaw(MethodId method, std::string_view control, const PartList& parts, rpc::ReplyCallback callback,
                            rpc::CallOptions options) {
  if (calls_ == nullptr) return;
  const uint64_t call = calls_->Add(std::move(callback), options.timeout, lands_ ? std::move(options.landing) : nullptr);
  if (call == 0) return;  // it fails already
  if (closed_) return;    // it fails with the others, in a moment
  Send({Kind::kFrame, rpc::FrameKind::kRequest, method, call, std::string(control), parts, {}});
}

void SimConnection::Notify(MethodId method, const rpc::MessageLite& message, const PartList& parts, bool) {
  NotifyRaw(method, message.SerializeAsString(), parts);
}

void SimConnection::NotifyRaw(MethodId method, std::string_view control, const PartList& parts) {
  if (!closed_) Send({Kind::kFrame, rpc::FrameKind::kNotify, method, 0, std::string(control), parts, {}});
}

void SimConnection::SendReply(MethodId method, uint64_t call_id, rpc::FrameKind kind, std::string_view control,
                              const rpc::MessageLite* message, const PartList& parts, int fd, bool) {
  if (closed_) return;
  Message reply{Kind::kFrame, kind, method, call_id, message != nullptr ? message->SerializeAsString() : std::string(control), parts, {}};
  if (fd >= 0) reply.fd = std::make_shared<SentDescriptor>(fd);
  Send(std::move(reply));
}

void SimConnection::Send(Message message) {
  if (ended_ || !process_->sends()) return;
  network_->Queue(std::static_pointer_cast<SimConnection>(shared_from_this()), std::move(message));
}

void SimConnection::Close(Status reason) {
  if (closed_) return;
  closed_ = true;
  reason_ = reason.ok() ? Status::Unavailable("connection closed") : std::move(reason);
  if (!undialled_.empty() || (!out_.empty() && out_.front().kind == Kind::kOpen)) {  // it was not there yet: nothing of it is repeated
    out_.clear();
    unsent_ = 0;
    ended_ = true;
  }
  Send({Kind::kEnd, {}, {}, 0, {}, {}, {}});
  ended_ = true;
  process_->loop()->Post("connection closed", [self = std::static_pointer_cast<SimConnection>(shared_from_this())] { self->Teardown(); });
}

void SimConnection::Teardown() {
  torn_down_ = true;
  const auto callbacks = std::exchange(on_close_, {});
  calls_->FailAll(Status(StatusCode::kUnavailable, reason_.message(), reason_.cause()));
  for (const auto& callback : callbacks) callback(reason_);
  process_->connections.erase(id_);
}

void SimConnection::OnClose(std::function<void(const Status&)> callback) {
  if (!torn_down_) {
    on_close_.push_back(std::move(callback));
  } else {
    process_->loop()->Post("close callback", [callback = std::move(callback), reason = reason_] { callback(reason); });
  }
}

void SimConnection::Drop() {
  const auto callbacks = std::exchange(on_close_, {});  // their ends may come back here
  const auto calls = std::move(calls_);
}

int64_t SimConnection::peer_pid() const {
  return peer_process_ != nullptr && peer_process_->host() == process_->host() ? peer_process_->pid() : -1;
}

// ---- the network ----

Status SimNetwork::Listen(Process* process, const std::string& address, const rpc::Dispatcher* dispatcher, AcceptCallback on_accept) {
  if (!process->alive()) return Status::Unavailable("the process has ended");
  const auto [it, added] = listeners_.try_emplace(address, Listener{process, dispatcher, std::move(on_accept)});
  if (!added) return Status::AlreadyExists("somebody listens on " + address);
  homes_[address] = process->host();
  Watch(process);
  return Status::Ok();
}

rpc::ConnectionPtr SimNetwork::Connect(Process* process, const std::string& address, const rpc::Dispatcher* dispatcher, bool lands,
                                       rpc::DialFailed on_failed) {
  const auto home = homes_.find(address);
  const HostId host = home == homes_.end() ? process->host() : home->second;
  const auto connection = Add(process, nullptr, host, dispatcher);
  connection->lands_ = lands;
  if (!process->alive()) {
    connection->closed_ = connection->torn_down_ = connection->ended_ = true;
    return connection;
  }
  connection->on_dial_failed_ = std::move(on_failed);
  Dial(connection, address);
  return connection;
}

void SimNetwork::Dial(const std::shared_ptr<SimConnection>& from, const std::string& address) {
  const HostId here = from->process_->host(), there = from->peer_host_;
  SimConnection::Message open;
  open.kind = SimConnection::Kind::kOpen;
  open.control = address;
  open.due = std::max(from->last_due_, world_->now() + Latency(here, there, open.bytes()));
  from->last_due_ = open.due;
  from->unsent_ += open.bytes();
  for (auto& message : from->out_) message.due = std::max(message.due, open.due);
  from->out_.push_front(std::move(open));
  Schedule(from);
  if (!IsCutAnyWay(here, there)) return;
  if (from->on_dial_failed_ == nullptr) return GiveUpLater(from);
  world_->After(world_->random().Between(config_.dial_min, config_.dial_max), [this, from, address] {
    if (from->closed_ || waiting_.erase(from->id()) == 0) return;  // mended in time
    from->unsent_ -= from->out_.front().bytes();
    from->out_.pop_front();
    DialFailed(from, address, kTimedOut);
  });
}

void SimNetwork::DialFailed(const std::shared_ptr<SimConnection>& from, const std::string& address, const Status& why) {
  if (from->closed_ || !from->process_->alive()) return;
  world_->Record("dial failed", {}, from->id());
  from->undialled_ = address;
  from->process_->loop()->Run(
      [this, from, why] {
        if (from->closed_) return;
        from->on_dial_failed_(why, [this, from] {
          if (!from->closed_) Dial(from, std::exchange(from->undialled_, {}));
        });
      },
      from->id());
}

std::shared_ptr<SimConnection> SimNetwork::Add(Process* process, Process* peer, HostId peer_host, const rpc::Dispatcher* dispatcher) {
  auto connection = rpc::MakeConnection<SimConnection>(FaultsOf(process), this, process, peer, peer_host, ++last_id_, dispatcher);
  if (process->alive()) process->connections[connection->id()] = connection;
  Watch(process);
  return connection;
}

void SimNetwork::Watch(Process* process) {
  if (watched_.insert(process->id()).second) process->network_hooks.push_back([this, process](Death death) { OnDeath(process, death); });
}

void SimNetwork::OnDeath(Process* process, Death death) {
  std::erase_if(listeners_, [process](const auto& entry) { return entry.second.process == process; });
  for (const auto& [id, connection] : process->connections) {
    const auto peer = connection->peer_.lock();
    if (death == Death::kHostCrashed || death == Death::kEndOfWorld) {
      connection->out_.clear();
      if (death == Death::kHostCrashed && peer != nullptr && peer->process_->alive()) GiveUpLater(peer);
    } else if (!connection->ended_) {
      // Its kernel sends what it had written, then closes.
      SimConnection::Message end;
      end.kind = SimConnection::Kind::kEnd;
      Queue(connection, std::move(end));
    }
    connection->ended_ = connection->closed_ = true;
    connection->reason_ = Status::Unavailable("this process has ended");
  }
}

Duration SimNetwork::Latency(HostId from, HostId to, size_t bytes) {
  Random& random = world_->random();
  const Duration copying(static_cast<int64_t>(bytes));  // 1 GB/s
  if (from == to) return random.Between(config_.local_min, config_.local_max) + copying;
  Duration latency = random.Between(config_.remote_min, config_.remote_max) + copying;
  if (random.Chance(config_.spike)) latency += random.Between(config_.remote_max, config_.spike_max);
  if (const auto extra = extra_.find(Pair(from, to)); extra != extra_.end()) latency += extra->second;
  return latency;
}

void SimNetwork::Queue(const std::shared_ptr<SimConnection>& from, SimConnection::Message message) {
  const size_t bytes = message.bytes();
  message.due = std::max(from->last_due_, world_->now() + Latency(from->process_->host(), from->peer_host_, bytes));
  from->last_due_ = message.due;
  from->unsent_ += bytes;
  from->out_.push_back(std::move(message));
  Schedule(from);
}

void SimNetwork::Schedule(const std::shared_ptr<SimConnection>& from) {
  if (from->delivery_scheduled_ || from->out_.empty() || waiting_.contains(from->id()) || !from->undialled_.empty()) return;
  from->delivery_scheduled_ = true;
  world_->At(from->out_.front().due, [this, from] {
    from->delivery_scheduled_ = false;
    Deliver(from);
  });
}

// Nobody is connected, or told that the peer is gone, who cannot be answered.
bool SimNetwork::IsHeldUp(const SimConnection& from) const {
  const HostId here = from.process_->host(), there = from.peer_host_;
  if (IsCut(here, there)) return true;
  if (!IsCut(there, here) || from.out_.empty()) return false;
  const auto to = from.peer_.lock();
  return from.out_.front().kind == SimConnection::Kind::kOpen || to == nullptr || !to->process_->alive();
}

void SimNetwork::Deliver(const std::shared_ptr<SimConnection>& from) {
  if (from->out_.empty()) return;  // lost since
  if (IsHeldUp(*from)) {
    waiting_[from->id()] = from;
    return;
  }
  SimConnection::Message message = std::move(from->out_.front());
  from->out_.pop_front();
  from->unsent_ -= message.bytes();
  if (message.kind == SimConnection::Kind::kOpen) {
    Accept(from, message.control);
  } else if (const auto to = from->peer_.lock(); to != nullptr && to->process_->alive()) {
    TakeIn(to, &message);
    Receive(to, std::move(message));
  } else if (!from->closed_) {
    world_->After(Latency(from->peer_host_, from->process_->host(), 0), [from] {
      if (from->process_->alive()) from->process_->loop()->Run([from] { from->Close(kReset); }, from->id());
    });
  }
  Schedule(from);
}

// The kernel has it: its parts have memory of the receiver, and the sender's goes. Also where the process stands still.
void SimNetwork::TakeIn(const std::shared_ptr<SimConnection>& to, SimConnection::Message* message) {
  PartList parts = std::exchange(message->parts, {});
  std::shared_ptr<Landing> landing;
  if (to->lands_ && message->frame == rpc::FrameKind::kReply && parts.size() == 1 && to->calls_ != nullptr)
    landing = to->calls_->LandingOf(message->call_id);
  for (const BufferPtr& part : parts) {
    if (landing != nullptr && landing->size() == part->size() && !landing->revoked()) {
      std::memcpy(landing->mutable_data(), part->data(), part->size());
      message->parts.push_back(landing);
    } else {
      message->parts.push_back(HeapBuffer::CopyOf(part->view()));
    }
  }
}

void SimNetwork::Accept(const std::shared_ptr<SimConnection>& from, const std::string& address) {
  const auto listener = listeners_.find(address);
  if (listener == listeners_.end()) {
    world_->Record("refused", {}, from->id());
    if (from->on_dial_failed_ != nullptr) {
      from->undialled_ = address;
      world_->After(Latency(from->peer_host_, from->process_->host(), 0),
                    [this, from, address] { DialFailed(from, address, Status::Unavailable("nobody listens there")); });
      return;
    }
    from->out_.clear();
    from->unsent_ = 0;
    world_->After(Latency(from->peer_host_, from->process_->host(), 0), [from] {
      from->process_->loop()->Run([from] { from->Close(Status::Unavailable("nobody listens there")); }, from->id());
    });
    return;
  }
  from->on_dial_failed_ = nullptr;
  Process* server = listener->second.process;
  const auto to = Add(server, from->process_, from->process_->host(), listener->second.dispatcher);
  to->peer_ = from;
  to->lands_ = from->lands_;
  from->peer_ = to;
  from->peer_process_ = server;
  world_->Record("accepts", {}, from->id(), to->id());
  // Behind what stands still, and before what follows on the connection.
  if (listener->second.on_accept) server->loop()->Run([to, accept = listener->second.on_accept] { accept(to); }, to->id());
}

void SimNetwork::Receive(const std::shared_ptr<SimConnection>& to, SimConnection::Message message) {
  to->process_->loop()->Run(
      [this, to, message = std::make_shared<SimConnection::Message>(std::move(message))] {
        if (to->closed_) return;
        if (message->kind == SimConnection::Kind::kEnd) {
          world_->Record("peer closed", {}, to->id());
          to->Close(Status::Unavailable("the peer closed the connection"));
          return;
        }
        world_->Record(KindName(message->frame).data(), MethodName(message->method), to->id(), Trace::HashOf(message->control),
                       message->method == MethodId::kLinkProbe);
        rpc::FrameHeader header;
        header.call_id = message->call_id;
        header.method = static_cast<uint16_t>(message->method);
        header.kind = message->frame;
        const int fd = message->fd != nullptr ? ::dup(message->fd->fd) : -1;
        rpc::DeliverFrame(header, message->control, std::move(message->parts), fd, to, *to->dispatcher_, to->calls_.get());
      },
      to->id());
}

// ---- faults ----

void SimNetwork::GiveUpLater(const std::shared_ptr<SimConnection>& end) {
  world_->After(world_->random().Between(config_.keep_alive_min, config_.keep_alive_max), [this, end] {
    if (end->closed_ || !end->process_->alive() || end->on_dial_failed_ != nullptr) return;
    const auto peer = end->peer_.lock();
    const bool peer_lives = peer != nullptr && peer->process_->alive();
    const bool cut = IsCutAnyWay(end->process_->host(), end->peer_host_);
    if (!cut && (peer_lives || (peer == nullptr && end->peer_process_ == nullptr))) return;  // mended in time
    world_->Record("gives up", {}, end->id());
    end->process_->loop()->Run([end] { end->Close(kTimedOut); }, end->id());
  });
}

std::vector<std::shared_ptr<SimConnection>> SimNetwork::Ends(HostId host, HostId peer) const {
  std::vector<std::shared_ptr<SimConnection>> ends;
  for (const auto& process : world_->processes()) {
    if (!process->alive() || process->host() != host) continue;
    for (const auto& [id, connection] : process->connections) {
      if (connection->peer_host_ == peer) ends.push_back(connection);
    }
  }
  return ends;
}

void SimNetwork::Cut(HostId a, HostId b) {
  if (a == b || cuts_.contains({a, b}) + cuts_.contains({b, a}) == 2) return;
  cuts_.insert({a, b});
  cuts_.insert({b, a});
  world_->Record("cut", {}, a, b);
  NoticeCut(a, b);
}

void SimNetwork::CutOneWay(HostId from, HostId to) {
  if (from == to || !cuts_.insert({from, to}).second) return;
  world_->Record("cut one way", {}, from, to);
  NoticeCut(from, to);
}

void SimNetwork::NoticeCut(HostId a, HostId b) {
  for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
    for (const auto& end : Ends(from, to)) GiveUpLater(end);
  }
}

void SimNetwork::SetDown(HostId host, bool down) {
  if (down) {
    down_.insert(host);
  } else if (down_.erase(host) != 0) {
    Resume();
  }
}

void SimNetwork::Mend(HostId a, HostId b) {
  if (cuts_.erase({a, b}) + cuts_.erase({b, a}) == 0) return;
  world_->Record("mend", {}, a, b);
  Resume();
}

// What waited is repeated, some time later.
void SimNetwork::Resume() {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const auto connection = it->second;
    const HostId here = connection->process_->host(), there = connection->peer_host_;
    if (IsHeldUp(*connection)) {
      ++it;
      continue;
    }
    it = waiting_.erase(it);
    const Time due = world_->now() + Latency(here, there, 0) + world_->random().Between(Duration::zero(), kMaxRepeat);
    connection->last_due_ = std::max(connection->last_due_, due);
    for (auto& message : connection->out_) message.due = std::max(message.due, due);
    Schedule(connection);
  }
}

void SimNetwork::MendAll() {
  for (const auto& [a, b] : std::set(cuts_)) Mend(a, b);
}

void SimNetwork::BreakConnections(HostId a, HostId b) {
  world_->Record("break", {}, a, b);
  auto ends = Ends(a, b);
  if (a != b) {
    for (auto& end : Ends(b, a)) ends.push_back(std::move(end));
  }
  for (const auto& end : ends) {
    end->out_.clear();
    end->unsent_ = 0;
    end->ended_ = true;
    world_->After(Latency(a, b, 0), [end] {
      if (end->process_->alive()) end->process_->loop()->Run([end] { end->Close(kReset); }, end->id());
    });
  }
}

// ---- single messages ----

rpc::FaultConfig SimNetwork::DrawMessageFaults() {
  rpc::FaultConfig faults = message_faults_;
  if (!faults.empty()) faults.seed = world_->random().Next();
  return faults;
}

void SimNetwork::Use(Process* process, std::shared_ptr<rpc::FaultInjector> faults) {
  process->faults = std::move(faults);
  if (process->faults == nullptr) return;
  injectors_.push_back(process->faults);
  if (messages_fare_well_) process->faults->Stop();
}

const std::shared_ptr<rpc::FaultInjector>& SimNetwork::FaultsOf(Process* process) {
  if (process->faults == nullptr && !message_faults_.empty() && process->alive())
    Use(process, std::make_shared<rpc::FaultInjector>(DrawMessageFaults(), process->loop()));
  return process->faults;
}

void SimNetwork::StopMessageFaults() {
  messages_fare_well_ = true;
  for (const auto& faults : injectors_) faults->Stop();
}

uint64_t SimNetwork::num_message_faults() const {
  uint64_t sum = 0;
  for (const auto& faults : injectors_) {
    const rpc::FaultCore::Counts counts = faults->counts();
    sum += counts.lost + counts.duplicated + counts.delayed + counts.overtaken + counts.broken;
  }
  return sum;
}

}  // namespace ray::sim
