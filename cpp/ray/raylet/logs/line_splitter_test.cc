#include "ray/raylet/logs/line_splitter.h"

#include <gtest/gtest.h>

namespace ray::raylet {
namespace {

using Batches = std::vector<LineSplitter::Batch>;

TEST(LineSplitter, JoinsPiecesOfALine) {
  LineSplitter splitter;
  Batches out;
  splitter.Feed("he", &out);
  EXPECT_TRUE(out.empty());
  splitter.Feed("llo\nwor", &out);
  splitter.Feed("ld\r\n\n", &out);
  EXPECT_EQ(out, (Batches{{"", {"hello", "world", ""}}}));
}

TEST(LineSplitter, MarkersNameWhatFollowsAndAreNotShown) {
  LineSplitter splitter;
  Batches out;
  splitter.Feed("a\n\x1eray-name f\nb\nc\n\x1eray-n", &out);
  splitter.Feed("ame g\nd\n", &out);
  EXPECT_EQ(out, (Batches{{"", {"a"}}, {"f", {"b", "c"}}, {"g", {"d"}}}));
}

TEST(LineSplitter, AMarkerRepeatedKeepsTheBatch) {
  LineSplitter splitter;
  Batches out;
  splitter.Feed("\x1eray-name f\nb\n\x1eray-name f\nc\n", &out);
  EXPECT_EQ(out, (Batches{{"f", {"b", "c"}}}));
}

TEST(LineSplitter, FlushGivesTheUnterminatedTailOnce) {
  LineSplitter splitter;
  Batches out;
  splitter.Feed("last words", &out);
  splitter.Flush(&out);
  splitter.Flush(&out);
  EXPECT_EQ(out, (Batches{{"", {"last words"}}}));
}

TEST(LineSplitter, CutsLongLines) {
  LineSplitter splitter;
  Batches out;
  const std::string text(LineSplitter::kMaxLine + 5, 'x');
  splitter.Feed(text.substr(0, 1000), &out);
  splitter.Feed(text.substr(1000) + "\n", &out);
  ASSERT_EQ(out.size(), 1u);
  ASSERT_EQ(out[0].lines.size(), 2u);
  EXPECT_EQ(out[0].lines[0].size(), LineSplitter::kMaxLine);
  EXPECT_EQ(out[0].lines[1], "xxxxx");
}

}  // namespace
}  // namespace ray::raylet
