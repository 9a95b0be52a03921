// FaultCore: what is to happen to the messages that a process sends, for tests: lost, answered in vain, doubled, late, overtaken. Pure, and settled by a
// seed: the n-th message of a method fares the same in every run, whatever else is sent in between.
//
// What may happen to a method is bounded by its rule (wire/method_rules.h). Streams lose nothing by themselves, so a loss is of two kinds. Where the rule lets a
// message be sent again it is, over the connection that goes on: which shows whether the rule is true. Where it does not, a loss is what it is in
// life: the end of the connection; such methods must be named, a wildcard does not reach them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "ray/util/clock.h"
#include "ray/util/status.h"
#include "ray/wire/methods.h"

namespace ray::rpc {

struct MethodFaults {
  int64_t max_losses = -1;  // of all kinds; -1: without end
  // Percent of the messages.
  double lose_request = 0, lose_reply = 0;
  double lose_in_flight = 0;  // sent again while the first one is being handled
  double duplicate = 0;
  double delay = 0;
  double reorder = 0;                                               // of methods that are `unordered`
  double break_connection = 0;                                      // instead of sending it
  Duration min_delay{}, max_delay = std::chrono::milliseconds(20);  // of delays
};

struct FaultConfig {
  std::map<MethodId, MethodFaults> named;
  std::optional<MethodFaults> any;  // of methods that are not named
  uint64_t seed = 0;

  // Ray's RAY_testing_rpc_failure, "METHOD=MAX:REQUEST:REPLY[:IN_FLIGHT][:NAME=PERCENT]...", several separated by commas. METHOD is "*", or a name as "PushTask",
  // "WorkerTask.PushTask", or any with such an end. MAX bounds the losses, -1 does not. Further NAMEs: duplicate, reorder, break, and delay as PERCENT@MILLISECONDS
  // or PERCENT@MINus-MAXus. A method may be named again to add to what was said of it; MAX may be empty then. INVALID_ARGUMENT, with what is wrong.
  static Result<FaultConfig> Parse(std::string_view text, uint64_t seed);
  bool empty() const { return named.empty() && !any; }
};

enum class Loss : uint8_t { kNone, kRequest, kReply, kInFlight };

struct Fate {
  Loss loss = Loss::kNone;
  bool duplicate = false;
  bool overtaken = false;  // let the next message by
  bool broken = false;     // the connection ends, and the message is not sent
  Duration delay{};        // before it is sent, and with a loss: before it is sent again
  bool harmless() const { return loss == Loss::kNone && !duplicate && !overtaken && !broken && delay == Duration::zero(); }
};

class FaultCore {
 public:
  explicit FaultCore(FaultConfig config) : config_(std::move(config)) {}
  // Of the next message of that method, first or repeated.
  Fate Next(MethodId method);
  // Of all messages so far.
  struct Counts {
    uint64_t messages = 0, lost = 0, duplicated = 0, delayed = 0, overtaken = 0, broken = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Method {
    uint64_t random = 0;
    int64_t losses = 0;
    bool seeded = false;
  };
  const FaultConfig config_;
  std::array<Method, kMaxMethodId> methods_{};
  Counts counts_;
};

}  // namespace ray::rpc
