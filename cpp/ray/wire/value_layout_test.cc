#include "ray/wire/value_layout.h"

#include <gtest/gtest.h>

#include <cstring>

namespace ray {
namespace {

std::string Write(std::string_view pickle, const std::vector<ConstBytes>& buffers) {
  std::string blob(PythonBlobSize(pickle.size(), buffers), '\xaa');
  WritePythonBlob(pickle, buffers, reinterpret_cast<uint8_t*>(blob.data()));
  return blob;
}

TEST(ValueLayoutTest, PickleAndBuffersComeBackAligned) {
  const std::string a(100, 'a'), b, c(7, 'c');
  const std::vector<ConstBytes> buffers{{a.data(), a.size()}, {b.data(), 0}, {c.data(), c.size()}};
  const std::string blob = Write("pickle", buffers);
  auto parsed = ParsePythonBlob(blob);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->pickle, "pickle");
  ASSERT_EQ(parsed->buffers.size(), 3u);
  for (size_t i = 0; i < buffers.size(); ++i) {
    EXPECT_EQ(std::string_view(parsed->buffers[i].first, parsed->buffers[i].second), std::string_view(buffers[i].first, buffers[i].second));
    EXPECT_EQ((parsed->buffers[i].first - blob.data()) % 64, 0);
  }
}

TEST(ValueLayoutTest, ScatterWritesTheSameBytesInOrder) {
  const std::string a(65, 'a'), c(1, 'c');
  const std::vector<ConstBytes> buffers{{a.data(), a.size()}, {nullptr, 0}, {c.data(), c.size()}};
  std::string out;
  ASSERT_TRUE(ScatterPythonBlob("some pickle", buffers, [&](size_t offset, const char* bytes, size_t size) {
                EXPECT_EQ(offset, out.size());
                out.append(bytes, size);
                return Status::Ok();
              }).ok());
  EXPECT_EQ(out, Write("some pickle", buffers));
}

TEST(ValueLayoutTest, EveryCutAndEveryBadFieldIsRefused) {
  const std::string a(10, 'a');
  const std::string blob = Write("pickle", {{a.data(), a.size()}});
  for (size_t size = 0; size < blob.size(); ++size) EXPECT_FALSE(ParsePythonBlob(std::string_view(blob).substr(0, size)).ok()) << size;
  auto with = [&](size_t at, uint64_t value, size_t width) {
    std::string bad = blob;
    std::memcpy(bad.data() + at, &value, width);
    return ParsePythonBlob(bad).ok();
  };
  EXPECT_FALSE(with(0, 1, 4));
  EXPECT_FALSE(with(4, 0xffffffff, 4));
  EXPECT_FALSE(with(8, UINT64_MAX, 8));
  EXPECT_FALSE(with(16, UINT64_MAX, 8));
  EXPECT_FALSE(with(24, UINT64_MAX - 60, 8));
}

TEST(ValueLayoutTest, MetadataOfErrors) {
  EXPECT_EQ(ErrorMetadata(ErrorType::kOwnerDied), "9");
  EXPECT_TRUE(IsErrorMetadata("9"));
  EXPECT_FALSE(IsErrorMetadata("PYTHON"));
  EXPECT_EQ(ErrorTypeOfMetadata("23"), 23);
  EXPECT_EQ(ErrorTypeOfMetadata("2x"), -1);
  EXPECT_EQ(ErrorTypeOfMetadata(""), -1);
  EXPECT_TRUE(HasPythonLayout("3"));
  EXPECT_FALSE(HasPythonLayout("RAW"));
}

}  // namespace
}  // namespace ray
