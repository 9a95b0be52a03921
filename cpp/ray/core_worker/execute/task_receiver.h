// TaskReceiver: the executing side of a worker: shell of the RunQueueCore.
//
// Takes pushed tasks, fetches the arguments that did not travel with them, hands tasks to the threads that call TryNext, and sends their results. A
// reply goes out when (1) its values are sealed or at hand, (2) the owner may be told of the refs inside them, (3) the refs that the task keeps are
// registered with their owners. Owned by the CoreWorker. Thread-safe; handlers run on the loop; nothing is called with the lock held, but the
// notification of waiting threads.
#pragma once

#include <pthread.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/async/loop.h"
#include "ray/core_worker/execute/run_queue_core.h"
#include "ray/core_worker/objects/object_service.h"
#include "ray/core_worker/peers/peer_pool.h"
#include "ray/rpc/core/answer_log.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/util/mutex.h"
#include "ray/v1/explain.pb.h"
#include "ray/v1/worker_task.pb.h"
#include "ray/wire/task_spec.h"
#include "ray/wire/wait_fact.h"

namespace ray::core {

// A received task, from its push to its reply.
struct ReceivedTask {
  uint64_t token = 0;
  TaskSpec spec;
  std::vector<v1::AssignedInstances> instances;
  rpc::Responder responder;
  rpc::ConnectionPtr connection;                // where it came from
  std::atomic<Time> started{Time::Infinite()};  // infinite: its arguments are not at hand yet
  std::vector<ObjectId> borrowed;               // top-level refs that are held here until its end
  std::atomic<uint32_t> unfetched{0};           // arguments still to come, plus one while they are being asked for
  std::atomic<bool> cancelled{false};
  std::atomic<bool> finished{false};
  std::atomic<bool> stop{false};       // streaming: nobody consumes any more, or it is to begin again
  std::atomic<bool> again{false};      // streaming: an item that it has made is lost
  std::atomic<bool> timed_out{false};  // ran past its template's timeout_s: whatever it gives, it has failed
  // Guarded by the receiver's lock:
  bool running = false;
  bool finishing = false;             // its result is being sent: too late for the clock
  int64_t unconsumed = 0;             // items of its stream, where the actor limits them over all streams
  bool answered = false;              // timed out and told so, while its code runs on
  async::TimerId clock = 0;           // ends it, where it has a timeout_s
  std::vector<ReadValue> ref_values;  // set by Next
  ReadValue args;                     // set by Next; empty metadata: none
};
using ReceivedTaskPtr = std::shared_ptr<ReceivedTask>;

// The reply of a task that ran past its timeout_s.
void SetTimedOut(const TaskSpec& spec, v1::PushTaskReply* reply);

struct NextItem {
  enum Kind { kRun, kCancel, kExit };
  Kind kind = kRun;
  ReceivedTaskPtr task;  // kRun, kCancel
  std::string reason;    // kExit
};

struct TaskResult {
  std::vector<ValueView>
      returns;  // one for each return id; fewer: the last serves for the rest; cancelled: where it was, a RayTaskError, or nothing
  bool application_error = false, retryable_error = false, cancelled = false, worker_exiting = false;
  int64_t generator_items = 0;
  std::string error_text;     // with application_error: its traceback
  bool more_follows = false;  // another call of the same template is about to run on the same thread: the reply may wait for that one's
  std::string repr_name;
  uint64_t run_ns = 0;  // 0: as measured here
};

class TaskReceiver {
 public:
  struct Deps {
    async::UserLoop* loop = nullptr;
    PeerPool* peers = nullptr;
    ObjectService* objects = nullptr;
    Address self;
    int64_t pid = 0;  // of this process, for people
    // Cancels a task that this process submitted. False: not known (any more).
    std::function<bool(const TaskId& task, bool force, bool recursive)> cancel_owned;
    // Cancels what a task submitted.
    std::function<void(const TaskId& parent, bool force)> cancel_children;
    // Tells the raylet why the process is about to end by itself. `intended`: somebody asked for it, so it is no news.
    std::function<void(const std::string& reason, bool intended)> announce_end;
    // From the interruption of a task that ran past its timeout_s to the end of the process, if the task's code does not yield.
    Duration timeout_grace = std::chrono::seconds(2);
    // Ends the process at once; what calls it does nothing more.
    std::function<void(int code)> exit;
    // How many answers are kept for callers that ask again, where a carrier may lose them. Those of ours do not, so none is kept.
    size_t kept_answers = 0;
  };
  explicit TaskReceiver(Deps deps) : deps_(std::move(deps)), times_(deps_.loop->clock()), answers_(deps_.kept_answers, kKeptBytes) {}

  // kPushTask, kStealTasks, kCancelTask, kExit.
  void RegisterHandlers(rpc::Dispatcher* dispatcher);

  // Waits until there may be something for TryNext. False: nothing by the deadline, or a signal came. REQUIRES: not on the loop, GIL not held.
  // Nothing is taken yet: with several threads the one that gets to TryNext first has it, which under the GIL need not be the one that was woken.
  bool WaitForWork(Time deadline);
  // The next thing to do, if there is one. A run is to be prepared. Never blocks.
  bool TryNext(NextItem* out);
  // Brings the arguments of a run to hand. False: one of them is an error, which became the result. Blocks only where CanBlock.
  bool Prepare(const NextItem& item);
  static bool CanBlock(const NextItem& item);
  // Something else has happened that the waiting thread is to see to, one with an event loop of its own: WaitForWork ends (false). On the loop.
  void OnOtherEvent();
  // Whether it did since the last call.
  bool TakeOtherEvent() { return other_event_.load(std::memory_order_relaxed) && other_event_.exchange(false); }
  // The result of a run; exactly once for each. May block on the store.
  Status Finish(const ReceivedTaskPtr& task, const TaskResult& result);
  // One more item; with back-pressure it blocks until the consumer allows the next. *stop: no more are wanted.
  Status ReportItem(uint64_t token, int64_t index, const ValueView& value, bool* stop);
  static bool IsCancelled(const ReceivedTask& task) { return task.cancelled || task.timed_out; }
  TaskTemplatePtr TemplateOf(uint64_t token);  // null: no such run
  void SetInterruptThread();
  // The calling thread runs `task` (null: none).
  static void SetCurrent(const ReceivedTask* task);
  // Task of the calling thread; nil outside tasks.
  static TaskId CurrentTask();
  static int64_t CurrentDepth();
  // The calling thread is blocked in get or wait, or goes on.
  void OnBlocked(bool blocked);
  // Where a task is that was sent to this process. False: it is not here (any more).
  bool Explain(const TaskId& task, v1::WaitFact* out);
  // The tasks that were sent to this process (nil: all; else that one) as rows of SUBJECT_KIND_TASKS.
  void AddRows(const TaskId& only, RowRoom* room, std::vector<v1::WaitFact>* out);
  void Shutdown();

 private:
  struct Caller {
    TemplateReceiver templates;
  };
  struct ReplyState;
  using ReplyStatePtr = std::shared_ptr<ReplyState>;

  void HandlePush(const v1::PushTaskRequest& message, rpc::Request& request, rpc::Responder responder);
  void HandleCancel(const v1::CancelTaskRequest& message, rpc::Responder responder);
  void HandleExit(const v1::ExitRequest& message);
  void HandBack(uint32_t max);
  // Tells the raylet if it is not what it was told last. True: it is blocked, as of now.
  bool TellBlocked();
  void FetchArguments(const ReceivedTaskPtr& task);
  // If all there is waits for arguments: looks after a while whether that still holds up the whole process. On the loop.
  void WatchForStall();
  void StartWatch();
  bool MayBeginStallLocked() const REQUIRES(mu_);
  // Something that had not started was taken out: what is left may be able to run, or be all that waits. On the loop.
  void OnQueueShrunk();
  // Something may run now, or nothing is left: what was said of a stall is taken back.
  void MaybeEndStall();
  // The connection of an earlier request has closed.
  void OnConnectionClosed(uint64_t id);
  void MarkReady(uint64_t token);
  bool PopLocked(NextItem* out) REQUIRES(mu_);
  bool HasWorkLocked() const REQUIRES(mu_);
  // Nothing is left to do before the process may leave as it was asked to.
  bool MayExitLocked() const REQUIRES(mu_);
  void WakeLocked() REQUIRES(mu_);
  bool LoadArguments(const ReceivedTaskPtr& task);
  void WakeForRunnableLocked() REQUIRES(mu_);
  // The same, if there is something for a thread that waits.
  void WakeIfWorkLocked() REQUIRES(mu_);
  // Not run: gives its refs back and answers `reply`.
  void Abandon(const ReceivedTaskPtr& task, const v1::PushTaskReply& reply);
  // Of what an earlier attempt of the running task left, perhaps another value.
  void DropOlder(const ObjectId& id);
  void Store(const ObjectId& id, const TaskSpec& spec, const ValueView& value, v1::ReturnObject* out, PartList* parts,
             ReturnPlace place = ReturnPlace::kBySize);
  void SendWhenSafe(const ReceivedTaskPtr& task, const ReplyStatePtr& state, std::span<const ValueView> values);
  ReceivedTaskPtr FindRun(uint64_t token);
  // shared_backpressure: waits until one more item may be reported, and counts it. False: the task is to end.
  bool AwaitRoom(const ReceivedTaskPtr& task);
  void OnConsumed(const ReceivedTaskPtr& task);

  // Time-outs, in task_timeout.cc.
  void StartClock(const ReceivedTaskPtr& task);
  // Before the result is sent. True: it came too late; *answered: and its owner knows.
  bool StopClock(const ReceivedTaskPtr& task, bool* answered);
  void OnTimeout(uint64_t token);
  // It was interrupted and still runs at `deadline`, or not yet: then it is interrupted once more.
  void OnStillRunning(uint64_t token, Time deadline);
  void AnswerTimeout(const ReceivedTaskPtr& task, bool exiting);
  void EndProcess(const rpc::ConnectionPtr& connection, Time deadline);

  static constexpr size_t kKeptBytes = size_t{64} << 20;
  static constexpr Duration kStallPatience = std::chrono::milliseconds(20);  // most arguments come sooner

  const Deps deps_;
  const WallTimes times_;
  rpc::AnswerLog answers_;                        // by connection and push; with kept_answers only
  rpc::AnswerLog cancels_done_{256};              // by request id
  std::unordered_map<uint64_t, Caller> callers_;  // on the loop; by connection

  Mutex mu_;
  RunQueueCore queue_ GUARDED_BY(mu_);
  std::unordered_map<uint64_t, ReceivedTaskPtr> runs_ GUARDED_BY(mu_);
  std::deque<ReceivedTaskPtr> cancels_ GUARDED_BY(mu_);  // for async actors
  std::vector<async::Waiter*> waiters_ GUARDED_BY(mu_);
  uint32_t coming_ GUARDED_BY(mu_) = 0;                // threads that were woken and have not called TryNext since
  int64_t unconsumed_ GUARDED_BY(mu_) = 0;             // items of streams that share a limit
  std::vector<async::Waiter*> paced_ GUARDED_BY(mu_);  // threads that wait for their consumers
  uint64_t next_token_ GUARDED_BY(mu_) = 1;
  bool exit_requested_ GUARDED_BY(mu_) = false, exit_told_ GUARDED_BY(mu_) = false;
  bool leaving_ GUARDED_BY(mu_) = false;  // takes no more normal tasks
  bool moving_ GUARDED_BY(mu_) = false;   // an actor that goes on elsewhere: begins nothing more, and leaves when what runs has ended
  bool is_actor_ GUARDED_BY(mu_) = false, is_async_actor_ GUARDED_BY(mu_) = false, is_threaded_actor_ GUARDED_BY(mu_) = false;
  std::string exit_reason_ GUARDED_BY(mu_);
  pthread_t interrupt_thread_ GUARDED_BY(mu_) = 0;
  int32_t blocked_ GUARDED_BY(mu_) = 0;  // threads blocked in get or wait, of the present work
  // Nothing has run for a while, and all there is waits for its arguments: what it is to run on is free for others, who may have to make these.
  bool stalled_ GUARDED_BY(mu_) = false;
  bool watching_ GUARDED_BY(mu_) = false;  // StartWatch has a timer, or is about to
  uint64_t work_ GUARDED_BY(mu_) = 1;      // counts the moments at which the last running task ended
  uint32_t corked_ GUARDED_BY(mu_) = 0;    // replies since the last that left at once
  std::atomic<bool> other_event_{false};   // raised under mu_
  Mutex telling_mu_;                       // before mu_
  bool told_blocked_ GUARDED_BY(telling_mu_) = false;
};

}  // namespace ray::core
