// TransferModel: a cluster of PullCores and PushCores on one virtual clock, for tests. Nodes want objects, give them on and evict them; messages of one way
// stay in order, as on a link, but are as late as the seed says; links break, messages get lost, nodes die, or take nothing for a while.
// It keeps the longest time for which a node that waited for objects got nothing.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ray/object_manager/transfer/pull_core.h"
#include "ray/object_manager/transfer/push_core.h"

namespace ray::object_manager {

struct TransferModelConfig {
  uint32_t seed = 0;
  uint32_t nodes = 12;
  uint32_t holders = 1;  // the first ones: they have every object, and keep it
  std::vector<uint64_t> sizes;
  PullConfig pull;
  PushConfig push;
  Duration max_late{};        // of a message, beyond 100 us
  uint32_t lost_in = 0;       // one of so many messages is lost without a trace; 0: none
  uint32_t break_in = 0;      // with one of so many messages its link breaks; 0: never
  bool only_holders = false;  // are told as sources, not those who have a copy by now
  uint32_t refused_in = 0;    // one of so many questions cannot be sent; 0: none
  uint32_t evict_in = 0;      // with one of so many questions the copy is evicted first, if nobody fetches it; 0: never
  // What is wanted is of run 1. So many nodes behind the holders have a copy that run 0 wrote, which every second one of them has found here for run 1.
  uint32_t older = 0;
};

class TransferModel {
 public:
  static constexpr double kBytesPerNs = 1.073741824;  // that a node sends: 1 GiB/s, one chunk after the other

  struct Copy {
    bool sealed = false, pinned = false, receiving = false;
    uint32_t attempt = 1, made_by = 1;
    uint64_t round = 0;
    std::map<uint64_t, uint32_t> chunks;  // that were written in this round: by offset, which run made them
    WantNo want = 0;                      // 0: nobody waits here
    PullPriority priority = PullPriority::kGet;
    std::string answer;
    Time done{};
  };
  struct Member {
    Member(const PullConfig& p, const PushConfig& q) : pull(p), push(q) {}
    PullCore pull;
    PushCore push;
    bool dead = false;
    std::map<uint32_t, Copy> copies;
    uint64_t sent_bytes = 0;
    Time sending_until{};  // its way out is busy
    Time takes_again{};    // until then it reads nothing
    Time progress{};       // when something came, or the wait for it began
  };

  explicit TransferModel(TransferModelConfig config) : config_(std::move(config)), random_(config_.seed) {
    for (uint32_t i = 0; i < config_.nodes; ++i) {
      config_.pull.self = Node(i);
      members_.push_back(std::make_unique<Member>(config_.pull, config_.push));
      for (uint32_t o = 0; o < config_.sizes.size(); ++o) {
        Copy& copy = members_[i]->copies[o];
        copy.sealed = i < config_.holders + config_.older;
        if (i >= config_.holders && copy.sealed) copy.made_by = 0, copy.attempt = i % 2;
      }
    }
  }

  static NodeId Node(uint32_t n) { return Id<NodeId>(n); }
  static ObjectId Object(uint32_t n) { return Id<ObjectId>(n); }
  uint32_t Below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  Member& member(uint32_t node) { return *members_[node]; }
  Copy& copy(uint32_t node, uint32_t object) { return members_[node]->copies.at(object); }
  Time now() const { return now_; }
  Duration longest_wait() const { return longest_wait_; }
  const std::string& longest_wait_text() const { return longest_wait_text_; }

  void After(Duration delay, std::function<void()> event) { events_.emplace(now_ + delay, std::move(event)); }

  // Told where the holders are, and some of those who have a copy by now. After a failure that another look may mend it wants it again.
  void Want(uint32_t i, uint32_t object, PullPriority priority) {
    Member& m = *members_[i];
    Copy& copy = m.copies.at(object);
    if (m.dead || copy.want != 0) return;
    if (m.pull.size() == 0) m.progress = now_;
    copy.want = ++last_want_;
    copy.priority = priority;
    copy.answer.clear();
    PullRequest request{copy.want, Object(object), config_.sizes[object], {}, priority, /*attempt=*/1};
    for (uint32_t n = 0; n < members_.size(); ++n) {
      if (n < config_.holders || (!config_.only_holders && members_[n]->copies.at(object).sealed && Below(2) == 0))
        request.nodes.push_back(Node(n));
    }
    PullEffects out;
    m.pull.Want(request, now_, &out);
    CarryOut(i, &out);
  }
  void Cancel(uint32_t i, uint32_t object) {
    Member& m = *members_[i];
    Copy& copy = m.copies.at(object);
    if (m.dead || copy.want == 0) return;
    PullEffects out;
    m.pull.Cancel(std::exchange(copy.want, 0), now_, &out);
    CarryOut(i, &out);
  }
  void Kill(uint32_t node) {
    if (members_[node]->dead) return;
    members_[node]->dead = true;
    for (uint32_t i = 0; i < members_.size(); ++i) {
      After(std::chrono::milliseconds(Below(1000)), [this, i, node] {
        Member& m = *members_[i];
        if (m.dead) return;
        PullEffects pulls;
        m.pull.OnNodeDead(Node(node), now_, &pulls);
        CarryOut(i, &pulls);
        PushEffects pushes;
        m.push.OnNodeDead(Node(node), &pushes);
        CarryOut(i, &pushes);
      });
    }
  }
  // Neither reads nor computes for so long: what is sent to it stays with the senders. Its own timers run when it is back.
  void StandStill(uint32_t node, Duration time) { members_[node]->takes_again = std::max(members_[node]->takes_again, now_ + time); }
  bool StandsStill(uint32_t node) const { return members_[node]->takes_again > now_; }

  void Run(Duration limit) {
    const Time end = now_ + limit;
    while (true) {
      Time next = events_.empty() ? Time::Infinite() : events_.begin()->first;
      uint32_t who = UINT32_MAX;
      for (uint32_t i = 0; i < members_.size(); ++i) {
        if (members_[i]->dead) continue;
        Time due = std::min(members_[i]->pull.NextDeadline(), members_[i]->push.NextDeadline());
        if (!due.is_infinite()) due = std::max(due, members_[i]->takes_again);
        if (due < next) next = due, who = i;
      }
      if (next > end || next.is_infinite()) break;
      now_ = std::max(now_, next);
      if (who != UINT32_MAX) {
        PullEffects pulls;
        members_[who]->pull.OnTimer(now_, &pulls);
        CarryOut(who, &pulls);
        PushEffects pushes;
        members_[who]->push.OnTimer(now_, &pushes);
        CarryOut(who, &pushes);
      } else {
        auto event = std::move(events_.begin()->second);
        events_.erase(events_.begin());
        event();
      }
    }
    now_ = std::max(now_, end);
    for (uint32_t i = 0; i < members_.size(); ++i) {
      if (!members_[i]->dead && members_[i]->pull.size() > 0) Waited(i);
    }
  }

  // Of all who wanted something and live: whether each has its answer, and nothing is left over.
  void ExpectAllAnswered(const std::string& what) {
    for (uint32_t i = 0; i < members_.size(); ++i) {
      const Member& m = *members_[i];
      if (m.dead) continue;
      for (const auto& [object, copy] : m.copies) {
        EXPECT_EQ(copy.want, 0u) << what << ": node " << i << ", object " << object << ": " << m.pull.Explain(Object(object), now_);
      }
      EXPECT_EQ(m.pull.size(), 0u) << what;
      EXPECT_EQ(m.pull.active_bytes(), 0u) << what;
      EXPECT_EQ(m.pull.asked_bytes(), 0u) << what;
      EXPECT_EQ(m.push.sending_bytes(), 0u) << what;
    }
  }

 private:
  struct Serving {
    uint32_t to, from;
    FetchWanted fetch;
  };
  // Between two nodes, for both directions.
  struct Link {
    uint64_t epoch = 0;
    std::map<FetchNo, uint32_t> asked[2];  // by the one with the lower number, by the other; of this epoch
    std::set<ServeNo> sending;             // over it
    Time free_at[2] = {};                  // nothing overtakes what was sent before
  };

  template <typename IdType>
  static IdType Id(uint32_t n) {
    std::string bytes(IdType::kSize, '\1');
    bytes[0] = static_cast<char>(n);
    bytes[1] = static_cast<char>(n >> 8);
    return IdType::FromBinaryOrNil(bytes);
  }
  template <typename IdType>
  static uint32_t Number(const IdType& id) {
    return static_cast<uint8_t>(id.data()[0]) + 256u * static_cast<uint8_t>(id.data()[1]);
  }

  bool OneIn(uint32_t n) { return n != 0 && Below(n) == 0; }
  Duration Latency() {
    const auto late = static_cast<uint32_t>(std::chrono::duration_cast<std::chrono::microseconds>(config_.max_late).count());
    return std::chrono::microseconds(100 + (late > 0 ? Below(late) : 0));
  }
  Link& LinkOf(uint32_t a, uint32_t b) { return links_[{std::min(a, b), std::max(a, b)}]; }

  // Over the link from one node to the other, unless that breaks meanwhile.
  void Send(uint32_t from, uint32_t to, Time ready, std::function<void()> event) {
    if (OneIn(config_.break_in)) Break(from, to);
    if (OneIn(config_.lost_in)) return;
    Link& link = LinkOf(from, to);
    Time& free_at = link.free_at[from < to ? 0 : 1];
    free_at = std::max(free_at, ready + Latency());
    Deliver(from, to, free_at, link.epoch, std::move(event));
  }
  void Deliver(uint32_t from, uint32_t to, Time at, uint64_t epoch, std::function<void()> event) {
    events_.emplace(at, [this, from, to, epoch, event = std::move(event)]() mutable {
      if (members_[to]->dead || LinkOf(from, to).epoch != epoch) return;
      if (StandsStill(to)) return Deliver(from, to, members_[to]->takes_again, epoch, std::move(event));
      event();
    });
  }
  // Both ends hear of it; what was on the way is lost.
  void Break(uint32_t a, uint32_t b) {
    Link& link = LinkOf(a, b);
    ++link.epoch;
    for (int side : {0, 1}) {
      for (const auto& [fetch, who] : std::exchange(link.asked[side], {})) Unreachable(who, fetch);
    }
    for (const ServeNo serve : std::exchange(link.sending, {})) {
      const auto sent = sending_.find(serve);
      if (sent != sending_.end()) After(Latency(), [this, serve] { Sent(serve); });
    }
  }
  void Unreachable(uint32_t i, FetchNo fetch) {
    After(Latency(), [this, i, fetch] {
      Member& m = *members_[i];
      if (m.dead) return;
      PullEffects out;
      m.pull.OnRefused(fetch, Refusal::kUnreachable, {}, 0, now_, &out);
      CarryOut(i, &out);
    });
  }

  void Waited(uint32_t i) {
    Member& m = *members_[i];
    if (now_ - m.progress <= longest_wait_) return;
    longest_wait_ = now_ - m.progress;
    longest_wait_text_ = "node " + std::to_string(i) + " until " + std::to_string((now_ - Time{0}).count() / 1000000) + " ms";
    for (uint32_t n = 0; n < members_.size(); ++n) {  // whom it waits for may wait in turn
      for (const auto& [object, copy] : members_[n]->copies) {
        const std::string text = members_[n]->pull.Explain(Object(object), now_);
        if (!members_[n]->dead && !text.empty())
          longest_wait_text_ += "\n  node " + std::to_string(n) + ", object " + std::to_string(object) + ": " + text;
      }
    }
  }
  void Progress(uint32_t i) {
    Waited(i);
    members_[i]->progress = now_;
  }

  void CarryOut(uint32_t i, PullEffects* out) {
    Member& m = *members_[i];
    for (PullEffect& effect : std::exchange(*out, {})) {
      if (auto* e = std::get_if<RoomWanted>(&effect)) {
        After(Latency(), [this, i, e = *e] {
          Member& m = *members_[i];
          if (m.dead || m.pull.RoundOf(e.id) != e.round) return;
          Copy& copy = m.copies.at(Number(e.id));
          if (!copy.sealed) {
            copy.round = e.round;
            copy.chunks.clear();
            copy.receiving = true;
            m.push.OnPartial(e.id, e.size, /*attempt=*/1);
          }
          copy.attempt = 1;  // from now on, where it was here
          PullEffects out;
          m.pull.OnRoom(e.id, e.round, Status::Ok(), copy.sealed, now_, &out);
          CarryOut(i, &out);
        });
      } else if (auto* e = std::get_if<FetchWanted>(&effect)) {
        EXPECT_LE(m.pull.asked_bytes(), config_.pull.max_asked_bytes + config_.nodes * config_.pull.chunk_bytes);
        PushEffects pushes;
        m.push.OnPartialDepth(e->id, e->depth, &pushes);
        Fetch(i, *e);
        CarryOut(i, &pushes);
      } else if (auto* e = std::get_if<SourceLeft>(&effect)) {
        const uint32_t to = Number(e->node);
        Send(i, to, now_, [this, i, to, id = e->id] {
          PushEffects out;
          members_[to]->push.OnLeft(Node(i), id, &out);
          CarryOut(to, &out);
        });
      } else if (auto* e = std::get_if<PullComplete>(&effect)) {
        Copy& copy = m.copies.at(Number(e->id));
        const uint64_t chunk = config_.pull.chunk_bytes;
        EXPECT_EQ(copy.round, e->round);
        EXPECT_EQ(copy.chunks.size(), (config_.sizes[Number(e->id)] + chunk - 1) / chunk);
        copy.made_by = copy.chunks.begin()->second;
        for (const auto& [offset, made_by] : copy.chunks) EXPECT_EQ(made_by, copy.made_by) << "a value of two runs";
        copy.sealed = copy.pinned = true;
        copy.receiving = false;
        PushEffects pushes;
        m.push.OnPartialEnd(e->id, true, &pushes);
        CarryOut(i, &pushes);
      } else if (auto* e = std::get_if<PullDropped>(&effect)) {
        Copy& copy = m.copies.at(Number(e->id));
        if (!copy.receiving || copy.round != e->round) continue;
        copy.receiving = false;
        PushEffects pushes;
        m.push.OnPartialEnd(e->id, false, &pushes);
        CarryOut(i, &pushes);
      } else if (auto* e = std::get_if<PullAnswered>(&effect)) {
        Answered(i, *e);
      }
    }
  }

  void Answered(uint32_t i, const PullAnswered& e) {
    Member& m = *members_[i];
    const auto at = std::find_if(m.copies.begin(), m.copies.end(), [&](const auto& entry) { return entry.second.want == e.want; });
    ASSERT_NE(at, m.copies.end()) << "answered twice, or after its end";
    Copy& copy = at->second;
    copy.want = 0;
    copy.answer = e.status.ok() ? "ok" : std::string(StatusCodeName(e.status.code()));
    copy.done = now_;
    Progress(i);
    if (e.status.ok()) {
      EXPECT_TRUE(copy.sealed);
    }
    const bool some_hold =
        std::any_of(members_.begin(), members_.begin() + config_.holders, [](const auto& holder) { return !holder->dead; });
    if (e.status.code() == StatusCode::kNotFound && some_hold) {
      After(std::chrono::milliseconds(1), [this, i, object = at->first, priority = copy.priority] { Want(i, object, priority); });
    }
  }

  void Fetch(uint32_t i, const FetchWanted& e) {
    const uint32_t from = Number(e.node);
    if (OneIn(config_.refused_in) || members_[from]->dead) return Unreachable(i, e.fetch);
    LinkOf(i, from).asked[i < from ? 0 : 1][e.fetch] = i;
    Send(i, from, now_, [this, i, from, e] {
      Member& m = *members_[from];
      Copy& copy = m.copies.at(Number(e.id));
      if (from >= config_.holders && !copy.pinned && copy.want == 0 && OneIn(config_.evict_in)) copy.sealed = false;
      const ServeNo serve = ++last_serve_;
      serving_[serve] = {i, from, e};
      PushEffects out;
      m.push.OnRequest({serve, Node(i), e.id, e.offset, e.length, e.insist, e.depth, e.attempt}, now_, &out);
      CarryOut(from, &out);
    });
  }

  void Reply(const Serving& to, Time ready, std::function<void()> event) {
    Send(to.from, to.to, ready, [this, to, event = std::move(event)] {
      LinkOf(to.from, to.to).asked[to.to < to.from ? 0 : 1].erase(to.fetch.fetch);
      event();
    });
  }

  void CarryOut(uint32_t i, PushEffects* out) {
    for (PushEffect& effect : std::exchange(*out, {})) {
      Member& m = *members_[i];
      if (auto* e = std::get_if<PinWanted>(&effect)) {
        After(Latency(), [this, i, id = e->id] {
          Member& m = *members_[i];
          if (m.dead) return;
          Copy& copy = m.copies.at(Number(id));
          copy.pinned = copy.sealed;
          PushEffects out;
          m.push.OnPinned(id, copy.sealed, config_.sizes[Number(id)], copy.attempt, now_, &out);
          CarryOut(i, &out);
        });
      } else if (auto* e = std::get_if<PinDropped>(&effect)) {
        m.copies.at(Number(e->id)).pinned = false;
      } else if (auto* e = std::get_if<ServeRefused>(&effect)) {
        const Serving to = serving_.at(e->serve);
        serving_.erase(e->serve);
        Reply(to, now_, [this, to, refusal = e->refusal, other = e->other, depth = e->other_depth] {
          PullEffects out;
          members_[to.to]->pull.OnRefused(to.fetch.fetch, refusal, other, depth, now_, &out);
          CarryOut(to.to, &out);
        });
      } else if (auto* e = std::get_if<ServeChunk>(&effect)) {
        const Copy& copy = m.copies.at(Number(e->id));
        EXPECT_TRUE(copy.sealed || copy.chunks.contains(e->offset));
        m.sending_until = std::max(m.sending_until, now_) + Duration(static_cast<int64_t>(static_cast<double>(e->length) / kBytesPerNs));
        m.sent_bytes += e->length;
        const Serving to = serving_.at(e->serve);
        serving_.erase(e->serve);
        sending_[e->serve] = i;
        LinkOf(i, to.to).sending.insert(e->serve);
        const uint32_t made_by = copy.sealed ? copy.made_by : copy.chunks.at(e->offset);
        EXPECT_GE(copy.attempt, to.fetch.attempt);
        Reply(to, m.sending_until, [this, i, serve = e->serve, to, made_by] {
          Sent(serve);
          PullEffects out;
          const bool wanted = members_[to.to]->pull.OnArrived(to.fetch.fetch, made_by, now_, &out);
          CarryOut(to.to, &out);
          if (!wanted) return;
          Progress(to.to);
          After(Latency(), [this, to, made_by] { Written(to.to, to.fetch, made_by); });
        });
        // A link that loses it has taken it all the same.
        if (config_.lost_in != 0) After(m.sending_until + std::chrono::milliseconds(50) - now_, [this, serve = e->serve] { Sent(serve); });
      }
    }
  }

  void Sent(ServeNo serve) {
    const auto node = sending_.extract(serve);
    if (node.empty()) return;
    const uint32_t i = node.mapped();
    if (members_[i]->dead) return;
    PushEffects out;
    members_[i]->push.OnSent(serve, &out);
    CarryOut(i, &out);
  }

  void Written(uint32_t i, const FetchWanted& e, uint32_t made_by) {
    Member& m = *members_[i];
    if (m.dead) return;
    Copy& copy = m.copies.at(Number(e.id));
    if (copy.receiving && copy.round == e.round) {
      copy.chunks[e.offset] = made_by;
      PushEffects pushes;
      m.push.OnChunkHere(e.id, e.offset, now_, &pushes);
      CarryOut(i, &pushes);
    }
    PullEffects out;
    m.pull.OnWritten(e.fetch, now_, &out);
    CarryOut(i, &out);
  }

  TransferModelConfig config_;
  std::mt19937 random_;
  std::vector<std::unique_ptr<Member>> members_;
  std::map<std::pair<uint32_t, uint32_t>, Link> links_;
  Time now_{int64_t{1000000000}};
  std::multimap<Time, std::function<void()>> events_;
  std::map<ServeNo, Serving> serving_;
  std::map<ServeNo, uint32_t> sending_;  // at which node
  WantNo last_want_ = 0;
  ServeNo last_serve_ = 0;
  Duration longest_wait_{};
  std::string longest_wait_text_;
};

}  // namespace ray::object_manager
