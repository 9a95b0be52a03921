// Nodes in one process, with real listeners and links between them.
#include "ray/raylet/nodes/node_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <future>
#include <string>

#include "ray/rpc/grpc/grpc_client.h"
#include "ray/rpc/grpc/grpc_server.h"
#include "ray/rpc/grpc/host_port.h"
#include "ray/testing/promise/promise.h"
#include "ray/util/fs.h"
#include "ray/v1/node_link.pb.h"
#include "ray/wire/version.h"

namespace ray::raylet {
namespace {

using testing::HasSubstr;

// One node's end: a listener, links, and a method that tells whose it is.
class Endpoint {
 public:
  Endpoint(async::EpollLoop* loop, std::shared_ptr<rpc::Security> security, const std::string& listen) : loop_(loop) {
    OnLoop([&] {
      directory_ = std::make_unique<NodeDirectory>(
          NodeDirectory::Deps{loop, id, !listen.empty(),
                              [this](const std::string& a, Lane, bool, rpc::DialFailed) { return client_->Connect(a, &dispatcher_); },
                              [this](const Status& status) { refused.set_value(status); }},
          LinkConfig{});
      directory_->RegisterHandlers(&dispatcher_);
      dispatcher_.RegisterTyped<v1::LinkEmpty>(MethodId::kLinkProbe, [this](const v1::LinkEmpty&, rpc::Request&, rpc::Responder responder) {
        v1::LinkWelcome me;
        me.set_node_id(id.Binary());
        responder.Send(me);
      });
    });
    client_ = std::make_unique<rpc::GrpcClient>(loop, security);
    if (listen.empty()) return;
    server_ = std::move(*rpc::GrpcServer::Make({{listen}, security}, &dispatcher_, loop));
  }
  ~Endpoint() {
    if (directory_ != nullptr) OnLoop([this] { directory_->Close(); });
    if (server_ != nullptr) server_->Stop();
    client_->Stop();
    OnLoop([this] { directory_.reset(); });
  }
  template <typename F>
  void OnLoop(F fn) {
    RunOnLoop(loop_, std::move(fn));
  }
  v1::NodeInfo Info(bool alive = true) const {
    v1::NodeInfo info;
    info.set_node_id(id.Binary());
    info.set_alive(alive);
    if (!alive) info.set_death_reason("told so");
    if (server_ == nullptr) return info;
    const auto where = *rpc::ParseHostPort(server_->addresses().front());
    info.set_ip(where.host);
    info.set_port(where.port);
    return info;
  }
  void Hear(const v1::NodeInfo& info) {
    OnLoop([&] { directory_->OnNews(info); });
  }
  // Calls the node over its link; the id that it gives.
  Result<NodeId> Ask(const NodeId& node, Lane lane = Lane::kControl) {
    TestPromise<Result<NodeId>> promise;
    OnLoop([&] {
      const auto link = lane == Lane::kControl ? directory_->Link(node) : directory_->BulkLink(node);
      if (link == nullptr) return promise.set_value(Status::NotFound("no link"));
      rpc::CallTyped<v1::LinkWelcome>(*link, MethodId::kLinkProbe, v1::LinkEmpty(), {},
                                      [&promise](const Status& status, const v1::LinkWelcome& reply, const PartList&) {
                                        promise.set_value(status.ok() ? Result<NodeId>(NodeId::FromBinaryOrNil(reply.node_id())) : status);
                                      });
    });
    return promise.get_future().get();
  }
  // How another node answers to this one's first word over a link of its own, were its protocol that version.
  Status Greet(const Endpoint& other, const std::string& protocol_version) {
    const auto link = client_->Connect(other.server_->addresses().front(), &dispatcher_);
    v1::LinkHello hello;
    hello.set_node_id(id.Binary());
    hello.set_protocol_version(protocol_version);
    TestPromise<Status> promise;
    OnLoop([&] {
      rpc::CallTyped<v1::LinkWelcome>(
          *link, MethodId::kLinkHello, hello, {},
          [&promise](const Status& status, const v1::LinkWelcome&, const PartList&) { promise.set_value(status); });
    });
    const Status answer = promise.get_future().get();
    OnLoop([&] { link->Close(Status::Cancelled("greeted")); });
    return answer;
  }
  NodeDirectory& directory() { return *directory_; }

  const NodeId id = NodeId::FromRandom();
  TestPromise<Status> refused;

 private:
  async::EpollLoop* const loop_;
  rpc::Dispatcher dispatcher_;
  std::unique_ptr<NodeDirectory> directory_;
  std::unique_ptr<rpc::GrpcClient> client_;
  std::unique_ptr<rpc::GrpcServer> server_;
};

class NodeDirectoryTest : public testing::TestWithParam<std::string> {
 protected:
  NodeDirectoryTest() {
    char name[] = "/tmp/ray_nodes_test_XXXXXX";
    folder_ = ::mkdtemp(name);
    loop_ = std::move(*async::EpollLoop::Make({}));
    EXPECT_TRUE(loop_->Start().ok());
  }
  ~NodeDirectoryTest() override {
    loop_->Stop();
    (void)RemoveTree(folder_);
  }
  std::shared_ptr<rpc::Security> Token(const std::string& token) {
    const std::string file = folder_ + "/" + token;
    EXPECT_TRUE(WriteFileAtomic(file, token).ok());
    return *rpc::Security::Make({.token_file = file}, &clock_);
  }

  SystemClock clock_;
  std::string folder_;
  std::unique_ptr<async::EpollLoop> loop_;
};

TEST_P(NodeDirectoryTest, NodesReachEachOther) {
  auto token = Token("the-token-of-this-cluster");
  Endpoint a(loop_.get(), token, GetParam()), b(loop_.get(), token, GetParam());
  EXPECT_EQ(a.Ask(b.id).status().code(), StatusCode::kNotFound) << "nothing is known of it";
  a.Hear(b.Info());
  b.Hear(a.Info());
  for (Lane lane : kLanes) {
    EXPECT_EQ(*a.Ask(b.id, lane), b.id);
    EXPECT_EQ(*b.Ask(a.id, lane), a.id);
  }
}

// What one node has on its links to another stands when that one dials its address for a third node, which had it before, and gives up.
TEST_P(NodeDirectoryTest, ALinkMeantForAnotherNodeIsNone) {
  TestPromise<std::string> given_up;
  bool told = false;  // it is dialled again
  int broke = 0;
  auto token = Token("the-token-of-this-cluster");
  Endpoint a(loop_.get(), token, GetParam()), b(loop_.get(), token, GetParam());
  a.Hear(b.Info());
  EXPECT_EQ(*a.Ask(b.id), b.id);
  a.OnLoop([&] {
    a.directory().OnLinkBroke([&](const NodeId&, const std::string& reason) {
      if (!std::exchange(told, true)) given_up.set_value(reason);
    });
  });
  b.OnLoop([&] { b.directory().OnLinkBroke([&broke](const NodeId&, const std::string&) { ++broke; }); });
  v1::NodeInfo before = b.Info();
  before.set_node_id(NodeId::FromRandom().Binary());
  a.Hear(before);
  a.OnLoop([&] { a.directory().Link(NodeId::FromBinaryOrNil(before.node_id())); });
  EXPECT_THAT(given_up.get_future().get(), HasSubstr("is not here any more"));
  EXPECT_EQ(*a.Ask(b.id), b.id);
  b.OnLoop([&] { EXPECT_EQ(broke, 0); });
}

INSTANTIATE_TEST_SUITE_P(Families, NodeDirectoryTest, testing::Values("127.0.0.1:0", "[::1]:0"));

TEST_F(NodeDirectoryTest, NodeWithoutListenerDialsOut) {
  auto token = Token("the-token-of-this-cluster");
  Endpoint a(loop_.get(), token, "127.0.0.1:0"), outgoing(loop_.get(), token, "");
  TestPromise<NodeId> up;
  a.directory().OnLinkUp([&](const NodeId& node) { up.set_value(node); });
  a.Hear(outgoing.Info());
  EXPECT_EQ(a.Ask(outgoing.id).status().code(), StatusCode::kNotFound);
  outgoing.Hear(a.Info());
  EXPECT_EQ(up.get_future().get(), outgoing.id);
  EXPECT_EQ(*a.Ask(outgoing.id), outgoing.id);
}

TEST_F(NodeDirectoryTest, WrongTokenGetsNoLink) {
  Endpoint a(loop_.get(), Token("the-token-of-this-cluster"), "127.0.0.1:0"),
      b(loop_.get(), Token("the-token-of-another-one"), "127.0.0.1:0");
  b.Hear(a.Info());
  const Status status = b.Ask(a.id).status();
  EXPECT_EQ(status.code(), StatusCode::kUnauthenticated);
  EXPECT_THAT(status.message(), HasSubstr("not that of this cluster"));
}

TEST_F(NodeDirectoryTest, ProtocolsMayBeOneVersionApart) {
  auto token = Token("the-token-of-this-cluster");
  Endpoint a(loop_.get(), token, "127.0.0.1:0"), b(loop_.get(), token, "127.0.0.1:0");
  const int own = std::stoi(std::string(kProtocolVersion));
  for (const int version : {own - 1, own, own + 1}) EXPECT_TRUE(b.Greet(a, std::to_string(version)).ok()) << version;
  const std::string far = std::to_string(own + 2);
  const Status refused = b.Greet(a, far);
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("this node speaks protocol " + std::string(kProtocolVersion) + ", the caller " + far));
}

TEST_F(NodeDirectoryTest, DeathIsToldBeforeLinksCloseAndTheDeadIsRefused) {
  auto token = Token("the-token-of-this-cluster");
  Endpoint a(loop_.get(), token, "127.0.0.1:0"), b(loop_.get(), token, "127.0.0.1:0");
  std::vector<std::string> log;
  a.directory().OnNodeDead([&](const NodeId& node, const std::string& reason) {
    EXPECT_EQ(node, b.id);
    log.push_back("dead: " + reason);
  });
  TestPromise<void> closed;
  a.Hear(b.Info());
  b.Hear(a.Info());
  ASSERT_TRUE(a.Ask(b.id).ok());
  ASSERT_TRUE(b.Ask(a.id).ok());
  a.OnLoop([&] {
    a.directory().Link(b.id)->OnClose([&](const Status&) {
      log.push_back("closed");
      closed.set_value();
    });
  });
  a.Hear(b.Info(false));
  closed.get_future().get();
  EXPECT_THAT(log, testing::ElementsAre("dead: told so", "closed"));
  EXPECT_EQ(a.Ask(b.id).status().code(), StatusCode::kNotFound);
  // It does not know, and tries: the first call may still take the link that just broke.
  auto refused = b.refused.get_future();
  const Time deadline = loop_->clock().Now() + std::chrono::seconds(10);
  while (refused.wait_for(std::chrono::seconds(0)) != std::future_status::ready && loop_->clock().Now() < deadline) {
    EXPECT_FALSE(b.Ask(a.id).ok());
  }
  ASSERT_EQ(refused.wait_for(std::chrono::seconds(0)), std::future_status::ready);
  EXPECT_THAT(refused.get().message(), HasSubstr("declared dead"));
}

}  // namespace
}  // namespace ray::raylet
