#include "ray/gcs_server/storage/redis_connection.h"

#include <arpa/inet.h>
#include <hiredis/hiredis.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <system_error>
#include <utility>

namespace ray::gcs {
namespace {

template <auto kFree>
struct Freer {
  template <typename T>
  void operator()(T* p) const {
    kFree(p);
  }
};
using SslContext = std::unique_ptr<SSL_CTX, Freer<SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, Freer<SSL_free>>;
using ReaderPtr = std::unique_ptr<redisReader, Freer<redisReaderFree>>;

int Millis(Duration d) { return static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(d).count()); }

std::string SslError() {
  std::array<char, 256> text{};
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "the connection ended";
  ERR_error_string_n(code, text.data(), text.size());
  return text.data();
}

RedisReply Convert(const redisReply& reply) {
  RedisReply made;
  switch (reply.type) {
    case REDIS_REPLY_NIL: made.is_nil = true; break;
    case REDIS_REPLY_INTEGER: made.text = std::to_string(reply.integer); break;
    case REDIS_REPLY_ARRAY:
      for (size_t i = 0; i < reply.elements; ++i) made.elements.push_back(Convert(*reply.element[i]));
      break;
    default: made.text.assign(reply.str, reply.len);
  }
  return made;
}

// What the server says while it starts, has no room or changes its role: later it may be otherwise.
bool IsPassing(std::string_view error) {
  for (const std::string_view word : {"LOADING", "MASTERDOWN", "TRYAGAIN", "BUSY", "MISCONF", "OOM", "READONLY"}) {
    if (error.starts_with(word)) return true;
  }
  return false;
}

}  // namespace

Result<RedisServer> RedisServer::FromUrl(const std::string& url) {
  if (url.find('@') != std::string::npos)  // and is not shown: logs are read by others, too
    return Status::InvalidArgument(
        "the address of the Redis server has a name or a password in it, where every user of the machine can read them: give these with "
        "RAY_REDIS_USERNAME and RAY_REDIS_PASSWORD instead");
  RedisServer server;
  std::string_view rest = url;
  if (rest.starts_with("rediss://")) {
    server.tls = true;
    rest.remove_prefix(9);
  } else if (rest.starts_with("redis://")) {
    rest.remove_prefix(8);
  } else {
    return Status::InvalidArgument("'" + url + "' is neither redis://HOST:PORT nor rediss://HOST:PORT");
  }
  const size_t colon = rest.rfind(':');
  const bool bracketed = rest.starts_with('[');
  if (colon != std::string_view::npos && (!bracketed || rest[colon - 1] == ']')) {
    const std::string_view port = rest.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), server.port);
    if (error != std::errc() || end != port.data() + port.size() || server.port < 1 || server.port > 65535)
      return Status::InvalidArgument("'" + url + "' has no valid port");
    rest = rest.substr(0, colon);
  }
  if (bracketed && rest.ends_with(']')) rest = rest.substr(1, rest.size() - 2);
  if (rest.empty()) return Status::InvalidArgument("'" + url + "' names no host");
  server.host = rest;
  return server;
}

struct RedisConnection::Impl {
  ~Impl() {
    ssl = nullptr;
    if (fd >= 0) ::close(fd);
  }

  Status Connect() {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (const int error = ::getaddrinfo(server.host.c_str(), std::to_string(server.port).c_str(), &hints, &found); error != 0)
      return Lost(::gai_strerror(error));
    const std::unique_ptr<addrinfo, Freer<freeaddrinfo>> owned(found);
    Status status = Lost("no address");
    for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
      if (fd >= 0) ::close(fd);
      fd = ::socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      if (fd < 0) return Status::FromErrno(errno, "making a socket");
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      if (::connect(fd, at->ai_addr, at->ai_addrlen) == 0) return {};
      if (errno != EINPROGRESS) {
        status = Lost(std::generic_category().message(errno));
        continue;
      }
      if (status = Await(POLLOUT); !status.ok()) continue;
      int error = 0;
      socklen_t size = sizeof error;
      ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
      if (error == 0) return {};
      status = Lost(std::generic_category().message(error));
    }
    return status;
  }

  Status Encrypt() {
    const auto failed = [this](const std::string& what) {
      return Status::FailedPrecondition("TLS with the Redis server at " + server.Address() + ": " + what + ": " + SslError());
    };
    context.reset(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
    const bool loaded = server.ca_cert.empty() ? SSL_CTX_set_default_verify_paths(context.get()) == 1
                                               : SSL_CTX_load_verify_locations(context.get(), server.ca_cert.c_str(), nullptr) == 1;
    if (!loaded) return failed("reading the authority's certificate " + server.ca_cert);
    if (!server.client_cert.empty()) {
      if (SSL_CTX_use_certificate_chain_file(context.get(), server.client_cert.c_str()) != 1)
        return failed("reading the certificate " + server.client_cert);
      if (SSL_CTX_use_PrivateKey_file(context.get(), server.client_key.c_str(), SSL_FILETYPE_PEM) != 1)
        return failed("reading the key " + server.client_key);
    }
    ssl.reset(SSL_new(context.get()));
    const std::string name = server.server_name.empty() ? server.host : server.server_name;
    std::array<unsigned char, 16> address{};
    if (::inet_pton(AF_INET, name.c_str(), address.data()) == 1 || ::inet_pton(AF_INET6, name.c_str(), address.data()) == 1) {
      X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl.get()), name.c_str());
    } else {
      SSL_set1_host(ssl.get(), name.c_str());
      SSL_set_tlsext_host_name(ssl.get(), name.c_str());
    }
    SSL_set_fd(ssl.get(), fd);
    for (;;) {
      const int done = SSL_connect(ssl.get());
      if (done == 1) return {};
      if (Status status = AwaitSsl(done); !status.ok())
        return status.code() == StatusCode::kUnavailable ? status : failed(status.message());
    }
  }

  // After an operation of SSL that gave `outcome`: waits until it is worth trying again.
  Status AwaitSsl(int outcome) const {
    switch (SSL_get_error(ssl.get(), outcome)) {
      case SSL_ERROR_WANT_READ: return Await(POLLIN);
      case SSL_ERROR_WANT_WRITE: return Await(POLLOUT);
      case SSL_ERROR_SSL: return Status::FailedPrecondition("refused");
      default: ERR_clear_error(); return Lost("the connection ended");
    }
  }

  Status Await(short events) const {
    pollfd wanted{fd, events, 0};
    int ready;
    do {
      ready = ::poll(&wanted, 1, Millis(server.timeout));
    } while (ready < 0 && errno == EINTR);
    return ready > 0 ? Status::Ok() : Lost("no answer in time");
  }

  Status Lost(const std::string& why) const { return Status::Unavailable("the Redis server at " + server.Address() + ": " + why); }

  Status Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto n = ssl != nullptr ? SSL_write(ssl.get(), bytes.data(), static_cast<int>(std::min<size_t>(bytes.size(), 1 << 20)))
                                    : static_cast<int>(::send(fd, bytes.data(), std::min<size_t>(bytes.size(), 1 << 20), MSG_NOSIGNAL));
      if (n > 0) {
        bytes.remove_prefix(static_cast<size_t>(n));
        continue;
      }
      const Status status = ssl != nullptr                      ? AwaitSsl(n)
                            : errno == EAGAIN || errno == EINTR ? Await(POLLOUT)
                                                                : Lost(std::generic_category().message(errno));
      if (!status.ok()) return Lost(status.message());
    }
    return {};
  }

  Status Receive() {
    std::array<char, 16384> bytes;
    for (;;) {
      const auto n = ssl != nullptr ? SSL_read(ssl.get(), bytes.data(), static_cast<int>(bytes.size()))
                                    : static_cast<int>(::recv(fd, bytes.data(), bytes.size(), 0));
      if (n > 0) {
        redisReaderFeed(reader.get(), bytes.data(), static_cast<size_t>(n));
        return {};
      }
      if (ssl == nullptr && n == 0) return Lost("it closed the connection");
      const Status status = ssl != nullptr                      ? AwaitSsl(n)
                            : errno == EAGAIN || errno == EINTR ? Await(POLLIN)
                                                                : Lost(std::generic_category().message(errno));
      if (!status.ok()) return Lost(status.message());
    }
  }

  RedisServer server;
  int fd = -1;
  SslContext context;
  SslPtr ssl;
  ReaderPtr reader{redisReaderCreate()};
};

RedisConnection::RedisConnection(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RedisConnection::~RedisConnection() = default;

Result<std::unique_ptr<RedisConnection>> RedisConnection::Open(const RedisServer& server) {
  std::unique_ptr<RedisConnection> connection(new RedisConnection(std::make_unique<Impl>()));
  connection->impl_->server = server;
  RAY_RETURN_NOT_OK(connection->impl_->Connect());
  if (server.tls) RAY_RETURN_NOT_OK(connection->impl_->Encrypt());
  std::vector<std::string_view> login{"AUTH"};
  if (!server.username.empty()) login.push_back(server.username);
  login.push_back(server.password);
  if (!server.password.empty() || !server.username.empty()) {
    const auto answer = connection->Run(login);
    if (answer.status().code() == StatusCode::kAborted)
      return Status(StatusCode::kUnauthenticated, "the Redis server at " + server.Address() + " refused the password");
    RAY_RETURN_NOT_OK(answer.status());
  }
  const auto answer = connection->Run({"PING"});
  if (answer.status().code() == StatusCode::kAborted)
    return Status(StatusCode::kUnauthenticated, "the Redis server at " + server.Address() + " refused: " + answer.status().message());
  RAY_RETURN_NOT_OK(answer.status());
  return connection;
}

Result<RedisReply> RedisConnection::Run(const std::vector<std::string_view>& command) {
  std::vector<const char*> words;
  std::vector<size_t> sizes;
  for (const std::string_view word : command) {
    words.push_back(word.data());
    sizes.push_back(word.size());
  }
  char* formatted = nullptr;
  const auto size = redisFormatCommandArgv(&formatted, static_cast<int>(words.size()), words.data(), sizes.data());
  if (size < 0) return Status::InvalidArgument("a command that cannot be written");
  const std::unique_ptr<char, Freer<redisFreeCommand>> owned(formatted);
  RAY_RETURN_NOT_OK(impl_->Send({formatted, static_cast<size_t>(size)}));
  for (;;) {
    void* reply = nullptr;
    if (redisReaderGetReply(impl_->reader.get(), &reply) != REDIS_OK) return impl_->Lost("an answer that cannot be read");
    if (reply == nullptr) {
      RAY_RETURN_NOT_OK(impl_->Receive());
      continue;
    }
    const std::unique_ptr<void, Freer<freeReplyObject>> freed(reply);
    const auto& answer = *static_cast<redisReply*>(reply);
    if (answer.type == REDIS_REPLY_ERROR) {
      const std::string text(answer.str, answer.len);
      return IsPassing(text) ? impl_->Lost(text) : Status::Aborted(text);
    }
    return Convert(answer);
  }
}

}  // namespace ray::gcs
