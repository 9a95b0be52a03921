#include "ray/rpc/core/faulty_connection.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "ray/wire/method_rules.h"

namespace ray::rpc {
namespace {

constexpr Duration kLongestAside = std::chrono::milliseconds(10);  // a message that is to be overtaken, if nothing else is sent

// Who answers sends what must not overtake the answer: that it has let go of refs which the value has inside (docs/architecture/ownership.md). A stream loses no
// such answer alone, so it is not withheld; the request comes again all the same.
bool IsAnswerFollowed(MethodId method) { return method == MethodId::kPushTask; }

// The first answer counts; `copies` of the message are under way.
ReplyCallback FirstOf(ReplyCallback callback) {
  auto answered = std::make_shared<std::atomic<bool>>(false);
  return [answered, callback = std::move(callback)](Status status, Reply reply) {
    if (!answered->exchange(true)) callback(std::move(status), std::move(reply));
  };
}

}  // namespace

void FaultInjector::Drop() {
  std::set<FaultyLine*> lines;
  {
    MutexLock lock(&mu_);
    lines = lines_;
  }
  std::vector<std::shared_ptr<void>> messages;  // all first: the end of one may be that of a line
  for (FaultyLine* line : lines) line->Take(&messages);
}

FaultyLine::FaultyLine(std::shared_ptr<FaultInjector> faults, Wire* wire) : faults_(std::move(faults)), wire_(wire) {
  MutexLock lock(&faults_->mu_);
  faults_->lines_.insert(this);
}

FaultyLine::~FaultyLine() {
  MutexLock lock(&faults_->mu_);
  faults_->lines_.erase(this);
}

void FaultyLine::Take(std::vector<std::shared_ptr<void>>* messages) {
  MutexLock lock(&mu_);
  for (std::deque<Held>* from : {&held_, &aside_}) {
    for (Held& held : *from) messages->push_back(std::move(held.message));
    from->clear();
  }
}

void FaultyLine::Call(MethodId method, std::string control, const PartList& parts, ReplyCallback callback, CallOptions options) {
  options.landing = nullptr;  // see LandsReplies
  auto message = std::make_shared<Message>(Message{method, std::move(control), parts, std::move(callback), std::move(options)});
  if (options.timeout > Duration::zero()) message->deadline = faults_->loop()->clock().Now() + options.timeout;
  Send(message, /*again=*/false);
}

void FaultyLine::Notify(MethodId method, std::string control, const PartList& parts) {
  auto message = std::make_shared<Message>(Message{method, std::move(control), parts, nullptr, {}});
  Send(message, /*again=*/false);
}

void FaultyLine::Send(const MessagePtr& message, bool again) {
  Fate fate = faults_->Next(message->method);
  if (fate.broken && !again) {
    wire_->Break(Status::Unavailable("broken for a test"));
    if (!message->callback) return;
    fate = {};  // it fails, with the calls that are under way
  }
  const auto rule = RuleOf(message->method);
  const bool unordered = again || (rule && rule->unordered);
  MutexLock lock(&mu_);
  if (message->method == MethodId::kAnnounceExit) {  // the process ends behind it, and with it what it still holds
    while (!held_.empty()) {
      EmitLocked(held_.front().message, held_.front().fate);
      held_.pop_front();
    }
    return EmitLocked(message, {});
  }
  if (!message->callback && fate.loss != Loss::kNone) {
    if (rule && rule->repeat == Repeat::kLossy) return;  // which does no harm
    fate.loss = Loss::kRequest;                          // of what may be asked as well: nobody would ask again
  }
  if (fate.overtaken) {
    aside_.push_back({message, fate, faults_->loop()->clock().Now() + kLongestAside});
    return ArmLocked();
  }
  // A loss of the request, and a delay, are the same for whoever gets it: it comes later. What is ordered holds up the rest, as on a stream.
  const Duration wait = fate.loss == Loss::kNone || fate.loss == Loss::kRequest ? fate.delay : Duration::zero();
  if (fate.loss == Loss::kRequest) fate.loss = Loss::kNone;
  if (unordered && wait > Duration::zero()) {
    faults_->loop()->AddTimer(wait, [this, self = wire_->Self(), message, fate] {
      MutexLock locked(&mu_);
      EmitLocked(message, fate);
    });
  } else if (wait > Duration::zero() || (!held_.empty() && !unordered)) {
    HoldLocked(message, fate, wait);
  } else {
    EmitLocked(message, fate);
  }
  for (Held& passed : std::exchange(aside_, {})) EmitLocked(passed.message, passed.fate);
}

void FaultyLine::HoldLocked(const MessagePtr& message, const Fate& fate, Duration delay) {
  const Time now = faults_->loop()->clock().Now();
  const Time due = std::max(now + delay, held_.empty() ? now : held_.back().due);
  held_.push_back({message, fate, due});
  ArmLocked();
}

void FaultyLine::ArmLocked() {
  Time due = Time::Infinite();
  for (const std::deque<Held>* waiting : {&held_, &aside_}) {
    if (!waiting->empty()) due = std::min(due, waiting->front().due);
  }
  if (due >= armed_) return;
  armed_ = due;
  const Duration wait = std::max(due - faults_->loop()->clock().Now(), Duration::zero());
  faults_->loop()->AddTimer(wait, [this, self = wire_->Self()] { SendDue(); });
}

void FaultyLine::SendDue() {
  MutexLock lock(&mu_);
  armed_ = Time::Infinite();
  const Time now = faults_->loop()->clock().Now();
  for (std::deque<Held>* from : {&held_, &aside_}) {
    while (!from->empty() && from->front().due <= now) {
      EmitLocked(from->front().message, from->front().fate);
      from->pop_front();
    }
  }
  ArmLocked();  // timers may be early by a little
}

void FaultyLine::LetGo() {
  MutexLock lock(&mu_);
  for (std::deque<Held>* from : {&held_, &aside_}) {
    for (Held& held : std::exchange(*from, {})) EmitLocked(held.message, held.fate);
  }
}

bool FaultyLine::HoldReply(MethodId method, uint64_t call_id, FrameKind kind, std::string_view control, const MessageLite* message,
                           const PartList& parts) {
  MutexLock lock(&mu_);
  if (held_.empty()) return false;
  auto held = std::make_shared<Message>();
  held->method = method;
  held->control = message != nullptr ? message->SerializeAsString() : std::string(control);
  held->parts = parts;
  held->answers = call_id;
  held->kind = kind;
  HoldLocked(held, {}, Duration::zero());
  return true;
}

void FaultyLine::EmitLocked(const MessagePtr& message, const Fate& fate) {
  if (message->answers != 0)
    return wire_->ReplyUnharmed(message->method, message->answers, message->kind, message->control, message->parts);
  if (!message->callback) {
    wire_->NotifyUnharmed(message->method, message->control, message->parts);
    if (fate.duplicate) wire_->NotifyUnharmed(message->method, message->control, message->parts);
    return;
  }
  if ((fate.loss == Loss::kReply || fate.loss == Loss::kInFlight) && IsAnswerFollowed(message->method)) {
    const auto again = std::make_shared<Message>(*message);
    again->callback = [](const Status&, const Reply&) {};
    if (fate.loss == Loss::kInFlight) SendAgainLater(again, fate.delay);
    return EmitOnceLocked(message, [this, self = wire_->Self(), callback = message->callback, again, fate](Status status, Reply reply) {
      if (fate.loss == Loss::kReply && !self->closed()) SendAgainLater(again, fate.delay);
      callback(std::move(status), std::move(reply));
    });
  }
  if (fate.loss == Loss::kReply || fate.loss == Loss::kInFlight) {
    const bool wait_for_it = fate.loss == Loss::kReply;
    EmitOnceLocked(message, [this, self = wire_->Self(), message, wait_for_it, delay = fate.delay](const Status& status, const Reply&) {
      if (!wait_for_it) return;
      // The end of the connection, and of the caller's patience, are not lost.
      if (status.code() == StatusCode::kDeadlineExceeded || self->closed()) return message->callback(status, {});
      SendAgainLater(message, delay);
    });
    if (!wait_for_it) SendAgainLater(message, fate.delay);
    return;
  }
  if (!fate.duplicate) return EmitOnceLocked(message, message->callback);
  const ReplyCallback first = FirstOf(message->callback);
  EmitOnceLocked(message, first);
  EmitOnceLocked(message, first);
}

void FaultyLine::SendAgainLater(const MessagePtr& message, Duration delay) {
  faults_->loop()->AddTimer(delay, [this, self = wire_->Self(), message] { Send(message, /*again=*/true); });
}

void FaultyLine::EmitOnceLocked(const MessagePtr& message, ReplyCallback callback) {
  CallOptions options = message->options;
  if (!message->deadline.is_infinite()) {
    // Passed already: the carrier says so with its next timers.
    options.timeout = std::max<Duration>(message->deadline - faults_->loop()->clock().Now(), Duration(1));
  }
  wire_->CallUnharmed(message->method, message->control, message->parts, std::move(callback), options);
}

}  // namespace ray::rpc
