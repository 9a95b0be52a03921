#include "ray/rpc/grpc/security.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <sstream>
#include <utility>

#include "ray/rpc/grpc/host_port.h"
#include "ray/util/fs.h"
#include "ray/util/logging.h"

namespace ray::rpc {
namespace {

constexpr size_t kMinToken = 16, kMaxToken = 4096;
constexpr Duration kLookInterval = std::chrono::seconds(1);
constexpr std::string_view kBearer = "Bearer ";
constexpr std::string_view kStateTitle = "tokens 1";
constexpr char kHowTo[] =
    "give the cluster's token to this process: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token for Python programs and ray start, "
    "--auth-token-file for gcs_server and raylet, the metadata 'authorization: Bearer TOKEN' for any other client";

// Changes whenever the file was replaced or written.
Result<std::string> StampOf(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return Status::FromErrno(errno, "looking at the token file " + path);
  if (!S_ISREG(st.st_mode)) return Status::InvalidArgument("the token file " + path + " is not a file");
  if ((st.st_mode & 077) != 0) {
    return Status::PermissionDenied("the token file " + path + " is open to other users: chmod 600 it");
  }
  return std::to_string(st.st_ino) + ' ' + std::to_string(st.st_size) + ' ' + std::to_string(st.st_mtim.tv_sec) + ' ' +
         std::to_string(st.st_mtim.tv_nsec) + ' ' + std::to_string(st.st_ctim.tv_sec) + ' ' + std::to_string(st.st_ctim.tv_nsec);
}

Result<std::string> ReadToken(const std::string& path) {
  RAY_ASSIGN_OR_RETURN(std::string token, ReadFile(path));
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r')) token.pop_back();
  const bool printable = std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < 127; });
  if (!printable || token.size() < kMinToken || token.size() > kMaxToken) {
    return Status::InvalidArgument("the token file " + path + " must hold one line of " + std::to_string(kMinToken) + " to " +
                                   std::to_string(kMaxToken) + " printable characters without blanks");
  }
  return token;
}

// gRPC only logs what is wrong with them, when a handshake fails.
Status CheckTlsFiles(const SecurityConfig& config) {
  const std::pair<const char*, const std::string*> files[] = {
      {"--tls-cert", &config.tls_cert}, {"--tls-key", &config.tls_key}, {"--tls-ca", &config.tls_ca}};
  size_t given = 0;
  for (const auto& [flag, path] : files) given += path->empty() ? 0 : 1;
  if (given == 0) return {};
  if (given != 3) return Status::InvalidArgument("--tls-cert, --tls-key and --tls-ca belong together: give all three, or none");
  for (const auto& [flag, path] : files) {
    auto text = ReadFile(*path);
    if (!text.ok()) return Status::InvalidArgument(std::string(flag) + ": " + text.status().message());
    if (text->find("-----BEGIN ") == std::string::npos)
      return Status::InvalidArgument(std::string(flag) + ": " + *path + " is not a PEM file");
  }
  struct stat st {};
  if (::stat(config.tls_key.c_str(), &st) != 0 || (st.st_mode & 077) != 0) {
    return Status::PermissionDenied("the key " + config.tls_key + " is open to other users: chmod 600 it");
  }
  return {};
}

}  // namespace

bool ConstantTimeEquals(std::string_view a, std::string_view b) {
  volatile unsigned char difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < b.size(); ++i) {
    const auto x = static_cast<unsigned char>(i < a.size() ? a[i] : 0);
    difference = difference | (x ^ static_cast<unsigned char>(b[i]));
  }
  return difference == 0;
}

void TokenCore::Set(std::string token, Time now) {
  if (token == current_) return;
  if (!current_.empty()) {
    previous_ = std::move(current_);
    previous_until_ = now + grace_;
  }
  current_ = std::move(token);
}

void TokenCore::Restore(std::string current, std::string previous, Time previous_until) {
  current_ = std::move(current);
  previous_ = std::move(previous);
  previous_until_ = previous_until;
}

bool TokenCore::Accepts(std::string_view token, Time now) const {
  // Both are compared, whatever the first says.
  const bool is_current = !current_.empty() && ConstantTimeEquals(token, current_);
  const bool is_previous = !previous_.empty() && ConstantTimeEquals(token, previous_);
  return is_current || (is_previous && now < previous_until_);
}

Result<std::shared_ptr<Security>> Security::Make(SecurityConfig config, const Clock* clock) {
  std::shared_ptr<Security> security(new Security(std::move(config), clock));
  RAY_RETURN_NOT_OK(CheckTlsFiles(security->config_));
  const std::string& path = security->config_.token_file;
  if (path.empty() || security->config_.disabled) return security;
  MutexLock lock(&security->mu_);
  RAY_ASSIGN_OR_RETURN(security->stamp_, StampOf(path));
  RAY_ASSIGN_OR_RETURN(std::string token, ReadToken(path));
  security->LoadStateLocked();
  security->tokens_.Set(std::move(token), clock->Now());
  security->SaveStateLocked();
  security->looked_at_ = clock->Now();
  return security;
}

Status Security::CheckListener(const std::string& address) const {
  if (IsUnixAddress(address)) return {};
  RAY_ASSIGN_OR_RETURN(HostPort where, ParseHostPort(address));
  if (config_.disabled && !where.IsLoopback()) {
    return Status::InvalidArgument(
        address + " can be reached from other machines: it is not served with --auth-mode=disabled. Give an --auth-token-file");
  }
  if (!config_.disabled && config_.token_file.empty()) {
    return Status::InvalidArgument(address + " is a TCP address: it is not served without an --auth-token-file" +
                                   (where.IsLoopback() ? " (or --auth-mode=disabled, on loopback addresses only)" : ""));
  }
  return {};
}

void Security::RefreshLocked(bool even_so) {
  const Time now = clock_->Now();
  if (config_.token_file.empty() || (!even_so && now < looked_at_ + kLookInterval)) return;
  looked_at_ = now;
  auto stamp = StampOf(config_.token_file);
  if (stamp.ok() && *stamp == stamp_) return;
  auto token = stamp.ok() ? ReadToken(config_.token_file) : Result<std::string>(stamp.status());
  if (!token.ok()) {
    // Being replaced, perhaps: what was good stays good.
    RAY_LOG(WARNING) << "the token file cannot be used, its last content stays in force: " << token.status().message();
    return;
  }
  stamp_ = *std::move(stamp);
  if (*token == tokens_.current()) return;
  tokens_.Set(*std::move(token), now);
  SaveStateLocked();
  RAY_LOG(INFO) << "the token has changed; the one before stays good for " << config_.token_grace.count() / 1'000'000 << " ms";
}

// Lines: a title, the token in force, the one before it, and until when that is good, in milliseconds of the wall clock.
void Security::LoadStateLocked() {
  if (config_.state_file.empty()) return;
  struct stat st {};
  if (::stat(config_.state_file.c_str(), &st) != 0) return;
  auto text = (st.st_mode & 077) == 0 ? ReadFile(config_.state_file) : Result<std::string>(Status::PermissionDenied("open to other users"));
  std::string lines[4];
  if (text.ok()) {
    std::istringstream in(*text);
    for (std::string& line : lines) std::getline(in, line);
  }
  int64_t until = 0;
  const auto [end, error] = std::from_chars(lines[3].data(), lines[3].data() + lines[3].size(), until);
  if (lines[0] != kStateTitle || lines[1].empty() || error != std::errc() || end != lines[3].data() + lines[3].size()) {
    RAY_LOG(WARNING) << "the state of an earlier process in " << config_.state_file
                     << " cannot be used: the token before the present one is not accepted";
    return;
  }
  // Whatever the wall clock has done meanwhile, it is never good for longer than the grace.
  const Duration left =
      std::clamp<Duration>(std::chrono::milliseconds(until - clock_->WallMillis()), Duration::zero(), config_.token_grace);
  tokens_.Restore(std::move(lines[1]), std::move(lines[2]), clock_->Now() + left);
}

void Security::SaveStateLocked() {
  if (config_.state_file.empty()) return;
  const Time now = clock_->Now();
  const bool good = !tokens_.previous().empty() && now < tokens_.previous_until();
  const int64_t until =
      good ? clock_->WallMillis() + std::chrono::duration_cast<std::chrono::milliseconds>(tokens_.previous_until() - now).count() : 0;
  const Status status = WriteFileAtomic(config_.state_file, std::string(kStateTitle) + '\n' + tokens_.current() + '\n' +
                                                                (good ? tokens_.previous() : "") + '\n' + std::to_string(until) + '\n');
  if (!status.ok()) RAY_LOG(WARNING) << "a restart will not know of the token before the present one: " << status.ToString();
}

std::string Security::Token() {
  if (config_.disabled || config_.token_file.empty()) return {};
  MutexLock lock(&mu_);
  RefreshLocked(/*even_so=*/false);
  return tokens_.current();
}

Status Security::Check(std::optional<std::string_view> authorization) {
  if (config_.disabled) return {};
  if (!authorization)
    return Status(StatusCode::kUnauthenticated, std::string("this cluster asks for a token, and none was given; ") + kHowTo);
  bool good = false;
  if (authorization->starts_with(kBearer)) {
    const std::string_view token = authorization->substr(kBearer.size());
    MutexLock lock(&mu_);
    RefreshLocked(/*even_so=*/false);
    good = tokens_.Accepts(token, clock_->Now());
    if (!good) {  // the peer may have seen a new one before us
      RefreshLocked(/*even_so=*/true);
      good = tokens_.Accepts(token, clock_->Now());
    }
  }
  if (good) return {};
  return Status(StatusCode::kUnauthenticated, std::string("the token is not that of this cluster; ") + kHowTo);
}

}  // namespace ray::rpc
