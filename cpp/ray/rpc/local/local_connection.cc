#include "ray/rpc/local/local_connection.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "ray/util/check.h"
#include "ray/util/logging.h"

namespace ray::rpc {
namespace {

constexpr size_t kReadBudget = 8 << 20;       // per event, so that one peer does not starve the others
constexpr size_t kReferencedPart = 16 << 10;  // parts from this size on are sent from where they lie, and received where they stay
constexpr size_t kFullBuffer = 64 << 10;      // corked bytes are sent from this size on
constexpr size_t kMaxWaitingFds = 64;
constexpr size_t kMaxUntaken = size_t{32} << 20;  // read ahead of handlers on another loop
constexpr int kMaxIov = 64;

std::atomic<uint64_t> next_connection_id{1};

}  // namespace

void LocalCarrier::Shared::AddDirty(std::shared_ptr<LocalConnection> connection) {
  std::lock_guard lock(dirty_mu);
  dirty.push_back(std::move(connection));
}

void LocalCarrier::Shared::FlushDirty() {
  {
    std::lock_guard lock(dirty_mu);
    flushing.swap(dirty);
  }
  for (auto& connection : flushing) connection->Flush();
  flushing.clear();
}

LocalConnection::LocalConnection(std::shared_ptr<LocalCarrier::Shared> shared, int fd, int64_t peer_pid)
    : shared_(std::move(shared)),
      id_(next_connection_id.fetch_add(1)),
      peer_pid_(peer_pid),
      takes_descriptors_(fd >= 0),
      calls_(shared_->options.handlers != nullptr ? shared_->options.handlers : shared_->loop),
      fd_(fd) {}

LocalConnection::~LocalConnection() {
  if (fd_ >= 0) ::close(fd_);
  for (int fd : received_fds_) ::close(fd);
  if (big_ && big_->fd >= 0) ::close(big_->fd);
}

Status LocalConnection::Start() {
  return shared_->loop->WatchFd(fd_, EPOLLIN, [self = Self()](uint32_t events) { self->OnEvents(events); });
}

Status LocalConnection::Begin(int fd, StreamOptions stream) {
  {
    std::lock_guard lock(mu_);
    if (closed()) {
      ::close(fd);
      return reason_;
    }
    fd_ = fd;
    filter_ = std::move(stream.filter);
    preamble_ = std::move(stream.preamble);
    const size_t n = stream.greeting.size();
    if (n > 0) std::memcpy(sending_.Append(n), stream.greeting.data(), n);  // nobody sends yet: ahead of what waits
    unsent_.fetch_add(n, std::memory_order_relaxed);
    // Under the lock, since a Teardown on the loop closes the descriptor.
    RAY_RETURN_NOT_OK(shared_->loop->WatchFd(fd_, EPOLLIN, [self = Self()](uint32_t events) { self->OnEvents(events); }));
  }
  Flush();
  return {};
}

// --- sending ---

void LocalConnection::StartCall(MethodId method, std::string_view control, const MessageLite* message, const PartList& parts,
                                ReplyCallback callback, CallOptions options) {
  uint64_t call_id = calls_.Add(std::move(callback), options.timeout, std::move(options.landing));
  if (call_id == 0) return;
  // A connection closed in between fails the call in its teardown.
  Status status = SendFrame(FrameKind::kRequest, method, call_id, control, message, parts, -1, options.corked);
  if (!status.ok()) calls_.FailLater(call_id, std::move(status));
}

void LocalConnection::Call(MethodId method, const MessageLite& request, const PartList& parts, ReplyCallback callback,
                           CallOptions options) {
  StartCall(method, {}, &request, parts, std::move(callback), options);
}

void LocalConnection::CallRaw(MethodId method, std::string_view control, const PartList& parts, ReplyCallback callback,
                              CallOptions options) {
  StartCall(method, control, nullptr, parts, std::move(callback), options);
}

void LocalConnection::Notify(MethodId method, const MessageLite& message, const PartList& parts, bool corked) {
  Status status = SendFrame(FrameKind::kNotify, method, 0, {}, &message, parts, -1, corked);
  if (!status.ok()) {
    RAY_LOG(ERROR) << MethodName(method) << " not sent: " << status.ToString();
  }
}

void LocalConnection::NotifyRaw(MethodId method, std::string_view control, const PartList& parts) {
  Status status = SendFrame(FrameKind::kNotify, method, 0, control, nullptr, parts, -1, false);
  if (!status.ok()) {
    RAY_LOG(ERROR) << MethodName(method) << " not sent: " << status.ToString();
  }
}

void LocalConnection::SendReply(MethodId method, uint64_t call_id, FrameKind kind, std::string_view control, const MessageLite* message,
                                const PartList& parts, int fd, bool corked) {
  int duplicate = -1;
  Status status;
  if (fd >= 0 && !takes_descriptors_) {
    status = Status::Unimplemented("descriptors do not travel between nodes");
  } else if (fd >= 0 && (duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0) {
    status = Status::FromErrno(errno, "duplicating a descriptor to send");
  }
  if (status.ok()) status = SendFrame(kind, method, call_id, control, message, parts, duplicate, corked);
  if (status.ok()) return;
  // The caller must hear of it; an error frame is small.
  status = SendFrame(FrameKind::kError, method, call_id, EncodeError(status).substr(0, 4096), nullptr, {}, -1, corked);
  if (!status.ok()) {
    RAY_LOG(ERROR) << MethodName(method) << ": reply not sent: " << status.ToString();
  }
}

// Ahead of the frames: they wait until this end has greeted, and until the peer has.
void LocalConnection::SendBytes(std::string_view bytes) {
  if (bytes.empty()) return;
  std::unique_lock lock(mu_);
  if (broken_ || closed()) return;
  std::memcpy(pending_.Append(bytes.size()), bytes.data(), bytes.size());
  unsent_.fetch_add(bytes.size(), std::memory_order_relaxed);
}

// Fails only if the frame cannot exist; a closed connection swallows it. Takes `fd`.
Status LocalConnection::SendFrame(FrameKind kind, MethodId method, uint64_t call_id, std::string_view control, const MessageLite* message,
                                  const PartList& parts, int fd, bool corked) {
  size_t control_len = message != nullptr ? message->ByteSizeLong() : control.size();
  Result<FrameHeader> header =
      MakeFrameHeader(kind, method, call_id, fd >= 0 ? kFrameHasFd : 0, control_len, parts, shared_->options.max_frame_bytes);
  if (!header.ok()) {
    if (fd >= 0) ::close(fd);
    return header.status();
  }
  bool in_loop = shared_->loop->InLoop();
  bool became_dirty = false;
  bool for_loop = false;
  {
    std::unique_lock lock(mu_);
    if (broken_ || closed()) {
      if (fd >= 0) ::close(fd);
      return {};
    }
    if (fd >= 0) pending_.AppendFd(fd);
    uint8_t* out = pending_.Append(kFrameHeaderBytes + header->head_bytes());
    out = EncodeFrameHead(*header, parts, out);
    if (message != nullptr) {
      message->SerializeWithCachedSizesToArray(out);
    } else if (control_len > 0) {
      std::memcpy(out, control.data(), control_len);
    }
    for (const BufferPtr& part : parts) {
      if (part->size() >= kReferencedPart) {
        pending_.AppendPart(part);
      } else if (part->size() > 0) {
        std::memcpy(pending_.Append(part->size()), part->data(), part->size());
      }
    }
    unsent_.fetch_add(kFrameHeaderBytes + header->frame_len, std::memory_order_relaxed);
    // What is sent on the loop leaves together when the round ends.
    if ((corked || in_loop) && pending_.size() < kFullBuffer) {
      if (!dirty_ && !sending_now_ && !blocked_) became_dirty = dirty_ = true;
    } else if (handlers() != nullptr && !in_loop && (pending_.size() >= kFullBuffer || filter_ != nullptr)) {
      if (!dirty_ && !sending_now_ && !blocked_) for_loop = dirty_ = true;  // copying it into the socket, or encrypting, takes its time
    } else {
      SendPending(&lock);
    }
  }
  if (for_loop) shared_->loop->Post("send", [self = Self()] { self->Flush(); });
  if (became_dirty) {
    shared_->AddDirty(Self());
    if (!in_loop) shared_->loop->RequestFlush();
  }
  return {};
}

void LocalConnection::Flush() {
  std::unique_lock lock(mu_);
  dirty_ = false;
  SendPending(&lock);
}

// Sends until everything is gone or the socket is full. Others append meanwhile, which is where coalescing comes from.
void LocalConnection::SendPending(std::unique_lock<std::mutex>* lock) {
  if (sending_now_ || blocked_ || broken_ || fd_ < 0) return;
  sending_now_ = true;
  bool waits = false;  // for what the peer says first
  while (!blocked_ && !broken_ && !waits && HasToSendLocked()) {
    sending_.Splice(&pending_);
    lock->unlock();
    iovec iov[kMaxIov];
    int fd;
    msghdr message{};
    message.msg_iov = iov;
    message.msg_iovlen = sending_.Gather(iov, kMaxIov, &fd);
    alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof(int))];
    if (fd >= 0) {
      message.msg_control = ancillary;
      message.msg_controllen = sizeof ancillary;
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    const ssize_t n = filter_ != nullptr ? filter_->Send(fd_, iov, static_cast<int>(message.msg_iovlen))
                                         : sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    int err = n < 0 ? errno : 0;
    if (n > 0) {
      sending_.Consume(n);
      unsent_.fetch_sub(n, std::memory_order_relaxed);
    }
    lock->lock();
    pending_.TakeSpare(&sending_);
    if (err == EINPROGRESS && filter_ != nullptr) {
      // It may have come since: then nobody else would send.
      waits = !filter_->is_open();
    } else if (err == EAGAIN || err == EWOULDBLOCK || err == ENOBUFS || err == ETOOMANYREFS) {
      if (closed()) break;  // the last attempt of Close
      // EPOLLOUT may arrive before we are back: then blocked_ is false again and we go on.
      blocked_ = true;
      if (!WatchLocked().ok()) broken_ = true;  // being torn down
    } else if (err != 0 && err != EINTR) {
      // Not closed here: the peer's last words may still be in our receive queue, and its end shows after them.
      broken_ = true;
      broken_by_ = err;
    }
  }
  sending_now_ = false;
  if (broken_ || torn_down_) {
    pending_.Clear();
    sending_.Clear();
    unsent_.store(0, std::memory_order_relaxed);
  }
  if (torn_down_) CloseFdLocked();
}

// --- closing ---

void LocalConnection::CloseFdLocked() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void LocalConnection::Close(Status reason) {
  {
    std::unique_lock lock(mu_);
    if (closed_.exchange(true)) return;
    reason_ = reason.ok() ? Status::Unavailable("connection closed") : std::move(reason);
    SendPending(&lock);  // what was said before should arrive if the socket takes it
  }
  shared_->loop->Post("connection closed", [self = Self()] { self->Teardown(); });
}

void LocalConnection::Teardown() {
  std::vector<std::function<void(const Status&)>> callbacks;
  Status reason;
  {
    std::lock_guard lock(mu_);
    torn_down_ = true;
    reason = reason_;
    callbacks.swap(on_close_);
    if (fd_ >= 0) shared_->loop->UnwatchFd(fd_);
    if (!sending_now_) {
      CloseFdLocked();
      pending_.Clear();
      sending_.Clear();
      unsent_.store(0, std::memory_order_relaxed);
    }
  }
  for (int fd : received_fds_) ::close(fd);
  received_fds_.clear();
  if (big_ && big_->fd >= 0) ::close(big_->fd);
  big_.reset();
  leftover_ = {};
  // Whatever the local reason, callers see a connection that is gone.
  auto tell = [self = Self(), reason, callbacks = std::move(callbacks)] {
    self->calls_.FailAll(Status(StatusCode::kUnavailable, reason.message(), reason.cause()));
    for (const auto& callback : callbacks) callback(reason);
  };
  if (handlers() != nullptr) {
    handlers()->Post("connection closed", std::move(tell));  // behind what has come
  } else {
    tell();
  }
  std::shared_ptr<LocalConnection> self = Self();
  std::lock_guard lock(shared_->mu);
  shared_->connections.erase(id_);
}

void LocalConnection::OnClose(std::function<void(const Status&)> callback) {
  std::lock_guard lock(mu_);
  if (!torn_down_) {
    on_close_.push_back(std::move(callback));
  } else {
    async::Loop* loop = handlers() != nullptr ? handlers() : shared_->loop;
    loop->Post("close callback", [callback = std::move(callback), reason = reason_] { callback(reason); });
  }
}

// --- receiving, on the loop ---

void LocalConnection::OnEvents(uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    std::unique_lock lock(mu_);
    if (fd_ < 0) return;
    blocked_ = false;
    static_cast<void>(WatchLocked().ok());
    SendPending(&lock);
  }
  if ((events & ~EPOLLOUT) != 0) Read();
}

void LocalConnection::Read() {
  uint8_t* buffer = shared_->receive_buffer.get();
  for (size_t budget = kReadBudget; !closed();) {
    uint8_t* to = buffer;
    size_t want = kReceiveBytes;
    size_t kept = 0;
    if (big_ && big_->landing != nullptr && big_->landing->revoked()) LeaveLanding();
    const bool direct = big_ && big_->left >= kReferencedPart;
    if (direct) {
      to = big_->at;
      want = std::min(big_->left, budget);
    } else if (!leftover_.empty()) {
      kept = leftover_.size();
      std::memcpy(buffer, leftover_.data(), kept);
      to += kept;
      want -= kept;
      leftover_.clear();
    }
    ssize_t n = filter_ != nullptr ? ReceiveFiltered(to, want) : Receive(to, want);
    if (n <= 0) {
      if (kept > 0) leftover_.assign(reinterpret_cast<char*>(buffer), kept);
      return;
    }
    Status status;
    if (direct) {
      big_->at += n;
      big_->left -= n;
      status = AdvanceBigFrame();
    } else {
      Result<size_t> used = ParseFrames(buffer, kept + n);
      if (used.ok()) {
        leftover_.assign(reinterpret_cast<char*>(buffer) + *used, kept + n - *used);
      } else {
        status = used.status();
      }
    }
    if (!status.ok()) return Close(std::move(status));
    budget -= std::min<size_t>(budget, n);
    // A short read emptied the socket (or ended at a descriptor): if more has come, epoll says so.
    if (budget == 0 && filter_ != nullptr) ReadOnSoon();
    if (static_cast<size_t>(n) < want || budget == 0 || untaken_.load(std::memory_order_relaxed) >= kMaxUntaken) return;
  }
}

void LocalConnection::ReadOnSoon() {
  shared_->loop->Post("read on", [self = Self()] {
    bool paused;
    {
      std::lock_guard lock(self->mu_);
      paused = self->paused_ || self->fd_ < 0;
    }
    if (!paused) self->Read();
  });
}

// As Receive.
ssize_t LocalConnection::ReceiveFiltered(uint8_t* to, size_t n) {
  const ssize_t got = filter_->Receive(fd_, to, n);
  const int err = errno;
  const bool opened = !filter_open_ && filter_->is_open();
  filter_open_ = filter_open_ || opened;
  if (opened || filter_->has_unsent()) Flush();
  if (got > 0) return got;
  if (got < 0 && err == EAGAIN) return 0;
  if (const Status failure = filter_->failure(); !failure.ok()) {
    Close(failure);
  } else if (got < 0 && err != ECONNRESET) {
    Close(Status::FromErrno(err, "receiving"));
  } else {
    CloseAtEnd(/*inside=*/big_.has_value() || to != shared_->receive_buffer.get());
  }
  return 0;
}

// Bytes received; 0 when there are none or the connection is done for.
ssize_t LocalConnection::Receive(uint8_t* to, size_t n) {
  iovec iov{to, n};
  alignas(cmsghdr) char ancillary[CMSG_SPACE(16 * sizeof(int))];
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = ancillary;
  message.msg_controllen = sizeof ancillary;
  ssize_t got;
  do {
    got = recvmsg(fd_, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
      Close(errno == ECONNRESET ? Status::Unavailable("the peer closed the connection") : Status::FromErrno(errno, "receiving"));
    }
    return 0;
  }
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      received_fds_.push_back(fd);
    }
  }
  // This process has no room for the one that came (each message brings one at most). Its frame is told so; all else goes on.
  if ((message.msg_flags & MSG_CTRUNC) != 0) received_fds_.push_back(-1);
  if (got == 0) CloseAtEnd(/*inside=*/big_.has_value() || to != shared_->receive_buffer.get());
  return got;
}

void LocalConnection::CloseAtEnd(bool inside) {
  int err;
  {
    std::lock_guard lock(mu_);
    err = broken_by_;
  }
  // A connection that never came to be has told the sender why.
  if (err != 0 && err != EPIPE && err != ECONNRESET) return Close(Status::FromErrno(err, "sending"));
  Close(Status::Unavailable(inside ? "the peer closed the connection within a frame" : "the peer closed the connection"));
}

Status LocalConnection::TakeFd(const FrameHeader& header, int* fd) {
  *fd = -1;
  if ((header.flags & kFrameHasFd) != 0) {
    if (received_fds_.empty()) return Status::DataLoss("a frame without the descriptor it names");
    *fd = received_fds_.front();
    received_fds_.erase(received_fds_.begin());  // there is hardly ever a second one
  }
  return {};
}

Result<size_t> LocalConnection::ParsePreamble(const uint8_t* bytes, size_t n) {
  std::string answer;
  Result<size_t> used = preamble_({reinterpret_cast<const char*>(bytes), n}, &answer);
  SendBytes(answer);
  if (!used.ok()) return used.status();  // closing sends the answer
  if (*used == 0 && n == kReceiveBytes) return Status::DataLoss("the peer does not come to an end with its greeting");
  if (*used > 0) preamble_ = nullptr;
  Flush();
  return *used;
}

// Delivers the complete frames in `bytes`; returns the bytes used. What is left is less than a frame that fits the buffer, or nothing.
Result<size_t> LocalConnection::ParseFrames(const uint8_t* bytes, size_t n) {
  size_t used = 0;
  size_t max = shared_->options.max_frame_bytes;
  if (preamble_) {
    RAY_ASSIGN_OR_RETURN(used, ParsePreamble(bytes, n));
    if (used == 0) return used;
  }
  if (big_) {
    RAY_ASSIGN_OR_RETURN(used, FeedBigFrame(bytes, n));
  }
  while (n - used >= kFrameHeaderBytes && !closed()) {
    DecodedFrame frame;
    RAY_RETURN_NOT_OK(DecodeFrameHeader(bytes + used, max, &frame.header));
    if (kFrameHeaderBytes + frame.header.frame_len > kReceiveBytes) {
      BigFrame& big = big_.emplace();
      big.header = frame.header;
      RAY_RETURN_NOT_OK(TakeFd(big.header, &big.fd));
      used += kFrameHeaderBytes;
      big.left = big.header.head_bytes();
      big.head.reset(new uint8_t[big.left]);
      big.at = big.head.get();
      RAY_ASSIGN_OR_RETURN(size_t fed, FeedBigFrame(bytes + used, n - used));
      used += fed;
      continue;
    }
    RAY_ASSIGN_OR_RETURN(size_t length, DecodeFrame({reinterpret_cast<const char*>(bytes + used), n - used}, max, &frame));
    if (length == 0) break;
    used += length;
    int fd;
    RAY_RETURN_NOT_OK(TakeFd(frame.header, &fd));
    Deliver(frame.header, frame.control, std::move(frame.parts), fd);
  }
  if (received_fds_.size() > kMaxWaitingFds) return Status::DataLoss("descriptors that no frame names");
  return used;
}

// Takes what belongs to the big frame; all of it unless the frame ends. Small parts come this way, many with one read.
Result<size_t> LocalConnection::FeedBigFrame(const uint8_t* bytes, size_t n) {
  size_t used = 0;
  while (big_) {
    size_t step = std::min(n - used, big_->left);
    if (step > 0) std::memcpy(big_->at, bytes + used, step);
    used += step;
    big_->at += step;
    big_->left -= step;
    if (big_->left > 0) break;
    RAY_RETURN_NOT_OK(AdvanceBigFrame());
  }
  return used;
}

// Moves on to the next part while the current one is complete; delivers the frame after the last.
Status LocalConnection::AdvanceBigFrame() {
  BigFrame& big = *big_;
  while (big.left == 0) {
    if (!big.have_head) {
      big.have_head = true;
      RAY_RETURN_NOT_OK(DecodePartLengths(big.header, big.head.get(), &big.lengths));
    }
    if (big.parts.size() == big.lengths.size()) {
      BigFrame done = std::move(big);
      big_.reset();
      std::string_view control(reinterpret_cast<const char*>(done.head.get()) + done.lengths.size() * 8, done.header.control_len);
      Deliver(done.header, control, std::move(done.parts), done.fd);
      return {};
    }
    const uint64_t length = big.lengths[big.parts.size()];
    if (big.header.kind == FrameKind::kReply && big.lengths.size() == 1) big.landing = calls_.LandingOf(big.header.call_id);
    if (big.landing != nullptr && big.landing->size() == length && !big.landing->revoked()) {
      big.at = big.landing->mutable_data();
      big.left = length;
      big.parts.push_back(big.landing);
      continue;
    }
    big.landing = nullptr;
    auto part = std::make_shared<HeapBuffer>(length);
    big.at = part->mutable_data();
    big.left = part->size();
    big.parts.push_back(std::move(part));
  }
  return {};
}

void LocalConnection::LeaveLanding() {
  BigFrame& big = *big_;
  big.landing = nullptr;
  // Its beginning is missing: nobody waits for the reply any more.
  auto part = std::make_shared<HeapBuffer>(big.parts.back()->size());
  big.at = part->mutable_data() + (part->size() - big.left);
  big.parts.back() = std::move(part);
}

// Takes a frame where it belongs.
void LocalConnection::Deliver(const FrameHeader& header, std::string_view control, PartList parts, int fd) {
  if (handlers() == nullptr) {
    DeliverFrame(header, control, std::move(parts), fd, shared_from_this(), *shared_->dispatcher, &calls_);
    return;
  }
  const size_t bytes = kFrameHeaderBytes + header.frame_len;
  if (untaken_.fetch_add(bytes) + bytes >= kMaxUntaken) {
    std::lock_guard lock(mu_);
    paused_ = untaken_.load() >= kMaxUntaken;
    static_cast<void>(WatchLocked().ok());
  }
  handlers()->Post("frame", [self = Self(), header, control = std::string(control), parts = std::move(parts), fd, bytes]() mutable {
    DeliverFrame(header, control, std::move(parts), fd, self, *self->shared_->dispatcher, &self->calls_);
    self->OnTaken(bytes);
  });
}

void LocalConnection::OnTaken(size_t bytes) {
  const size_t before = untaken_.fetch_sub(bytes);
  if (before < kMaxUntaken || before - bytes >= kMaxUntaken) return;
  std::lock_guard lock(mu_);
  if (!paused_) return;
  paused_ = false;
  if (fd_ < 0) return;
  static_cast<void>(WatchLocked().ok());
  if (filter_ != nullptr) ReadOnSoon();
}

Status LocalConnection::WatchLocked() {
  const uint32_t in = paused_ ? 0 : uint32_t{EPOLLIN};
  return shared_->loop->ModifyFd(fd_, in | (blocked_ ? uint32_t{EPOLLOUT} : 0));
}

}  // namespace ray::rpc
