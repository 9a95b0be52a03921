#include "ray/raylet/memory/memory_reader.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "ray/util/fs.h"

namespace ray::raylet {
namespace {

// The number after `key` at the start of a line; nullopt if there is no such line.
std::optional<uint64_t> Field(std::string_view text, std::string_view key) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    if (!line.starts_with(key)) continue;
    line.remove_prefix(key.size());
    const size_t digit = line.find_first_of("0123456789");
    if (digit == line.npos || line.find_first_not_of(" \t:") != digit) continue;
    uint64_t value = 0;
    std::from_chars(line.data() + digit, line.data() + line.size(), value);
    return value;
  }
  return std::nullopt;
}

std::optional<uint64_t> Number(const std::string& path) {
  auto text = ReadFile(path);
  uint64_t value = 0;
  if (!text.ok() || std::from_chars(text->data(), text->data() + text->size(), value).ec != std::errc()) return std::nullopt;  // "max"
  return value;
}

// "/a/b" -> "/a/b", "/a", "".
std::vector<std::string> Ancestry(std::string path) {
  std::vector<std::string> all;
  while (path.size() > 1) {
    all.push_back(path);
    path.resize(path.rfind('/'));
  }
  all.emplace_back();
  return all;
}

}  // namespace

MemoryReader::MemoryReader(std::string root, bool count_swap) : root_(root.ends_with('/') ? root : root + '/'), count_swap_(count_swap) {
  // Lines "0::/path" (version 2) and "5:memory:/path" (version 1). In a container the path may be that of the host, whose folders are not
  // to be seen; the top folder is then the container's own group, and is part of every ancestry.
  std::string v2 = "/", v1 = "/";
  if (auto text = ReadFile(root_ + "proc/self/cgroup"); text.ok()) {
    std::string_view rest = *text;
    while (!rest.empty()) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(rest.size(), line.size() + 1));
      const size_t names = line.find(':'), path = line.find(':', names + 1);
      if (names == line.npos || path == line.npos) continue;
      const std::string_view controllers = line.substr(names + 1, path - names - 1);
      if (controllers.empty()) v2 = line.substr(path + 1);
      if (("," + std::string(controllers) + ",").find(",memory,") != std::string::npos) v1 = line.substr(path + 1);
    }
  }
  for (const std::string& path : Ancestry(v2)) {
    const std::string folder = root_ + "sys/fs/cgroup" + path + "/memory.";
    groups_.push_back({folder + "max", folder + "current", folder + "stat", "inactive_file", "active_file"});
  }
  for (const std::string& path : Ancestry(v1)) {
    const std::string folder = root_ + "sys/fs/cgroup/memory" + path + "/memory.";
    groups_.push_back({folder + "limit_in_bytes", folder + "usage_in_bytes", folder + "stat", "total_inactive_file", "total_active_file"});
  }
  std::erase_if(groups_, [](const Group& group) { return !ReadFile(group.limit).ok(); });
}

MemoryUse MemoryReader::ReadNode() const {
  auto text = ReadFile(root_ + "proc/meminfo");
  if (!text.ok()) return {};
  uint64_t total = Field(*text, "MemTotal").value_or(0), free = Field(*text, "MemAvailable").value_or(0);
  if (count_swap_) {
    total += Field(*text, "SwapTotal").value_or(0);
    free += Field(*text, "SwapFree").value_or(0);
  }
  return {(total - std::min(free, total)) << 10, total << 10};
}

std::optional<MemoryUse> MemoryReader::ReadGroup(const Group& group, uint64_t below) const {
  const auto limit = Number(group.limit);
  if (!limit || *limit >= below) return std::nullopt;
  const auto used = Number(group.used);
  if (!used) return std::nullopt;
  uint64_t cache = 0;
  if (auto stat = ReadFile(group.stat); stat.ok()) {
    cache = Field(*stat, group.inactive_file).value_or(0) + Field(*stat, group.active_file).value_or(0);
  }
  return MemoryUse{*used - std::min(cache, *used), *limit};
}

MemoryUse MemoryReader::Read() const {
  MemoryUse least = ReadNode();
  for (const Group& group : groups_) {
    const auto use = ReadGroup(group, least.total == 0 ? UINT64_MAX : least.total);
    if (use && use->total > 0) least = *use;
  }
  return least;
}

uint64_t MemoryReader::RssOf(int64_t pid) {
  auto text = ReadFile("/proc/" + std::to_string(pid) + "/statm");
  if (!text.ok()) return 0;
  const size_t second = text->find(' ');
  if (second == text->npos) return 0;
  uint64_t pages = 0;
  std::from_chars(text->data() + second + 1, text->data() + text->size(), pages);
  return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

std::string MemoryReader::CommandOf(int64_t pid) {
  auto text = ReadFile("/proc/" + std::to_string(pid) + "/cmdline");
  if (!text.ok()) return "?";
  while (!text->empty() && text->back() == '\0') text->pop_back();
  std::replace(text->begin(), text->end(), '\0', ' ');
  return *text;
}

}  // namespace ray::raylet
