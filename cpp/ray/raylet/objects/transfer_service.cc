#include "ray/raylet/objects/transfer_service.h"

#include <algorithm>
#include <utility>

#include "ray/util/logging.h"

namespace ray::raylet {

using namespace object_manager;  // NOLINT(google-build-using-namespace): the effects of both cores

namespace {

constexpr Duration kNoticeTimeout = std::chrono::seconds(30);

// A chunk on its way out; tells when the link has let go of it.
class OutgoingChunk final : public Buffer {
 public:
  OutgoingChunk(BufferPtr base, uint64_t offset, uint64_t length, std::function<void()> sent)
      : Buffer(base->data() + offset, length), base_(std::move(base)), sent_(std::move(sent)) {}
  ~OutgoingChunk() override { sent_(); }

 private:
  const BufferPtr base_;
  const std::function<void()> sent_;
};

PullPriority PriorityOf(v1::PullReason reason) {
  switch (reason) {
    case v1::PULL_REASON_WAIT: return PullPriority::kWait;
    case v1::PULL_REASON_TASK_ARGUMENT: return PullPriority::kTaskArgument;
    default: return PullPriority::kGet;
  }
}

}  // namespace

TransferService::TransferService(Deps deps, const PullConfig& pull, const PushConfig& push, std::unique_ptr<TaskRunner> copier)
    : deps_(std::move(deps)),
      stall_(pull.stall),
      give_up_(pull.give_up),
      copier_(copier != nullptr ? std::move(copier) : std::make_unique<TaskThread>("transfer")),
      pull_(pull),
      push_(push),
      timer_(deps_.loop, [this] { OnTick(); }),
      notice_timer_(deps_.loop, [this] {
        for (Notices* notices : {&frees_, &keeps_}) {
          notices->core.OnTimer(Now(), &notices->out);
          SendNotices(notices);
        }
      }) {}

TransferService::~TransferService() { Stop(); }

void TransferService::Stop() {
  if (!std::exchange(*alive_, false)) return;
  copier_->Stop();
  timer_.Cancel();
  notice_timer_.Cancel();
  for (auto& [want, pull] : pulls_) {
    if (pull.responder.valid()) pull.responder.Fail(Status::Cancelled("this node is stopping"));
  }
  for (auto& [serve, responder] : serving_) responder.Fail(Status::Unavailable("this node is stopping"));
  pulls_.clear();
  serving_.clear();
  for (const auto& [fetch, landing] : landings_) landing->Revoke();
  landings_.clear();
  pinned_.clear();
  receiving_.clear();
}

void TransferService::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::PullObjectRequest>(MethodId::kPullObject,
                                                   [this](const v1::PullObjectRequest& m, rpc::Request& request, rpc::Responder responder) {
                                                     HandlePull(m, request, std::move(responder));
                                                   });
  dispatcher->RegisterTyped<v1::CancelPullNotice>(
      MethodId::kCancelPull,
      [this](const v1::CancelPullNotice& m, rpc::Request& request, rpc::Responder) { CancelPull(request.connection->id(), m.pull_id()); });
  dispatcher->RegisterTyped<v1::FetchChunkRequest>(
      MethodId::kFetchChunk,
      [this](const v1::FetchChunkRequest& m, rpc::Request&, rpc::Responder responder) { HandleFetch(m, std::move(responder)); });
  dispatcher->RegisterTyped<v1::LeaveObjectNotice>(
      MethodId::kLeaveObject, [this](const v1::LeaveObjectNotice& m, rpc::Request&, rpc::Responder) {
        push_.OnLeft(NodeId::FromBinaryOrNil(m.node_id()), ObjectId::FromBinaryOrNil(m.object_id()), &pushes_out_);
        Settle();
      });
  dispatcher->RegisterTyped<v1::FindSpilledRequest>(
      MethodId::kFindSpilled,
      [this](const v1::FindSpilledRequest& m, rpc::Request&, rpc::Responder responder) { HandleFindSpilled(m, std::move(responder)); });
  for (MethodId method : {MethodId::kFreeCopies, MethodId::kKeepCopies}) {
    dispatcher->RegisterTyped<v1::CopiesNotice>(method, [this, method](const v1::CopiesNotice& m, rpc::Request&, rpc::Responder responder) {
      HandleCopies(method, m, std::move(responder));
    });
  }
}

void TransferService::Want(PullRequest request, Wanted wanted, Pull pull) {
  const auto [it, is_new] = wanted_.try_emplace(request.id, wanted);
  request.attempt = wanted.attempt;
  if (!is_new && wanted.attempt >= it->second.attempt) it->second = std::move(wanted);  // of two runs the later counts, as in the core
  pulls_.emplace(request.want, std::move(pull));
  pull_.Want(std::move(request), Now(), &pulls_out_);
}

void TransferService::HandlePull(const v1::PullObjectRequest& message, rpc::Request& request, rpc::Responder responder) {
  PullRequest pull;
  pull.want = ++last_want_;
  pull.id = ObjectId::FromBinaryOrNil(message.object_id());
  pull.size = message.size();
  pull.priority = PriorityOf(message.reason());
  for (const std::string& node : message.node_ids()) pull.nodes.push_back(NodeId::FromBinaryOrNil(node));
  const uint64_t connection = request.connection->id();
  if (watched_.insert(connection).second) {
    request.connection->OnClose([this, connection, alive = alive_](const Status&) {
      if (*alive) OnRequesterGone(connection);
    });
  }
  by_caller_[{connection, message.pull_id()}] = pull.want;
  Pull waiter{std::move(responder),
              connection,
              message.pull_id(),
              pull.id,
              nullptr,
              message.keep(),
              message.by_owner() ? std::optional(message.attempt()) : std::nullopt};
  Want(std::move(pull),
       {message.metadata(),
        {NodeId::FromBinaryOrNil(message.owner_node_id()), WorkerId::FromBinaryOrNil(message.owner_worker_id())},
        message.attempt()},
       std::move(waiter));
  Settle();
}

void TransferService::Save(const CopyToSave& copy, std::function<void(const Status&)> done) {
  PullRequest pull;
  pull.want = ++last_want_;
  pull.id = copy.id;
  pull.size = copy.size;
  pull.priority = PullPriority::kTaskArgument;  // nobody waits for it
  pull.nodes = copy.nodes;
  Want(std::move(pull), {copy.metadata, copy.owner, copy.attempt}, Pull{{}, 0, 0, copy.id, std::move(done), /*keep=*/true});
  Settle();
}

std::shared_ptr<void> TransferService::Prefetch(std::vector<CopyToSave> copies) {
  const object_manager::StoreStats stats = deps_.store->Stats();
  uint64_t room = stats.capacity / 5 * 4;  // where spilling begins
  room -= std::min(room, stats.used + pull_.active_bytes());
  std::vector<WantNo> wants;
  for (CopyToSave& copy : copies) {
    if (copy.size > room) continue;
    room -= copy.size;
    PullRequest pull;
    pull.want = ++last_want_;
    pull.id = copy.id;
    pull.size = copy.size;
    pull.priority = PullPriority::kTaskArgument;
    pull.nodes = copy.nodes;
    wants.push_back(pull.want);
    Want(std::move(pull), {copy.metadata, copy.owner, copy.attempt}, Pull{{}, 0, 0, copy.id, [](const Status&) {}});
  }
  Settle();
  return {nullptr, [this, alive = alive_, wants = std::move(wants)](void*) {
            if (!*alive) return;
            for (const WantNo want : wants) CancelWant(want);
            Settle();
          }};
}

void TransferService::CancelWant(WantNo want) {
  pull_.Cancel(want, Now(), &pulls_out_);
  if (const auto node = pulls_.extract(want); node && !pull_.Wants(node.mapped().id)) wanted_.erase(node.mapped().id);
}

void TransferService::CancelPull(uint64_t connection, uint64_t pull_id) {
  auto it = by_caller_.find({connection, pull_id});
  if (it == by_caller_.end()) return;
  const WantNo want = it->second;
  by_caller_.erase(it);
  pull_.Cancel(want, Now(), &pulls_out_);
  if (auto node = pulls_.extract(want)) {
    node.mapped().responder.Fail(Status::Cancelled("the pull was cancelled"));
    if (!pull_.Wants(node.mapped().id)) wanted_.erase(node.mapped().id);
  }
  Settle();
}

void TransferService::OnRequesterGone(uint64_t connection) {
  watched_.erase(connection);
  auto it = by_caller_.lower_bound({connection, 0});
  std::vector<uint64_t> ids;
  for (; it != by_caller_.end() && it->first.first == connection; ++it) ids.push_back(it->first.second);
  for (uint64_t id : ids) CancelPull(connection, id);
}

void TransferService::HandleFetch(const v1::FetchChunkRequest& message, rpc::Responder responder) {
  const ServeNo serve = ++last_serve_;
  serving_.emplace(serve, std::move(responder));
  push_.OnRequest(
      {serve, NodeId::FromBinaryOrNil(message.node_id()), ObjectId::FromBinaryOrNil(message.object_id()), message.offset(),
       message.length(), message.insist(), message.depth(), message.has_attempt() ? std::optional(message.attempt()) : std::nullopt},
      Now(), &pushes_out_);
  Settle();
}

void TransferService::HandleFindSpilled(const v1::FindSpilledRequest& message, rpc::Responder responder) {
  std::vector<ObjectId> ids;
  for (const std::string& id : message.object_ids()) ids.push_back(ObjectId::FromBinaryOrNil(id));
  deps_.store->FindSpilled(std::move(ids), [loop = deps_.loop, held = std::make_shared<rpc::Responder>(std::move(responder))](
                                               const std::vector<ObjectId>& spilled) {
    loop->Post("transfer.spilled", [held, spilled] {
      v1::FindSpilledReply reply;
      for (const ObjectId& id : spilled) reply.add_object_ids(id.data(), ObjectId::kSize);
      held->Send(reply);
    });
  });
}

void TransferService::HandleCopies(MethodId method, const v1::CopiesNotice& message, rpc::Responder responder) {
  for (const auto& node : message.nodes()) {
    std::vector<CopyRun> copies;
    copies.reserve(static_cast<size_t>(node.object_ids_size()));
    for (int i = 0; i < node.object_ids_size(); ++i) {
      copies.push_back({ObjectId::FromBinaryOrNil(node.object_ids(i)), i < node.attempts_size() ? node.attempts(i) : CopyRun::kAny});
    }
    const NodeId to = NodeId::FromBinaryOrNil(node.node_id());
    if (method == MethodId::kFreeCopies) {
      Free(to, std::move(copies));
    } else {
      Keep(to, std::move(copies));
    }
  }
  if (responder.valid()) responder.Send(v1::TransferEmpty());
}

void TransferService::Free(const NodeId& node, std::vector<CopyRun> copies) {
  if (node == deps_.self) return deps_.store->Free(std::move(copies));
  frees_.core.Add({node, WorkerId()}, copies, Now(), &frees_.out);
  SendNotices(&frees_);
}

void TransferService::Keep(const NodeId& node, std::vector<CopyRun> copies) {
  if (node == deps_.self) return deps_.store->Keep(std::move(copies));
  keeps_.core.Add({node, WorkerId()}, copies, Now(), &keeps_.out);
  SendNotices(&keeps_);
}

void TransferService::SendNotices(Notices* notices) {
  while (!notices->out.empty()) {
    for (const NoticeWanted& effect : std::exchange(notices->out, {})) {
      const rpc::ConnectionPtr link = deps_.link(effect.to.node_id);
      if (link == nullptr) {
        notices->core.OnAnswer(effect.to, effect.call, /*confirmed=*/false, Now(), &notices->out);
        continue;
      }
      v1::CopiesNotice message;
      auto* node = message.add_nodes();
      node->set_node_id(effect.to.node_id.Binary());
      node->mutable_object_ids()->Reserve(static_cast<int>(effect.copies.size()));
      node->mutable_attempts()->Reserve(static_cast<int>(effect.copies.size()));
      for (const CopyRun& copy : effect.copies) {
        node->add_object_ids(copy.id.data(), ObjectId::kSize);
        node->add_attempts(copy.attempt);
      }
      rpc::CallOptions options;
      options.timeout = kNoticeTimeout;
      rpc::CallTyped<v1::TransferEmpty>(
          *link, notices->method, message, {},
          [this, notices, to = effect.to, call = effect.call, alive = alive_](const Status& status, const v1::TransferEmpty&,
                                                                              const PartList&) {
            if (!*alive) return;
            // One of an older version has no answer to give, and its error says as much: it has got the message.
            const bool lost = status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kDeadlineExceeded;
            notices->core.OnAnswer(to, call, !lost, Now(), &notices->out);
            SendNotices(notices);
          },
          options);
    }
  }
  notice_timer_.Arm(std::min(frees_.core.NextDeadline(), keeps_.core.NextDeadline()));
}

void TransferService::OnNodeDead(const NodeId& node) {
  frees_.core.OnNodeDead(node);
  keeps_.core.OnNodeDead(node);
  pull_.OnNodeDead(node, Now(), &pulls_out_);
  push_.OnNodeDead(node, &pushes_out_);
  Settle();
}

void TransferService::Settle() {
  if (settling_) return;  // what was added is seen by the loop below
  settling_ = true;
  while (*alive_ && (!pulls_out_.empty() || !pushes_out_.empty())) {
    for (const PullEffect& effect : std::exchange(pulls_out_, {})) std::visit([this](const auto& e) { Apply(e); }, effect);
    for (const auto& [id, arrival] : std::exchange(arrived_, {})) {
      if (!arrival.owner_knows && deps_.tell) deps_.tell(arrival.owner, {id, arrival.attempt});
    }
    for (const PushEffect& effect : std::exchange(pushes_out_, {})) std::visit([this](const auto& e) { Apply(e); }, effect);
  }
  settling_ = false;
  if (*alive_) timer_.Arm(std::min(pull_.NextDeadline(), push_.NextDeadline()));
}

void TransferService::Apply(const RoomWanted& effect) {
  const Wanted& wanted = wanted_[effect.id];
  deps_.store->CreateCopy({effect.id, effect.size, wanted.metadata, wanted.owner, wanted.attempt},
                          [this, effect, attempt = wanted.attempt, alive = alive_, loop = deps_.loop](Status status, bool exists,
                                                                                                      std::shared_ptr<ObjectRoom> room) {
                            loop->Post("transfer.room", [this, effect, attempt, alive, status, exists, room] {
                              // It may have been given up while the store made room: then the room goes with this call.
                              if (!*alive || pull_.RoundOf(effect.id) != effect.round) return;
                              if (room != nullptr) {
                                receiving_[effect.id] = {effect.round, room, attempt};
                                push_.OnPartial(effect.id, effect.size, attempt);
                              }
                              pull_.OnRoom(effect.id, effect.round, status, exists, Now(), &pulls_out_);
                              Settle();
                            });
                          });
}

void TransferService::Apply(const FetchWanted& effect) {
  push_.OnPartialDepth(effect.id, effect.depth, &pushes_out_);
  rpc::ConnectionPtr link = deps_.bulk_link(effect.node);
  if (link == nullptr) {
    pull_.OnRefused(effect.fetch, Refusal::kUnreachable, {}, 0, Now(), &pulls_out_);
    return;
  }
  v1::FetchChunkRequest request;
  request.set_object_id(effect.id.Binary());
  request.set_offset(effect.offset);
  request.set_length(effect.length);
  request.set_node_id(deps_.self.Binary());
  request.set_insist(effect.insist);
  request.set_attempt(effect.attempt);
  request.set_depth(effect.depth);
  rpc::CallOptions options;
  options.timeout = stall_ * 2;  // the core gives up sooner; this one frees the call
  if (auto it = receiving_.find(effect.id); it != receiving_.end() && it->second.round == effect.round && link->LandsReplies()) {
    options.landing = landings_[effect.fetch] = it->second.room->Land(effect.offset, effect.length);
    copier_->Add([room = it->second.room, effect] { room->Prepare(effect.offset, effect.length); });
  }
  rpc::CallTyped<v1::FetchChunkReply>(
      *link, MethodId::kFetchChunk, request, {},
      [this, effect, alive = alive_](Status status, v1::FetchChunkReply& reply, PartList parts) {
        if (*alive) OnChunk(effect, status, reply, std::move(parts));
      },
      options);
}

void TransferService::OnChunk(const FetchWanted& fetch, const Status& status, const v1::FetchChunkReply& reply, PartList parts) {
  Refusal refusal = Refusal::kUnreachable;
  const auto landing = landings_.extract(fetch.fetch);
  if (status.ok() && !reply.not_there() && reply.ask_node_id().empty() && parts.size() == 1 && parts[0]->size() == fetch.length) {
    auto it = receiving_.find(fetch.id);
    const auto made_by = reply.has_made_by() ? std::optional(reply.made_by()) : std::nullopt;
    if (it == receiving_.end() || it->second.round != fetch.round || !pull_.OnArrived(fetch.fetch, made_by, Now(), &pulls_out_))
      return Settle();
    if (made_by) it->second.made_by = *made_by;
    if (!landing.empty() && parts[0] == landing.mapped()) return OnWritten(fetch, {});
    copier_->Add([this, fetch, part = std::move(parts[0]), room = it->second.room, alive = alive_, loop = deps_.loop]() mutable {
      const Status written = room->Write(fetch.offset, part->data(), part->size());
      part = nullptr;  // its memory is bounded by what is not written yet
      loop->Post("transfer.written", [this, fetch, written, alive] {
        if (*alive) OnWritten(fetch, written);
      });
    });
    return;
  }
  if (!landing.empty()) landing.mapped()->Revoke();  // a late answer must not write there
  if (status.ok() && reply.not_there()) refusal = Refusal::kNotThere;
  if (status.ok() && !reply.ask_node_id().empty()) refusal = Refusal::kElsewhere;
  if (!status.ok()) RAY_LOG(INFO) << "chunk of object " << fetch.id << " from node " << fetch.node << ": " << status.ToString();
  pull_.OnRefused(fetch.fetch, refusal, NodeId::FromBinaryOrNil(reply.ask_node_id()), reply.ask_depth(), Now(), &pulls_out_);
  Settle();
}

void TransferService::OnWritten(const FetchWanted& fetch, const Status& status) {
  if (!status.ok()) {
    // The memory of the store cannot be written: nothing that this node does can go on with the object.
    RAY_LOG(ERROR) << "object " << fetch.id << ": " << status.ToString();
    pull_.Fail(fetch.id, status, Now(), &pulls_out_);
    return Settle();
  }
  received_bytes_.fetch_add(fetch.length, std::memory_order_relaxed);
  if (auto it = receiving_.find(fetch.id); it != receiving_.end() && it->second.round == fetch.round) {
    push_.OnChunkHere(fetch.id, fetch.offset, Now(), &pushes_out_);
  }
  pull_.OnWritten(fetch.fetch, Now(), &pulls_out_);
  Settle();
}

void TransferService::Apply(const FetchForgotten& effect) {
  if (const auto landing = landings_.extract(effect.fetch)) landing.mapped()->Revoke();
}

void TransferService::Apply(const SourceLeft& effect) {
  v1::LeaveObjectNotice notice;
  notice.set_object_id(effect.id.Binary());
  notice.set_node_id(deps_.self.Binary());
  if (auto link = deps_.bulk_link(effect.node)) link->Notify(MethodId::kLeaveObject, notice);
}

void TransferService::Apply(const PullComplete& effect) {
  auto it = receiving_.find(effect.id);
  if (it == receiving_.end() || it->second.round != effect.round) return;
  it->second.complete = true;
  it->second.room->Seal(it->second.made_by);
  // Whoever fetches it from here goes on, with its pin.
  pinned_[effect.id] = {.bytes = it->second.room->bytes(), .made_by = it->second.made_by};
  push_.OnPartialEnd(effect.id, true, &pushes_out_);
}

void TransferService::Apply(const PullDropped& effect) {
  auto it = receiving_.find(effect.id);
  if (it == receiving_.end() || it->second.round != effect.round) return;
  if (!it->second.complete) push_.OnPartialEnd(effect.id, false, &pushes_out_);
  receiving_.erase(it);
}

void TransferService::Apply(const PullLate& effect) {
  const std::string standing = pull_.Explain(effect.id, Now());
  if (standing.empty()) return;  // it was answered since
  const std::string text = "Object " + effect.id.Hex() + " could not be fetched to node " + deps_.self.Hex() + " for " +
                           std::to_string(std::chrono::duration_cast<std::chrono::seconds>(effect.silence).count()) + " s: " + standing +
                           ". It is tried until " + std::to_string(std::chrono::duration_cast<std::chrono::seconds>(give_up_).count()) +
                           " s have passed; `ray explain " + effect.id.Hex() + "` tells more.";
  RAY_LOG(WARNING) << text;
  if (deps_.warn) deps_.warn(effect.id.task_id().job_id(), text);
}

void TransferService::Apply(const PullAnswered& effect) {
  auto node = pulls_.extract(effect.want);
  if (node.empty()) return;
  Pull& pull = node.mapped();
  by_caller_.erase({pull.connection, pull.pull_id});
  if (auto wanted = wanted_.find(pull.id); wanted != wanted_.end()) {
    if (effect.status.ok()) arrived_.try_emplace(pull.id, Arrival{wanted->second.owner, effect.attempt});
    if (!pull_.Wants(pull.id)) wanted_.erase(wanted);
  }
  // One that has asked for an earlier run's copy takes it for that.
  if (auto arrival = arrived_.find(pull.id); arrival != arrived_.end() && pull.owner_knows == arrival->second.attempt)
    arrival->second.owner_knows = true;
  if (!pull.keep || !effect.status.ok()) return Answer(&pull, effect.status, effect.missing);
  // It may have been evicted since it came.
  deps_.store->KeepIfHere({pull.id, CopyRun::kAny},
                          [this, alive = alive_, loop = deps_.loop, held = std::make_shared<Pull>(std::move(pull))](bool kept) {
                            loop->Post("transfer.kept", [this, alive, held, kept] {
                              if (*alive)
                                Answer(held.get(), kept ? Status::Ok() : Status::NotFound("it was evicted as soon as it was there"), {});
                            });
                          });
}

void TransferService::Answer(Pull* pull, const Status& status, const std::vector<NodeId>& missing) {
  if (pull->done) return pull->done(status);
  v1::PullObjectReply reply;
  const StatusCode code = status.code();
  if (!status.ok() && code != StatusCode::kNotFound && code != StatusCode::kDeadlineExceeded) return pull->responder.Fail(status);
  reply.set_ready(status.ok());
  reply.set_timed_out(code == StatusCode::kDeadlineExceeded);
  for (const NodeId& node : missing) reply.add_missing_node_ids(node.Binary());
  pull->responder.Send(reply);
}

void TransferService::Apply(const PinWanted& effect) {
  deps_.store->Pin(effect.id, [this, id = effect.id, alive = alive_, loop = deps_.loop](StoreService::PinnedCopy copy) {
    loop->Post("transfer.pinned", [this, id, alive, copy = std::move(copy)] {
      if (!*alive) return;
      const bool there = copy.bytes != nullptr;
      const uint64_t size = there ? copy.bytes->size() : 0;
      if (there) pinned_.try_emplace(id, copy);
      push_.OnPinned(id, there, size, copy.attempt, Now(), &pushes_out_);
      Settle();
    });
  });
}

void TransferService::Apply(const PinDropped& effect) { pinned_.erase(effect.id); }

void TransferService::Apply(const ServeChunk& effect) {
  auto node = serving_.extract(effect.serve);
  auto sent = [this, serve = effect.serve, alive = alive_, loop = deps_.loop] {
    loop->Post("transfer.sent", [this, serve, alive] {
      if (!*alive) return;
      push_.OnSent(serve, &pushes_out_);
      Settle();
    });
  };
  BufferPtr bytes;
  v1::FetchChunkReply reply;
  if (auto pinned = pinned_.find(effect.id); pinned != pinned_.end()) {
    bytes = pinned->second.bytes;
    reply.set_made_by(pinned->second.made_by);
  } else if (auto part = receiving_.find(effect.id); part != receiving_.end()) {
    bytes = part->second.room->bytes();
    reply.set_made_by(part->second.made_by);
  }
  if (node.empty() || bytes == nullptr) {
    sent();
    if (!node.empty()) node.mapped().Fail(Status::Unavailable("the object went while it was sent"));
    return;
  }
  given_bytes_.fetch_add(effect.length, std::memory_order_relaxed);
  node.mapped().Send(reply, {std::make_shared<OutgoingChunk>(std::move(bytes), effect.offset, effect.length, std::move(sent))});
}

void TransferService::Apply(const ServeRefused& effect) {
  auto node = serving_.extract(effect.serve);
  if (node.empty()) return;
  v1::FetchChunkReply reply;
  if (effect.refusal == Refusal::kElsewhere) {
    reply.set_ask_node_id(effect.other.Binary());
    reply.set_ask_depth(effect.other_depth);
  } else {
    reply.set_not_there(true);
  }
  node.mapped().Send(reply);
}

void TransferService::OnTick() {
  pull_.OnTimer(Now(), &pulls_out_);
  push_.OnTimer(Now(), &pushes_out_);
  Settle();
}

}  // namespace ray::raylet
