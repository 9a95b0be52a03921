#include "ray/rpc/core/pending_calls.h"

#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

namespace ray::rpc {

// Slots are reused; a call id is generation << 32 | slot + 1, so that a late reply finds nobody.
struct PendingCalls::State : std::enable_shared_from_this<PendingCalls::State> {
  struct Slot {
    ReplyCallback callback;
    std::shared_ptr<Landing> landing;
    uint32_t generation = 0;
    bool used = false;
  };
  struct Deadline {
    int64_t due;
    uint64_t call_id;
    bool operator<(const Deadline& other) const { return due > other.due; }  // the heap's top is the earliest
  };

  explicit State(async::Loop* loop) : loop(loop) {}

  async::Loop* const loop;
  std::mutex mu;
  std::vector<Slot> slots;
  std::vector<uint32_t> free_slots;
  size_t n_used = 0;
  std::vector<Deadline> deadlines;  // heap; entries of completed calls are dropped when they come up or outnumber the rest
  int64_t timer_due = INT64_MAX;    // of the earliest timer under way
  bool failed = false;
  Status reason;

  bool IsPendingLocked(uint64_t call_id) const {
    uint32_t slot = static_cast<uint32_t>(call_id) - 1;
    return slot < slots.size() && slots[slot].used && slots[slot].generation == call_id >> 32;
  }

  ReplyCallback TakeLocked(uint64_t call_id) {
    if (!IsPendingLocked(call_id)) return nullptr;
    uint32_t index = static_cast<uint32_t>(call_id) - 1;
    Slot& slot = slots[index];
    slot.used = false;
    slot.landing = nullptr;
    ++slot.generation;
    free_slots.push_back(index);
    --n_used;
    return std::exchange(slot.callback, nullptr);
  }

  // Returns whether a timer for `due` has to be started.
  bool AddDeadlineLocked(int64_t due, uint64_t call_id) {
    if (deadlines.size() > 2 * n_used + 1024) {
      std::erase_if(deadlines, [this](const Deadline& d) { return !IsPendingLocked(d.call_id); });
      std::make_heap(deadlines.begin(), deadlines.end());
    }
    deadlines.push_back({due, call_id});
    std::push_heap(deadlines.begin(), deadlines.end());
    if (due >= timer_due) return false;
    timer_due = due;
    return true;
  }

  void StartTimer(int64_t due) {
    Duration delay(std::max<int64_t>(0, due - loop->clock().Now().ns));
    loop->AddTimer(delay, [weak = weak_from_this(), due] {
      if (auto self = weak.lock()) self->OnTimer(due);
    });
  }

  void OnTimer(int64_t due) {
    std::vector<ReplyCallback> expired;
    int64_t next = INT64_MAX;
    {
      std::lock_guard lock(mu);
      if (due == timer_due) timer_due = INT64_MAX;
      int64_t now = loop->clock().Now().ns;
      while (!deadlines.empty()) {
        Deadline top = deadlines.front();
        bool pending = IsPendingLocked(top.call_id);
        if (pending && top.due > now) break;
        std::pop_heap(deadlines.begin(), deadlines.end());
        deadlines.pop_back();
        if (pending) expired.push_back(TakeLocked(top.call_id));
      }
      if (!deadlines.empty() && deadlines.front().due < timer_due) next = timer_due = deadlines.front().due;
    }
    if (next != INT64_MAX) StartTimer(next);
    for (ReplyCallback& callback : expired) callback(Status::DeadlineExceeded("no reply in time"), {});
  }
};

PendingCalls::PendingCalls(async::Loop* loop) : state_(std::make_shared<State>(loop)) {}
PendingCalls::~PendingCalls() = default;

uint64_t PendingCalls::Add(ReplyCallback callback, Duration timeout, std::shared_ptr<Landing> landing) {
  State& s = *state_;
  int64_t due = timeout > Duration::zero() ? (s.loop->clock().Now() + timeout).ns : 0;
  bool start_timer = false;
  uint64_t call_id = 0;
  {
    std::lock_guard lock(s.mu);
    if (!s.failed) {
      uint32_t index;
      if (s.free_slots.empty()) {
        index = static_cast<uint32_t>(s.slots.size());
        s.slots.emplace_back();
      } else {
        index = s.free_slots.back();
        s.free_slots.pop_back();
      }
      State::Slot& slot = s.slots[index];
      slot.callback = std::move(callback);
      slot.landing = std::move(landing);
      slot.used = true;
      ++s.n_used;
      call_id = uint64_t{slot.generation} << 32 | (index + 1);
      if (due != 0) start_timer = s.AddDeadlineLocked(due, call_id);
    }
  }
  if (call_id == 0) {
    s.loop->Post("call on a closed connection", [callback = std::move(callback), reason = s.reason] { callback(reason, {}); });
  } else if (start_timer) {
    s.StartTimer(due);
  }
  return call_id;
}

std::shared_ptr<Landing> PendingCalls::LandingOf(uint64_t call_id) const {
  std::lock_guard lock(state_->mu);
  return state_->IsPendingLocked(call_id) ? state_->slots[static_cast<uint32_t>(call_id) - 1].landing : nullptr;
}

void PendingCalls::FailLater(uint64_t call_id, Status status) {
  ReplyCallback callback;
  {
    std::lock_guard lock(state_->mu);
    callback = state_->TakeLocked(call_id);
  }
  if (callback) {
    state_->loop->Post("call that was not sent", [callback = std::move(callback), status = std::move(status)] { callback(status, {}); });
  }
}

bool PendingCalls::Complete(uint64_t call_id, Status status, Reply reply) {
  ReplyCallback callback;
  {
    std::lock_guard lock(state_->mu);
    callback = state_->TakeLocked(call_id);
  }
  if (!callback) return false;
  callback(std::move(status), std::move(reply));
  return true;
}

void PendingCalls::FailAll(const Status& reason) {
  std::vector<ReplyCallback> callbacks;
  {
    std::lock_guard lock(state_->mu);
    if (state_->failed) return;
    state_->failed = true;
    state_->reason = reason;
    for (State::Slot& slot : state_->slots) {
      if (slot.used) callbacks.push_back(std::move(slot.callback));
    }
    state_->slots.clear();
    state_->free_slots.clear();
    state_->deadlines.clear();
    state_->n_used = 0;
  }
  for (ReplyCallback& callback : callbacks) callback(reason, {});
}

void PendingCalls::Drop() {
  std::vector<State::Slot> dropped;  // destroyed without the lock
  std::lock_guard lock(state_->mu);
  dropped.swap(state_->slots);
  state_->free_slots.clear();
  state_->deadlines.clear();
  state_->n_used = 0;
  state_->failed = true;
}

size_t PendingCalls::size() const {
  std::lock_guard lock(state_->mu);
  return state_->n_used;
}

void DeliverFrame(const FrameHeader& header, std::string_view control, PartList parts, int fd, const ConnectionPtr& connection,
                  const Dispatcher& dispatcher, PendingCalls* calls) {
  auto method = static_cast<MethodId>(header.method);
  switch (header.kind) {
    case FrameKind::kReply: calls->Complete(header.call_id, {}, Reply(control, std::move(parts), fd)); return;
    case FrameKind::kError: calls->Complete(header.call_id, DecodeError(control), {}); break;
    case FrameKind::kRequest:
      dispatcher.Dispatch(Request{method, control, std::move(parts), connection, false}, Responder(connection, method, header.call_id));
      break;
    case FrameKind::kNotify: dispatcher.Dispatch(Request{method, control, std::move(parts), connection, true}, Responder()); break;
  }
  if (fd >= 0) ::close(fd);  // only replies carry descriptors
}

}  // namespace ray::rpc
