// RedisStorage with a real redis-server of each test's own.
#include "ray/gcs_server/storage/redis_storage.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "ray/gcs_server/storage/storage_test_util.h"

namespace ray::gcs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

int FreePort() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

class RedisStorageTest : public testing::Test {
 protected:
  using Opened = Result<std::unique_ptr<RedisStorage>>;
  void SetUp() override {
    ASSERT_EQ(::system("redis-server --version >/dev/null 2>&1"), 0) << "no redis-server: ci/scripts/deps.sh installs it";
    options_.server.host = "127.0.0.1";
    options_.open_timeout = std::chrono::seconds(10);
    options_.retry = std::chrono::milliseconds(5);
    // Between the choice of a port and its use another process may take it.
    for (int i = 0; i < 5; ++i) {
      options_.server.port = FreePort();
      StartServer();
      if (Open().ok()) return;
      StopServer();
    }
    FAIL() << "no redis-server could be started";
  }
  void TearDown() override { StopServer(); }
  void StartServer() {
    const std::string port = std::to_string(options_.server.port), folder = dir_.File("");
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::dup2(::open("/dev/null", O_WRONLY), 1);
    ::execlp("redis-server", "redis-server", "--port", port.c_str(), "--bind", "127.0.0.1", "--dir", folder.c_str(), "--save", "",
             "--appendonly", "yes", "--appendfsync", "always", nullptr);
    ::_exit(127);
  }
  void StopServer() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  Opened Open() { return RedisStorage::Open(options_, &loop_); }
  void Redis(const std::vector<std::string_view>& command) {
    auto connection = RedisConnection::Open(options_.server);
    ASSERT_TRUE(connection.ok()) << connection.status().ToString();
    const auto answer = (*connection)->Run(command);
    ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  }

  ScratchDir dir_;
  WaitingLoop loop_;
  RedisOptions options_;
  pid_t pid_ = 0;
};

TEST_F(RedisStorageTest, BatchesApplyInOrderAndAreThereForTheNext) {
  Opened storage = Open();
  ASSERT_TRUE(storage.ok()) << storage.status().ToString();
  EXPECT_THAT((*storage)->Load().value(), IsEmpty());
  const std::string zeros("\0x\0", 3), large(3 << 20, 'v');
  ASSERT_TRUE(WriteNow(storage->get(), &loop_,
                       {PutRow("t", "a", "1"), PutRow("t", zeros, ""), {"u", "b", {HeapBuffer::CopyOf("2"), HeapBuffer::CopyOf("3")}}})
                  .ok());
  ASSERT_TRUE(
      WriteNow(storage->get(), &loop_, {EraseRow("t", "a"), PutRow("t", "a", "-"), EraseRow("t", "none"), PutRow("large", "l", large)})
          .ok());
  storage->reset();
  StorageContents contents = Open().value()->Load().value();
  EXPECT_THAT(contents["t"], ElementsAre(Pair(zeros, ""), Pair("a", "-")));
  EXPECT_THAT(contents["u"], ElementsAre(Pair("b", "23")));
  EXPECT_EQ(contents["large"]["l"], large);
  options_.name_space = "another";
  EXPECT_THAT(Open().value()->Load().value(), IsEmpty());
}

TEST_F(RedisStorageTest, WhoOpensItOwnsIt) {
  Opened first = Open(), second = Open();
  ASSERT_TRUE(second.ok());
  const Status status = WriteNow(first->get(), &loop_, {PutRow("t", "a", "1")});
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("another GCS"));
  EXPECT_TRUE(WriteNow(second->get(), &loop_, {PutRow("t", "b", "2")}).ok());
  EXPECT_THAT(Open().value()->Load().value()["t"], ElementsAre(Pair("b", "2")));
}

TEST_F(RedisStorageTest, ServerThatIsStartedAgainIsWaitedFor) {
  Opened storage = Open();
  ASSERT_TRUE(WriteNow(storage->get(), &loop_, {PutRow("t", "a", "1")}).ok());
  StopServer();
  Status outcome = Status::Internal("not yet");
  (*storage)->Write({PutRow("t", "b", "2")}, [&outcome](const Status& status) { outcome = status; });
  StartServer();
  loop_.RunOne();
  EXPECT_TRUE(outcome.ok()) << outcome.ToString();
  storage->reset();
  EXPECT_THAT(Open().value()->Load().value()["t"], ElementsAre(Pair("a", "1"), Pair("b", "2")));
}

TEST_F(RedisStorageTest, ServerThatStaysAwayIsAnError) {
  options_.reconnect_timeout = std::chrono::milliseconds(20);
  Opened storage = Open();
  StopServer();
  EXPECT_EQ(WriteNow(storage->get(), &loop_, {PutRow("t", "b", "2")}).code(), StatusCode::kUnavailable);
  options_.open_timeout = std::chrono::milliseconds(20);
  EXPECT_EQ(Open().status().code(), StatusCode::kUnavailable);
}

TEST_F(RedisStorageTest, PasswordsAreChecked) {
  Redis({"CONFIG", "SET", "requirepass", "secret"});
  EXPECT_EQ(Open().status().code(), StatusCode::kUnauthenticated);
  options_.server.password = "wrong";
  EXPECT_EQ(Open().status().code(), StatusCode::kUnauthenticated);
  EXPECT_THAT(Open().status().message(), testing::Not(HasSubstr("wrong")));
  options_.server.password = "secret";
  EXPECT_TRUE(Open().ok());
  options_.server.username = "default";
  EXPECT_TRUE(Open().ok());
}

TEST_F(RedisStorageTest, TablesOfANewerReleaseAreRefused) {
  Redis({"HSET", "raycore:default:meta", "schema_version", "2"});
  Redis({"HSET", "raycore:default:meta", "owner", "somebody"});
  const Opened storage = Open();
  EXPECT_EQ(storage.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(storage.status().message(), HasSubstr("schema version 2 of a newer release"));
  auto connection = RedisConnection::Open(options_.server);
  EXPECT_EQ((*connection)->Run({"HGET", "raycore:default:meta", "owner"}).value().text, "somebody");
}

TEST_F(RedisStorageTest, RowsWithoutAVersionAreRefused) {
  Redis({"DEL", "raycore:default:meta"});
  Redis({"HSET", "raycore:default:rows", "x", "y"});
  EXPECT_EQ(Open().status().code(), StatusCode::kDataLoss);
}

TEST(RedisServerTest, Urls) {
  EXPECT_EQ(RedisServer::FromUrl("redis://h:1")->port, 1);
  EXPECT_EQ(RedisServer::FromUrl("redis://h")->port, 6379);
  EXPECT_FALSE(RedisServer::FromUrl("redis://h")->tls);
  EXPECT_TRUE(RedisServer::FromUrl("rediss://[::1]:7")->tls);
  EXPECT_EQ(RedisServer::FromUrl("rediss://[::1]:7")->host, "::1");
  EXPECT_EQ(RedisServer::FromUrl("rediss://[::1]")->port, 6379);
  for (const char* bad : {"h:1", "redis://", "redis://:1", "redis://h:x", "redis://h:0", "http://h"})
    EXPECT_FALSE(RedisServer::FromUrl(bad).ok()) << bad;
}

TEST(RedisServerTest, UrlsWithAPasswordAreRefusedAndNotShown) {
  for (const char* url :
       {"redis://user:s3cret@h:1", "rediss://:s3cret@h", "redis://s3cret@h:x", "http://user:s3cret@h", "redis://u:s3c@ret@"}) {
    const Status status = RedisServer::FromUrl(url).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("RAY_REDIS_USERNAME"));
    EXPECT_THAT(status.message(), HasSubstr("RAY_REDIS_PASSWORD"));
    EXPECT_THAT(status.message(), testing::Not(HasSubstr("s3c")));
  }
}

}  // namespace
}  // namespace ray::gcs
