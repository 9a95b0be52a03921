// Golden scenarios: a pure core is replayed from text files that a person can read, events in and effects out.
//
// A scenario is a file tests/scenarios/<folder>/<name>.txt:
//
//   # A comment, or an empty line, belongs to the event below it.
//   > create 1 client=7 size=4MiB        an event: a name, words, key=value; what they mean says the core's test
//   create 1 ok at 0                     the effects that must follow, one a line, in order
//   > after 10s
//
// The test of a core turns events into calls of the core and effects into lines (a Replayer). Each file gets a replayer of its own. Whatever
// differs is a failure at that line of the file; so is an argument that the replayer did not look at. With RAY_REWRITE_GOLDENS=1 in the environment the files are
// rewritten to what the core did, for a person to read in the diff. For tests only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ray/util/clock.h"

namespace ray::testing {

// One event line, taken apart. What is asked for and missing or malformed is noted, fails the test at the event's line, and reads as nothing.
class GoldenEvent {
 public:
  // `line`: what stands after "> ".
  static GoldenEvent Parse(std::string_view line);

  const std::string& name() const { return name_; }
  size_t num_words() const { return words_.size(); }
  // Word `i` after the name, from 0.
  std::string Word(size_t i) const;
  uint64_t Number(size_t i) const { return ToNumber(Word(i)); }
  Duration Span(size_t i) const { return ToSpan(Word(i)); }
  // Of key=value; `otherwise` if there is no such key.
  std::string Word(std::string_view key, std::string_view otherwise) const;
  uint64_t Number(std::string_view key, uint64_t otherwise) const;
  Duration Span(std::string_view key, Duration otherwise) const;
  // Of key=KEY:VALUE, as a label of a node; empty if there is no such key.
  std::map<std::string, std::string, std::less<>> Label(std::string_view key) const;
  // Whether `word` is among the words.
  bool Has(std::string_view word) const;
  // All words from `first` on, as numbers.
  std::vector<uint64_t> NumbersFrom(size_t first) const;

  // For a replayer that cannot make sense of the event.
  void Fail(std::string why) const;
  // The first failure, or the first argument that nobody asked for; empty: neither.
  std::string Problem() const;

 private:
  uint64_t ToNumber(const std::string& word) const;  // 12, 64KiB, 4MiB, 1GiB
  Duration ToSpan(const std::string& word) const;    // 5ns, 3us, 50ms, 10s
  const std::string* Find(std::string_view key) const;

  struct Argument {
    std::string key;  // empty: a word
    std::string value;
    mutable bool used = false;
  };
  std::string name_;
  std::vector<Argument> words_;
  std::vector<Argument> options_;
  mutable std::string failure_;
};

// Carries out an event and returns the lines of its effects.
using Replayer = std::function<std::vector<std::string>(const GoldenEvent& event)>;

// The effects of an event, one a line, in order. `Show`: a visitor of them that is made with a stream, and writes to it.
template <typename Show, typename Effects>
std::vector<std::string> EffectLines(const Effects& effects) {
  std::vector<std::string> lines;
  for (const auto& effect : effects) {
    std::ostringstream os;
    std::visit(Show{os}, effect);
    lines.push_back(os.str());
  }
  return lines;
}

// As GoldenEvent::Number reads it: in MiB or KiB if it is a whole number of them.
std::string SizeText(uint64_t bytes);

// Replays every scenario of `text` and reports through `fail(line, message)`; returns the text as the replayer would have it.
std::string ReplayGolden(std::string_view text, const Replayer& replayer,
                         const std::function<void(int line, const std::string& message)>& fail);

// Replays each file of tests/scenarios/<folder>, in order of their names, within a GoogleTest test. `make` makes the replayer of one file.
void ReplayGoldens(const std::string& folder, const std::function<Replayer()>& make);

}  // namespace ray::testing
