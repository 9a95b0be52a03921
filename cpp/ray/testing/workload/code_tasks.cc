// Graphs and trees of tasks, tasks that crash or fail, streams.
#include <sstream>
#include <utility>

#include "ray/testing/workload/code_driving.h"

namespace ray::sim {

using std::chrono::seconds;

// ---- what workers run ----

void CodeWorkload::DefineTasks() {
  // The sum of a number and the values of all arguments.
  program_["add"] = [this](TaskCall& call) -> TaskOutput {
    CountRun(call);
    Random& random = call.session->random();
    if (random.Chance(0.7)) call.session->Sleep(random.Between(Duration::zero(), kMaxRun));
    int64_t sum = Number(call.args.text);
    for (const Value& value : call.values) sum += Number(value.text);
    return {.kind = TaskOutput::kValue, .value = {std::to_string(sum), {}}, .message = {}};
  };
  // The same, in the third run at the latest.
  program_["shaky"] = [this](TaskCall& call) -> TaskOutput {
    CountRun(call);
    Random& random = call.session->random();
    call.session->Sleep(random.Between(Duration::zero(), kMaxRun));
    if (call.task->spec.attempt < 2 && random.Chance(0.5)) return {.kind = TaskOutput::kCrash, .value = {}, .message = {}};
    if (call.task->spec.attempt < 2 && random.Chance(0.5))
      return {.kind = TaskOutput::kError, .value = {}, .message = "shaky", .retryable = true};
    return {.kind = TaskOutput::kValue, .value = {call.args.text, {}}, .message = {}};
  };
  // "depth fanout": how many leaves the tree below it has.
  program_["tree"] = [this](TaskCall& call) -> TaskOutput {
    CountRun(call);
    std::istringstream in(call.args.text);
    int64_t depth = 0, fanout = 0;
    in >> depth >> fanout;
    if (depth == 0) return {.kind = TaskOutput::kValue, .value = {"1", {}}, .message = {}};
    std::vector<Ref> children;
    const std::string below = std::to_string(depth - 1) + " " + std::to_string(fanout);
    for (int64_t i = 0; i < fanout; ++i) children.push_back(call.session->Call("tree", {below, {}}, {}, {.max_retries = kForEver}));
    int64_t sum = 0;
    for (const Ref& child : children) {
      const Got got = call.session->Get(child, {}, "a subtree");
      if (!got.ok()) return {.kind = TaskOutput::kError, .value = {}, .message = ErrorText(got)};
      sum += Number(got.value.text);
    }
    return {.kind = TaskOutput::kValue, .value = {std::to_string(sum), {}}, .message = {}};
  };
  // "items first": so many numbers from `first` on; below 0: without end.
  program_["stream"] = [this](TaskCall& call) -> TaskOutput {
    CountRun(call);
    std::istringstream in(call.args.text);
    int64_t items = 0, first = 0;
    in >> items >> first;
    Random& random = call.session->random();
    for (int64_t i = 0; items < 0 || i < items; ++i) {
      if (items < 0 || random.Chance(0.3)) call.session->Sleep(random.Between(Duration::zero(), kMaxRun));
      if (call.task->spec.attempt < 2 && random.Chance(0.03)) return {.kind = TaskOutput::kCrash, .value = {}, .message = {}};
      if (!call.yield({std::to_string(first + i), {}})) break;
    }
    return {.kind = TaskOutput::kValue, .value = {"end", {}}, .message = {}};
  };
}

// ---- what drivers do ----

// A few tasks that need the values of earlier ones, of this graph and before.
void CodeDriving::AddGraph() {
  struct Node {
    Ref ref;
    int64_t value;
    bool may_fail;
    std::vector<Ref> puts;  // that it is made of
  };
  std::vector<Node> nodes;
  for (size_t n = 1 + random_.Below(5); n > 0; --n) {
    if (random_.Chance(0.3)) {
      const auto value = static_cast<int64_t>(random_.Below(1000));
      const Ref ref = session_.Put({std::to_string(value), {}});
      nodes.push_back({ref, value, false, {ref}});
      continue;
    }
    TaskOptions options{.max_retries = AnyRetries(), .spread = random_.Chance(0.3)};
    Node node{{}, static_cast<int64_t>(random_.Below(1000)), options.max_retries != kForEver, {}};
    const std::string own = std::to_string(node.value);
    std::vector<Ref> refs;
    for (const Node& other : nodes) {
      if (!random_.Chance(0.5)) continue;
      refs.push_back(other.ref);
      node.value += other.value;
      node.may_fail |= other.may_fail;
      node.puts.insert(node.puts.end(), other.puts.begin(), other.puts.end());
    }
    node.ref = session_.Call("add", {own, {}}, refs, options);
    ++workload_.stats_.tasks;
    nodes.push_back(node);
  }
  for (const Node& node : nodes) {
    if (!random_.Chance(0.7)) continue;
    // Where a sum is lost and made again, what was put is not made again.
    const bool keep = random_.Chance(0.5);
    Add({.ref = node.ref,
         .needs = keep ? node.puts : std::vector<Ref>(),
         .what = "a sum",
         .expected = std::to_string(node.value),
         .inner = {},
         .may_fail = node.may_fail || (!keep && !node.puts.empty()),
         .also = {},
         .call = {}});
  }
}

void CodeDriving::AddShaky() {
  const bool for_ever = random_.Chance(0.5);
  const std::string text = std::to_string(random_.Below(1000));
  ++workload_.stats_.tasks;
  Add({.ref = session_.Call("shaky", {text, {}}, {}, {.max_retries = for_ever ? kForEver : 3, .retry_exceptions = true}),
       .what = "a shaky task",
       .expected = text,
       .inner = {},
       .may_fail = !for_ever,
       .also = {},
       .call = {}});
}

void CodeDriving::AddTree() {
  const int64_t depth = random_.Between(1, 3), fanout = random_.Between(1, 3);
  int64_t leaves = 1;
  for (int64_t i = 0; i < depth; ++i) leaves *= fanout;
  const int32_t retries = AnyRetries();
  ++workload_.stats_.trees;
  Add({.ref = session_.Call("tree", {std::to_string(depth) + " " + std::to_string(fanout), {}}, {}, {.max_retries = retries}),
       .what = "a tree",
       .expected = std::to_string(leaves),
       .inner = {},
       .may_fail = retries != kForEver,
       .also = {},
       .call = {}});
}

// To its end, or a part of it, if only since there is none. Some items are kept when the stream is left, and read later.
void CodeDriving::ReadStream() {
  const auto first = static_cast<int64_t>(random_.Below(1000));
  const int64_t items = random_.Chance(0.2) ? -1 : static_cast<int64_t>(random_.Below(12));
  const int64_t backpressure = random_.Chance(0.5) ? -1 : random_.Between(1, 4);
  ++workload_.stats_.streams;
  const Ref stream =
      session_.CallStream("stream", {std::to_string(items) + " " + std::to_string(first), {}}, {.max_retries = kForEver}, backpressure);
  const int64_t most = items < 0 ? 12 : items;
  const int64_t wanted =
      items >= 0 && random_.Chance(0.7) ? items + 1 : static_cast<int64_t>(random_.Below(static_cast<uint64_t>(most) + 1));
  for (int64_t i = 0; i < wanted; ++i) {
    const Ref item = session_.NextItem(stream, "an item of a stream");
    const std::string of = "item " + std::to_string(i) + " of stream " + stream.id().Hex();
    if (!item.valid()) {
      if (i != items) workload_.Fail(of + " does not come, of " + std::to_string(items));
      break;
    }
    const auto check = [this, of, expected = std::to_string(first + i)](const Got& got) {
      if (got.ok() ? got.value.text != expected : got.error != ErrorType::kWorkerStartupFailed)
        workload_.Fail(of + " is " + (got.ok() ? got.value.text : ErrorText(got)));
    };
    if (random_.Chance(0.3)) {
      Pending pending;
      pending.ref = item;
      pending.what = of;
      pending.check = check;
      Add(std::move(pending));
    }
    const Got got = session_.Get(item, {}, of);
    if (!got.ok() && got.error == ErrorType::kWorkerStartupFailed) break;
    if (items >= 0 && i >= items) workload_.Fail(of + " comes, of " + std::to_string(items));
    check(got);
    if (random_.Chance(0.2)) session_.Sleep(random_.Between(Duration::zero(), Duration(seconds(1))));
  }
  session_.ReleaseStream(stream);
}

}  // namespace ray::sim
