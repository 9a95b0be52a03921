// Handover: a process that leaves in good order hands to the adopter what others still hold (docs/architecture/ownership.md, "Leaving in good order").
//
// Shell of the HandoverCore; part of the ObjectService. Requests of borrowers go through Defer while it is under way, so that the counts that are handed
// over are the last ones. Thread-safe; no lock is held while calling out.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <unordered_set>
#include <vector>

#include "ray/core_worker/objects/borrowing.h"
#include "ray/core_worker/objects/handover_core.h"
#include "ray/core_worker/objects/object_context.h"
#include "ray/util/mutex.h"
#include "ray/v1/object_adoption.pb.h"

namespace ray::core {

struct HandoverOptions {
  NodeId adopter;            // nil: nobody takes anything
  bool node_leaves = false;  // the store of this node goes, too
  size_t max_inline_bytes =
      4 << 10;  // larger values go to this node's store first, so that the adopter does not have to keep them in memory
  HandoverConfig timeouts;
};

class Handover {
 public:
  Handover(ObjectContext* context, Borrowing* borrowing, HandoverOptions options)
      : context_(*context), borrowing_(*borrowing), options_(options), core_(options.timeouts) {}

  // [blocks] Once. `wait_for_tasks`: first until what others hold has a value, or a signal comes; else what has none fails for them. Nothing is owned
  // by this process any more afterwards as far as others see, or they will lose it with the process.
  void Run(bool wait_for_tasks);
  // Of requests that count borrowers: whether they have to go through Defer.
  bool active() const { return active_.load(std::memory_order_acquire); }
  // `serve(moved)` once it is known whether the asker is to turn to the adopter; maybe at once.
  void Defer(std::function<void(bool moved)> serve);
  const NodeId& adopter() const { return options_.adopter; }

 private:
  struct Batch {
    v1::AdoptObjectsRequest request;
    PartList parts;
    size_t bytes = 0;
  };
  void WaitForValues();
  void Gather();                                             // [blocks]
  void MoveToStore(StoredValue* value, const ObjectId& id);  // [blocks]
  void BlockFor(async::Waiter* waiter, Time deadline);       // [blocks]
  void Apply(const HandoverEffects& effects);                // on the loop, as are the next
  void Apply(const SendObjects& effect);
  void Apply(const AnswerHeld& effect);
  void Apply(const TellBorrower& effect);
  void Apply(const SendCounts& effect);
  void Apply(const HandoverEnded& effect);
  void SendPart(std::vector<std::shared_ptr<v1::CompleteAdoptionRequest>> parts, size_t next);
  // Calls the adopter, again where the way to it breaks, until it answers, is dead, or `wanted` is no more.
  void TellAdopter(MethodId method, std::shared_ptr<const rpc::MessageLite> request, PartList parts, std::function<bool()> wanted,
                   std::function<void(const Status&)> done);
  void ArmTimer();
  Time Now() const { return context_.loop->clock().Now(); }

  ObjectContext& context_;
  Borrowing& borrowing_;
  const HandoverOptions options_;
  std::atomic<bool> active_{false};
  std::vector<Batch> batches_;                   // written before Begin, then constant
  std::unordered_set<ObjectId, IdHash> handed_;  // the same
  std::vector<Address> borrowers_;               // the same
  HandoverCore core_;                            // on the loop
  async::TimerId timer_ = 0;                     // on the loop
  std::shared_ptr<async::Waiter> ended_ = std::make_shared<async::Waiter>();
  Mutex mu_;
  enum class Verdict { kNone, kMoved, kServe };
  Verdict verdict_ GUARDED_BY(mu_) = Verdict::kNone;
  std::vector<std::function<void(bool)>> held_ GUARDED_BY(mu_);
};

}  // namespace ray::core
