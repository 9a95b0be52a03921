#include "ray/wire/version.h"

#include <gtest/gtest.h>

namespace ray {
namespace {

TEST(VersionTest, NodesMayBeOneApart) {
  EXPECT_TRUE(ProtocolsMayMeet(kProtocolVersion, kProtocolVersion));
  EXPECT_TRUE(ProtocolsMayMeet("7", "6"));
  EXPECT_TRUE(ProtocolsMayMeet("9", "10"));
  EXPECT_FALSE(ProtocolsMayMeet("7", "5"));
  EXPECT_FALSE(ProtocolsMayMeet("9", "11"));
}

TEST(VersionTest, WhatIsNoVersionMeetsNone) {
  for (const char* text : {"", " 1", "1 ", "1.0", "one", "-1", "99999999999999999999"}) {
    EXPECT_FALSE(ProtocolsMayMeet(text, "1")) << text;
    EXPECT_FALSE(ProtocolsMayMeet("1", text)) << text;
  }
}

}  // namespace
}  // namespace ray
