#include "ray/rpc/tcp/tls_stream.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "ray/util/mutex.h"

namespace ray::rpc {
namespace {

// Far below what one key of AES-GCM is good for (RFC 8446, 5.5).
constexpr uint64_t kBytesOfKey = uint64_t{64} << 30;

// The first of the errors that OpenSSL has noted for this thread, which is the cause of the others; none is left.
std::string TakeErrors() {
  const unsigned long first = ERR_get_error();  // NOLINT(google-runtime-int): OpenSSL's
  ERR_clear_error();
  if (first == 0) return "no reason given";
  const char* reason = ERR_reason_error_string(first);
  return reason != nullptr ? reason : "error " + std::to_string(first);
}

struct Free {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};
using Context = std::unique_ptr<SSL_CTX, Free>;

// What OpenSSL has encrypted and the socket has not taken: one block, used again and again.
struct OutBytes {
  std::vector<uint8_t> bytes;
  size_t end = 0, sent = 0;
  void Append(const void* from, size_t n) {
    if (n == 0) return;  // memcpy wants an address all the same
    if (bytes.size() - end < n) bytes.resize(std::max(bytes.size() * 2, end + n));
    std::memcpy(bytes.data() + end, from, n);
    end += n;
  }
  size_t left() const { return end - sent; }
};

// What the socket gave, for OpenSSL to take record by record. Its own reading ahead moves all that it has read with every record.
struct InBytes {
  std::vector<uint8_t> bytes;
  size_t begin = 0, end = 0;
  int fd = -1;
  bool at_end = false;
  // As recv.
  ssize_t Take(void* to, size_t n) {
    if (begin == end) {
      ssize_t got;
      do {
        got = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
      } while (got < 0 && errno == EINTR);
      at_end = got == 0;
      if (got <= 0) return got;
      begin = 0;
      end = static_cast<size_t>(got);
    }
    n = std::min(n, end - begin);
    std::memcpy(to, bytes.data() + begin, n);
    begin += n;
    return static_cast<ssize_t>(n);
  }
};

// A BIO that takes from the InBytes which are its data.
const BIO_METHOD* InMethod() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ray link in");
    BIO_meth_set_read_ex(m, [](BIO* bio, char* to, size_t n, size_t* got) {
      BIO_clear_retry_flags(bio);
      const ssize_t taken = static_cast<InBytes*>(BIO_get_data(bio))->Take(to, n);
      if (taken < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) BIO_set_retry_read(bio);
      *got = static_cast<size_t>(std::max<ssize_t>(taken, 0));
      return taken > 0 ? 1 : 0;
    });
    BIO_meth_set_ctrl(m, [](BIO* bio, int command, long, void*) -> long {  // NOLINT: its types
      return command == BIO_CTRL_EOF && static_cast<InBytes*>(BIO_get_data(bio))->at_end ? 1 : 0;
    });
    return m;
  }();
  return method;
}

// A BIO that appends to the OutBytes which are its data.
const BIO_METHOD* OutMethod() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ray link out");
    BIO_meth_set_write_ex(m, [](BIO* bio, const char* bytes, size_t n, size_t* written) {
      static_cast<OutBytes*>(BIO_get_data(bio))->Append(bytes, *written = n);
      return 1;
    });
    BIO_meth_set_ctrl(m, [](BIO*, int command, long, void*) -> long { return command == BIO_CTRL_FLUSH ? 1 : 0; });  // NOLINT: its types
    return m;
  }();
  return method;
}

Result<Context> MakeContext(const SecurityConfig& config, const TlsStreamOptions& options) {
  Context context(SSL_CTX_new(options.is_server ? TLS_server_method() : TLS_client_method()));
  if (context == nullptr) return Status::Internal("TLS: " + TakeErrors());
  const auto wrong = [](const std::string& file) { return Status::InvalidArgument(file + " cannot be used for TLS: " + TakeErrors()); };
  SSL_CTX* c = context.get();
  SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION);
  SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(c, 0);
  SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // Where the processor knows AES, which all of those do that have seen an object store, the first is the fastest.
  if (SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") != 1)
    return Status::Internal("TLS: " + TakeErrors());
  if (SSL_CTX_use_certificate_chain_file(c, config.tls_cert.c_str()) != 1) return wrong(config.tls_cert);
  if (SSL_CTX_use_PrivateKey_file(c, config.tls_key.c_str(), SSL_FILETYPE_PEM) != 1) return wrong(config.tls_key);
  if (SSL_CTX_check_private_key(c) != 1) return wrong(config.tls_key);
  if (SSL_CTX_load_verify_locations(c, config.tls_ca.c_str(), nullptr) != 1) return wrong(config.tls_ca);
  // Whoever has a certificate of the authority is a member, whatever its name: nodes are dialled by addresses that change.
  SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return context;
}

class TlsStream final : public StreamFilter {
 public:
  TlsStream(std::unique_ptr<SSL, Free> ssl, const TlsStreamOptions& options) : batch_(options.buffer_bytes), ssl_(std::move(ssl)) {
    BIO* out = BIO_new(OutMethod());
    BIO_set_data(out, &out_);
    BIO_set_init(out, 1);
    SSL_set0_wbio(ssl_.get(), out);
    in_.bytes.resize(options.buffer_bytes);
    BIO* in = BIO_new(InMethod());
    BIO_set_data(in, &in_);
    BIO_set_init(in, 1);
    SSL_set0_rbio(ssl_.get(), in);
    out_.Append(options.prologue.data(), options.prologue.size());
    options.is_server ? SSL_set_accept_state(ssl_.get()) : SSL_set_connect_state(ssl_.get());
  }

  ssize_t Receive(int fd, uint8_t* to, size_t n) override {
    MutexLock lock(&mu_);
    in_.fd = fd;
    size_t got = 0;
    ssize_t result = -1;
    while (got < n) {
      size_t step = 0;
      ERR_clear_error();
      errno = 0;
      const int rc = SSL_read_ex(ssl_.get(), to + got, n - got, &step);
      if (rc == 1) {
        got += step;
        continue;
      }
      result = FailedLocked(rc);
      break;
    }
    const int err = errno;
    NoteOpenLocked();
    static_cast<void>(FlushLocked(fd));  // what the handshake has to say; what the socket does not take is unsent
    errno = err;
    return got > 0 ? static_cast<ssize_t>(got) : result;
  }

  ssize_t Send(int fd, const iovec* iov, int count) override {
    MutexLock lock(&mu_);
    in_.fd = fd;
    if (!is_open()) {
      ERR_clear_error();
      errno = 0;
      const int rc = SSL_do_handshake(ssl_.get());
      const ssize_t failed = rc == 1 ? 0 : FailedLocked(rc);
      const int err = errno;
      NoteOpenLocked();
      const bool flushed = FlushLocked(fd);
      if (rc != 1 && (failed == 0 || err != EAGAIN)) return errno = failed == 0 ? EPIPE : err, -1;
      if (!flushed) return -1;
      if (rc != 1) return errno = EINPROGRESS, -1;
    }
    if (!FlushLocked(fd)) return -1;
    size_t taken = 0;
    for (int i = 0; i < count; ++i) {
      for (size_t at = 0; at < iov[i].iov_len;) {
        size_t step = 0;
        ERR_clear_error();
        if (SSL_write_ex(ssl_.get(), static_cast<const uint8_t*>(iov[i].iov_base) + at, iov[i].iov_len - at, &step) != 1) {
          FailLocked(TakeErrors());
          return errno = EPROTO, -1;
        }
        at += step;
        taken += step;
        NoteWrittenLocked(step);
        if (out_.left() < batch_) continue;
        if (!FlushLocked(fd)) return errno == EAGAIN ? static_cast<ssize_t>(taken) : -1;
      }
    }
    if (!FlushLocked(fd) && errno != EAGAIN) return -1;
    return static_cast<ssize_t>(taken);
  }

  bool is_open() const override { return open_.load(std::memory_order_acquire); }
  bool has_unsent() const override { return unsent_.load(std::memory_order_acquire); }
  Status failure() const override {
    MutexLock lock(&mu_);
    return failure_;
  }

 private:
  void NoteOpenLocked() REQUIRES(mu_) {
    if (!is_open() && SSL_is_init_finished(ssl_.get()) != 0) open_.store(true, std::memory_order_release);
  }
  void FailLocked(const std::string& why) REQUIRES(mu_) {
    if (failure_.ok()) failure_ = Status::Unavailable("TLS with the peer failed: " + why);
  }
  // As recv: 0 at the end, else -1 with errno.
  ssize_t FailedLocked(int rc) REQUIRES(mu_) {
    const int err = errno;
    switch (SSL_get_error(ssl_.get(), rc)) {
      case SSL_ERROR_WANT_READ:
      case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
      case SSL_ERROR_ZERO_RETURN: return 0;
      case SSL_ERROR_SYSCALL: errno = err != 0 ? err : ECONNRESET; return -1;
      default: break;
    }
    if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {  // frames know their length
      ERR_clear_error();
      return 0;
    }
    const long verified = SSL_get_verify_result(ssl_.get());  // NOLINT(google-runtime-int): OpenSSL's
    const std::string why = TakeErrors();
    FailLocked(verified == X509_V_OK ? why : std::string("its certificate is refused: ") + X509_verify_cert_error_string(verified));
    errno = EPROTO;
    return -1;
  }
  // False, with errno: the socket has not taken all of it.
  bool FlushLocked(int fd) REQUIRES(mu_) {
    while (out_.left() > 0) {
      const ssize_t n = ::send(fd, out_.bytes.data() + out_.sent, out_.left(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        if (errno == EWOULDBLOCK || errno == ENOBUFS) errno = EAGAIN;
        unsent_.store(true, std::memory_order_release);
        return false;
      }
      out_.sent += static_cast<size_t>(n);
    }
    out_.end = out_.sent = 0;
    unsent_.store(false, std::memory_order_release);
    return true;
  }
  void NoteWrittenLocked(size_t n) REQUIRES(mu_) {
    of_key_ += n;
    if (of_key_ < kBytesOfKey) return;
    of_key_ = 0;
    SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED);
  }

  const size_t batch_;
  mutable Mutex mu_;
  InBytes in_ GUARDED_BY(mu_);  // ssl_ reads there, and writes to the next
  OutBytes out_ GUARDED_BY(mu_);
  const std::unique_ptr<SSL, Free> ssl_;
  uint64_t of_key_ GUARDED_BY(mu_) = 0;
  Status failure_ GUARDED_BY(mu_);
  std::atomic<bool> open_{false}, unsent_{false};
};

}  // namespace

Result<std::unique_ptr<StreamFilter>> MakeTlsStream(const Security& security, const TlsStreamOptions& options) {
  RAY_ASSIGN_OR_RETURN(const Context context, MakeContext(security.config(), options));
  std::unique_ptr<SSL, Free> ssl(SSL_new(context.get()));
  if (ssl == nullptr) return Status::Internal("TLS: " + TakeErrors());
  return std::unique_ptr<StreamFilter>(new TlsStream(std::move(ssl), options));
}

}  // namespace ray::rpc
