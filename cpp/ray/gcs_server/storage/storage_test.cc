// Contract of every Storage.
#include "ray/gcs_server/storage/storage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ray::gcs {
namespace {

using testing::ElementsAre;
using testing::Pair;

class StorageTest : public testing::Test {
 protected:
  void Write(std::vector<StorageOp> batch) {
    storage_.Write(std::move(batch), [](const Status& status) { EXPECT_TRUE(status.ok()); });
  }
  std::map<std::string, std::string> Load(const std::string& table) {
    std::map<std::string, std::string> rows;
    storage_.Load(table, [&](Result<std::map<std::string, std::string>> result) { rows = std::move(result).value(); });
    return rows;
  }
  static BufferPtr Bytes(const char* text) { return HeapBuffer::CopyOf(text); }
  MemoryStorage storage_;
};

TEST_F(StorageTest, BatchesApplyInOrder) {
  Write({{"t", "a", {Bytes("1")}}, {"t", "b", {Bytes("2"), Bytes("3")}}, {"u", "a", {Bytes("4")}}});
  EXPECT_THAT(Load("t"), ElementsAre(Pair("a", "1"), Pair("b", "23")));
  Write({{"t", "a", {Bytes("5")}}, {"t", "a", {}, true}, {"t", "b", {Bytes("6")}}, {"t", "none", {}, true}});
  EXPECT_THAT(Load("t"), ElementsAre(Pair("b", "6")));
  EXPECT_THAT(Load("u"), ElementsAre(Pair("a", "4")));
  EXPECT_THAT(Load("never"), ElementsAre());
}

}  // namespace
}  // namespace ray::gcs
