// CompletionThread: a gRPC completion queue and the thread that serves it. Inside rpc/grpc only.
//
// gRPC aborts the process if an operation is started on a queue that was shut down. So everyone who starts operations is a Member, which promises
// to start none after Abort has returned; Stop aborts all members, then shuts the queue down and waits until it is empty.
#pragma once

#include <grpcpp/completion_queue.h>

#include <functional>
#include <memory>
#include <set>
#include <thread>

#include "ray/util/mutex.h"

namespace ray::rpc {

class CompletionThread {
 public:
  class Member {
   public:
    virtual ~Member() = default;
    // Starts no operation after the call returns, and gives up the gRPC call as soon as the operations under way are done. Any thread.
    virtual void Abort() = 0;
  };

  CompletionThread(std::unique_ptr<grpc::CompletionQueue> queue, const char* name);
  ~CompletionThread();  // REQUIRES: stopped

  grpc::CompletionQueue* queue() { return queue_.get(); }
  // What to pass as the tag of an operation: `done(ok)` runs once on this thread when it completes. Must be passed to exactly one operation.
  static void* Tag(std::function<void(bool ok)> done) { return new std::function<void(bool)>(std::move(done)); }
  // False once stopping: then the member must start no operation.
  bool Join(std::shared_ptr<Member> member) EXCLUDES(mu_);
  void Leave(const std::shared_ptr<Member>& member) EXCLUDES(mu_);
  // `between` runs after the members were aborted and before the queue is shut down. Idempotent. Not from this thread.
  void Stop(const std::function<void()>& between = nullptr) EXCLUDES(mu_);

 private:
  void Run();

  std::unique_ptr<grpc::CompletionQueue> queue_;
  Mutex mu_;
  bool stopping_ GUARDED_BY(mu_) = false;
  std::set<std::shared_ptr<Member>> members_ GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace ray::rpc
