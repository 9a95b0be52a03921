#include "ray/core_worker/lifecycle/lazy_store.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
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

// As long as it lives, no thread can be made: the stack that each new one is to have is larger than the address space.
class NoMoreThreads {
 public:
  NoMoreThreads() {
    pthread_getattr_default_np(&usual_);
    pthread_attr_t huge;
    pthread_getattr_default_np(&huge);
    EXPECT_EQ(pthread_attr_setstacksize(&huge, size_t{1} << 60), 0);
    EXPECT_EQ(pthread_setattr_default_np(&huge), 0);
    pthread_attr_destroy(&huge);
  }
  ~NoMoreThreads() {
    EXPECT_EQ(pthread_setattr_default_np(&usual_), 0);
    pthread_attr_destroy(&usual_);
  }
  NoMoreThreads(const NoMoreThreads&) = delete;
  NoMoreThreads& operator=(const NoMoreThreads&) = delete;

 private:
  pthread_attr_t usual_;
};

class LazyStoreTest : public ::testing::Test {
 protected:
  // False: it does not happen.
  template <typename F>
  static bool Until(F happened) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!happened()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  }
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
  EXPECT_TRUE(Until([&] {
    store_.Free({NewObject()});
    return freed_.Contains(first);
  }));
  EXPECT_EQ(attempts_, 2);
}

TEST_F(LazyStoreTest, WhatWasFreedInVainGoesWithTheFirstConnection) {
  const ObjectId first = NewObject();
  store_.Free({first});
  EXPECT_TRUE(Until([&] { return attempts_ != 0; }));
  EXPECT_TRUE(store_.Contains({NewObject()}).ok());
  EXPECT_TRUE(freed_.Contains(first));
}

TEST_F(LazyStoreTest, WhatWasFreedWithoutAThreadGoesWithTheNextThatIsFreed) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "this sanitizer chooses the stacks of threads itself";
#endif
  failures_left_ = 0;
  const ObjectId first = NewObject(), second = NewObject(), third = NewObject();
  {
    NoMoreThreads none;
    store_.Free({first});
    store_.Free({second});
    EXPECT_EQ(attempts_, 0);
  }
  store_.Free({third});
  EXPECT_TRUE(Until([&] { return freed_.Contains(third); }));
  EXPECT_TRUE(freed_.Contains(first));
  EXPECT_TRUE(freed_.Contains(second));
}

}  // namespace
}  // namespace ray::core
