// TestPromise: a std::promise that the thread which waits for it may destroy at once.
//
// A std::promise must outlive set_value, which is still inside when the waiter goes on; one on a test's stack does not. Here the setter holds
// the shared state until it is done; copies share it. For tests and benchmarks only. Set by one thread, awaited by another.
// RunOnLoop: what tests do to objects that live on a loop.
#pragma once

#include <future>
#include <memory>
#include <type_traits>
#include <utility>

namespace ray {

template <typename T>
class TestPromise {
 public:
  // At most once.
  void set_value() const requires std::is_void_v<T> {
    const std::shared_ptr<std::promise<T>> state = state_;
    state->set_value();
  }
  template <typename Value = T>  // so that braces make a T
  void set_value(Value value) const requires(!std::is_void_v<T>) {
    const std::shared_ptr<std::promise<T>> state = state_;
    state->set_value(std::move(value));
  }
  // At most once.
  std::future<T> get_future() const { return state_->get_future(); }

 private:
  const std::shared_ptr<std::promise<T>> state_ = std::make_shared<std::promise<T>>();
};

// Runs `fn` on the loop's thread, and returns when it has run. REQUIRES: the loop is started, and this is another thread.
template <typename Loop, typename F>
void RunOnLoop(Loop* loop, F fn) {
  const TestPromise<void> done;
  std::future<void> future = done.get_future();
  loop->Post("test", [&fn, done] {
    fn();
    done.set_value();
  });
  future.wait();
}

}  // namespace ray
