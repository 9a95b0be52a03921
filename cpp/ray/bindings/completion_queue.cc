#include "ray/bindings/completion_queue.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ray::bindings {
namespace {

// What a token of a completion queue waits for, as it is taken back.
struct Watched {
  TaskId stream;        // nil: an object
  uint64_t number = 0;  // of its callback; 0: not known yet
};

// The tokens of a completion queue, and an eventfd that is readable while some wait. Shared with the callbacks, which may outlive the Python object.
class EventQueueState {
 public:
  explicit EventQueueState(int fd) : fd_(fd) {}
  // Before the callback of `token` can run.
  void Expect(uint64_t token) {
    std::lock_guard lock(mu_);
    if (!closed_) watched_.try_emplace(token);
  }
  // False: the token has come, or was given up.
  bool Registered(uint64_t token, const Watched& watched) {
    std::lock_guard lock(mu_);
    const auto it = watched_.find(token);
    if (it == watched_.end()) return false;
    it->second = watched;
    return true;
  }
  void Add(uint64_t token) {
    std::lock_guard lock(mu_);
    if (watched_.erase(token) == 0) return;
    tokens_.push_back(token);
    if (tokens_.size() == 1) Signal();
  }
  // The token does not come any more. False: it has come, or was given up before.
  bool GiveUp(uint64_t token, Watched* watched) {
    std::lock_guard lock(mu_);
    const auto it = watched_.find(token);
    if (it == watched_.end()) return false;
    *watched = it->second;
    watched_.erase(it);
    return true;
  }
  std::vector<uint64_t> Drain() {
    std::lock_guard lock(mu_);
    uint64_t count;
    if (!closed_ && ::read(fd_, &count, sizeof count) < 0) count = 0;  // nothing to read is fine
    return std::exchange(tokens_, {});
  }
  std::vector<uint64_t> WaitDrain(int64_t timeout_ms) {
    {
      std::lock_guard lock(mu_);
      if (closed_) return {};
    }
    pollfd p{fd_, POLLIN, 0};
    ::poll(&p, 1, timeout_ms < 0 ? -1 : static_cast<int>(std::min<int64_t>(timeout_ms, INT32_MAX)));
    return Drain();
  }
  // What is to be taken back.
  std::unordered_map<uint64_t, Watched> Close() {
    std::lock_guard lock(mu_);
    closed_ = true;
    tokens_.clear();
    Signal();  // and stays readable: every waiter leaves
    return std::exchange(watched_, {});
  }
  // REQUIRES: closed, and nobody waits.
  void CloseFd() {
    std::lock_guard lock(mu_);
    ::close(std::exchange(fd_, -1));
  }
  int fd() const { return fd_; }

 private:
  void Signal() {
    uint64_t one = 1;
    if (::write(fd_, &one, sizeof one) < 0) return;  // full: readable anyway
  }
  int fd_;  // constant until CloseFd
  std::mutex mu_;
  std::vector<uint64_t> tokens_;
  std::unordered_map<uint64_t, Watched> watched_;  // tokens still to come
  bool closed_ = false;
};

class EventfdQueue final : public CompletionQueue {
 public:
  // `worker` outlives it.
  EventfdQueue(core::CoreWorker* worker, int fd) : worker_(*worker), state_(std::make_shared<EventQueueState>(fd)) {}
  ~EventfdQueue() override {
    Close();
    state_->CloseFd();
  }
  int fd() const override { return state_->fd(); }
  void WatchObject(const Ref& ref, uint64_t token) override {
    state_->Expect(token);
    Note(token, {TaskId::Nil(), worker_.objects().WatchObject(ref, [state = state_, token] { state->Add(token); })});
  }
  void WatchGenerator(const ObjectId& generator_id, uint64_t token) override {
    state_->Expect(token);
    const TaskId stream = generator_id.task_id();
    Note(token, {stream, worker_.streams().OnNext(stream, [state = state_, token] { state->Add(token); })});
  }
  void Unwatch(uint64_t token) override {
    Watched watched;
    if (state_->GiveUp(token, &watched)) TakeBack(watched);
  }
  std::vector<uint64_t> Drain() override { return state_->Drain(); }
  std::vector<uint64_t> WaitDrain(int64_t timeout_ms) override { return state_->WaitDrain(timeout_ms); }
  void Close() override {
    for (const auto& [token, watched] : state_->Close()) TakeBack(watched);
  }

 private:
  void Note(uint64_t token, const Watched& watched) {
    if (watched.number != 0 && !state_->Registered(token, watched)) TakeBack(watched);
  }
  void TakeBack(const Watched& watched) {
    if (watched.stream.IsNil()) {
      worker_.objects().Unwatch(watched.number);
    } else {
      worker_.streams().Cancel(watched.stream, watched.number);
    }
  }

  core::CoreWorker& worker_;
  const std::shared_ptr<EventQueueState> state_;
};

}  // namespace

Status MakeCompletionQueue(core::CoreWorker* worker, std::unique_ptr<CompletionQueue>* out) {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) return Status::FromErrno(errno, "no descriptor for a completion queue");
  *out = std::make_unique<EventfdQueue>(worker, fd);
  return Status::Ok();
}

}  // namespace ray::bindings
