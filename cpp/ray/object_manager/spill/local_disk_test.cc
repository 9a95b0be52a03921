#include "ray/object_manager/spill/local_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <future>
#include <string>

#include "ray/common/errors.h"
#include "ray/testing/promise/promise.h"
#include "ray/util/fs.h"

namespace ray::object_manager {
namespace {

bool Exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

class LocalDiskTest : public ::testing::Test {
 protected:
  LocalDiskTest() {
    char path[] = "/tmp/ray_disk_test_XXXXXX";
    dir_ = mkdtemp(path);
    memory_ = ::memfd_create("test", MFD_CLOEXEC);
    EXPECT_EQ(::ftruncate(memory_, 8 << 20), 0);
  }
  ~LocalDiskTest() override {
    ::close(memory_);
    EXPECT_TRUE(RemoveTree(dir_).ok());
  }
  LocalDiskConfig Config(double max_use = 1.0) {
    return {.directories = {dir_ + "/a", dir_ + "/b"}, .node = "me", .max_disk_use = max_use};
  }
  static Status Write(LocalDisk* disk, int directory, uint64_t file, std::vector<MemoryFile> ranges) {
    TestPromise<Status> done;
    disk->Write(directory, file, std::move(ranges), [&](const Status& status) { done.set_value(status); });
    return done.get_future().get();
  }
  static Status Read(LocalDisk* disk, int directory, uint64_t file, uint64_t offset, MemoryFile to) {
    TestPromise<Status> done;
    disk->Read(directory, file, offset, to, [&](const Status& status) { done.set_value(status); });
    return done.get_future().get();
  }
  static Result<int> MakeSegment(LocalDisk* disk, uint64_t size) {
    TestPromise<Result<int>> done;
    disk->MakeSegment(size, [&](Result<int> fd) { done.set_value(std::move(fd)); });
    return done.get_future().get();
  }

  std::string dir_;
  int memory_ = -1;
};

TEST_F(LocalDiskTest, WritesReadsAndDeletes) {
  LocalDisk disk(Config());
  EXPECT_FALSE(Exists(dir_ + "/b"));  // nothing before it is needed
  const std::string bytes(3'000'000, 'x');
  ASSERT_EQ(::pwrite(memory_, bytes.data(), bytes.size(), 100), 3'000'000);
  ASSERT_EQ(::pwrite(memory_, "hello", 5, 7'000'000), 5);
  ASSERT_TRUE(Write(&disk, 1, 9, {{memory_, 100, bytes.size()}, {memory_, 7'000'000, 5}}).ok());
  const std::string name = dir_ + "/b/ray_spilled_objects_me/9";
  EXPECT_EQ(ReadFile(name).value(), bytes + "hello");
  EXPECT_FALSE(Write(&disk, 1, 9, {{memory_, 0, 1}}).ok());  // never over another
  ASSERT_TRUE(Read(&disk, 1, 9, 3'000'000, {memory_, 50, 5}).ok());
  char back[5];
  ASSERT_EQ(::pread(memory_, back, 5, 50), 5);
  EXPECT_EQ(std::string(back, 5), "hello");
  EXPECT_EQ(Read(&disk, 1, 9, 3'000'000, {memory_, 50, 6}).code(), StatusCode::kDataLoss);
  disk.Delete(1, 9);
  EXPECT_FALSE(Read(&disk, 1, 9, 0, {memory_, 0, 1}).ok());  // after the deletion: one thread does both
  EXPECT_FALSE(Exists(name));
  disk.Stop();
  EXPECT_FALSE(Exists(dir_ + "/b/ray_spilled_objects_me"));
}

TEST_F(LocalDiskTest, RefusesAFullDisk) {
  LocalDisk disk(Config(/*max_use=*/0.0));
  Status status = Write(&disk, 0, 1, {{memory_, 0, 1000}});
  EXPECT_EQ(status.cause(), static_cast<int32_t>(ErrorType::kOutOfDisk)) << status.ToString();
  EXPECT_EQ(MakeSegment(&disk, 1000).status().cause(), static_cast<int32_t>(ErrorType::kOutOfDisk));
  EXPECT_FALSE(Exists(dir_ + "/a/ray_spilled_objects_me/1"));
}

TEST_F(LocalDiskTest, ABrokenFolderFailsWithoutAFile) {
  ASSERT_TRUE(WriteFileAtomic(dir_ + "/a", "in the way").ok());
  LocalDisk disk(Config());
  EXPECT_FALSE(Write(&disk, 0, 1, {{memory_, 0, 1000}}).ok());
  EXPECT_TRUE(Write(&disk, 1, 1, {{memory_, 0, 1000}}).ok());
  auto fd = MakeSegment(&disk, 1000);  // from the folder that works
  ASSERT_TRUE(fd.ok()) << fd.status().ToString();
  ::close(*fd);
}

TEST_F(LocalDiskTest, SegmentsAreNamelessAndFull) {
  LocalDisk disk(Config());
  auto fd = MakeSegment(&disk, 1'000'000);
  ASSERT_TRUE(fd.ok()) << fd.status().ToString();
  struct stat info;
  ASSERT_EQ(::fstat(*fd, &info), 0);
  EXPECT_EQ(info.st_nlink, 0u);
  EXPECT_EQ(info.st_size, 1'000'000);
  EXPECT_GE(info.st_blocks * 512, 1'000'000);
  ::close(*fd);
}

TEST_F(LocalDiskTest, RemovesLeftoversOfTheDeadOnly) {
  const std::string dead = dir_ + "/a/ray_spilled_objects_dead", live = dir_ + "/a/ray_spilled_objects_live";
  for (const std::string& path : {dead, live, dir_ + "/a/other"}) {
    ASSERT_TRUE(MakeDirs(path).ok());
    ASSERT_TRUE(WriteFileAtomic(path + "/1", "x").ok());
  }
  const int lock = ::open(live.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::flock(lock, LOCK_EX), 0);
  LocalDisk disk(Config());
  disk.RemoveLeftovers();
  EXPECT_FALSE(Read(&disk, 0, 1, 0, {memory_, 0, 1}).ok());  // behind it on the same thread
  EXPECT_FALSE(Exists(dead));
  EXPECT_TRUE(Exists(live + "/1"));
  EXPECT_TRUE(Exists(dir_ + "/a/other/1"));
  ::close(lock);
}

}  // namespace
}  // namespace ray::object_manager
