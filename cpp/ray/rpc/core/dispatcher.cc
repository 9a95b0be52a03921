#include "ray/rpc/core/dispatcher.h"

#include <bit>
#include <cstdint>
#include <optional>
#include <string>

#include "ray/util/check.h"
#include "ray/util/logging.h"
#include "ray/wire/method_rules.h"

namespace ray::rpc {
void Dispatcher::Register(MethodId method, Handler handler) {
  auto n = static_cast<size_t>(method);
  RAY_CHECK(n < handlers_.size() && !handlers_[n]) << "handler of " << MethodName(method) << " registered twice";
  handlers_[n] = std::move(handler);
}

void Dispatcher::RegisterDirect(MethodId method, Handler handler) {
  Register(method, std::move(handler));
  direct_[static_cast<size_t>(method)] = has_direct_ = true;
}

void Dispatcher::RegisterFallback(Handler handler) {
  RAY_CHECK(!fallback_) << "fallback registered twice";
  fallback_ = std::move(handler);
}

void Dispatcher::Dispatch(Request request, Responder responder) const {
  if (request.one_way) {
    // Its handler would answer, and there is nobody to answer.
    if (const std::optional<MethodRule> rule = RuleOf(request.method); rule && !rule->one_way) {
      // Said the first, second, fourth time and so on, lest a peer fills the log.
      if (const uint64_t n = ++dropped_[static_cast<size_t>(request.method)]; std::has_single_bit(n)) {
        RAY_LOG(WARNING) << MethodName(request.method) << " came without a call, and is dropped: it has an answer (" << n << " so far)";
      }
      return;
    }
  }
  auto n = static_cast<size_t>(request.method);
  const Handler& handler = n < handlers_.size() && handlers_[n] ? handlers_[n] : fallback_;
  if (handler) {
    handler(std::move(request), std::move(responder));
  } else if (responder.valid()) {
    responder.Fail(
        Status::Unimplemented("no handler here for " + std::string(MethodName(request.method)) + " (" + std::to_string(n) + ")"));
  }
}

}  // namespace ray::rpc
