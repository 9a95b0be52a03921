#include "ray/testing/sim/kv_history.h"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>

#include "ray/util/check.h"

namespace ray::sim {
namespace {

// Of a key: absent, or a value that some `get` reads (its index among them), or any other.
constexpr int kAbsent = -1, kUnread = -2;

// An operation as the search sees it. What follows from the answers is worked in: which of them must have happened, and until when at the latest.
struct Step {
  KvOperation::Kind kind = KvOperation::Kind::kGet;
  int value = kUnread;  // written or read; kGet: kAbsent where nothing was found
  bool truth = false;
  bool answered = false;
  Time called, latest = Time::Infinite();  // infinite: it need not have happened
  bool writes() const { return kind == KvOperation::Kind::kPut || kind == KvOperation::Kind::kPutIfAbsent; }
};

// What the step does to a single table; false: it would have answered otherwise.
bool Apply(const Step& step, int* state) {
  const bool had = *state != kAbsent;
  bool truth = false;
  switch (step.kind) {
    case KvOperation::Kind::kPut:
      truth = !had;
      *state = step.value;
      break;
    case KvOperation::Kind::kPutIfAbsent:
      truth = !had;
      if (!had) *state = step.value;
      break;
    case KvOperation::Kind::kDelete:
      truth = had;
      *state = kAbsent;
      break;
    case KvOperation::Kind::kGet: return *state == step.value;
  }
  return !step.answered || truth == step.truth;
}

// Nullopt: a value was read that nobody wrote.
std::optional<std::vector<Step>> StepsOf(const std::vector<KvOperation>& operations) {
  std::map<std::string, int> read;
  for (const KvOperation& op : operations) {
    if (op.kind == KvOperation::Kind::kGet && op.truth && !op.returned.is_infinite()) read.emplace(op.value, static_cast<int>(read.size()));
  }
  std::vector<Step> steps;
  std::map<int, Time> first_read;
  std::set<int> written;
  for (const KvOperation& op : operations) {
    Step step{op.kind, kUnread, op.truth, !op.returned.is_infinite(), op.called, op.returned};
    if (op.kind == KvOperation::Kind::kGet) {
      if (!step.answered) continue;  // it changed nothing, and told nothing
      step.value = op.truth ? read.at(op.value) : kAbsent;
      if (op.truth) {
        Time& first = first_read.try_emplace(step.value, op.returned).first->second;
        first = std::min(first, op.returned);
      }
    } else if (step.writes()) {
      if (const auto it = read.find(op.value); it != read.end()) written.insert(step.value = it->second);
    }
    steps.push_back(step);
  }
  for (Step& step : steps) {
    if (!step.writes() || step.value == kUnread) continue;
    step.latest = std::min(step.latest, first_read.at(step.value));
    if (step.kind == KvOperation::Kind::kPutIfAbsent && !step.answered) step.answered = step.truth = true;  // it was what wrote the value
  }
  return written.size() == read.size() ? std::optional(std::move(steps)) : std::nullopt;
}

// Depth first over the orders, remembering where it has been (Wing and Gong, with Lowe's memory). What cannot matter is not tried, or many operations at once, of
// which half were never answered, would take longer than anybody waits:
//   * whatever is possible now and changes nothing is done now: every order in which it comes later holds with it here as well. (A value that nobody reads any
//     more is as good as any other, so a `put` over one which comes later changes nothing there either.)
//   * what need not have happened is not done where it changes nothing;
//   * of those that do and answer the same, and are possible now, the one that must have happened first goes first: in any other order the two can change places.
class Search {
 public:
  explicit Search(std::vector<Step> steps) : steps_(std::move(steps)) {}
  bool From(uint64_t done, int state) {
    const Time first = DoWhatChangesNothing(&done, &state);
    if (first.is_infinite()) return true;  // what is left need not have happened
    if (state >= 0 || !seen_.emplace(done, state).second)
      return false;  // a value that is still read: it is written once, and whatever comes next ends it
    std::set<std::tuple<KvOperation::Kind, int, bool, bool>> tried;
    for (const size_t i : InOrderOfLatest(done, first)) {
      const Step& step = steps_[i];
      int next = state;
      if (!Apply(step, &next) || (next == state && step.latest.is_infinite())) continue;
      if (step.value == kUnread && !tried.emplace(step.kind, step.value, step.truth, step.answered).second) continue;
      if (From(done | uint64_t{1} << i, next)) return true;
    }
    return false;
  }

 private:
  // By when the next of those that must have happened has.
  Time FirstOf(uint64_t done) const {
    Time first = Time::Infinite();
    for (size_t i = 0; i < steps_.size(); ++i) {
      if ((done >> i & 1) == 0) first = std::min(first, steps_[i].latest);
    }
    return first;
  }
  bool IsStillRead(uint64_t done, int value) const {
    for (size_t i = 0; i < steps_.size(); ++i) {
      if ((done >> i & 1) == 0 && steps_[i].kind == KvOperation::Kind::kGet && steps_[i].value == value) return true;
    }
    return false;
  }
  // Returns FirstOf what is left.
  Time DoWhatChangesNothing(uint64_t* done, int* state) const {
    for (bool some = true; some;) {
      some = false;
      if (*state >= 0 && !IsStillRead(*done, *state)) *state = kUnread;
      const Time first = FirstOf(*done);
      for (size_t i = 0; i < steps_.size(); ++i) {
        const Step& step = steps_[i];
        int next = *state;
        if ((*done >> i & 1) != 0 || step.called > first || step.latest.is_infinite()) continue;
        if (!Apply(step, &next) || next != *state) continue;
        *done |= uint64_t{1} << i;
        some = true;
      }
    }
    return FirstOf(*done);
  }
  std::vector<size_t> InOrderOfLatest(uint64_t done, Time first) const {
    std::vector<size_t> possible;
    for (size_t i = 0; i < steps_.size(); ++i) {
      if ((done >> i & 1) == 0 && steps_[i].called <= first) possible.push_back(i);
    }
    std::stable_sort(possible.begin(), possible.end(), [this](size_t a, size_t b) { return steps_[a].latest < steps_[b].latest; });
    return possible;
  }

  const std::vector<Step> steps_;
  std::set<std::pair<uint64_t, int>> seen_;
};

}  // namespace

bool IsLinearizable(const std::vector<KvOperation>& operations) {
  RAY_CHECK(operations.size() <= 64) << "too many operations of one key";
  auto steps = StepsOf(operations);
  return steps && Search(std::move(*steps)).From(0, kAbsent);
}

std::optional<size_t> KvHistory::Called(const std::string& key, KvOperation operation) {
  auto& operations = by_key_[key];
  if (operations.size() >= kMaxPerKey) return std::nullopt;
  operations.push_back(std::move(operation));
  return operations.size() - 1;
}

void KvHistory::Returned(const std::string& key, size_t index, bool truth, const std::string& value, Time now) {
  KvOperation& operation = by_key_.at(key).at(index);
  operation.returned = now;
  operation.truth = truth;
  if (operation.kind == KvOperation::Kind::kGet) operation.value = value;
}

std::string KvHistory::Check() const {
  static constexpr const char* kNames[] = {"put", "put if absent", "delete", "get"};
  for (const auto& [key, operations] : by_key_) {
    if (IsLinearizable(operations)) continue;
    std::ostringstream out;
    out << "the operations of key '" << key << "' fit no single table:\n";
    for (const KvOperation& op : operations) {
      out << "  " << static_cast<double>(op.called.ns) * 1e-9 << " .. ";
      if (op.returned.is_infinite()) {
        out << "never";
      } else {
        out << static_cast<double>(op.returned.ns) * 1e-9;
      }
      out << "  " << kNames[static_cast<size_t>(op.kind)] << " '" << op.value << "'";
      if (!op.returned.is_infinite()) out << (op.truth ? " -> yes" : " -> no");
      out << "\n";
    }
    return out.str();
  }
  return {};
}

size_t KvHistory::num_operations() const {
  size_t n = 0;
  for (const auto& [key, operations] : by_key_) n += operations.size();
  return n;
}

size_t KvHistory::num_answered() const {
  size_t n = 0;
  for (const auto& [key, operations] : by_key_) {
    n +=
        static_cast<size_t>(std::count_if(operations.begin(), operations.end(), [](const auto& op) { return !op.returned.is_infinite(); }));
  }
  return n;
}

}  // namespace ray::sim
