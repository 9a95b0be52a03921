// TickTimer: wakes a core when its next deadline is due. The shell arms it after every event of the core.
//
// Confined to its loop. Nothing fires after Cancel or the destructor.
#pragma once

#include <algorithm>
#include <functional>
#include <utility>

#include "ray/async/loop.h"

namespace ray::async {

class TickTimer {
 public:
  // `tick` runs on the loop, and arms again if the core has another deadline. `loop` must outlive it.
  TickTimer(Loop* loop, std::function<void()> tick) : loop_(loop), tick_(std::move(tick)) {}
  ~TickTimer() { Cancel(); }
  TickTimer(const TickTimer&) = delete;
  TickTimer& operator=(const TickTimer&) = delete;

  // A tick comes at `next` at the latest. One that is to come earlier stays: it does no harm.
  void Arm(Time next) {
    if (next >= due_) return;
    if (timer_ != 0) loop_->CancelTimer(timer_);
    due_ = next;
    timer_ = loop_->AddTimer(std::max(next - loop_->clock().Now(), Duration::zero()), [this] {
      timer_ = 0;
      due_ = Time::Infinite();
      tick_();
    });
  }

  void Cancel() {
    if (timer_ != 0) loop_->CancelTimer(std::exchange(timer_, 0));
    due_ = Time::Infinite();
  }

 private:
  Loop* const loop_;
  const std::function<void()> tick_;
  TimerId timer_ = 0;
  Time due_ = Time::Infinite();
};

}  // namespace ray::async
