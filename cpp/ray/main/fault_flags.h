// Flags by which tests make the messages of a process fare badly.
#pragma once

#include <memory>
#include <string>

#include "ray/async/loop.h"
#include "ray/rpc/core/faulty_connection.h"
#include "ray/util/flags.h"

namespace ray {

struct FaultFlags {
  std::string failures;
  int64_t seed = 0;

  void Add(FlagParser* flags) {
    flags->ConfigGroup("For tests");
    flags->Add("testing-rpc-failure",
               "messages that are lost, doubled, late or overtaken: METHOD=MAX:REQUEST:REPLY[:IN_FLIGHT][:NAME=PERCENT]..., as "
               "docs/architecture/rpc.md says",
               &failures);
    flags->Add("testing-rpc-failure-seed", "settles which ones", &seed);
  }
  Status Check() const { return rpc::FaultConfig::Parse(failures, static_cast<uint64_t>(seed)).status(); }
  // Null: none are asked for. REQUIRES: Check was fine.
  std::shared_ptr<rpc::FaultInjector> Make(async::Loop* loop) const {
    if (failures.empty()) return nullptr;
    return std::make_shared<rpc::FaultInjector>(rpc::FaultConfig::Parse(failures, static_cast<uint64_t>(seed)).value(), loop);
  }
};

}  // namespace ray
