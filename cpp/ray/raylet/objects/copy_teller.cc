#include "ray/raylet/objects/copy_teller.h"

#include <algorithm>
#include <utility>

#include "ray/common/errors.h"
#include "ray/v1/worker_object.pb.h"

namespace ray::raylet {

using object_manager::CopyNoticeConfig;
using object_manager::NoticeWanted;

namespace {

constexpr Duration kAnswerTimeout = std::chrono::seconds(30);
constexpr Duration kIdle = std::chrono::seconds(10);
// Each copy is a message; they leave together.
constexpr size_t kMaxCopies = 256;

}  // namespace

// Copies that an owner is told of at a time: heard when all are.
struct CopyTeller::Batch {
  size_t open = 0;
  bool lost = false, ended = false;
};

CopyTeller::CopyTeller(Deps deps)
    : deps_(std::move(deps)),
      core_(CopyNoticeConfig{.max_copies = kMaxCopies}),
      timer_(deps_.loop,
             [this] {
               core_.OnTimer(Now(), &out_);
               Run();
             }),
      idle_timer_(deps_.loop, [this] { CloseIdle(); }) {}

void CopyTeller::Stop() {
  if (!std::exchange(*alive_, false)) return;
  timer_.Cancel();
  idle_timer_.Cancel();
  ways_.clear();
}

void CopyTeller::Tell(const Address& owner, const CopyRun& copy) {
  if (!*alive_) return;
  const Address to{owner.node_id.IsNil() ? deps_.self : owner.node_id, owner.worker_id};
  core_.Add(to, {&copy, 1}, Now(), &out_);
  Run();
}

void CopyTeller::OnNodeDead(const NodeId& node) { core_.OnNodeDead(node); }

void CopyTeller::Run() {
  while (!out_.empty()) {
    for (const NoticeWanted& effect : std::exchange(out_, {})) Send(effect);
  }
  timer_.Arm(core_.NextDeadline());
}

rpc::ConnectionPtr CopyTeller::ConnectionTo(const Address& owner, bool* ended) {
  if (owner == RayletAsProcess(owner.node_id)) return deps_.raylet(owner.node_id);
  if (owner.node_id == deps_.self) {
    rpc::ConnectionPtr process = deps_.process(owner.worker_id);
    *ended = process == nullptr;
    return process;
  }
  Way& way = ways_[owner.worker_id];
  if (way.connection == nullptr || way.connection->closed()) way = {deps_.connect(owner), owner, {}};
  way.used = Now();
  idle_timer_.Arm(way.used + kIdle);
  return way.connection;
}

void CopyTeller::Send(const NoticeWanted& effect) {
  if (effect.to == RayletAsProcess(deps_.self)) {
    for (const CopyRun& copy : effect.copies) deps_.adopted(copy);
    return core_.OnAnswer(effect.to, effect.call, /*confirmed=*/true, Now(), &out_);
  }
  bool ended = false;
  const rpc::ConnectionPtr connection = ConnectionTo(effect.to, &ended);
  if (ended) return core_.OnEnded(effect.to);
  if (connection == nullptr) return core_.OnAnswer(effect.to, effect.call, /*confirmed=*/false, Now(), &out_);
  v1::AddLocationNotice message;
  message.set_node_id(deps_.self.Binary());
  rpc::CallOptions options;
  options.timeout = kAnswerTimeout;
  options.corked = true;
  const auto batch = std::make_shared<Batch>(Batch{.open = effect.copies.size()});
  for (const CopyRun& copy : effect.copies) {
    message.set_object_id(copy.id.data(), ObjectId::kSize);
    message.set_attempt(copy.attempt);
    connection->Call(
        MethodId::kAddLocation, message, {},
        [this, batch, to = effect.to, call = effect.call, alive = alive_](const Status& status, const rpc::Reply&) {
          // One of an older version has no answer to give, and its error says as much: it has heard.
          const StatusCode code = status.code();
          const bool lost =
              code == StatusCode::kUnavailable || code == StatusCode::kDeadlineExceeded || code == StatusCode::kResourceExhausted;
          batch->lost = batch->lost || lost;
          batch->ended = batch->ended || (lost && status.cause() == static_cast<int32_t>(ErrorType::kWorkerDied));
          if (--batch->open == 0 && *alive) OnAnswers(to, call, !batch->lost, batch->ended);
        },
        options);
  }
  connection->Flush();
}

void CopyTeller::OnAnswers(const Address& owner, uint64_t call, bool confirmed, bool ended) {
  if (ended) {
    core_.OnEnded(owner);
  } else {
    core_.OnAnswer(owner, call, confirmed, Now(), &out_);
  }
  Run();
}

void CopyTeller::CloseIdle() {
  std::erase_if(ways_, [this](const auto& entry) {
    const Way& way = entry.second;
    if (core_.Tells(way.owner) || way.used + kIdle > Now()) return way.connection->closed();
    way.connection->Close(Status::Cancelled("all was said"));
    return true;
  });
  if (ways_.empty()) return;
  const auto oldest = std::ranges::min_element(ways_, {}, [](const auto& entry) { return entry.second.used; });
  idle_timer_.Arm(std::max(oldest->second.used + kIdle, Now() + std::chrono::seconds(1)));
}

}  // namespace ray::raylet
