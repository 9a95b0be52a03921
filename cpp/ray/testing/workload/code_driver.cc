#include "ray/testing/workload/code_driver.h"

#include <algorithm>
#include <utility>

#include "ray/testing/workload/sim_platform.h"

namespace ray::sim {

CodeDriver* CodeDriver::Start(SimNetwork* network, HostId host, const std::string& raylet_address, Main main) {
  Process* process = network->world()->NewProcess("driver", host);
  network->world()->Record("driver starts", {}, process->id(), host);
  const auto driver = std::make_shared<CodeDriver>(network, process, raylet_address.substr(0, raylet_address.rfind('/')), std::move(main));
  process->Own(driver);
  process->StartThread([driver] { driver->Run(); });
  return driver.get();
}

CodeDriver::CodeDriver(SimNetwork* network, Process* process, std::string sockets_dir, Main main)
    : network_(network), process_(process), sockets_dir_(std::move(sockets_dir)), main_(std::move(main)) {}

void CodeDriver::Run() {
  core::CoreWorkerConfig config;
  config.is_driver = true;
  config.session_dir = sockets_dir_;
  config.worker_id = WorkerId::FromRandom();
  config.python_version = "3.11.7";
  config.max_inline_bytes = kMaxInline;
  config.faults = network_->DrawMessageFaults();
  auto worker = core::CoreWorker::Start(config, std::make_unique<SimPlatform>(network_, process_, sockets_dir_));
  if (!worker.ok()) return process_->EndSoon(1);
  worker_ = std::move(*worker);
  process_->loop()->SetSignals(kSignals);
  session_ = std::make_unique<Session>(worker_.get(), process_);
  int code = 0;
  try {
    main_(this);
    holds_ = true;
    while (worker_->objects().Block(&finish_, Time::Infinite()) == core::ReadResult::kInterrupted) {
    }
  } catch (const SessionOver&) {
    code = 1;
  }
  kept_.clear();
  worker_->Shutdown("the driver is done");
  process_->EndSoon(code);
}

void CodeDriver::Keep(ActorHandle actor) {
  actors_.insert(actor.id);
  kept_.push_back(std::move(actor));
}

void CodeDriver::Finish() {
  if (process_->alive()) process_->Run([this] { finish_.Notify(); });
}

std::string CodeDriver::Left() const {
  std::string left;
  const core::ReferenceTable& references = worker_->objects().references();
  std::set<ObjectId> founded;  // with what is inside
  const auto found = [&](const ObjectId& first) {
    std::vector<ObjectId> next{first};
    while (!next.empty()) {
      const ObjectId id = next.back();
      next.pop_back();
      if (!founded.insert(id).second) continue;
      for (const ObjectRefInfo& inner : references.NestedOf(id)) next.push_back(inner.id);
    }
  };
  for (const core::ReferenceTable::Lent& object : references.LentOut()) found(object.id);  // others hold it, see CodeCounts
  size_t more = 0;
  const std::vector<core::ReferenceTable::Held> all = references.All(1000, &more);
  // Arguments that a constructor, or the task that made what is lent, may be given once more.
  size_t arguments = kept_.size() + founded.size();
  for (const core::ReferenceTable::Held& held : all) {
    if (held.local + held.contained + held.borrowers != 0 || held.submitted != 1 || arguments == 0) continue;
    --arguments;
    found(held.id);
  }
  for (const core::ReferenceTable::Held& held : all) {
    if (std::ranges::any_of(kept_, [&](const ActorHandle& actor) { return actor.ref.id() == held.id; })) continue;
    if (held.local == 0 && held.submitted <= 1 && founded.contains(held.id)) continue;
    left += " " + held.id.Hex() + " (" + std::to_string(held.local) + " handles, " + std::to_string(held.submitted) + " tasks, " +
            std::to_string(held.contained) + " values, " + std::to_string(held.borrowers) + " borrowers)";
  }
  return left;
}

std::vector<std::string> CodeDriver::Waiting() const {
  return session_ == nullptr ? std::vector<std::string>{"the start of the session"} : session_->waiting();
}

}  // namespace ray::sim
