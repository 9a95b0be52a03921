#include "ray/core_worker/submit/actor_queue_core.h"

#include <algorithm>
#include <utility>

namespace ray::core {

void ActorQueueCore::Submit(CallNo no, bool ready, bool out_of_order, int32_t retries, bool charged, ActorEffects* out) {
  if (dead()) {
    out->push_back({ActorEffect::kFailDead, no});
    return;
  }
  Call call{no, retries, ready, out_of_order, charged};
  overtakers_ |= out_of_order;
  if (ready && Sends() && (waiting_.empty() || out_of_order)) {
    Send(call, out);
    return;
  }
  waiting_.push_back(call);
  if (ready) Drain(out);
}

void ActorQueueCore::Ready(CallNo no, ActorEffects* out) {
  auto it = std::find_if(waiting_.begin(), waiting_.end(), [&](const Call& c) { return c.no == no; });
  if (it == waiting_.end()) return;
  it->ready = true;
  if (Sends() && it->out_of_order && it != waiting_.begin()) {
    Call call = *it;
    waiting_.erase(it);
    Send(call, out);
    return;
  }
  Drain(out);
}

bool ActorQueueCore::Remove(CallNo no, ActorEffects* out) {
  auto it = std::find_if(waiting_.begin(), waiting_.end(), [&](const Call& c) { return c.no == no; });
  if (it != waiting_.end()) {
    waiting_.erase(it);
    Drain(out);
    return true;
  }
  if (std::erase_if(lost_, [&](const Call& c) { return c.no == no; }) > 0) return true;
  for (Call& call : in_flight_) {
    if (call.no == no) call.retries = 0;
  }
  return false;
}

std::optional<ActorQueueCore::CallPlace> ActorQueueCore::PlaceOf(CallNo no) const {
  CallPlace place;
  for (const Call& call : in_flight_) {
    if (call.no == no && !call.done) {
      place.sent = true;
      return place;
    }
    place.behind += call.done ? 0 : 1;
  }
  for (const auto* queue : {&lost_, &waiting_}) {
    for (const Call& call : *queue) {
      if (!call.ready && place.held_up_by == 0) place.held_up_by = call.no;
      if (call.no == no) return place;
      ++place.behind;
    }
  }
  return std::nullopt;
}

bool ActorQueueCore::Answered(uint64_t epoch, uint64_t sequence) {
  if (epoch != epoch_ || sequence < first_sequence_ || sequence - first_sequence_ >= in_flight_.size()) return false;
  Call& call = in_flight_[sequence - first_sequence_];
  if (call.done) return false;
  call.done = true;
  --in_flight_live_;
  while (!in_flight_.empty() && in_flight_.front().done) {
    in_flight_.pop_front();
    ++first_sequence_;
  }
  return true;
}

bool ActorQueueCore::OnAlive(uint64_t incarnation, bool moved, ActorEffects* out) {
  if (static_cast<int64_t>(incarnation) < told_alive_) return false;
  told_alive_ = static_cast<int64_t>(incarnation);
  if (dead() || incarnation < incarnation_) return true;
  // The same news twice, or of the connection that stands.
  if (phase_ == ActorPhase::kAlive && incarnation == incarnation_) return true;
  const bool next = incarnation == incarnation_ + 1;  // else there was a process in between of which nothing is known
  if (Defer({News::kAlive, incarnation, moved && next}, out)) return true;
  if (incarnation != incarnation_) moving_ = moved && next;
  incarnation_ = incarnation;
  phase_ = ActorPhase::kDisconnected;
  out->push_back({ActorEffect::kConnect});
  return true;
}

void ActorQueueCore::Connected(ActorEffects* out) {
  if (phase_ == ActorPhase::kDead || phase_ == ActorPhase::kAlive) return;
  ++epoch_;
  first_sequence_ = 0;
  phase_ = ActorPhase::kAlive;
  SettleLost(out);
  moving_ = false;
  Drain(out);
}

void ActorQueueCore::ConnectionLost(uint64_t epoch, ActorEffects* out) {
  if (phase_ != ActorPhase::kAlive || epoch != epoch_) return;
  const auto news = std::exchange(deferred_, std::nullopt);
  LoseInFlight();
  phase_ = ActorPhase::kDisconnected;
  if (!news) return;
  switch (news->kind) {
    case News::kAlive: OnAlive(news->incarnation, news->moved, out); break;
    case News::kRestarting: OnRestarting(news->incarnation, news->moved, out); break;
    case News::kDead: OnDead(out); break;
  }
}

bool ActorQueueCore::Defer(News news, ActorEffects* out) {
  if (phase_ != ActorPhase::kAlive) return false;
  if (in_flight_live_ == 0) {  // no answer can come
    LoseInFlight();
    return false;
  }
  if (deferred_ && news.kind != News::kDead &&
      (news.incarnation < deferred_->incarnation || (news.incarnation == deferred_->incarnation && news.kind == News::kRestarting)))
    return true;
  // A process that is moved has the time to finish what it runs.
  if (!news.moved && (!deferred_ || deferred_->moved)) out->push_back({ActorEffect::kAwaitEnd, 0, 0, epoch_});
  deferred_ = news;
  return true;
}

void ActorQueueCore::OnRestarting(uint64_t incarnation, bool moved, ActorEffects* out) {
  if (dead() || incarnation < incarnation_) return;
  const bool next = incarnation == incarnation_ + 1;
  if (phase_ == ActorPhase::kAlive && incarnation == incarnation_) return;
  if (Defer({News::kRestarting, incarnation, moved && next}, out)) return;
  if (incarnation != incarnation_) moving_ = moved && next;
  incarnation_ = incarnation;
  phase_ = ActorPhase::kRestarting;
  SettleLost(out);
  Drain(out);
}

void ActorQueueCore::OnDead(ActorEffects* out) {
  if (dead()) return;
  if (!Defer({News::kDead, incarnation_, false}, out)) phase_ = ActorPhase::kDead;
  for (auto* calls : {&lost_, &waiting_}) {
    for (const Call& call : *calls) out->push_back({ActorEffect::kFailDead, call.no});
    calls->clear();
  }
}

void ActorQueueCore::LoseInFlight() {
  for (const Call& call : in_flight_) {
    if (!call.done) lost_.push_back(call);
  }
  in_flight_.clear();
  in_flight_live_ = 0;
  deferred_.reset();
}

void ActorQueueCore::SettleLost(ActorEffects* out) {
  auto lost = std::move(lost_);
  lost_.clear();
  if (moving_) {  // none of them was begun
    waiting_.insert(waiting_.begin(), lost.begin(), lost.end());
    return;
  }
  for (auto it = lost.rbegin(); it != lost.rend(); ++it) {
    if (it->retries == 0) continue;
    if (it->retries > 0) --it->retries;
    it->retried = true;
    waiting_.push_front(*it);
  }
  // Effects in the order of the calls.
  size_t retried = 0;
  for (const Call& call : lost) {
    bool again = retried < waiting_.size() && waiting_[retried].no == call.no;
    out->push_back({again ? ActorEffect::kRetried : ActorEffect::kFailUnavailable, call.no});
    retried += again;
  }
}

void ActorQueueCore::Drain(ActorEffects* out) {
  if (Sends()) {
    while (!waiting_.empty() && waiting_.front().ready) {
      Call call = waiting_.front();
      waiting_.pop_front();
      Send(call, out);
    }
    // Behind one that waits, those that may overtake.
    for (size_t i = 1; overtakers_ && i < waiting_.size();) {
      if (waiting_[i].ready && waiting_[i].out_of_order) {
        Call call = waiting_[i];
        waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(i));
        Send(call, out);
      } else {
        ++i;
      }
    }
  } else if (phase_ == ActorPhase::kRestarting && !moving_ && static_cast<int64_t>(incarnation_) > ending_) {
    std::erase_if(waiting_, [&](const Call& call) {
      if (!call.ready || call.retries != 0 || call.retried) return false;
      out->push_back({ActorEffect::kFailUnavailable, call.no});
      return true;
    });
  }
}

void ActorQueueCore::Send(Call call, ActorEffects* out) {
  uint64_t sequence = first_sequence_ + in_flight_.size();
  in_flight_.push_back(call);
  ++in_flight_live_;
  out->push_back({ActorEffect::kSend, call.no, sequence, epoch_});
}

std::vector<CallNo> ActorQueueCore::Sent() const {
  std::vector<CallNo> sent;
  sent.reserve(in_flight_live_);
  for (const Call& call : in_flight_) {
    if (!call.done) sent.push_back(call.no);
  }
  return sent;
}

}  // namespace ray::core
