// How fast objects move between two nodes on the loopback device, beside what one raw TCP connection moves in the same run, before and after: from warm
// memory into warm memory. Both nodes are in this process.
//   transfer_bench [tls] [grpc] [MiB of a chunk] [chunks asked for at a time]
//   transfer_bench [tls] frees [objects]      how fast an owner has small copies on another node freed, one by one
// tls: with mutual TLS; grpc: over gRPC streams instead of links on TCP.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "ray/object_manager/client/store_client.h"
#include "ray/object_manager/store/store_thread.h"
#include "ray/raylet/objects/transfer_service.h"
#include "ray/rpc/grpc/grpc_client.h"
#include "ray/rpc/grpc/grpc_server.h"
#include "ray/rpc/local/local_carrier.h"
#include "ray/rpc/tcp/tcp_carrier.h"
#include "ray/testing/certificates/certificates.h"
#include "ray/testing/promise/promise.h"
#include "ray/util/check.h"

namespace ray::raylet {
namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kObject = 256 * kMiB;
constexpr int kRounds = 5;

double Seconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

// Heap and mapped files of this process that are not the arenas, in MiB: what a transfer takes beside the objects.
double AnonymousMiB() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("RssAnon:")) return std::strtod(line.c_str() + 8, nullptr) / 1024;
  }
  return 0;
}

double RawTcp() {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  RAY_CHECK(bind(listener, reinterpret_cast<sockaddr*>(&address), length) == 0 && listen(listener, 1) == 0);
  RAY_CHECK(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  RAY_CHECK(connect(client, reinterpret_cast<sockaddr*>(&address), length) == 0);
  const int server = accept(listener, nullptr, nullptr);
  std::vector<char> from(kObject, 'x'), to(kObject, 'y');
  double best = 0;
  for (int i = 0; i < kRounds; ++i) {
    const auto began = std::chrono::steady_clock::now();
    std::thread sender([&] {
      for (size_t at = 0; at < kObject;) {
        const ssize_t n = send(server, from.data() + at, std::min(kObject - at, 4 * kMiB), 0);
        RAY_CHECK(n > 0);
        at += static_cast<size_t>(n);
      }
    });
    for (size_t at = 0; at < kObject;) {
      const ssize_t n = recv(client, to.data() + at, std::min(kObject - at, 4 * kMiB), 0);
      RAY_CHECK(n > 0);
      at += static_cast<size_t>(n);
    }
    sender.join();
    best = std::max(best, static_cast<double>(kObject) / Seconds(began) / 1e9);
  }
  close(server), close(client), close(listener);
  return best;
}

struct Settings {
  bool over_grpc = false, tls = false;
  uint64_t chunk_mib = 4;
  uint32_t window = 4;
  uint32_t frees = 0;  // instead of a transfer
};

struct BenchNode {
  BenchNode(const std::string& dir, BenchNode* other, const Settings& settings) : sockets(dir) {
    object_manager::StoreThreadConfig config;
    config.store.capacity = 4 * kObject;
    config.sockets_dir = dir;
    config.socket_name = "store-" + name();
    store_thread = object_manager::StoreThread::Make(config, &clock).value();
    store = store_thread->store();
    RAY_CHECK(store_thread->Start().ok());
    loop = async::EpollLoop::Make({.name = "raylet"}).value();
    object_manager::PullConfig pull;
    pull.self = id;
    object_manager::PushConfig push;
    pull.chunk_bytes = push.chunk_bytes = settings.chunk_mib * kMiB;
    pull.window = settings.window;
    auto link = [this](const NodeId&) { return bulk; };
    transfers = std::make_unique<TransferService>(TransferService::Deps{loop.get(), store, id, link, link, nullptr}, pull, push);
    transfers->RegisterHandlers(dispatcher.get());
    carrier = rpc::LocalCarrier::Make(loop.get(), dispatcher, {.sockets_dir = dir}).value();
    RAY_CHECK(carrier->Listen("raylet-" + name(), [](const rpc::ConnectionPtr&) {}).ok());
    rpc::SecurityConfig secure{.disabled = true};
    if (settings.tls && other == nullptr) {
      TestAuthority authority(dir);
      authority.Issue("node");
      secure.tls_cert = authority.certificate("node");
      secure.tls_key = authority.key("node");
      secure.tls_ca = authority.ca();
    }
    security = other == nullptr ? rpc::Security::Make(secure, &clock).value() : other->security;
    bulk_loop = async::EpollLoop::Make({.name = "bulk", .max_spin = Duration::zero()}).value();
    RAY_CHECK(bulk_loop->Start().ok());
    rpc::LocalCarrierOptions bulk_options{.sockets_dir = dir};
    bulk_options.handlers = loop.get();
    bulk_carrier = rpc::LocalCarrier::Make(bulk_loop.get(), dispatcher, bulk_options).value();
    tcp = std::make_unique<rpc::TcpCarrier>(rpc::TcpCarrier::Deps{loop.get(), carrier.get(), [this] { return bulk_carrier.get(); },
                                                                  security, [this](int fd) { server->Adopt(fd); }});
    if (other == nullptr) {
      server = rpc::GrpcServer::Make({{}, security, /*adopts=*/true}, dispatcher.get(), loop.get()).value();
      address = tcp->Listen("127.0.0.1:0").value();
    } else if (settings.over_grpc) {
      client = std::make_unique<rpc::GrpcClient>(loop.get(), security);
      bulk = client->Connect(other->address, dispatcher.get());
    } else {
      bulk = tcp->Connect(other->address, /*bulk=*/true);
    }
    RAY_CHECK(loop->Start().ok());
    user_loop = async::EpollLoop::Make({.name = "user"}).value();
    RAY_CHECK(user_loop->Start().ok());
    user = rpc::LocalCarrier::Make(user_loop.get(), std::make_shared<rpc::Dispatcher>(), {.sockets_dir = dir}).value();
    objects = object_manager::StoreClient::Connect(user->Connect("store-" + name()), user_loop.get(), worker).value();
    raylet = user->Connect("raylet-" + name()).value();
  }
  std::string name() const { return id.Hex().substr(0, 16); }
  void Pull(const ObjectId& object, const NodeId& from) {
    v1::PullObjectRequest request;
    request.set_pull_id(++pulls);
    request.set_object_id(object.Binary());
    request.set_size(kObject);
    request.set_metadata("RAW");
    request.add_node_ids(from.Binary());
    TestPromise<bool> done;
    rpc::CallTyped<v1::PullObjectReply>(
        *raylet, MethodId::kPullObject, request, {},
        [&](const Status& status, v1::PullObjectReply& reply, PartList) { done.set_value(status.ok() && reply.ready()); });
    RAY_CHECK(done.get_future().get());
  }

  const std::string sockets;
  const NodeId id = NodeId::FromRandom();
  const WorkerId worker = WorkerId::FromRandom();
  SystemClock clock;
  std::shared_ptr<rpc::Dispatcher> dispatcher = std::make_shared<rpc::Dispatcher>();
  std::unique_ptr<object_manager::StoreThread> store_thread;
  object_manager::StoreService* store = nullptr;  // its
  std::unique_ptr<async::EpollLoop> loop, user_loop, bulk_loop;
  std::unique_ptr<TransferService> transfers;
  std::unique_ptr<rpc::LocalCarrier> carrier, user, bulk_carrier;
  std::unique_ptr<rpc::TcpCarrier> tcp;
  std::string address;
  std::shared_ptr<rpc::Security> security;
  std::unique_ptr<rpc::GrpcServer> server;
  std::unique_ptr<rpc::GrpcClient> client;
  std::unique_ptr<object_manager::StoreClient> objects;
  rpc::ConnectionPtr bulk, raylet;
  uint64_t pulls = 0;
};

// Of an owner on `b`, which says of each copy on `a` by itself that it is of no use any more.
void Free(BenchNode* a, BenchNode* b, uint32_t count) {
  const TaskId task = TaskId::Of(JobId::FromInt(1), ActorId::Nil());
  for (uint32_t i = 0; i < count; ++i) {
    auto handle = a->objects->Create(ObjectId::ForReturn(task, i), 64, "RAW", b->worker);
    RAY_CHECK(handle.ok());
    handle->Seal();
  }
  while (a->store->Stats().num_objects != count) std::this_thread::yield();
  const auto cpu = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  };
  const double used = cpu();
  const auto began = std::chrono::steady_clock::now();
  for (uint32_t i = 0; i < count; ++i) {
    v1::CopiesNotice notice;
    auto* node = notice.add_nodes();
    node->set_node_id(a->id.Binary());
    node->add_object_ids(ObjectId::ForReturn(task, i).Binary());
    node->add_attempts(0);
    b->raylet->Notify(MethodId::kFreeCopies, notice);
  }
  while (a->store->Stats().num_objects != 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const double wall = Seconds(began);
  std::printf("%u copies freed on another node, one by one: %.0f a second, %.2f us of processor time each, owner and both raylets\n", count,
              count / wall, (cpu() - used) / count * 1e6);
}

int Main(const Settings& settings) {
  std::string dir = "/tmp/transfer_bench_XXXXXX";
  RAY_CHECK(mkdtemp(dir.data()) != nullptr);
  auto* a = new BenchNode(dir, nullptr, settings);  // the process ends without taking them apart
  auto* b = new BenchNode(dir, a, settings);
  const ObjectId id = ObjectId::ForReturn(TaskId::Of(JobId::FromInt(1), ActorId::Nil()), 0);
  if (settings.frees > 0) {
    for (int i = 0; i < kRounds; ++i) Free(a, b, settings.frees);
    std::fflush(stdout);
    std::filesystem::remove_all(dir);
    _exit(0);
  }
  {
    std::vector<char> bytes(kObject, 'z');
    auto handle = a->objects->Create(id, kObject, "RAW", a->worker);
    RAY_CHECK(handle.ok() && handle->Write(0, bytes.data(), bytes.size()).ok());
    handle->Seal();
  }
  double raw = RawTcp();
  double best = 0, peak = 0;
  const double before = AnonymousMiB();
  for (int i = 0; i < kRounds; ++i) {
    std::atomic<bool> over{false};
    std::thread watcher([&] {
      while (!over) {
        peak = std::max(peak, AnonymousMiB() - before);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
    });
    const auto began = std::chrono::steady_clock::now();
    b->Pull(id, a->id);
    const double rate = static_cast<double>(kObject) / Seconds(began) / 1e9;
    over = true;
    watcher.join();
    if (i > 0) best = std::max(best, rate);  // the first makes pages
    b->objects->Free({id});
    while (b->store->Stats().num_objects != 0) std::this_thread::yield();
  }
  raw = std::max(raw, RawTcp());
  std::printf("raw TCP, one connection    %6.2f GB/s\n", raw);
  std::printf("object to another node     %6.2f GB/s  (%.0f %%)\n", best, best / raw * 100);
  std::printf("peak memory beside objects %6.0f MiB, both nodes together\n", peak);
  std::fflush(stdout);
  std::filesystem::remove_all(dir);
  _exit(0);
}

}  // namespace
}  // namespace ray::raylet

int main(int argc, char** argv) {
  ray::raylet::Settings settings;
  int at = 1;
  if (at < argc && std::strcmp(argv[at], "tls") == 0) settings.tls = ++at > 0;
  if (at < argc && std::strcmp(argv[at], "grpc") == 0) settings.over_grpc = ++at > 0;
  if (at < argc && std::strcmp(argv[at], "frees") == 0) {
    settings.frees = ++at < argc ? static_cast<uint32_t>(std::strtoul(argv[at++], nullptr, 10)) : 100'000;
  }
  if (at < argc) settings.chunk_mib = std::strtoull(argv[at++], nullptr, 10);
  if (at < argc) settings.window = static_cast<uint32_t>(std::strtoul(argv[at++], nullptr, 10));
  if (at < argc || settings.chunk_mib == 0 || settings.window == 0)
    return std::fprintf(stderr, "transfer_bench [tls] [grpc] [frees [objects]] [MiB] [chunks]\n"), 2;
  return ray::raylet::Main(settings);
}
