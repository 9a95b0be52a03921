// Replays tests/scenarios/publisher. Subscribers and channels are numbers. The events:
//   subscribe WHO channel= key=    unsubscribe WHO channel= key=    drop WHO    publish channel= key=
#include <gtest/gtest.h>

#include <memory>

#include "ray/rpc/pubsub/publisher_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::rpc {
namespace {

using testing::GoldenEvent;

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    const std::string& name = event.name();
    if (name == "drop") {
      core_->Drop(event.Number(0));
      return {};
    }
    const auto channel = static_cast<int>(event.Number("channel", 1));
    const std::string key = event.Word("key", "");
    if (name == "subscribe") return {core_->Subscribe(event.Number(0), channel, key) ? "new" : "known"};
    if (name == "unsubscribe") {
      core_->Unsubscribe(event.Number(0), channel, key);
      return {};
    }
    std::vector<std::string> lines;
    if (name != "publish") event.Fail("no such event: " + name);
    for (uint64_t subscriber : core_->Subscribers(channel, key)) lines.push_back("to " + std::to_string(subscriber));
    return lines;
  }

 private:
  std::shared_ptr<PublisherCore> core_ = std::make_shared<PublisherCore>();
};

TEST(PublisherGolden, Scenarios) {
  testing::ReplayGoldens("publisher", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::rpc
