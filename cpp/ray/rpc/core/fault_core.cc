#include "ray/rpc/core/fault_core.h"

#include <charconv>
#include <vector>

#include "ray/wire/method_rules.h"

namespace ray::rpc {
namespace {

constexpr Duration kRepeatAfter = std::chrono::milliseconds(5);

std::vector<std::string_view> Split(std::string_view text, char at) {
  std::vector<std::string_view> pieces;
  for (size_t end; (end = text.find(at)) != text.npos; text.remove_prefix(end + 1)) pieces.push_back(text.substr(0, end));
  pieces.push_back(text);
  return pieces;
}

template <typename Number>
bool ParseNumber(std::string_view text, Number* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

Status BadFault(std::string_view text, const std::string& what) {
  return Status::InvalidArgument("testing_rpc_failure: '" + std::string(text) + "': " + what);
}

// The method whose name is the end of `name` behind the last '.', '/' or ':', or its service and its name.
std::optional<MethodId> FindMethod(std::string_view name) {
  const std::string_view own = name.substr(name.find_last_of(".:/") + 1);  // npos + 1 is 0
  std::optional<MethodId> found;
  for (uint16_t n = 1; n < kMaxMethodId; ++n) {
    const std::string_view full = MethodName(static_cast<MethodId>(n));
    const size_t slash = full.find('/');
    if (slash == full.npos || full.substr(slash + 1) != own) continue;
    const std::string_view rest = name.substr(0, name.size() - own.size());
    if (rest.substr(0, rest.size() - !rest.empty()) == full.substr(0, slash)) return static_cast<MethodId>(n);
    if (!found) found = static_cast<MethodId>(n);
  }
  return found;
}

// "20" (milliseconds), "5000us", or two of them with '-' in between.
bool ParseDelay(std::string_view text, MethodFaults* faults) {
  const auto parse = [](std::string_view one, Duration* value) {
    const bool micros = one.ends_with("us");
    if (micros) one.remove_suffix(2);
    int64_t number = 0;
    if (!ParseNumber(one, &number) || number < 0 || number > 60'000 * (micros ? 1000 : 1)) return false;
    *value = micros ? Duration(std::chrono::microseconds(number)) : Duration(std::chrono::milliseconds(number));
    return true;
  };
  const size_t dash = text.find('-');
  faults->min_delay = Duration::zero();
  if (dash != text.npos && !parse(text.substr(0, dash), &faults->min_delay)) return false;
  return parse(dash == text.npos ? text : text.substr(dash + 1), &faults->max_delay) && faults->min_delay <= faults->max_delay;
}

// `faults`: what was said of the same methods before; what is not said again stays.
Result<MethodFaults> ParseFaults(std::string_view text, std::string_view all, MethodFaults faults) {
  double* const in_order[] = {&faults.lose_request, &faults.lose_reply, &faults.lose_in_flight};
  const auto pieces = Split(text, ':');
  if (!pieces[0].empty() && (!ParseNumber(pieces[0], &faults.max_losses) || faults.max_losses < -1))
    return BadFault(all, "the most losses must be a number, or -1");
  for (size_t i = 1; i < pieces.size(); ++i) {
    std::string_view piece = pieces[i];
    double* to = i <= std::size(in_order) ? in_order[i - 1] : nullptr;
    if (const size_t equals = piece.find('='); equals != piece.npos) {
      const std::string_view name = piece.substr(0, equals);
      piece.remove_prefix(equals + 1);
      to = name == "duplicate" ? &faults.duplicate
           : name == "delay"   ? &faults.delay
           : name == "reorder" ? &faults.reorder
           : name == "break"   ? &faults.break_connection
                               : nullptr;
      if (to == nullptr) return BadFault(all, "'" + std::string(name) + "' is none of duplicate, delay, reorder and break");
      if (const size_t at = piece.find('@'); name == "delay" && at != piece.npos) {
        if (!ParseDelay(piece.substr(at + 1), &faults))
          return BadFault(all, "a delay is PERCENT@MILLISECONDS, of at most 60000, or PERCENT@MINus-MAXus");
        piece = piece.substr(0, at);
      }
    }
    if (to == nullptr) return BadFault(all, "more numbers than MAX:REQUEST:REPLY:IN_FLIGHT");
    if (!ParseNumber(piece, to) || !(*to >= 0 && *to <= 100)) return BadFault(all, "'" + std::string(piece) + "' is not a percentage");
  }
  if (faults.lose_request + faults.lose_reply + faults.lose_in_flight > 100) return BadFault(all, "more than 100 % are lost");
  if (faults.max_losses < 0 && faults.lose_request + faults.lose_reply + faults.lose_in_flight > 95)
    return BadFault(all, "of messages that are lost without end some must get through: at most 95 % may be lost");
  return faults;
}

uint64_t NextRandom(uint64_t* state) {  // splitmix64
  uint64_t z = *state += 0x9e3779b97f4a7c15ull;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}

double Percent(uint64_t* state) { return static_cast<double>(NextRandom(state) >> 11) * (100.0 / (uint64_t{1} << 53)); }

}  // namespace

Result<FaultConfig> FaultConfig::Parse(std::string_view text, uint64_t seed) {
  FaultConfig config;
  config.seed = seed;
  if (text.empty()) return config;
  for (const std::string_view entry : Split(text, ',')) {
    const size_t equals = entry.find('=');
    if (equals == entry.npos || equals == 0) return BadFault(entry, "it is not METHOD=MAX:REQUEST:REPLY...");
    const std::string_view name = entry.substr(0, equals), what = entry.substr(equals + 1);
    if (name == "*") {
      RAY_ASSIGN_OR_RETURN(config.any, ParseFaults(what, entry, config.any.value_or(MethodFaults())));
      continue;
    }
    const auto method = FindMethod(name);
    if (!method) return BadFault(entry, "there is no method '" + std::string(name) + "'");
    RAY_ASSIGN_OR_RETURN(config.named[*method], ParseFaults(what, entry, config.named[*method]));
  }
  return config;
}

Fate FaultCore::Next(MethodId method) {
  ++counts_.messages;
  const auto rule = RuleOf(method);
  const auto named = config_.named.find(method);
  if (!rule || (named == config_.named.end() && !config_.any)) return {};
  const bool by_name = named != config_.named.end();
  const MethodFaults& faults = by_name ? named->second : *config_.any;
  Method& own = methods_[static_cast<size_t>(method)];
  if (!own.seeded) {
    own.seeded = true;
    own.random = config_.seed * 0x2545f4914f6cdd1dull + static_cast<uint64_t>(method);
  }
  // The same number of draws each time, so that one fault does not shift the others.
  const double loss = Percent(&own.random), doubled = Percent(&own.random), late = Percent(&own.random), passed = Percent(&own.random);
  const double broken = Percent(&own.random), length = Percent(&own.random) / 100;
  Fate fate;
  if (broken < faults.break_connection) {
    fate.broken = by_name;
  } else if (faults.max_losses < 0 || own.losses < faults.max_losses) {
    if (loss < faults.lose_request) {
      fate.loss = Loss::kRequest;
    } else if (loss < faults.lose_request + faults.lose_reply) {
      fate.loss = Loss::kReply;
    } else if (loss < faults.lose_request + faults.lose_reply + faults.lose_in_flight) {
      fate.loss = Loss::kInFlight;
    }
    if (fate.loss != Loss::kNone && !rule->MayLose()) {
      fate.broken = by_name;
      fate.loss = Loss::kNone;
    } else if (rule->one_way && fate.loss != Loss::kNone) {
      fate.loss = Loss::kRequest;
    }
    own.losses += fate.loss != Loss::kNone || fate.broken;
  }
  fate.duplicate = doubled < faults.duplicate && rule->MayRepeat();
  fate.overtaken = passed < faults.reorder && rule->unordered;
  if (late < faults.delay) {
    fate.delay = faults.min_delay + std::chrono::duration_cast<Duration>(length * (faults.max_delay - faults.min_delay)) + Duration(1);
  }
  if (fate.loss != Loss::kNone) fate.delay += kRepeatAfter;
  if (fate.broken) fate = Fate{.broken = true};
  counts_.lost += fate.loss != Loss::kNone;
  counts_.duplicated += fate.duplicate;
  counts_.delayed += fate.loss == Loss::kNone && fate.delay > Duration::zero();
  counts_.overtaken += fate.overtaken;
  counts_.broken += fate.broken;
  return fate;
}

}  // namespace ray::rpc
