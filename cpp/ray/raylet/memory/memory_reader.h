// MemoryReader: how much memory is in use, of the node or of the control group that bounds this process, whichever is smaller.
//
// Control groups of version 2 and 1, with their ancestors: the limit may be set anywhere above. What the kernel can drop at once (file pages that no
// mapping keeps) does not count as used. Reads a few small files each time; no state but their places. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ray/raylet/memory/memory_monitor_core.h"

namespace ray::raylet {

class MemoryReader {
 public:
  // `root`: folder that holds proc/ and sys/ ("/", or a copy for tests). `count_swap`: swap counts as memory of the node.
  explicit MemoryReader(std::string root = "/", bool count_swap = false);

  // total is 0 where nothing could be read.
  MemoryUse Read() const;
  // Resident bytes and command line of a process; always of the machine itself.
  static uint64_t RssOf(int64_t pid);
  static std::string CommandOf(int64_t pid);

 private:
  struct Group {  // the names differ between the versions
    std::string limit, used, stat;
    std::string inactive_file, active_file;
  };
  MemoryUse ReadNode() const;
  // Nullopt, and hardly anything is read, if its limit is not below `below`.
  std::optional<MemoryUse> ReadGroup(const Group& group, uint64_t below) const;

  const std::string root_;
  const bool count_swap_;
  std::vector<Group> groups_;
};

}  // namespace ray::raylet
