#include "ray/core_worker/lifecycle/lazy_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

namespace ray::core {
namespace {

class FreedIds final : public ValueStore {
 public:
  struct Log {
    bool Contains(const ObjectId& id) {
      MutexLock lock(&mu);
      return ids.contains(id);
    }
    Mutex mu;
    std::set<ObjectId> ids GUARDED_BY(mu);
  };
  explicit FreedIds(Log* log) : log_(log) {}
  Status Write(const ObjectId&, uint64_t, std::string_view, const Address&, const std::function<Status(const PieceWriter&)>&) override {
    return Status::Ok();
  }
  Result<std::vector<FoundValue>> Get(const std::vector<ObjectId>& ids, Time, bool*) override {
    return std::vector<FoundValue>(ids.size());
  }
  BufferPtr TryGet(const ObjectId&) override { return nullptr; }
  Result<std::vector<bool>> Contains(const std::vector<ObjectId>& ids) override { return std::vector<bool>(ids.size()); }
  void Free(const std::vector<ObjectId>& ids) override {
    MutexLock lock(&log_->mu);
    log_->ids.insert(ids.begin(), ids.end());
  }
  Status FreeAndWait(const std::vector<ObjectId>&) override { return Status::Ok(); }

 private:
  Log* const log_;
};

class LazyStoreTest : public ::testing::Test {
 protected:
  static ObjectId NewObject() { return ObjectId::ForReturn(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 0); }
  FreedIds::Log freed_;
  std::atomic<int> failures_left_{1}, attempts_{0};
  LazyStore store_{[this]() -> Result<std::unique_ptr<ValueStore>> {
    ++attempts_;
    if (failures_left_.fetch_sub(1) > 0) return Status::Unavailable("not now");
    return std::unique_ptr<ValueStore>(std::make_unique<FreedIds>(&freed_));
  }};
};

TEST_F(LazyStoreTest, WhatWasFreedInVainGoesWithTheNextThatIsFreed) {
  const ObjectId first = NewObject();
  store_.Free({first});
  while (!freed_.Contains(first)) {
    store_.Free({NewObject()});
    std::this_thread::yield();
  }
  EXPECT_EQ(attempts_, 2);
}

TEST_F(LazyStoreTest, WhatWasFreedInVainGoesWithTheFirstConnection) {
  const ObjectId first = NewObject();
  store_.Free({first});
  while (attempts_ == 0) std::this_thread::yield();
  EXPECT_TRUE(store_.Contains({NewObject()}).ok());
  EXPECT_TRUE(freed_.Contains(first));
}

}  // namespace
}  // namespace ray::core
