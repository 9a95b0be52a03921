#include "ray/gcs_server/services/effect_runner.h"

#include "ray/util/check.h"

namespace ray::gcs {

CallToken EffectRunner::Hold(rpc::Responder responder) {
  if (!responder.valid()) return 0;
  held_.emplace(++last_token_, std::move(responder));
  return last_token_;
}

void EffectRunner::Run(Effects effects, std::function<void()> then) {
  queue_.push_back({std::move(effects), std::move(then)});
  Pump();
}

void EffectRunner::Pump() {
  // A loop, since storages may call back at once, and handlers may run further units.
  while (!busy_ && !failed_ && !queue_.empty()) {
    busy_ = true;
    std::deque<Unit> units;
    units.swap(queue_);
    std::vector<StorageOp> rows;
    for (Unit& unit : units) {
      for (Effect& effect : unit.effects) {
        if (auto* row = std::get_if<Persist>(&effect)) rows.push_back(std::move(*row));
      }
    }
    auto apply = [this, units = std::make_shared<std::deque<Unit>>(std::move(units))](const Status& status) {
      if (!status.ok()) {
        failed_ = true;
        handlers_.storage_failed(status);
        return;
      }
      for (Unit& unit : *units) Apply(std::move(unit));
      busy_ = false;
    };
    if (rows.empty()) {
      apply({});
    } else {
      auto returned = std::make_shared<bool>(false);
      storage_->Write(std::move(rows), [this, apply, returned](const Status& status) {
        apply(status);
        if (*returned) Pump();  // else the loop below goes on
      });
      *returned = true;
    }
  }
}

void EffectRunner::Apply(Unit unit) {
  for (Effect& effect : unit.effects) {
    if (auto* answer = std::get_if<Answer>(&effect)) {
      auto held = held_.extract(answer->call);
      RAY_CHECK(!held.empty()) << "a second answer to one call";
      if (answer->status.ok()) {
        held.mapped().Send(*answer->reply);
      } else {
        held.mapped().Fail(answer->status);
      }
    } else if (auto* publish = std::get_if<Publish>(&effect)) {
      handlers_.publish(*publish);
    } else if (auto* start = std::get_if<StartOnNode>(&effect)) {
      handlers_.start(*start);
    } else if (auto* kill = std::get_if<KillOnNode>(&effect)) {
      handlers_.kill(*kill);
    } else if (auto* prepare = std::get_if<PrepareOnNode>(&effect)) {
      handlers_.prepare_bundles(*prepare);
    } else if (auto* commit = std::get_if<CommitOnNode>(&effect)) {
      handlers_.commit_bundles(*commit);
    } else if (auto* give_back = std::get_if<ReturnOnNode>(&effect)) {
      handlers_.return_bundles(*give_back);
    } else if (auto* job = std::get_if<TellJobFinished>(&effect)) {
      handlers_.tell_job_finished(*job);
    } else if (auto* message = std::get_if<TellDriver>(&effect)) {
      handlers_.tell_driver(*message);
    }
  }
  if (unit.then) unit.then();
}

}  // namespace ray::gcs
