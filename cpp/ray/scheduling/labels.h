// Labels of nodes, and what a request may ask of them. Pure values.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace ray::scheduling {

using Labels = std::map<std::string, std::string, std::less<>>;

// A set of constraints that a node's labels have to fulfil, all of them. As text, by key: `v` (that value), `!v` (any other, or no such label),
// `in(a,b)`, `!in(a,b)`, `*` (there is such a label), `!*` (there is none). Syntax was checked where the user gave it: what is no such form
// is taken as a value.
class LabelSelector {
 public:
  struct Constraint {
    std::string key;
    bool any = false;      // `*`
    bool negated = false;  // the opposite
    std::vector<std::string> values;
    bool Fulfilled(const Labels& labels) const;
    friend auto operator<=>(const Constraint&, const Constraint&) = default;
  };

  LabelSelector() = default;
  template <typename Map>  // string -> string
  explicit LabelSelector(const Map& constraints) {
    for (const auto& [key, text] : constraints) Add(key, text);
  }
  void Add(const std::string& key, const std::string& text);
  void Add(Constraint constraint);
  bool empty() const { return constraints_.empty(); }
  bool Matches(const Labels& labels) const;
  const std::vector<Constraint>& constraints() const { return constraints_; }  // sorted by key
  std::string ToString() const;                                                // "{zone: in(a,b), tier: !gold}"
  friend auto operator<=>(const LabelSelector&, const LabelSelector&) = default;

 private:
  std::vector<Constraint> constraints_;
};

// For people: alternatives, as "{zone: a} or {zone: b}".
std::string AnyOf(const std::vector<LabelSelector>& alternatives);

}  // namespace ray::scheduling
