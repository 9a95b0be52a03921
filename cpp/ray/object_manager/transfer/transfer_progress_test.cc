// Whole clusters of PullCores and PushCores: every pull ends, and as long as somebody has the object, whoever waits for it gets on.
#include <gtest/gtest.h>

#include <string>

#include "ray/object_manager/transfer/transfer_model.h"

namespace ray::object_manager {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

TEST(TransferCores, ABroadcastGrowsLikeATree) {
  // One way out of a node moves the object in 1 s; 31 readers one after the other would take 31 s.
  TransferModelConfig config;
  config.seed = 1;
  config.nodes = 32;
  config.sizes = {uint64_t{1} << 30};
  TransferModel model(config);
  const Time start = model.now();
  for (uint32_t i = 1; i < 32; ++i)
    model.After(std::chrono::milliseconds(model.Below(50)), [&model, i] { model.Want(i, 0, PullPriority::kGet); });
  model.Run(std::chrono::seconds(60));
  Time last{};
  for (uint32_t i = 1; i < 32; ++i) {
    EXPECT_EQ(model.copy(i, 0).answer, "ok") << i;
    last = std::max(last, model.copy(i, 0).done);
  }
  for (uint32_t i = 0; i < 32; ++i) EXPECT_LE(model.member(i).sent_bytes, uint64_t{3} << 30);
  EXPECT_LT(last - start, std::chrono::seconds(4));
}

// Nodes that want several objects at any time, cancel, and want again.
void Populate(TransferModel* model, const TransferModelConfig& config) {
  for (uint32_t i = config.holders; i < config.nodes; ++i) {
    for (uint32_t object = 0; object < config.sizes.size(); ++object) {
      const auto priority = static_cast<PullPriority>(model->Below(3));
      model->After(std::chrono::milliseconds(model->Below(300)), [=] { model->Want(i, object, priority); });
      if (model->Below(4) != 0) continue;
      const Duration cancel = std::chrono::milliseconds(model->Below(600));
      model->After(cancel, [=] { model->Cancel(i, object); });
      model->After(cancel + std::chrono::milliseconds(model->Below(300)), [=] { model->Want(i, object, priority); });
    }
  }
}

TransferModelConfig RandomConfig(uint32_t seed) {
  std::mt19937 random(seed);
  const auto below = [&random](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  TransferModelConfig config;
  config.seed = seed;
  config.nodes = 3 + below(12);
  config.holders = 1 + below(std::min(3u, config.nodes - 1));
  for (uint32_t n = 1 + below(3); n > 0; --n) config.sizes.push_back((below(3) == 0 ? 3 : 20 + below(60)) * kMiB + below(1000));
  config.pull.budget_bytes = (16 + below(100)) * kMiB;
  config.pull.max_asked_bytes = (4 + below(45)) * kMiB;
  config.push.max_sending_bytes = (4 + below(45)) * kMiB;
  config.push.fan_out = 1 + below(3);
  config.max_late = std::chrono::microseconds(1 + below(20000));
  config.evict_in = below(2) * 30;
  if (below(3) == 0) config.older = below(config.nodes - config.holders);
  return config;
}

constexpr uint32_t kSeeds = 1500;

TEST(TransferCores, NobodyWaitsWithoutCauseWhileSomebodyHasTheObject) {
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    const TransferModelConfig config = RandomConfig(seed);
    TransferModel model(config);
    Populate(&model, config);
    model.Run(std::chrono::minutes(5));
    model.ExpectAllAnswered("seed " + std::to_string(seed));
    EXPECT_LT(model.longest_wait(), std::chrono::seconds(1)) << "seed " << seed << ": " << model.longest_wait_text();
    if (testing::Test::HasFailure()) return;
  }
}

TEST(TransferCores, LinksThatBreakCostNoMoreThanTheirBackOff) {
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    TransferModelConfig config = RandomConfig(seed);
    config.break_in = 200;
    config.refused_in = 100;
    TransferModel model(config);
    Populate(&model, config);
    model.Run(std::chrono::minutes(5));
    model.ExpectAllAnswered("seed " + std::to_string(seed));
    EXPECT_LT(model.longest_wait(), std::chrono::seconds(4)) << "seed " << seed << ": " << model.longest_wait_text();
    if (testing::Test::HasFailure()) return;
  }
}

TEST(TransferCores, ANodeThatStandsStillHoldsUpOnlyThoseThatReadFromIt) {
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    TransferModelConfig config = RandomConfig(seed);
    config.push.tree_from_bytes = uint64_t{1} << 40;
    config.only_holders = true;
    config.evict_in = 0;
    TransferModel model(config);
    const uint32_t still = config.nodes - 1;  // a reader
    for (uint32_t i = config.holders; i < config.nodes; ++i) {
      for (uint32_t object = 0; object < config.sizes.size(); ++object)
        model.After(std::chrono::milliseconds(model.Below(300)), [&model, i, object] { model.Want(i, object, PullPriority::kGet); });
    }
    model.Run(std::chrono::milliseconds(model.Below(200)));
    model.StandStill(still, std::chrono::seconds(20));
    model.Run(std::chrono::seconds(15));
    for (uint32_t i = config.holders; i < still; ++i) {
      for (uint32_t object = 0; object < config.sizes.size(); ++object)
        EXPECT_EQ(model.copy(i, object).answer, "ok") << "seed " << seed << " node " << i << ": " << model.longest_wait_text();
    }
    model.Run(std::chrono::minutes(5));
    model.ExpectAllAnswered("seed " + std::to_string(seed));
    if (testing::Test::HasFailure()) return;
  }
}

TEST(TransferCores, EveryPullEndsWhateverIsLostAndWhoeverDies) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    TransferModelConfig config = RandomConfig(seed);
    config.lost_in = 20;
    config.refused_in = 40;
    TransferModel model(config);
    Populate(&model, config);
    if (seed % 2 == 0) {
      model.Run(std::chrono::milliseconds(model.Below(100)));
      for (uint32_t i = 0; i < 3; ++i) model.Kill(model.Below(seed % 4 == 0 ? config.holders : config.nodes));
    }
    model.Run(std::chrono::minutes(60));
    model.ExpectAllAnswered("seed " + std::to_string(seed));
    for (uint32_t i = config.holders; seed % 2 == 1 && i < config.nodes; ++i) {
      for (uint32_t object = 0; object < config.sizes.size(); ++object) {
        const std::string& answer = model.copy(i, object).answer;
        EXPECT_TRUE(answer == "ok" || answer == "DEADLINE_EXCEEDED") << "seed " << seed << ": " << answer;
      }
    }
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace ray::object_manager
