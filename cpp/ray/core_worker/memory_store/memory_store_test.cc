#include "ray/core_worker/memory_store/memory_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace ray::core {
namespace {

BufferPtr Bytes(std::string_view text) { return HeapBuffer::CopyOf(text); }
std::vector<ObjectId> SomeIds(size_t n) {
  std::vector<ObjectId> ids;
  for (size_t i = 0; i < n; ++i) ids.push_back(ObjectId::FromRandom());
  return ids;
}

TEST(MemoryStoreTest, TheFirstValueStays) {
  MemoryStore store;
  const ObjectId id = ObjectId::FromRandom();
  StoredValue value;
  EXPECT_FALSE(store.Get(id, &value));
  EXPECT_TRUE(store.Put(id, "PYTHON", Bytes("one")));
  EXPECT_FALSE(store.Put(id, "8", Bytes("two")));
  ASSERT_TRUE(store.Get(id, &value));
  EXPECT_EQ(value.metadata, "PYTHON");
  EXPECT_EQ(value.blob->view(), "one");
  EXPECT_FALSE(value.IsError());
}

TEST(MemoryStoreTest, ObjectsInTheStoreHaveNodesAndNoBytes) {
  MemoryStore store;
  const auto ids = SomeIds(2);
  const NodeId node = NodeId::FromRandom();
  store.PutInStore(ids[0], "RAW", 1 << 20, {{node}});
  store.Put(ids[1], "23", Bytes("detail"));
  StoredValue value;
  ASSERT_TRUE(store.Get(ids[0], &value));
  EXPECT_TRUE(value.in_store);
  EXPECT_EQ(value.size, 1u << 20);
  EXPECT_EQ(value.node_ids, std::vector<NodeId>{node});
  EXPECT_EQ(value.metadata, "RAW");
  EXPECT_EQ(value.blob, nullptr);
  ASSERT_TRUE(store.Get(ids[1], &value));
  EXPECT_EQ(value.metadata, "23");
  EXPECT_TRUE(value.IsError());
  std::vector<StoredCopies> in_store;
  store.Delete(ids, &in_store);
  ASSERT_EQ(in_store.size(), 1u);
  EXPECT_EQ(in_store[0].id, ids[0]);
  EXPECT_EQ(in_store[0].nodes, std::vector<NodeId>{node});
  EXPECT_EQ(store.size(), 0u);
}

TEST(MemoryStoreTest, CopiesComeAndGo) {
  MemoryStore store;
  const ObjectId id = ObjectId::ForReturn(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 0);
  const NodeId a = NodeId::FromRandom(), b = NodeId::FromRandom();
  NodeId primary;
  store.PutInStore(id, "RAW", 1 << 20, {&a, 1}, 1);
  EXPECT_TRUE(store.IsLocal(id, a));
  EXPECT_FALSE(store.IsLocal(id, b));
  EXPECT_FALSE(store.AddCopy(id, b, 0));  // of an earlier run
  EXPECT_TRUE(store.AddCopy(id, b, 1));
  EXPECT_EQ(store.LoseCopy(id, a, 0, &primary), MemoryStore::Loss::kNone);
  EXPECT_EQ(store.LoseCopy(id, a, 1, &primary), MemoryStore::Loss::kCopy);
  EXPECT_EQ(primary, b);
  bool gone = true;
  EXPECT_EQ(store.LoseNode(a).lost.size(), 0u);
  EXPECT_EQ(store.LoseNode(b).lost, std::vector<ObjectId>{id});
  EXPECT_FALSE(store.Contains(id));
  EXPECT_NE(store.OnReady(id, [&](bool g) { gone = g; }), 0u);  // pending again
  // Another run, on another node: the owner has told of that, and what was known of the earlier one's copies is of no use any more.
  store.PutInStore(id, "RAW", 1 << 20, {&a, 1}, 2);
  EXPECT_FALSE(gone);
  EXPECT_FALSE(store.PutInStore(id, "RAW", 1 << 20, {&b, 1}, 3));
  EXPECT_FALSE(store.PutInStore(id, "RAW", 1 << 20, {&a, 1}, 2));  // an old answer that comes late
  EXPECT_EQ(store.LoseCopy(id, a, 2, &primary), MemoryStore::Loss::kNone);
  EXPECT_FALSE(store.IsLocal(id, a));
  EXPECT_TRUE(store.IsLocal(id, b));
  EXPECT_FALSE(store.Forget(id, 2));
  EXPECT_TRUE(store.Forget(id, 3));
  EXPECT_EQ(store.size(), 0u);
}

TEST(MemoryStoreTest, TheFirstValueOfATaskThatRunsAgainStaysAsLongAsThereIsACopy) {
  MemoryStore store;
  const ObjectId id = ObjectId::ForReturn(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 0);
  const NodeId a = NodeId::FromRandom(), b = NodeId::FromRandom(), c = NodeId::FromRandom();
  NodeId primary;
  using Made = MemoryStore::Made;
  EXPECT_EQ(store.PutReturn(id, "RAW", 1 << 20, a, 0, &primary), Made::kTaken);
  EXPECT_TRUE(store.AddCopy(id, b, 0));
  // Run again for something else that it makes, elsewhere.
  EXPECT_EQ(store.PutReturn(id, "RAW", 1 << 20, c, 1, &primary), Made::kUnwanted);
  EXPECT_TRUE(primary.IsNil());
  EXPECT_FALSE(store.IsLocal(id, c));
  // Where the primary copy was: that is not there any more.
  EXPECT_EQ(store.PutReturn(id, "RAW", 1 << 20, a, 2, &primary), Made::kUnwanted);
  EXPECT_EQ(primary, b);
  EXPECT_FALSE(store.IsLocal(id, a));
  // Where the last copy was.
  EXPECT_EQ(store.PutReturn(id, "RAW", 2 << 20, b, 3, &primary), Made::kTaken);
  EXPECT_TRUE(primary.IsNil());
  StoredValue value;
  ASSERT_TRUE(store.Get(id, &value));
  EXPECT_EQ(value.attempt, 3u);
  EXPECT_EQ(value.size, 2u << 20);
  EXPECT_EQ(value.node_ids, std::vector<NodeId>{b});
  EXPECT_EQ(store.PutReturn(id, "RAW", 1 << 20, a, 2, &primary), Made::kUnwanted);  // late
  EXPECT_EQ(store.PutReturn(id, "RAW", 2 << 20, a, 3, &primary), Made::kTaken);
  EXPECT_TRUE(store.IsLocal(id, a));
  store.Delete({&id, 1});
  store.Put(id, "RAW", HeapBuffer::CopyOf("small"));
  EXPECT_EQ(store.PutReturn(id, "RAW", 1 << 20, a, 4, &primary), Made::kInMemory);
}

TEST(MemoryStoreTest, PackedBuffersHoldTheirBytes) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{1000}}) {
    uint8_t* bytes = nullptr;
    auto buffer = MakePackedBuffer(size, &bytes);
    std::memset(bytes, 'x', size);
    EXPECT_EQ(buffer->view(), std::string(size, 'x'));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes) % 8, 0u);
  }
}

TEST(MemoryStoreTest, CallbacksRunOnceInOrderWithoutTheLock) {
  MemoryStore store;
  const ObjectId id = ObjectId::FromRandom();
  std::string log;
  for (char c : {'a', 'b', 'c'}) {
    EXPECT_NE(store.OnReady(id,
                            [&, c](bool gone) {
                              EXPECT_FALSE(gone);
                              EXPECT_TRUE(store.Contains(id));  // would dead-lock under the lock
                              log += c;
                            }),
              0u);
  }
  store.Put(id, "RAW", Bytes(""));
  EXPECT_EQ(store.OnReady(id, [&](bool) { log += 'd'; }), 0u);
  EXPECT_EQ(log, "abcd");
}

TEST(MemoryStoreTest, CancelledAndDeletedWaiters) {
  MemoryStore store;
  const ObjectId id = ObjectId::FromRandom();
  int gone_calls = 0;
  const uint64_t token = store.OnReady(id, [&](bool) { FAIL(); });
  store.OnReady(id, [&](bool gone) { gone_calls += gone; });
  EXPECT_TRUE(store.Cancel(token));
  EXPECT_FALSE(store.Cancel(token));
  store.Delete({&id, 1});
  EXPECT_EQ(gone_calls, 1);
  store.OnReady(id, [](bool) {});  // left behind: the destructor takes it
}

TEST(MemoryStoreTest, AWatchIsDoneWithTheLastOne) {
  MemoryStore store;
  const auto ids = SomeIds(4);
  store.Put(ids[1], "RAW", Bytes(""));
  MemoryStore::Watch watch(&store, ids, 4, true);
  EXPECT_EQ(watch.pending(), (std::vector<uint32_t>{0, 2, 3}));
  store.Put(ids[0], "RAW", Bytes(""));
  store.Put(ids[3], "RAW", Bytes(""));
  EXPECT_FALSE(watch.done());
  store.Put(ids[2], "RAW", Bytes(""));
  EXPECT_TRUE(watch.done());
  EXPECT_EQ(watch.Ready(), std::vector<bool>(4, true));
}

TEST(MemoryStoreTest, AnErrorOrADeletionEndsAWatchThatAsksForIt) {
  for (bool deletion : {false, true}) {
    MemoryStore store;
    const auto ids = SomeIds(3);
    MemoryStore::Watch get(&store, ids, 3, true), wait(&store, ids, 3, false);
    if (deletion) {
      store.Delete({&ids[1], 1});
    } else {
      store.Put(ids[1], "8", Bytes(""));
    }
    EXPECT_TRUE(get.done());
    EXPECT_FALSE(wait.done());
  }
}

TEST(MemoryStoreTest, AWatchLooksNoFurtherThanItNeeds) {
  MemoryStore store;
  const auto ids = SomeIds(5);
  for (int i : {1, 2, 4}) store.Put(ids[i], "RAW", Bytes(""));
  MemoryStore::Watch watch(&store, ids, 2, false);
  EXPECT_TRUE(watch.done());
  EXPECT_EQ(watch.Ready(), (std::vector<bool>{false, true, true, false, false}));
  EXPECT_TRUE(MemoryStore::Watch(&store, ids, 0, false).done());
}

TEST(MemoryStoreTest, TheSameIdManyTimesAndWatchesThatLeaveEarly) {
  MemoryStore store;
  const ObjectId id = ObjectId::FromRandom();
  const std::vector<ObjectId> twice{id, id};
  auto first = std::make_unique<MemoryStore::Watch>(&store, twice, 2, false);
  auto second = std::make_unique<MemoryStore::Watch>(&store, twice, 2, false);
  first.reset();
  EXPECT_FALSE(second->done());
  store.Put(id, "RAW", Bytes(""));
  EXPECT_TRUE(second->done());
  second.reset();
  const ObjectId other = ObjectId::FromRandom();
  { MemoryStore::Watch watch(&store, {&other, 1}, 1, false); }
  EXPECT_EQ(store.size(), 1u);
}

TEST(MemoryStoreTest, ManyThreadsPutWatchAndDelete) {
  MemoryStore store;
  const auto ids = SomeIds(2000);
  std::atomic<int> called{0};
  for (const ObjectId& id : ids) store.OnReady(id, [&](bool) { ++called; });
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      for (const ObjectId& id : ids) store.Put(id, "RAW", Bytes("x"));
    });
    threads.emplace_back([&] {
      for (size_t i = 0; i + 50 <= ids.size(); i += 50) {
        MemoryStore::Watch watch(&store, std::span(ids).subspan(i, 50), 50, false);
        if (i % 100 == 0) {
          while (!watch.done()) std::this_thread::yield();
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(called, 2000);
  store.Delete(ids);
  EXPECT_EQ(store.size(), 0u);
}

}  // namespace
}  // namespace ray::core
