#include "ray/core_worker/objects/handover.h"

#include <algorithm>
#include <set>
#include <utility>

#include "ray/util/logging.h"
#include "ray/wire/convert.h"

namespace ray::core {
namespace {

constexpr size_t kMaxBatchObjects = 1000;
constexpr size_t kMaxBatchBytes = size_t{1} << 20;
constexpr Duration kNestedTimeout = std::chrono::seconds(5);  // for the owners of what the objects contain

ErrorValue UnfinishedValue(const ObjectId& id, const Address& owner) {
  v1::ErrorDetail detail;
  detail.set_error_type(static_cast<int32_t>(ErrorType::kOwnerDied));
  detail.set_message("object " + id.Hex() + " has no value: its owner has left before the task that makes it had ended");
  detail.set_owner_address(ToProto(owner).SerializeAsString());
  return MakeErrorValue(detail);
}

}  // namespace

void Handover::Run(bool wait_for_tasks) {
  if (options_.adopter.IsNil() || context_.peers->raylet() == nullptr || context_.table.LentOut().empty()) return;
  if (wait_for_tasks) WaitForValues();
  active_.store(true, std::memory_order_release);
  // Requests that were being served then are done when the loop comes by.
  auto settled = std::make_shared<async::Waiter>();
  context_.loop->Post("handover.settle", [settled] { settled->Notify(); });
  BlockFor(settled.get(), Time::Infinite());
  Gather();
  if (batches_.empty()) return Apply(AnswerHeld{false});
  context_.loop->Post("handover.begin", [this, service = context_.alive.lock()] {
    HandoverEffects effects;
    core_.Begin(batches_.size(), borrowers_, Now(), &effects);
    Apply(effects);
  });
  BlockFor(ended_.get(), Time::Infinite());
}

void Handover::BlockFor(async::Waiter* waiter, Time deadline) {
  while (context_.loop->Wait(waiter, deadline) == async::WaitResult::kInterrupted) {
  }
}

void Handover::WaitForValues() {
  while (true) {
    std::vector<ObjectId> ids;
    for (const auto& lent : context_.table.LentOut()) {
      if (!context_.memory.Contains(lent.id)) ids.push_back(lent.id);
    }
    if (ids.empty()) return;
    RAY_LOG(INFO) << "waiting for " << ids.size() << " results that others hold, before this process leaves";
    MemoryStore::Watch watch(&context_.memory, ids, ids.size(), /*stop_on_error=*/false);
    if (!watch.done() && context_.loop->Wait(watch.waiter(), Time::Infinite()) == async::WaitResult::kInterrupted) return;
  }
}

void Handover::MoveToStore(StoredValue* value, const ObjectId& id) {
  const Status written = context_.store->Write(
      id, value->size, value->metadata, RayletAsProcess(options_.adopter), value->attempt,
      [&](const PieceWriter& write) { return write(0, reinterpret_cast<const char*>(value->blob->data()), value->blob->size()); });
  if (!written.ok()) return;  // then the adopter keeps it in memory
  value->in_store = true;
  value->blob = nullptr;
  value->node_ids = {context_.self.node_id};
}

void Handover::Gather() {
  const auto lent = context_.table.LentOut();
  const Address adopter = RayletAsProcess(options_.adopter);
  std::vector<ObjectId> ids;
  for (const auto& item : lent) ids.push_back(item.id);
  context_.table.AddSubmitted(ids);  // for good: the adopter frees them
  // It is made a borrower of what they contain before it hears of them.
  auto counted = std::make_shared<async::Waiter>();
  auto barrier = std::make_shared<Barrier>(lent.size() + 1, [counted] { counted->Notify(); });
  std::set<WorkerId> told;
  for (const auto& item : lent) {
    handed_.insert(item.id);
    for (const auto& to : item.borrowers) {
      if (to.borrower != adopter && told.insert(to.borrower.worker_id).second) borrowers_.push_back(to.borrower);
    }
    const auto nested = context_.table.NestedOf(item.id);
    StoredValue value;
    if (!context_.memory.Get(item.id, &value)) {
      ErrorValue error = UnfinishedValue(item.id, context_.self);
      value.metadata = std::move(error.metadata);
      value.size = error.blob->size();
      value.blob = std::move(error.blob);
    } else if (!value.in_store && value.size > options_.max_inline_bytes && !value.IsError() && !options_.node_leaves) {
      MoveToStore(&value, item.id);
    }
    if (batches_.empty() || batches_.back().bytes >= kMaxBatchBytes ||
        static_cast<size_t>(batches_.back().request.objects_size()) >= kMaxBatchObjects) {
      Batch& batch = batches_.emplace_back();
      ToProto(context_.self, batch.request.mutable_owner());
      batch.request.set_node_leaves(options_.node_leaves);
    }
    Batch& batch = batches_.back();
    auto* object = batch.request.add_objects();
    object->set_object_id(item.id.Binary());
    object->set_metadata(value.metadata);
    object->set_in_store(value.in_store);
    object->set_size(value.size);
    object->set_attempt(value.attempt);
    for (const NodeId& node : value.node_ids) object->add_node_ids((node.IsNil() ? context_.self.node_id : node).Binary());
    for (const ObjectRefInfo& ref : nested) ToProto(ref, object->add_nested());
    if (!value.in_store) {
      batch.bytes += value.size;
      batch.parts.push_back(std::move(value.blob));
    }
    borrowing_.HandOver(nested, adopter, [barrier] { barrier->Arrive(); });
  }
  barrier->Arrive();
  BlockFor(counted.get(), Now() + kNestedTimeout);
}

void Handover::Defer(std::function<void(bool moved)> serve) {
  bool moved;
  {
    MutexLock lock(&mu_);
    if (verdict_ == Verdict::kNone) {
      held_.push_back(std::move(serve));
      return;
    }
    moved = verdict_ == Verdict::kMoved;
  }
  serve(moved);
}

void Handover::Apply(const HandoverEffects& effects) {
  for (const HandoverEffect& effect : effects) std::visit([this](const auto& e) { Apply(e); }, effect);
  ArmTimer();
}

void Handover::TellAdopter(MethodId method, std::shared_ptr<const rpc::MessageLite> request, PartList parts, std::function<bool()> wanted,
                           std::function<void(const Status&)> done) {
  if (!wanted()) return;
  auto answered = [this, alive = context_.alive, method, request, parts, wanted, done](const Status& status, const rpc::Reply&) {
    const auto service = alive.lock();
    if (service == nullptr) return;
    if (status.code() != StatusCode::kUnavailable || context_.peers->IsDead(Address{options_.adopter, WorkerId::Nil()}))
      return done(status);
    context_.loop->AddTimer(context_.options.owner_retry, [this, alive, method, request, parts, wanted, done] {
      if (const auto later = alive.lock()) TellAdopter(method, request, parts, wanted, done);
    });
  };
  auto connection = context_.peers->GetRaylet(options_.adopter);
  if (!connection.ok()) {
    context_.loop->Post("handover.unreached", [answered, status = connection.status()] { answered(status, rpc::Reply()); });
    return;
  }
  (*connection)->Call(method, *request, parts, answered);
}

void Handover::Apply(const SendObjects& effect) {
  // The batch stays as long as this does.
  const std::shared_ptr<const rpc::MessageLite> request(std::shared_ptr<void>(), &batches_[effect.batch].request);
  TellAdopter(
      MethodId::kAdoptObjects, request, batches_[effect.batch].parts, [this] { return core_.taking(); },
      [this, batch = effect.batch](const Status& status) {
        HandoverEffects effects;
        core_.OnTaken(batch, status, Now(), &effects);
        Apply(effects);
      });
}

void Handover::Apply(const AnswerHeld& effect) {
  std::vector<std::function<void(bool)>> held;
  {
    MutexLock lock(&mu_);
    verdict_ = effect.moved ? Verdict::kMoved : Verdict::kServe;
    held.swap(held_);
  }
  for (const auto& serve : held) serve(effect.moved);
}

void Handover::Apply(const TellBorrower& effect) {
  // Whatever the borrower has said comes on one of these two, ahead of its answer.
  std::vector<rpc::ConnectionPtr> ways;
  if (auto opened_by_us = context_.peers->Get(effect.borrower); opened_by_us.ok()) ways.push_back(*opened_by_us);
  if (auto opened_by_it = context_.peers->ReplyRoute(effect.borrower); opened_by_it.ok()) {
    if (std::ranges::find(ways, *opened_by_it) == ways.end()) ways.push_back(*opened_by_it);
  }
  auto told = std::make_shared<Barrier>(ways.size() + 1, [this, alive = context_.alive, borrower = effect.borrower.worker_id] {
    const auto service = alive.lock();
    if (service == nullptr) return;
    context_.loop->Post("handover.told", [this, service, borrower] {
      HandoverEffects effects;
      core_.OnTold(borrower, Now(), &effects);
      Apply(effects);
    });
  });
  v1::OwnerMovedRequest request;
  ToProto(context_.self, request.mutable_owner());
  request.set_adopter_node_id(options_.adopter.Binary());
  for (const auto& way : ways) {
    way->Call(MethodId::kOwnerMoved, request, {}, [told](const Status&, const rpc::Reply&) { told->Arrive(); });
  }
  told->Arrive();
}

void Handover::Apply(const SendCounts&) {
  std::vector<std::shared_ptr<v1::CompleteAdoptionRequest>> parts{std::make_shared<v1::CompleteAdoptionRequest>()};
  for (const auto& item : context_.table.LentOut()) {
    if (!handed_.contains(item.id)) continue;
    for (const auto& to : item.borrowers) {
      if (static_cast<size_t>(parts.back()->borrowers_size()) >= kMaxBatchObjects)
        parts.push_back(std::make_shared<v1::CompleteAdoptionRequest>());
      auto* counted = parts.back()->add_borrowers();
      counted->set_object_id(item.id.Binary());
      ToProto(to.borrower, counted->mutable_borrower());
      counted->set_count(to.count);
      if (!to.registrar.IsNil()) ToProto(to.registrar, counted->mutable_registrar());
    }
  }
  for (const auto& [borrower, number] : borrowing_.Heard()) {
    auto* heard = parts.back()->add_heard();
    heard->set_worker_id(borrower.Binary());
    heard->set_number(number);
  }
  parts.back()->set_last(true);
  for (size_t i = 0; i < parts.size(); ++i) {
    ToProto(context_.self, parts[i]->mutable_owner());
    parts[i]->set_part(static_cast<uint32_t>(i));
  }
  SendPart(std::move(parts), 0);
}

// One after the other: the last one makes the adopter take what it knows for everything.
void Handover::SendPart(std::vector<std::shared_ptr<v1::CompleteAdoptionRequest>> parts, size_t next) {
  const auto part = parts[next];
  TellAdopter(
      MethodId::kCompleteAdoption, part, {}, [this] { return core_.counting(); },
      [this, parts = std::move(parts), next](const Status& status) {
        if (status.ok() && next + 1 < parts.size()) return SendPart(parts, next + 1);
        HandoverEffects effects;
        core_.OnCounted(status, &effects);
        Apply(effects);
      });
}

void Handover::Apply(const HandoverEnded& effect) {
  if (effect.done) {
    RAY_LOG(INFO) << handed_.size() << " objects that others hold were handed over to node " << options_.adopter;
  } else {
    RAY_LOG(WARNING) << handed_.size() << " objects that others hold are lost with this process: " << effect.why;
  }
  ended_->Notify();
}

void Handover::ArmTimer() {
  if (timer_ != 0) context_.loop->CancelTimer(timer_);
  timer_ = 0;
  if (core_.NextDeadline().is_infinite()) return;
  const Duration delay = std::max(core_.NextDeadline() - Now(), Duration::zero());
  timer_ = context_.loop->AddTimer(delay, [this, alive = context_.alive] {
    const auto service = alive.lock();
    if (service == nullptr) return;
    timer_ = 0;
    HandoverEffects effects;
    core_.Tick(Now(), &effects);
    Apply(effects);
  });
}

}  // namespace ray::core
