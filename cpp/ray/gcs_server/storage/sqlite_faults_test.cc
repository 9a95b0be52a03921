// SqliteStorage when the process is killed in the middle of what it writes, and when the disk fails.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>

#include "ray/gcs_server/storage/sqlite_storage.h"
#include "ray/gcs_server/storage/storage_test_util.h"

namespace ray::gcs {
namespace {

constexpr char kPathVariable[] = "GCS_STORAGE_TEST_PATH";

// What is run in a process of its own, to be killed: writes batches 1, 2, 3 ... of two rows that say the same number, and
// says on descriptor 3 which were acknowledged.
[[noreturn]] void WriteUntilKilled(const char* path) {
  WaitingLoop loop;
  auto storage = SqliteStorage::Open({.path = path}, &loop);
  if (!storage.ok()) {
    std::cerr << storage.status().ToString() << std::endl;
    ::_exit(1);
  }
  uint64_t next = 1, unanswered = 0;
  for (;;) {
    for (; unanswered < 8; ++unanswered, ++next) {
      const std::string number = std::to_string(next);
      // The rows lie far apart, and large values make the log grow beyond a checkpoint now and then.
      (*storage)->Write(
          {PutRow("a", "last", number), PutRow("fill", std::to_string(next % 64), std::string(20000, 'f')), PutRow("z", "last", number)},
          [number = next, &unanswered](const Status& status) {
            if (!status.ok() || ::write(3, &number, sizeof number) != sizeof number) ::_exit(1);
            --unanswered;
          });
    }
    loop.RunOne();
  }
}

struct Child {
  explicit Child(const std::string& path) {
    int pipe_fds[2];
    EXPECT_EQ(::pipe2(pipe_fds, O_CLOEXEC), 0);
    pid = ::fork();
    if (pid == 0) {
      ::setenv(kPathVariable, path.c_str(), 1);
      ::dup2(pipe_fds[1], 3);
      const int null = ::open("/dev/null", O_WRONLY);
      ::dup2(null, 1);
      ::execl("/proc/self/exe", "child", nullptr);
      ::_exit(127);
    }
    ::close(pipe_fds[1]);
    acknowledged_fd = pipe_fds[0];
  }
  // The next acknowledged number; 0: the child has ended.
  uint64_t Next() const {
    uint64_t number = 0;
    return ::read(acknowledged_fd, &number, sizeof number) == sizeof number ? number : 0;
  }
  void Kill() const {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  pid_t pid;
  int acknowledged_fd;
};

TEST(SqliteFaults, KilledAtAnyMomentNothingAcknowledgedIsLostAndNoBatchIsTorn) {
  ScratchDir dir;
  const std::string path = dir.File("gcs.sqlite");
  std::mt19937 random(20251127);
  for (int round = 0; round < 12; ++round) {
    Child child(path);
    uint64_t last = 0;
    for (uint64_t n = std::uniform_int_distribution<uint64_t>(0, 200)(random); n > 0; --n) {
      last = child.Next();
      ASSERT_NE(last, 0u) << "the child ended by itself";
    }
    child.Kill();
    while (const uint64_t more = child.Next()) last = more;  // told before its end
    ::close(child.acknowledged_fd);
    WaitingLoop loop;
    auto storage = SqliteStorage::Open({.path = path}, &loop);
    ASSERT_TRUE(storage.ok()) << storage.status().ToString();
    StorageContents contents = (*storage)->Load().value();
    EXPECT_EQ(contents["a"]["last"], contents["z"]["last"]);
    const std::string stored = contents["a"]["last"];
    EXPECT_GE(stored.empty() ? 0 : std::stoull(stored), last) << "in round " << round;
    // The next child starts at 1 again.
    ASSERT_TRUE(WriteNow(storage->get(), &loop, {EraseRow("a", "last"), EraseRow("z", "last")}).ok());
  }
}

TEST(SqliteFaults, FileOfAKilledProcessIsFree) {
  ScratchDir dir;
  const std::string path = dir.File("gcs.sqlite");
  Child child(path);
  ASSERT_NE(child.Next(), 0u);
  WaitingLoop loop;
  EXPECT_EQ(SqliteStorage::Open({.path = path, .busy_timeout = std::chrono::milliseconds(20)}, &loop).status().code(),
            StatusCode::kUnavailable);
  child.Kill();
  ::close(child.acknowledged_fd);
  EXPECT_TRUE(SqliteStorage::Open({.path = path}, &loop).ok());
}

// SQLite's file system with a disk that writes fail on, from when they are told to.
class FaultyDisk {
 public:
  static constexpr char kName[] = "faulty";
  FaultyDisk() {
    real_ = sqlite3_vfs_find(nullptr);
    vfs_ = *real_;
    vfs_.zName = kName;
    vfs_.pNext = nullptr;
    vfs_.xOpen = [](sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* out) {
      const int code = real_->xOpen(real_, name, file, flags, out);
      if (code != SQLITE_OK || file->pMethods == nullptr) return code;
      // The database and its log have different ones.
      Methods& methods = methods_.try_emplace(file->pMethods, Methods{*file->pMethods, file->pMethods}).first->second;
      methods.shown.xWrite = [](sqlite3_file* f, const void* bytes, int count, sqlite3_int64 at) {
        if (const int failure = failure_; failure != SQLITE_OK) {
          ++failures_;
          return failure;
        }
        return reinterpret_cast<const Methods*>(f->pMethods)->real->xWrite(f, bytes, count, at);
      };
      file->pMethods = &methods.shown;
      return code;
    };
    sqlite3_vfs_register(&vfs_, 0);
  }
  ~FaultyDisk() {
    failure_ = SQLITE_OK;
    sqlite3_vfs_unregister(&vfs_);
  }
  // What writes give from now on.
  static void Fail(int code) { failure_ = code; }
  static int failures() { return failures_; }

 private:
  struct Methods {
    sqlite3_io_methods shown;  // first: files point to it
    const sqlite3_io_methods* real;
  };
  static inline sqlite3_vfs* real_;
  static inline sqlite3_vfs vfs_;
  static inline std::map<const sqlite3_io_methods*, Methods> methods_;
  static inline std::atomic<int> failure_ = SQLITE_OK;
  static inline std::atomic<int> failures_ = 0;
};

class SqliteDiskTest : public testing::Test {
 protected:
  SqliteDiskTest() {
    auto opened = SqliteStorage::Open({.path = path_, .vfs = FaultyDisk::kName, .full_retry = std::chrono::milliseconds(1)}, &loop_);
    EXPECT_TRUE(opened.ok()) << opened.status().ToString();
    storage_ = std::move(*opened);
    EXPECT_TRUE(WriteNow(storage_.get(), &loop_, {PutRow("t", "a", "1")}).ok());
  }
  FaultyDisk disk_;
  ScratchDir dir_;
  const std::string path_ = dir_.File("gcs.sqlite");
  WaitingLoop loop_;
  std::unique_ptr<SqliteStorage> storage_;
};

TEST_F(SqliteDiskTest, FullDiskIsWaitedFor) {
  FaultyDisk::Fail(SQLITE_FULL);
  const int before = FaultyDisk::failures();
  Status outcome = Status::Internal("not yet");
  storage_->Write({PutRow("t", "b", "2")}, [&outcome](const Status& status) { outcome = status; });
  while (FaultyDisk::failures() < before + 5) ::usleep(1000);
  EXPECT_EQ(loop_.size(), 0u) << "it was answered";
  FaultyDisk::Fail(SQLITE_OK);
  loop_.RunOne();
  EXPECT_TRUE(outcome.ok()) << outcome.ToString();
  storage_ = nullptr;
  auto again = SqliteStorage::Open({.path = path_}, &loop_);
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_THAT((*again)->Load().value()["t"], testing::ElementsAre(testing::Pair("a", "1"), testing::Pair("b", "2")));
}

TEST_F(SqliteDiskTest, EndDoesNotWaitForAFullDisk) {
  FaultyDisk::Fail(SQLITE_FULL);
  storage_->Write({PutRow("t", "b", "2")}, [](const Status&) {});
  storage_ = nullptr;
  FaultyDisk::Fail(SQLITE_OK);
  auto again = SqliteStorage::Open({.path = path_}, &loop_);
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_THAT((*again)->Load().value()["t"], testing::ElementsAre(testing::Pair("a", "1")));
}

TEST_F(SqliteDiskTest, BrokenDiskFailsTheBatchAsAWhole) {
  FaultyDisk::Fail(SQLITE_IOERR_WRITE);
  const Status status = WriteNow(storage_.get(), &loop_, {PutRow("t", "b", "2"), PutRow("t", "c", "3")});
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status.ToString();
  EXPECT_THAT(status.message(), testing::HasSubstr(path_));
  storage_ = nullptr;
  FaultyDisk::Fail(SQLITE_OK);
  auto again = SqliteStorage::Open({.path = path_}, &loop_);
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_THAT((*again)->Load().value()["t"], testing::ElementsAre(testing::Pair("a", "1")));
}

}  // namespace

int Main(int argc, char** argv) {
  if (const char* path = std::getenv(kPathVariable)) WriteUntilKilled(path);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace ray::gcs

int main(int argc, char** argv) { return ray::gcs::Main(argc, argv); }
