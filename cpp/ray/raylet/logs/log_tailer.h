// LogTailer: passes on what workers print. It watches the log directory and reads what is appended to the files of registered workers.
//
// Reading is lazy and bounded: a burst of prints is picked up once per `coalesce`, and no file gets more than kMaxRead bytes a turn, so a
// worker that prints without end slows only its own lines. A worker rotates its files itself, by renaming x to x.1, x.1 to x.2 and so on; the
// tailer reads on in the renamed file to its end and then in the next younger one. On the loop only; owned by Raylet.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "ray/async/loop.h"
#include "ray/common/ids.h"
#include "ray/raylet/logs/line_splitter.h"

namespace ray::raylet {

struct WorkerLines {
  JobId job;
  int64_t pid;
  bool is_stderr;
  LineSplitter::Batch batch;
};

// "worker-<id>-<job>-<pid>", without the ending ".out" or ".err".
std::string WorkerLogName(const WorkerId& worker, const JobId& job, int64_t pid);

class LogTailer {
 public:
  static constexpr size_t kMaxRead = 256 << 10;
  using Sink = std::function<void(WorkerLines lines)>;
  // `sink` is called on the loop, in the order of each file.
  static Result<std::unique_ptr<LogTailer>> Make(std::string log_dir, async::EpollLoop* loop, Duration coalesce, Sink sink);
  ~LogTailer();

  void Track(const WorkerId& worker, const JobId& job, int64_t pid);
  // Passes on all that is there now.
  void Drain(const WorkerId& worker);
  void DrainJob(const JobId& job);
  // Drains, a last line without an end included, and forgets the worker.
  void Untrack(const WorkerId& worker);

 private:
  struct File {
    std::string name;
    JobId job;
    int64_t pid = 0;
    bool is_stderr = false;
    int fd = -1;           // opened when first written to
    bool rotated = false;  // a younger file was there at the last turn
    LineSplitter splitter;
  };
  LogTailer(std::string log_dir, async::EpollLoop* loop, Duration coalesce, Sink sink);
  Status Watch();
  void OnEvents();
  void Turn();
  // False when the end of the file was reached.
  bool ReadSome(File* file, size_t limit);
  // Opens the first file that is left of those which the worker began; -1: there is none.
  int OpenOldest(const File& file) const;
  // Opens the file that was begun after the one of `file`, if that was rotated; -1: it was not, or this cannot be told now.
  int OpenYounger(const File& file) const;
  // Goes on in the next younger file, if there is one. `last`: its writer is gone.
  bool Advance(File* file, bool last);
  void MarkDirty(File* file);

  const std::string dir_;
  async::EpollLoop* const loop_;
  const Duration coalesce_;
  const Sink sink_;
  int inotify_ = -1;
  async::TimerId timer_ = 0;
  std::map<WorkerId, std::array<std::unique_ptr<File>, 2>> workers_;
  std::map<std::string, File*, std::less<>> by_name_;
  std::set<File*> dirty_;
};

}  // namespace ray::raylet
