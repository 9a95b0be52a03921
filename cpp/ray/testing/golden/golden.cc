#include "ray/testing/golden/golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <sstream>

#include "ray/util/fs.h"

namespace ray::testing {
namespace {

std::string Join(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += "  " + line + "\n";
  return text.empty() ? "  (nothing)\n" : text;
}

// The number in front of `word`, and the unit behind it.
std::optional<std::pair<uint64_t, std::string_view>> SplitUnit(std::string_view word) {
  uint64_t n = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), n);
  if (error != std::errc()) return std::nullopt;
  return std::pair{n, word.substr(static_cast<size_t>(end - word.data()))};
}

}  // namespace

GoldenEvent GoldenEvent::Parse(std::string_view line) {
  GoldenEvent event;
  std::istringstream words{std::string(line)};
  words >> event.name_;
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) {
      event.words_.push_back({"", word});
    } else {
      event.options_.push_back({word.substr(0, equals), word.substr(equals + 1)});
    }
  }
  return event;
}

void GoldenEvent::Fail(std::string why) const {
  if (failure_.empty()) failure_ = std::move(why);
}

std::string GoldenEvent::Problem() const {
  if (!failure_.empty()) return failure_;
  for (const Argument& word : words_) {
    if (!word.used) return "'" + name_ + "' has no use for '" + word.value + "'";
  }
  for (const Argument& option : options_) {
    if (!option.used) return "'" + name_ + "' has no use for '" + option.key + "='";
  }
  return "";
}

std::string GoldenEvent::Word(size_t i) const {
  if (i >= words_.size()) {
    Fail("'" + name_ + "' lacks its argument " + std::to_string(i + 1));
    return "";
  }
  words_[i].used = true;
  return words_[i].value;
}

const std::string* GoldenEvent::Find(std::string_view key) const {
  auto it = std::ranges::find(options_, key, &Argument::key);
  if (it == options_.end()) return nullptr;
  it->used = true;
  return &it->value;
}

std::string GoldenEvent::Word(std::string_view key, std::string_view otherwise) const {
  const std::string* value = Find(key);
  return value != nullptr ? *value : std::string(otherwise);
}

uint64_t GoldenEvent::Number(std::string_view key, uint64_t otherwise) const {
  const std::string* value = Find(key);
  return value != nullptr ? ToNumber(*value) : otherwise;
}

Duration GoldenEvent::Span(std::string_view key, Duration otherwise) const {
  const std::string* value = Find(key);
  return value != nullptr ? ToSpan(*value) : otherwise;
}

std::map<std::string, std::string, std::less<>> GoldenEvent::Label(std::string_view key) const {
  const std::string text = Word(key, "");
  if (text.empty()) return {};
  const size_t colon = text.find(':');
  if (colon == std::string::npos) {
    Fail("'" + text + "' is no label");
    return {};
  }
  return {{text.substr(0, colon), text.substr(colon + 1)}};
}

bool GoldenEvent::Has(std::string_view word) const {
  auto it = std::ranges::find(words_, word, &Argument::value);
  if (it == words_.end()) return false;
  it->used = true;
  return true;
}

std::vector<uint64_t> GoldenEvent::NumbersFrom(size_t first) const {
  std::vector<uint64_t> numbers;
  for (size_t i = first; i < words_.size(); ++i) numbers.push_back(Number(i));
  return numbers;
}

uint64_t GoldenEvent::ToNumber(const std::string& word) const {
  const auto split = SplitUnit(word);
  if (split && split->second.empty()) return split->first;
  if (split && split->second == "KiB") return split->first << 10;
  if (split && split->second == "MiB") return split->first << 20;
  if (split && split->second == "GiB") return split->first << 30;
  Fail("'" + word + "' is no number");
  return 0;
}

Duration GoldenEvent::ToSpan(const std::string& word) const {
  if (const auto split = SplitUnit(word)) {
    const auto n = static_cast<int64_t>(split->first);
    if (split->second == "ns") return std::chrono::nanoseconds(n);
    if (split->second == "us") return std::chrono::microseconds(n);
    if (split->second == "ms") return std::chrono::milliseconds(n);
    if (split->second == "s") return std::chrono::seconds(n);
  }
  Fail("'" + word + "' is no time");
  return {};
}

std::string SizeText(uint64_t bytes) {
  for (auto [unit, name] : {std::pair{uint64_t{1} << 20, "MiB"}, std::pair{uint64_t{1} << 10, "KiB"}}) {
    if (bytes >= unit && bytes % unit == 0) return std::to_string(bytes / unit) + name;
  }
  return std::to_string(bytes);
}

std::string ReplayGolden(std::string_view text, const Replayer& replayer,
                         const std::function<void(int line, const std::string& message)>& fail) {
  std::string rewritten;
  std::string event_line;  // empty: before the first event
  int event_number = 0;
  std::vector<std::string> expected;
  std::string notes;  // comments and empty lines since the event: they stand before the next
  auto finish = [&] {
    if (!event_line.empty()) {
      const GoldenEvent event = GoldenEvent::Parse(std::string_view(event_line).substr(1));
      const std::vector<std::string> effects = replayer(event);
      if (const std::string problem = event.Problem(); !problem.empty()) fail(event_number, problem);
      if (effects != expected) fail(event_number, event_line + "\nexpected:\n" + Join(expected) + "got:\n" + Join(effects));
      rewritten += event_line + "\n";
      for (const std::string& effect : effects) rewritten += effect + "\n";
    } else if (!expected.empty()) {
      fail(1, "effects before the first event");
    }
    expected.clear();
    rewritten += std::exchange(notes, "");
  };
  std::istringstream lines{std::string(text)};
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.starts_with('>')) {
      finish();
      event_line = line;
      event_number = number;
    } else if (line.empty() || line.starts_with('#')) {
      notes += line + "\n";
    } else {
      expected.push_back(line);
    }
  }
  finish();
  return rewritten;
}

void ReplayGoldens(const std::string& folder, const std::function<Replayer()>& make) {
  const std::filesystem::path path = std::filesystem::path(RAY_SCENARIOS_DIR) / folder;
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    if (entry.path().extension() == ".txt") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  ASSERT_FALSE(files.empty()) << "no scenarios in " << path;
  const bool rewrite = std::getenv("RAY_REWRITE_GOLDENS") != nullptr;
  for (const std::filesystem::path& file : files) {
    const Result<std::string> text = ReadFile(file);
    ASSERT_TRUE(text.ok()) << text.status().ToString();
    const std::string now = ReplayGolden(*text, make(), [&](int line, const std::string& message) {
      if (!rewrite) ADD_FAILURE_AT(file.c_str(), line) << message;
    });
    if (rewrite && now != *text) {
      const Status written = WriteFileAtomic(file, now, 0644);
      ASSERT_TRUE(written.ok()) << written.ToString();
    }
  }
}

}  // namespace ray::testing
