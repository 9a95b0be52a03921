// Measures the store through its client, in one process: GB/s (10^9 bytes) of puts beside memcpy into warm shared memory, microseconds of small
// operations. `store_bench [MiB] [rounds]`.
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "ray/object_manager/client/store_client.h"
#include "ray/object_manager/shm/arena.h"
#include "ray/object_manager/store/store_thread.h"
#include "ray/rpc/local/local_carrier.h"
#include "ray/util/check.h"
#include "ray/util/fs.h"

using namespace ray;                  // NOLINT(google-build-using-namespace): a program of one file
using namespace ray::object_manager;  // NOLINT

namespace {

double Seconds(const std::function<void()>& fn) {
  auto start = std::chrono::steady_clock::now();
  fn();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// GB/s of memcpy into shared memory that has its pages, by so many threads; the best of some rounds.
double MemcpyRate(const std::vector<char>& bytes, size_t threads) {
  auto arena = std::move(Arena::Make(bytes.size())).value();
  auto mapping = std::move(Mapping::Make(arena->fd(), arena->size(), Mapping::Mode::kReadWrite)).value();
  std::memset(mapping->data(), 1, bytes.size());
  const size_t part = bytes.size() / threads;
  double best = 0;
  for (int round = 0; round < 8; ++round) {
    const double seconds = Seconds([&] {
      std::vector<std::thread> others;
      auto copy = [&](size_t i) { std::memcpy(mapping->data() + i * part, bytes.data() + i * part, part); };
      for (size_t i = 1; i < threads; ++i) others.emplace_back(copy, i);
      copy(0);
      for (std::thread& other : others) other.join();
    });
    best = std::max(best, static_cast<double>(part * threads) / seconds / 1e9);
  }
  return best;
}

ObjectId Put(StoreClient* client, const WorkerId& worker, const char* bytes, size_t size) {
  ObjectId id = ObjectId::Of(TaskId::FromRandom(), ObjectId::kPutBit | 1);
  auto handle = client->Create(id, size, "RAW", worker);
  RAY_CHECK(handle.ok()) << handle.status().ToString();
  RAY_CHECK(handle->Write(0, bytes, size).ok());
  handle->Seal();
  return id;
}

}  // namespace

int main(int argc, char** argv) {
  const size_t size = (argc > 1 ? strtoull(argv[1], nullptr, 10) : 256) << 20;
  const int rounds = argc > 2 ? atoi(argv[2]) : 12;
  char path[] = "/tmp/ray_store_bench_XXXXXX";
  std::string dir = mkdtemp(path);
  SystemClock clock;
  auto service =
      std::move(StoreThread::Make({.store = {.capacity = std::max<uint64_t>(size * 4, 512 << 20)}, .sockets_dir = dir}, &clock)).value();
  RAY_CHECK(service->Start().ok());
  auto loop = std::move(async::EpollLoop::Make({})).value();
  RAY_CHECK(loop->Start().ok());
  auto carrier = std::move(rpc::LocalCarrier::Make(loop.get(), std::make_shared<rpc::Dispatcher>(), {.sockets_dir = dir})).value();
  WorkerId worker = WorkerId::FromRandom();
  auto client = std::move(StoreClient::Connect(carrier->Connect("store.sock"), loop.get(), worker)).value();

  const std::vector<char> bytes(size, 'x');
  std::printf("memcpy into warm shared memory: %.1f GB/s by one thread, %.1f by two\n", MemcpyRate(bytes, 1), MemcpyRate(bytes, 2));
  const double gb = static_cast<double>(size) / 1e9;
  for (int i = 0; i < rounds; ++i) {
    ObjectId id;
    double put = Seconds([&] { id = Put(client.get(), worker, bytes.data(), size); });
    client->Free({id});
    std::printf("put %zu MiB, round %d: %.1f GB/s%s\n", size >> 20, i, gb / put, i == 0 ? " (fresh pages)" : "");
  }
  const int n = 20000;
  std::vector<ObjectId> ids;
  for (size_t small : {size_t{100 << 10}, size_t{1 << 20}}) {
    int count = small < (1 << 20) ? n : n / 10;
    double t = Seconds([&] {
      for (int i = 0; i < count; ++i) client->Free({Put(client.get(), worker, bytes.data(), small)});
    });
    std::printf("put + free of %zu KiB: %.2f us, %.1f GB/s\n", small >> 10, t / count * 1e6, static_cast<double>(small) * count / t / 1e9);
  }
  ObjectId id = Put(client.get(), worker, bytes.data(), 1000);
  double local = Seconds([&] {
    for (int i = 0; i < n; ++i) RAY_CHECK(client->Get({id}, Duration(-1)).ok());
  });
  ObjectId other = ObjectId::Of(TaskId::FromRandom(), 1);
  double remote = Seconds([&] {
    for (int i = 0; i < n; ++i) RAY_CHECK(client->Get({other}, Duration::zero()).ok());
  });
  std::printf("get, pinned here: %.2f us; get over the socket: %.2f us\n", local / n * 1e6, remote / n * 1e6);
  client.reset();
  carrier->Shutdown();
  loop->Stop();
  service->Stop();
  service.reset();
  return RemoveTree(dir).ok() ? 0 : 1;
}
