#include "ray/rpc/local/local_carrier.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <optional>
#include <thread>

#include "ray/rpc/core/frame.h"
#include "ray/testing/limits/no_more_descriptors.h"
#include "ray/v1/gcs_kv.pb.h"

namespace ray::rpc {
namespace {

using async::EpollLoop;
using async::Waiter;
using async::WaitResult;
using std::chrono::milliseconds;
using std::chrono::seconds;

// False: it does not happen.
template <typename F>
bool Until(F happened) {
  const auto deadline = std::chrono::steady_clock::now() + seconds(20);
  while (!happened()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

int OpenDescriptors() {
  int n = 0;
  DIR* dir = opendir("/proc/self/fd");
  while (readdir(dir) != nullptr) ++n;
  closedir(dir);
  return n;
}

// One "process": a loop with its I/O thread, a carrier and some handlers.
struct Endpoint {
  std::unique_ptr<EpollLoop> loop;
  std::shared_ptr<Dispatcher> dispatcher = std::make_shared<Dispatcher>();
  std::unique_ptr<LocalCarrier> carrier;
  std::vector<Responder> held;  // on the loop: requests never answered
  std::atomic<uint64_t> notified{0};

  explicit Endpoint(const std::string& dir, size_t max_frame_bytes = 1 << 30) {
    loop = EpollLoop::Make({}).value();
    dispatcher->Register(MethodId::kPushTask,
                         [](Request request, Responder responder) { responder.SendRaw(request.control, request.parts); });
    dispatcher->Register(MethodId::kGetObject, [this](Request, Responder responder) { held.push_back(std::move(responder)); });
    dispatcher->Register(MethodId::kExit, [](Request, Responder) {});
    dispatcher->Register(MethodId::kLogLines, [this](Request request, Responder responder) {
      EXPECT_TRUE(request.one_way);
      EXPECT_FALSE(responder.valid());
      ++notified;
    });
    dispatcher->Register(MethodId::kStoreConnect, [](Request, Responder responder) {
      int fds[2];
      ASSERT_EQ(pipe(fds), 0);
      ASSERT_EQ(::write(fds[1], "fd!", 3), 3);
      v1::KvGetReply reply;
      responder.SendWithFd(reply, fds[0]);
      ::close(fds[0]);
      ::close(fds[1]);
    });
    dispatcher->Register(MethodId::kCancelTask,
                         [](Request, Responder responder) { responder.Fail(Status(StatusCode::kNotFound, "no such task", 17)); });
    dispatcher->RegisterTyped<v1::KvPutRequest>(MethodId::kKvPut, [](const v1::KvPutRequest& message, Request&, Responder responder) {
      v1::KvGetReply reply;
      reply.set_value(message.key() + "=" + message.value());
      responder.Send(reply);
    });
    EXPECT_TRUE(loop->Start().ok());
    carrier = LocalCarrier::Make(loop.get(), dispatcher, {.sockets_dir = dir, .max_frame_bytes = max_frame_bytes}).value();
  }
  ~Endpoint() {
    OnLoop([&] { held.clear(); });
    carrier->Shutdown();
    OnLoop([] {});  // the teardowns were posted before
    loop->Stop();
  }
  void Await(Waiter* waiter) {
    Time deadline = loop->clock().Now() + seconds(60);
    WaitResult result;
    while ((result = loop->Wait(waiter, deadline)) == WaitResult::kInterrupted) {
    }
    ASSERT_EQ(result, WaitResult::kDone) << "never came";
  }
  void OnLoop(std::function<void()> fn) {
    Waiter done;
    loop->Post("test", [&] {
      fn();
      done.Notify();
    });
    Await(&done);
  }
  // Sync call; returns the status and fills `control`.
  Status Call(Connection& connection, MethodId method, std::string_view request, const PartList& parts = {}, std::string* control = nullptr,
              PartList* reply_parts = nullptr, CallOptions options = {}) {
    Waiter done;
    Status out;
    connection.CallRaw(
        method, request, parts,
        [&](Status status, Reply reply) {
          out = status;
          if (control != nullptr) *control = reply.control;
          if (reply_parts != nullptr) *reply_parts = std::move(reply.parts);
          done.Notify();
        },
        options);
    Await(&done);
    return out;
  }
};

class LocalCarrierTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = testing::TempDir() + "rpc_local_XXXXXX";
    ASSERT_NE(mkdtemp(dir_.data()), nullptr);
    server_ = std::make_unique<Endpoint>(dir_);
    client_ = std::make_unique<Endpoint>(dir_);
    ASSERT_TRUE(server_->carrier
                    ->Listen("s.sock",
                             [this](const ConnectionPtr& connection) {
                               if (accepted_ready_.IsSet()) return;  // a further connection, of no interest to the test
                               arriving_ = connection;
                               accepted_ready_.Notify();
                             })
                    .ok());
    auto connection = client_->carrier->Connect("s.sock");
    ASSERT_TRUE(connection.ok()) << connection.status().ToString();
    connection_ = *connection;
    AwaitAccepted();
  }
  void TearDown() override {
    connection_ = accepted_ = nullptr;
    client_.reset();
    server_.reset();
    rmdir(dir_.c_str());
  }
  void AwaitAccepted() {
    server_->Await(&accepted_ready_);
    server_->OnLoop([&] { accepted_ = std::move(arriving_); });
  }
  // A raw socket to the server, as a bad peer has it.
  int RawConnect() {
    int fd = RawSocket();
    server_->OnLoop([&] { accepted_ready_.Reset(); });
    ConnectRaw(fd);
    AwaitAccepted();
    return fd;
  }
  static int RawSocket() { return socket(AF_UNIX, SOCK_STREAM, 0); }
  void ConnectRaw(int fd) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof address.sun_path, "%s/s.sock", dir_.c_str());
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  Status AwaitClose(Endpoint* endpoint, const ConnectionPtr& connection) {
    Waiter done;
    Status out;
    connection->OnClose([&](const Status& reason) {
      out = reason;
      done.Notify();
    });
    endpoint->Await(&done);
    return out;
  }

  std::string dir_;
  std::unique_ptr<Endpoint> server_, client_;
  ConnectionPtr connection_, accepted_;
  ConnectionPtr arriving_;  // on the server's loop: to become accepted_
  Waiter accepted_ready_;
};

TEST_F(LocalCarrierTest, EchoBothWaysTypedAndErrors) {
  std::string control;
  PartList parts;
  ASSERT_TRUE(
      client_->Call(*connection_, MethodId::kPushTask, "hello", {HeapBuffer::CopyOf("p1"), HeapBuffer::CopyOf("")}, &control, &parts).ok());
  EXPECT_EQ(control, "hello");
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0]->view(), "p1");
  EXPECT_EQ(parts[1]->size(), 0u);
  ASSERT_TRUE(server_->Call(*accepted_, MethodId::kPushTask, "back", {}, &control).ok());
  EXPECT_EQ(control, "back");

  v1::KvPutRequest put;
  put.set_key("k");
  put.set_value("v");
  Waiter done;
  CallTyped<v1::KvGetReply>(*connection_, MethodId::kKvPut, put, {}, [&](Status status, v1::KvGetReply& reply, PartList) {
    EXPECT_TRUE(status.ok());
    EXPECT_EQ(reply.value(), "k=v");
    done.Notify();
  });
  client_->Await(&done);

  Status status = client_->Call(*connection_, MethodId::kCancelTask, "");
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_EQ(status.cause(), 17);
  EXPECT_EQ(status.message(), "no such task");
  EXPECT_EQ(client_->Call(*connection_, MethodId::kKvPut, "\xff").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(client_->Call(*connection_, MethodId::kStealTasks, "").code(), StatusCode::kUnimplemented);
  EXPECT_EQ(client_->Call(*connection_, static_cast<MethodId>(9999), "").code(), StatusCode::kUnimplemented);
  EXPECT_EQ(client_->Call(*connection_, MethodId::kExit, "").code(), StatusCode::kInternal);  // unanswered
  EXPECT_EQ(connection_->peer_pid(), getpid());
  EXPECT_EQ(connection_->unsent_bytes(), 0u);
}

TEST_F(LocalCarrierTest, SocketIsPrivate) {
  struct stat st {};
  ASSERT_EQ(stat((dir_ + "/s.sock").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  EXPECT_EQ(client_->carrier->Listen("s.sock", [](const ConnectionPtr&) {}).code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(client_->carrier->Connect("nobody").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(client_->carrier->Connect("../x").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(client_->carrier->Connect(std::string(200, 'x')).status().code(), StatusCode::kInvalidArgument);
  chmod(dir_.c_str(), 0755);
  EXPECT_EQ(LocalCarrier::Make(client_->loop.get(), client_->dispatcher, {.sockets_dir = dir_}).status().code(),
            StatusCode::kPermissionDenied);
  chmod(dir_.c_str(), 0700);
}

TEST_F(LocalCarrierTest, LongDirectoryAndStaleSocket) {
  std::string deep = dir_;
  for (int i = 0; i < 3; ++i) {
    deep += "/" + std::string(60, 'd');
    mkdir(deep.c_str(), 0700);
  }
  {
    Endpoint endpoint(deep);
    ASSERT_TRUE(endpoint.carrier->Listen("x.sock", [](const ConnectionPtr&) {}).ok());
    auto connection = endpoint.carrier->Connect("x.sock");
    ASSERT_TRUE(connection.ok());
    EXPECT_TRUE(endpoint.Call(**connection, MethodId::kPushTask, "self").ok());
  }
  EXPECT_NE(access((deep + "/x.sock").c_str(), F_OK), 0) << "not unlinked";
  int dir_fd = open(deep.c_str(), O_PATH);
  std::string path = "/proc/self/fd/" + std::to_string(dir_fd) + "/x.sock";
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path.c_str());
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::close(fd);  // as a killed process leaves it
  ::close(dir_fd);
  {
    Endpoint endpoint(deep);
    EXPECT_TRUE(endpoint.carrier->Listen("x.sock", [](const ConnectionPtr&) {}).ok());
  }
  for (; deep != dir_; deep.resize(deep.rfind('/'))) EXPECT_EQ(rmdir(deep.c_str()), 0);
}

// Both ends send without reading, far more than sockets hold.
TEST_F(LocalCarrierTest, PipelinedBothWaysWithoutDeadlock) {
  constexpr int kCalls = 100000;
  auto flood = [](Endpoint* endpoint, Connection* connection, bool corked) {
    Waiter done;
    int next = 0;
    std::string control(100, 'c');
    for (int i = 0; i < kCalls; ++i) {
      std::memcpy(control.data(), &i, sizeof i);
      connection->CallRaw(MethodId::kPushTask, control, {},
                          [&, i](Status status, Reply reply) {
                            ASSERT_TRUE(status.ok());
                            int echoed;
                            std::memcpy(&echoed, reply.control.data(), sizeof echoed);
                            EXPECT_EQ(echoed, i);
                            EXPECT_EQ(next, i);  // replies keep the order of the calls here
                            if (++next == kCalls) done.Notify();
                          },
                          {.corked = corked});
    }
    connection->Flush();
    endpoint->Await(&done);
  };
  std::thread there([&] { flood(server_.get(), accepted_.get(), true); });
  flood(client_.get(), connection_.get(), false);
  there.join();
  EXPECT_EQ(connection_->unsent_bytes(), 0u);
}

TEST_F(LocalCarrierTest, PartsOfAllSizes) {
  for (size_t size : {1, 100, 16383, 16384, 65535, 65536, 65537, 200000, 262143, 262144, 262145, 1 << 20, 40 << 20}) {
    auto part = std::make_shared<HeapBuffer>(size);
    for (size_t i = 0; i < size; ++i) part->mutable_data()[i] = static_cast<uint8_t>(i * 7 + (i >> 8));
    std::string control;
    PartList parts;
    PartList sent{HeapBuffer::CopyOf("small"), part, HeapBuffer::CopyOf(""), part, HeapBuffer::CopyOf("end")};
    ASSERT_TRUE(client_->Call(*connection_, MethodId::kPushTask, "c", sent, &control, &parts).ok()) << size;
    ASSERT_EQ(parts.size(), 5u);
    for (size_t i = 0; i < 5; ++i) ASSERT_TRUE(parts[i]->view() == sent[i]->view()) << size << " part " << i;
    EXPECT_EQ(control, "c");
  }
  std::string big_control(3 << 20, 'b');
  std::string control;
  ASSERT_TRUE(client_->Call(*connection_, MethodId::kPushTask, big_control, {}, &control).ok());
  EXPECT_TRUE(control == big_control);
}

TEST_F(LocalCarrierTest, ThousandsOfSmallPartsWithLargeOnesBetween) {
  constexpr int kCalls = 5;
  PartList sent;
  for (size_t i = 0; i < 5000; ++i)
    sent.push_back(HeapBuffer::CopyOf(std::string(i % 1000 == 999 ? 100'000 : i % 200, static_cast<char>(i))));
  Waiter done;
  int answered = 0;
  for (int k = 0; k < kCalls; ++k) {  // each frame follows another one closely
    connection_->CallRaw(MethodId::kPushTask, "c", sent,
                         [&](Status status, Reply reply) {
                           ASSERT_TRUE(status.ok());
                           ASSERT_EQ(reply.parts.size(), sent.size());
                           for (size_t i = 0; i < sent.size(); ++i) ASSERT_TRUE(reply.parts[i]->view() == sent[i]->view()) << i;
                           if (++answered == kCalls) done.Notify();
                         },
                         {.corked = true});
  }
  connection_->Flush();
  client_->Await(&done);
}

TEST_F(LocalCarrierTest, SendingNeverBlocksWhenThePeerDoesNotRead) {
  int fd = RawConnect();
  auto part = std::make_shared<HeapBuffer>(1 << 20);
  std::fill_n(part->mutable_data(), part->size(), 5);
  for (int i = 0; i < 64; ++i) accepted_->NotifyRaw(MethodId::kLogLines, "x", {part});
  EXPECT_GT(accepted_->unsent_bytes(), size_t{32} << 20);
  size_t expected = 64 * (kFrameHeaderBytes + 8 + 1 + part->size()), got = 0;
  std::vector<char> buffer(1 << 20);
  while (got < expected) {
    ssize_t n = ::read(fd, buffer.data(), buffer.size());
    ASSERT_GT(n, 0);
    got += n;
  }
  EXPECT_TRUE(Until([&] { return accepted_->unsent_bytes() == 0; }));
  ::close(fd);
}

TEST_F(LocalCarrierTest, CorkedLeavesByFlushOrByItself) {
  for (int i = 0; i < 10; ++i) {
    v1::KvGetReply message;
    connection_->Notify(MethodId::kLogLines, message, {}, true);
  }
  connection_->Flush();
  EXPECT_TRUE(Until([&] { return server_->notified >= 10; }));
  v1::KvGetReply message;
  connection_->Notify(MethodId::kLogLines, message, {}, true);
  EXPECT_TRUE(Until([&] { return server_->notified >= 11; }));  // nobody flushes or polls here: the I/O thread does
  // A wait flushes what its own thread corked.
  EXPECT_TRUE(client_->Call(*connection_, MethodId::kPushTask, "x", {}, nullptr, nullptr, {.corked = true}).ok());
}

TEST_F(LocalCarrierTest, ADescriptorForWhichThereIsNoRoomCostsNothingElse) {
  if (kSanitizerNeedsDescriptors) GTEST_SKIP() << kWhyNotWithoutDescriptors;
  std::unique_ptr<NoMoreDescriptors> none;
  std::promise<void> stands_still, sent;
  Waiter none_left, done;
  client_->loop->Post("test", [&] {
    stands_still.set_value();
    sent.get_future().wait();
    none = std::make_unique<NoMoreDescriptors>();
    none_left.Notify();
  });
  stands_still.get_future().wait();
  connection_->CallRaw(MethodId::kStoreConnect, "", {}, [&](Status status, Reply reply) {
    none = nullptr;
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(reply.fd, -1);
    done.Notify();
  });
  connection_->Notify(MethodId::kLogLines, v1::KvGetReply());
  EXPECT_TRUE(Until([&] { return server_->notified >= 1; }));
  server_->OnLoop([] {});  // what it answered has left
  sent.set_value();
  client_->Await(&none_left);
  client_->Await(&done);
  Waiter again;
  connection_->CallRaw(MethodId::kStoreConnect, "", {}, [&](Status status, Reply reply) {
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_GE(reply.fd, 0);
    again.Notify();
  });
  client_->Await(&again);
}

TEST_F(LocalCarrierTest, WithoutDescriptorsConnectionsWaitAndNobodyIsTakenForDead) {
  if (kSanitizerNeedsDescriptors) GTEST_SKIP() << kWhyNotWithoutDescriptors;
  const int raw = RawSocket();
  {
    NoMoreDescriptors none;
    EXPECT_EQ(client_->carrier->Connect("s.sock").status().code(), StatusCode::kResourceExhausted);
    ConnectRaw(raw);
    EXPECT_TRUE(Until([&] { return !server_->carrier->AcceptTrouble().empty(); }));
    EXPECT_NE(server_->carrier->AcceptTrouble().find("ulimit -n"), std::string::npos) << server_->carrier->AcceptTrouble();
    EXPECT_TRUE(client_->Call(*connection_, MethodId::kPushTask, "x").ok());
  }
  EXPECT_TRUE(Until([&] { return server_->carrier->AcceptTrouble().empty(); }));
  ::close(raw);
  const ConnectionPtr second = client_->carrier->Connect("s.sock").value();
  EXPECT_TRUE(client_->Call(*second, MethodId::kPushTask, "x").ok());
}

TEST_F(LocalCarrierTest, DescriptorsTravel) {
  int before = OpenDescriptors();
  for (int i = 0; i < 100; ++i) {
    Waiter done;
    int fd = -1;
    connection_->CallRaw(MethodId::kPushTask, "between", {}, [](Status, Reply) {});
    connection_->CallRaw(MethodId::kStoreConnect, "", {}, [&](Status status, Reply reply) {
      ASSERT_TRUE(status.ok()) << status.ToString();
      if (i % 2 == 0) fd = std::exchange(reply.fd, -1);  // else it is closed for us
      done.Notify();
    });
    client_->Await(&done);
    if (i % 2 == 0) {
      char buffer[8];
      ASSERT_EQ(::read(fd, buffer, sizeof buffer), 3);
      ::close(fd);
    }
  }
  // The last one is closed a moment after it was seen.
  for (int i = 0; i < 10000 && OpenDescriptors() != before; ++i) server_->OnLoop([] {});
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(LocalCarrierTest, Timeouts) {
  Status status = client_->Call(*connection_, MethodId::kGetObject, "", {}, nullptr, nullptr, {.timeout = milliseconds(5)});
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  server_->OnLoop([&] { server_->held.clear(); });  // the late answer
  EXPECT_TRUE(client_->Call(*connection_, MethodId::kPushTask, "after", {}, nullptr, nullptr, {.timeout = seconds(50)}).ok());
}

TEST_F(LocalCarrierTest, CloseWhileCallsArePending) {
  constexpr int kCalls = 100;
  std::atomic<int> failed{0};
  Waiter done;
  for (int i = 0; i < kCalls; ++i) {
    connection_->CallRaw(MethodId::kGetObject, "", {}, [&](Status status, Reply) {
      EXPECT_EQ(status.code(), StatusCode::kUnavailable);
      EXPECT_TRUE(client_->loop->InLoop());
      if (++failed == kCalls) done.Notify();
    });
  }
  server_->OnLoop([] {});
  accepted_->Close(Status::Aborted("enough"));
  accepted_->Close(Status::Aborted("again"));
  client_->Await(&done);
  EXPECT_EQ(AwaitClose(client_.get(), connection_).code(), StatusCode::kUnavailable);
  EXPECT_EQ(AwaitClose(server_.get(), accepted_).code(), StatusCode::kAborted);
  EXPECT_TRUE(connection_->closed());
  EXPECT_EQ(client_->Call(*connection_, MethodId::kPushTask, "late").code(), StatusCode::kUnavailable);
  EXPECT_EQ(failed, kCalls);
}

TEST_F(LocalCarrierTest, LastWordsArriveBeforeTheClose) {
  v1::KvGetReply message;
  for (int i = 0; i < 100; ++i) connection_->Notify(MethodId::kLogLines, message, {}, true);
  connection_->Close(Status::Cancelled("bye"));
  EXPECT_EQ(AwaitClose(server_.get(), accepted_).code(), StatusCode::kUnavailable);
  EXPECT_EQ(server_->notified, 100u);
}

TEST_F(LocalCarrierTest, PeerDeathWithinAFrame) {
  for (size_t cut : {1, 23, 24, 30, 300000}) {
    auto part = std::make_shared<HeapBuffer>(1 << 20);
    std::fill_n(part->mutable_data(), part->size(), 1);
    PartList parts{part};
    std::string bytes;
    AppendFrame(MakeFrameHeader(FrameKind::kNotify, MethodId::kLogLines, 0, 0, 1, parts, 1 << 30).value(), "x", parts, &bytes);
    int fd = RawConnect();
    ConnectionPtr victim = accepted_;
    for (size_t at = 0; at < cut;) at += ::write(fd, bytes.data() + at, cut - at);
    ::close(fd);
    Status status = AwaitClose(server_.get(), victim);
    EXPECT_EQ(status.code(), StatusCode::kUnavailable) << cut;
    EXPECT_NE(status.message().find("within a frame"), std::string::npos) << cut;
  }
  EXPECT_EQ(server_->notified, 0u);
}

TEST_F(LocalCarrierTest, MalformedFramesEndTheConnection) {
  auto frame = [](uint32_t frame_len, uint32_t control_len, uint16_t n_parts, uint8_t kind, uint8_t flags,
                  std::vector<uint64_t> lengths = {}) {
    FrameHeader header{frame_len, control_len, 1, static_cast<uint16_t>(MethodId::kLogLines), n_parts, static_cast<FrameKind>(kind), flags};
    std::string bytes(kFrameHeaderBytes, '\0');
    EncodeFrameHead(header, {}, reinterpret_cast<uint8_t*>(bytes.data()));
    for (uint64_t length : lengths) bytes.append(reinterpret_cast<char*>(&length), 8);
    return bytes + std::string(64, '\0');
  };
  std::vector<std::string> bad = {
      frame(8, 8, 0, 0, 0),  // unknown kind
      frame(8, 8, 0, 5, 0),
      frame(8, 9, 0, 4, 0),                    // control longer than the frame
      frame(9, 8, 0, 4, 0),                    // bytes of no part
      frame(8, 0, 2, 4, 0),                    // no room for the lengths
      frame(16, 0, 1, 4, 0, {9}),              // part beyond the frame
      frame(16, 0, 1, 4, 0, {7}),              // bytes left over
      frame(24, 0, 2, 4, 0, {UINT64_MAX, 9}),  // sum overflows
      frame(0xffffffff, 0, 1, 4, 0),           // over the limit
      frame(8, 8, 0, 4, 2),                    // unknown flag
      frame(8, 8, 0, 2, kFrameHasFd),          // no such descriptor
      frame(1 << 20, 0, 1, 4, 0, {5}),         // the same, of frames larger than the buffer
  };
  for (size_t i = 0; i < bad.size(); ++i) {
    int fd = RawConnect();
    ConnectionPtr victim = accepted_;
    ASSERT_EQ(::write(fd, bad[i].data(), bad[i].size()), static_cast<ssize_t>(bad[i].size()));
    EXPECT_EQ(AwaitClose(server_.get(), victim).code(), StatusCode::kDataLoss) << i;
    ::close(fd);
  }
  EXPECT_EQ(server_->notified, 0u);
  EXPECT_TRUE(client_->Call(*connection_, MethodId::kPushTask, "others live on").ok());
}

TEST_F(LocalCarrierTest, TooLargeToSend) {
  Endpoint small(dir_, 1000);
  auto connection = small.carrier->Connect("s.sock").value();
  EXPECT_EQ(small.Call(*connection, MethodId::kPushTask, std::string(2000, 'x')).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(small.Call(*connection, MethodId::kPushTask, std::string(500, 'x')).ok());
}

TEST_F(LocalCarrierTest, ManyThreadsCallAndWait) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      Endpoint* endpoint = t % 2 == 0 ? client_.get() : server_.get();
      Connection& connection = t % 2 == 0 ? *connection_ : *accepted_;
      for (int i = 0; i < 1000; ++i) {
        std::string sent = std::to_string(t) + ":" + std::to_string(i), control;
        PartList parts;
        if (i % 100 == 0) parts.push_back(HeapBuffer::CopyOf(std::string(500000, 'p')));
        ASSERT_TRUE(
            endpoint->Call(connection, MethodId::kPushTask, sent, parts, &control, nullptr, {.timeout = seconds(50), .corked = i % 3 == 0})
                .ok());
        ASSERT_EQ(control, sent);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(LocalCarrierTest, ConnectionsComeAndGoWithoutALeak) {
  client_->OnLoop([] {});
  server_->OnLoop([] {});
  int before = OpenDescriptors();
  for (int i = 0; i < 200; ++i) {
    auto connection = client_->carrier->Connect("s.sock").value();
    std::weak_ptr<Connection> weak = connection;
    std::thread racer([&] { static_cast<void>(client_->Call(*connection, MethodId::kPushTask, "x").ok()); });
    if (i % 2 == 0) racer.join();
    connection->Close(Status::Cancelled("done"));
    if (i % 2 != 0) racer.join();
    EXPECT_EQ(AwaitClose(client_.get(), connection).code(), StatusCode::kCancelled);
    connection = nullptr;
    // The loop lets go of it at the end of the round that took it down, in which some of these functions may still run.
    for (int k = 0; k < 10000 && !weak.expired(); ++k) client_->OnLoop([] {});
    EXPECT_TRUE(weak.expired());
  }
  accepted_ = nullptr;
  // The server sees the ends by itself.
  for (int i = 0; i < 10000 && OpenDescriptors() > before; ++i) server_->OnLoop([] {});
  EXPECT_LE(OpenDescriptors(), before);
}

TEST_F(LocalCarrierTest, ShutdownWithEverythingUnderWay) {
  std::atomic<int> answered{0};
  for (int i = 0; i < 1000; ++i) {
    connection_->CallRaw(i % 2 ? MethodId::kGetObject : MethodId::kPushTask, "x", {}, [&](Status, Reply) { ++answered; }, {.corked = true});
  }
  client_->carrier->Shutdown();
  client_->carrier->Shutdown();
  client_->OnLoop([] {});
  EXPECT_EQ(answered, 1000);
  EXPECT_EQ(client_->carrier->Connect("s.sock").status().code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace ray::rpc
