#include "ray/object_manager/shm/arena.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "ray/object_manager/shm/arena_writer.h"
#include "ray/object_manager/shm/page_warmer.h"
#include "ray/testing/promise/promise.h"

namespace ray::object_manager {
namespace {

constexpr uint64_t kMiB = 1024 * 1024;

uint64_t UsedBytes(int fd) {
  struct stat st {};
  EXPECT_EQ(fstat(fd, &st), 0);
  return static_cast<uint64_t>(st.st_blocks) * 512;
}

std::string Pattern(size_t size) {
  std::string s(size, '\0');
  for (size_t i = 0; i < size; ++i) s[i] = static_cast<char>(i * 2654435761u >> 13);
  return s;
}

TEST(Arena, IsSparseAndCannotBeResized) {
  auto arena = Arena::Make(uint64_t{64} << 30);
  ASSERT_TRUE(arena.ok()) << arena.status().ToString();
  EXPECT_EQ(UsedBytes((*arena)->fd()), 0u);
  EXPECT_NE(ftruncate((*arena)->fd(), 0), 0);
}

TEST(Arena, MakesAndReleasesPages) {
  auto arena = std::move(Arena::Make(16 * kMiB)).value();
  ASSERT_TRUE(arena->AllocatePages(0, 4 * kMiB).ok());
  EXPECT_EQ(UsedBytes(arena->fd()), 4 * kMiB);
  ASSERT_TRUE(arena->ReleasePages(kMiB, 3 * kMiB).ok());
  EXPECT_EQ(UsedBytes(arena->fd()), 2 * kMiB);
}

TEST(PageWarmer, WarmsAndAnswers) {
  auto arena = std::move(Arena::Make(16 * kMiB)).value();
  TestPromise<uint64_t> done;
  PageWarmer warmer(arena.get(), [&](uint64_t, uint64_t end, const Status& status) {
    EXPECT_TRUE(status.ok());
    done.set_value(end);
  });
  warmer.Warm(kMiB, 2 * kMiB);
  EXPECT_EQ(done.get_future().get(), 2 * kMiB);
  EXPECT_EQ(UsedBytes(arena->fd()), kMiB);
  warmer.Stop();
  warmer.Stop();
}

// Every way of writing leaves the same bytes, and none outside.
TEST(ArenaWriter, WritesColdWarmAndParallel) {
  auto arena = std::move(Arena::Make(256 * kMiB)).value();
  auto writer = std::move(ArenaWriter::Make(dup(arena->fd()), arena->size())).value();
  auto reader = std::move(Mapping::Make(arena->fd(), arena->size(), Mapping::Mode::kRead)).value();
  for (size_t size : {size_t{1}, size_t{4097}, size_t{300000}, size_t{5 * kMiB + 3}, size_t{40 * kMiB + 1}}) {
    std::string bytes = Pattern(size);
    for (uint64_t warm : {uint64_t{0}, size / 2, size}) {
      uint64_t offset = 64 * kMiB + 128;
      ASSERT_TRUE(arena->ReleasePages(0, arena->size()).ok());
      ASSERT_TRUE(writer->Write(offset, bytes.data(), size, offset + warm).ok());
      EXPECT_EQ(std::memcmp(reader->data() + offset, bytes.data(), size), 0) << size << " " << warm;
      EXPECT_EQ(reader->data()[offset - 1], 0);
      EXPECT_EQ(reader->data()[offset + size], 0);
      ASSERT_TRUE(writer->Write(offset + 1, bytes.data(), size, offset + 1 + size).ok());  // again, pages seen
      EXPECT_EQ(std::memcmp(reader->data() + offset + 1, bytes.data(), size), 0);
    }
  }
}

TEST(CopyStreaming, CopiesExactlyWhateverTheAlignment) {
  const std::string bytes = Pattern(1000);
  for (size_t size : {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{200}, size_t{900}}) {
    for (size_t to : {size_t{0}, size_t{1}, size_t{63}}) {
      for (size_t from : {size_t{0}, size_t{7}}) {
        std::string out(1100, '.');
        CopyStreaming(reinterpret_cast<uint8_t*>(out.data()) + to, reinterpret_cast<const uint8_t*>(bytes.data()) + from, size);
        EXPECT_EQ(out, std::string(to, '.') + bytes.substr(from, size) + std::string(1100 - to - size, '.'));
      }
    }
  }
}

// The second work gets a helper while the first has two.
TEST(HelperThreads, GoToTheWorkWithTheFewest) {
  HelperThreads helpers(2);
  std::mutex mu;
  std::condition_variable changed;
  std::map<char, std::set<std::thread::id>> inside;
  auto piece = [&](char work, size_t wanted) {
    std::unique_lock lock(mu);
    inside[work].insert(std::this_thread::get_id());
    changed.notify_all();
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(30), [&] { return inside[work].size() >= wanted; }));
  };
  std::thread first([&] { helpers.ForEach(100, [&](size_t i) { piece('a', i < 3 ? 3 : 1); }); });
  helpers.ForEach(2, [&](size_t) { piece('b', 2); });  // each piece waits for the other: so a helper must come
  first.join();
  std::atomic<size_t> sum{0};
  helpers.ForEach(1000, [&](size_t i) { sum += i; });
  EXPECT_EQ(sum, 499500u);
  helpers.ForEach(0, [&](size_t) { FAIL(); });
}

TEST(ArenaWriter, ManyThreadsShareTheHelper) {
  auto arena = std::move(Arena::Make(256 * kMiB)).value();
  auto writer = std::move(ArenaWriter::Make(dup(arena->fd()), arena->size())).value();
  std::string bytes = Pattern(33 * kMiB);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 3; ++i) ASSERT_TRUE(writer->Write(t * 64 * kMiB, bytes.data(), bytes.size(), UINT64_MAX).ok());
    });
  }
  for (auto& t : threads) t.join();
  for (uint64_t t = 0; t < 3; ++t) EXPECT_EQ(std::memcmp(writer->data() + t * 64 * kMiB, bytes.data(), bytes.size()), 0);
}

}  // namespace
}  // namespace ray::object_manager
