#include "ray/rpc/grpc/listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "ray/rpc/core/listen_unix.h"
#include "ray/rpc/grpc/host_port.h"
#include "ray/rpc/grpc/keep_alive.h"
#include "ray/util/logging.h"

namespace ray::rpc {
namespace {

constexpr int kBacklog = 4096;
constexpr int kAliveProbes = 5;                                    // after the silence
constexpr int kTcpRtoMaxMs = 44;                                   // TCP_RTO_MAX_MS, since Linux 6.15; others ignore it
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);  // when descriptors have run out
constexpr std::string_view kUnix = "unix:";

void Set(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); }

uint16_t PortOf(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

// A listening socket there, with `port` in place of the address's own.
Result<int> ListenAt(const addrinfo& at, uint16_t port) {
  const int fd = ::socket(at.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Status::FromErrno(errno, "making a socket");
  Set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  sockaddr_storage address{};
  std::memcpy(&address, at.ai_addr, at.ai_addrlen);
  if (at.ai_family == AF_INET6) {
    Set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    reinterpret_cast<sockaddr_in6*>(&address)->sin6_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in*>(&address)->sin_port = htons(port);
  }
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), at.ai_addrlen) == 0 && ::listen(fd, kBacklog) == 0) return fd;
  const Status status = Status::FromErrno(errno, "cannot listen");
  ::close(fd);
  return status;
}

}  // namespace

void PrepareTcp(int fd) {
  Set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  Set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  Set(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveMs / 1000);
  Set(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveTimeoutMs / 1000 / kAliveProbes);
  Set(fd, IPPROTO_TCP, TCP_KEEPCNT, kAliveProbes);
  // The same for a connection with bytes under way, which TCP does not probe but repeats.
  Set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kKeepAliveMs + kKeepAliveTimeoutMs);
  // After a cut the link goes on within a second, and not only after as long again as the cut took.
  Set(fd, IPPROTO_TCP, kTcpRtoMaxMs, 1000);
}

Result<std::shared_ptr<Listener>> Listener::Make(const std::string& address, async::EpollLoop* loop) {
  std::shared_ptr<Listener> listener(new Listener(address, loop));
  const Status status = IsUnixAddress(address) ? listener->ListenUnix() : listener->ListenTcp();
  if (!status.ok()) {
    const StatusCode code = status.code() == StatusCode::kAlreadyExists ? status.code() : StatusCode::kUnavailable;
    return Status(code, "cannot listen on " + address + ": " + status.message());
  }
  return listener;
}

Listener::~Listener() {
  for (const int fd : fds_) ::close(fd);
  if (folder_fd_ >= 0) ::close(folder_fd_);
}

Status Listener::ListenUnix() {
  const std::string path = address_.substr(kUnix.size());
  const size_t slash = path.rfind('/');
  socket_ = slash == std::string::npos ? path : path.substr(slash + 1);
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  folder_fd_ = ::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder_fd_ < 0) return Status::FromErrno(errno, "opening " + folder);
  // Through the folder's descriptor, because the path may be longer than sun_path.
  const std::string shorter = "/proc/self/fd/" + std::to_string(folder_fd_) + "/" + socket_;
  sockaddr_un address{};
  if (shorter.size() >= sizeof address.sun_path) return Status::InvalidArgument("the socket name is too long");
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, shorter.c_str(), shorter.size() + 1);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + shorter.size() + 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Status::FromErrno(errno, "making a socket");
  fds_.push_back(fd);
  RAY_RETURN_NOT_OK(rpc::ListenUnix(fd, folder_fd_, socket_, address, length, kBacklog));
  struct stat made {};
  if (::fstatat(folder_fd_, socket_.c_str(), &made, AT_SYMLINK_NOFOLLOW) == 0) inode_ = made.st_ino;
  return {};
}

Status Listener::ListenTcp() {
  RAY_ASSIGN_OR_RETURN(const HostPort where, ParseHostPort(address_));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int rc = getaddrinfo(where.host.c_str(), std::to_string(where.port).c_str(), &hints, &found);
  if (rc != 0) return Status::Unavailable(gai_strerror(rc));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  uint16_t port = where.port;
  Status first_failure;
  // A name may stand for several addresses; one is enough, and all get the same port.
  for (const addrinfo* at = addresses.get(); at != nullptr; at = at->ai_next) {
    Result<int> fd = ListenAt(*at, port);
    if (!fd.ok()) {
      if (first_failure.ok()) first_failure = fd.status();
      continue;
    }
    fds_.push_back(*fd);
    if (port == 0) port = PortOf(*fd);
  }
  if (fds_.empty()) return first_failure;
  address_ = FormatHostPort(where.host, port);
  return {};
}

Status Listener::Start(std::function<void(int fd)> on_accept) {
  {
    MutexLock lock(&mu_);
    on_accept_ = std::move(on_accept);
  }
  for (const int fd : fds_) {
    RAY_RETURN_NOT_OK(loop_->WatchFd(fd, EPOLLIN, [weak = weak_from_this(), fd](uint32_t) {
      if (const auto self = weak.lock()) self->OnReadable(fd);
    }));
  }
  return {};
}

void Listener::Stop() {
  {
    MutexLock lock(&mu_);
    if (!on_accept_) return;
    on_accept_ = nullptr;
  }
  if (struct stat there{};
      folder_fd_ >= 0 && ::fstatat(folder_fd_, socket_.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_ino == inode_) {
    ::unlinkat(folder_fd_, socket_.c_str(), 0);
  }
  if (loop_->InLoop()) return CloseOnLoop();
  loop_->Post("listener closed", [self = shared_from_this()] { self->CloseOnLoop(); });
}

void Listener::CloseOnLoop() {
  for (const int fd : fds_) {
    loop_->UnwatchFd(fd);
    ::close(fd);
  }
  fds_.clear();
}

void Listener::OnReadable(int fd) {
  for (int i = 0; i < 64; ++i) {  // bounded: others want their turn
    // Under the lock, so that nobody gets a connection once Stop has returned.
    MutexLock lock(&mu_);
    if (!on_accept_) return;
    const int peer = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (peer < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) Pause(fd, errno);
      return;
    }
    if (in_trouble_) RAY_LOG(INFO) << "connections on " << address_ << " are accepted again";
    in_trouble_ = false;
    if (folder_fd_ < 0) PrepareTcp(peer);
    on_accept_(peer);
  }
}

// Out of descriptors: the waiting connection stays in the backlog, which would wake us for ever.
void Listener::Pause(int fd, int err) {
  if (!in_trouble_) {
    RAY_LOG(WARNING) << Status::FromErrno(err, "cannot accept connections on " + address_).message() << "; tried again until it works";
  }
  in_trouble_ = true;
  static_cast<void>(loop_->ModifyFd(fd, 0).ok());
  loop_->AddTimer(kAcceptPause, [weak = weak_from_this(), fd] {
    const auto self = weak.lock();
    if (self == nullptr || self->fds_.empty()) return;
    static_cast<void>(self->loop_->ModifyFd(fd, EPOLLIN).ok());
  });
}

}  // namespace ray::rpc
