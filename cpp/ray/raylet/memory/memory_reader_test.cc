#include "ray/raylet/memory/memory_reader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace ray::raylet {
namespace {

class MemoryReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "memory_reader.XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root = name;
  }
  void TearDown() override { std::filesystem::remove_all(root); }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text;
  }
  void WriteNode() {
    Write("proc/meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   400 kB\nSwapTotal: 100 kB\nSwapFree: 50 kB\n");
  }
  std::filesystem::path root;
};

TEST_F(MemoryReaderTest, NothingToRead) { EXPECT_EQ(MemoryReader(root).Read().total, 0u); }

TEST_F(MemoryReaderTest, Node) {
  WriteNode();
  EXPECT_EQ(MemoryReader(root).Read().used, 600u << 10);
  EXPECT_EQ(MemoryReader(root).Read().total, 1000u << 10);
  EXPECT_EQ(MemoryReader(root, /*count_swap=*/true).Read().used, 650u << 10);
}

TEST_F(MemoryReaderTest, TheTightestGroupOfVersion2AnywhereAbove) {
  WriteNode();
  Write("proc/self/cgroup", "0::/a/b\n");
  Write("sys/fs/cgroup/a/b/memory.max", "max\n");
  Write("sys/fs/cgroup/a/b/memory.current", "5\n");
  Write("sys/fs/cgroup/a/memory.max", "10000\n");
  Write("sys/fs/cgroup/a/memory.current", "9000\n");
  Write("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 700\nactive_file 300\n");
  const MemoryUse use = MemoryReader(root).Read();
  EXPECT_EQ(use.total, 10000u);
  EXPECT_EQ(use.used, 8000u);
}

TEST_F(MemoryReaderTest, Version1AndItsLackOfALimit) {
  WriteNode();
  Write("proc/self/cgroup", "5:cpu,memory:/docker/x\n4:cpuset:/y\n");  // the folder of the host's path is not to be seen
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "9000\n");
  EXPECT_EQ(MemoryReader(root).Read().total, 1000u << 10);
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "10000\n");
  Write("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 500\ntotal_active_file 0\n");
  EXPECT_EQ(MemoryReader(root).Read().total, 10000u);
  EXPECT_EQ(MemoryReader(root).Read().used, 8500u);
}

TEST_F(MemoryReaderTest, OwnProcess) {
  EXPECT_GT(MemoryReader::RssOf(getpid()), 0u);
  EXPECT_NE(MemoryReader::CommandOf(getpid()).find("test"), std::string::npos);
  EXPECT_EQ(MemoryReader::RssOf(-1), 0u);
}

}  // namespace
}  // namespace ray::raylet
