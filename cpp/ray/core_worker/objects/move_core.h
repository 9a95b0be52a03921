// MoveCore: copies that an owner has another node keep, since those that it knows of are about to go with their node (docs/architecture/cluster.md, "Drain").
//
//   asked ──PullKept, bring──> there: the copy is known, the asker hears that it is safe
//                              not there: the asker hears that it is not
//                              fate unknown, for the way to the node broke: the asker hears that it is not, and may name another node; this one may have a
//                              copy that nobody knows of, and would keep it until the owner ends
//                                └──after a pause, PullKept without bring, again and again──> there: the copy is known
//                                                                                             not there, or the node is dead: settled
//
// Pure core (docs/contributing/style.md): events and time in, effects out, in order. Owned by the ObjectCopies; on the loop.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <variant>
#include <vector>

#include "ray/common/copy_run.h"
#include "ray/util/clock.h"

namespace ray::core {

struct MoveConfig {
  Duration first_pause = std::chrono::milliseconds(100);
  Duration longest_pause = std::chrono::seconds(5);
};

// Effects, to be carried out in order.
struct PullKept {  // the node is to keep its copy, and to get one if it has none and `bring`; then OnAnswer
  uint64_t call = 0;
  CopyRun copy;
  NodeId node;
  bool bring = false;
};
struct CopyKept {  // the node has one that counts, whether it is wanted still or not
  CopyRun copy;
  NodeId node;
};
struct MoveAnswered {
  uint64_t question = 0;
  CopyRun copy;
  bool safe = false;
};
using MoveEffect = std::variant<PullKept, CopyKept, MoveAnswered>;
using MoveEffects = std::vector<MoveEffect>;

class MoveCore {
 public:
  enum class Outcome {
    kThere,
    kNotThere,
    kNotSent,
    kUnknown,  // whether the node has heard it
  };
  explicit MoveCore(const MoveConfig& config = {}) : config_(config) {}

  // Answered once.
  void Move(uint64_t question, const CopyRun& copy, const NodeId& node, MoveEffects* out);
  // Of calls that are not under way any more: nothing.
  void OnAnswer(uint64_t call, Outcome outcome, Time now, MoveEffects* out);
  void OnNodeDead(const NodeId& node, MoveEffects* out);
  void OnTimer(Time now, MoveEffects* out);
  Time NextDeadline() const;
  size_t size() const { return moves_.size(); }

 private:
  using Key = std::tuple<NodeId, ObjectId, uint32_t>;
  struct Attempt {
    uint64_t call = 0;  // that is under way; 0: none
    bool bring = false;
    bool doubtful = false;  // the node may have a copy: the fate of an earlier call is not known
    Duration pause{};
    Time again{};  // if no call is under way
    std::vector<uint64_t> questions;
  };
  void Call(const Key& key, Attempt* move, bool bring, MoveEffects* out);
  static void Answer(const Key& key, Attempt* move, bool safe, MoveEffects* out);
  static CopyRun CopyOf(const Key& key) { return {std::get<ObjectId>(key), std::get<uint32_t>(key)}; }

  const MoveConfig config_;
  std::map<Key, Attempt> moves_;
  std::map<uint64_t, Key> calls_;  // that are under way
  uint64_t last_call_ = 0;
};

}  // namespace ray::core
