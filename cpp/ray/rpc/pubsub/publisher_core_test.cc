#include "ray/rpc/pubsub/publisher_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ray::rpc {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(PublisherCoreTest, SubscribesOncePerTopic) {
  PublisherCore core;
  EXPECT_TRUE(core.Subscribe(2, 1, "a"));
  EXPECT_FALSE(core.Subscribe(2, 1, "a"));
  EXPECT_TRUE(core.Subscribe(1, 1, "a"));
  EXPECT_TRUE(core.Subscribe(1, 2, "a"));
  EXPECT_THAT(core.Subscribers(1, "a"), ElementsAre(1, 2));
  EXPECT_THAT(core.Subscribers(1, "b"), IsEmpty());
  core.Unsubscribe(1, 1, "a");
  core.Unsubscribe(1, 1, "never");
  EXPECT_THAT(core.Subscribers(1, "a"), ElementsAre(2));
  EXPECT_THAT(core.Subscribers(2, "a"), ElementsAre(1));
}

TEST(PublisherCoreTest, DropForgetsAllOfAPeer) {
  PublisherCore core;
  core.Subscribe(1, 1, "a");
  core.Subscribe(1, 2, "");
  core.Subscribe(2, 2, "");
  core.Drop(1);
  core.Drop(7);
  EXPECT_THAT(core.Subscribers(1, "a"), IsEmpty());
  EXPECT_THAT(core.Subscribers(2, ""), ElementsAre(2));
  EXPECT_EQ(core.num_subscribers(), 1u);
}

}  // namespace
}  // namespace ray::rpc
