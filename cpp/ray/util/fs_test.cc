#include "ray/util/fs.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace ray {
namespace {

class FsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "fs_test_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { ASSERT_TRUE(RemoveTree(dir_).ok()); }
  static mode_t ModeOf(const std::string& path) {
    struct stat st {};
    return ::stat(path.c_str(), &st) == 0 ? st.st_mode & 07777 : 0;
  }
  std::string dir_;
};

TEST_F(FsTest, WritesAndReplaces) {
  std::string path = dir_ + "/x";
  ASSERT_TRUE(WriteFileAtomic(path, "one").ok());
  ASSERT_TRUE(WriteFileAtomic(path, std::string("t\0o", 3), 0640).ok());
  EXPECT_EQ(ReadFile(path).value(), std::string("t\0o", 3));
  EXPECT_EQ(ModeOf(path), 0640u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_), {}), 1);  // no temporary file is left
}

TEST_F(FsTest, FailuresNameThePath) {
  EXPECT_EQ(ReadFile(dir_ + "/none").status().code(), StatusCode::kNotFound);
  EXPECT_NE(ReadFile(dir_ + "/none").status().message().find("/none"), std::string::npos);
  EXPECT_EQ(WriteFileAtomic(dir_ + "/none/x", "").code(), StatusCode::kNotFound);
  ASSERT_TRUE(MakeDirs(dir_ + "/folder").ok());
  EXPECT_FALSE(WriteFileAtomic(dir_ + "/folder", "x").ok());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_), {}), 1);
}

TEST_F(FsTest, ReadsFilesWithoutASize) { EXPECT_FALSE(ReadFile("/proc/self/stat").value().empty()); }

TEST_F(FsTest, MakesPrivateFoldersWhateverTheUmask) {
  mode_t old = ::umask(0777);
  Status status = MakeDirs(dir_ + "/a/b/c");
  ::umask(old);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(ModeOf(dir_ + "/a"), 0700u);
  EXPECT_EQ(ModeOf(dir_ + "/a/b/c"), 0700u);
  EXPECT_TRUE(MakeDirs(dir_ + "/a/b/c/").ok());
  ASSERT_TRUE(WriteFileAtomic(dir_ + "/file", "").ok());
  EXPECT_FALSE(MakeDirs(dir_ + "/file").ok());
  EXPECT_FALSE(MakeDirs(dir_ + "/file/x").ok());
  EXPECT_FALSE(MakeDirs("").ok());
}

TEST_F(FsTest, RemoveTreeDoesNotFollowLinks) {
  ASSERT_TRUE(MakeDirs(dir_ + "/keep").ok());
  ASSERT_TRUE(WriteFileAtomic(dir_ + "/keep/file", "x").ok());
  ASSERT_TRUE(MakeDirs(dir_ + "/gone/deep").ok());
  ASSERT_EQ(::symlink((dir_ + "/keep").c_str(), (dir_ + "/gone/link").c_str()), 0);
  ASSERT_TRUE(RemoveTree(dir_ + "/gone").ok());
  EXPECT_NE(::access((dir_ + "/gone").c_str(), F_OK), 0);
  EXPECT_EQ(ReadFile(dir_ + "/keep/file").value(), "x");
  EXPECT_TRUE(RemoveTree(dir_ + "/never-there").ok());
}

}  // namespace
}  // namespace ray
