#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <future>
#include <thread>

#include "ray/rpc/grpc/grpc_client.h"
#include "ray/rpc/grpc/grpc_server.h"
#include "ray/testing/limits/no_more_descriptors.h"
#include "ray/testing/promise/promise.h"
#include "ray/util/fs.h"
#include "ray/v1/gcs_kv.pb.h"

namespace ray::rpc {
namespace {

using async::EpollLoop;

// What a call brought, copied out of the callback.
struct Answer {
  Status status;
  std::string control;
  std::vector<std::string> parts;
};

ReplyCallback Into(TestPromise<Answer>* promise) {
  return [promise](Status status, Reply reply) {
    Answer answer{std::move(status), std::string(reply.control), {}};
    for (const BufferPtr& part : reply.parts) answer.parts.emplace_back(part->view());
    promise->set_value(std::move(answer));
  };
}

class GrpcTest : public testing::Test {
 protected:
  GrpcTest() {
    char name[] = "/tmp/ray_grpc_test_XXXXXX";
    folder_ = ::mkdtemp(name);
    loop_ = std::move(EpollLoop::Make({})).value();
    EXPECT_TRUE(loop_->Start().ok());
    client_ = std::make_unique<GrpcClient>(loop_.get());
    // Echo: the key, and the parts, come back.
    server_dispatcher_.RegisterTyped<v1::KvGetRequest>(MethodId::kKvGet,
                                                       [](const v1::KvGetRequest& message, Request& request, Responder responder) {
                                                         if (message.key() == "bad")
                                                           return responder.Fail(Status(StatusCode::kNotFound, "no such key", 22));
                                                         v1::KvGetReply reply;
                                                         reply.set_found(true);
                                                         reply.set_value(message.key());
                                                         responder.Send(reply, request.parts);
                                                       });
    // Calls the caller back before it answers.
    server_dispatcher_.RegisterTyped<v1::KvDelRequest>(
        MethodId::kKvDel, [](const v1::KvDelRequest&, Request& request, Responder responder) {
          auto shared = std::make_shared<Responder>(std::move(responder));
          CallTyped<v1::KvExistsReply>(*request.connection, MethodId::kKvExists, v1::KvGetRequest(), {},
                                       [shared](Status status, v1::KvExistsReply& reply, PartList) {
                                         v1::KvDelReply answer;
                                         answer.set_deleted(status.ok() && reply.exists() ? 7 : -1);
                                         shared->Send(answer);
                                       });
        });
    // Never answers, and tells when its caller has gone.
    server_dispatcher_.RegisterTyped<v1::KvKeysRequest>(
        MethodId::kKvKeys, [this](const v1::KvKeysRequest&, Request& request, Responder responder) {
          held_.push_back(std::move(responder));
          request.connection->OnClose([this](const Status& status) { peer_gone_.set_value(status); });
          holding_.set_value();
        });
    client_dispatcher_.RegisterTyped<v1::KvGetRequest>(MethodId::kKvExists, [](const v1::KvGetRequest&, Request&, Responder responder) {
      v1::KvExistsReply reply;
      reply.set_exists(true);
      responder.Send(reply);
    });
  }
  ~GrpcTest() override {
    client_->Stop();
    if (server_) server_->Stop();
    loop_->Stop();
    held_.clear();
    client_.reset();
    server_.reset();
    ::unlink(path_.c_str());
    for (const std::string& folder : deep_) ::rmdir(folder.c_str());
    ::rmdir(folder_.c_str());
  }

  void Serve(const std::string& name = "s") {
    path_ = folder_ + "/" + name;
    Result<std::unique_ptr<GrpcServer>> server = GrpcServer::Make({{"unix:" + path_}}, &server_dispatcher_, loop_.get());
    ASSERT_TRUE(server.ok()) << server.status().ToString();
    server_ = std::move(server).value();
  }
  ConnectionPtr Connect() { return client_->Connect("unix:" + path_, &client_dispatcher_); }

  static Answer Get(const ConnectionPtr& connection, const std::string& key, const PartList& parts = {}) {
    v1::KvGetRequest request;
    request.set_key(key);
    TestPromise<Answer> promise;
    connection->Call(MethodId::kKvGet, request, parts, Into(&promise));
    return promise.get_future().get();
  }

  std::string folder_, path_;
  std::vector<std::string> deep_;
  std::unique_ptr<EpollLoop> loop_;
  Dispatcher server_dispatcher_, client_dispatcher_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<GrpcClient> client_;
  std::vector<Responder> held_;
  TestPromise<void> holding_;
  TestPromise<Status> peer_gone_;
};

TEST_F(GrpcTest, StreamCallsWithPartsAndErrors) {
  Serve();
  ConnectionPtr link = Connect();
  Answer answer = Get(link, "k", {HeapBuffer::CopyOf("part"), HeapBuffer::CopyOf(std::string(3 << 20, 'x')), HeapBuffer::CopyOf("")});
  ASSERT_TRUE(answer.status.ok()) << answer.status.ToString();
  v1::KvGetReply reply;
  ASSERT_TRUE(reply.ParseFromString(answer.control));
  EXPECT_EQ(reply.value(), "k");
  EXPECT_THAT(answer.parts, testing::ElementsAre("part", std::string(3 << 20, 'x'), ""));

  answer = Get(link, "bad");
  EXPECT_EQ(answer.status.code(), StatusCode::kNotFound);
  EXPECT_EQ(answer.status.cause(), 22);
  EXPECT_EQ(answer.status.message(), "no such key");
}

TEST_F(GrpcTest, ServerCallsBackOverTheStream) {
  Serve();
  TestPromise<Answer> promise;
  Connect()->Call(MethodId::kKvDel, v1::KvDelRequest(), {}, Into(&promise));
  Answer answer = promise.get_future().get();
  v1::KvDelReply reply;
  ASSERT_TRUE(answer.status.ok() && reply.ParseFromString(answer.control)) << answer.status.ToString();
  EXPECT_EQ(reply.deleted(), 7);
}

TEST_F(GrpcTest, ManyCallsStayInOrder) {
  Serve();
  ConnectionPtr link = Connect();
  constexpr int kCalls = 20000;
  std::vector<int> order;
  TestPromise<void> done;
  v1::KvGetRequest request;
  for (int i = 0; i < kCalls; ++i) {
    request.set_key(std::to_string(i));
    link->Call(MethodId::kKvGet, request, {}, [&, i](Status status, Reply) {
      if (status.ok()) order.push_back(i);
      if (i == kCalls - 1) done.set_value();
    });
  }
  done.get_future().get();
  ASSERT_EQ(order.size(), size_t{kCalls});
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST_F(GrpcTest, UnaryCallsFromAnyGrpcClient) {
  Serve();
  grpc::GenericStub stub(grpc::CreateChannel("unix:" + path_, grpc::InsecureChannelCredentials()));
  auto call = [&](const std::string& method, const std::string& key, std::string* value) {
    v1::KvGetRequest request;
    request.set_key(key);
    grpc::Slice slice(request.SerializeAsString());
    grpc::ByteBuffer out(&slice, 1), in;
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    auto reader = stub.PrepareUnaryCall(&context, method, out, &queue);
    reader->StartCall();
    grpc::Status status;
    reader->Finish(&in, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    queue.Shutdown();
    while (queue.Next(&tag, &ok)) {
    }
    grpc::Slice whole;
    v1::KvGetReply reply;
    if (status.ok() && in.DumpToSingleSlice(&whole).ok() && reply.ParseFromArray(whole.begin(), static_cast<int>(whole.size())))
      *value = reply.value();
    return status;
  };
  std::string value;
  EXPECT_TRUE(call("/ray.v1.GcsKv/KvGet", "hello", &value).ok());
  EXPECT_EQ(value, "hello");
  grpc::Status status = call("/ray.v1.GcsKv/KvGet", "bad", &value);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no such key");
  EXPECT_EQ(call("/ray.v1.GcsKv/Nothing", "", &value).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(call("/ray.v1.GcsNode/ListNodes", "", &value).error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(GrpcTest, EndOfServerFailsPendingCalls) {
  Serve();
  ConnectionPtr link = Connect();
  TestPromise<Answer> promise;
  TestPromise<Status> closed;
  link->OnClose([&](const Status& status) { closed.set_value(status); });
  link->Call(MethodId::kKvKeys, v1::KvKeysRequest(), {}, Into(&promise));
  holding_.get_future().get();
  server_->Stop();
  EXPECT_EQ(promise.get_future().get().status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(closed.get_future().get().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(link->closed());
  // Calls after the end fail as well.
  EXPECT_EQ(Get(link, "k").status.code(), StatusCode::kUnavailable);
  EXPECT_NE(::access(path_.c_str(), F_OK), 0) << "the socket file is left behind";
}

TEST_F(GrpcTest, CloseOfClientIsSeenByServer) {
  Serve();
  ConnectionPtr link = Connect();
  TestPromise<Answer> promise;
  link->Call(MethodId::kKvKeys, v1::KvKeysRequest(), {}, Into(&promise));
  holding_.get_future().get();
  link->Close(Status::Cancelled("enough"));
  EXPECT_EQ(promise.get_future().get().status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(peer_gone_.get_future().get().code(), StatusCode::kUnavailable);
}

TEST_F(GrpcTest, NobodyListens) {
  path_ = folder_ + "/nobody";
  EXPECT_EQ(Get(Connect(), "k").status.code(), StatusCode::kUnavailable);
}

TEST_F(GrpcTest, AddressTaken) {
  Result<std::unique_ptr<GrpcServer>> server = GrpcServer::Make({{"unix:" + folder_ + "/none/s"}}, &server_dispatcher_, loop_.get());
  ASSERT_FALSE(server.ok());
  EXPECT_THAT(server.status().message(), testing::HasSubstr("/none/s"));
}

TEST_F(GrpcTest, ASocketIsTakenOverFromTheDeadAlone) {
  Serve();
  const std::vector<std::string> at{"unix:" + path_};
  EXPECT_EQ(GrpcServer::Make({at}, &server_dispatcher_, loop_.get()).status().code(), StatusCode::kAlreadyExists);
  EXPECT_TRUE(Get(Connect(), "k").status.ok()) << "it listens as before";
  // Another socket in its place is not removed with it.
  ::unlink(path_.c_str());
  const int other = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path_.c_str());
  ASSERT_EQ(::bind(other, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  server_ = nullptr;
  EXPECT_EQ(::access(path_.c_str(), F_OK), 0);
  ::close(other);  // nobody listens there any more
  Serve();
  EXPECT_TRUE(Get(Connect(), "k").status.ok());
}

TEST_F(GrpcTest, ConnectionsForWhichThereIsNoDescriptorAreServedWhenThereIs) {
  if (kSanitizerNeedsDescriptors) GTEST_SKIP() << kWhyNotWithoutDescriptors;
  constexpr const char* kTrouble = "cannot accept connections";
  Serve();
  const int raw = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path_.c_str());
  testing::internal::CaptureStderr();  // into a file
  {
    NoMoreDescriptors none;
    EXPECT_EQ(::connect(raw, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    auto said = [text = std::string(64 << 10, '\0')]() mutable {
      const ssize_t n = ::pread(STDERR_FILENO, text.data(), text.size(), 0);
      return std::string_view(text.data(), static_cast<size_t>(std::max<ssize_t>(n, 0))).find(kTrouble) != std::string_view::npos;
    };
    while (!said() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr(kTrouble));
  EXPECT_TRUE(Get(Connect(), "k").status.ok());
  ::close(raw);
}

TEST_F(GrpcTest, TcpListenersWantTheTokenOnStreamsAndUnaryCalls) {
  SystemClock clock;
  auto security = [&](const std::string& token) {
    EXPECT_TRUE(WriteFileAtomic(folder_ + "/" + token, token).ok());
    auto made = Security::Make({.token_file = folder_ + "/" + token}, &clock);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    return *made;
  };
  auto right = security("the-right-token-of-all"), wrong = security("the-wrong-token-of-all");
  path_ = folder_ + "/s";
  auto server = GrpcServer::Make({{"unix:" + path_, "127.0.0.1:0"}, right}, &server_dispatcher_, loop_.get());
  ASSERT_TRUE(server.ok()) << server.status().ToString();
  server_ = std::move(server).value();
  ASSERT_EQ(server_->addresses().size(), 2u);
  const std::string address = server_->addresses()[1];
  EXPECT_THAT(address, testing::MatchesRegex("127\\.0\\.0\\.1:[1-9][0-9]*"));

  for (const auto& [who, code] : std::initializer_list<std::pair<std::shared_ptr<Security>, StatusCode>>{
           {right, StatusCode::kOk}, {wrong, StatusCode::kUnauthenticated}, {nullptr, StatusCode::kUnauthenticated}}) {
    GrpcClient client(loop_.get(), who);
    const Answer answer = Get(client.Connect(address, &client_dispatcher_), "k");
    EXPECT_EQ(answer.status.code(), code) << answer.status.ToString();
    if (!answer.status.ok()) {
      EXPECT_THAT(answer.status.message(), testing::HasSubstr("token"));
      EXPECT_THAT(answer.status.message(), testing::Not(testing::HasSubstr("the-right-token-of-all")));
    }
  }
  EXPECT_TRUE(Get(Connect(), "k").status.ok()) << "the Unix socket needs none";
  for (const char* token : {"the-right-token-of-all", "the-wrong-token-of-all"}) ::unlink((folder_ + "/" + token).c_str());
}

TEST_F(GrpcTest, TcpListenersAreRefusedWithoutAToken) {
  SystemClock clock;
  for (auto security : {std::shared_ptr<Security>(), *Security::Make({}, &clock)}) {
    auto server = GrpcServer::Make({{"127.0.0.1:0"}, security}, &server_dispatcher_, loop_.get());
    EXPECT_EQ(server.status().code(), StatusCode::kInvalidArgument);
  }
}

TEST_F(GrpcTest, DirectMessagesAreHandledInOrderAndApartFromTheRest) {
  std::vector<std::string> direct;
  std::atomic<bool> on_loop = false;
  server_dispatcher_.RegisterDirect(MethodId::kLogLines, [&](Request request, Responder) {
    on_loop = on_loop || loop_->InLoop();
    v1::KvPutRequest message;
    ASSERT_TRUE(message.ParseFromArray(request.control.data(), static_cast<int>(request.control.size())));
    direct.push_back(message.key());
  });
  Serve();
  ConnectionPtr link = Connect();
  std::vector<std::string> sent;
  for (int i = 0; i < 1000; ++i) {
    v1::KvPutRequest put;
    put.set_key(std::to_string(i));
    sent.push_back(put.key());
    link->Notify(MethodId::kLogLines, put);
    if (i % 7 == 0) {
      v1::KvGetRequest get;
      get.set_key("k");
      link->Call(MethodId::kKvGet, get, {}, [](const Status& status, const Reply&) { EXPECT_TRUE(status.ok()); });
    }
  }
  EXPECT_TRUE(Get(link, "k").status.ok());  // the reply comes after all of them were received
  EXPECT_EQ(direct, sent);
  EXPECT_FALSE(on_loop);
}

TEST_F(GrpcTest, PathsLongerThanSunPath) {
  std::string name;
  for (int i = 0; i < 3; ++i) {
    name += std::string(60, 'a' + i);
    deep_.insert(deep_.begin(), folder_ + "/" + name);
    ASSERT_EQ(::mkdir(deep_.front().c_str(), 0700), 0);
    name += "/";
  }
  Serve(name + "gcs.sock");
  EXPECT_TRUE(Get(Connect(), "k").status.ok());
}

}  // namespace
}  // namespace ray::rpc
