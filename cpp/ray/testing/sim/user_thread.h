// UserThread: a thread of a simulated process for what users write: straight code that calls, waits and sleeps. It is a thread of the operating system, so that
// the product's thread-local state, sanitizers and debuggers see what they know, and it takes turns with the World: while it runs the World stands, and no time
// passes, until it waits (SimLoop::Wait) or ends. So one thread runs at any moment, and the order of all that happens is the World's.
//
// A process that dies takes its threads with it: what they wait for ends with the exception Unwinding, which nobody else catches, so that what their stacks hold
// is released. No destructor on them may wait.
#pragma once

#include <functional>
#include <semaphore>
#include <thread>

namespace ray::sim {

class Process;
class World;

class UserThread {
 public:
  struct Unwinding {};

  // Runs `body` from the first Resume on.
  UserThread(World* world, Process* process, std::function<void()> body);
  ~UserThread();  // REQUIRES: ended
  UserThread(const UserThread&) = delete;
  UserThread& operator=(const UserThread&) = delete;

  // The one that calls; null: the World's.
  static UserThread* Current();
  Process* process() const { return process_; }

  // By the World, off every loop. It runs until it waits, or ends.
  void Resume();
  bool ended() const { return ended_; }
  // By the World: the process is dead. It has ended when this returns.
  void Unwind();
  // On the thread: the World goes on, until the next Resume. Throws Unwinding.
  void Park();

 private:
  void Main();
  void TakeTurn();

  World* const world_;
  Process* const process_;
  std::function<void()> body_;
  std::binary_semaphore turn_{0}, done_{0};
  bool ended_ = false, unwinding_ = false;
  std::thread thread_;
};

}  // namespace ray::sim
