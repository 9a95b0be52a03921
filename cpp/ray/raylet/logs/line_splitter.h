// LineSplitter: cuts what a worker wrote into lines for its driver, and takes out the markers that name what runs.
//
// A line that begins with kNameMarker sets the name shown before the lines that follow, and is not a line itself. Lines longer than
// kMaxLine are cut. Pure; one per file; not thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ray::raylet {

class LineSplitter {
 public:
  static constexpr std::string_view kNameMarker = "\x1eray-name ";
  static constexpr size_t kMaxLine = 64 << 10;

  // Lines that stand together under one name.
  struct Batch {
    std::string name;
    std::vector<std::string> lines;  // without their ends
    friend bool operator==(const Batch&, const Batch&) = default;
  };

  // Takes the next bytes of the file; appends the lines that they complete.
  void Feed(std::string_view bytes, std::vector<Batch>* out);
  // The file has ended: what is left is a line too.
  void Flush(std::vector<Batch>* out);

 private:
  void Emit(std::string_view line, std::vector<Batch>* out);

  std::string name_;
  std::string tail_;  // of a line whose end has not come; shorter than kMaxLine
};

}  // namespace ray::raylet
