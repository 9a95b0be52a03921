#include "ray/rpc/tcp/tcp_carrier.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "ray/rpc/grpc/host_port.h"
#include "ray/rpc/grpc/listener.h"
#include "ray/rpc/tcp/link_preface.h"
#include "ray/rpc/tcp/tls_stream.h"
#include "ray/util/logging.h"

namespace ray::rpc {
namespace {

// What TLS holds of a link's bytes on their way, in either direction.
constexpr size_t kTlsBuffer = size_t{32} << 10, kTlsBulkBuffer = size_t{256} << 10;
constexpr int kSynRetries = 2;  // some 7 s to a host that does not even refuse

void Set(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); }

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Result<Addresses> Resolve(const HostPort& where, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int rc = getaddrinfo(where.host.c_str(), std::to_string(where.port).c_str(), &hints, &found);
  if (rc != 0) return Status::Unavailable(where.ToString() + ": " + gai_strerror(rc));
  return Addresses(found, freeaddrinfo);
}

}  // namespace

struct TcpCarrier::Impl : std::enable_shared_from_this<Impl> {
  Impl(Deps d, TcpCarrierOptions o) : deps(std::move(d)), options(o) {}

  // A connection that has not said yet what it is: nothing of it has been read.
  struct Stranger {
    int fd;
    async::TimerId timer;
  };

  const Deps deps;
  const TcpCarrierOptions options;
  std::vector<std::shared_ptr<Listener>> listeners;
  std::map<uint64_t, Stranger> strangers;     // oldest first
  std::map<uint64_t, ConnectionPtr> unknown;  // links that have not shown a token yet; oldest first
  uint64_t last = 0;
  async::TimerId refusal_timer = 0;  // 0: the next refusal is told
  uint64_t untold = 0;               // refusals since the last that was
  bool stopped = false;

  // Readable as soon as it is clear what it speaks, or that it ends.
  void Meet(int fd) {
    Set(fd, SOL_SOCKET, SO_RCVLOWAT, static_cast<int>(kLinkMagic.size()));
    const uint64_t number = ++last;
    if (!deps.loop
             ->WatchFd(fd, EPOLLIN | EPOLLRDHUP,
                       [weak = weak_from_this(), number](uint32_t) {
                         if (const auto self = weak.lock()) self->Look(number);
                       })
             .ok()) {
      ::close(fd);
      return;
    }
    const async::TimerId timer = deps.loop->AddTimer(options.preface_timeout, [weak = weak_from_this(), number] {
      if (const auto self = weak.lock()) self->Drop(number);
    });
    strangers.emplace(number, Stranger{fd, timer});
    if (strangers.size() > options.max_strangers) Drop(strangers.begin()->first);
  }

  // Its descriptor, which is the caller's now; -1: there is no such stranger any more.
  int Take(uint64_t number) {
    const auto it = strangers.find(number);
    if (it == strangers.end()) return -1;
    const Stranger stranger = it->second;
    strangers.erase(it);
    deps.loop->CancelTimer(stranger.timer);
    deps.loop->UnwatchFd(stranger.fd);
    return stranger.fd;
  }

  void Drop(uint64_t number) {
    if (const int fd = Take(number); fd >= 0) ::close(fd);
  }

  void Look(uint64_t number) {
    const int fd = Take(number);
    if (fd < 0) return;
    char head[kLinkMagic.size()];
    const ssize_t n = recv(fd, head, sizeof head, MSG_PEEK | MSG_DONTWAIT);
    if (n != sizeof head) {  // it has ended, or failed
      ::close(fd);
      return;
    }
    Set(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
    const std::string_view magic(head, sizeof head);
    const bool is_plain = magic == kLinkMagic || magic == kBulkMagic, is_tls = magic == kTlsLinkMagic || magic == kTlsBulkMagic;
    if (!is_plain && !is_tls) return deps.other(fd);
    if (is_tls != deps.security->has_tls()) {
      TellRefusal(std::string("a link ") + (is_tls ? "with" : "without") + " TLS was refused: this node has " + (is_tls ? "none" : "it"));
      ::close(fd);
      return;
    }
    if (is_tls) static_cast<void>(recv(fd, head, sizeof head, MSG_DONTWAIT));  // there is no more to it
    AcceptLink(number, fd, magic == kBulkMagic || magic == kTlsBulkMagic);
  }

  void TellRefusal(const std::string& text) {
    if (refusal_timer != 0) {
      ++untold;
      return;
    }
    RAY_LOG(WARNING) << text;
    ArmRefusals();
  }

  void ArmRefusals() {
    refusal_timer = deps.loop->AddTimer(options.refusals_every, [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (self == nullptr) return;
      self->refusal_timer = 0;
      if (self->untold == 0) return;
      RAY_LOG(WARNING) << std::exchange(self->untold, 0) << " more links were refused since";
      self->ArmRefusals();
    });
  }

  // Of that TLS, if any; fills in what lies between a link and its socket.
  Status Encrypt(bool is_server, bool bulk, StreamOptions* stream) const {
    if (!deps.security->has_tls()) return {};
    RAY_ASSIGN_OR_RETURN(stream->filter, MakeTlsStream(*deps.security, {is_server,
                                                                        is_server ? std::string_view()
                                                                        : bulk    ? kTlsBulkMagic
                                                                                  : kTlsLinkMagic,
                                                                        bulk ? kTlsBulkBuffer : kTlsBuffer}));
    return {};
  }

  void AcceptLink(uint64_t number, int fd, bool bulk) {
    StreamOptions stream;
    if (const Status status = Encrypt(/*is_server=*/true, bulk, &stream); !status.ok()) {
      TellRefusal("a link was refused: " + status.message());
      ::close(fd);
      return;
    }
    stream.preamble = [weak = weak_from_this(), number](std::string_view bytes, std::string* answer) -> Result<size_t> {
      const auto self = weak.lock();
      if (self == nullptr) return Status::Unavailable("this process stops");
      RAY_ASSIGN_OR_RETURN(const std::optional<LinkPreface> preface, DecodePreface(bytes));
      if (!preface) return size_t{0};
      const std::optional<std::string_view> authorization =
          preface->authorization.empty() ? std::nullopt : std::optional<std::string_view>(preface->authorization);
      const Status status = self->deps.security->Check(authorization);
      *answer = EncodeWelcome(status);
      if (!status.ok()) return status;
      self->Know(number);
      return preface->size;
    };
    LocalCarrier* carrier = bulk ? deps.bulk() : deps.carrier;
    Result<ConnectionPtr> link = carrier->AdoptStream(fd, std::move(stream));
    if (!link.ok()) return;
    unknown.emplace(number, *link);
    if (unknown.size() > options.max_strangers) Forget(unknown.begin()->first);
    (*link)->OnClose([weak = weak_from_this(), number](const Status&) {
      if (const auto self = weak.lock()) self->unknown.erase(number);
    });
    deps.loop->AddTimer(options.preface_timeout, [weak = weak_from_this(), number] {
      if (const auto self = weak.lock()) self->Forget(number);
    });
  }

  // It has shown a token, on whatever loop its socket is read.
  void Know(uint64_t number) {
    deps.loop->Post("link", [weak = weak_from_this(), number] {
      if (const auto self = weak.lock()) self->unknown.erase(number);
    });
  }

  void Forget(uint64_t number) {
    const auto it = unknown.find(number);
    if (it == unknown.end()) return;
    const ConnectionPtr link = std::move(it->second);
    unknown.erase(it);
    link->Close(Status::DeadlineExceeded("the peer has not shown a token"));
  }

  void Stop() {
    if (std::exchange(stopped, true)) return;
    for (const auto& listener : listeners) listener->Stop();
    listeners.clear();
    if (refusal_timer != 0) deps.loop->CancelTimer(refusal_timer);
    while (!strangers.empty()) Drop(strangers.begin()->first);
    while (!unknown.empty()) Forget(unknown.begin()->first);
  }
};

TcpCarrier::TcpCarrier(Deps deps, TcpCarrierOptions options) : impl_(std::make_shared<Impl>(std::move(deps), options)) {}

TcpCarrier::~TcpCarrier() { Stop(); }

void TcpCarrier::Stop() { impl_->Stop(); }

bool TcpCarrier::CanConnect(const std::string& target) {
  const Result<HostPort> where = ParseHostPort(target);
  return where.ok() && Resolve(*where, AI_NUMERICHOST).ok();
}

ConnectionPtr TcpCarrier::Connect(const std::string& target, bool bulk) {
  StreamOptions stream;
  const std::string token = impl_->deps.security->Token();
  stream.greeting = EncodePreface(token.empty() ? "" : "Bearer " + token, bulk ? kBulkMagic : kLinkMagic);
  if (const Status status = impl_->Encrypt(/*is_server=*/false, bulk, &stream); !status.ok()) return impl_->deps.carrier->Closed(status);
  stream.preamble = [](std::string_view bytes, std::string*) { return DecodeWelcome(bytes); };
  auto dial = [&]() -> Result<int> {
    RAY_ASSIGN_OR_RETURN(const HostPort where, ParseHostPort(target));
    RAY_ASSIGN_OR_RETURN(const Addresses addresses, Resolve(where, AI_NUMERICHOST));
    const int fd = ::socket(addresses->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return Status::FromErrno(errno, "making a socket");
    PrepareTcp(fd);
    Set(fd, IPPROTO_TCP, TCP_SYNCNT, kSynRetries);
    if (::connect(fd, addresses->ai_addr, addresses->ai_addrlen) == 0 || errno == EINPROGRESS) return fd;
    const Status status = Status::FromErrno(errno, "connecting to " + target);
    ::close(fd);
    return status;
  };
  Result<int> fd = dial();
  if (fd.ok()) {
    LocalCarrier* carrier = bulk ? impl_->deps.bulk() : impl_->deps.carrier;
    Result<ConnectionPtr> link = carrier->AdoptStream(*fd, std::move(stream));
    if (link.ok()) return std::move(link).value();
    return impl_->deps.carrier->Closed(link.status());
  }
  return impl_->deps.carrier->Closed(fd.status());
}

Result<std::string> TcpCarrier::Listen(const std::string& address) {
  RAY_RETURN_NOT_OK(impl_->deps.security->CheckListener(address));
  RAY_ASSIGN_OR_RETURN(std::shared_ptr<Listener> listener, Listener::Make(address, impl_->deps.loop));
  impl_->deps.loop->Post("listen", [impl = impl_, listener] {
    if (impl->stopped) return;
    const Status status = listener->Start([weak = impl->weak_from_this()](int fd) {
      const auto self = weak.lock();
      if (self != nullptr && !self->stopped) {
        self->Meet(fd);
      } else {
        ::close(fd);
      }
    });
    if (!status.ok()) RAY_LOG(ERROR) << "nothing is accepted on " << listener->address() << ": " << status.message();
    impl->listeners.push_back(listener);
  });
  return listener->address();
}

}  // namespace ray::rpc
