// What every Storage keeps to, and what SqliteStorage refuses.
#include "ray/gcs_server/storage/storage.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "ray/gcs_server/storage/sqlite_storage.h"
#include "ray/gcs_server/storage/storage_test_util.h"

namespace ray::gcs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

class StorageTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { Open(); }
  void Open() {
    if (std::string(GetParam()) == "memory") {
      if (storage_ == nullptr) storage_ = std::make_unique<MemoryStorage>();
      return;
    }
    storage_ = nullptr;
    auto opened = SqliteStorage::Open({.path = dir_.File("gcs.sqlite")}, &loop_);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    storage_ = std::move(*opened);
  }
  void Write(std::vector<StorageOp> batch) {
    const Status status = WriteNow(storage_.get(), &loop_, std::move(batch));
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  StorageTable Load(const std::string& table) {
    Open();
    auto contents = storage_->Load();
    EXPECT_TRUE(contents.ok());
    return (*contents)[table];
  }
  static BufferPtr Bytes(std::string_view text) { return HeapBuffer::CopyOf(text); }

  ScratchDir dir_;
  WaitingLoop loop_;
  std::unique_ptr<Storage> storage_;
};

TEST_P(StorageTest, BatchesApplyInOrder) {
  Write({{"t", "a", {Bytes("1")}}, {"t", "b", {Bytes("2"), Bytes("3")}}, {"u", "a", {Bytes("4")}}});
  EXPECT_THAT(Load("t"), ElementsAre(Pair("a", "1"), Pair("b", "23")));
  Write({{"t", "a", {Bytes("5")}}, EraseRow("t", "a"), {"t", "b", {Bytes("6")}}, EraseRow("t", "none")});
  EXPECT_THAT(Load("t"), ElementsAre(Pair("b", "6")));
  EXPECT_THAT(Load("u"), ElementsAre(Pair("a", "4")));
  EXPECT_THAT(Load("never"), IsEmpty());
}

TEST_P(StorageTest, KeysAndValuesAreBytes) {
  const std::string zeros("\0x\0", 3), high("\xff\xfe");
  Write({PutRow("t", zeros, high), PutRow("t", "", ""), {"t", "no pieces", {}, false}});
  EXPECT_THAT(Load("t"), ElementsAre(Pair("", ""), Pair(zeros, high), Pair("no pieces", "")));
}

TEST_P(StorageTest, LargeValuesAndManyRows) {
  const std::string large(5 << 20, 'v');
  std::vector<StorageOp> batch{PutRow("large", "k", large)};
  for (int i = 0; i < 2000; ++i) batch.push_back(PutRow("t", std::to_string(i), "v"));
  Write(std::move(batch));
  EXPECT_EQ(Load("t").size(), 2000u);
  EXPECT_EQ(Load("large")["k"], large);
}

INSTANTIATE_TEST_SUITE_P(All, StorageTest, testing::Values("memory", "sqlite"), [](const auto& info) { return std::string(info.param); });

class SqliteStorageTest : public testing::Test {
 protected:
  using Opened = Result<std::unique_ptr<SqliteStorage>>;
  Opened Open() { return SqliteStorage::Open({.path = path_, .busy_timeout = std::chrono::milliseconds(20)}, &loop_); }
  void Fill() {
    Opened storage = Open();
    ASSERT_TRUE(storage.ok()) << storage.status().ToString();
    std::vector<StorageOp> batch;
    for (int i = 0; i < 200; ++i) batch.push_back(PutRow("t", std::to_string(i), std::string(500, 'v')));
    ASSERT_TRUE(WriteNow(storage->get(), &loop_, std::move(batch)).ok());
  }
  std::string Bytes() { return ReadFile(path_).value(); }
  void Execute(const std::string& sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
    ASSERT_EQ(sqlite3_close(db), SQLITE_OK);
  }
  // Refused with that code and text, and not a byte of the file has changed.
  void ExpectRefused(StatusCode code, const std::string& text) {
    const std::string before = Bytes();
    {
      Opened storage = Open();
      ASSERT_FALSE(storage.ok());
      EXPECT_EQ(storage.status().code(), code) << storage.status().ToString();
      EXPECT_THAT(storage.status().message(), HasSubstr(text));
      EXPECT_THAT(storage.status().message(), HasSubstr(path_));
    }
    EXPECT_EQ(Bytes(), before);
  }

  ScratchDir dir_;
  const std::string path_ = dir_.File("gcs.sqlite");
  WaitingLoop loop_;
};

TEST_F(SqliteStorageTest, FileOfANewerReleaseIsRefused) {
  Fill();
  Execute("UPDATE meta SET value = 2 WHERE name = 'schema_version'");
  ExpectRefused(StatusCode::kFailedPrecondition, "schema version 2 of a newer release");
}

TEST_F(SqliteStorageTest, FileWithoutItsVersionIsRefused) {
  Fill();
  Execute("DELETE FROM meta");
  ExpectRefused(StatusCode::kDataLoss, "damaged");
}

TEST_F(SqliteStorageTest, AnotherProgramsDatabaseIsRefused) {
  Execute("CREATE TABLE songs (name TEXT)");
  ExpectRefused(StatusCode::kFailedPrecondition, "not one of a GCS");
}

TEST_F(SqliteStorageTest, WhatIsNoDatabaseIsRefused) {
  ASSERT_TRUE(WriteFileAtomic(path_, std::string(4096, 'x')).ok());
  ExpectRefused(StatusCode::kDataLoss, "damaged or no GCS database");
}

TEST_F(SqliteStorageTest, DamagedPagesAreRefused) {
  Fill();
  std::string bytes = Bytes();
  ASSERT_GT(bytes.size(), 40000u);
  for (size_t at = 8192; at < 36000; ++at) bytes[at] = static_cast<char>(at * 31);
  ASSERT_TRUE(WriteFileAtomic(path_, bytes).ok());
  ExpectRefused(StatusCode::kDataLoss, "damaged");
}

TEST_F(SqliteStorageTest, TruncatedFileIsRefused) {
  Fill();
  ASSERT_EQ(::truncate(path_.c_str(), 20000), 0);
  ExpectRefused(StatusCode::kDataLoss, "damaged");
}

TEST_F(SqliteStorageTest, FileInUseIsRefusedAndFreeAfterwards) {
  Opened first = Open();
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  Opened second = Open();
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr("in use by another process"));
  ASSERT_TRUE(WriteNow(first->get(), &loop_, {PutRow("t", "a", "1")}).ok());
  first->reset();
  EXPECT_TRUE(Open().ok());
}

TEST_F(SqliteStorageTest, FolderThatIsNotThereIsAnError) {
  const auto storage = SqliteStorage::Open({.path = dir_.File("none/gcs.sqlite")}, &loop_);
  ASSERT_FALSE(storage.ok());
  EXPECT_THAT(storage.status().message(), HasSubstr("none/gcs.sqlite"));
}

TEST_F(SqliteStorageTest, EmptyFileIsANewOne) {
  ASSERT_TRUE(WriteFileAtomic(path_, "").ok());
  EXPECT_TRUE(Open().ok());
}

TEST_F(SqliteStorageTest, WhatQueuesUpMeanwhileIsWrittenInOrder) {
  Opened storage = Open();
  ASSERT_TRUE(storage.ok());
  std::vector<int> done;
  for (int i = 0; i < 500; ++i) {
    (*storage)->Write({PutRow("t", "k", std::to_string(i))}, [&done, i](const Status& status) {
      EXPECT_TRUE(status.ok());
      done.push_back(i);
    });
  }
  int posts = 0;
  for (; done.size() < 500; ++posts) loop_.RunOne();
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_LE(posts, 500);
  storage->reset();
  EXPECT_EQ(Open().value()->Load().value()["t"]["k"], "499");
}

TEST_F(SqliteStorageTest, EndWritesWhatWasGiven) {
  {
    Opened storage = Open();
    ASSERT_TRUE(storage.ok());
    for (int i = 0; i < 50; ++i) (*storage)->Write({PutRow("t", std::to_string(i), "v")}, [](const Status&) {});
  }
  EXPECT_EQ(Open().value()->Load().value()["t"].size(), 50u);
}

}  // namespace
}  // namespace ray::gcs
