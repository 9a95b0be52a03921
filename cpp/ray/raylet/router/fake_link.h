// FakeLink: a connection for tests that calls are made over, or come over. Keeps what is called; answers when told.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ray/rpc/core/connection.h"

namespace ray::raylet {

class FakeLink final : public rpc::Connection {
 public:
  void Call(MethodId method, const rpc::MessageLite& request, const PartList& parts, rpc::ReplyCallback callback,
            rpc::CallOptions options) override {
    CallRaw(method, request.SerializeAsString(), parts, std::move(callback), options);
  }
  void CallRaw(MethodId, std::string_view control, const PartList&, rpc::ReplyCallback callback, rpc::CallOptions) override {
    called.emplace_back(control);
    callbacks.push_back(std::move(callback));
  }
  void Notify(MethodId, const rpc::MessageLite&, const PartList&, bool) override {}
  void NotifyRaw(MethodId, std::string_view, const PartList&) override {}
  void Flush() override {}
  void Close(Status reason) override {
    closed_ = true;
    auto all = std::exchange(callbacks, {});
    // In no order, as carriers do.
    for (auto it = all.rbegin(); it != all.rend(); ++it) (*it)(reason, {});
  }
  bool closed() const override { return closed_; }
  void OnClose(std::function<void(const Status&)>) override {}
  uint64_t id() const override { return 1; }
  int64_t peer_pid() const override { return -1; }
  size_t unsent_bytes() const override { return 0; }
  void Answer(size_t i, const Status& status, const std::string& reply = "") {
    auto callback = std::move(callbacks.at(i));
    callbacks.erase(callbacks.begin() + static_cast<std::ptrdiff_t>(i));
    callback(status, rpc::Reply(reply));
  }

  std::vector<std::string> called;
  std::vector<rpc::ReplyCallback> callbacks;

 protected:
  void SendReply(MethodId, uint64_t, rpc::FrameKind, std::string_view, const rpc::MessageLite*, const PartList&, int, bool) override {}

 private:
  bool closed_ = false;
};

}  // namespace ray::raylet
