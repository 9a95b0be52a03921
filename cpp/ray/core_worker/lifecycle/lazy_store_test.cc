#include "ray/core_worker/lifecycle/lazy_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>
#include <utility>

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
  Status Write(const ObjectId&, uint64_t, std::string_view, const Address&, uint32_t,
               const std::function<Status(const PieceWriter&)>&) override {
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

ObjectId NewObject() { return ObjectId::ForReturn(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 0); }

class LazyStoreTest : public ::testing::Test {
 protected:
  LazyStoreTest() { EXPECT_TRUE(loop_->Start().ok()); }
  ~LazyStoreTest() override { loop_->Stop(); }
  void Answer() { std::exchange(done_, nullptr)(std::unique_ptr<ValueStore>(std::make_unique<FreedIds>(&freed_))); }
  void Refuse() { std::exchange(done_, nullptr)(Status::Unavailable("not now")); }

  FreedIds::Log freed_;
  std::unique_ptr<async::EpollLoop> loop_ = async::EpollLoop::Make({.name = "test"}).value();
  std::atomic<int> attempts_{0};
  LazyStore::Connected done_;  // of the attempt that is under way
  LazyStore store_{loop_.get(), [this](LazyStore::Connected done) {
                     done_ = std::move(done);
                     ++attempts_;
                   }};
};

TEST_F(LazyStoreTest, WhatWasFreedInVainGoesWithTheNextThatIsFreed) {
  const ObjectId first = NewObject(), second = NewObject(), third = NewObject();
  store_.Free({first});
  store_.Free({second});
  EXPECT_EQ(attempts_, 1);
  Refuse();
  store_.Free({third});
  EXPECT_EQ(attempts_, 2);
  Answer();
  for (const ObjectId& id : {first, second, third}) EXPECT_TRUE(freed_.Contains(id));
}

TEST_F(LazyStoreTest, WhatWasFreedInVainGoesWithTheFirstConnection) {
  const ObjectId first = NewObject();
  store_.Free({first});
  Refuse();
  std::thread answers([this] {
    while (attempts_ != 2) std::this_thread::yield();
    loop_->Post("answer", [this] { Answer(); });
  });
  EXPECT_TRUE(store_.Contains({NewObject()}).ok());
  answers.join();
  EXPECT_TRUE(freed_.Contains(first));
}

TEST_F(LazyStoreTest, WhoWaitsIsToldThatThereIsNone) {
  std::thread answers([this] {
    while (attempts_ != 1) std::this_thread::yield();
    loop_->Post("answer", [this] { Refuse(); });
  });
  EXPECT_EQ(store_.Contains({NewObject()}).status().message(), "not now");
  answers.join();
}

TEST_F(LazyStoreTest, CloseEndsWaits) {
  std::thread closes([this] {
    while (attempts_ != 1) std::this_thread::yield();
    store_.Close();
  });
  EXPECT_EQ(store_.Contains({NewObject()}).status().code(), StatusCode::kUnavailable);
  closes.join();
  store_.Free({NewObject()});
  Answer();  // too late
  EXPECT_EQ(store_.FreeAndWait({NewObject()}).code(), StatusCode::kUnavailable);
  EXPECT_EQ(attempts_, 1);
}

}  // namespace
}  // namespace ray::core
