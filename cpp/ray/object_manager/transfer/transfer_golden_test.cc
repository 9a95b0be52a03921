// Replays tests/scenarios/pull, push and copy_notice. Nodes, objects, wants, fetches, serves and calls are numbers; this node is 0. The time goes on by `after`
// (and tick). The events of all three: died NODE    after TIME    state (what is kept, and when the next tick is due)
// pull:
//   config budget= asked= window=                          the first, if any
//   want WANT OBJECT NODE... size= attempt= [wait|argument]      cancel WANT      fail OBJECT      explain OBJECT
//   room OBJECT ROUND [exists|full]    arrived FETCH made-by=    written FETCH made-by= (and arrived, if it has not)
//   refused FETCH not-there|unreachable|named=NODE depth=
// push:
//   ask SERVE NODE OBJECT at= size= depth= attempt= [insist]    pinned OBJECT size= (none: it is not there) attempt=    sent SERVE    left NODE OBJECT
//   partial OBJECT size= attempt=    here OBJECT at=    depth OBJECT DEPTH    complete OBJECT    given-up OBJECT
// copy_notice:
//   config max=                                            the first, if any
//   add NODE OBJECT... attempt= process=    answer NODE CALL process= [lost]    ended NODE PROCESS    (process: none: its raylet)
#include <gtest/gtest.h>

#include <memory>
#include <sstream>
#include <string>

#include "ray/object_manager/transfer/copy_notice_core.h"
#include "ray/object_manager/transfer/pull_core.h"
#include "ray/object_manager/transfer/push_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::object_manager {
namespace {

using testing::GoldenEvent;
using testing::SizeText;

template <typename Id>
Id No(uint64_t n) {
  return Id::FromBinaryOrNil(static_cast<char>(n) + std::string(Id::kSize - 1, '\0'));
}
template <typename Id>
std::string Text(const Id& id) {
  return std::to_string(id.data()[0]);
}
// None: not said.
std::optional<uint32_t> Run(const GoldenEvent& event, const std::string& key) {
  constexpr uint64_t kNone = UINT64_MAX;
  const uint64_t run = event.Number(key, kNone);
  return run == kNone ? std::nullopt : std::optional(static_cast<uint32_t>(run));
}
std::string At(uint64_t offset, uint64_t length) { return " at " + SizeText(offset) + "+" + SizeText(length); }
std::string DueText(Time next, Time now) {
  if (next.is_infinite()) return ", nothing is due";
  return ", due in " + std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(next - now).count()) + "ms";
}

struct ShowPull {
  std::ostringstream& os;
  void operator()(const RoomWanted& e) { os << "room for " << Text(e.id) << ", " << SizeText(e.size) << " (round " << e.round << ")"; }
  void operator()(const FetchWanted& e) {
    os << "fetch " << e.fetch << ": " << Text(e.id) << At(e.offset, e.length) << " of node " << Text(e.node);
    if (e.attempt > 0) os << ", run " << e.attempt;
    if (e.depth > 1) os << ", depth " << e.depth;
    if (e.insist) os << ", insisting";
  }
  void operator()(const FetchForgotten& e) { os << "forget " << e.fetch; }
  void operator()(const SourceLeft& e) { os << "leave node " << Text(e.node) << " with " << Text(e.id); }
  void operator()(const PullComplete& e) { os << "seal " << Text(e.id) << " (round " << e.round << ")"; }
  void operator()(const PullDropped& e) { os << "drop " << Text(e.id) << " (round " << e.round << ")"; }
  void operator()(const PullLate& e) {
    os << "late " << Text(e.id) << " for " << std::chrono::duration_cast<std::chrono::seconds>(e.silence).count() << "s";
  }
  void operator()(const PullAnswered& e) {
    os << "answer " << e.want << " " << StatusCodeName(e.status.code());
    if (e.attempt > 0) os << ", run " << e.attempt;
    for (const NodeId& node : e.missing) os << " not-on-" << Text(node);
  }
};

class ReplayPull {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    if (event.name() == "config") {
      PullConfig config{.self = No<NodeId>(0)};
      config.budget_bytes = event.Number("budget", config.budget_bytes);
      config.max_asked_bytes = event.Number("asked", config.max_asked_bytes);
      config.window = static_cast<uint32_t>(event.Number("window", config.window));
      core_ = std::make_shared<PullCore>(config);
      return {};
    }
    if (event.name() == "explain") return {core_->Explain(No<ObjectId>(event.Number(0)), now_)};
    if (event.name() == "state") {
      return {std::to_string(core_->size()) + " objects, " + SizeText(core_->active_bytes()) + " active, " +
              SizeText(core_->asked_bytes()) + " asked for" + DueText(core_->NextDeadline(), now_)};
    }
    std::vector<std::string> lines;
    PullEffects effects;
    Carry(event, &effects, &lines);
    for (std::string& line : testing::EffectLines<ShowPull>(effects)) lines.push_back(std::move(line));
    return lines;
  }

 private:
  void Carry(const GoldenEvent& event, PullEffects* out, std::vector<std::string>* lines) {
    const std::string& name = event.name();
    if (name == "want") {
      PullRequest request{event.Number(0), No<ObjectId>(event.Number(1)), event.Number("size", 0), {}};
      if (event.Has("wait")) request.priority = PullPriority::kWait;
      if (event.Has("argument")) request.priority = PullPriority::kTaskArgument;
      const size_t end = event.num_words() - (request.priority == PullPriority::kGet ? 0 : 1);
      for (size_t i = 2; i < end; ++i) request.nodes.push_back(No<NodeId>(event.Number(i)));
      request.attempt = static_cast<uint32_t>(event.Number("attempt", 0));
      core_->Want(std::move(request), now_, out);
    } else if (name == "cancel") {
      core_->Cancel(event.Number(0), now_, out);
    } else if (name == "fail") {
      core_->Fail(No<ObjectId>(event.Number(0)), Status::Internal("it failed"), now_, out);
    } else if (name == "room") {
      const Status status = event.Has("full") ? Status(StatusCode::kResourceExhausted, "the store is full") : Status();
      core_->OnRoom(No<ObjectId>(event.Number(0)), event.Number(1), status, event.Has("exists"), now_, out);
    } else if (name == "arrived") {
      lines->emplace_back(core_->OnArrived(event.Number(0), Run(event, "made-by"), now_, out) ? "to be written" : "of no interest");
    } else if (name == "written") {
      core_->OnArrived(event.Number(0), Run(event, "made-by"), now_, out);
      core_->OnWritten(event.Number(0), now_, out);
    } else if (name == "refused") {
      const uint64_t other = event.Number("named", 0);
      const Refusal refusal = other != 0                 ? Refusal::kElsewhere
                              : event.Has("not-there")   ? Refusal::kNotThere
                              : event.Has("unreachable") ? Refusal::kUnreachable
                                                         : (event.Fail("refused, but how?"), Refusal::kUnreachable);
      core_->OnRefused(event.Number(0), refusal, No<NodeId>(other), event.Number("depth", 1), now_, out);
    } else if (name == "died") {
      core_->OnNodeDead(No<NodeId>(event.Number(0)), now_, out);
    } else if (name == "after") {
      now_ = now_ + event.Span(0);
      core_->OnTimer(now_, out);
    } else {
      event.Fail("no such event: " + name);
    }
  }

  std::shared_ptr<PullCore> core_ = std::make_shared<PullCore>(PullConfig{.self = No<NodeId>(0)});
  Time now_{1};
};

struct ShowPush {
  std::ostringstream& os;
  void operator()(const PinWanted& e) { os << "pin " << Text(e.id); }
  void operator()(const PinDropped& e) { os << "unpin " << Text(e.id); }
  void operator()(const ServeChunk& e) { os << "serve " << e.serve << ": " << Text(e.id) << At(e.offset, e.length); }
  void operator()(const ServeRefused& e) {
    os << "refuse " << e.serve;
    if (e.refusal == Refusal::kElsewhere) os << ", naming node " << Text(e.other) << " of depth " << e.other_depth;
  }
};

class ReplayPush {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    if (event.name() == "state") {
      return {std::to_string(core_->size()) + " objects, " + SizeText(core_->sending_bytes()) + " being sent" +
              DueText(core_->NextDeadline(), now_)};
    }
    PushEffects effects;
    Carry(event, &effects);
    return testing::EffectLines<ShowPush>(effects);
  }

 private:
  void Carry(const GoldenEvent& event, PushEffects* out) {
    const std::string& name = event.name();
    if (name == "ask") {
      core_->OnRequest({event.Number(0), No<NodeId>(event.Number(1)), No<ObjectId>(event.Number(2)), event.Number("at", 0),
                        event.Number("size", uint64_t{1} << 20), event.Has("insist"), event.Number("depth", 1), Run(event, "attempt")},
                       now_, out);
    } else if (name == "pinned") {
      const uint64_t size = event.Number("size", 0);
      core_->OnPinned(No<ObjectId>(event.Number(0)), size != 0, size, Run(event, "attempt").value_or(0), now_, out);
    } else if (name == "sent") {
      core_->OnSent(event.Number(0), out);
    } else if (name == "left") {
      core_->OnLeft(No<NodeId>(event.Number(0)), No<ObjectId>(event.Number(1)), out);
    } else if (name == "partial") {
      core_->OnPartial(No<ObjectId>(event.Number(0)), event.Number("size", 0), Run(event, "attempt").value_or(0));
    } else if (name == "here") {
      core_->OnChunkHere(No<ObjectId>(event.Number(0)), event.Number("at", 0), now_, out);
    } else if (name == "depth") {
      core_->OnPartialDepth(No<ObjectId>(event.Number(0)), event.Number(1), out);
    } else if (name == "complete" || name == "given-up") {
      core_->OnPartialEnd(No<ObjectId>(event.Number(0)), name == "complete", out);
    } else if (name == "died") {
      core_->OnNodeDead(No<NodeId>(event.Number(0)), out);
    } else if (name == "after") {
      now_ = now_ + event.Span(0);
      core_->OnTimer(now_, out);
    } else {
      event.Fail("no such event: " + name);
    }
  }

  std::shared_ptr<PushCore> core_ = std::make_shared<PushCore>(PushConfig{});
  Time now_{1};
};

class ReplayNotices {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    if (event.name() == "config") {
      core_ = std::make_shared<CopyNoticeCore>(CopyNoticeConfig{.max_copies = event.Number("max", 65536)});
      return {};
    }
    if (event.name() == "state") return {std::to_string(core_->size()) + " processes" + DueText(core_->NextDeadline(), now_)};
    CopyNoticeEffects effects;
    Carry(event, &effects);
    std::vector<std::string> lines;
    for (const NoticeWanted& effect : effects) {
      lines.push_back("call " + std::to_string(effect.call) + " tells node " + Text(effect.to.node_id) +
                      (effect.to.worker_id.IsNil() ? "" : "'s process " + Text(effect.to.worker_id)) + " of");
      for (const CopyRun& copy : effect.copies) lines.back() += " " + Text(copy.id) + "/" + std::to_string(copy.attempt);
    }
    return lines;
  }

 private:
  void Carry(const GoldenEvent& event, CopyNoticeEffects* out) {
    const std::string& name = event.name();
    if (name == "add") {
      std::vector<CopyRun> copies;
      const auto attempt = static_cast<uint32_t>(event.Number("attempt", 0));
      for (const uint64_t object : event.NumbersFrom(1)) copies.push_back({No<ObjectId>(object), attempt});
      core_->Add(To(event), copies, now_, out);
    } else if (name == "answer") {
      core_->OnAnswer(To(event), event.Number(1), !event.Has("lost"), now_, out);
    } else if (name == "ended") {
      core_->OnEnded({No<NodeId>(event.Number(0)), No<WorkerId>(event.Number(1))});
    } else if (name == "died") {
      core_->OnNodeDead(No<NodeId>(event.Number(0)));
    } else if (name == "after") {
      now_ = now_ + event.Span(0);
      core_->OnTimer(now_, out);
    } else {
      event.Fail("no such event: " + name);
    }
  }

  static Address To(const GoldenEvent& event) {
    const uint64_t process = event.Number("process", 0);
    return {No<NodeId>(event.Number(0)), process == 0 ? WorkerId() : No<WorkerId>(process)};
  }

  std::shared_ptr<CopyNoticeCore> core_ = std::make_shared<CopyNoticeCore>();
  Time now_{1};
};

TEST(TransferGoldenTest, Pull) {
  testing::ReplayGoldens("pull", [] { return ReplayPull(); });
}

TEST(TransferGoldenTest, Push) {
  testing::ReplayGoldens("push", [] { return ReplayPush(); });
}

TEST(TransferGoldenTest, CopyNotice) {
  testing::ReplayGoldens("copy_notice", [] { return ReplayNotices(); });
}

}  // namespace
}  // namespace ray::object_manager
