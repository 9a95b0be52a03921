// Cost of the hot paths of objects: put, get, drop, and the memory of many small values.
#include <malloc.h>
#include <time.h>

#include <cstdio>
#include <vector>

#include "ray/core_worker/objects/object_service.h"

namespace ray::core {
namespace {

template <typename F>
void Measure(const char* what, size_t n, F run) {
  // CPU time of the thread: the figure should not depend on what else the machine does.
  auto now = [] {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
  };
  const double start = now();
  run();
  std::printf("%-32s %8.0f ns\n", what, (now() - start) / static_cast<double>(n));
}

int Main() {
  auto loop = *async::EpollLoop::Make({});
  ObjectService::Deps deps;
  deps.loop = loop.get();
  deps.peers = PeerPool::Make([](const std::string&) -> Result<rpc::ConnectionPtr> { return Status::NotFound("no peers"); }, loop.get());
  deps.self = {NodeId::FromRandom(), WorkerId::FromRandom()};
  deps.job_id = JobId::FromInt(1);
  auto objects = ObjectService::Make(std::move(deps));
  constexpr size_t kCount = 1000000;
  const std::string bytes(100, 'x');
  std::vector<ObjectId> ids(kCount);
  std::vector<ReadValue> out;
  auto put = [&](ObjectId* id) {
    if (!objects->Put({.metadata = "PYTHON", .data = bytes}, id).ok()) std::abort();
  };
  Measure("put and drop", kCount, [&] {
    for (size_t i = 0; i < kCount; ++i) {
      put(&ids[0]);
      objects->RemoveLocalRef(ids[0]);
    }
  });
  put(&ids[0]);
  const ObjectRefInfo hot{ids[0], {}};
  Measure("get, same object", kCount, [&] {
    for (size_t i = 0; i < kCount; ++i) objects->Get({&hot, 1}, -1, &out);
  });
  std::vector<ObjectRefInfo> pending;
  for (int i = 0; i < 10000; ++i) {
    const ObjectId id = ObjectId::ForReturn(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 0);
    objects->AddOwned({&id, 1});
    pending.push_back({id, {}});
  }
  std::vector<bool> ready;
  Measure("wait for 1 of 10000, none ready", 10, [&] {
    for (int i = 0; i < 10; ++i) objects->Wait(pending, 1, 0, true, &ready);
  });
  objects->StoreReturn({.id = pending[0].id, .metadata = "RAW", .blob = HeapBuffer::CopyOf("x")});
  Measure("wait for 1 of 10000, first ready", 1, [&] { objects->Wait(pending, 1, 0, true, &ready); });
  const size_t before = mallinfo2().uordblks;
  Measure("put, all kept", kCount, [&] {
    for (ObjectId& id : ids) put(&id);
  });
  std::printf("bytes beyond the value             %8.0f\n", static_cast<double>(mallinfo2().uordblks - before) / kCount - 116);
  Measure("get, a million objects", kCount, [&] {
    for (const ObjectId& id : ids) {
      const ObjectRefInfo ref{id, {}};
      objects->Get({&ref, 1}, -1, &out);
    }
  });
  return 0;
}

}  // namespace
}  // namespace ray::core

int main() { return ray::core::Main(); }
