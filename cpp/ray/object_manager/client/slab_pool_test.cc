// Replays tests/scenarios/slab_pool. The events:
//   config slab=         the first       put size=    for an object, as a client does: a place is asked for, and perhaps a slab
//   slab at= size= warm=    what the store gave (size 0: nothing)       abort at= size=       give-back
#include "ray/object_manager/client/slab_pool.h"

#include <gtest/gtest.h>

#include <memory>

#include "ray/testing/golden/golden.h"

namespace ray::object_manager {
namespace {

using testing::GoldenEvent;

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    std::vector<std::string> lines;
    if (event.name() == "config") {
      pool_ = std::make_shared<SlabPool>(event.Number("slab", 0));
      return {};
    }
    if (event.name() == "put") {
      const auto place = pool_->Allocate(event.Number("size", 0));
      lines.push_back(place ? "place " + std::to_string(place->offset) + ", warm to " + std::to_string(place->warm_end) : "ask the store");
      if (pool_->StartLease()) lines.emplace_back("lease a slab");
    } else if (event.name() == "slab") {
      pool_->OnSlab(event.Number("at", 0), event.Number("size", 0), event.Number("warm", 0));
    } else if (event.name() == "abort") {
      pool_->OnAborted(event.Number("at", 0), event.Number("size", 0));
    } else if (event.name() == "give-back") {
      pool_->GiveBack();
    } else {
      event.Fail("no such event: " + event.name());
    }
    for (const SlabPool::Returned& returned : pool_->TakeReturned()) {
      lines.push_back("return " + std::to_string(returned.range.begin) + "+" + std::to_string(returned.range.size()) +
                      (returned.touched ? ", touched" : ""));
    }
    return lines;
  }

 private:
  std::shared_ptr<SlabPool> pool_ = std::make_shared<SlabPool>(0);
};

TEST(SlabPoolTest, Scenarios) {
  testing::ReplayGoldens("slab_pool", [] { return Replay(); });
}

}  // namespace
}  // namespace ray::object_manager
