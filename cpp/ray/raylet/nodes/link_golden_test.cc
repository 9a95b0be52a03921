// Replays tests/scenarios/link. Nodes are numbers, this node is 0; lanes are `control`, or `bulk` where that word is there. The events:
//   config [dials-only] backoff= max-backoff= redial= patience=
//   alive N [no-address]     dead N REASON         want N                 incoming N
//   up N LINK                failed N LINK WHY     closed N LINK WHY      after SPAN
//   state N                  what is sent on, and when the core wants to be asked next
#include <gtest/gtest.h>

#include <memory>

#include "ray/raylet/nodes/link_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::raylet {
namespace {

using testing::GoldenEvent;

NodeId Node(uint64_t number) {
  std::string bytes(NodeId::kSize, '\0');
  bytes.back() = static_cast<char>(number);
  return NodeId::FromBinaryOrNil(bytes);
}

std::string Text(const NodeId& node) { return "node " + std::to_string(static_cast<uint8_t>(node.Binary().back())); }
std::string Text(Lane lane) { return lane == Lane::kBulk ? "bulk" : "control"; }

struct Show {
  std::string operator()(const DialLink& e) const {
    return "dial " + Text(e.node) + " " + Text(e.lane) + " as link " + std::to_string(e.link) + " at " + e.address;
  }
  std::string operator()(const DialAgain& e) const { return "dial link " + std::to_string(e.link) + " again"; }
  std::string operator()(const DropLink& e) const { return "drop link " + std::to_string(e.link) + ": " + e.reason; }
  std::string operator()(const NodeJoined& e) const { return Text(e.node) + " has joined"; }
  std::string operator()(const NodeGone& e) const { return Text(e.node) + " is gone"; }
  std::string operator()(const LinkUp& e) const { return Text(e.node) + " " + Text(e.lane) + " is up"; }
  std::string operator()(const LinkBroke& e) const { return Text(e.node) + " " + Text(e.lane) + " broke: " + e.reason; }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    const std::string& name = event.name();
    if (name == "config") {
      LinkConfig config;
      config.min_backoff = event.Span("backoff", config.min_backoff);
      config.max_backoff = event.Span("max-backoff", config.max_backoff);
      config.max_redial = event.Span("redial", config.max_redial);
      config.patience = event.Span("patience", config.patience);
      core_ = std::make_shared<LinkCore>(Node(0), !event.Has("dials-only"), config);
      return {};
    }
    if (name == "after") {
      now_ = now_ + event.Span(0);
      LinkEffects effects;
      core_->Tick(now_, &effects);
      return Lines(effects);
    }
    const NodeId node = Node(event.Number(0));
    const Lane lane = event.Has("bulk") ? Lane::kBulk : Lane::kControl;
    if (name == "state") {
      const LinkNo link = core_->Current(node, lane);
      const Time next = core_->NextDeadline();
      const auto due = std::chrono::duration_cast<std::chrono::milliseconds>(next.is_infinite() ? Duration::zero() : next - now_).count();
      return {(link == 0 ? "no link" : "link " + std::to_string(link)) +
              (next.is_infinite() ? ", nothing is due" : ", due in " + std::to_string(due) + "ms")};
    }
    LinkEffects effects;
    std::vector<std::string> lines;
    if (name == "alive") {
      core_->OnAlive(node, event.Has("no-address") ? "" : "10.0.0." + event.Word(0) + ":1", now_, &effects);
    } else if (name == "dead") {
      core_->OnDead(node, event.Word(1), &effects);
    } else if (name == "want") {
      core_->Want(node, lane, now_, &effects);
    } else if (name == "incoming") {
      const LinkNo link = core_->NewLink();
      lines.push_back(core_->OnIncoming(node, lane, link, &effects) ? "it is link " + std::to_string(link) : "refused");
    } else if (name == "up") {
      core_->OnUp(node, lane, event.Number(1));
    } else if (name == "failed") {
      core_->OnDialFailed(node, lane, event.Number(1), event.Word(2), now_, &effects);
    } else if (name == "closed") {
      core_->OnClosed(node, lane, event.Number(1), event.Word(2), now_, &effects);
    } else {
      event.Fail("no such event: " + name);
    }
    for (std::string& line : Lines(effects)) lines.push_back(std::move(line));
    return lines;
  }

 private:
  static std::vector<std::string> Lines(const LinkEffects& effects) {
    std::vector<std::string> lines;
    for (const LinkEffect& effect : effects) lines.push_back(std::visit(Show(), effect));
    return lines;
  }

  std::shared_ptr<LinkCore> core_ = std::make_shared<LinkCore>(Node(0), true, LinkConfig());
  Time now_{1};
};

TEST(LinkGolden, Scenarios) {
  testing::ReplayGoldens("link", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::raylet
