#include "ray/rpc/tcp/link_preface.h"

#include <gtest/gtest.h>

namespace ray::rpc {
namespace {

TEST(LinkPreface, ComesBackWhole) {
  for (const std::string& authorization : {std::string(), std::string("Bearer t"), std::string(kMaxAuthorization, 'x')}) {
    const std::string bytes = EncodePreface(authorization);
    const auto preface = DecodePreface(bytes + "frames");
    ASSERT_TRUE(preface.ok() && preface->has_value());
    EXPECT_EQ((*preface)->authorization, authorization);
    EXPECT_EQ((*preface)->size, bytes.size());
  }
}

TEST(LinkPreface, WaitsForTheRest) {
  const std::string bytes = EncodePreface("Bearer token");
  for (size_t n = 0; n < bytes.size(); ++n) {
    const auto preface = DecodePreface(std::string_view(bytes).substr(0, n));
    ASSERT_TRUE(preface.ok()) << n;
    EXPECT_FALSE(preface->has_value()) << n;
  }
}

TEST(LinkPreface, KnowsWhatIsNone) {
  EXPECT_FALSE(DecodePreface("PRI * HTTP/2.0\r\n").ok());
  EXPECT_FALSE(DecodePreface("R4").ok()) << "told by the first byte that differs";
  EXPECT_FALSE(DecodePreface(EncodePreface(std::string(kMaxAuthorization + 1, 'x'))).ok());
}

TEST(LinkWelcome, ComesBackWhole) {
  EXPECT_EQ(*DecodeWelcome(EncodeWelcome({}) + "frames"), 1u);
  const std::string refusal = EncodeWelcome(Status(StatusCode::kUnauthenticated, "no token"));
  for (size_t n = 0; n < refusal.size(); ++n) EXPECT_EQ(*DecodeWelcome(std::string_view(refusal).substr(0, n)), 0u) << n;
  const Status status = DecodeWelcome(refusal).status();
  EXPECT_EQ(status.code(), StatusCode::kUnauthenticated);
  EXPECT_EQ(status.message(), "no token");
  EXPECT_EQ(DecodeWelcome("HTTP/1.1 400 Bad Request").status().code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace ray::rpc
