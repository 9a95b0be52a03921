#include "ray/testing/workload/actor_calls.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <type_traits>
#include <utility>

#include "ray/core_worker/execute/run_queue_core.h"
#include "ray/core_worker/submit/actor_queue_core.h"
#include "ray/util/logging.h"

namespace ray::sim {
namespace {

constexpr Duration kReconnect = std::chrono::milliseconds(100);
constexpr Duration kLastWords = std::chrono::seconds(1);

struct CallFrame {
  CallId call;
  uint64_t epoch = 0, sequence = 0;
};

template <typename T>
std::string Encode(const T& value) {
  static_assert(std::has_unique_object_representations_v<T>, "the same bytes in every run");
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

template <typename T>
T Decode(std::string_view bytes) {
  RAY_CHECK(bytes.size() == sizeof(T));
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

std::string AddressOf(uint64_t incarnation) { return "actor" + std::to_string(incarnation); }

// The actor's process: runs what its queue lets it run, one call at a time.
class ActorProgram {
 public:
  ActorProgram(Process* process, const ActorCallsConfig& config, uint64_t incarnation, ActorHistory* history)
      : process_(process), config_(config), history_(history), random_(process->world()->random().Fork()) {
    place_.incarnation = incarnation;
    dispatcher_.Register(MethodId::kPushTask,
                         [this](rpc::Request request, rpc::Responder responder) { OnPush(request, std::move(responder)); });
  }
  const rpc::Dispatcher* dispatcher() const { return &dispatcher_; }

 private:
  struct Run {
    CallId call;
    rpc::Responder responder;
  };

  void OnPush(const rpc::Request& request, rpc::Responder responder) {
    const uint64_t connection = request.connection->id();
    if (connections_.insert(connection).second) {
      request.connection->OnClose([this, connection](const Status&) {
        for (const core::RunNo run : queue_.DropCaller(connection)) runs_.erase(run);
        connections_.erase(connection);
      });
    }
    const auto frame = Decode<CallFrame>(request.control);
    const core::RunNo run = ++last_run_;
    const bool ready = !random_.Chance(0.1);
    // What was sent twice is not answered here: the responder's end tells.
    if (!queue_.AddCall(run, connection, frame.epoch, frame.sequence, "", /*out_of_order=*/false, ready)) return;
    runs_.emplace(run, Run{frame.call, std::move(responder)});
    if (!ready) {
      process_->loop()->AddTimer(random_.Between(Duration::zero(), config_.max_late), [this, run] {
        queue_.SetReady(run);
        RunNext();
      });
    }
    RunNext();
  }

  void RunNext() {
    while (const auto run = queue_.Next()) {
      process_->loop()->AddTimer(random_.Between(Duration::zero(), config_.max_run), [this, run = *run] {
        auto node = runs_.extract(run);
        RAY_CHECK(!node.empty()) << "a call that runs was forgotten";
        history_->Executed(node.mapped().call, place_, process_->world()->now());
        node.mapped().responder.SendRaw(Encode(place_), {});
        ++place_.index;
        queue_.Finished(run);
        RunNext();
      });
    }
  }

  Process* const process_;
  const ActorCallsConfig config_;
  ActorHistory* const history_;
  Random random_;
  rpc::Dispatcher dispatcher_;
  core::RunQueueCore queue_;
  LogPlace place_;  // of the next entry
  core::RunNo last_run_ = 0;
  std::map<core::RunNo, Run> runs_;
  std::set<uint64_t> connections_;
};

}  // namespace

// A caller's process.
class CallerProgram {
 public:
  CallerProgram(SimNetwork* network, Process* process, uint32_t id, const ActorCallsConfig& config, ActorHistory* history)
      : network_(network), process_(process), id_(id), config_(config), history_(history), random_(process->world()->random().Fork()) {}

  void SubmitLater() {
    if (made_ == config_.calls) return;
    const Duration pause = random_.Chance(0.5) ? Duration::zero() : random_.Between(Duration::zero(), config_.max_pause);
    process_->loop()->AddTimer(pause, [this] {
      Submit();
      SubmitLater();
    });
  }
  bool Done() const { return made_ == config_.calls && queue_.pending() == 0; }

  void OnAlive(uint64_t incarnation) {
    address_ = AddressOf(incarnation);
    Handle([&](core::ActorEffects* out) { queue_.OnAlive(incarnation, /*moved=*/false, out); });
  }
  void OnRestarting(uint64_t incarnation) {
    Handle([&](core::ActorEffects* out) { queue_.OnRestarting(incarnation, /*moved=*/false, out); });
  }
  void OnDead() {
    Handle([&](core::ActorEffects* out) { queue_.OnDead(out); });
  }

 private:
  void Submit() {
    const uint64_t number = made_++;
    const int32_t retries = random_.Chance(0.1) ? -1 : static_cast<int32_t>(random_.Below(static_cast<uint64_t>(config_.max_retries) + 1));
    const bool ready = !random_.Chance(0.1);
    history_->Submitted({id_, number}, retries, process_->world()->now());
    Handle([&](core::ActorEffects* out) { queue_.Submit(number, ready, /*out_of_order=*/false, retries, /*charged=*/false, out); });
    if (ready) return;
    process_->loop()->AddTimer(random_.Between(Duration::zero(), config_.max_late),
                               [this, number] { Handle([&](core::ActorEffects* out) { queue_.Ready(number, out); }); });
  }

  template <typename Event>
  void Handle(Event event) {
    core::ActorEffects effects;
    event(&effects);
    bool connect = false;
    for (const core::ActorEffect& e : effects) {
      switch (e.kind) {
        case core::ActorEffect::kConnect: connect = true; break;
        case core::ActorEffect::kSend: Send(e); break;
        case core::ActorEffect::kRetried: break;
        case core::ActorEffect::kFailUnavailable: Settle(e.call, CallOutcome::kUnavailable, {}); break;
        case core::ActorEffect::kFailDead: Settle(e.call, CallOutcome::kDead, {}); break;
        case core::ActorEffect::kAwaitEnd:
          process_->loop()->AddTimer(kLastWords, [connection = connection_] { connection->Close(Status::Unavailable("gone")); });
          break;
      }
    }
    if (connect) Connect();
  }

  void Send(const core::ActorEffect& e) {
    connection_->CallRaw(MethodId::kPushTask, Encode(CallFrame{{id_, e.call}, e.epoch, e.sequence}), {},
                         [this, connection = connection_, e](const Status& status, const rpc::Reply& reply) {
                           if (status.code() == StatusCode::kUnavailable && connection->closed()) return OnLost(e.epoch);
                           if (!queue_.Answered(e.epoch, e.sequence)) return;
                           if (status.ok()) {
                             Settle(e.call, CallOutcome::kDone, Decode<LogPlace>(reply.control));
                           } else {
                             Settle(e.call, CallOutcome::kUnavailable, {});
                           }
                         },
                         {});
  }

  void Settle(core::CallNo call, CallOutcome outcome, LogPlace place) {
    history_->Settled({id_, call}, outcome, place, process_->world()->now());
  }

  void Connect() {
    if (queue_.phase() != core::ActorPhase::kDisconnected) return;
    if (!network_->IsListening(address_)) return ReconnectLater();  // refused
    connection_ = network_->Connect(process_, address_, &dispatcher_);
    Handle([&](core::ActorEffects* out) { queue_.Connected(out); });
    connection_->OnClose([this, epoch = queue_.epoch()](const Status&) { OnLost(epoch); });
  }

  void OnLost(uint64_t epoch) {
    Handle([&](core::ActorEffects* out) { queue_.ConnectionLost(epoch, out); });
    ReconnectLater();
  }

  void ReconnectLater() {
    if (reconnecting_ || queue_.phase() != core::ActorPhase::kDisconnected) return;
    reconnecting_ = true;
    process_->loop()->AddTimer(kReconnect, [this] {
      reconnecting_ = false;
      Connect();
    });
  }

  SimNetwork* const network_;
  Process* const process_;
  const uint32_t id_;
  const ActorCallsConfig config_;
  ActorHistory* const history_;
  Random random_;
  rpc::Dispatcher dispatcher_;
  core::ActorQueueCore queue_;
  std::string address_;
  rpc::ConnectionPtr connection_;
  bool reconnecting_ = false;
  uint64_t made_ = 0;
};

ActorCluster::ActorCluster(World* world, SimNetwork* network, ActorCallsConfig config)
    : world_(world), network_(network), config_(config), random_(world->random().Fork()) {}

void ActorCluster::Start() {
  for (uint32_t i = 0; i < config_.callers; ++i) {
    Caller caller;
    caller.process = world_->NewProcess("caller" + std::to_string(i), i + 1);
    const auto program = std::make_shared<CallerProgram>(network_, caller.process, i, config_, &history_);
    caller.program = program.get();
    caller.process->Own(program);
    caller.process->Run([&] { program->SubmitLater(); });
    callers_.push_back(caller);
  }
  StartActor();
}

void ActorCluster::StartActor() {
  actor_ = world_->NewProcess("actor", kActorHost);
  const auto program = std::make_shared<ActorProgram>(actor_, config_, incarnation_, &history_);
  actor_->Own(program);
  actor_->OnDeath([this](int) { OnActorDeath(); });
  actor_->Run([&] { RAY_CHECK(network_->Listen(actor_, AddressOf(incarnation_), program->dispatcher()).ok()); });
  Tell(News::kAlive);
}

void ActorCluster::OnActorDeath() {
  if (incarnation_ == config_.max_restarts) return Tell(News::kDead);
  ++incarnation_;
  Tell(News::kRestarting);
  world_->After(random_.Between(Duration::zero(), config_.max_restart), [this] { StartActor(); });
}

void ActorCluster::Tell(News news) {
  for (size_t i = 0; i < callers_.size(); ++i) {
    Time& told = callers_[i].told;
    told = std::max(told, world_->now() + random_.Between(Duration::zero(), config_.max_news));
    const auto tell = [this, i, news, incarnation = incarnation_] {
      const Caller& caller = callers_[i];
      if (!caller.process->alive()) return;
      caller.process->Run([program = caller.program, news, incarnation] {
        switch (news) {
          case News::kAlive: return program->OnAlive(incarnation);
          case News::kRestarting: return program->OnRestarting(incarnation);
          case News::kDead: return program->OnDead();
        }
      });
    };
    world_->At(told, tell);
    told = told + Duration(1);  // what is due at the same time has no order
    // Subscribers that come back are told the present state again.
    if (random_.Chance(0.2)) {
      world_->At(told, tell);
      told = told + Duration(1);
    }
  }
}

void ActorCluster::KillActor() {
  if (actor_->alive()) actor_->Kill(Death::kKilled);
}

void ActorCluster::KillCaller(uint32_t caller) {
  history_.CallerDied(caller);
  callers_[caller].process->Kill(Death::kKilled);
}

bool ActorCluster::Done() const {
  return std::ranges::all_of(callers_, [](const Caller& c) { return !c.process->alive() || c.program->Done(); });
}

}  // namespace ray::sim
