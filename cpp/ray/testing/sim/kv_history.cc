#include "ray/testing/sim/kv_history.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <utility>

#include "ray/util/check.h"

namespace ray::sim {
namespace {

using State = std::optional<std::string>;  // of a key

// What the operation does to a single table; false: it would have answered otherwise.
bool Apply(const KvOperation& op, bool answered, State* state) {
  const bool had = state->has_value();
  switch (op.kind) {
    case KvOperation::Kind::kPut: *state = op.value; return !answered || op.truth == !had;
    case KvOperation::Kind::kPutIfAbsent:
      if (!had) *state = op.value;
      return !answered || op.truth == !had;
    case KvOperation::Kind::kDelete: state->reset(); return !answered || op.truth == had;
    case KvOperation::Kind::kGet: return !answered || (op.truth == had && (!had || op.value == **state));
  }
  return false;
}

// Depth first over the orders, remembering where it has been (Wing and Gong, with Lowe's memory).
class Search {
 public:
  explicit Search(const std::vector<KvOperation>& operations) : operations_(operations) {}
  bool From(uint64_t done, const State& state) {
    Time first_return = Time::Infinite();
    for (size_t i = 0; i < operations_.size(); ++i) {
      if ((done >> i & 1) == 0) first_return = std::min(first_return, operations_[i].returned);
    }
    if (first_return.is_infinite()) return true;  // what is left was never answered
    if (!seen_.emplace(done, state).second) return false;
    for (size_t i = 0; i < operations_.size(); ++i) {
      if ((done >> i & 1) != 0 || operations_[i].called > first_return) continue;
      State next = state;
      if (Apply(operations_[i], !operations_[i].returned.is_infinite(), &next) && From(done | uint64_t{1} << i, next)) return true;
    }
    return false;
  }

 private:
  const std::vector<KvOperation>& operations_;
  std::set<std::pair<uint64_t, State>> seen_;
};

}  // namespace

bool IsLinearizable(const std::vector<KvOperation>& operations) {
  RAY_CHECK(operations.size() <= 64) << "too many operations of one key";
  return Search(operations).From(0, std::nullopt);
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
