// std::mutex and a condition variable with clang's thread-safety annotations (checked where clang builds us).
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define RAY_TSA_(x) __attribute__((x))
#else
#define RAY_TSA_(x)
#endif
// abseil, which gRPC's headers bring along, defines these two the same way.
#undef GUARDED_BY
#undef NO_THREAD_SAFETY_ANALYSIS
#define CAPABILITY(x) RAY_TSA_(capability(x))
#define SCOPED_CAPABILITY RAY_TSA_(scoped_lockable)
#define GUARDED_BY(x) RAY_TSA_(guarded_by(x))
#define REQUIRES(...) RAY_TSA_(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) RAY_TSA_(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) RAY_TSA_(acquire_capability(__VA_ARGS__))
#define RELEASE(...) RAY_TSA_(release_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS RAY_TSA_(no_thread_safety_analysis)

namespace ray {

class CAPABILITY("mutex") Mutex {
 public:
  void Lock() ACQUIRE() { mu_.lock(); }
  void Unlock() RELEASE() { mu_.unlock(); }
  bool TryLock() RAY_TSA_(try_acquire_capability(true)) { return mu_.try_lock(); }
  std::mutex& native() { return mu_; }

 private:
  std::mutex mu_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex* mu) ACQUIRE(mu) : mu_(mu) { mu_->Lock(); }
  ~MutexLock() RELEASE() { mu_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* mu_;
};

}  // namespace ray
