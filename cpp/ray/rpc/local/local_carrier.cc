#include "ray/rpc/local/local_carrier.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "ray/rpc/core/faulty_connection.h"
#include "ray/rpc/core/listen_unix.h"
#include "ray/rpc/local/local_connection.h"
#include "ray/util/logging.h"

namespace ray::rpc {
namespace {

constexpr Duration kAcceptPause = std::chrono::milliseconds(100);  // when descriptors have run out

struct SocketAddress {
  sockaddr_un address{};
  socklen_t length = 0;
};

// Through the directory's descriptor, because session directories may be longer than sun_path.
Result<SocketAddress> AddressOf(int dir_fd, const std::string& name) {
  if (name.empty() || name.find('/') != std::string::npos) return Status::InvalidArgument("not a socket name: '" + name + "'");
  std::string path = "/proc/self/fd/" + std::to_string(dir_fd) + "/" + name;
  SocketAddress out;
  if (path.size() >= sizeof out.address.sun_path) return Status::InvalidArgument("socket name too long: '" + name + "'");
  out.address.sun_family = AF_UNIX;
  std::memcpy(out.address.sun_path, path.c_str(), path.size() + 1);
  out.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return out;
}

int NewSocket() { return ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }

void EnlargeBuffers(int fd, size_t bytes) {
  int size = static_cast<int>(bytes);
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) != 0) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
}

// The peer's pid, or PERMISSION_DENIED.
Result<int64_t> CheckPeer(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return Status::FromErrno(errno, "asking who the peer is");
  if (peer.uid != geteuid() && peer.uid != 0) return Status::PermissionDenied("a peer of user " + std::to_string(peer.uid));
  return static_cast<int64_t>(peer.pid);
}

Status AddConnection(const std::shared_ptr<LocalCarrier::Shared>& shared, const std::shared_ptr<LocalConnection>& connection) {
  std::lock_guard lock(shared->mu);
  if (shared->shut_down) return Status::Unavailable("the carrier is shut down");
  shared->connections.emplace(connection->id(), connection);
  return {};
}

Result<std::shared_ptr<LocalConnection>> AcceptPeer(const std::shared_ptr<LocalCarrier::Shared>& shared, int fd) {
  Result<int64_t> pid = CheckPeer(fd);
  if (!pid.ok()) {
    ::close(fd);
    return pid.status();
  }
  EnlargeBuffers(fd, shared->options.socket_buffer_bytes);
  auto connection = MakeConnection<LocalConnection>(shared->options.faults, shared, fd, *pid);  // owns fd
  RAY_RETURN_NOT_OK(AddConnection(shared, connection));
  return connection;
}

Result<ConnectionPtr> StartConnection(const std::shared_ptr<LocalConnection>& connection) {
  Status status = connection->Start();
  if (!status.ok()) {
    connection->Close(status);
    return status;
  }
  return ConnectionPtr(connection);
}

}  // namespace

struct LocalCarrier::Shared::Listener : std::enable_shared_from_this<Listener> {
  ~Listener() {
    if (fd >= 0) ::close(fd);
  }

  std::weak_ptr<Shared> shared;
  async::EpollLoop* loop = nullptr;
  int fd = -1;
  std::string name;
  std::function<void(const ConnectionPtr&)> on_accept;
  bool closed = false;      // on the loop
  bool in_trouble = false;  // on the loop; the last attempt failed

  void OnReadable() {
    std::shared_ptr<Shared> carrier = shared.lock();
    if (!carrier) return;
    for (int i = 0; i < 64 && !closed; ++i) {
      int peer = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (peer < 0) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) Pause(errno);
        return;
      }
      if (in_trouble) SetTrouble({});
      Result<std::shared_ptr<LocalConnection>> connection = AcceptPeer(carrier, peer);
      if (!connection.ok()) {
        RAY_LOG(WARNING) << "connection to " << name << " refused: " << connection.status().ToString();
        continue;
      }
      // Nothing is delivered before on_accept: we are on the loop.
      Result<ConnectionPtr> started = StartConnection(*connection);
      if (started.ok()) on_accept(*started);
    }
  }

  // Out of descriptors: the waiting connection stays in the backlog, which would wake us for ever.
  void Pause(int err) {
    if (!in_trouble) SetTrouble(Status::FromErrno(err, "cannot accept connections on " + name).message());
    static_cast<void>(loop->ModifyFd(fd, 0).ok());
    loop->AddTimer(kAcceptPause, [weak = weak_from_this()] {
      auto self = weak.lock();
      if (self && !self->closed) static_cast<void>(self->loop->ModifyFd(self->fd, EPOLLIN).ok());
    });
  }

  void SetTrouble(std::string text) {
    if (text.empty()) {
      RAY_LOG(INFO) << "connections on " << name << " are accepted again";
    } else {
      RAY_LOG(WARNING) << text << "; tried again until it works";
    }
    in_trouble = !text.empty();
    if (std::shared_ptr<Shared> carrier = shared.lock()) {
      std::lock_guard lock(carrier->mu);
      carrier->accept_trouble = std::move(text);
    }
  }

  void Close() {
    closed = true;
    loop->UnwatchFd(fd);
    ::close(std::exchange(fd, -1));
  }
};

LocalCarrier::Shared::~Shared() {
  if (dir_fd >= 0) ::close(dir_fd);
}

Result<std::unique_ptr<LocalCarrier>> LocalCarrier::Make(async::EpollLoop* loop, std::shared_ptr<const Dispatcher> dispatcher,
                                                         LocalCarrierOptions options) {
  auto shared = std::make_shared<Shared>();
  shared->loop = loop;
  shared->dispatcher = std::move(dispatcher);
  shared->options = std::move(options);
  shared->options.max_frame_bytes = std::min<size_t>(shared->options.max_frame_bytes, UINT32_MAX);
  shared->receive_buffer.reset(new uint8_t[kReceiveBytes]);
  const std::string& dir = shared->options.sockets_dir;
  if (mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) return Status::FromErrno(errno, "making " + dir);
  shared->dir_fd = open(dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  struct stat st {};
  if (shared->dir_fd < 0 || fstat(shared->dir_fd, &st) != 0) return Status::FromErrno(errno, "opening " + dir);
  if ((st.st_mode & 077) != 0 || (st.st_uid != geteuid() && geteuid() != 0)) return Status::PermissionDenied(dir + " is not private");
  loop->AddFlusher([weak = std::weak_ptr<Shared>(shared)] {
    if (auto strong = weak.lock()) strong->FlushDirty();
  });
  return std::unique_ptr<LocalCarrier>(new LocalCarrier(std::move(shared)));
}

LocalCarrier::LocalCarrier(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
LocalCarrier::~LocalCarrier() {
  Shutdown();
  ::close(std::exchange(shared_->dir_fd, -1));  // connections that someone still holds keep the rest
}

Result<ConnectionPtr> LocalCarrier::Connect(const std::string& socket_name) {
  RAY_ASSIGN_OR_RETURN(SocketAddress to, AddressOf(shared_->dir_fd, socket_name));
  int fd = NewSocket();
  if (fd < 0) return Status::FromErrno(errno, "making a socket");
  // A Unix socket connects at once or not at all (EAGAIN: the backlog is full).
  if (::connect(fd, reinterpret_cast<sockaddr*>(&to.address), to.length) != 0) {
    int err = errno;
    ::close(fd);
    // It is there, and may have room in a moment: not UNAVAILABLE, by which callers take it for dead.
    if (err == EAGAIN) return Status::ResourceExhausted("connecting to " + socket_name + ": its backlog is full");
    return Status::FromErrno(err, "connecting to " + socket_name);
  }
  return Adopt(fd);
}

Result<ConnectionPtr> LocalCarrier::Adopt(int fd) {
  RAY_ASSIGN_OR_RETURN(std::shared_ptr<LocalConnection> connection, AcceptPeer(shared_, fd));
  return StartConnection(connection);
}

Result<ConnectionPtr> LocalCarrier::AdoptStream(int fd, StreamOptions options) {
  const Result<ConnectionPtr> connection = AwaitStream();
  if (!connection.ok()) {
    ::close(fd);
    return connection.status();
  }
  RAY_RETURN_NOT_OK(BeginStream(*connection, fd, std::move(options)));
  return connection;
}

Result<ConnectionPtr> LocalCarrier::AwaitStream() {
  auto connection = MakeConnection<LocalConnection>(shared_->options.faults, shared_, -1, -1);
  RAY_RETURN_NOT_OK(AddConnection(shared_, connection));
  return ConnectionPtr(std::move(connection));
}

Status LocalCarrier::BeginStream(const ConnectionPtr& awaiting, int fd, StreamOptions options) {
  const Status status = static_cast<LocalConnection&>(*awaiting).Begin(fd, std::move(options));
  if (!status.ok()) awaiting->Close(status);
  return status;
}

ConnectionPtr LocalCarrier::Closed(Status reason) {
  auto connection = std::make_shared<LocalConnection>(shared_, -1, -1);
  connection->Close(std::move(reason));
  return connection;
}

Status LocalCarrier::Listen(const std::string& socket_name, std::function<void(const ConnectionPtr&)> on_accept) {
  RAY_ASSIGN_OR_RETURN(SocketAddress at, AddressOf(shared_->dir_fd, socket_name));
  auto listener = std::make_shared<Shared::Listener>();
  listener->shared = shared_;
  listener->loop = shared_->loop;
  listener->name = socket_name;
  listener->on_accept = std::move(on_accept);
  int fd = listener->fd = NewSocket();
  if (fd < 0) return Status::FromErrno(errno, "making a socket");
  RAY_RETURN_NOT_OK(ListenUnix(fd, shared_->dir_fd, socket_name, at.address, at.length, shared_->options.backlog));
  std::lock_guard lock(shared_->mu);
  Status status = shared_->shut_down ? Status::Unavailable("the carrier is shut down")
                                     : shared_->loop->WatchFd(fd, EPOLLIN, [listener](uint32_t) { listener->OnReadable(); });
  if (!status.ok()) {
    unlinkat(shared_->dir_fd, socket_name.c_str(), 0);
    return status;
  }
  shared_->listeners.push_back(std::move(listener));
  return {};
}

std::string LocalCarrier::AcceptTrouble() const {
  std::lock_guard lock(shared_->mu);
  return shared_->accept_trouble;
}

void LocalCarrier::Shutdown() {
  std::vector<std::shared_ptr<Shared::Listener>> listeners;
  std::unordered_map<uint64_t, std::shared_ptr<LocalConnection>> connections;
  {
    std::lock_guard lock(shared_->mu);
    shared_->shut_down = true;
    listeners.swap(shared_->listeners);
    connections.swap(shared_->connections);
  }
  for (auto& listener : listeners) {
    unlinkat(shared_->dir_fd, listener->name.c_str(), 0);
    shared_->loop->Post("listener closed", [listener] { listener->Close(); });
  }
  for (auto& [id, connection] : connections) connection->Close(Status::Unavailable("this process shuts the connection down"));
  std::vector<std::shared_ptr<LocalConnection>> dirty;  // if the loop has stopped, nobody flushes them any more
  std::lock_guard lock(shared_->dirty_mu);
  dirty.swap(shared_->dirty);
}

}  // namespace ray::rpc
