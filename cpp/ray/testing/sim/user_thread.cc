#include "ray/testing/sim/user_thread.h"

#include <utility>

#include "ray/testing/sim/world.h"
#include "ray/util/check.h"

namespace ray::sim {
namespace {

thread_local UserThread* current = nullptr;

}  // namespace

UserThread::UserThread(World* world, Process* process, std::function<void()> body)
    : world_(world), process_(process), body_(std::move(body)), thread_([this] { Main(); }) {}

UserThread::~UserThread() {
  RAY_CHECK(ended_) << "a user thread is destroyed while it runs";
  thread_.join();
}

UserThread* UserThread::Current() { return current; }

void UserThread::Main() {
  turn_.acquire();
  current = this;
  const ScopedRandomSource ids = world_->ShareIds();
  try {
    if (!unwinding_) body_();
  } catch (const Unwinding&) {
  }
  body_ = nullptr;
  ended_ = true;
  done_.release();
}

void UserThread::TakeTurn() {
  RAY_CHECK(current == nullptr) << "a user thread cannot let another run";
  turn_.release();
  done_.acquire();
}

void UserThread::Resume() {
  RAY_CHECK(!ended_);
  world_->BeginUserCode(process_);
  TakeTurn();
  world_->BeginUserCode(nullptr);
}

void UserThread::Unwind() {
  unwinding_ = true;
  if (!ended_) TakeTurn();
  RAY_CHECK(ended_) << "a user thread waits though its process is dead";
}

void UserThread::Park() {
  RAY_CHECK(current == this);
  if (!unwinding_) {
    done_.release();
    turn_.acquire();
  }
  if (unwinding_) throw Unwinding{};
}

}  // namespace ray::sim
