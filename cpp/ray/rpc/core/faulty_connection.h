// Faulty<Carrier>: a carrier's connection whose messages fare as a FaultCore says; for tests. A carrier that was given a FaultInjector makes these instead of
// its own, so that without one nothing is asked of any call.
//
// What is lost is sent again by the rule of its method, over the same connection and after a moment, until the call's deadline. What is not `unordered` stays in order, as on a
// stream: what is sent behind a late message waits for it, answers too. Answers are not late by themselves: the messages that they answer are.
#pragma once

#include <deque>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ray/async/loop.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/fault_core.h"
#include "ray/util/mutex.h"

namespace ray::rpc {

class FaultyLine;

// One for each process, shared by its carriers. Thread-safe, but for Drop.
class FaultInjector {
 public:
  FaultInjector(FaultConfig config, async::Loop* loop) : loop_(loop), core_(std::move(config)) {}
  Fate Next(MethodId method) EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    return stopped_ ? Fate() : core_.Next(method);
  }
  // From now on no message fares badly.
  void Stop() EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    stopped_ = true;
  }
  // The process has ended, with its loop: what waits on any line goes, and with it what its callbacks hold. For processes that are simulated.
  void Drop() EXCLUDES(mu_);
  FaultCore::Counts counts() EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    return core_.counts();
  }
  async::Loop* loop() const { return loop_; }

 private:
  friend class FaultyLine;
  async::Loop* const loop_;
  Mutex mu_;
  FaultCore core_ GUARDED_BY(mu_);
  std::set<FaultyLine*> lines_ GUARDED_BY(mu_);
  bool stopped_ GUARDED_BY(mu_) = false;
};

// The messages of one connection on their way to the carrier. Owned by the connection, which is the Wire.
class FaultyLine {
 public:
  class Wire {
   public:
    virtual void CallUnharmed(MethodId method, std::string_view control, const PartList& parts, ReplyCallback callback,
                              CallOptions options) = 0;
    virtual void NotifyUnharmed(MethodId method, std::string_view control, const PartList& parts) = 0;
    virtual void ReplyUnharmed(MethodId method, uint64_t call_id, FrameKind kind, std::string_view control, const PartList& parts) = 0;
    virtual void Break(Status reason) = 0;
    virtual ConnectionPtr Self() = 0;

   protected:
    ~Wire() = default;
  };
  FaultyLine(std::shared_ptr<FaultInjector> faults, Wire* wire);
  ~FaultyLine();
  FaultyLine(const FaultyLine&) = delete;
  FaultyLine& operator=(const FaultyLine&) = delete;

  void Call(MethodId method, std::string control, const PartList& parts, ReplyCallback callback, CallOptions options) EXCLUDES(mu_);
  void Notify(MethodId method, std::string control, const PartList& parts) EXCLUDES(mu_);
  // False: nothing that it must stay behind waits, so the carrier may send it. Otherwise it has been taken.
  bool HoldReply(MethodId method, uint64_t call_id, FrameKind kind, std::string_view control, const MessageLite* message,
                 const PartList& parts) EXCLUDES(mu_);
  // What waits leaves now: the connection is about to be closed.
  void LetGo() EXCLUDES(mu_);
  // Hands over what waits, which is not sent then.
  void Take(std::vector<std::shared_ptr<void>>* messages) EXCLUDES(mu_);

 private:
  struct Message {
    MethodId method{};
    std::string control;
    PartList parts;
    ReplyCallback callback;  // none: one-way, or an answer
    CallOptions options;
    uint64_t answers = 0;  // the call
    FrameKind kind = FrameKind::kNotify;
    Time deadline = Time::Infinite();
  };
  using MessagePtr = std::shared_ptr<Message>;
  struct Held {
    MessagePtr message;
    Fate fate;
    Time due;
  };
  void Send(const MessagePtr& message, bool again) EXCLUDES(mu_);
  void HoldLocked(const MessagePtr& message, const Fate& fate, Duration delay) REQUIRES(mu_);
  void EmitLocked(const MessagePtr& message, const Fate& fate) REQUIRES(mu_);
  void EmitOnceLocked(const MessagePtr& message, ReplyCallback callback) REQUIRES(mu_);
  void SendAgainLater(const MessagePtr& message, Duration delay);
  void SendDue() EXCLUDES(mu_);
  void ArmLocked() REQUIRES(mu_);

  const std::shared_ptr<FaultInjector> faults_;
  Wire* const wire_;
  Mutex mu_;  // held while messages are handed to the carrier, which neither blocks nor calls back: they leave in order
  std::deque<Held> held_ GUARDED_BY(mu_);          // in order; each as late as those before it
  Time armed_ GUARDED_BY(mu_) = Time::Infinite();  // for when there is a timer
  std::deque<Held> aside_ GUARDED_BY(mu_);         // `unordered` ones that let others by
};

template <typename Carrier>
class Faulty final : public Carrier, private FaultyLine::Wire {
 public:
  template <typename... Arguments>
  explicit Faulty(std::shared_ptr<FaultInjector> faults, Arguments&&... arguments)
      : Carrier(std::forward<Arguments>(arguments)...), line_(std::move(faults), this) {}

  void Call(MethodId method, const MessageLite& request, const PartList& parts, ReplyCallback callback, CallOptions options) override {
    line_.Call(method, request.SerializeAsString(), parts, std::move(callback), options);
  }
  void CallRaw(MethodId method, std::string_view control, const PartList& parts, ReplyCallback callback, CallOptions options) override {
    line_.Call(method, std::string(control), parts, std::move(callback), options);
  }
  void Notify(MethodId method, const MessageLite& message, const PartList& parts, bool corked) override {
    line_.Notify(method, message.SerializeAsString(), parts);
  }
  void NotifyRaw(MethodId method, std::string_view control, const PartList& parts) override {
    line_.Notify(method, std::string(control), parts);
  }
  // An answer may come twice: the second must not be written where the first one is in use.
  bool LandsReplies() const override { return false; }
  void Close(Status reason) override {
    line_.LetGo();
    Carrier::Close(std::move(reason));
  }

 protected:
  void SendReply(MethodId method, uint64_t call_id, FrameKind kind, std::string_view control, const MessageLite* message,
                 const PartList& parts, int fd, bool corked) override {
    if (fd >= 0) line_.LetGo();  // a descriptor is not kept
    if (fd >= 0 || !line_.HoldReply(method, call_id, kind, control, message, parts))
      Carrier::SendReply(method, call_id, kind, control, message, parts, fd, corked);
  }

 private:
  void CallUnharmed(MethodId method, std::string_view control, const PartList& parts, ReplyCallback callback,
                    CallOptions options) override {
    Carrier::CallRaw(method, control, parts, std::move(callback), options);
  }
  void NotifyUnharmed(MethodId method, std::string_view control, const PartList& parts) override {
    Carrier::NotifyRaw(method, control, parts);
  }
  void ReplyUnharmed(MethodId method, uint64_t call_id, FrameKind kind, std::string_view control, const PartList& parts) override {
    Carrier::SendReply(method, call_id, kind, control, nullptr, parts, -1, false);
  }
  void Break(Status reason) override { Carrier::Close(std::move(reason)); }
  ConnectionPtr Self() override { return this->shared_from_this(); }

  FaultyLine line_;
};

// A connection of the carrier: faulty if there are faults.
template <typename Carrier, typename... Arguments>
std::shared_ptr<Carrier> MakeConnection(const std::shared_ptr<FaultInjector>& faults, Arguments&&... arguments) {
  if (faults == nullptr) return std::make_shared<Carrier>(std::forward<Arguments>(arguments)...);
  return std::make_shared<Faulty<Carrier>>(faults, std::forward<Arguments>(arguments)...);
}

}  // namespace ray::rpc
