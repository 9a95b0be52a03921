#include "ray/common/buffer.h"

#include <gtest/gtest.h>

namespace ray {
namespace {

TEST(BufferTest, CopyOwnsItsBytes) {
  std::string bytes = "hello";
  auto buffer = HeapBuffer::CopyOf(bytes);
  bytes[0] = 'J';
  EXPECT_EQ(buffer->view(), "hello");
  EXPECT_EQ(HeapBuffer::CopyOf("")->size(), 0u);
}

TEST(BufferTest, ASliceKeepsItsBaseAlive) {
  auto base = HeapBuffer::CopyOf("hello world");
  std::weak_ptr<const Buffer> watch = base;
  BufferPtr slice = std::make_shared<SliceBuffer>(std::move(base), 6, 5);
  EXPECT_FALSE(watch.expired());
  EXPECT_EQ(slice->view(), "world");
  slice.reset();
  EXPECT_TRUE(watch.expired());
}

}  // namespace
}  // namespace ray
