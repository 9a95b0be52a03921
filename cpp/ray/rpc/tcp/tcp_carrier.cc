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

// A socket that is about to be connected there, or is; or -errno.
int StartConnecting(const Addresses& where) {
  const int fd = ::socket(where->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  PrepareTcp(fd);
  if (::connect(fd, where->ai_addr, where->ai_addrlen) == 0 || errno == EINPROGRESS) return fd;
  const int err = errno;
  ::close(fd);
  return -err;
}

// Whether the same attempt may succeed later: the way to the host, its listener, or room in this process may come back.
bool MayPass(int err) {
  switch (err) {
    case EHOSTUNREACH:  // also that nobody answers for the address on its subnet
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
    case ETIMEDOUT:
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case EADDRNOTAVAIL:  // all ports of this host are taken
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS: return true;
    default: return false;
  }
}

}  // namespace

struct TcpCarrier::Impl : std::enable_shared_from_this<Impl> {
  Impl(Deps d, TcpCarrierOptions o) : deps(std::move(d)), options(o) {}

  // A connection that has not said yet what it is: nothing of it has been read.
  struct Stranger {
    int fd;
    async::TimerId timer;
  };

  // A link whose connection is yet to come.
  struct Dialled {
    ConnectionPtr link;
    std::string target;
    Addresses where;
    bool bulk;
    DialFailed on_failed;
    int fd = -1;               // -1: no attempt is under way
    async::TimerId timer = 0;  // of the attempt
  };

  const Deps deps;
  const TcpCarrierOptions options;
  std::vector<std::shared_ptr<Listener>> listeners;
  std::map<uint64_t, Stranger> strangers;     // oldest first
  std::map<uint64_t, ConnectionPtr> unknown;  // links that have not shown a token yet; oldest first
  std::map<uint64_t, Dialled> dialled;
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

  // ---- links that this end opens ----

  void Open(Dialled dial) {
    if (stopped) return dial.link->Close(Status::Unavailable("this process stops"));
    const uint64_t number = ++last;
    dial.link->OnClose([weak = weak_from_this(), number](const Status&) {
      const auto self = weak.lock();
      if (self == nullptr) return;
      self->EndAttempt(number, /*keep=*/false);
      self->dialled.erase(number);
    });
    dialled.emplace(number, std::move(dial));
    Attempt(number);
  }

  void Attempt(uint64_t number) {
    const auto it = dialled.find(number);
    if (it == dialled.end() || it->second.fd >= 0) return;
    Dialled& dial = it->second;
    int fd = StartConnecting(dial.where);
    const auto attempted = [weak = weak_from_this(), number](uint32_t) {
      if (const auto self = weak.lock()) self->OnAttempted(number);
    };
    if (fd >= 0 && !deps.loop->WatchFd(fd, EPOLLOUT, attempted).ok()) {
      ::close(fd);
      fd = -ENOMEM;
    }
    if (fd < 0) {
      // Not at once: whoever dials does not expect it yet.
      deps.loop->Post("dial failed", [weak = weak_from_this(), number, err = -fd] {
        if (const auto self = weak.lock()) self->OnFailed(number, err);
      });
      return;
    }
    dial.fd = fd;
    dial.timer = deps.loop->AddTimer(options.dial_timeout, [weak = weak_from_this(), number] {
      if (const auto self = weak.lock()) self->OnFailed(number, ETIMEDOUT);
    });
  }

  // The socket of the attempt, if it is kept; -1: it is closed, or there was none.
  int EndAttempt(uint64_t number, bool keep) {
    const auto it = dialled.find(number);
    if (it == dialled.end() || it->second.fd < 0) return -1;
    const int fd = std::exchange(it->second.fd, -1);
    deps.loop->CancelTimer(it->second.timer);
    deps.loop->UnwatchFd(fd);
    if (keep) return fd;
    ::close(fd);
    return -1;
  }

  void OnAttempted(uint64_t number) {
    const auto it = dialled.find(number);
    if (it == dialled.end() || it->second.fd < 0) return;
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(it->second.fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
    if (error != 0) return OnFailed(number, error);
    const int fd = EndAttempt(number, /*keep=*/true);
    const Dialled dial = std::move(it->second);
    dialled.erase(it);
    StreamOptions stream;
    const std::string token = deps.security->Token();
    stream.greeting = EncodePreface(token.empty() ? "" : "Bearer " + token, dial.bulk ? kBulkMagic : kLinkMagic);
    stream.preamble = [](std::string_view bytes, std::string*) { return DecodeWelcome(bytes); };
    if (const Status status = Encrypt(/*is_server=*/false, dial.bulk, &stream); !status.ok()) {
      ::close(fd);
      return dial.link->Close(status);
    }
    static_cast<void>(CarrierOf(dial.bulk)->BeginStream(dial.link, fd, std::move(stream)).ok());  // or it ends
  }

  void OnFailed(uint64_t number, int err) {
    const auto it = dialled.find(number);
    if (it == dialled.end()) return;
    EndAttempt(number, /*keep=*/false);
    const Status why = Status::FromErrno(err, "connecting to " + it->second.target);
    if (it->second.on_failed == nullptr || !MayPass(err)) return it->second.link->Close(why);
    const DialFailed on_failed = it->second.on_failed;
    on_failed(why, [weak = weak_from_this(), number] {
      if (const auto self = weak.lock()) self->Attempt(number);
    });
  }

  LocalCarrier* CarrierOf(bool bulk) const { return bulk ? deps.bulk() : deps.carrier; }

  void Stop() {
    if (std::exchange(stopped, true)) return;
    for (const auto& [number, dial] : dialled) {
      EndAttempt(number, /*keep=*/false);
      dial.link->Close(Status::Unavailable("this process stops"));
    }
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

ConnectionPtr TcpCarrier::Connect(const std::string& target, bool bulk, DialFailed on_failed) {
  const auto find = [&]() -> Result<Addresses> {
    RAY_ASSIGN_OR_RETURN(const HostPort where, ParseHostPort(target));
    return Resolve(where, AI_NUMERICHOST);
  };
  Result<Addresses> where = find();
  if (!where.ok()) return impl_->deps.carrier->Closed(where.status());
  const Result<ConnectionPtr> link = impl_->CarrierOf(bulk)->AwaitStream();
  if (!link.ok()) return impl_->deps.carrier->Closed(link.status());
  auto dial = std::make_shared<Impl::Dialled>(Impl::Dialled{*link, target, std::move(where).value(), bulk, std::move(on_failed)});
  if (impl_->deps.loop->InLoop()) {
    impl_->Open(std::move(*dial));
  } else {
    impl_->deps.loop->Post("dial", [impl = impl_, dial] { impl->Open(std::move(*dial)); });
  }
  return *link;
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
