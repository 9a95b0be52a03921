// ActorHistory: what the callers of one actor were told, what the actor ran, and whether that can be. The actor appends each call to a log that begins anew with
// each incarnation and answers with the place of the entry, so that the answers themselves tell the order.
//
//   * Every call has one outcome; none has two, and none is without, unless its caller died.
//   * A call runs once at most for each attempt that it was allowed.
//   * What a caller was told did happen, between the call and its answer, and no two calls were given the same place.
//   * The calls of one caller take their places in the order in which they were made (FIFO).
//   * A call that was made after another was answered comes after it, whoever made them: together with the former, each incarnation is linearizable.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ray/util/clock.h"

namespace ray::sim {

struct CallId {
  uint64_t caller = 0;
  uint64_t number = 0;  // in the order of the calls of `caller`, from 0
  auto operator<=>(const CallId&) const = default;
};

struct LogPlace {
  uint64_t incarnation = 0, index = 0;
  auto operator<=>(const LogPlace&) const = default;
};

enum class CallOutcome { kDone, kUnavailable, kDead };

class ActorHistory {
 public:
  // `retries`: -1 without end.
  void Submitted(CallId call, int32_t retries, Time now);
  void Executed(CallId call, LogPlace place, Time now);
  // `place`: of kDone.
  void Settled(CallId call, CallOutcome outcome, LogPlace place, Time now);
  // Its calls need no outcome any more.
  void CallerDied(uint64_t caller);

  // Empty: all is well; else the first thing that cannot be. `at_rest`: every call must have its outcome.
  std::string Check(bool at_rest = true) const;
  size_t submitted() const { return calls_.size(); }
  size_t executed() const { return log_.size(); }
  size_t settled(CallOutcome outcome) const;

 private:
  struct Call {
    int32_t retries = 0;
    Time submitted, settled = Time::Infinite();
    std::optional<CallOutcome> outcome;
    LogPlace place;
    int32_t runs = 0;
  };
  struct Entry {
    CallId call;
    Time at;
  };
  void Note(std::string fault);
  std::string CheckPlaces() const;
  std::string CheckRealTime() const;

  std::map<CallId, Call> calls_;
  std::map<LogPlace, Entry> log_;
  std::set<uint64_t> dead_callers_;
  std::string fault_;  // seen while it was written
};

}  // namespace ray::sim
