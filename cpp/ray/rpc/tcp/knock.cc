#include "ray/rpc/tcp/knock.h"

#include <netdb.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "ray/rpc/grpc/host_port.h"

namespace ray::rpc {
namespace {

KnockResult FromErrno(int error) {
  return error == 0 ? KnockResult::kOpen : error == ECONNREFUSED ? KnockResult::kRefused : KnockResult::kUnknown;
}

// The descriptor of a connection under way, or its outcome.
int Begin(const std::string& address, KnockResult* outcome) {
  *outcome = KnockResult::kUnknown;
  const Result<HostPort> where = ParseHostPort(address);
  if (!where.ok()) return -1;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;  // looking up a name could block the loop
  addrinfo* found = nullptr;
  if (getaddrinfo(where->host.c_str(), std::to_string(where->port).c_str(), &hints, &found) != 0) return -1;
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  const int fd = ::socket(addresses->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  if (::connect(fd, addresses->ai_addr, addresses->ai_addrlen) == 0) {
    *outcome = KnockResult::kOpen;
  } else if (errno == EINPROGRESS) {
    return fd;
  } else {
    *outcome = FromErrno(errno);
  }
  ::close(fd);
  return -1;
}

}  // namespace

void Knock(async::EpollLoop* loop, const std::string& address, Duration patience, std::function<void(KnockResult)> done) {
  KnockResult outcome = KnockResult::kUnknown;
  const int fd = Begin(address, &outcome);
  if (fd < 0) return loop->Post("knock", [done = std::move(done), outcome] { done(outcome); });
  struct Pending {
    async::TimerId timer = 0;
    std::function<void(KnockResult)> done;
  };
  const auto pending = std::make_shared<Pending>();
  pending->done = std::move(done);
  const auto finish = [loop, fd, pending](KnockResult result) {
    loop->UnwatchFd(fd);
    ::close(fd);
    loop->CancelTimer(pending->timer);
    std::exchange(pending->done, nullptr)(result);
  };
  pending->timer = loop->AddTimer(patience, [finish] { finish(KnockResult::kUnknown); });
  const Status watched = loop->WatchFd(fd, EPOLLOUT, [fd, finish](uint32_t) {
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
    finish(FromErrno(error));
  });
  if (watched.ok()) return;
  loop->Post("knock", [finish] { finish(KnockResult::kUnknown); });
}

}  // namespace ray::rpc
