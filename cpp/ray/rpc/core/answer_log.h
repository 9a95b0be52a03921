// AnswerLog: answers of requests that must be done once, by the key that their sender gave them, so that a repeat is answered as the first one was: with
// it, if that is still being done. Kept are the latest answers, within a number and a size; failures are not, since they changed nothing. Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "ray/rpc/core/connection.h"

namespace ray::rpc {

class AnswerLog {
 public:
  explicit AnswerLog(size_t max_answers, size_t max_bytes = size_t{4} << 20);
  ~AnswerLog();
  // Whether it is the first of that key: then it is to be done, and the answer given to `responder` is kept. Otherwise takes the responder.
  [[nodiscard]] bool Begin(const std::string& key, Responder* responder);
  // Of answers, and of requests that are being done.
  size_t size() const;

 private:
  struct State;
  class Watch;
  const std::shared_ptr<State> state_;  // responders may outlive the log
};

}  // namespace ray::rpc
