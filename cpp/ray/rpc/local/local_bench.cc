// local_bench: round trips and calls per second between two processes over the local carrier. `local_bench [seconds per figure]`.
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "ray/rpc/local/local_carrier.h"

namespace ray::rpc {
namespace {

using async::EpollLoop;
using async::Waiter;

struct Process {
  std::unique_ptr<EpollLoop> loop;
  std::shared_ptr<Dispatcher> dispatcher = std::make_shared<Dispatcher>();
  std::unique_ptr<LocalCarrier> carrier;
  ConnectionPtr connection;

  Process(const std::string& dir, int fd) {
    loop = EpollLoop::Make({}).value();
    dispatcher->Register(MethodId::kPushTask,
                         [](Request request, Responder responder) { responder.SendRaw(request.control, request.parts); });
    RAY_CHECK(loop->Start().ok());
    carrier = LocalCarrier::Make(loop.get(), dispatcher, {.sockets_dir = dir}).value();
    connection = carrier->Adopt(fd).value();
  }
  ~Process() {
    carrier->Shutdown();
    loop->Stop();
  }
};

double Seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void BenchSync(Process* p, double seconds, const char* label) {
  std::vector<float> micros;
  std::string control(200, 'x');
  for (double end = Seconds() + seconds; Seconds() < end;) {
    double start = Seconds();
    Waiter done;
    p->connection->CallRaw(MethodId::kPushTask, control, {}, [&](Status status, Reply) {
      RAY_CHECK(status.ok()) << status.ToString();
      done.Notify();
    });
    while (p->loop->Wait(&done, Time::Infinite()) != async::WaitResult::kDone) {
    }
    micros.push_back(static_cast<float>((Seconds() - start) * 1e6));
  }
  std::sort(micros.begin(), micros.end());
  std::printf("%s: p50 %.2f us, p99 %.2f us, %zu calls\n", label, micros[micros.size() / 2], micros[micros.size() * 99 / 100],
              micros.size());
}

void BenchPipelined(Process* p, double seconds, bool corked, const char* label) {
  constexpr int kWindow = 1000;
  std::string control(200, 'x');
  size_t sent = 0, received = 0;
  Waiter room;
  size_t target = 0;
  double start = Seconds();
  for (double end = start + seconds; Seconds() < end;) {
    for (int i = 0; i < kWindow / 2; ++i, ++sent) {
      p->connection->CallRaw(MethodId::kPushTask, control, {},
                             [&](Status status, Reply) {
                               RAY_CHECK(status.ok()) << status.ToString();
                               if (++received == target) room.Notify();
                             },
                             {.corked = corked});
    }
    if (corked) p->connection->Flush();
    // `received` and `target` are touched on the loop only.
    room.Reset();
    p->loop->Post("window", [&, goal = sent - kWindow / 2] {
      target = goal;
      if (received >= target) room.Notify();
    });
    while (p->loop->Wait(&room, Time::Infinite()) != async::WaitResult::kDone) {
    }
  }
  room.Reset();
  p->loop->Post("drain", [&] {
    target = sent;
    if (received >= target) room.Notify();
  });
  while (p->loop->Wait(&room, Time::Infinite()) != async::WaitResult::kDone) {
  }
  std::printf("%s: %.0f calls/s\n", label, static_cast<double>(sent) / (Seconds() - start));
}

void BenchLarge(Process* p, double seconds) {
  auto part = std::make_shared<HeapBuffer>(64 << 20);
  std::fill_n(part->mutable_data(), part->size(), 1);
  double start = Seconds();
  size_t bytes = 0;
  for (double end = start + seconds; Seconds() < end;) {
    Waiter done;
    p->connection->CallRaw(MethodId::kPushTask, "", {part}, [&](Status status, Reply reply) {
      RAY_CHECK(status.ok() && reply.parts.size() == 1) << status.ToString();
      bytes += 2 * reply.parts[0]->size();
      done.Notify();
    });
    while (p->loop->Wait(&done, Time::Infinite()) != async::WaitResult::kDone) {
    }
  }
  std::printf("  64 MiB echo: %.2f GB/s\n", static_cast<double>(bytes) / (Seconds() - start) / 1e9);
}

int Main(double seconds) {
  ::setlinebuf(stdout);
  char dir[] = "/tmp/local_bench.XXXXXX";
  RAY_CHECK(mkdtemp(dir) != nullptr);
  for (bool io_thread_serves : {false, true}) {
    int fds[2];
    RAY_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::close(fds[0]);
      Process server(dir, fds[1]);
      Waiter gone;
      server.connection->OnClose([&](const Status&) { gone.Notify(); });
      if (io_thread_serves) {
        while (!gone.IsSet()) usleep(1000);  // this thread never waits on the loop
      } else {
        while (server.loop->Wait(&gone, Time::Infinite()) != async::WaitResult::kDone) {
        }
      }
      std::_Exit(0);
    }
    ::close(fds[1]);
    {
      Process client(dir, fds[0]);
      std::printf("server: %s\n", io_thread_serves ? "its I/O thread" : "a waiting thread");
      BenchSync(&client, seconds, "  sync");
      BenchPipelined(&client, seconds, true, "  pipelined, corked");
      BenchPipelined(&client, seconds, false, "  pipelined, one send each");
      if (!io_thread_serves) BenchLarge(&client, seconds);
    }
    waitpid(child, nullptr, 0);
  }
  rmdir(dir);
  return 0;
}

}  // namespace
}  // namespace ray::rpc

int main(int argc, char** argv) { return ray::rpc::Main(argc > 1 ? std::atof(argv[1]) : 1.0); }
