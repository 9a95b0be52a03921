// Signals as our executables use them: as descriptors in the event loop, never as handlers that do work.
#pragma once

#include <initializer_list>

#include "ray/util/status.h"

namespace ray {

// A write to a closed socket gives EPIPE from now on instead of ending the process.
void IgnoreSigPipe();

// Blocks `signals` in the calling thread (and in threads it starts later) and returns a descriptor that is readable when one is pending.
// Call it before any thread is started. The caller closes the descriptor.
Result<int> OpenSignalFd(std::initializer_list<int> signals);
// The next pending signal of such a descriptor; 0 when there is none.
int ReadSignalFd(int fd);

// SIGSEGV, SIGBUS, SIGFPE and SIGILL write the signal and the stack to stderr before they end the process as usual.
void InstallCrashReport();

// Blocks all signals in this thread while it lives, so that a thread started meanwhile never gets one: user code's handlers run in the main thread.
class ScopedBlockSignals {
 public:
  ScopedBlockSignals();
  ~ScopedBlockSignals();
  ScopedBlockSignals(const ScopedBlockSignals&) = delete;
  ScopedBlockSignals& operator=(const ScopedBlockSignals&) = delete;

 private:
  alignas(16) unsigned char old_[128];  // a sigset_t
};

}  // namespace ray
