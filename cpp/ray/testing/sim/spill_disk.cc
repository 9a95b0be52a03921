#include "ray/testing/sim/spill_disk.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "ray/common/errors.h"
#include "ray/util/check.h"

namespace ray::sim {

using object_manager::MemoryFile;

void SimTasks::Add(std::function<void()> task) {
  if (stopped_) return;
  tasks_.push_back(std::move(task));
  Begin();
}

void SimTasks::Begin() {
  if (running_ != 0 || tasks_.empty()) return;
  World* world = process_->world();
  running_ = world->After(world->random().Between(min_take_, max_take_), [this] {
    running_ = 0;
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    task();
    Begin();
  });
}

void SimTasks::Stop() {
  stopped_ = true;
  process_->world()->Cancel(std::exchange(running_, 0));
  const auto dropped = std::exchange(tasks_, {});  // their ends may come back here
}

SimSpillDisk::SimSpillDisk(Process* process, SpillDiskConfig config)
    : process_(process), config_(config), reader_(process, config.min_take, config.max_take) {
  for (int i = 0; i < config.directories; ++i) writers_.push_back(std::make_unique<SimTasks>(process, config.min_take, config.max_take));
}

Status SimSpillDisk::AnyFailure() {
  Random& random = process_->world()->random();
  if (config_.write_fails <= 0 || !random.Chance(config_.write_fails)) return Status::Ok();
  if (random.Chance(0.5)) return Status::Internal("the disk failed");
  return Status(StatusCode::kResourceExhausted, "no space left", static_cast<int32_t>(ErrorType::kOutOfDisk));
}

void SimSpillDisk::Write(int directory, uint64_t file, std::vector<MemoryFile> ranges, Done done) {
  writers_[static_cast<size_t>(directory)]->Add([this, directory, file, ranges = std::move(ranges), done = std::move(done)] {
    if (Status failure = AnyFailure(); !failure.ok()) return done(failure);
    std::string bytes;
    for (const MemoryFile& range : ranges) {
      const size_t begin = bytes.size();
      bytes.resize(begin + range.size);
      RAY_CHECK(::pread(range.fd, bytes.data() + begin, range.size, static_cast<off_t>(range.offset)) == static_cast<ssize_t>(range.size));
    }
    RAY_CHECK(files_.emplace(std::pair(directory, file), std::move(bytes)).second) << "a file is written twice";
    ++files_written_;
    done(Status::Ok());
  });
}

void SimSpillDisk::Read(int directory, uint64_t file, uint64_t offset, MemoryFile to, Done done) {
  reader_.Add([this, directory, file, offset, to, done = std::move(done)] {
    if (config_.read_fails > 0 && process_->world()->random().Chance(config_.read_fails)) return done(Status::Internal("the disk failed"));
    const auto it = files_.find({directory, file});
    if (it == files_.end() || offset > it->second.size() || to.size > it->second.size() - offset)
      return done(Status::DataLoss("the file has not so many bytes"));
    RAY_CHECK(::pwrite(to.fd, it->second.data() + offset, to.size, static_cast<off_t>(to.offset)) == static_cast<ssize_t>(to.size));
    done(Status::Ok());
  });
}

void SimSpillDisk::Delete(int directory, uint64_t file) {
  reader_.Add([this, directory, file] { files_.erase({directory, file}); });
}

void SimSpillDisk::MakeSegment(uint64_t size, SegmentDone done) {
  reader_.Add([this, size, done = std::move(done)] {
    if (Status failure = AnyFailure(); !failure.ok()) return done(failure);
    const int fd = ::memfd_create("sim-segment", MFD_CLOEXEC);
    if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(size)) != 0) return done(Status::FromErrno(errno, "memory for a segment"));
    done(fd);
  });
}

void SimSpillDisk::Stop() {
  for (const auto& writer : writers_) writer->Stop();
  reader_.Stop();
  files_.clear();
}

}  // namespace ray::sim
