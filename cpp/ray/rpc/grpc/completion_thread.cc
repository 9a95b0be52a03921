#include "ray/rpc/grpc/completion_thread.h"

#include <pthread.h>

#include "ray/util/check.h"
#include "ray/util/signals.h"

namespace ray::rpc {

CompletionThread::CompletionThread(std::unique_ptr<grpc::CompletionQueue> queue, const char* name) : queue_(std::move(queue)) {
  ScopedBlockSignals block;
  thread_ = std::thread([this, name] {
    pthread_setname_np(pthread_self(), name);
    Run();
  });
}

CompletionThread::~CompletionThread() { RAY_CHECK(!thread_.joinable()) << "completion thread not stopped"; }

void CompletionThread::Run() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
    std::unique_ptr<std::function<void(bool)>> done(static_cast<std::function<void(bool)>*>(tag));
    (*done)(ok);
  }
}

bool CompletionThread::Join(std::shared_ptr<Member> member) {
  MutexLock lock(&mu_);
  if (!stopping_) members_.insert(std::move(member));
  return !stopping_;
}

void CompletionThread::Leave(const std::shared_ptr<Member>& member) {
  MutexLock lock(&mu_);
  members_.erase(member);
}

void CompletionThread::Stop(const std::function<void()>& between) {
  std::set<std::shared_ptr<Member>> members;
  {
    MutexLock lock(&mu_);
    if (stopping_) return;
    stopping_ = true;
    members.swap(members_);
  }
  for (const auto& member : members) member->Abort();
  members.clear();
  if (between) between();
  queue_->Shutdown();
  thread_.join();
}

}  // namespace ray::rpc
