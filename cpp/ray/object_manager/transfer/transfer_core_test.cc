// PullCore and PushCore: scenarios. Whole clusters of them: transfer_progress_test.
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "ray/object_manager/transfer/copy_notice_core.h"
#include "ray/object_manager/transfer/pull_core.h"
#include "ray/object_manager/transfer/push_core.h"

namespace ray::object_manager {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

NodeId Node(uint32_t n) {
  std::string bytes(NodeId::kSize, '\0');
  bytes[0] = static_cast<char>(n);
  bytes[1] = static_cast<char>(n >> 8);
  return NodeId::FromBinaryOrNil(bytes);
}

ObjectId Object(uint32_t n) {
  std::string bytes(ObjectId::kSize, '\1');
  bytes[0] = static_cast<char>(n);
  bytes[1] = static_cast<char>(n >> 8);
  return ObjectId::FromBinaryOrNil(bytes);
}

uint32_t Number(const NodeId& id) { return static_cast<uint8_t>(id.data()[0]) + 256u * static_cast<uint8_t>(id.data()[1]); }
uint32_t Number(const ObjectId& id) { return static_cast<uint8_t>(id.data()[0]) + 256u * static_cast<uint8_t>(id.data()[1]); }

PullConfig Config() {
  PullConfig config;
  config.self = Node(0);
  return config;
}

// A PullCore and its effects as lines of text.
class Puller {
 public:
  explicit Puller(PullConfig config = Config()) : core(config) {}
  std::string Want(WantNo want, uint32_t object, uint64_t mib, std::vector<uint32_t> nodes, PullPriority priority = PullPriority::kGet) {
    PullRequest request{want, Object(object), mib * kMiB, {}, priority};
    for (uint32_t n : nodes) request.nodes.push_back(Node(n));
    core.Want(request, now, &out);
    return Take();
  }
  std::string Room(uint32_t object, uint64_t round, bool exists = false) {
    core.OnRoom(Object(object), round, Status::Ok(), exists, now, &out);
    return Take();
  }
  std::string Written(FetchNo fetch) {
    EXPECT_TRUE(core.OnArrived(fetch, now));
    core.OnWritten(fetch, now, &out);
    return Take();
  }
  std::string Refused(FetchNo fetch, Refusal refusal, uint32_t other = 0, uint64_t other_depth = 1) {
    core.OnRefused(fetch, refusal, Node(other), other_depth, now, &out);
    return Take();
  }
  std::string Dead(uint32_t node) {
    core.OnNodeDead(Node(node), now, &out);
    return Take();
  }
  std::string Cancel(WantNo want) {
    core.Cancel(want, now, &out);
    return Take();
  }
  std::string After(Duration wait) {
    now = now + wait;
    core.OnTimer(now, &out);
    return Take();
  }
  std::string Take() {
    std::string text;
    for (const PullEffect& effect : std::exchange(out, {})) {
      if (std::holds_alternative<FetchForgotten>(effect)) continue;  // shows by what is fetched next
      if (!text.empty()) text += "; ";
      text += std::visit([this](const auto& e) { return Text(e); }, effect);
    }
    return text;
  }
  PullCore core;
  Time now{int64_t{1000000000}};
  PullEffects out;

 private:
  static std::string N(uint64_t n) { return std::to_string(n); }
  std::string Text(const RoomWanted& e) { return "room o" + N(Number(e.id)) + " r" + N(e.round); }
  std::string Text(const FetchWanted& e) {
    return "fetch" + N(e.fetch) + " o" + N(Number(e.id)) + " n" + N(Number(e.node)) + " @" + N(e.offset / kMiB) + "+" + N(e.length / kMiB) +
           (e.insist ? "!" : "") + (e.depth > 1 ? " d" + N(e.depth) : "");
  }
  std::string Text(const FetchForgotten&) { return {}; }
  std::string Text(const SourceLeft& e) { return "left n" + N(Number(e.node)); }
  std::string Text(const PullComplete& e) { return "complete o" + N(Number(e.id)); }
  std::string Text(const PullDropped& e) { return "drop r" + N(e.round); }
  std::string Text(const PullLate& e) {
    return "late o" + N(Number(e.id)) + " " + std::to_string(std::chrono::duration_cast<std::chrono::seconds>(e.silence).count()) + " s";
  }
  std::string Text(const PullAnswered& e) {
    std::string text = "answer w" + N(e.want) + " " + (e.status.ok() ? "ok" : std::string(StatusCodeName(e.status.code())));
    for (const NodeId& node : e.missing) text += " -n" + N(Number(node));
    return text;
  }
};

TEST(PullCore, AnObjectComesInChunksAndAllWaitersAreAnswered) {
  Puller p;
  EXPECT_EQ(p.Want(1, 7, 6, {1}), "room o7 r1");
  EXPECT_EQ(p.Want(2, 7, 6, {1}, PullPriority::kWait), "");
  EXPECT_EQ(p.Room(7, 1), "fetch1 o7 n1 @0+4; fetch2 o7 n1 @4+2");
  EXPECT_EQ(p.Written(2), "");
  EXPECT_EQ(p.Written(1), "complete o7; left n1; drop r1; answer w1 ok; answer w2 ok");
  EXPECT_EQ(p.core.size(), 0u);
  EXPECT_EQ(p.core.active_bytes() + p.core.asked_bytes(), 0u);
  EXPECT_FALSE(p.core.OnArrived(1, p.now));
}

TEST(PullCore, WhatTheStoreHasNeedsNoFetch) {
  Puller p;
  p.Want(1, 7, 6, {1});
  EXPECT_EQ(p.Room(7, 1, /*exists=*/true), "drop r1; answer w1 ok");
}

TEST(PullCore, AnotherCopyDoesTheRestWhenASourceDies) {
  Puller p;
  p.Want(1, 7, 12, {1});
  EXPECT_EQ(p.Room(7, 1).substr(0, 12), "fetch1 o7 n1");
  p.Want(2, 7, 12, {2});
  EXPECT_EQ(p.Written(1), "");
  EXPECT_EQ(p.Dead(1), "left n1; fetch4 o7 n2 @4+4; fetch5 o7 n2 @8+4");
  EXPECT_EQ(p.Refused(2, Refusal::kUnreachable), "");  // old news
  EXPECT_EQ(p.Written(4), "");
  EXPECT_EQ(p.Written(5), "complete o7; left n2; drop r1; answer w1 ok -n1; answer w2 ok -n1");
}

TEST(PullCore, WithoutAnySourceTheAnswerNamesThoseThatDoNotHaveIt) {
  Puller p;
  p.Want(1, 7, 4, {1, 2});
  p.Room(7, 1);
  const std::string second = p.Refused(1, Refusal::kNotThere);
  EXPECT_NE(second.find("fetch2"), std::string::npos);
  EXPECT_EQ(p.Refused(2, Refusal::kNotThere).substr(0, 8), "left n" + second.substr(second.find(" n", 12) + 2, 1) + ";");
  EXPECT_EQ(p.core.size(), 0u);
  p.Dead(3);
  EXPECT_EQ(p.Want(2, 8, 4, {3}), "answer w2 NOT_FOUND -n3");
}

TEST(PullCore, TheLastNodesThatDiedAreRemembered) {
  Puller p;
  for (uint32_t node = 1; node <= 10000; ++node) p.Dead(node);
  EXPECT_EQ(p.Want(1, 7, 4, {10000, 9000}), "answer w1 NOT_FOUND -n10000 -n9000");
  EXPECT_EQ(p.Want(2, 8, 4, {1}), "room o8 r1");  // found out when it is asked
}

TEST(PullCore, AnUnreachableSourceIsTriedAgainWithBackOff) {
  Puller p;
  p.Want(1, 7, 4, {1});
  p.Room(7, 1);
  EXPECT_EQ(p.Refused(1, Refusal::kUnreachable), "left n1");
  EXPECT_EQ(p.core.NextDeadline(), p.now + std::chrono::milliseconds(50));
  EXPECT_EQ(p.After(std::chrono::milliseconds(49)), "");
  EXPECT_EQ(p.After(std::chrono::milliseconds(1)), "fetch2 o7 n1 @0+4");
  p.Refused(2, Refusal::kUnreachable);
  EXPECT_EQ(p.core.NextDeadline(), p.now + std::chrono::milliseconds(100));
}

TEST(PullCore, AStalledSourceIsLeftAndAnObjectGivenUpInTheEnd) {
  Puller p;
  p.Want(1, 7, 4, {1, 2});
  const std::string first = p.Room(7, 1);
  const std::string other = first.find("n1") != std::string::npos ? "n2" : "n1";
  EXPECT_NE(p.After(std::chrono::seconds(10)).find("fetch2 o7 " + other), std::string::npos);
  std::string last;
  for (int i = 0; i < 100 && p.core.size() > 0; ++i) last = p.After(p.core.NextDeadline() - p.now);
  EXPECT_NE(last.find("answer w1 DEADLINE_EXCEEDED"), std::string::npos) << last;
  EXPECT_GE(p.now, Time{int64_t{1000000000}} + std::chrono::minutes(10));
}

TEST(PullCore, AnObjectOfWhichNothingComesIsToldOfAfterAMinuteAndThenMoreRarely) {
  PullConfig config = Config();
  config.window = 1;
  Puller p(config);
  p.Want(1, 7, 8, {1});
  p.Room(7, 1);
  const auto next_warning = [&p] {
    for (;;) {
      const std::string text = p.After(p.core.NextDeadline() - p.now);
      if (const size_t at = text.find("late"); at != std::string::npos) return text.substr(at, text.find(" s", at) + 2 - at);
      if (text.find("answer") != std::string::npos) return text;
      for (FetchNo fetch = 1; fetch < 1000; ++fetch) p.Refused(fetch, Refusal::kUnreachable);
    }
  };
  EXPECT_EQ(next_warning(), "late o7 60 s");
  EXPECT_EQ(next_warning(), "late o7 120 s");
  // Something comes: from then on the time is counted anew.
  std::string fetch;
  while (fetch.find("fetch") == std::string::npos) fetch = p.After(p.core.NextDeadline() - p.now);
  p.Written(std::strtoull(fetch.c_str() + fetch.find("fetch") + 5, nullptr, 10));
  for (const char* late : {"late o7 60 s", "late o7 120 s", "late o7 240 s", "late o7 480 s"}) EXPECT_EQ(next_warning(), late);
  EXPECT_NE(next_warning().find("answer w1 DEADLINE_EXCEEDED"), std::string::npos);
}

TEST(PullCore, ANamedNodeIsAskedAndTheFirstInsistedOnIfThatFails) {
  Puller p;
  p.Want(1, 7, 8, {1});
  p.Room(7, 1);
  EXPECT_EQ(p.Refused(1, Refusal::kElsewhere, 2), "fetch3 o7 n2 @0+4 d2; fetch4 o7 n2 @4+4 d2");
  EXPECT_EQ(p.Refused(2, Refusal::kElsewhere, 2), "");  // of the same answer
  EXPECT_EQ(p.Written(3), "");
  EXPECT_EQ(p.Refused(4, Refusal::kNotThere), "left n2; fetch5 o7 n1 @4+4! d2");
  EXPECT_EQ(p.Written(5), "complete o7; left n1; drop r1; answer w1 ok");
}

TEST(PullCore, PrioritiesShareTheBudgetAndGetsPushOutArguments) {
  PullConfig config = Config();
  config.budget_bytes = 10 * kMiB;
  Puller p(config);
  EXPECT_EQ(p.Want(1, 1, 6, {1}, PullPriority::kTaskArgument), "room o1 r1");
  EXPECT_EQ(p.Want(2, 2, 6, {1}, PullPriority::kTaskArgument), "");
  EXPECT_EQ(p.Want(3, 3, 4, {1}, PullPriority::kWait), "room o3 r2");
  EXPECT_EQ(p.Want(4, 4, 5, {1}), "drop r1; room o4 r3");
  EXPECT_EQ(p.core.active_bytes(), 9 * kMiB);
  EXPECT_EQ(p.Cancel(3), "drop r2");
  EXPECT_EQ(p.Cancel(4), "drop r3; room o1 r4");
  // The second becomes more important than the first.
  EXPECT_EQ(p.Want(5, 2, 6, {1}), "drop r4; room o2 r5");
  EXPECT_EQ(p.Want(6, 9, 100, {1}), "");
  EXPECT_EQ(p.Cancel(2), "");
  EXPECT_EQ(p.Cancel(5), "drop r5; room o9 r6");  // larger than the budget: alone
}

TEST(PullCore, TheAskedForBytesAreBounded) {
  PullConfig config = Config();
  config.max_asked_bytes = 8 * kMiB;
  Puller p(config);
  p.Want(1, 1, 12, {1});
  p.Want(2, 2, 4, {1});
  EXPECT_EQ(p.Room(1, 1), "fetch1 o1 n1 @0+4; fetch2 o1 n1 @4+4");
  EXPECT_EQ(p.Room(2, 2), "");
  EXPECT_EQ(p.Written(1), "fetch3 o1 n1 @8+4");
  EXPECT_EQ(p.Written(2), "fetch4 o2 n1 @0+4");
}

TEST(PullCore, ASourceThatGivesNothingLeavesTheOthersTheirShare) {
  PullConfig config = Config();
  config.max_asked_bytes = 8 * kMiB;
  Puller p(config);
  p.Want(1, 1, 12, {1});
  EXPECT_EQ(p.Room(1, 1), "fetch1 o1 n1 @0+4; fetch2 o1 n1 @4+4");
  p.Want(2, 2, 12, {2});
  EXPECT_EQ(p.Room(2, 2), "fetch3 o2 n2 @0+4");  // one at a time
  EXPECT_EQ(p.Written(3), "fetch4 o2 n2 @4+4");
}

// A PushCore and its effects.
class Pusher {
 public:
  std::string Ask(ServeNo serve, uint32_t from, uint32_t object, uint64_t offset_mib, bool insist = false, uint64_t depth = 1) {
    return AskFor(serve, from, object, offset_mib, 1, insist, depth);
  }
  std::string AskFor(ServeNo serve, uint32_t from, uint32_t object, uint64_t offset_mib, uint64_t mib, bool insist = false,
                     uint64_t depth = 1) {
    core.OnRequest({serve, Node(from), Object(object), offset_mib * kMiB, mib * kMiB, insist, depth}, now, &out);
    return Take();
  }
  std::string Pinned(uint32_t object, bool there, uint64_t mib) {
    core.OnPinned(Object(object), there, mib * kMiB, now, &out);
    return Take();
  }
  std::string Take() {
    std::string text;
    for (const PushEffect& effect : std::exchange(out, {})) {
      if (!text.empty()) text += "; ";
      if (const auto* pin = std::get_if<PinWanted>(&effect)) text += "pin o" + std::to_string(Number(pin->id));
      if (const auto* drop = std::get_if<PinDropped>(&effect)) text += "unpin o" + std::to_string(Number(drop->id));
      if (const auto* serve = std::get_if<ServeChunk>(&effect)) text += "serve " + std::to_string(serve->serve);
      if (const auto* refuse = std::get_if<ServeRefused>(&effect)) {
        text += "refuse " + std::to_string(refuse->serve);
        if (refuse->refusal == Refusal::kElsewhere) text += " n" + std::to_string(Number(refuse->other));
        if (refuse->other_depth > 1) text += " d" + std::to_string(refuse->other_depth);
      }
    }
    return text;
  }
  PushCore core{PushConfig{}};
  Time now{int64_t{1000000000}};
  PushEffects out;
};

TEST(PushCore, AnObjectIsPinnedWhileOthersFetchIt) {
  Pusher p;
  EXPECT_EQ(p.Ask(1, 1, 7, 0), "pin o7");
  EXPECT_EQ(p.Ask(2, 1, 7, 4), "");
  EXPECT_EQ(p.Pinned(7, true, 8), "serve 1; serve 2");
  p.core.OnLeft(Node(1), Object(7), &p.out);
  EXPECT_EQ(p.Take(), "");
  p.core.OnSent(1, &p.out);
  p.core.OnSent(2, &p.out);
  EXPECT_EQ(p.Take(), "unpin o7");
  EXPECT_EQ(p.Ask(3, 1, 8, 0), "pin o8");
  EXPECT_EQ(p.Pinned(8, false, 0), "refuse 3");
  EXPECT_EQ(p.core.size(), 0u);
}

TEST(PushCore, WhoIsSilentForLongHasLeft) {
  Pusher p;
  p.Ask(1, 1, 7, 0);
  p.Pinned(7, true, 8);
  p.core.OnSent(1, &p.out);
  p.now = p.core.NextDeadline();
  p.core.OnTimer(p.now, &p.out);
  EXPECT_EQ(p.Take(), "unpin o7");
}

TEST(PushCore, TheThirdReaderIsSentToTheFirstTwo) {
  Pusher p;
  p.Ask(1, 1, 7, 0);
  p.Pinned(7, true, 100);
  EXPECT_EQ(p.Ask(2, 2, 7, 0), "serve 2");
  EXPECT_EQ(p.Ask(3, 3, 7, 0), "refuse 3 n1");
  EXPECT_EQ(p.Ask(4, 4, 7, 0), "refuse 4 n2");
  EXPECT_EQ(p.Ask(5, 4, 7, 0, /*insist=*/true), "serve 5");
  EXPECT_EQ(p.Ask(6, 1, 7, 4), "serve 6");
  p.core.OnNodeDead(Node(1), &p.out);
  p.core.OnLeft(Node(2), Object(7), &p.out);
  EXPECT_EQ(p.Take(), "");
  EXPECT_EQ(p.Ask(7, 3, 7, 0), "serve 7");
}

TEST(PushCore, AllQuestionsOfAReaderNameTheSameNode) {
  Pusher p;
  p.Ask(1, 1, 7, 0);
  p.Pinned(7, true, 100);
  p.Ask(2, 2, 7, 0);
  EXPECT_EQ(p.Ask(3, 3, 7, 0), "refuse 3 n1");
  EXPECT_EQ(p.Ask(4, 3, 7, 4), "refuse 4 n1");
  EXPECT_EQ(p.Ask(5, 4, 7, 0), "refuse 5 n2");
  EXPECT_EQ(p.Ask(6, 4, 7, 4), "refuse 6 n2");
  EXPECT_EQ(p.Ask(7, 5, 7, 0), "refuse 7 n1");
}

TEST(PushCore, AReaderThatTakesNothingLeavesTheOthersTheirShare) {
  Pusher p;
  ServeNo serve = 0;
  p.Ask(++serve, 1, 7, 0);
  p.Pinned(7, true, 15);
  while (serve < 13) p.AskFor(++serve, 1, 7, 0, 4);  // what is handed to links is at its bound, and none of it is taken
  EXPECT_EQ(p.core.sending_bytes(), 45 * kMiB);
  EXPECT_EQ(p.AskFor(14, 2, 7, 0, 4), "serve 14");  // one at a time
  EXPECT_EQ(p.AskFor(15, 2, 7, 4, 4), "");
  p.core.OnSent(14, &p.out);
  EXPECT_EQ(p.Take(), "serve 15");
}

TEST(PushCore, WhatIsBeingReceivedIsGivenOnAsFarAsItIsHere) {
  Pusher p;
  p.core.OnPartial(Object(7), 12 * kMiB);
  EXPECT_EQ(p.Ask(1, 1, 7, 4), "");
  p.core.OnChunkHere(Object(7), 0, &p.out);
  EXPECT_EQ(p.Take(), "");
  EXPECT_EQ(p.Ask(2, 1, 7, 0), "serve 2");
  p.core.OnChunkHere(Object(7), 4 * kMiB, &p.out);
  EXPECT_EQ(p.Take(), "serve 1");
  EXPECT_EQ(p.Ask(3, 1, 7, 8), "");
  p.core.OnPartialEnd(Object(7), false, &p.out);
  EXPECT_EQ(p.Take(), "refuse 3; unpin o7");
  EXPECT_EQ(p.Ask(4, 1, 7, 13), "pin o7");
  EXPECT_EQ(p.Pinned(7, true, 12), "refuse 4; unpin o7");
}

TEST(PullCore, ANodeIsDeeperThanAllThatItWasNamed) {
  Puller p;
  p.Want(1, 7, 4, {1});
  p.Room(7, 1);
  EXPECT_EQ(p.Refused(1, Refusal::kElsewhere, 2, 5), "fetch2 o7 n2 @0+4 d6");
  EXPECT_EQ(p.Refused(2, Refusal::kElsewhere, 3, 2), "fetch3 o7 n3 @0+4 d6");  // never less: others may wait here
  EXPECT_EQ(p.Refused(3, Refusal::kNotThere), "left n3; fetch4 o7 n1 @0+4! d6");
}

TEST(PushCore, WhoIsNamedIsNamedWithItsDepth) {
  Pusher p;
  p.Ask(1, 1, 7, 0);
  p.Pinned(7, true, 100);
  p.Ask(2, 2, 7, 0, /*insist=*/true, /*depth=*/4);
  EXPECT_EQ(p.Ask(3, 3, 7, 0), "refuse 3 n1");
  EXPECT_EQ(p.Ask(4, 4, 7, 0), "refuse 4 n2 d4");
}

TEST(PushCore, OnlyWhoIsDeeperIsKeptWaiting) {
  Pusher p;
  p.core.OnPartial(Object(7), 12 * kMiB);
  p.core.OnChunkHere(Object(7), 0, &p.out);
  EXPECT_EQ(p.Ask(1, 1, 7, 4), "");  // this node waits for nothing yet
  EXPECT_EQ(p.Ask(2, 2, 7, 4, false, 2), "");
  EXPECT_EQ(p.Ask(3, 3, 7, 4, false, 3), "");
  p.core.OnPartialDepth(Object(7), 1, &p.out);
  EXPECT_EQ(p.Take(), "refuse 1");
  p.core.OnPartialDepth(Object(7), 2, &p.out);
  EXPECT_EQ(p.Take(), "refuse 2");
  EXPECT_EQ(p.Ask(4, 1, 7, 8, /*insist=*/true, 2), "refuse 4");
  EXPECT_EQ(p.Ask(5, 1, 7, 0), "serve 5");
  p.core.OnChunkHere(Object(7), 4 * kMiB, &p.out);
  EXPECT_EQ(p.Take(), "serve 3");
}

// A CopyNoticeCore and its effects.
class Teller {
 public:
  std::string Add(uint32_t node, std::vector<uint32_t> objects, uint32_t attempt = 0) {
    std::vector<CopyRun> copies;
    for (const uint32_t n : objects) copies.push_back({Object(n), attempt});
    core.Add(Node(node), copies, now, &out);
    return Take();
  }
  std::string Answer(uint32_t node, uint64_t call, bool confirmed) {
    core.OnAnswer(Node(node), call, confirmed, now, &out);
    return Take();
  }
  std::string After(Duration wait) {
    now = now + wait;
    core.OnTimer(now, &out);
    return Take();
  }
  std::string Take() {
    std::string text;
    for (const NoticeWanted& effect : std::exchange(out, {})) {
      text += (text.empty() ? "call" : "; call") + std::to_string(effect.call) + " n" + std::to_string(Number(effect.node));
      for (const CopyRun& copy : effect.copies) {
        text += " o" + std::to_string(Number(copy.id)) + (copy.attempt == 0 ? "" : "/" + std::to_string(copy.attempt));
      }
    }
    return text;
  }
  CopyNoticeCore core{CopyNoticeConfig{.max_copies = 3}};
  Time now{int64_t{1000000000}};
  CopyNoticeEffects out;
};

TEST(CopyNoticeCore, WhatComesWhileAMessageIsUnderWayGoesWithTheNext) {
  Teller t;
  EXPECT_EQ(t.Add(1, {1}), "call1 n1 o1");
  EXPECT_EQ(t.Add(1, {2, 3}), "");
  EXPECT_EQ(t.Add(2, {4}, 7), "call2 n2 o4/7");
  EXPECT_EQ(t.Add(1, {2, 5}, 1), "");
  EXPECT_EQ(t.Answer(1, 1, true), "call3 n1 o2 o3 o2/1");
  EXPECT_EQ(t.Answer(1, 3, true), "call4 n1 o5/1");
  EXPECT_EQ(t.Answer(1, 3, true), "");  // old news
  EXPECT_EQ(t.Answer(1, 4, true), "");
  EXPECT_EQ(t.Answer(2, 2, true), "");
  EXPECT_EQ(t.core.size(), 0u);
  EXPECT_TRUE(t.core.NextDeadline().is_infinite());
}

TEST(CopyNoticeCore, WhatIsNotConfirmedIsSentAgainUntilItIs) {
  Teller t;
  t.Add(1, {1});
  t.Add(1, {2});
  EXPECT_EQ(t.Answer(1, 1, false), "");
  EXPECT_EQ(t.core.NextDeadline(), t.now + std::chrono::milliseconds(50));
  EXPECT_EQ(t.Add(1, {3}), "");
  EXPECT_EQ(t.After(std::chrono::milliseconds(49)), "");
  EXPECT_EQ(t.After(std::chrono::milliseconds(1)), "call2 n1 o1 o2 o3");
  EXPECT_EQ(t.Answer(1, 2, false), "");
  EXPECT_EQ(t.core.NextDeadline(), t.now + std::chrono::milliseconds(100));
  EXPECT_EQ(t.After(std::chrono::milliseconds(100)), "call3 n1 o1 o2 o3");
  EXPECT_EQ(t.Answer(1, 3, true), "");
  EXPECT_EQ(t.core.size(), 0u);
}

TEST(CopyNoticeCore, TheDeadAreToldNothing) {
  Teller t;
  t.Add(1, {1});
  t.core.OnNodeDead(Node(1));
  EXPECT_EQ(t.Answer(1, 1, false), "");
  EXPECT_EQ(t.Add(1, {2}), "");
  EXPECT_EQ(t.core.size(), 0u);
}

// Each of them was named to the next one while its notice that it left was lost.
TEST(TransferCores, OfThreeNodesThatAreNamedToEachOtherInACircleOneIsRefusedAtOnce) {
  constexpr uint32_t kNodes = 3;
  PullCore pulls[kNodes] = {PullCore({.self = Node(1)}), PullCore({.self = Node(2)}), PullCore({.self = Node(3)})};
  PushCore pushes[kNodes] = {PushCore({}), PushCore({}), PushCore({})};
  const Time now{int64_t{1000000000}};
  std::vector<FetchWanted> asked[kNodes];
  int refused = 0;
  for (uint32_t i = 0; i < kNodes; ++i) {
    PullEffects out;
    pulls[i].Want({1, Object(7), 4 * kMiB, {Node(9)}}, now, &out);
    pulls[i].OnRoom(Object(7), 1, Status::Ok(), false, now, &out);
    pushes[i].OnPartial(Object(7), 4 * kMiB);
    for (const PullEffect& effect : std::exchange(out, {})) {
      if (const auto* fetch = std::get_if<FetchWanted>(&effect)) asked[i].push_back(*fetch);
    }
  }
  for (uint32_t i = 0; i < kNodes; ++i) {
    // Node 9 names the next one, as deep as that was when it asked.
    const uint32_t next = (i + 1) % kNodes;
    PullEffects out;
    pulls[i].OnRefused(asked[i].back().fetch, Refusal::kElsewhere, Node(next + 1), 1, now, &out);
    for (const PullEffect& effect : std::exchange(out, {})) {
      const auto* fetch = std::get_if<FetchWanted>(&effect);
      if (fetch == nullptr) continue;
      PushEffects refusals;
      pushes[i].OnPartialDepth(fetch->id, fetch->depth, &refusals);
      pushes[next].OnRequest({i + 1, Node(i + 1), fetch->id, fetch->offset, fetch->length, fetch->insist, fetch->depth}, now, &refusals);
      for (const PushEffect& refusal : refusals) refused += std::holds_alternative<ServeRefused>(refusal);
    }
  }
  EXPECT_GE(refused, 1);
}

TEST(PushCore, NothingIsGivenThatHasNotComeWhateverIsAskedFor) {
  Pusher p;
  p.core.OnPartial(Object(7), 12 * kMiB);
  p.core.OnChunkHere(Object(7), 0, &p.out);
  EXPECT_EQ(p.AskFor(1, 1, 7, 12, 0), "refuse 1");  // behind the last chunk
  EXPECT_EQ(p.AskFor(2, 1, 7, 3, 2), "");           // the second chunk is not here
  EXPECT_EQ(p.AskFor(3, 1, 7, 0, 12), "");
  EXPECT_EQ(p.AskFor(4, 1, 7, 0, 4), "serve 4");
  p.core.OnChunkHere(Object(7), 4 * kMiB, &p.out);
  EXPECT_EQ(p.Take(), "serve 2");
  p.core.OnChunkHere(Object(7), 8 * kMiB, &p.out);
  EXPECT_EQ(p.Take(), "serve 3");
  p.core.OnPartialEnd(Object(7), true, &p.out);
  EXPECT_EQ(p.AskFor(5, 1, 7, 3, 9), "serve 5");
  EXPECT_EQ(p.AskFor(6, 1, 7, 12, 0), "refuse 6");
}

TEST(PushCore, WhoWaitsForWhatHasNotComeHasNotLeftHoweverLongThatTakes) {
  Pusher p;
  p.core.OnPartial(Object(7), 8 * kMiB);
  p.Ask(1, 1, 7, 4);
  EXPECT_TRUE(p.core.NextDeadline().is_infinite());
  p.now = p.now + std::chrono::minutes(1);
  p.core.OnTimer(p.now, &p.out);
  EXPECT_EQ(p.Take(), "");
  p.core.OnChunkHere(Object(7), 4 * kMiB, &p.out);
  EXPECT_EQ(p.Take(), "serve 1");
  EXPECT_FALSE(p.core.NextDeadline().is_infinite());
}

}  // namespace
}  // namespace ray::object_manager
