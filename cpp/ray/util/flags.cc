#include "ray/util/flags.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

#include "ray/util/check.h"

namespace ray {
namespace {

constexpr size_t kTextWidth = 100;

struct Unit {
  std::string_view name;
  double factor;
};
constexpr Unit kDurations[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
constexpr Unit kSizes[] = {{"", 1}, {"K", 1024.0}, {"M", 1048576.0}, {"G", 1073741824.0}, {"T", 1099511627776.0}};

Status Bad(std::string_view text, std::string_view expected) {
  return Status::InvalidArgument("\"" + std::string(text) + "\" is not " + std::string(expected));
}

Result<double> ParseDouble(std::string_view text) {
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return Bad(text, "a number");
  return value;
}

Result<int64_t> ParseInt(std::string_view text) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return Bad(text, "a whole number");
  return value;
}

// Number and unit of "1.5s"; the whole in base units, below 2^63.
template <size_t N>
Result<double> ParseWithUnit(std::string_view text, const Unit (&units)[N], std::string_view expected) {
  size_t split = text.find_last_of("0123456789.");
  split = split == std::string_view::npos ? 0 : split + 1;
  for (const Unit& unit : units) {
    if (unit.name != text.substr(split)) continue;
    Result<double> number = ParseDouble(text.substr(0, split));
    if (!number.ok() || *number < 0 || *number * unit.factor >= 9.2e18) break;
    return *number * unit.factor;
  }
  return Bad(text, expected);
}

// In the largest unit that divides it.
template <size_t N>
std::string FormatWithUnit(int64_t value, const Unit (&units)[N]) {
  for (size_t i = N; i-- > 1;) {
    auto factor = static_cast<int64_t>(units[i].factor);
    if (value != 0 && value % factor == 0) return std::to_string(value / factor) + std::string(units[i].name);
  }
  return std::to_string(value) + std::string(value == 0 ? "" : units[0].name);
}

std::string FormatDouble(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

template <typename T, typename F>
std::string Join(const std::vector<T>& items, F format) {
  std::string out;
  for (const T& item : items) out += (out.empty() ? "" : ",") + format(item);
  return out;
}

// Appends the words of `text` in lines that begin at column `indent`; the current line has `column` characters already.
void Wrap(std::string* out, std::string_view text, size_t indent, size_t column) {
  std::istringstream words{std::string(text)};
  bool first = true;
  for (std::string word; words >> word; first = false) {
    if (!first && column + 1 + word.size() > kTextWidth) {
      *out += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (!first) {
      *out += ' ';
      ++column;
    }
    *out += word;
    column += word.size();
  }
  *out += '\n';
}

}  // namespace

Result<Duration> ParseDuration(std::string_view text) {
  if (text == "0") return Duration::zero();
  RAY_ASSIGN_OR_RETURN(double ns, ParseWithUnit(text, kDurations, "a time such as 250us, 10ms, 1.5s, 2m or 1h"));
  return Duration(std::llround(ns));
}

Result<uint64_t> ParseBytes(std::string_view text) {
  RAY_ASSIGN_OR_RETURN(double bytes, ParseWithUnit(text, kSizes, "a number of bytes such as 4096, 64K, 1.5G"));
  return static_cast<uint64_t>(std::llround(bytes));
}

std::string FormatDuration(Duration duration) { return FormatWithUnit(duration.count(), kDurations); }
std::string FormatBytes(uint64_t bytes) { return FormatWithUnit(static_cast<int64_t>(bytes), kSizes); }

FlagParser::FlagParser(std::string program, std::string summary)
    : program_(std::move(program)), summary_(std::move(summary)), groups_{{"Options", false}} {}

void FlagParser::Group(std::string title) { groups_.push_back({std::move(title), false}); }
void FlagParser::ConfigGroup(std::string title) { groups_.push_back({std::move(title), true}); }

FlagParser::Added& FlagParser::Added::Required() {
  parser_->flags_[index_].required = true;
  return *this;
}

FlagParser::Flag* FlagParser::Find(std::string_view name) {
  std::string key(name);
  std::replace(key.begin(), key.end(), '_', '-');
  auto it = std::find_if(flags_.begin(), flags_.end(), [&](const Flag& flag) { return flag.name == key; });
  return it == flags_.end() ? nullptr : &*it;
}

FlagParser::Added FlagParser::AddFlag(Flag flag) {
  std::replace(flag.name.begin(), flag.name.end(), '_', '-');
  RAY_CHECK(Find(flag.name) == nullptr) << "flag --" << flag.name << " is declared twice";
  flag.group = groups_.size() - 1;
  flags_.push_back(std::move(flag));
  return {this, flags_.size() - 1};
}

FlagParser::Added FlagParser::Add(std::string name, std::string help, bool* target) {
  return AddFlag({.name = std::move(name),
                  .help = std::move(help),
                  .type = "",
                  .default_text = *target ? "true" : "false",
                  .is_bool = true,
                  .set = [target](std::string_view text) {
                    if (text == "true" || text == "1") {
                      *target = true;
                    } else if (text == "false" || text == "0") {
                      *target = false;
                    } else {
                      return Bad(text, "true or false");
                    }
                    return Status::Ok();
                  }});
}

FlagParser::Added FlagParser::Add(std::string name, std::string help, double* target) {
  return AddFlag({.name = std::move(name),
                  .help = std::move(help),
                  .type = "number",
                  .default_text = FormatDouble(*target),
                  .set = [target](std::string_view text) {
                    RAY_ASSIGN_OR_RETURN(*target, ParseDouble(text));
                    return Status::Ok();
                  }});
}

FlagParser::Added FlagParser::Add(std::string name, std::string help, std::string* target) {
  return AddFlag(
      {.name = std::move(name), .help = std::move(help), .type = "text", .default_text = *target, .set = [target](std::string_view text) {
         *target = text;
         return Status::Ok();
       }});
}

FlagParser::Added FlagParser::Add(std::string name, std::string help, Duration* target) {
  return AddFlag({.name = std::move(name),
                  .help = std::move(help),
                  .type = "time",
                  .default_text = FormatDuration(*target),
                  .set = [target](std::string_view text) {
                    RAY_ASSIGN_OR_RETURN(*target, ParseDuration(text));
                    return Status::Ok();
                  }});
}

FlagParser::Added FlagParser::AddBytes(std::string name, std::string help, uint64_t* target) {
  return AddFlag({.name = std::move(name),
                  .help = std::move(help),
                  .type = "bytes",
                  .default_text = FormatBytes(*target),
                  .set = [target](std::string_view text) {
                    RAY_ASSIGN_OR_RETURN(*target, ParseBytes(text));
                    return Status::Ok();
                  }});
}

FlagParser::Added FlagParser::Add(std::string name, std::string help, std::vector<std::string>* target) {
  return AddFlag({.name = std::move(name),
                  .help = std::move(help),
                  .type = "text",
                  .default_text = Join(*target, [](const std::string& s) { return s; }),
                  .is_list = true,
                  .set =
                      [target](std::string_view text) {
                        target->emplace_back(text);
                        return Status::Ok();
                      },
                  .clear = [target] { target->clear(); }});
}

FlagParser::Added FlagParser::Add(std::string name, std::string help, std::vector<int64_t>* target) {
  return AddFlag({.name = std::move(name),
                  .help = std::move(help),
                  .type = "integer",
                  .default_text = Join(*target, [](int64_t n) { return std::to_string(n); }),
                  .is_list = true,
                  .set =
                      [target](std::string_view text) {
                        for (size_t comma = 0; comma != text.npos; text.remove_prefix(comma == text.npos ? 0 : comma + 1)) {
                          comma = text.find(',');
                          RAY_ASSIGN_OR_RETURN(int64_t value, ParseInt(text.substr(0, comma)));
                          target->push_back(value);
                        }
                        return Status::Ok();
                      },
                  .clear = [target] { target->clear(); }});
}

FlagParser::Added FlagParser::AddInteger(std::string name, std::string help, int64_t value, int64_t min, int64_t max,
                                         std::function<void(int64_t)> set) {
  return AddFlag({.name = std::move(name),
                  .help = std::move(help),
                  .type = "integer",
                  .default_text = std::to_string(value),
                  .set = [min, max, set = std::move(set)](std::string_view text) {
                    RAY_ASSIGN_OR_RETURN(int64_t number, ParseInt(text));
                    if (number < min || number > max) {
                      return Bad(text, "between " + std::to_string(min) + " and " + std::to_string(max));
                    }
                    set(number);
                    return Status::Ok();
                  }});
}

Result<std::optional<std::string>> FlagParser::Parse(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    std::string_view arg = argv[i];
    if (arg == "--help" || arg == "-h") return std::optional(Help());
    if (arg == "--help-config") return std::optional(HelpConfig());
    if (!arg.starts_with("--") || arg.size() == 2)
      return Status::InvalidArgument("\"" + std::string(arg) + "\" is no flag; --help lists them");
    arg.remove_prefix(2);
    size_t equals = arg.find('=');
    std::string_view name = arg.substr(0, equals);
    std::optional<std::string_view> value;
    if (equals != std::string_view::npos) value = arg.substr(equals + 1);

    Flag* flag = Find(name);
    if (flag == nullptr && !value && name.starts_with("no-")) {
      flag = Find(name.substr(3));
      if (flag != nullptr && flag->is_bool) {
        value = "false";
      } else {
        flag = nullptr;
      }
    }
    if (flag == nullptr) return Status::InvalidArgument("--" + std::string(name) + ": there is no such flag; --help lists them");
    if (!value && flag->is_bool) value = "true";
    if (!value) {
      if (i + 1 == argc) return Status::InvalidArgument("--" + flag->name + ": needs a value");
      value = argv[++i];
    }
    if (flag->seen && !flag->is_list) return Status::InvalidArgument("--" + flag->name + ": given twice");
    if (!flag->seen && flag->is_list) flag->clear();
    flag->seen = true;
    if (Status status = flag->set(*value); !status.ok()) return Status::InvalidArgument("--" + flag->name + ": " + status.message());
  }
  for (const Flag& flag : flags_) {
    if (flag.required && !flag.seen) return Status::InvalidArgument("--" + flag.name + ": is required");
  }
  return std::optional<std::string>();
}

std::string FlagParser::Render(bool config) const {
  constexpr size_t kIndent = 8;
  std::string out;
  for (size_t g = 0; g < groups_.size(); ++g) {
    bool any = std::any_of(flags_.begin(), flags_.end(), [&](const Flag& flag) { return flag.group == g; });
    if (groups_[g].config != config || !any) continue;
    out += '\n' + groups_[g].title + ":\n";
    for (const Flag& flag : flags_) {
      if (flag.group != g) continue;
      out += "  --" + (flag.is_bool ? "[no-]" + flag.name : flag.name + " <" + flag.type + ">");
      if (flag.required) {
        out += "  (required)";
      } else if (!flag.default_text.empty()) {
        out += "  (default " + flag.default_text + ")";
      }
      if (flag.is_list) out += "  (repeatable)";
      out += '\n' + std::string(kIndent, ' ');
      Wrap(&out, flag.help, kIndent, kIndent);
    }
  }
  return out;
}

std::string FlagParser::Help() const {
  std::string out = "Usage: " + program_ + " [flags]\n\n";
  Wrap(&out, summary_, 0, 0);
  out += Render(false);
  return out +
         "\nHelp:\n  --help\n        This text.\n  --help-config\n        The settings of the modules, with their defaults; set like any "
         "flag.\n";
}

std::string FlagParser::HelpConfig() const { return "Settings of " + program_ + "; each is a flag, as --name=value.\n" + Render(true); }

}  // namespace ray
