// Both ends in one process, on loops of their own, with gRPC behind the same port.
#include "ray/rpc/tcp/tcp_carrier.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>

#include "ray/rpc/core/frame.h"
#include "ray/rpc/grpc/grpc_client.h"
#include "ray/rpc/grpc/grpc_server.h"
#include "ray/rpc/grpc/host_port.h"
#include "ray/rpc/tcp/link_preface.h"
#include "ray/testing/certificates/certificates.h"
#include "ray/testing/promise/promise.h"
#include "ray/util/fs.h"
#include "ray/v1/node_link.pb.h"

namespace ray::rpc {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr char kToken[] = "the-token-of-this-cluster";

struct Answer {
  Status status;
  std::string control;
  std::vector<std::string> parts;
};

// One process: echoes kPushTask, counts every method that gets as far as a handler.
class Endpoint {
 public:
  // `authority`: of its certificate; null: without TLS.
  Endpoint(const std::string& folder, const std::string& token, TcpCarrierOptions options, TestAuthority* authority) {
    loop_ = async::EpollLoop::Make({}).value();
    dispatcher_->RegisterFallback([this](Request request, Responder responder) {
      ++handled;
      if (!request.one_way) responder.SendRaw(request.control, request.parts);
    });
    EXPECT_TRUE(MakeDirs(folder).ok());
    std::filesystem::permissions(folder, std::filesystem::perms::owner_all);
    carrier_ = LocalCarrier::Make(loop_.get(), dispatcher_, {.sockets_dir = folder}).value();
    bulk_loop_ = async::EpollLoop::Make({}).value();
    EXPECT_TRUE(bulk_loop_->Start().ok());
    LocalCarrierOptions bulk{.sockets_dir = folder};
    bulk.handlers = loop_.get();
    bulk_ = LocalCarrier::Make(bulk_loop_.get(), dispatcher_, bulk).value();
    SecurityConfig config;
    config.token_file = folder + "/token";
    EXPECT_TRUE(WriteFileAtomic(config.token_file, token + "\n").ok());
    if (authority != nullptr) {
      authority->Issue("node");
      config.tls_cert = authority->certificate("node");
      config.tls_key = authority->key("node");
      config.tls_ca = authority->ca();
    }
    security = Security::Make(config, &clock_).value();
    tcp_ = std::make_unique<TcpCarrier>(
        TcpCarrier::Deps{loop_.get(), carrier_.get(), [this] { return bulk_.get(); }, security, [this](int fd) { server_->Adopt(fd); }},
        options);
    EXPECT_TRUE(loop_->Start().ok());
  }
  ~Endpoint() {
    OnLoop([this] { tcp_->Stop(); });
    if (server_ != nullptr) server_->Stop();
    bulk_->Shutdown();
    carrier_->Shutdown();
    bulk_loop_->Stop();
    OnLoop([] {});
    loop_->Stop();
    tcp_.reset();
  }
  std::string Listen(const std::string& address = "127.0.0.1:0") {
    server_ = GrpcServer::Make({{}, security, /*adopts=*/true}, dispatcher_.get(), loop_.get()).value();
    return tcp_->Listen(address).value();
  }
  template <typename F>
  void OnLoop(F fn) {
    RunOnLoop(loop_.get(), std::move(fn));
  }
  ConnectionPtr Connect(const std::string& target, bool bulk = false, DialFailed on_failed = nullptr) {
    return tcp_->Connect(target, bulk, std::move(on_failed));
  }
  async::EpollLoop* loop() { return loop_.get(); }
  Dispatcher* dispatcher() { return dispatcher_.get(); }

  std::atomic<int> handled{0};
  std::shared_ptr<Security> security;

 private:
  SystemClock clock_;
  std::unique_ptr<async::EpollLoop> loop_, bulk_loop_;
  std::shared_ptr<Dispatcher> dispatcher_ = std::make_shared<Dispatcher>();
  std::unique_ptr<LocalCarrier> carrier_, bulk_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<TcpCarrier> tcp_;
};

Answer Call(const ConnectionPtr& link, const std::string& control, const PartList& parts = {}) {
  std::promise<Answer> promise;
  link->CallRaw(MethodId::kPushTask, control, parts, [&](Status status, Reply reply) {
    Answer answer{std::move(status), std::string(reply.control), {}};
    for (const BufferPtr& part : reply.parts) answer.parts.emplace_back(part->view());
    promise.set_value(std::move(answer));
  });
  return promise.get_future().get();
}

Status EndOf(const ConnectionPtr& link) {
  std::promise<Status> promise;
  link->OnClose([&](const Status& status) { promise.set_value(status); });
  return promise.get_future().get();
}

// A TCP connection that a test speaks by hand.
class RawClient {
 public:
  explicit RawClient(const std::string& address) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_port = htons(ParseHostPort(address)->port);
    inet_pton(AF_INET, "127.0.0.1", &where.sin_addr);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
  }
  ~RawClient() { ::close(fd_); }
  void Send(std::string_view bytes) {
    EXPECT_EQ(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // All that comes until the peer closes.
  std::string ReadAll() {
    std::string all;
    char buffer[4096];
    for (ssize_t n; (n = ::recv(fd_, buffer, sizeof buffer, 0)) > 0;) all.append(buffer, n);
    return all;
  }
  std::string Read(size_t n) {
    std::string all(n, '\0');
    all.resize(std::max<ssize_t>(::recv(fd_, all.data(), n, MSG_WAITALL), 0));
    return all;
  }

 private:
  const int fd_;
};

class TcpCarrierTest : public testing::Test {
 protected:
  TcpCarrierTest() {
    char name[] = "/tmp/ray_tcp_test_XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  ~TcpCarrierTest() override { std::filesystem::remove_all(folder_); }
  std::unique_ptr<Endpoint> Make(const std::string& token = kToken, TcpCarrierOptions options = {}) {
    return std::make_unique<Endpoint>(folder_ + "/" + std::to_string(++made_), token, options, authority_.get());
  }
  // From now on.
  void UseTls() {
    const std::string folder = folder_ + "/authority" + std::to_string(++made_);
    EXPECT_TRUE(MakeDirs(folder).ok());
    authority_ = std::make_unique<TestAuthority>(folder);
  }

  std::string folder_;
  std::unique_ptr<TestAuthority> authority_;
  int made_ = 0;
};

class PlainAndTlsTest : public TcpCarrierTest, public testing::WithParamInterface<bool> {
 protected:
  PlainAndTlsTest() {
    if (GetParam()) UseTls();
  }
};
INSTANTIATE_TEST_SUITE_P(TcpCarrier, PlainAndTlsTest, testing::Bool(),
                         [](const auto& info) { return std::string(info.param ? "Tls" : "Plain"); });

TEST_P(PlainAndTlsTest, CallsGoBothWaysWithParts) {
  auto a = Make(), b = Make();
  ConnectionPtr incoming;
  std::promise<void> came;
  b->dispatcher()->Register(MethodId::kExit, [&](Request request, Responder) {
    incoming = request.connection;
    came.set_value();
  });
  for (const char* host : {"127.0.0.1:0", "[::1]:0"}) {
    const std::string address = b->Listen(host);
    EXPECT_THAT(address, StartsWith(std::string(host).substr(0, std::string(host).size() - 1)));
    const ConnectionPtr link = a->Connect(address);
    const std::string big(5 << 20, 'b');
    const Answer answer = Call(link, "control", {HeapBuffer::CopyOf("small"), HeapBuffer::CopyOf(big)});
    ASSERT_TRUE(answer.status.ok()) << answer.status.ToString();
    EXPECT_EQ(answer.control, "control");
    EXPECT_EQ(answer.parts, (std::vector<std::string>{"small", big}));
    came = {};
    link->NotifyRaw(MethodId::kExit, "", {});
    came.get_future().get();
    EXPECT_EQ(incoming->peer_pid(), -1);
    EXPECT_EQ(Call(incoming, "back").control, "back");
    incoming = nullptr;
  }
}

TEST_P(PlainAndTlsTest, FramesThatAreSentBeforeTheConnectionIsThereArriveInOrder) {
  auto a = Make(), b = Make();
  const std::string address = b->Listen();
  const ConnectionPtr link = a->Connect(address);
  std::vector<std::promise<std::string>> answers(100);
  for (size_t i = 0; i < answers.size(); ++i) {
    link->CallRaw(MethodId::kPushTask, std::to_string(i), {},
                  [&, i](const Status& status, const Reply& reply) { answers[i].set_value(std::string(reply.control)); });
  }
  for (size_t i = 0; i < answers.size(); ++i) EXPECT_EQ(answers[i].get_future().get(), std::to_string(i));
}

// A port where nobody listens, and where somebody may later.
class FreePort {
 public:
  FreePort() : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in where{};
    where.sin_family = AF_INET;
    inet_pton(AF_INET, "127.0.0.1", &where.sin_addr);
    socklen_t length = sizeof where;
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&where), length), 0);
    EXPECT_EQ(::getsockname(fd_, reinterpret_cast<sockaddr*>(&where), &length), 0);
    address = "127.0.0.1:" + std::to_string(ntohs(where.sin_port));
  }
  ~FreePort() { Release(); }
  void Release() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  std::string address;

 private:
  int fd_;
};

// What was sent while nobody listened arrives when somebody does: in order, once, and without a word of the failed attempts.
TEST_P(PlainAndTlsTest, WhatIsSentBeforeThePeerCanBeReachedWaitsForIt) {
  for (const bool bulk : {false, true}) {
    auto a = Make(), b = Make();
    FreePort port;
    TestPromise<Status> failed;
    std::atomic<int> failures{0};
    std::function<void()> again;
    const ConnectionPtr link = a->Connect(port.address, bulk, [&](const Status& why, std::function<void()> dial) {
      EXPECT_TRUE(a->loop()->InLoop());
      if (++failures < 3) return dial();
      again = std::move(dial);
      failed.set_value(why);
    });
    const std::string big(5 << 20, 'b');
    std::vector<std::promise<Answer>> answers(50);
    for (size_t i = 0; i < answers.size(); ++i) {
      link->CallRaw(MethodId::kPushTask, std::to_string(i), {HeapBuffer::CopyOf(big.substr(0, i % 2 == 0 ? 10 : 100 << 10))},
                    [&, i](Status status, const Reply& reply) {
                      answers[i].set_value({std::move(status), std::string(reply.control), {}});
                    });
    }
    EXPECT_THAT(failed.get_future().get().message(), HasSubstr("connecting to " + port.address));
    EXPECT_FALSE(link->closed());
    EXPECT_GT(link->unsent_bytes(), size_t{2} << 20);
    port.Release();
    EXPECT_EQ(b->Listen(port.address), port.address);
    a->OnLoop([&] { again(); });
    for (size_t i = 0; i < answers.size(); ++i) {
      const Answer answer = answers[i].get_future().get();
      EXPECT_TRUE(answer.status.ok()) << answer.status.ToString();
      EXPECT_EQ(answer.control, std::to_string(i));
    }
    EXPECT_EQ(b->handled, 50);
    EXPECT_EQ(failures, 3);
    a->OnLoop([&] { again(); });  // it is connected since: nothing happens
    EXPECT_TRUE(Call(link, "x").status.ok());
  }
}

TEST_P(PlainAndTlsTest, ALinkThatWaitsForItsPeerCanBeClosed) {
  auto a = Make();
  FreePort port;
  for (const bool bulk : {false, true}) {
    TestPromise<std::function<void()>> failed;
    const ConnectionPtr link =
        a->Connect(port.address, bulk, [&](const Status&, std::function<void()> again) { failed.set_value(std::move(again)); });
    TestPromise<Status> answer;
    CallOptions options;
    link->CallRaw(
        MethodId::kPushTask, "x", {}, [&](Status status, const Reply&) { answer.set_value(std::move(status)); }, options);
    const auto again = failed.get_future().get();
    options.timeout = std::chrono::milliseconds(20);
    TestPromise<Status> late;
    link->CallRaw(
        MethodId::kPushTask, "x", {}, [&](Status status, const Reply&) { late.set_value(std::move(status)); }, options);
    EXPECT_EQ(late.get_future().get().code(), StatusCode::kDeadlineExceeded) << "deadlines hold meanwhile";
    link->Close(Status::Unavailable("its node is dead"));
    EXPECT_EQ(answer.get_future().get().message(), "its node is dead");
    EXPECT_EQ(EndOf(link).message(), "its node is dead");
    EXPECT_EQ(link->unsent_bytes(), 0u);
    a->OnLoop([&] { again(); });  // too late
  }
}

// The same while an attempt is under way: nothing answers there.
TEST_P(PlainAndTlsTest, AnAttemptEndsInTimeOrWithItsLink) {
  TcpCarrierOptions options;
  options.dial_timeout = std::chrono::milliseconds(50);
  auto a = Make(kToken, options);
  // A listener whose queue is full answers nobody.
  const int deaf = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  inet_pton(AF_INET, "127.0.0.1", &where.sin_addr);
  socklen_t length = sizeof where;
  ASSERT_EQ(::bind(deaf, reinterpret_cast<sockaddr*>(&where), length), 0);
  ASSERT_EQ(::listen(deaf, 0), 0);
  ASSERT_EQ(::getsockname(deaf, reinterpret_cast<sockaddr*>(&where), &length), 0);
  const std::string address = "127.0.0.1:" + std::to_string(ntohs(where.sin_port));
  RawClient first(address);
  TestPromise<Status> failed;
  std::atomic<int> failures{0};
  const ConnectionPtr link = a->Connect(address, false, [&](const Status& why, std::function<void()> again) {
    if (++failures == 1) failed.set_value(why);
    again();
  });
  EXPECT_EQ(failed.get_future().get().code(), StatusCode::kDeadlineExceeded);
  link->Close(Status::Unavailable("its node is dead"));
  EXPECT_EQ(EndOf(link).message(), "its node is dead");
  const ConnectionPtr other = a->Connect(address, false, [](const Status&, std::function<void()> again) { again(); });
  ::close(deaf);
  a = nullptr;  // stops while `other` is being dialled
  EXPECT_TRUE(other->closed());
}

// No further attempt would mend it.
TEST_F(TcpCarrierTest, WhatCannotPassEndsTheLinkAtOnce) {
  const auto never = [](const Status& why, const std::function<void()>&) { ADD_FAILURE() << why.ToString(); };
  auto stranger = Make("the-token-of-another-cluster"), b = Make();
  EXPECT_EQ(EndOf(stranger->Connect(b->Listen(), false, never)).code(), StatusCode::kUnauthenticated);
  EXPECT_EQ(EndOf(b->Connect("nowhere", false, never)).code(), StatusCode::kInvalidArgument);
  UseTls();
  auto c = Make();
  const std::string address = c->Listen();
  UseTls();
  auto d = Make();
  EXPECT_THAT(EndOf(d->Connect(address, false, never)).message(), HasSubstr("certificate"));
  EXPECT_TRUE(WriteFileAtomic(authority_->certificate("node"), "none").ok());
  EXPECT_THAT(EndOf(d->Connect(address, false, never)).message(), HasSubstr("cannot be used for TLS"));
}

TEST_P(PlainAndTlsTest, WrongTokenIsRefusedBeforeAnyFrame) {
  auto a = Make("the-token-of-another-cluster"), b = Make();
  const std::string address = b->Listen();
  const ConnectionPtr link = a->Connect(address);
  const Answer answer = Call(link, "x");
  EXPECT_EQ(answer.status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(answer.status.message(), HasSubstr("RAY_AUTH_TOKEN"));
  const Status end = EndOf(link);
  EXPECT_EQ(end.code(), StatusCode::kUnauthenticated);
  EXPECT_THAT(end.message(), Not(HasSubstr(kToken)));
  EXPECT_EQ(b->handled, 0);
}

TEST_F(TcpCarrierTest, NoFrameIsLookedAtWithoutTheToken) {
  auto b = Make();
  const std::string address = b->Listen();
  std::string frame;
  AppendFrame(*MakeFrameHeader(FrameKind::kNotify, MethodId::kPushTask, 0, 0, 1, {}, 1 << 20), "x", {}, &frame);
  const std::string token(kToken);
  for (const std::string& bad : {std::string(), token, "Bearer " + token + "x", "Bearer " + token.substr(1), "Basic " + token}) {
    RawClient client(address);
    client.Send(EncodePreface(bad) + frame);
    const std::string all = client.ReadAll();
    EXPECT_EQ(DecodeWelcome(all).status().code(), StatusCode::kUnauthenticated) << bad;
  }
  RawClient garbage(address);
  garbage.Send(std::string(kLinkMagic) + "\xff\xff" + frame);
  EXPECT_EQ(garbage.ReadAll(), "");
  EXPECT_EQ(b->handled, 0);
  // The same with it, a byte at a time.
  RawClient client(address);
  for (const char byte : EncodePreface("Bearer " + token)) client.Send({&byte, 1});
  EXPECT_EQ(client.Read(1), EncodeWelcome({}));
  frame.clear();
  AppendFrame(*MakeFrameHeader(FrameKind::kRequest, MethodId::kPushTask, 1, 0, 4, {}, 1 << 20), "echo", {}, &frame);
  client.Send(frame);
  EXPECT_THAT(client.Read(kFrameHeaderBytes + 4), testing::EndsWith("echo"));
  EXPECT_EQ(b->handled, 1);
}

TEST_P(PlainAndTlsTest, ADescriptorIsNeitherSentNorTaken) {
  auto a = Make(), b = Make();
  b->dispatcher()->Register(MethodId::kStoreConnect, [](Request, Responder responder) { responder.SendWithFd(v1::LinkEmpty(), 0); });
  const ConnectionPtr link = a->Connect(b->Listen());
  std::promise<Status> promise;
  link->CallRaw(MethodId::kStoreConnect, "", {}, [&](Status status, const Reply&) { promise.set_value(std::move(status)); });
  EXPECT_EQ(promise.get_future().get().code(), StatusCode::kUnimplemented);
  EXPECT_TRUE(Call(link, "x").status.ok());
}

TEST_P(PlainAndTlsTest, OtherProtocolsGoToGrpc) {
  auto a = Make(), b = Make();
  const std::string address = b->Listen();
  GrpcClient grpc(a->loop(), a->security);
  const ConnectionPtr stream = grpc.Connect(address, a->dispatcher());
  EXPECT_EQ(Call(stream, "by gRPC").control, "by gRPC");
  EXPECT_EQ(Call(a->Connect(address), "straight").control, "straight");
  auto stranger = Make("the-token-of-another-cluster");
  GrpcClient wrong(stranger->loop(), stranger->security);
  EXPECT_EQ(EndOf(wrong.Connect(address, stranger->dispatcher())).code(), StatusCode::kUnauthenticated);
  wrong.Stop();
  grpc.Stop();
}

TEST_F(TcpCarrierTest, NothingPassesWithoutACertificateOfTheSameAuthority) {
  auto plain = Make();
  UseTls();
  auto a = Make(), b = Make();
  const std::string address = b->Listen();
  UseTls();
  auto stranger = Make();
  for (const bool bulk : {false, true}) {
    EXPECT_EQ(Call(plain->Connect(address, bulk), "x").status.code(), StatusCode::kUnavailable);
    EXPECT_THAT(EndOf(stranger->Connect(address, bulk)).message(), HasSubstr("certificate"));
    EXPECT_EQ(Call(a->Connect(plain->Listen(), bulk), "x").status.code(), StatusCode::kUnavailable);
  }
  RawClient client(address);  // the token alone does not help
  client.Send(std::string(kTlsLinkMagic) + EncodePreface("Bearer " + std::string(kToken)));
  EXPECT_NE(client.ReadAll().substr(0, 1), EncodeWelcome({}));
  EXPECT_EQ(b->handled, 0);
  EXPECT_EQ(plain->handled, 0);
  EXPECT_EQ(Call(a->Connect(address), "with both").control, "with both");
}

TEST_F(TcpCarrierTest, CertificatesAreReplacedWithoutARestart) {
  UseTls();
  auto a = Make(), b = Make();
  const std::string address = b->Listen();
  EXPECT_TRUE(Call(a->Connect(address), "x").status.ok());
  const std::string before = ReadFile(authority_->certificate("node")).value();
  authority_->Issue("node");
  EXPECT_NE(ReadFile(authority_->certificate("node")).value(), before);
  EXPECT_TRUE(Call(a->Connect(address), "x").status.ok());
  EXPECT_TRUE(WriteFileAtomic(authority_->certificate("node"), "none").ok());
  EXPECT_THAT(EndOf(a->Connect(address)).message(), HasSubstr("cannot be used for TLS"));
}

// More than a link reads at a time, from a handler's loop that takes it slowly: what the filter holds back comes in the end.
TEST_P(PlainAndTlsTest, MuchAtOnceComesThroughInBothDirections) {
  auto a = Make(), b = Make();
  const std::string address = b->Listen();
  for (const bool bulk : {false, true}) {
    const ConnectionPtr link = a->Connect(address, bulk);
    const std::string part(3 << 20, 'p');
    std::vector<std::promise<size_t>> answers(24);
    for (auto& answer : answers) {
      link->CallRaw(MethodId::kPushTask, "x", {HeapBuffer::CopyOf(part)},
                    [&](const Status& status, const Reply& reply) { answer.set_value(status.ok() ? reply.parts[0]->size() : 0); });
    }
    for (auto& answer : answers) EXPECT_EQ(answer.get_future().get(), part.size());
  }
}

TEST_F(TcpCarrierTest, WhoeverReachesThePortCannotFillTheLog) {
  constexpr int kLinks = 300;
  TcpCarrierOptions options;
  options.refusals_every = std::chrono::milliseconds(200);
  UseTls();
  auto b = Make(kToken, options);
  const std::string address = b->Listen();
  testing::internal::CaptureStderr();  // into a file
  for (int i = 0; i < kLinks; ++i) {
    RawClient client(address);
    client.Send(EncodePreface("Bearer x"));
    EXPECT_EQ(client.ReadAll(), "");
  }
  // Each refusal is told of, by its own line or with others.
  const auto said = [] {
    std::string text(64 << 10, '\0');
    text.resize(static_cast<size_t>(std::max<ssize_t>(::pread(STDERR_FILENO, text.data(), text.size(), 0), 0)));
    return text;
  };
  const auto told = [](const std::string& text) {
    constexpr std::string_view kAlone = "a link without TLS was refused", kMore = " more links were refused";
    int count = 0;
    for (size_t at = 0; (at = text.find(kAlone, at)) != std::string::npos; ++at) ++count;
    for (size_t at = 0; (at = text.find(kMore, at)) != std::string::npos; ++at) {
      count += std::atoi(text.c_str() + text.rfind(' ', at - 1) + 1);
    }
    return count;
  };
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (told(said()) < kLinks && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(told(text), kLinks) << text;
  EXPECT_LT(std::ranges::count(text, '\n'), kLinks / 3) << text;
}

TEST_F(TcpCarrierTest, SilentStrangersAreDropped) {
  TcpCarrierOptions options;
  options.preface_timeout = std::chrono::milliseconds(50);
  auto b = Make(kToken, options);
  const std::string address = b->Listen();
  RawClient silent(address), slow(address), half(address);
  slow.Send("RAY");
  half.Send(EncodePreface("Bearer x").substr(0, 12));
  EXPECT_EQ(silent.ReadAll() + slow.ReadAll() + half.ReadAll(), "");
}

TEST_F(TcpCarrierTest, TheOldestOfTooManyStrangersGoes) {
  TcpCarrierOptions options;
  options.preface_timeout = std::chrono::hours(1);
  options.max_strangers = 3;
  auto b = Make(kToken, options);
  const std::string address = b->Listen();
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 4; ++i) clients.push_back(std::make_unique<RawClient>(address));
  EXPECT_EQ(clients[0]->ReadAll(), "");
  std::vector<std::unique_ptr<RawClient>> halves;
  for (int i = 0; i < 4; ++i) {
    halves.push_back(std::make_unique<RawClient>(address));
    halves.back()->Send(EncodePreface("Bearer x").substr(0, 12));
  }
  EXPECT_EQ(halves[0]->ReadAll(), "");
}

TEST_P(PlainAndTlsTest, ConnectingInVainEndsWithTheReason) {
  auto a = Make();
  std::string nobody;
  {
    auto b = Make();
    nobody = b->Listen();
  }
  EXPECT_EQ(Call(a->Connect(nobody), "x").status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(EndOf(a->Connect(nobody)).message(), HasSubstr("refused"));
  EXPECT_EQ(EndOf(a->Connect("no address")).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(TcpCarrier::CanConnect("127.0.0.1:1"));
  EXPECT_TRUE(TcpCarrier::CanConnect("[::1]:1"));
  EXPECT_FALSE(TcpCarrier::CanConnect("head.example:1")) << "looking it up could block";
}

class HeapLanding final : public Landing {
 public:
  explicit HeapLanding(std::string* bytes) : Landing(reinterpret_cast<uint8_t*>(bytes->data()), bytes->size()) {}
};

PartList Echo(const ConnectionPtr& link, const BufferPtr& part, std::shared_ptr<Landing> landing) {
  std::promise<PartList> promise;
  CallOptions options;
  options.landing = std::move(landing);
  link->CallRaw(
      MethodId::kPushTask, "x", {part},
      [&](const Status& status, Reply reply) {
        EXPECT_TRUE(status.ok()) << status.ToString();
        promise.set_value(std::move(reply.parts));
      },
      options);
  return promise.get_future().get();
}

TEST_P(PlainAndTlsTest, ABulkLinkReceivesRepliesWhereTheyAreWanted) {
  auto a = Make();
  auto b = Make();
  auto link = a->Connect(b->Listen(), /*bulk=*/true);
  ASSERT_TRUE(link->LandsReplies());
  std::string bytes(5 << 20, 'a');
  for (size_t i = 0; i < bytes.size(); i += 997) bytes[i] = static_cast<char>(i);
  const BufferPtr part = HeapBuffer::CopyOf(bytes);
  for (int i = 0; i < 3; ++i) {
    std::string memory(bytes.size(), 0);
    auto landing = std::make_shared<HeapLanding>(&memory);
    const PartList parts = Echo(link, part, landing);
    ASSERT_EQ(parts.size(), 1u);
    EXPECT_EQ(parts[0], landing);
    EXPECT_TRUE(memory == bytes);
  }
  // Of another size, or not wanted any more: the part has memory of its own.
  std::string memory(bytes.size(), 0);
  auto revoked = std::make_shared<HeapLanding>(&memory);
  revoked->Revoke();
  EXPECT_TRUE(Echo(link, part, revoked)[0]->view() == bytes);
  EXPECT_EQ(memory[0], 0);
  std::string larger(bytes.size() + 1, 0);
  EXPECT_TRUE(Echo(link, part, std::make_shared<HeapLanding>(&larger))[0]->view() == bytes);
  EXPECT_EQ(larger[0], 0);
  // Small replies are copied.
  std::string small(10, 0);
  EXPECT_EQ(Echo(link, HeapBuffer::CopyOf("0123456789"), std::make_shared<HeapLanding>(&small))[0]->view(), "0123456789");
}

TEST_P(PlainAndTlsTest, MuchOnABulkLinkComesInOrderAndItsEndIsTold) {
  auto a = Make();
  auto b = Make();
  auto link = a->Connect(b->Listen(), /*bulk=*/true);
  constexpr int kCalls = 60;
  const BufferPtr part = HeapBuffer::CopyOf(std::string(1 << 20, 'b'));  // more under way than is read ahead of the handlers
  std::promise<void> all;
  std::string order;
  for (int i = 0; i < kCalls; ++i) {
    link->CallRaw(MethodId::kPushTask, std::string(1, static_cast<char>('A' + i)), {part}, [&](const Status& status, const Reply& reply) {
      EXPECT_TRUE(status.ok()) << status.ToString();
      order += reply.control;
      if (order.size() == kCalls) all.set_value();
    });
  }
  all.get_future().get();
  for (int i = 0; i < kCalls; ++i) EXPECT_EQ(order[i], 'A' + i);
  EXPECT_EQ(link->unsent_bytes(), 0u);
  b = nullptr;
  EXPECT_EQ(EndOf(link).code(), StatusCode::kUnavailable);
  EXPECT_EQ(Call(link, "x").status.code(), StatusCode::kUnavailable);
}

TEST_P(PlainAndTlsTest, ABulkLinkIsRefusedWithoutTheToken) {
  auto b = Make();
  const std::string address = b->Listen();
  auto stranger = Make(std::string(64, 'b'));
  EXPECT_EQ(Call(stranger->Connect(address, /*bulk=*/true), "x").status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(EndOf(stranger->Connect(address, /*bulk=*/true)).code(), StatusCode::kUnauthenticated);
  EXPECT_EQ(b->handled, 0);
}

TEST_P(PlainAndTlsTest, AListenerIsRefusedWhereSecurityRefusesIt) {
  auto a = Make();
  SystemClock clock;
  SecurityConfig config;
  config.disabled = true;
  auto open = Security::Make(config, &clock).value();
  TcpCarrier carrier(TcpCarrier::Deps{a->loop(), nullptr, nullptr, open, nullptr});
  EXPECT_FALSE(carrier.Listen("0.0.0.0:0").ok());
}

}  // namespace
}  // namespace ray::rpc
