#include "ray/core_worker/tasks/generator_streams.h"

#include <algorithm>
#include <utility>

namespace ray::core {

void GeneratorStreams::Create(const TaskId& task, int64_t backpressure) {
  MutexLock lock(&mu_);
  streams_[task].limit = backpressure;
}

void GeneratorStreams::BeginReplay(const TaskId& task) {
  MutexLock lock(&mu_);
  replays_.emplace(task, Run());
}

void GeneratorStreams::EndReplay(const TaskId& task) {
  MutexLock lock(&mu_);
  if (!replays_.empty()) replays_.erase(task);
}

GeneratorStreams::Run* GeneratorStreams::RunOfLocked(const TaskId& task) {
  if (const auto replay = replays_.find(task); replay != replays_.end()) return &replay->second;
  const auto it = streams_.find(task);
  return it == streams_.end() ? nullptr : &it->second.run;
}

bool GeneratorStreams::IsOpen(const TaskId& task) {
  MutexLock lock(&mu_);
  const auto it = streams_.find(task);
  return it != streams_.end() && it->second.end < 0;
}

void GeneratorStreams::BeginAgain(const TaskId& task) {
  std::map<int64_t, std::function<void(Pace)>> withheld;
  {
    MutexLock lock(&mu_);
    Run* run = RunOfLocked(task);
    if (run == nullptr) return;
    run->again = run->attempt;
    if (auto it = streams_.find(task); it != streams_.end()) withheld.swap(it->second.withheld);
  }
  for (auto& [index, answer] : withheld) answer(Pace::kBeginAgain);
}

std::vector<std::function<void(Pace)>> GeneratorStreams::AllowedLocked(Stream& stream) {
  std::vector<std::function<void(Pace)>> allowed;
  while (!stream.withheld.empty() && (stream.limit < 0 || stream.arrived - stream.consumed < stream.limit)) {
    allowed.push_back(std::move(stream.withheld.begin()->second));
    stream.withheld.erase(stream.withheld.begin());
  }
  return allowed;
}

void GeneratorStreams::Report(const TaskId& task, int64_t index, ReturnValue item, std::function<void(Pace)> answer) {
  std::vector<Waiting> waiters;
  std::vector<std::function<void(Pace)>> allowed;
  bool consumed = true, stop = false, fresh = false, late = false, again = false;
  ObjectId id = ItemId(task, index);
  {
    MutexLock lock(&mu_);
    if (Run* run = RunOfLocked(task); run != nullptr) {
      run->attempt = std::max(run->attempt, item.attempt);
      again = item.attempt <= run->again;
    }
    auto it = streams_.find(task);
    if (it == streams_.end()) {
      consumed = false;
    } else {
      fresh = index == it->second.arrived && it->second.end < 0;
    }
  }
  item.id = id;
  if (!fresh) {
    // A later run tells what is known. It counts where the item is held: if it was lost, this is it again, else one more copy.
    if (objects_->references().Contains(id)) {
      objects_->StoreReturn(item);
    } else {
      objects_->Discard(item);
    }
    stop = !consumed && !held_behind_(id);
    answer(stop ? Pace::kStop : again ? Pace::kBeginAgain : Pace::kGoOn);
    return;
  }
  // The object is there before anybody can learn of it.
  objects_->AddOwned(std::span(&id, 1));
  objects_->StoreReturn(item);
  {
    MutexLock lock(&mu_);
    auto it = streams_.find(task);
    if (it == streams_.end()) {
      stop = true;
    } else {
      Stream& stream = it->second;
      late = stream.end >= 0;  // it failed meanwhile, and that took the place of this item
      if (!late) ++stream.arrived;
      again = item.attempt <= stream.run.again;  // it may have been lost already
      if (!again) stream.withheld[index] = std::move(answer);
      allowed = AllowedLocked(stream);
      waiters.swap(stream.waiters);
    }
  }
  if (stop) {
    objects_->RemoveLocalRef(id);
    answer(Pace::kStop);
    return;
  }
  if (late) objects_->RemoveLocalRef(id);
  for (auto& waiter : waiters) waiter.callback();
  for (auto& go : allowed) go(Pace::kGoOn);
  if (again) answer(Pace::kBeginAgain);
}

void GeneratorStreams::End(const TaskId& task, int64_t items) {
  std::vector<Waiting> waiters;
  {
    MutexLock lock(&mu_);
    auto it = streams_.find(task);
    if (it == streams_.end()) return;
    if (it->second.end >= 0) return;  // a later run
    // Reports travel before the answer on the same connection: all are here. Should one be missing, the stream ends before it.
    it->second.end = std::min(items, it->second.arrived);
    waiters.swap(it->second.waiters);
  }
  for (auto& waiter : waiters) waiter.callback();
}

void GeneratorStreams::Fail(const TaskId& task, int64_t, const ErrorValue& error) {
  int64_t index;
  {
    MutexLock lock(&mu_);
    auto it = streams_.find(task);
    if (it == streams_.end() || it->second.end >= 0) return;
    index = it->second.arrived;
  }
  ObjectId id = ItemId(task, index);
  objects_->AddOwned(std::span(&id, 1));
  objects_->StoreError(id, error.metadata, error.blob);
  std::vector<Waiting> waiters;
  bool gone = false;
  {
    MutexLock lock(&mu_);
    auto it = streams_.find(task);
    gone = it == streams_.end();
    if (!gone) {
      it->second.arrived = it->second.end = index + 1;
      waiters.swap(it->second.waiters);
    }
  }
  if (gone) objects_->RemoveLocalRef(id);
  for (auto& waiter : waiters) waiter.callback();
}

bool GeneratorStreams::TryNext(const TaskId& task, bool* end, ObjectId* item) {
  std::vector<std::function<void(Pace)>> allowed;
  *end = false;
  {
    MutexLock lock(&mu_);
    auto it = streams_.find(task);
    if (it == streams_.end()) {
      *end = true;
      return true;
    }
    Stream& stream = it->second;
    if (stream.consumed < stream.arrived) {
      *item = NextId(task, stream);
      ++stream.consumed;
      allowed = AllowedLocked(stream);
    } else if (stream.end >= 0) {
      *end = true;
      return true;
    } else {
      return false;
    }
  }
  for (auto& go : allowed) go(Pace::kGoOn);
  return true;
}

uint64_t GeneratorStreams::OnNext(const TaskId& task, std::function<void()> callback) {
  {
    MutexLock lock(&mu_);
    auto it = streams_.find(task);
    if (it != streams_.end() && it->second.consumed >= it->second.arrived && it->second.end < 0) {
      it->second.waiters.push_back({++last_number_, std::move(callback)});
      return last_number_;
    }
  }
  callback();
  return 0;
}

void GeneratorStreams::Cancel(const TaskId& task, uint64_t number) {
  std::function<void()> callback;  // dies outside the lock
  MutexLock lock(&mu_);
  auto it = streams_.find(task);
  if (it == streams_.end()) return;
  auto& waiters = it->second.waiters;
  const auto found = std::find_if(waiters.begin(), waiters.end(), [number](const Waiting& waiting) { return waiting.number == number; });
  if (found == waiters.end()) return;
  callback = std::move(found->callback);
  waiters.erase(found);
}

void GeneratorStreams::FailAll(const ErrorValue& error) {
  std::vector<TaskId> open;
  {
    MutexLock lock(&mu_);
    for (const auto& [task, stream] : streams_) {
      if (stream.end < 0) open.push_back(task);
    }
  }
  for (const TaskId& task : open) Fail(task, -1, error);
}

void GeneratorStreams::Release(const TaskId& task) {
  Stream stream;
  {
    MutexLock lock(&mu_);
    auto it = streams_.find(task);
    if (it == streams_.end()) return;
    stream = std::move(it->second);
    streams_.erase(it);
  }
  for (int64_t i = stream.consumed; i < stream.arrived; ++i) objects_->RemoveLocalRef(ItemId(task, i));
  for (auto& [index, answer] : stream.withheld) answer(Pace::kStop);
  for (auto& waiter : stream.waiters) waiter.callback();
}

}  // namespace ray::core
