// Replays tests/scenarios/spill. Objects are numbers; the time goes on by `after`. The events:
//   config folders= file-bytes= file-objects= attempts=    the first, if any
//   spill OBJECT at= size=    flush    restore OBJECT at=    forget OBJECT
//   written FILE [failed|full]    read READ [failed]    after TIME
#include <gtest/gtest.h>

#include <memory>
#include <sstream>

#include "ray/common/errors.h"
#include "ray/object_manager/spill/spill_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::object_manager {
namespace {

using testing::GoldenEvent;

ObjectId Id(uint64_t i) { return ObjectId::Of(TaskId(), static_cast<uint32_t>(i)); }

std::string StatusText(const Status& status) {
  if (status.ok()) return "";
  const bool full = status.cause() == static_cast<int32_t>(ErrorType::kOutOfDisk);
  return std::string(full ? " out of disk: " : " failed: ") + status.message();
}

struct Show {
  std::ostringstream& os;
  void operator()(const WriteFile& e) {
    os << "write file " << e.file << " to folder " << e.directory << ":";
    for (const MemoryRange& range : e.ranges) os << " " << range.offset << "+" << range.size;
  }
  void operator()(const ReadRange& e) {
    os << "read " << e.read << " of file " << e.file << " in folder " << e.directory << ": " << e.offset << "+" << e.to.size << " to "
       << e.to.segment << ":" << e.to.offset;
  }
  void operator()(const DeleteFile& e) { os << "delete file " << e.file << " in folder " << e.directory; }
  void operator()(const Spilled& e) { os << "spilled " << e.id.index() << StatusText(e.status); }
  void operator()(const Restored& e) { os << "restored " << e.id.index() << StatusText(e.status); }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    if (core_ == nullptr || event.name() == "config") {
      SpillConfig config;
      if (event.name() == "config") {
        config.num_directories = static_cast<int>(event.Number("folders", 1));
        config.max_file_bytes = event.Number("file-bytes", config.max_file_bytes);
        config.max_file_objects = event.Number("file-objects", config.max_file_objects);
        config.read_attempts = static_cast<int>(event.Number("attempts", 3));
      }
      core_ = std::make_shared<SpillCore>(config);
      if (event.name() == "config") return {};
    }
    SpillEffects effects;
    Carry(event, &effects);
    return testing::EffectLines<Show>(effects);
  }

 private:
  void Carry(const GoldenEvent& event, SpillEffects* out) {
    const std::string& name = event.name();
    Status status;
    if (event.Has("failed")) status = Status::Internal("it failed");
    if (event.Has("full")) status = Status(StatusCode::kResourceExhausted, "it is full", static_cast<int32_t>(ErrorType::kOutOfDisk));
    if (name == "spill") {
      core_->Spill(Id(event.Number(0)), event.Number("at", 0), event.Number("size", 0));
    } else if (name == "flush") {
      core_->Flush(now_, out);
    } else if (name == "restore") {
      core_->Restore(Id(event.Number(0)), event.Number("segment", 0), event.Number("at", 0), out);
    } else if (name == "forget") {
      core_->Forget(Id(event.Number(0)), out);
    } else if (name == "written") {
      core_->OnWritten(event.Number(0), status, now_, out);
    } else if (name == "read") {
      core_->OnRead(event.Number(0), status, out);
    } else if (name == "after") {
      now_ = now_ + event.Span(0);
    } else {
      event.Fail("no such event: " + name);
    }
  }

  std::shared_ptr<SpillCore> core_;
  Time now_{1};
};

TEST(SpillGoldenTest, Scenarios) {
  testing::ReplayGoldens("spill", [] { return Replay(); });
}

}  // namespace
}  // namespace ray::object_manager
