// ExplainService: what this process knows of where objects, tasks and actors stand, and the questions that it asks others.
//
// Facts are those of one process: an owner's of its tasks and objects, an executor's of what it runs. Whoever wants the whole story follows their
// pointers from process to process (ray/_runtime/explain.py). Owned by the CoreWorker. Thread-safe.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/async/loop.h"
#include "ray/core_worker/actors/actor_service.h"
#include "ray/core_worker/execute/task_receiver.h"
#include "ray/core_worker/objects/object_service.h"
#include "ray/core_worker/peers/peer_pool.h"
#include "ray/core_worker/recovery/recovery_service.h"
#include "ray/core_worker/submit/actor_submitter.h"
#include "ray/core_worker/submit/task_submitter.h"
#include "ray/core_worker/tasks/task_manager.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/util/mutex.h"
#include "ray/v1/explain.pb.h"
#include "ray/wire/wait_fact.h"

namespace ray::core {

struct ExplainQuestion {
  Address address;  // as in WaitPointer
  v1::SubjectKind kind = v1::SUBJECT_KIND_UNSPECIFIED;
  std::string id;
  bool of_node = false;
};
struct ExplainAnswer {
  Status status;
  std::vector<v1::WaitFact> facts;  // none: nothing is known there
};

class ExplainService {
 public:
  struct Deps {
    async::UserLoop* loop = nullptr;
    PeerPool* peers = nullptr;
    ObjectService* objects = nullptr;
    TaskManager* tasks = nullptr;
    RecoveryService* recovery = nullptr;
    TaskSubmitter* submitter = nullptr;
    ActorSubmitter* actor_submitter = nullptr;
    ActorService* actors = nullptr;
    TaskReceiver* receiver = nullptr;
    Address self;
    int64_t pid = 0;  // of this process
    bool is_driver = false;
  };
  explicit ExplainService(const Deps& deps) : deps_(deps), times_(deps.loop->clock()) {}
  // kExplain.
  void RegisterHandlers(rpc::Dispatcher* dispatcher);

  // What this process knows itself. Never blocks.
  std::vector<v1::WaitFact> Local(v1::SubjectKind kind, std::string_view id) const;
  // What is known of tasks that this process owned, for after its end: those that have not ended by now count as failed. None: it owned none.
  std::optional<v1::LeaveTasksRequest> TasksToLeave() const;
  // Where in the program the object was made, for who asks for references. The last so many are kept.
  void NoteSite(const ObjectId& id, std::string site);
  // Asks all at once. Who has not answered by the timeout has DEADLINE_EXCEEDED. [blocks]
  std::vector<ExplainAnswer> Ask(std::span<const ExplainQuestion> questions, Duration timeout);

 private:
  static constexpr size_t kMaxReferences = 10000;  // told of one process
  static constexpr size_t kMaxTasks = 10000;       // of those that have not ended, told of one process
  static constexpr size_t kMaxTaskBytes = size_t{16}
                                          << 20;  // of all rows: some 50,000, or fewer where their environments or errors are long
  static constexpr size_t kMaxSites = 100000;
  std::vector<v1::WaitFact> References() const;
  // In task_rows.cc: SUBJECT_KIND_TASKS, of all tasks or of one.
  std::vector<v1::WaitFact> Tasks(const TaskId& only) const;
  // The first fact is that of the totals.
  std::vector<v1::WaitFact> OwnTasks(const TaskId& only, RowRoom* room) const;
  bool Object(const ObjectId& id, v1::WaitFact* out) const;
  bool OwnTask(const TaskId& id, v1::WaitFact* out) const;
  bool Actor(const ActorId& id, v1::WaitFact* out) const;
  // The arguments of ours that are not there yet.
  void AddArguments(const PendingTask& task, v1::WaitFact* out) const;

  const Deps deps_;
  const WallTimes times_;
  mutable Mutex mu_;
  std::unordered_map<ObjectId, std::string, IdHash> sites_ GUARDED_BY(mu_);
  std::deque<ObjectId> site_order_ GUARDED_BY(mu_);  // the oldest first
};

}  // namespace ray::core
