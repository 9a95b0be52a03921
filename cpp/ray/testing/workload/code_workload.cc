#include "ray/testing/workload/code_workload.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "ray/raylet/adoption/adoption_service.h"

namespace ray::sim {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr int32_t kForEver = -1;
constexpr Duration kMaxRun = milliseconds(300);

int64_t Number(const std::string& text) { return std::stoll(text); }

std::string ErrorText(const Got& got) { return "error " + std::to_string(static_cast<int32_t>(got.error)) + ": " + got.message; }

// What the ref stands for; or what the first ref inside of it does, and so on.
Got ReadThrough(Session* session, const Ref& ref, const std::string& what) {
  Got got = session->Get(ref, {}, what);
  while (got.ok() && !got.value.refs.empty()) {
    const Ref inner = got.value.refs.front();
    got = session->Get(inner, {}, what);
  }
  return got;
}

struct LogState {
  uint64_t incarnation = 0, next = 0;
  std::map<std::string, Ref> kept;
};

}  // namespace

CodeWorkload::CodeWorkload(uint64_t seed) : config_(ClusterConfig::FromSeed(seed)) {
  DefineFunctions();
  DefineActor();
}

CodeStats& operator+=(CodeStats& sum, const CodeStats& more) {
  for (const auto member : {&CodeStats::tasks, &CodeStats::trees, &CodeStats::streams, &CodeStats::actors, &CodeStats::calls,
                            &CodeStats::borrows, &CodeStats::loans, &CodeStats::leavers, &CodeStats::kills, &CodeStats::cancels,
                            &CodeStats::runs, &CodeStats::values, &CodeStats::errors})
    sum.*member += more.*member;
  return sum;
}

std::ostream& operator<<(std::ostream& out, const CodeStats& stats) {
  return out << stats.tasks << " tasks, " << stats.trees << " trees, " << stats.streams << " streams, " << stats.actors << " actors, "
             << stats.calls << " calls, " << stats.borrows << " refs handed on, " << stats.loans << " lent, " << stats.leavers
             << " drivers that left early, " << stats.kills << " kills, " << stats.cancels << " cancels; " << stats.runs << " runs; "
             << stats.values << " values, " << stats.errors << " errors";
}

// ---- what workers run ----

void CodeWorkload::CountRun(const TaskCall& call) {
  ++stats_.runs;
  const int32_t runs = ++runs_[call.task->spec.task_id];
  const int32_t retries = call.task->spec.tmpl->max_retries;
  if (retries >= 0 && runs > retries + 1)
    Fail("task " + call.task->spec.task_id.Hex() + " ran " + std::to_string(runs) + " times, with " + std::to_string(retries) + " retries");
}

void CodeWorkload::DefineFunctions() {
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
  // "items first": so many numbers from `first` on.
  program_["stream"] = [this](TaskCall& call) -> TaskOutput {
    CountRun(call);
    std::istringstream in(call.args.text);
    int64_t items = 0, first = 0;
    in >> items >> first;
    Random& random = call.session->random();
    for (int64_t i = 0; i < items; ++i) {
      if (random.Chance(0.3)) call.session->Sleep(random.Between(Duration::zero(), kMaxRun));
      if (call.task->spec.attempt < 2 && random.Chance(0.03)) return {.kind = TaskOutput::kCrash, .value = {}, .message = {}};
      if (!call.yield({std::to_string(first + i), {}})) break;
    }
    return {.kind = TaskOutput::kValue, .value = {"end", {}}, .message = {}};
  };
  // Hands the refs inside its arguments on: to itself, so many times, and then back in its result; or reads the first.
  program_["relay"] = [this](TaskCall& call) -> TaskOutput {
    CountRun(call);
    const int64_t hops = Number(call.args.text);
    if (call.session->random().Chance(0.5)) call.session->Sleep(call.session->random().Between(Duration::zero(), kMaxRun));
    if (hops == 0) return {.kind = TaskOutput::kValue, .value = {"refs", call.args.refs}, .message = {}};
    const Ref next = call.session->Call("relay", {std::to_string(hops - 1), call.args.refs}, {}, {.max_retries = kForEver});
    call.args.refs.clear();
    const Got got = call.session->Get(next, {}, "a relay");
    if (!got.ok()) return {.kind = TaskOutput::kError, .value = {}, .message = ErrorText(got)};
    return {.kind = TaskOutput::kValue, .value = got.value, .message = {}};
  };
  program_["read"] = [this](TaskCall& call) -> TaskOutput {
    CountRun(call);
    const Got got = call.session->Get(call.args.refs.at(0), {}, "a borrowed ref");
    if (!got.ok()) return {.kind = TaskOutput::kError, .value = {}, .message = ErrorText(got)};
    return {.kind = TaskOutput::kValue, .value = {got.value.text, {}}, .message = {}};
  };
  // "calls retries": calls the actor whose handle it was given.
  program_["caller"] = [this](TaskCall& call) -> TaskOutput {
    CountRun(call);
    std::istringstream in(call.args.text);
    uint64_t calls = 0;
    int32_t retries = 0;
    in >> calls >> retries;
    const ActorHandle actor = call.session->HandleOf(call.args.refs.at(0));
    const uint64_t caller = NewCaller(call.session->process(), actor.id);
    std::vector<std::pair<CallId, Ref>> made;
    for (uint64_t i = 0; i < calls; ++i) {
      const CallId id{caller, i};
      made.emplace_back(id, CallLog(call.session, actor, id, retries));
      if (call.session->random().Chance(0.3)) call.session->Sleep(call.session->random().Between(Duration::zero(), kMaxRun));
    }
    for (const auto& [id, ref] : made) SettleLog(call.session, actor.id, id, call.session->Get(ref, {}, "a call of an actor from a task"));
    return {.kind = TaskOutput::kValue, .value = {std::to_string(calls), {}}, .message = {}};
  };
}

// An actor whose state is a log, and refs that it was told to keep.
void CodeWorkload::DefineActor() {
  program_["Log"] = [this](TaskCall& call) -> TaskOutput {
    ++stats_.runs;
    auto state = std::make_shared<LogState>();
    state->incarnation = ++actors_[call.task->spec.creation->actor_id].incarnations;
    *call.state = std::move(state);
    if (call.session->random().Chance(0.3)) call.session->Sleep(call.session->random().Between(Duration::zero(), kMaxRun));
    return {};
  };
  program_["append"] = [this](TaskCall& call) -> TaskOutput {
    ++stats_.runs;
    auto* log = static_cast<LogState*>(call.state->get());
    std::istringstream in(call.args.text);
    CallId id;
    in >> id.caller >> id.number;
    const LogPlace place{log->incarnation, log->next++};
    actors_[call.task->spec.task_id.actor_id()].history.Executed(id, place, call.session->now());
    if (call.session->random().Chance(0.2)) call.session->Sleep(call.session->random().Between(Duration::zero(), kMaxRun));
    return {
        .kind = TaskOutput::kValue, .value = {std::to_string(place.incarnation) + " " + std::to_string(place.index), {}}, .message = {}};
  };
  program_["keep"] = [this](TaskCall& call) -> TaskOutput {
    ++stats_.runs;
    auto* log = static_cast<LogState*>(call.state->get());
    log->kept.insert_or_assign(call.args.text, call.args.refs.at(0));
    return {.kind = TaskOutput::kValue, .value = {"kept", {}}, .message = {}};
  };
  // "name here" or "name out": what was kept under that name is read here, or handed out.
  program_["kept"] = [this](TaskCall& call) -> TaskOutput {
    ++stats_.runs;
    auto* log = static_cast<LogState*>(call.state->get());
    std::istringstream in(call.args.text);
    std::string name, how;
    in >> name >> how;
    const auto kept = log->kept.find(name);
    if (kept == log->kept.end())
      return {.kind = TaskOutput::kValue, .value = {"none", {}}, .message = {}};  // a new incarnation, or asked twice
    const Ref ref = std::move(kept->second);
    log->kept.erase(kept);
    if (how == "out") return {.kind = TaskOutput::kValue, .value = {"refs", {ref}}, .message = {}};
    const Got got = ReadThrough(call.session, ref, "a ref that an actor kept");
    if (!got.ok()) return {.kind = TaskOutput::kError, .value = {}, .message = ErrorText(got)};
    return {.kind = TaskOutput::kValue, .value = {got.value.text, {}}, .message = {}};
  };
}

uint64_t CodeWorkload::NewCaller(Process* process, const ActorId& actor) {
  const uint64_t caller = ++last_caller_;
  process->OnDeath([this, actor, caller](int) { actors_[actor].history.CallerDied(caller); });
  return caller;
}

Ref CodeWorkload::CallLog(Session* session, const ActorHandle& actor, CallId id, int32_t retries) {
  actors_[actor.id].history.Submitted(id, retries, session->now());
  return session->CallActor(actor.id, "append", {std::to_string(id.caller) + " " + std::to_string(id.number), {}}, {}, retries);
}

void CodeWorkload::SettleLog(Session* session, const ActorId& actor, CallId id, const Got& got) {
  ActorHistory& history = actors_[actor].history;
  if (got.ok()) {
    LogPlace place;
    std::istringstream in(got.value.text);
    in >> place.incarnation >> place.index;
    history.Settled(id, CallOutcome::kDone, place, session->now());
  } else if (got.error == ErrorType::kActorDied) {
    history.Settled(id, CallOutcome::kDead, {}, session->now());
  } else {
    history.Settled(id, CallOutcome::kUnavailable, {}, session->now());
    // Cancelled with the task that made it.
    if (got.error != ErrorType::kActorUnavailable && got.error != ErrorType::kTaskCancelled)
      Fail("a call of an actor gave " + ErrorText(got));
  }
}

// ---- what drivers run ----

// One driver at work.
class CodeDriving {
 public:
  CodeDriving(CodeWorkload* workload, CodeDriver* driver)
      : workload_(*workload), driver_(driver), session_(driver->session()), random_(session_.random().Fork()) {
    workload_.counts_.Add(session_.process(), session_.worker());
    session_.process()->OnDeath([all = &workload_, process = session_.process()](int) {
      std::erase_if(all->open_actors_, [process](const auto& open) { return open.driver == process; });
    });
  }

  void Run() {
    const Time end = session_.now() + workload_.config_.driver.active;
    while (session_.now() < end) {
      Act();
      session_.Sleep(random_.Between(Duration::zero(), workload_.config_.driver.max_pause));
    }
    CloseActors();
    if (random_.Chance(0.3)) {  // at work as it is
      ++workload_.stats_.leavers;
      driver_->LeaveSoon();
      return Clear();
    }
    std::vector<uint64_t> loans;  // to actors of this one; others keep what comes later
    for (const auto& [number, loan] : workload_.loans_) {
      if (loan.to.driver == session_.process()) loans.push_back(number);
    }
    for (const uint64_t number : loans) ReadLoan(number);
    while (!pending_.empty()) Settle(0);
    lent_to_us_.clear();
    for (Actor& actor : actors_) {
      if (actor.known && !actor.killed) driver_->Keep(std::move(actor.handle));
    }
    actors_.clear();
  }

 private:
  void Clear() {
    pending_.clear();
    lent_to_us_.clear();
    actors_.clear();
  }
  struct Pending {
    Ref ref;
    std::string what;
    std::string expected;  // empty: a value with a ref inside, whose value this is in `inner`
    std::string inner;
    bool may_fail = false;          // the cluster's troubles can make it fail
    std::vector<std::string> also;  // right as well
    bool cancelled = false;
    uint64_t lends = 0, reads = 0;  // numbers of loans
    int actor = -1;                 // a call of this one's log
    CallId call;
  };
  struct Actor {
    ActorHandle handle;
    int32_t restarts = 0, retries = 0;
    uint64_t caller = 0, calls = 0;
    bool known = false, killed = false;
  };

  int32_t AnyRetries() { return random_.Chance(0.5) ? kForEver : static_cast<int32_t>(random_.Between(0, 3)); }

  void Act() {
    switch (random_.Below(18)) {
      case 0:
      case 1:
      case 2: return AddGraph();
      case 3: return AddShaky();
      case 4: return AddTree();
      case 5: return AddActor();
      case 6:
      case 7: return CallActor();
      case 8: return random_.Chance(0.5) ? CallFromTask() : KeepAtActor();
      case 9: return AddRelay();
      case 10: return random_.Chance(0.3) ? KillActor() : CancelOne();
      case 12: return ReadStream();
      case 13: return WaitForSome();
      case 14:
      case 15:
      case 16: return Lend();
      case 17: return ReadSomeLoan();
      case 11:
        for (size_t n = random_.Below(4); n > 0 && !pending_.empty(); --n) Settle(random_.Below(pending_.size()));
        return;
    }
  }

  void Add(Pending pending) { pending_.push_back(std::move(pending)); }

  // A few tasks that need the values of earlier ones, of this graph and before.
  void AddGraph() {
    struct Node {
      Ref ref;
      int64_t value;
      bool may_fail;
    };
    std::vector<Node> nodes;
    for (size_t n = 1 + random_.Below(5); n > 0; --n) {
      if (random_.Chance(0.3)) {
        const auto value = static_cast<int64_t>(random_.Below(1000));
        nodes.push_back({session_.Put({std::to_string(value), {}}), value, false});
        continue;
      }
      TaskOptions options{.max_retries = AnyRetries(), .spread = random_.Chance(0.3)};
      Node node{{}, static_cast<int64_t>(random_.Below(1000)), options.max_retries != kForEver};
      const std::string own = std::to_string(node.value);
      std::vector<Ref> refs;
      for (const Node& other : nodes) {
        if (!random_.Chance(0.5)) continue;
        refs.push_back(other.ref);
        node.value += other.value;
        node.may_fail |= other.may_fail;
      }
      node.ref = session_.Call("add", {own, {}}, refs, options);
      ++workload_.stats_.tasks;
      nodes.push_back(node);
    }
    for (const Node& node : nodes) {
      if (random_.Chance(0.7))
        Add({.ref = node.ref,
             .what = "a sum",
             .expected = std::to_string(node.value),
             .inner = {},
             .may_fail = node.may_fail,
             .also = {},
             .call = {}});
    }
  }

  void AddShaky() {
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

  void AddTree() {
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

  // To its end, or a part of it.
  void ReadStream() {
    const auto items = static_cast<int64_t>(random_.Below(12)), first = static_cast<int64_t>(random_.Below(1000));
    const int64_t backpressure = random_.Chance(0.5) ? -1 : random_.Between(1, 4);
    ++workload_.stats_.streams;
    const Ref stream =
        session_.CallStream("stream", {std::to_string(items) + " " + std::to_string(first), {}}, {.max_retries = kForEver}, backpressure);
    const int64_t wanted = random_.Chance(0.7) ? items + 1 : static_cast<int64_t>(random_.Below(static_cast<uint64_t>(items) + 1));
    for (int64_t i = 0; i < wanted; ++i) {
      const Ref item = session_.NextItem(stream, "an item of a stream");
      const std::string of = "item " + std::to_string(i) + " of stream " + stream.id().Hex();
      if (!item.valid()) {
        if (i != items) workload_.Fail(of + " does not come, of " + std::to_string(items));
        break;
      }
      const Got got = session_.Get(item, {}, of);
      if (!got.ok() && got.error == ErrorType::kWorkerStartupFailed) break;
      if (!got.ok() || i >= items || got.value.text != std::to_string(first + i))
        workload_.Fail(of + " is " + (got.ok() ? got.value.text : ErrorText(got)));
      if (random_.Chance(0.2)) session_.Sleep(random_.Between(Duration::zero(), Duration(seconds(1))));
    }
    session_.ReleaseStream(stream);
  }

  // What is ready can be had at once.
  void WaitForSome() {
    if (pending_.empty()) return;
    std::vector<Ref> refs;
    for (size_t i = 0; i < pending_.size() && refs.size() < 5; ++i) {
      if (random_.Chance(0.5)) refs.push_back(pending_[i].ref);
    }
    if (refs.empty()) return;
    const size_t count = 1 + random_.Below(refs.size());
    const std::vector<bool> ready = session_.Wait(refs, count, random_.Between(Duration::zero(), Duration(seconds(2))));
    if (ready.empty()) return;
    if (static_cast<size_t>(std::ranges::count(ready, true)) != count) workload_.Fail("wait gave more or less than was asked for");
    for (size_t i = 0; i < ready.size(); ++i) {
      if (ready[i] && session_.Get(refs[i], Duration::zero(), "what is ready").kind == Got::kTimeout)
        workload_.Fail("what wait took for ready (" + refs[i].id().Hex() + ") is not");
    }
  }

  // Of a put or of a task that is still to run; the driver lets go of it at once.
  void AddRelay() {
    const std::string text = std::to_string(random_.Below(1000));
    const bool put = random_.Chance(0.5);
    const Ref ref = put ? session_.Put({text, {}}) : session_.Call("add", {text, {}}, {}, {.max_retries = kForEver});
    ++workload_.stats_.borrows;
    if (random_.Chance(0.5)) {
      Add({.ref = session_.Call("read", {"", {ref}}, {}, {.max_retries = kForEver}),
           .what = "a read of a borrowed ref",
           .expected = text,
           .inner = {},
           .also = {},
           .call = {}});
    } else {
      Add({.ref = session_.Call("relay", {std::to_string(random_.Below(4)), {ref}}, {}, {.max_retries = kForEver}),
           .what = "a relay",
           .expected = {},
           .inner = text,
           .also = {},
           .call = {}});
    }
  }

  void AddActor() {
    if (actors_.size() >= 4) return;
    Actor actor;
    actor.restarts = AnyRetries();
    actor.retries = AnyRetries();
    actor.handle = session_.Create("Log", {"", {}}, actor.restarts, actor.retries);
    actor.caller = workload_.NewCaller(session_.process(), actor.handle.id);
    actors_.push_back(std::move(actor));
    ++workload_.stats_.actors;
  }

  void CallActor() {
    if (actors_.empty()) return;
    const size_t which = random_.Below(actors_.size());
    for (size_t n = 1 + random_.Below(8); n > 0; --n) {
      Actor& actor = actors_[which];
      const CallId id{actor.caller, actor.calls++};
      ++workload_.stats_.calls;
      Add({.ref = workload_.CallLog(&session_, actor.handle, id, actor.retries),
           .what = "a call of an actor",
           .expected = {},
           .inner = {},
           .also = {},
           .actor = static_cast<int>(which),
           .call = id});
    }
  }

  void CallFromTask() {
    if (actors_.empty()) return;
    const Actor& actor = actors_[random_.Below(actors_.size())];
    const uint64_t calls = 1 + random_.Below(4);
    ++workload_.stats_.borrows;
    Add({.ref = session_.Call("caller", {std::to_string(calls) + " " + std::to_string(actor.retries), {actor.handle.ref}}, {},
                              {.max_retries = kForEver}),
         .what = "a task that calls an actor",
         .expected = std::to_string(calls),
         .inner = {},
         .also = {},
         .call = {}});
  }

  void KeepAtActor() {
    if (actors_.empty()) return;
    const Actor& actor = actors_[random_.Below(actors_.size())];
    const std::string text = std::to_string(random_.Below(1000)), name = std::to_string(++kept_);
    ++workload_.stats_.borrows;
    {
      const Ref ref = random_.Chance(0.5) ? session_.Put({text, {}}) : session_.Call("add", {text, {}}, {}, {.max_retries = kForEver});
      Add({.ref = session_.CallActor(actor.handle.id, "keep", {name, {ref}}, {}, actor.retries),
           .what = "a call that keeps a ref",
           .expected = "kept",
           .inner = {},
           .may_fail = true,
           .also = {},
           .call = {}});
    }
    if (random_.Chance(0.5)) session_.Sleep(random_.Between(Duration::zero(), Duration(seconds(2))));
    const bool out = random_.Chance(0.5);
    // Who crashed between the two calls kept nothing.
    Add({.ref = session_.CallActor(actor.handle.id, "kept", {name + (out ? " out" : " here"), {}}, {}, actor.retries),
         .what = "a call that reads what was kept",
         .expected = out ? "" : text,
         .inner = out ? text : "",
         .may_fail = true,
         .also = {"none"},
         .call = {}});
  }

  // Of a put, or of a task that is still to run; alone, or inside of a value, and that may be one that others have lent to us. One of this driver and the one
  // of the actor reads it, when the other one may have left long since.
  void Lend() {
    std::vector<CodeWorkload::OpenActor> others;
    for (const auto& open : workload_.open_actors_) {
      if (open.driver != session_.process()) others.push_back(open);
    }
    if (others.empty()) return;
    const CodeWorkload::OpenActor& to = others[random_.Below(others.size())];
    CodeWorkload::Loan loan{.to = to, .text = std::to_string(random_.Below(1000)), .put = true};
    Ref ref;
    if (!lent_to_us_.empty() && random_.Chance(0.5)) {
      const size_t which = random_.Below(lent_to_us_.size());
      loan.text = lent_to_us_[which].second;
      loan.put = false;
      ref = session_.Put({"refs", {lent_to_us_[which].first}});
      if (random_.Chance(0.7)) lent_to_us_.erase(lent_to_us_.begin() + static_cast<std::ptrdiff_t>(which));
    } else {
      loan.put = random_.Chance(0.6);
      ref = loan.put ? session_.Put({loan.text, {}}) : session_.Call("add", {loan.text, {}}, {}, {.max_retries = kForEver});
      if (random_.Chance(0.5)) ref = session_.Put({"refs", {ref}});
    }
    ++workload_.stats_.loans;
    const uint64_t number = workload_.stats_.loans;
    workload_.loans_.emplace(number, loan);
    session_.worker()->actors().RegisterHandle(to.actor, -1, {});
    Add({.ref = session_.CallActor(to.actor, "keep", {LoanName(number), {ref}}, {}, to.retries),
         .what = "a call that lends a ref",
         .expected = "kept",
         .inner = {},
         .may_fail = true,
         .also = {},
         .lends = number,
         .call = {}});
    ours_.push_back(number);
  }

  static std::string LoanName(uint64_t number) { return "loan" + std::to_string(number); }

  void ReadSomeLoan() {
    std::vector<uint64_t> loans;
    for (const auto& [number, loan] : workload_.loans_) {
      if (!loan.read && (loan.to.driver == session_.process() || std::ranges::find(ours_, number) != ours_.end())) loans.push_back(number);
    }
    if (!loans.empty()) ReadLoan(loans[random_.Below(loans.size())]);
  }

  void ReadLoan(uint64_t number) {
    CodeWorkload::Loan& loan = workload_.loans_.at(number);
    if (std::exchange(loan.read, true)) return;
    const bool out = random_.Chance(0.5);
    Add({.ref = session_.CallActor(loan.to.actor, "kept", {LoanName(number) + (out ? " out" : " here"), {}}, {}, loan.to.retries),
         .what = "a call that reads what was lent",
         .expected = out ? "" : loan.text,
         .inner = out ? loan.text : "",
         .may_fail = true,
         .also = {"none"},
         .reads = number,
         .call = {}});
  }

  // What a read of a loan gave, that an actor was known to have: if its owner is gone it may be lost, but nobody has freed it.
  void CheckLoan(uint64_t number, const Got& got, const std::string& of) {
    const CodeWorkload::Loan& loan = workload_.loans_.at(number);
    if (got.ok() || !loan.acknowledged) return;
    const bool of_value = got.error != ErrorType::kActorDied && got.error != ErrorType::kActorUnavailable;
    if (got.message.find("freed") != std::string::npos || (of_value && loan.put && workload_.config_.faults == Duration::zero()))
      workload_.Fail(of + " gave " + ErrorText(got));
  }

  // Nobody lends to them any more.
  void CloseActors() {
    std::erase_if(workload_.open_actors_, [this](const auto& open) { return open.driver == session_.process(); });
  }

  void KillActor() {
    if (actors_.empty()) return;
    Actor& actor = actors_[random_.Below(actors_.size())];
    const bool no_restart = random_.Chance(0.5);
    ++workload_.stats_.kills;
    actor.killed |= no_restart;
    (void)session_.Kill(actor.handle.id, no_restart);
  }

  void CancelOne() {
    if (pending_.empty()) return;
    Pending& pending = pending_[random_.Below(pending_.size())];
    if (pending.actor >= 0 || pending.what.starts_with("a call")) return;
    ++workload_.stats_.cancels;
    pending.cancelled = cancelled_ = true;
    (void)session_.Cancel(pending.ref, random_.Chance(0.5));
  }

  void Settle(size_t which) {
    const Pending pending = std::move(pending_[which]);
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(which));
    const Got got = session_.Get(pending.ref, {}, pending.what);
    ++(got.ok() ? workload_.stats_.values : workload_.stats_.errors);
    if (pending.actor >= 0) {
      Actor& actor = actors_[static_cast<size_t>(pending.actor)];
      if (got.ok() && !std::exchange(actor.known, true))
        workload_.open_actors_.push_back({session_.process(), actor.handle.id, actor.retries});
      return workload_.SettleLog(&session_, actor.handle.id, pending.call, got);
    }
    const std::string of = pending.what + " (" + pending.ref.id().Hex() + ")";
    if (pending.lends != 0 && got.ok()) workload_.loans_.at(pending.lends).acknowledged = true;
    if (pending.reads != 0) CheckLoan(pending.reads, got, of);
    if (!got.ok()) {
      // A worker that cannot be started is not made up for by retries; nor is an argument that was cancelled.
      const bool no_worker = got.error == ErrorType::kWorkerStartupFailed || got.message.find("error 33:") != std::string::npos;
      const bool cancelled = pending.cancelled || (got.error == ErrorType::kTaskCancelled && cancelled_);
      if (!pending.may_fail && !cancelled && !no_worker) workload_.Fail(of + " gave " + ErrorText(got));
      return;
    }
    if (!pending.inner.empty() && got.value.text == "refs") {
      const Got inner = ReadThrough(&session_, got.value.refs.at(0), "a ref that came back");
      if (pending.reads != 0) {
        CheckLoan(pending.reads, inner, "what " + of + " had inside");
        if (!inner.ok()) return;
        lent_to_us_.emplace_back(got.value.refs.at(0), pending.inner);
      }
      if (!inner.ok()) return workload_.Fail("what " + of + " had inside gave " + ErrorText(inner));
      if (inner.value.text != pending.inner)
        workload_.Fail("what " + of + " had inside is " + inner.value.text + " instead of " + pending.inner);
      return;
    }
    if (std::ranges::find(pending.also, got.value.text) != pending.also.end()) return;
    if (got.value.text != pending.expected) workload_.Fail(of + " is " + got.value.text + " instead of " + pending.expected);
  }

  CodeWorkload& workload_;
  CodeDriver* const driver_;
  Session& session_;
  Random random_;
  std::vector<Pending> pending_;
  std::vector<Actor> actors_;  // every one, so that calls find theirs
  uint64_t kept_ = 0;
  std::vector<uint64_t> ours_;                           // loans of this driver
  std::vector<std::pair<Ref, std::string>> lent_to_us_;  // that came out of actors, and what they stand for
  bool cancelled_ = false;                               // something was
};

ClusterConfig CodeWorkload::Config() {
  ClusterConfig config = config_;
  config.start_driver = [this](SimNetwork* network, HostId host, const SimRaylet& raylet) -> ClusterDriver* {
    return CodeDriver::Start(network, host, raylet.address(), [this](CodeDriver* driver) { CodeDriving(this, driver).Run(); });
  };
  config.run_worker = [this](SimNetwork* network, Process* process, const raylet::LaunchRequest& request,
                             const std::string& raylet_address) {
    RunCodeWorker(network, &program_, &counts_, process, request, raylet_address);
  };
  config.check_held = [this](const SimRaylet& head) { return counts_.Check(head.node_id(), head.services().adoption().core()); };
  return config;
}

std::string CodeWorkload::Check() const {
  if (!problem_.empty()) return problem_;
  for (const auto& [actor, record] : actors_) {
    if (std::string fault = record.history.Check(); !fault.empty()) return "actor " + actor.Hex() + ": " + fault;
  }
  return {};
}

}  // namespace ray::sim
