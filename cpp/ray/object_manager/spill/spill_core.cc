#include "ray/object_manager/spill/spill_core.h"

#include <algorithm>
#include <utility>

#include "ray/common/errors.h"
#include "ray/util/check.h"

namespace ray::object_manager {

SpillCore::SpillCore(const SpillConfig& config)
    : config_(config), shunned_until_(static_cast<size_t>(config.num_directories), Time{INT64_MIN}) {
  RAY_CHECK(config.num_directories > 0);
}

void SpillCore::Spill(const ObjectId& id, uint64_t offset, uint64_t size) { added_.push_back({id, offset, size}); }

void SpillCore::Flush(Time now, SpillEffects* out) {
  std::vector<Piece> pieces;
  uint64_t bytes = 0;
  auto write = [&] {
    if (pieces.empty()) return;
    File& file = files_[++last_file_];
    file.pieces = std::exchange(pieces, {});
    file.tried.resize(shunned_until_.size());
    bytes = 0;
    Write(last_file_, &file, now, out);
  };
  for (Piece& piece : std::exchange(added_, {})) {
    if (bytes + piece.size > config_.max_file_bytes || pieces.size() >= config_.max_file_objects) write();
    bytes += piece.size;
    pieces.push_back(piece);
  }
  write();
}

void SpillCore::Write(FileId id, File* file, Time now, SpillEffects* out) {
  // The next in turn of those not tried; one that failed lately only if there is no other.
  const int n = config_.num_directories;
  int choice = -1;
  for (int i = 0; i < n; ++i) {
    const int directory = (next_directory_ + i) % n;
    const auto at = static_cast<size_t>(directory);
    if (file->tried[at]) continue;
    if (choice < 0 || (shunned_until_[static_cast<size_t>(choice)] > now && shunned_until_[at] <= now)) choice = directory;
  }
  RAY_CHECK(choice >= 0);
  file->directory = choice;
  file->tried[static_cast<size_t>(choice)] = true;
  next_directory_ = (choice + 1) % n;
  WriteFile effect{id, choice, {}};
  effect.ranges.reserve(file->pieces.size());
  for (const Piece& piece : file->pieces) effect.ranges.push_back({0, piece.offset, piece.size});
  out->push_back(std::move(effect));
}

void SpillCore::OnWritten(FileId id, const Status& status, Time now, SpillEffects* out) {
  auto it = files_.find(id);
  RAY_CHECK(it != files_.end() && !it->second.pieces.empty());
  File& file = it->second;
  if (!status.ok()) {
    shunned_until_[static_cast<size_t>(file.directory)] = now + config_.shun_directory;
    // A full disk is what the user can do something about: it wins over other failures.
    if (file.failure.ok() || status.cause() == static_cast<int32_t>(ErrorType::kOutOfDisk)) file.failure = status;
    if (std::find(file.tried.begin(), file.tried.end(), false) != file.tried.end()) return Write(id, &file, now, out);
    for (const Piece& piece : file.pieces) out->push_back(Spilled{piece.id, file.failure});
    files_.erase(it);
    return;
  }
  shunned_until_[static_cast<size_t>(file.directory)] = Time{INT64_MIN};
  uint64_t offset = 0;
  file.live = file.pieces.size();
  file.tried.clear();
  for (const Piece& piece : std::exchange(file.pieces, {})) {
    locations_[piece.id] = {id, offset, piece.size};
    offset += piece.size;
    out->push_back(Spilled{piece.id, {}});
  }
}

void SpillCore::Restore(const ObjectId& id, uint64_t segment, uint64_t offset, SpillEffects* out) {
  const Location& location = locations_.at(id);
  MemoryRange to{segment, offset, location.size};
  reads_[++last_read_] = {id, to, 1};
  out->push_back(ReadRange{last_read_, location.file, files_.at(location.file).directory, location.offset, to});
}

void SpillCore::OnRead(uint64_t read, const Status& status, SpillEffects* out) {
  auto it = reads_.find(read);
  RAY_CHECK(it != reads_.end());
  if (!status.ok() && it->second.attempts++ < config_.read_attempts) {
    const Location& location = locations_.at(it->second.id);
    out->push_back(ReadRange{read, location.file, files_.at(location.file).directory, location.offset, it->second.to});
    return;
  }
  out->push_back(Restored{it->second.id, status});
  reads_.erase(it);
}

void SpillCore::Forget(const ObjectId& id, SpillEffects* out) {
  auto it = locations_.find(id);
  RAY_CHECK(it != locations_.end());
  auto file = files_.find(it->second.file);
  locations_.erase(it);
  if (--file->second.live > 0) return;
  out->push_back(DeleteFile{file->first, file->second.directory});
  files_.erase(file);
}

}  // namespace ray::object_manager
