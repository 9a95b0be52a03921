// RequestLogCore: answers to requests that must not be done twice, by the id that their caller gave them. A caller whose answer was lost asks again with
// the same id, maybe of the next process. Pure; part of GcsState; on the loop.
#pragma once

#include <deque>
#include <string>
#include <unordered_map>

#include "ray/gcs_server/tables/effects.h"

namespace ray::gcs {

class RequestLogCore {
 public:
  // The oldest go first; nobody asks again after the time for which callers wait for the GCS.
  explicit RequestLogCore(size_t max_remembered = 10000) : max_remembered_(max_remembered) {}
  // What an earlier process stored. On an empty log.
  void Restore(const StorageContents& stored);
  // Its reply, serialised; null: it was not done yet.
  const std::string* Find(const std::string& id) const;
  // The request was done just now: `effects` have its answer to `call`. Failures are not kept: they changed nothing.
  void Done(const std::string& id, CallToken call, Effects* effects);

 private:
  static constexpr char kTable[] = "request";
  const size_t max_remembered_;
  std::unordered_map<std::string, std::string> replies_;
  std::deque<std::string> order_;  // oldest first; those of an earlier process in any order
};

}  // namespace ray::gcs
