#include "ray/raylet/workers/zygote_launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "ray/raylet/workers/json.h"
#include "ray/util/logging.h"
#include "ray/util/subprocess.h"

namespace ray::raylet {

namespace {

constexpr int kZygoteFd = 3, kLifelineFd = 4;  // in the zygote
constexpr size_t kMaxPacket = 64 << 10;
constexpr rlim_t kHigh = 4000;  // more descriptors than a raylet has as a rule, and no large table of them

// Who waits for this process must not find that one alive: the kernel takes some milliseconds to end it, as a rule.
void AwaitEnd(pid_t pid) {
  constexpr int kAtMostMs = 1000;
  const auto fd = OpenPidFd(pid);
  if (!fd.ok()) return;
  pollfd ended{*fd, POLLIN, 0};
  while (poll(&ended, 1, kAtMostMs) < 0 && errno == EINTR) {
  }
  close(*fd);
}

// The kernel closes the highest descriptors of a process that ends first. Elsewhere, where no number that high is to be had, it is where it was.
int MovedUp(int fd) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == 0) return fd;
  const int high = fcntl(fd, F_DUPFD_CLOEXEC, static_cast<int>(std::min(kHigh, limit.rlim_cur - 1)));
  if (high < 0) return fd;
  close(fd);
  return high;
}

int PidfdSignal(int fd, int signal) { return static_cast<int>(syscall(SYS_pidfd_send_signal, fd, signal, nullptr, 0)); }

}  // namespace

ZygoteLauncher::ZygoteLauncher(ZygoteConfig config, async::EpollLoop* loop) : config_(std::move(config)), loop_(loop) {}

ZygoteLauncher::~ZygoteLauncher() { Stop(); }

void ZygoteLauncher::Start(std::function<void(const Status&)> on_ready) {
  on_ready_ = std::move(on_ready);
  EnsureStarted();
}

void ZygoteLauncher::EnsureStarted() {
  if (fd_ >= 0 || stopped_ || retry_ != 0) return;
  if (Status status = Spawn(); !status.ok()) RetryLater(status.message(), status.code() == StatusCode::kResourceExhausted);
}

Status ZygoteLauncher::MakeLifeline() {
  if (lifeline_ >= 0) return Status::Ok();  // workers of an earlier zygote have it, too
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Status::FromErrno(errno, "pipe for the workers");
  lifeline_read_ = ends[0];
  // Before the connections by which others hear of the end of the raylet: they may rely on it that its workers have been killed.
  lifeline_ = MovedUp(ends[1]);
  return Status::Ok();
}

Status ZygoteLauncher::Spawn() {
  if (Status status = MakeLifeline(); !status.ok()) return status;
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return Status::FromErrno(errno, "socketpair for the zygote");
  fcntl(ends[0], F_SETFL, fcntl(ends[0], F_GETFL) | O_NONBLOCK);  // the zygote's end blocks
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int log = open((config_.log_dir + "/zygote.err").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  SpawnOptions options;
  options.argv = {config_.python, "-m", config_.module, "--fd", std::to_string(kZygoteFd), "--lifeline", std::to_string(kLifelineFd)};
  options.fds = {{ends[1], kZygoteFd}, {lifeline_read_, kLifelineFd}};
  if (null >= 0) options.fds.emplace_back(null, 0);
  if (log >= 0) options.fds.insert(options.fds.end(), {{log, 1}, {log, 2}});
  options.new_session = true;  // a Ctrl-C at the driver's terminal is the driver's business
  auto spawned = Subprocess::Spawn(options);
  for (const int fd : {ends[1], null, log}) {
    if (fd >= 0) close(fd);
  }
  if (!spawned.ok()) {
    close(ends[0]);
    return spawned.status();
  }
  fd_ = ends[0];
  pid_ = spawned->Release();  // reaped with all other children, OnChildReaped
  reaped_ = false;
  ready_ = false;
  sent_.clear();
  RAY_LOG(INFO) << "zygote started, pid " << pid_;
  return loop_->WatchFd(fd_, EPOLLIN, [this](uint32_t) { Read(); });
}

void ZygoteLauncher::Launch(const LaunchRequest& request) {
  pending_[request.token] = request;
  if (ready_) {
    Send(request);
  } else {
    EnsureStarted();
  }
}

void ZygoteLauncher::Send(const LaunchRequest& request) {
  JsonWriter json;
  json.BeginObject().Key("op").String("fork").Key("token").Int(static_cast<int64_t>(request.token));
  json.Key("worker_id").String(request.worker.Hex()).Key("job_id").String(request.job.Hex());
  json.Key("log_dir").String(config_.log_dir).Key("session_dir").String(config_.session_dir);
  json.Key("env").BeginObject();
  for (const auto& [name, value] : request.env) json.Key(name).String(value);
  const std::string text = json.EndObject().EndObject().Take();
  const ssize_t n = send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
  if (n == static_cast<ssize_t>(text.size())) {
    sent_.insert(request.token);
    return;
  }
  if (errno == EAGAIN || errno == ENOBUFS) return;  // sent with the next message that it answers
  if (errno == EMSGSIZE) {
    const uint64_t token = request.token;
    pending_.erase(token);
    loop_->Post("zygote.fail", [this, token] {
      if (!stopped_) events_.on_failed(token, "its environment is too large");
    });
  }
  // Anything else means that the zygote is gone, which Read sees.
}

bool ZygoteLauncher::Read() {
  std::array<char, kMaxPacket> buffer;
  for (int i = 0; i < 64; ++i) {  // bounded: other sockets want their turn
    const ssize_t n = recv(fd_, buffer.data(), buffer.size(), 0);
    if (n > 0) {
      OnMessage({buffer.data(), static_cast<size_t>(n)});
      if (fd_ < 0) return false;
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    OnGone();
    return false;
  }
  return true;
}

void ZygoteLauncher::OnMessage(std::string_view text) {
  auto parsed = ParseFlatJson(text);
  if (!parsed.ok()) {
    RAY_LOG(ERROR) << "the zygote sent what is not understood: " << parsed.status().message();
    return;
  }
  const JsonObject& message = *parsed;
  const std::string op = JsonString(message, "op");
  const auto token = static_cast<uint64_t>(JsonNumber(message, "token", 0));
  const auto pid = static_cast<int64_t>(JsonNumber(message, "pid", -1));
  if (op == "ready") {
    ready_ = true;
    failures_ = 0;
    if (auto on_ready = std::exchange(on_ready_, nullptr)) on_ready(Status::Ok());
  } else if (op == "forked") {
    sent_.erase(token);
    if (pending_.erase(token) == 0 || pid <= 1) return;
    auto pidfd = OpenPidFd(static_cast<pid_t>(pid));
    children_[pid] = Child{pidfd.ok() ? *pidfd : -1, pid_, JsonNumber(message, "group", 0) != 0};
    events_.on_started(token, pid);
  } else if (op == "error") {
    sent_.erase(token);
    if (pending_.erase(token) > 0) {
      (JsonNumber(message, "for_now", 0) != 0 ? events_.on_refused : events_.on_failed)(token, JsonString(message, "message"));
    }
  } else if (op == "exit") {
    Exited(pid, static_cast<int>(JsonNumber(message, "status", 0)));
  } else {
    RAY_LOG(ERROR) << "the zygote sent an unknown op '" << op << "'";
  }
  if (!ready_ || fd_ < 0) return;
  std::vector<LaunchRequest> unsent;
  for (const auto& [id, request] : pending_) {
    if (!sent_.contains(id)) unsent.push_back(request);
  }
  for (const auto& request : unsent) Send(request);
}

void ZygoteLauncher::OnGone() {
  loop_->UnwatchFd(fd_);
  close(fd_);
  fd_ = -1;
  // A zygote that closed its socket but lives is of no use and must not stay.
  if (!reaped_) kill(static_cast<pid_t>(pid_), SIGKILL);
  if (ready_) failures_ = 0;
  ready_ = false;
  RetryLater("the zygote ended");
}

void ZygoteLauncher::RetryLater(const std::string& why, bool refused) {
  if (stopped_) return;
  ++failures_;
  if (refused && on_ready_ == nullptr) {  // who wants processes tries again; of the zygote it says nothing
    for (const auto& [token, request] : std::exchange(pending_, {})) events_.on_refused(token, why);
    failures_ = 0;
    return;
  }
  RAY_LOG(WARNING) << why << "; start attempt " << failures_ << " failed or was cut short (see zygote.err)";
  if (failures_ >= config_.max_failures) {
    failures_ = 0;
    auto failed = std::move(pending_);
    pending_.clear();
    const std::string message = why + ", repeatedly; see zygote.err in " + config_.log_dir;
    for (const auto& [token, request] : failed) events_.on_failed(token, message);
    if (auto on_ready = std::exchange(on_ready_, nullptr)) on_ready(Status::Unavailable("no worker can be started: " + message));
    return;
  }
  Duration delay = config_.min_backoff;
  for (int i = 1; i < failures_ && delay < config_.max_backoff; ++i) delay *= 2;
  retry_ = loop_->AddTimer(std::min(delay, config_.max_backoff), [this] {
    retry_ = 0;
    EnsureStarted();
  });
}

void ZygoteLauncher::Exited(int64_t pid, int wait_status) {
  const auto it = children_.find(pid);
  if (it == children_.end()) return;
  if (it->second.pidfd >= 0) close(it->second.pidfd);
  children_.erase(it);
  if (!stopped_) events_.on_exited(pid, wait_status);
}

void ZygoteLauncher::Signal(int64_t pid, int signal) {
  const auto it = children_.find(pid);
  if (it == children_.end()) return;
  // A descriptor names the process even after its number was given to another; without one (no descriptors left) the number must do.
  const int rc = it->second.pidfd >= 0 ? PidfdSignal(it->second.pidfd, signal) : kill(static_cast<pid_t>(pid), signal);
  if (rc != 0 && errno != ESRCH) {
    RAY_LOG(ERROR) << Status::FromErrno(errno, "signalling worker process " + std::to_string(pid)).ToString();
  }
}

void ZygoteLauncher::OnChildEnded(int64_t pid) {
  const auto it = children_.find(pid);
  if (it != children_.end() && it->second.leads_group) kill(-static_cast<pid_t>(pid), SIGKILL);
}

void ZygoteLauncher::OnChildReaped(int64_t pid, int wait_status) {
  if (children_.contains(pid)) return Exited(pid, wait_status);
  if (pid == pid_) {
    reaped_ = true;
    while (fd_ >= 0 && Read()) {
    }
  }
  TellLostChildren(pid);
}

void ZygoteLauncher::TellLostChildren(int64_t zygote) {
  std::vector<int64_t> lost;
  for (const auto& [pid, child] : children_) {
    siginfo_t info;
    // What lives, or waits to be reaped, is a child of this process now. What isn't ended before the zygote did, or before its start was told.
    if (child.zygote == zygote && waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0 && errno == ECHILD)
      lost.push_back(pid);
  }
  for (const int64_t pid : lost) Exited(pid, SIGKILL);  // the zygote took it along, as far as anybody can know
}

void ZygoteLauncher::Stop() {
  if (stopped_) return;
  stopped_ = true;
  if (retry_ != 0) loop_->CancelTimer(retry_);
  if (fd_ >= 0) {
    loop_->UnwatchFd(fd_);
    close(fd_);
    fd_ = -1;
  }
  if (!reaped_) {
    kill(static_cast<pid_t>(pid_), SIGKILL);
    AwaitEnd(static_cast<pid_t>(pid_));
  }
  for (const auto& [pid, child] : children_) {
    if (child.pidfd < 0) continue;
    // Nobody reaps it in between: it is there, and so its group, which may have more in it.
    if (PidfdSignal(child.pidfd, SIGKILL) == 0 && child.leads_group) kill(-static_cast<pid_t>(pid), SIGKILL);
    close(child.pidfd);
  }
  children_.clear();
  for (int* fd : {&lifeline_, &lifeline_read_}) {
    if (*fd >= 0) close(std::exchange(*fd, -1));
  }
}

}  // namespace ray::raylet
