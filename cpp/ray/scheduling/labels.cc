#include "ray/scheduling/labels.h"

#include <algorithm>
#include <string_view>

namespace ray::scheduling {

bool LabelSelector::Constraint::Fulfilled(const Labels& labels) const {
  const auto it = labels.find(key);
  const bool matches = it != labels.end() && (any || std::find(values.begin(), values.end(), it->second) != values.end());
  return matches != negated;
}

void LabelSelector::Add(const std::string& key, const std::string& text) {
  Constraint constraint;
  constraint.key = key;
  std::string_view rest = text;
  if (rest.starts_with('!')) {
    constraint.negated = true;
    rest.remove_prefix(1);
  }
  if (rest == "*") {
    constraint.any = true;
  } else if (rest.starts_with("in(") && rest.ends_with(')')) {
    rest = rest.substr(3, rest.size() - 4);
    while (true) {
      const size_t comma = rest.find(',');
      std::string_view value = rest.substr(0, comma);
      while (value.starts_with(' ')) value.remove_prefix(1);
      while (value.ends_with(' ')) value.remove_suffix(1);
      constraint.values.emplace_back(value);
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
  } else {
    constraint.values.emplace_back(rest);
  }
  Add(std::move(constraint));
}

void LabelSelector::Add(Constraint constraint) {
  const auto at = std::lower_bound(constraints_.begin(), constraints_.end(), constraint);
  constraints_.insert(at, std::move(constraint));
}

bool LabelSelector::Matches(const Labels& labels) const {
  return std::all_of(constraints_.begin(), constraints_.end(), [&labels](const Constraint& c) { return c.Fulfilled(labels); });
}

std::string AnyOf(const std::vector<LabelSelector>& alternatives) {
  std::string text;
  for (const LabelSelector& selector : alternatives) text += (text.empty() ? "" : " or ") + selector.ToString();
  return text;
}

std::string LabelSelector::ToString() const {
  std::string text = "{";
  for (const Constraint& c : constraints_) {
    if (text.size() > 1) text += ", ";
    text += c.key + ": " + (c.negated ? "!" : "");
    if (c.any) {
      text += '*';
    } else if (c.values.size() == 1) {
      text += c.values[0];
    } else {
      text += "in(";
      for (size_t i = 0; i < c.values.size(); ++i) text += (i > 0 ? "," : "") + c.values[i];
      text += ')';
    }
  }
  return text + '}';
}

}  // namespace ray::scheduling
