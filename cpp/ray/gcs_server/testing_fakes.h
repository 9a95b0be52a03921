// For tests of the GCS's services: a loop that runs when told, and a link that records what a raylet is told.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ray/async/loop.h"
#include "ray/rpc/core/connection.h"

namespace ray::gcs {

class ManualLoop final : public async::Loop {
 public:
  void Post(const char*, std::function<void()> fn) override { queue_.push_back(std::move(fn)); }
  async::TimerId AddTimer(Duration delay, std::function<void()> fn) override {
    timers_[++last_timer_] = {delay, std::move(fn)};
    return last_timer_;
  }
  void CancelTimer(async::TimerId id) override { timers_.erase(id); }
  const Clock& clock() const override { return clock_; }
  bool InLoop() const override { return true; }
  void AddFlusher(std::function<void()>) override {}  // nothing here corks
  void RequestFlush() override {}
  void RunAll() {
    for (; !queue_.empty(); queue_.pop_front()) queue_.front()();
  }
  // Runs every timer that there is now, whenever it is due; or those that were set for no longer than that.
  void FireTimers(Duration at_most = Duration::max()) {
    std::vector<std::function<void()>> due;
    for (auto it = timers_.begin(); it != timers_.end();) {
      if (it->second.delay > at_most) {
        ++it;
        continue;
      }
      due.push_back(std::move(it->second.fn));
      it = timers_.erase(it);
    }
    for (auto& fn : due) fn();
  }

 private:
  SystemClock clock_;
  std::deque<std::function<void()>> queue_;
  async::TimerId last_timer_ = 0;
  struct Timer {
    Duration delay;
    std::function<void()> fn;
  };
  std::map<async::TimerId, Timer> timers_;
};

class FakeLink final : public rpc::Connection {
 public:
  explicit FakeLink(uint64_t id) : id_(id) {}
  void Call(MethodId method, const rpc::MessageLite& request, const PartList& parts, rpc::ReplyCallback callback,
            rpc::CallOptions options) override {
    CallRaw(method, request.SerializeAsString(), parts, std::move(callback), options);
  }
  void CallRaw(MethodId method, std::string_view control, const PartList&, rpc::ReplyCallback callback, rpc::CallOptions) override {
    told.emplace_back(MethodName(method));
    controls.emplace_back(method, control);
    last_control = control;
    callbacks.push_back(std::move(callback));
  }
  void Notify(MethodId method, const rpc::MessageLite& message, const PartList& parts, bool) override {
    NotifyRaw(method, message.SerializeAsString(), parts);
  }
  void NotifyRaw(MethodId method, std::string_view control, const PartList&) override {
    told.emplace_back(MethodName(method));
    controls.emplace_back(method, control);
    last_control = control;
  }
  void Flush() override {}
  void Close(Status reason) override {
    if (closed_) return;
    closed_ = true;
    for (auto& callback : std::exchange(callbacks, {})) callback(reason, {});
    for (auto& callback : std::exchange(on_close, {})) callback(reason);
  }
  // As Close, without a word to anybody: the process at the other end of the test is gone.
  void Drop() {
    closed_ = true;
    callbacks.clear();
    on_close.clear();
  }
  bool closed() const override { return closed_; }
  void OnClose(std::function<void(const Status&)> callback) override { on_close.push_back(std::move(callback)); }
  uint64_t id() const override { return id_; }
  int64_t peer_pid() const override { return -1; }
  size_t unsent_bytes() const override { return 0; }

  std::vector<std::string> Told() { return std::exchange(told, {}); }
  // The newest message of that method; empty: there was none.
  template <typename Message>
  Message Newest(MethodId method) const {
    Message message;
    for (const auto& [known, control] : controls) {
      if (known == method) message.ParseFromString(control);
    }
    return message;
  }
  // Answers the oldest call.
  void Answer(const rpc::MessageLite& reply) {
    auto callback = std::move(callbacks.front());
    callbacks.erase(callbacks.begin());
    std::string control = reply.SerializeAsString();
    callback({}, rpc::Reply{control, {}});
  }

  std::vector<std::string> told;
  std::string last_control;
  std::vector<std::pair<MethodId, std::string>> controls;
  std::vector<rpc::ReplyCallback> callbacks;
  std::vector<std::function<void(const Status&)>> on_close;
  std::string answer;  // control part of the newest reply
  Status error;

 protected:
  void SendReply(MethodId, uint64_t, rpc::FrameKind kind, std::string_view control, const rpc::MessageLite* message, const PartList&, int,
                 bool) override {
    error = kind == rpc::FrameKind::kError ? rpc::DecodeError(control) : Status::Ok();
    answer = message ? message->SerializeAsString() : std::string(control);
  }

 private:
  const uint64_t id_;
  bool closed_ = false;
};

}  // namespace ray::gcs
