// With helpers written in shell: `sh -c` scripts that misbehave, and one in Python that keeps files.
#include "ray/object_manager/spill/external_storage.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <future>
#include <string>

#include "ray/common/errors.h"
#include "ray/testing/promise/promise.h"
#include "ray/util/fs.h"

namespace ray::object_manager {
namespace {

bool Exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

// URIs are paths to it. Says that the disk is full where the path has "full" in it.
constexpr char kHelper[] = R"(
import os, struct, sys
source, target = os.fdopen(0, "rb"), os.fdopen(1, "wb")
def answer(code, data):
    target.write(struct.pack("<cQ", code, len(data)) + data)
    target.flush()
while head := source.read(21):
    what, length, offset, size = struct.unpack("<cIQQ", head)
    path = source.read(length).decode()
    if "mute" in path:
        source.read()
    if what == b"w":
        data = source.read(size)
        if "full" in path:
            answer(b"f", b"no room")
        else:
            open(path, "wb").write(data)
            answer(b"k", b"")
    elif what == b"r":
        try:
            answer(b"k", open(path, "rb").read()[offset:offset + size])
        except OSError as error:
            answer(b"l", str(error).encode())
    elif what == b"d":
        if os.path.exists(path):
            os.unlink(path)
        answer(b"k", b"")
)";

class ExternalStorageTest : public ::testing::Test {
 protected:
  ExternalStorageTest() {
    char path[] = "/tmp/ray_external_test_XXXXXX";
    dir_ = mkdtemp(path);
    memory_ = ::memfd_create("test", MFD_CLOEXEC);
    EXPECT_EQ(::ftruncate(memory_, 8 << 20), 0);
  }
  ~ExternalStorageTest() override {
    ::close(memory_);
    EXPECT_TRUE(RemoveTree(dir_).ok());
  }
  ExternalStorageConfig Config(std::vector<std::string> uris, std::vector<std::string> helper = {"python3", "-c", kHelper}) {
    return {.uris = std::move(uris),
            .node = "me",
            .helper = std::move(helper),
            .segments = {.directories = {dir_}, .node = "me", .max_disk_use = 1.0}};
  }
  static Status Write(ExternalStorage* storage, int directory, uint64_t file, std::vector<MemoryFile> ranges) {
    TestPromise<Status> done;
    storage->Write(directory, file, std::move(ranges), [&](const Status& status) { done.set_value(status); });
    return done.get_future().get();
  }
  static Status Read(ExternalStorage* storage, int directory, uint64_t file, uint64_t offset, MemoryFile to) {
    TestPromise<Status> done;
    storage->Read(directory, file, offset, to, [&](const Status& status) { done.set_value(status); });
    return done.get_future().get();
  }
  std::string FileName(uint64_t file) const { return dir_ + "/ray_spilled_objects_me_" + std::to_string(file); }

  std::string dir_;
  int memory_ = -1;
};

TEST_F(ExternalStorageTest, WritesReadsAndDeletes) {
  const std::string bytes(3'000'000, 'x');
  ASSERT_EQ(::pwrite(memory_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  ASSERT_EQ(::pwrite(memory_, "tail", 4, 4'000'000), 4);
  ExternalStorage storage(Config({dir_, dir_ + "/full"}));
  EXPECT_EQ(storage.num_directories(), 2);
  ASSERT_TRUE(Write(&storage, 0, 1, {{memory_, 0, bytes.size()}, {memory_, 4'000'000, 4}}).ok());
  EXPECT_EQ(*ReadFile(FileName(1)), bytes + "tail");
  EXPECT_EQ(Write(&storage, 1, 2, {{memory_, 0, 10}}).cause(), static_cast<int32_t>(ErrorType::kOutOfDisk));
  ASSERT_TRUE(Read(&storage, 0, 1, bytes.size() - 1, {memory_, 100, 5}).ok());
  std::string read(5, ' ');
  ASSERT_EQ(::pread(memory_, read.data(), 5, 100), 5);
  EXPECT_EQ(read, "xtail");
  EXPECT_EQ(Read(&storage, 0, 1, bytes.size(), {memory_, 100, 5}).code(), StatusCode::kDataLoss);  // too short
  EXPECT_EQ(Read(&storage, 0, 7, 0, {memory_, 100, 5}).code(), StatusCode::kDataLoss);             // not there
  ASSERT_TRUE(Write(&storage, 0, 3, {{memory_, 0, 10}}).ok());
  storage.Delete(0, 1);
  ASSERT_TRUE(Read(&storage, 0, 3, 0, {memory_, 0, 10}).ok());  // after the delete
  EXPECT_FALSE(Exists(FileName(1)));
  storage.Stop();
  EXPECT_FALSE(Exists(FileName(3)));  // what is left goes at the end
}

TEST_F(ExternalStorageTest, AHelperThatEndsFailsItsRequestAndIsReplaced) {
  const std::string mark = dir_ + "/started";
  // The first one ends before it answers.
  const std::string script =
      "if [ ! -e " + mark + " ]; then touch " + mark + "; head -c 30 > /dev/null; exit 3; fi; exec python3 -c \"$HELPER\"";
  ::setenv("HELPER", kHelper, 1);
  ExternalStorage storage(Config({dir_}, {"sh", "-c", script}));
  EXPECT_EQ(Write(&storage, 0, 1, {{memory_, 0, 100}}).code(), StatusCode::kUnavailable);
  EXPECT_TRUE(Write(&storage, 0, 2, {{memory_, 0, 100}}).ok());
  EXPECT_TRUE(Exists(FileName(2)));
}

TEST_F(ExternalStorageTest, AHelperThatHangsIsGivenUp) {
  ExternalStorageConfig config = Config({dir_ + "/mute"});
  config.progress_timeout = std::chrono::milliseconds(200);
  config.clean_up_timeout = std::chrono::milliseconds(100);
  ExternalStorage storage(config);
  EXPECT_EQ(Write(&storage, 0, 1, {{memory_, 0, 100}}).code(), StatusCode::kDeadlineExceeded);
}

TEST_F(ExternalStorageTest, AHelperThatCannotBeStarted) {
  ExternalStorage storage(Config({dir_}, {"/nowhere/python"}));
  EXPECT_EQ(Write(&storage, 0, 1, {{memory_, 0, 100}}).code(), StatusCode::kNotFound);
}

TEST_F(ExternalStorageTest, StopEndsWhatIsGoingOn) {
  ExternalStorageConfig config = Config({dir_ + "/mute"});
  config.clean_up_timeout = std::chrono::milliseconds(100);
  ExternalStorage storage(config);
  TestPromise<Status> done;
  storage.Write(0, 1, {{memory_, 0, 100}}, [&](const Status& status) { done.set_value(status); });
  storage.Stop();
  auto future = done.get_future();
  if (future.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {  // else it had not begun
    EXPECT_EQ(future.get().code(), StatusCode::kCancelled);
  }
}

TEST_F(ExternalStorageTest, SegmentsAreLocal) {
  ExternalStorage storage(Config({"s3://nowhere"}));
  TestPromise<Result<int>> done;
  storage.MakeSegment(1 << 20, [&](Result<int> fd) { done.set_value(std::move(fd)); });
  Result<int> fd = done.get_future().get();
  ASSERT_TRUE(fd.ok());
  ::close(*fd);
}

}  // namespace
}  // namespace ray::object_manager
