#include "ray/rpc/local/out_queue.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace ray::rpc {
namespace {

void Append(OutQueue* queue, const std::string& bytes) { std::memcpy(queue->Append(bytes.size()), bytes.data(), bytes.size()); }

std::string Gathered(const OutQueue& queue, int max = 64) {
  std::vector<iovec> iov(static_cast<size_t>(max));
  int fd;
  const int n = queue.Gather(iov.data(), max, &fd);
  std::string bytes;
  for (int i = 0; i < n; ++i) bytes.append(static_cast<const char*>(iov[i].iov_base), iov[i].iov_len);
  return bytes;
}

// Two queues used as a connection uses them, beside a plain string; as much leaves at a time as chance decides.
TEST(OutQueueTest, NothingIsLostDoubledOrOvertaken) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&random](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
    OutQueue pending, sending;
    std::string expected, sent;
    for (int step = 0; step < 2000; ++step) {
      const std::string bytes(1 + (below(20) == 0 ? below(70000) : below(300)), static_cast<char>('a' + below(26)));
      switch (below(4)) {
        case 0:
          pending.AppendPart(HeapBuffer::CopyOf(bytes));
          expected += bytes;
          break;
        case 1: {
          sending.Splice(&pending);
          EXPECT_TRUE(pending.empty());
          std::string some = Gathered(sending, 1 + static_cast<int>(below(8)));
          if (!some.empty()) some.resize(1 + below(some.size()));
          sending.Consume(some.size());
          pending.TakeSpare(&sending);
          sent += some;
          break;
        }
        default: Append(&pending, bytes); expected += bytes;
      }
      ASSERT_EQ(sent.size() + sending.size() + pending.size(), expected.size());
    }
    sending.Splice(&pending);
    while (!sending.empty()) {
      const std::string some = Gathered(sending);
      sending.Consume(some.size());
      sent += some;
    }
    ASSERT_TRUE(sent == expected) << "seed " << seed;
  }
}

TEST(OutQueueTest, ADescriptorGoesWithTheBytesBehindIt) {
  OutQueue queue;
  Append(&queue, "before");
  const int descriptor = dup(0);
  queue.AppendFd(descriptor);
  Append(&queue, "with it");
  iovec iov[8];
  int fd;
  EXPECT_EQ(queue.Gather(iov, 8, &fd), 1) << "its message begins with it";
  EXPECT_EQ(fd, -1);
  queue.Consume(6);
  EXPECT_EQ(queue.Gather(iov, 8, &fd), 1);
  EXPECT_EQ(fd, descriptor);
  queue.Consume(1);  // the first byte took it along
  queue.Gather(iov, 8, &fd);
  EXPECT_EQ(fd, -1);
  EXPECT_EQ(Gathered(queue), "ith it");
}

TEST(OutQueueTest, AQuietConnectionWritesIntoOneBlock) {
  OutQueue pending, sending;
  const uint8_t* first = nullptr;
  for (int i = 0; i < 10; ++i) {
    const uint8_t* at = pending.Append(100);
    if (i == 0) first = at;
    EXPECT_EQ(at, first) << "no other one is needed";
    sending.Splice(&pending);
    sending.Consume(100);
    pending.TakeSpare(&sending);
  }
}

}  // namespace
}  // namespace ray::rpc
