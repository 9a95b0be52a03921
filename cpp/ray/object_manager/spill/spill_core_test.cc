#include "ray/object_manager/spill/spill_core.h"

#include <gtest/gtest.h>

#include <sstream>

#include "ray/common/errors.h"

namespace ray::object_manager {
namespace {

ObjectId Id(uint32_t i) { return ObjectId::Of(TaskId(), i); }
const Status kBroken = Status::Internal("broken");
const Status kFull(StatusCode::kResourceExhausted, "full", static_cast<int32_t>(ErrorType::kOutOfDisk));

// Shows effects as text: "write 1@0 [0+10 10+20]" is file 1 in directory 0 of two ranges.
class SpillCoreTest : public ::testing::Test {
 protected:
  std::string Show() {
    std::ostringstream os;
    for (const SpillEffect& effect : effects_) {
      if (os.tellp() > 0) os << "; ";
      if (auto* e = std::get_if<WriteFile>(&effect)) {
        os << "write " << e->file << "@" << e->directory << " [";
        for (size_t i = 0; i < e->ranges.size(); ++i) os << (i ? " " : "") << e->ranges[i].offset << "+" << e->ranges[i].size;
        os << "]";
      } else if (auto* e = std::get_if<ReadRange>(&effect)) {
        os << "read " << e->read << " of " << e->file << "@" << e->directory << " " << e->offset << "+" << e->to.size << " to "
           << e->to.segment << ":" << e->to.offset;
      } else if (auto* e = std::get_if<DeleteFile>(&effect)) {
        os << "delete " << e->file << "@" << e->directory;
      } else if (auto* e = std::get_if<Spilled>(&effect)) {
        os << "spilled " << e->id.index() << (e->status.ok() ? "" : " " + e->status.message());
      } else if (auto* e = std::get_if<Restored>(&effect)) {
        os << "restored " << e->id.index() << (e->status.ok() ? "" : " " + e->status.message());
      }
    }
    effects_.clear();
    return os.str();
  }
  std::string Spill(const std::vector<std::pair<uint32_t, uint64_t>>& objects) {
    uint64_t offset = 0;
    for (auto [i, size] : objects) core_.Spill(Id(i), offset, size), offset += 1000;
    core_.Flush(now_, &effects_);
    return Show();
  }
  std::string Written(FileId file, const Status& status = {}) { return core_.OnWritten(file, status, now_, &effects_), Show(); }
  std::string Restore(uint32_t i, uint64_t offset) { return core_.Restore(Id(i), 0, offset, &effects_), Show(); }
  std::string OnRead(uint64_t read, const Status& status = {}) { return core_.OnRead(read, status, &effects_), Show(); }
  std::string Forget(uint32_t i) { return core_.Forget(Id(i), &effects_), Show(); }

  SpillCore core_{SpillConfig{.num_directories = 2, .max_file_bytes = 100, .max_file_objects = 3, .read_attempts = 2}};
  Time now_{1};
  SpillEffects effects_;
};

TEST_F(SpillCoreTest, FusesSmallObjectsOfAStepAndAlternatesDirectories) {
  EXPECT_EQ(Spill({{1, 10}, {2, 20}, {3, 5}, {4, 60}, {5, 50}, {6, 300}}),
            "write 1@0 [0+10 1000+20 2000+5]; write 2@1 [3000+60]; write 3@0 [4000+50]; write 4@1 [5000+300]");
  EXPECT_EQ(Written(1), "spilled 1; spilled 2; spilled 3");
  EXPECT_EQ(Restore(2, 777), "read 1 of 1@0 10+20 to 0:777");
  EXPECT_EQ(OnRead(1), "restored 2");
  EXPECT_EQ(Spill({}), "");
}

TEST_F(SpillCoreTest, AFileGoesWithTheLastOfItsObjects) {
  Spill({{1, 10}, {2, 20}});
  Written(1);
  EXPECT_EQ(Forget(1), "");
  EXPECT_EQ(Restore(2, 0), "read 1 of 1@0 10+20 to 0:0");
  EXPECT_EQ(OnRead(1), "restored 2");
  EXPECT_EQ(Forget(2), "delete 1@0");
  EXPECT_EQ(core_.num_files(), 0u);
}

TEST_F(SpillCoreTest, AFailedWriteIsTriedInEveryDirectory) {
  EXPECT_EQ(Spill({{1, 10}}), "write 1@0 [0+10]");
  EXPECT_EQ(Written(1, kBroken), "write 1@1 [0+10]");
  EXPECT_EQ(Written(1), "spilled 1");
  // The one that failed is shunned for a while.
  EXPECT_EQ(Spill({{2, 10}}), "write 2@1 [0+10]");
  EXPECT_EQ(Written(2, kFull), "write 2@0 [0+10]");
  EXPECT_EQ(Written(2, kBroken), "spilled 2 full");
  now_ = now_ + std::chrono::seconds(31);
  EXPECT_EQ(Spill({{2, 10}}), "write 3@1 [0+10]");
  EXPECT_EQ(Written(3), "spilled 2");
  EXPECT_EQ(Spill({{3, 10}}), "write 4@0 [0+10]");
  EXPECT_EQ(core_.num_files(), 3u);
}

TEST_F(SpillCoreTest, AFailedReadIsTriedAgain) {
  Spill({{1, 10}});
  Written(1);
  EXPECT_EQ(Restore(1, 5), "read 1 of 1@0 0+10 to 0:5");
  EXPECT_EQ(OnRead(1, kBroken), "read 1 of 1@0 0+10 to 0:5");
  EXPECT_EQ(OnRead(1, kBroken), "restored 1 broken");
  EXPECT_EQ(Restore(1, 6), "read 2 of 1@0 0+10 to 0:6");
  EXPECT_EQ(OnRead(2), "restored 1");
  EXPECT_EQ(Forget(1), "delete 1@0");
}

}  // namespace
}  // namespace ray::object_manager
