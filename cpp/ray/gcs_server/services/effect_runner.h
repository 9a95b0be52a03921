// EffectRunner: carries out what the tables decided, in order: persist, then reply, then what others see.
//
// Effects of one event are a unit; units take effect in the order of their events, also where one has nothing to persist. While a write is under way
// units queue up, and the next write takes the rows of all of them (group commit). On the loop.
#pragma once

#include <deque>
#include <functional>
#include <unordered_map>

#include "ray/gcs_server/tables/effects.h"
#include "ray/rpc/core/connection.h"

namespace ray::gcs {

// What the runner does not do itself.
struct EffectHandlers {
  std::function<void(const Publish&)> publish;
  std::function<void(const StartOnNode&)> start;
  std::function<void(const KillOnNode&)> kill;
  std::function<void(const PrepareOnNode&)> prepare_bundles;
  std::function<void(const CommitOnNode&)> commit_bundles;
  std::function<void(const ReturnOnNode&)> return_bundles;
  std::function<void(const TellJobFinished&)> tell_job_finished;
  std::function<void(const TellDriver&)> tell_driver;
  // A write failed: what the tables say is not durable, so the process must end, and start again from what is.
  std::function<void(const Status&)> storage_failed;
};

class EffectRunner {
 public:
  EffectRunner(Storage* storage, EffectHandlers handlers) : storage_(storage), handlers_(std::move(handlers)) {}
  // Keeps the responder until the Answer with this token. 0 for a one-way message.
  CallToken Hold(rpc::Responder responder);
  // `then` runs after the unit's effects.
  void Run(Effects effects, std::function<void()> then = nullptr);

 private:
  struct Unit {
    Effects effects;
    std::function<void()> then;
  };
  void Pump();
  void Apply(Unit unit);

  Storage* const storage_;
  const EffectHandlers handlers_;
  CallToken last_token_ = 0;
  std::unordered_map<CallToken, rpc::Responder> held_;
  std::deque<Unit> queue_;
  bool busy_ = false;    // a write or a unit is under way
  bool failed_ = false;  // nothing is done any more
};

}  // namespace ray::gcs
