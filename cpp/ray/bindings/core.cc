// The Core of bindings/core.h over core::CoreWorker: ids and structs to and fro, nothing else.
#include "ray/bindings/core.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <unordered_map>

#include "ray/core_worker/core_worker.h"
#include "ray/core_worker/lifecycle/unix_platform.h"
#include "ray/util/log_rotation.h"
#include "ray/util/logging.h"
#include "ray/util/process_title.h"
#include "ray/v1/chaos.pb.h"
#include "ray/v1/explain.pb.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/gcs_kv.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/gcs_placement_group.pb.h"
#include "ray/v1/raylet_worker.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/error_detail.h"
#include "ray/wire/value_layout.h"

namespace ray::bindings {
namespace {

// A ValueIn as the core wants it. REQUIRES: `in` outlives it.
core::ValueView ViewOf(const ValueIn& in) { return {in.metadata, {in.data, in.size}, in.buffers, in.nested}; }

void FillValue(std::string metadata, BufferPtr blob, ValueOut* out) {
  out->metadata = std::move(metadata);
  out->blob = std::move(blob);
  if (out->blob == nullptr) out->blob = HeapBuffer::CopyOf({});
  if (!HasPythonLayout(out->metadata)) return;
  if (Status status = ParsePythonBlob(out); !status.ok()) {
    ErrorValue error = MakeErrorValue(ErrorType::kObjectLost, "a damaged value: " + status.message());
    out->metadata = error.metadata;
    out->blob = error.blob;
  }
}

GetStatus ToGetStatus(core::ReadResult result) {
  return result == core::ReadResult::kTimeout       ? GetStatus::kTimeout
         : result == core::ReadResult::kInterrupted ? GetStatus::kInterrupted
                                                    : GetStatus::kReady;
}

// What a token of a completion queue waits for, as it is taken back.
struct Watched {
  TaskId stream;        // nil: an object
  uint64_t number = 0;  // of its callback; 0: not known yet
};

// The tokens of a completion queue, and an eventfd that is readable while some wait. Shared with the callbacks, which may outlive the Python object.
class EventQueueState {
 public:
  explicit EventQueueState(int fd) : fd_(fd) {}
  // Before the callback of `token` can run.
  void Expect(uint64_t token) {
    std::lock_guard lock(mu_);
    if (!closed_) watched_.try_emplace(token);
  }
  // False: the token has come, or was given up.
  bool Registered(uint64_t token, const Watched& watched) {
    std::lock_guard lock(mu_);
    const auto it = watched_.find(token);
    if (it == watched_.end()) return false;
    it->second = watched;
    return true;
  }
  void Add(uint64_t token) {
    std::lock_guard lock(mu_);
    if (watched_.erase(token) == 0) return;
    tokens_.push_back(token);
    if (tokens_.size() == 1) Signal();
  }
  // The token does not come any more. False: it has come, or was given up before.
  bool GiveUp(uint64_t token, Watched* watched) {
    std::lock_guard lock(mu_);
    const auto it = watched_.find(token);
    if (it == watched_.end()) return false;
    *watched = it->second;
    watched_.erase(it);
    return true;
  }
  std::vector<uint64_t> Drain() {
    std::lock_guard lock(mu_);
    uint64_t count;
    if (!closed_ && ::read(fd_, &count, sizeof count) < 0) count = 0;  // nothing to read is fine
    return std::exchange(tokens_, {});
  }
  std::vector<uint64_t> WaitDrain(int64_t timeout_ms) {
    {
      std::lock_guard lock(mu_);
      if (closed_) return {};
    }
    pollfd p{fd_, POLLIN, 0};
    ::poll(&p, 1, timeout_ms < 0 ? -1 : static_cast<int>(std::min<int64_t>(timeout_ms, INT32_MAX)));
    return Drain();
  }
  // What is to be taken back.
  std::unordered_map<uint64_t, Watched> Close() {
    std::lock_guard lock(mu_);
    closed_ = true;
    tokens_.clear();
    Signal();  // and stays readable: every waiter leaves
    return std::exchange(watched_, {});
  }
  // REQUIRES: closed, and nobody waits.
  void CloseFd() {
    std::lock_guard lock(mu_);
    ::close(std::exchange(fd_, -1));
  }
  int fd() const { return fd_; }

 private:
  void Signal() {
    uint64_t one = 1;
    if (::write(fd_, &one, sizeof one) < 0) return;  // full: readable anyway
  }
  int fd_;  // constant until CloseFd
  std::mutex mu_;
  std::vector<uint64_t> tokens_;
  std::unordered_map<uint64_t, Watched> watched_;  // tokens still to come
  bool closed_ = false;
};

class EventfdQueue final : public CompletionQueue {
 public:
  // `worker` outlives it.
  EventfdQueue(core::CoreWorker* worker, int fd) : worker_(*worker), state_(std::make_shared<EventQueueState>(fd)) {}
  ~EventfdQueue() override {
    Close();
    state_->CloseFd();
  }
  int fd() const override { return state_->fd(); }
  void WatchObject(const Ref& ref, uint64_t token) override {
    state_->Expect(token);
    Note(token, {TaskId::Nil(), worker_.objects().WatchObject(ref, [state = state_, token] { state->Add(token); })});
  }
  void WatchGenerator(const ObjectId& generator_id, uint64_t token) override {
    state_->Expect(token);
    const TaskId stream = generator_id.task_id();
    Note(token, {stream, worker_.streams().OnNext(stream, [state = state_, token] { state->Add(token); })});
  }
  void Unwatch(uint64_t token) override {
    Watched watched;
    if (state_->GiveUp(token, &watched)) TakeBack(watched);
  }
  std::vector<uint64_t> Drain() override { return state_->Drain(); }
  std::vector<uint64_t> WaitDrain(int64_t timeout_ms) override { return state_->WaitDrain(timeout_ms); }
  void Close() override {
    for (const auto& [token, watched] : state_->Close()) TakeBack(watched);
  }

 private:
  void Note(uint64_t token, const Watched& watched) {
    if (watched.number != 0 && !state_->Registered(token, watched)) TakeBack(watched);
  }
  void TakeBack(const Watched& watched) {
    if (watched.stream.IsNil()) {
      worker_.objects().Unwatch(watched.number);
    } else {
      worker_.streams().Cancel(watched.stream, watched.number);
    }
  }

  core::CoreWorker& worker_;
  const std::shared_ptr<EventQueueState> state_;
};

TemplateOptions OptionsOf(const TaskTemplate& t) {
  TemplateOptions o;
  o.type = static_cast<int32_t>(t.type);
  o.function_id = t.function_id;
  o.function_name = t.function_name;
  o.method_name = t.method_name;
  o.name = t.name;
  o.runtime_env = t.runtime_env;
  o.concurrency_group = t.concurrency_group;
  o.resources = t.resources.ToDoubles();
  o.num_returns = t.num_returns;
  o.max_retries = t.max_retries;
  o.retry_exceptions = t.retry_exceptions;
  o.retry_exception_allowlist = t.retry_exception_allowlist;
  o.max_calls = t.max_calls;
  o.strategy_kind = t.strategy.kind;
  if (!t.strategy.node_id.IsNil()) o.strategy_node_id = t.strategy.node_id.Binary();
  if (!t.strategy.placement_group_id.IsNil()) o.strategy_placement_group_id = t.strategy.placement_group_id.Binary();
  o.strategy_soft = t.strategy.soft;
  o.strategy_capture_child_tasks = t.strategy.capture_child_tasks;
  o.strategy_spill_on_unavailable = t.strategy.spill_on_unavailable;
  o.strategy_fail_on_unavailable = t.strategy.fail_on_unavailable;
  o.strategy_selectors = t.strategy.selectors;
  o.strategy_preferred = t.strategy.preferred;
  o.priority = t.strategy.priority;
  o.strategy_bundle_index = t.strategy.bundle_index;
  o.generator_backpressure = t.generator_backpressure;
  o.timeout_s = t.timeout_s;
  o.out_of_order = t.out_of_order;
  o.retry_timeouts = t.retry_timeouts;
  o.omit_task_events = t.omit_task_events;
  o.objects_per_yield = t.objects_per_yield;
  o.shared_backpressure = t.shared_backpressure;
  return o;
}

ActorOptions OptionsOf(const ActorCreation& c) {
  ActorOptions o;
  o.name = c.name;
  o.ray_namespace = c.ray_namespace;
  o.class_name = c.class_name;
  o.method_table = c.method_table;
  o.detached = c.detached;
  o.is_async = c.is_async;
  o.allow_out_of_order = c.allow_out_of_order;
  o.max_restarts = c.max_restarts;
  o.max_task_retries = c.max_task_retries;
  o.max_concurrency = c.max_concurrency;
  o.max_pending_calls = c.max_pending_calls;
  o.concurrency_groups = c.concurrency_groups;
  o.placement_resources = c.placement_resources.ToDoubles();
  return o;
}

ActorFields FieldsOf(const v1::ActorInfo& info) {
  const v1::ActorCreation& c = info.creation();
  ActorFields f;
  f.actor_id = info.actor_id();
  f.class_name = c.class_name();
  f.name = c.name();
  f.ray_namespace = c.ray_namespace();
  f.method_table = c.method_table();
  f.function_id = info.function_id();
  f.job_id = info.job_id();
  f.node_id = info.address().node_id();
  f.owner = PackAddress(FromProto(c.owner()));
  f.repr_name = info.repr_name();
  f.state = info.state();
  f.pid = info.pid();
  f.num_restarts = static_cast<int32_t>(info.num_restarts());
  f.max_task_retries = c.max_task_retries();
  f.max_pending_calls = c.max_pending_calls();
  f.max_concurrency = c.max_concurrency();
  f.detached = c.detached();
  f.is_async = c.is_async();
  f.allow_out_of_order = c.allow_out_of_order();
  return f;
}

PlacementGroupFields FieldsOf(const v1::PlacementGroupInfo& info) {
  PlacementGroupFields f;
  f.id = info.placement_group_id();
  f.name = info.name();
  f.ray_namespace = info.ray_namespace();
  f.job_id = info.job_id();
  f.creator_actor_id = info.creator_actor_id();
  f.soft_target_node_id = info.soft_target_node_id();
  f.topology_label = info.topology_label();
  f.scheduling_state = info.scheduling_state();
  f.strategy = info.strategy();
  f.state = info.state();
  f.detached = info.detached();
  for (const v1::Bundle& bundle : info.bundles()) {
    f.bundles.push_back(
        {FromProto(bundle.resources()).ToDoubles(), {bundle.label_selector().begin(), bundle.label_selector().end()}, bundle.node_id()});
  }
  f.created_at_ms = info.created_at_ms();
  f.placed_at_ms = info.placed_at_ms();
  f.highest_retry_delay_ms = info.highest_retry_delay_ms();
  f.attempts = info.attempts();
  return f;
}

std::string PackIfAny(const v1::Address& message) {
  const Address address = FromProto(message);
  return address.IsNil() ? std::string() : PackAddress(address);
}

WaitFactFields WaitFactOf(const v1::WaitFact& fact) {
  WaitFactFields f;
  f.kind = static_cast<int32_t>(fact.kind());
  f.state = static_cast<int32_t>(fact.state());
  f.id = fact.id();
  f.name = fact.name();
  f.detail = fact.detail();
  f.node_id = fact.node_id();
  f.worker_id = fact.worker_id();
  f.owner = PackIfAny(fact.owner());
  f.age_ms = fact.age_ms();
  f.ahead = fact.ahead();
  f.pid = fact.pid();
  f.attempt = fact.attempt();
  f.more = fact.more();
  f.need = FromProto(fact.need()).ToDoubles();
  f.available = FromProto(fact.available()).ToDoubles();
  f.total = FromProto(fact.total()).ToDoubles();
  for (const v1::WaitPointer& next : fact.next()) {
    f.next.push_back({PackIfAny(next.address()), static_cast<int32_t>(next.kind()), next.id(), false});
  }
  if (fact.has_holds()) {
    const v1::Holds& holds = fact.holds();
    f.local = holds.local();
    f.submitted = holds.submitted();
    f.contained = holds.contained();
    f.borrowers = holds.borrowers();
    f.owned = holds.owned();
    f.in_store = holds.in_store();
    f.size = holds.size();
    f.site = holds.site();
    f.by_driver = holds.by_driver();
  }
  return f;
}

class CoreImpl final : public Core {
 public:
  CoreImpl(std::unique_ptr<core::CoreWorker> worker, async::EpollLoop* loop, const CoreOptions& options)
      : worker_(std::move(worker)), loop_(loop), namespace_(options.ray_namespace) {
    const core::CoreWorkerInfo& i = worker_->info();
    info_.worker_id = i.address.worker_id.Binary();
    info_.node_id = i.address.node_id.Binary();
    info_.job_id = i.job_id.Binary();
    info_.node_ip = i.node_ip;
    info_.session_dir = i.session_dir;
    info_.session_name = i.session_name;
    info_.gcs_address = i.gcs_address;
    info_.config_json = i.config_json;
    info_.job_known = i.job_known;
    info_.job_namespace = i.job_namespace;
    info_.job_config_json = i.job_config_json;
    info_.address = PackAddress(i.address);
  }
  void Shutdown(const std::string& reason) override { worker_->Shutdown(reason); }
  const CoreInfo& info() const override { return info_; }

  // --- objects
  Status Put(const ValueIn& in, ObjectId* object_id) override { return worker_->objects().Put(ViewOf(in), object_id); }

  GetStatus Get(const std::vector<Ref>& refs, int64_t timeout_ms, std::vector<ValueOut>* out) override {
    std::vector<core::ReadValue> values;
    core::ReadResult result = worker_->objects().Get(refs, timeout_ms, &values);
    values.resize(refs.size());
    out->assign(refs.size(), {});
    for (size_t i = 0; i < refs.size(); ++i) {
      if (!values[i].metadata.empty()) {
        FillValue(std::move(values[i].metadata), std::move(values[i].blob), &(*out)[i]);
      } else if (result == core::ReadResult::kClosed) {
        ErrorValue error = worker_->ClosedError();
        FillValue(error.metadata, error.blob, &(*out)[i]);
      }
    }
    return ToGetStatus(result);
  }

  bool TryGet(const Ref& ref, ValueOut* out) override {
    core::ReadValue value;
    if (!worker_->objects().TryGet(ref, &value)) return false;
    FillValue(std::move(value.metadata), std::move(value.blob), out);
    return true;
  }

  bool IsReady(const ObjectId& object_id) override { return worker_->objects().IsLocal(object_id); }

  GetStatus Wait(const std::vector<Ref>& refs, int32_t num_returns, int64_t timeout_ms, bool fetch_local,
                 std::vector<bool>* ready) override {
    core::ReadResult result = worker_->objects().Wait(refs, static_cast<size_t>(std::max(0, num_returns)), timeout_ms, fetch_local, ready);
    ready->resize(refs.size());
    if (result == core::ReadResult::kClosed) ready->assign(refs.size(), true);  // a get of any tells that the session is over
    return ToGetStatus(result);
  }

  int PollFd() override { return loop_->poll_fd(); }
  void Poll() override { loop_->PollOnce(); }
  Status NewCompletionQueue(std::unique_ptr<CompletionQueue>* out) override {
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return Status::FromErrno(errno, "no descriptor for a completion queue");
    *out = std::make_unique<EventfdQueue>(worker_.get(), fd);
    return Status::Ok();
  }

  void AddLocalRef(const ObjectId& id) override { worker_->objects().AddLocalRef(id); }
  void AddBorrowedRef(const Ref& ref, const ObjectId& outer_id, uint64_t task_token) override {
    worker_->objects().AddBorrowedRef(ref, outer_id, task_token);
  }
  void RemoveLocalRef(const ObjectId& id) override { worker_->objects().RemoveLocalRef(id); }
  Address OwnerOf(const ObjectId& id) override { return worker_->objects().OwnerOf(id); }
  Status GetLocations(const std::vector<Ref>& refs, int64_t timeout_ms, std::vector<std::vector<std::string>>* node_ids,
                      std::vector<int64_t>* sizes) override {
    std::vector<core::Location> locations;
    RAY_RETURN_NOT_OK(worker_->objects().GetLocations(refs, timeout_ms, &locations));
    node_ids->assign(refs.size(), {});
    sizes->assign(refs.size(), -1);
    for (size_t i = 0; i < locations.size() && i < refs.size(); ++i) {
      if (!locations[i].known) continue;
      (*sizes)[i] = static_cast<int64_t>(locations[i].size);
      for (const NodeId& node : locations[i].node_ids) (*node_ids)[i].push_back(node.Binary());
    }
    return Status::Ok();
  }
  void NoteCreationSite(const ObjectId& id, const std::string& site) override { worker_->explain().NoteSite(id, site); }
  void Explain(const std::vector<WaitQuestion>& questions, int64_t timeout_ms, std::vector<WaitAnswer>* out) override {
    std::vector<core::ExplainQuestion> asked;
    for (const WaitQuestion& q : questions) {
      asked.push_back({UnpackAddress(q.address), static_cast<v1::SubjectKind>(q.kind), q.id, q.of_node});
    }
    for (core::ExplainAnswer& answer : worker_->explain().Ask(asked, std::chrono::milliseconds(timeout_ms))) {
      WaitAnswer& a = out->emplace_back(WaitAnswer{std::move(answer.status), {}});
      for (const v1::WaitFact& fact : answer.facts) a.facts.push_back(WaitFactOf(fact));
    }
  }

  // --- tasks and actors
  Status RegisterTemplate(const TemplateOptions& o, uint64_t* handle) override {
    TaskTemplate t;
    t.type = static_cast<TaskType>(o.type);
    t.function_id = o.function_id;
    t.function_name = o.function_name;
    t.method_name = o.method_name;
    t.name = o.name;
    t.runtime_env = o.runtime_env;
    t.concurrency_group = o.concurrency_group;
    RAY_ASSIGN_OR_RETURN(t.resources, ResourceSet::FromDoubles(o.resources));
    t.num_returns = o.num_returns;
    t.max_retries = o.max_retries;
    t.retry_exceptions = o.retry_exceptions;
    t.retry_exception_allowlist = o.retry_exception_allowlist;
    t.max_calls = o.max_calls;
    t.strategy.kind = o.strategy_kind;
    t.strategy.node_id = NodeId::FromBinaryOrNil(o.strategy_node_id);
    t.strategy.placement_group_id = PlacementGroupId::FromBinaryOrNil(o.strategy_placement_group_id);
    t.strategy.soft = o.strategy_soft;
    t.strategy.capture_child_tasks = o.strategy_capture_child_tasks;
    t.strategy.spill_on_unavailable = o.strategy_spill_on_unavailable;
    t.strategy.fail_on_unavailable = o.strategy_fail_on_unavailable;
    t.strategy.selectors = o.strategy_selectors;
    t.strategy.preferred = o.strategy_preferred;
    t.strategy.priority = o.priority;
    t.strategy.bundle_index = o.strategy_bundle_index;
    t.generator_backpressure = o.generator_backpressure;
    t.timeout_s = o.timeout_s;
    t.out_of_order = o.out_of_order;
    t.retry_timeouts = o.retry_timeouts;
    t.omit_task_events = o.omit_task_events;
    t.objects_per_yield = o.objects_per_yield;
    t.shared_backpressure = o.shared_backpressure;
    t.ray_namespace = Namespace({});
    *handle = worker_->RegisterTemplate(std::move(t));
    return Status::Ok();
  }

  void ReleaseTemplate(uint64_t handle) override { worker_->ReleaseTemplate(handle); }

  Status SubmitTask(uint64_t handle, const ValueIn& args, const std::vector<Ref>& refs, std::vector<ObjectId>* return_ids) override {
    return worker_->SubmitTask(handle, ViewOf(args), refs, return_ids);
  }

  Status CreateActor(uint64_t handle, const ActorOptions& o, const ValueIn& args, const std::vector<Ref>& refs,
                     std::string* actor_id) override {
    ActorCreation c;
    c.name = o.name;
    c.ray_namespace = Namespace(o.ray_namespace);
    c.detached = o.detached;
    c.max_restarts = o.max_restarts;
    c.max_task_retries = o.max_task_retries;
    c.max_concurrency = o.max_concurrency;
    c.is_async = o.is_async;
    c.allow_out_of_order = o.allow_out_of_order;
    c.concurrency_groups = o.concurrency_groups;
    RAY_ASSIGN_OR_RETURN(c.placement_resources, ResourceSet::FromDoubles(o.placement_resources));
    c.class_name = o.class_name;
    c.method_table = o.method_table;
    c.max_pending_calls = o.max_pending_calls;
    ActorId actor;
    RAY_RETURN_NOT_OK(worker_->CreateActor(handle, std::move(c), ViewOf(args), refs, &actor));
    *actor_id = actor.Binary();
    return Status::Ok();
  }

  Status SubmitActorTask(const ActorId& actor_id, uint64_t handle, const ValueIn& args, const std::vector<Ref>& refs,
                         std::vector<ObjectId>* return_ids) override {
    return worker_->SubmitActorTask(actor_id, handle, ViewOf(args), refs, return_ids);
  }

  void RegisterActorHandle(const std::string& actor_id, const std::string&, const ActorOptions& options) override {
    worker_->actors().RegisterHandle(ActorId::FromBinaryOrNil(actor_id), options.max_pending_calls, options.class_name);
  }
  Status KillActor(const std::string& actor_id, bool no_restart) override {
    return worker_->actors().Kill(ActorId::FromBinaryOrNil(actor_id), no_restart);
  }
  Status CancelTask(const Ref& ref, bool force, bool recursive) override { return worker_->CancelTask(ref, force, recursive); }
  Status GetNamedActor(const std::string& name, const std::string& ray_namespace, ActorFields* out) override {
    v1::ActorInfo info;
    RAY_RETURN_NOT_OK(worker_->actors().GetNamed(name, Namespace(ray_namespace), &info));
    *out = FieldsOf(info);
    return Status::Ok();
  }
  Status ListActors(bool named_only, bool all_namespaces, const std::string& ray_namespace, std::vector<ActorFields>* out) override {
    v1::ListActorsRequest request;
    request.set_named_only(named_only);
    request.set_all_namespaces(all_namespaces);
    request.set_ray_namespace(Namespace(ray_namespace));
    v1::ListActorsReply reply;
    RAY_RETURN_NOT_OK(worker_->actors().List(request, &reply));
    for (const auto& actor : reply.actors()) out->push_back(FieldsOf(actor));
    return Status::Ok();
  }

  // --- placement groups
  Status CreatePlacementGroup(const PlacementGroupFields& group, std::string* id) override {
    v1::PlacementGroupInfo info;
    info.set_name(group.name);
    info.set_ray_namespace(Namespace(group.ray_namespace));
    info.set_strategy(static_cast<v1::PlacementStrategy>(group.strategy));
    info.set_creator_actor_id(group.creator_actor_id);
    info.set_detached(group.detached);
    info.set_soft_target_node_id(group.soft_target_node_id);
    info.set_topology_label(group.topology_label);
    for (const BundleFields& fields : group.bundles) {
      v1::Bundle* bundle = info.add_bundles();
      RAY_ASSIGN_OR_RETURN(ResourceSet resources, ResourceSet::FromDoubles(fields.resources));
      ToProto(resources, bundle->mutable_resources());
      bundle->mutable_label_selector()->insert(fields.label_selector.begin(), fields.label_selector.end());
    }
    PlacementGroupId made;
    RAY_RETURN_NOT_OK(worker_->placement_groups().Create(std::move(info), &made));
    *id = made.Binary();
    return Status::Ok();
  }
  void RemovePlacementGroup(const std::string& id) override { worker_->placement_groups().Remove(PlacementGroupId::FromBinaryOrNil(id)); }
  GetStatus WaitPlacementGroup(const std::string& id, int64_t timeout_ms, bool* placed) override {
    core::GroupState state;
    const core::ReadResult result = worker_->placement_groups().Wait(PlacementGroupId::FromBinaryOrNil(id), timeout_ms, &state);
    *placed = state.kind == core::GroupState::kPlaced;
    return ToGetStatus(result);
  }
  Status PlacementGroupReady(const std::string& id, const ValueIn& value, ObjectId* object_id) override {
    return worker_->placement_groups().WhenReady(PlacementGroupId::FromBinaryOrNil(id), ViewOf(value), object_id);
  }
  Status GetPlacementGroup(const std::string& id, const std::string& name, const std::string& ray_namespace,
                           PlacementGroupFields* out) override {
    v1::GetPlacementGroupRequest request;
    request.set_placement_group_id(id);
    request.set_name(name);
    request.set_ray_namespace(Namespace(ray_namespace));
    v1::PlacementGroupInfo info;
    RAY_RETURN_NOT_OK(worker_->placement_groups().Get(request, &info));
    *out = FieldsOf(info);
    return Status::Ok();
  }
  Status ListPlacementGroups(std::vector<PlacementGroupFields>* out) override {
    v1::ListPlacementGroupsReply reply;
    RAY_RETURN_NOT_OK(worker_->placement_groups().List(&reply));
    for (const auto& info : reply.groups()) out->push_back(FieldsOf(info));
    return Status::Ok();
  }

  // --- streaming generators
  GetStatus NextGeneratorItem(const ObjectId& generator_id, int64_t timeout_ms, ObjectId* object_id) override {
    *object_id = ObjectId::Nil();
    TaskId task = generator_id.task_id();
    const Time deadline = worker_->objects().DeadlineOf(timeout_ms);
    while (true) {
      bool end;
      ObjectId item;
      if (worker_->streams().TryNext(task, &end, &item)) {
        if (!end) *object_id = item;
        return GetStatus::kReady;
      }
      auto waiter = std::make_shared<async::Waiter>();
      const uint64_t number = worker_->streams().OnNext(task, [waiter] { waiter->Notify(); });
      const core::ReadResult result = worker_->objects().Block(waiter.get(), deadline);
      if (result != core::ReadResult::kReady) worker_->streams().Cancel(task, number);
      switch (result) {
        case core::ReadResult::kReady: break;
        case core::ReadResult::kTimeout: return GetStatus::kTimeout;
        case core::ReadResult::kInterrupted: return GetStatus::kInterrupted;
        case core::ReadResult::kClosed:  // its stream has failed, or is gone
          if (!worker_->streams().TryNext(task, &end, &item)) end = true;
          if (!end) *object_id = item;
          return GetStatus::kReady;
      }
    }
  }
  void ReleaseGenerator(const ObjectId& generator_id) override { worker_->streams().Release(generator_id.task_id()); }

  // --- executor side
  bool WaitForTask(int64_t timeout_ms) override {
    return worker_->receiver().WaitForWork(timeout_ms < 0 ? Time::Infinite()
                                                          : loop_->clock().Now() + std::chrono::milliseconds(timeout_ms));
  }
  bool TryNextTask(TaskIn* out) override {
    core::NextItem item;
    while (worker_->receiver().TryNext(&item)) {
      if (core::TaskReceiver::CanBlock(item)) {
        out->received = std::move(item.task);
        out->unprepared = true;
        return true;
      }
      if (worker_->receiver().Prepare(item)) {
        Fill(&item, out);
        return true;
      }
    }
    return false;
  }
  bool PrepareTask(TaskIn* out) override {
    core::NextItem item{core::NextItem::kRun, std::move(out->received), {}};
    if (!worker_->receiver().Prepare(item)) return false;
    out->unprepared = false;
    Fill(&item, out);
    return true;
  }
  Status AlsoWaitFor(int fd) override {
    return loop_->WatchFd(fd, EPOLLIN | EPOLLET, [this](uint32_t) { worker_->receiver().OnOtherEvent(); });
  }
  bool TakeFdEvent() override { return worker_->receiver().TakeOtherEvent(); }

  void DetailsOf(const TaskIn& in, TaskDetails* out) override {
    const core::ReceivedTask& task = *in.received;
    const TaskSpec& spec = task.spec;
    if (spec.tmpl->type != TaskType::kNormal) out->actor_id = spec.task_id.actor_id().Binary();
    out->job_id = spec.tmpl->job_id.Binary();
    out->ray_namespace = NamespaceOf(spec);
    out->caller_address = PackAddress(spec.owner);
    if (spec.creation != nullptr) {
      out->actor = OptionsOf(*spec.creation);
      out->was_restarted = spec.attempt > 0;
    }
    for (const auto& assigned : task.instances) {
      std::vector<std::pair<int32_t, double>> indices;
      for (int i = 0; i < assigned.indices_size() && i < assigned.amounts_size(); ++i) {
        indices.emplace_back(assigned.indices(i), static_cast<double>(assigned.amounts(i)) / static_cast<double>(ResourceSet::kUnit));
      }
      out->instances.emplace_back(assigned.resource(), std::move(indices));
    }
  }

  bool TemplateOf(uint64_t token, TemplateOptions* out) override {
    TaskTemplatePtr tmpl = worker_->receiver().TemplateOf(token);
    if (tmpl != nullptr) *out = OptionsOf(*tmpl);
    return tmpl != nullptr;
  }
  Status FinishTask(const TaskIn& task, const TaskOut& out) override {
    core::TaskResult result;
    result.returns.reserve(out.returns.size());
    for (const ValueIn& value : out.returns) result.returns.push_back(ViewOf(value));
    result.application_error = out.is_application_error;
    result.retryable_error = out.is_retryable_error;
    result.cancelled = out.cancelled;
    result.worker_exiting = out.worker_exiting;
    result.more_follows = out.more_follows;
    result.generator_items = out.generator_items;
    result.repr_name = out.repr_name;
    result.run_ns = out.run_ns;
    return worker_->receiver().Finish(task.received, result);
  }
  Status ReportGeneratorItem(uint64_t token, int64_t index, const ValueIn& value, bool* stop) override {
    return worker_->receiver().ReportItem(token, index, ViewOf(value), stop);
  }
  bool IsCancelled(const TaskIn& task) override { return core::TaskReceiver::IsCancelled(*task.received); }
  void SetInterruptThread() override { worker_->receiver().SetInterruptThread(); }
  void AnnounceExit(const std::string& reason, bool intended) override { worker_->AnnounceExit(reason, intended); }
  void SetCurrentTask(const TaskIn* task) override { core::TaskReceiver::SetCurrent(task == nullptr ? nullptr : task->received.get()); }

  // --- GCS
  Status KvGet(const std::string& ns, const std::string& key, bool* found, std::string* value) override {
    v1::KvGetRequest request;
    request.set_ns(ns);
    request.set_key(key);
    v1::KvGetReply reply;
    RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kKvGet, request, &reply));
    *found = reply.found();
    value->swap(*reply.mutable_value());
    return Status::Ok();
  }
  Status KvPut(const std::string& ns, const std::string& key, const std::string& value, bool overwrite, bool of_job, bool* added) override {
    v1::KvPutRequest request;
    request.set_ns(ns);
    request.set_key(key);
    request.set_value(value);
    request.set_overwrite(overwrite);
    if (!overwrite) request.set_request_id(core::NewRequestId());
    if (of_job) request.set_job_id(worker_->info().job_id.Binary());
    v1::KvPutReply reply;
    RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kKvPut, request, &reply));
    *added = reply.added();
    return Status::Ok();
  }
  Status KvDel(const std::string& ns, const std::string& key, bool by_prefix, int64_t* deleted) override {
    v1::KvDelRequest request;
    request.set_ns(ns);
    request.set_key(key);
    request.set_by_prefix(by_prefix);
    request.set_request_id(core::NewRequestId());
    v1::KvDelReply reply;
    RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kKvDel, request, &reply));
    *deleted = reply.deleted();
    return Status::Ok();
  }
  Status KvExists(const std::string& ns, const std::string& key, bool* exists) override {
    v1::KvGetRequest request;
    request.set_ns(ns);
    request.set_key(key);
    v1::KvExistsReply reply;
    RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kKvExists, request, &reply));
    *exists = reply.exists();
    return Status::Ok();
  }
  Status KvKeys(const std::string& ns, const std::string& prefix, std::vector<std::string>* keys) override {
    v1::KvKeysRequest request;
    request.set_ns(ns);
    request.set_prefix(prefix);
    v1::KvKeysReply reply;
    RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kKvKeys, request, &reply));
    keys->assign(reply.keys().begin(), reply.keys().end());
    return Status::Ok();
  }
  Status ListNodes(std::vector<NodeFields>* out) override {
    v1::ListNodesReply reply;
    RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kListNodes, v1::NodeEmpty(), &reply));
    for (const auto& n : reply.nodes()) {
      NodeFields f;
      f.node_id = n.node_id();
      f.node_name = n.node_name();
      f.ip = n.ip();
      f.hostname = n.hostname();
      f.raylet_socket = n.raylet_socket();
      f.store_socket = n.store_socket();
      f.death_reason = n.death_reason();
      f.alive = n.alive();
      f.is_head = n.is_head();
      f.driver_only = n.driver_only();
      f.draining = n.draining();
      f.drain_reason = n.drain_reason();
      f.drain_deadline_ms = n.drain_deadline_ms();
      f.death_kind = static_cast<int32_t>(n.death_kind());
      f.total = FromProto(n.total()).ToDoubles();
      f.available = FromProto(n.available()).ToDoubles();
      f.labels.insert(n.labels().begin(), n.labels().end());
      f.port = n.port();
      out->push_back(std::move(f));
    }
    return Status::Ok();
  }
  Status ListJobs(std::vector<JobFields>* out) override {
    v1::ListJobsReply reply;
    RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kListJobs, v1::JobEmpty(), &reply));
    for (const auto& j : reply.jobs()) {
      out->push_back({j.job_id(), j.ray_namespace(), j.entrypoint(), j.config_json(), j.driver_pid(), j.start_time_ms(), j.end_time_ms()});
    }
    return Status::Ok();
  }
  Status NodeStats(const std::string& node_id, std::string* json) override {
    constexpr Duration kTimeout = std::chrono::seconds(5);
    v1::GetNodeStatsReply reply;
    if (node_id.empty()) {
      RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kGetNodeStats, v1::WorkerEmpty(), &reply));
    } else {
      RAY_RETURN_NOT_OK(
          worker_->CallRayletOf(NodeId::FromBinaryOrNil(node_id), MethodId::kGetNodeStats, v1::WorkerEmpty(), &reply, kTimeout));
    }
    json->swap(*reply.mutable_json());
    return Status::Ok();
  }

  Status ListChaosTargets(const std::string& node_id, std::vector<ChaosTargetFields>* out) override {
    v1::ChaosListTargetsRequest request;
    request.set_job_id(worker_->info().job_id.Binary());
    v1::ChaosListTargetsReply reply;
    RAY_RETURN_NOT_OK(CallChaos(node_id, MethodId::kChaosListTargets, request, &reply));
    for (const auto& t : reply.targets()) {
      out->push_back({t.lease_id(), t.worker_id(), t.running(), t.actor_id(), t.class_name(), t.actor_name(), t.ray_namespace(), t.pid(),
                      t.held_ms(), t.actor_alive()});
    }
    return Status::Ok();
  }
  Status KillLeasedWorker(const std::string& node_id, const std::string& lease_id, const std::string& running, const std::string& reason,
                          bool* killed) override {
    v1::ChaosKillWorkerRequest request;
    request.set_lease_id(lease_id);
    request.set_running(running);
    request.set_reason(reason);
    v1::ChaosKillWorkerReply reply;
    RAY_RETURN_NOT_OK(CallChaos(node_id, MethodId::kChaosKillWorker, request, &reply));
    *killed = reply.killed();
    return Status::Ok();
  }
  Status KillNode(const std::string& node_id, const std::string& reason) override {
    v1::ChaosKillNodeRequest request;
    request.set_node_id(node_id);
    request.set_reason(reason);
    v1::ChaosEmpty reply;
    const Status status = CallChaos(node_id, MethodId::kChaosKillNode, request, &reply);
    return status.code() == StatusCode::kUnavailable ? Status::Ok() : status;  // the link to it broke
  }

  bool NextEvent(int64_t timeout_ms, Event* out) override {
    core::UserEvent event;
    if (!worker_->events().Next(timeout_ms, &event)) return false;
    *out = {event.kind,
            std::move(event.name),
            std::move(event.text),
            std::move(event.node_ip),
            std::move(event.message_kind),
            event.pid,
            event.is_stderr,
            {}};
    if (event.blob != nullptr) {
      out->error.metadata = ErrorMetadata(ErrorType::kTaskExecutionException);
      out->error.blob = std::move(event.blob);
      if (!ParsePythonBlob(&out->error).ok()) return false;
    }
    return true;
  }

 private:
  template <typename ReplyMessage>
  Status CallChaos(const std::string& node_id, MethodId method, const rpc::MessageLite& request, ReplyMessage* reply) {
    constexpr Duration kTimeout = std::chrono::seconds(10);  // a node that answers later is as good as dead
    return worker_->CallRayletOf(NodeId::FromBinaryOrNil(node_id), method, request, reply, kTimeout);
  }
  std::string Namespace(const std::string& given) {
    if (!given.empty()) return given;
    std::lock_guard lock(mu_);
    return namespace_;
  }

  // `out` is fresh.
  void Fill(core::NextItem* item, TaskIn* out) {
    if (item->kind == core::NextItem::kExit) {
      out->kind = TaskIn::kExit;
      out->exit_reason = std::move(item->reason);
      return;
    }
    core::ReceivedTask& task = *item->task;
    const TaskSpec& spec = task.spec;
    out->token = task.token;
    out->task_id = spec.task_id;
    out->received = std::move(item->task);
    if (item->kind == core::NextItem::kCancel) {
      out->kind = TaskIn::kCancel;
      return;
    }
    out->kind = TaskIn::kRun;
    out->template_key = spec.tmpl->key;
    out->attempt = spec.attempt;
    if (!task.args.metadata.empty()) {
      out->has_args = true;
      FillValue(std::move(task.args.metadata), std::move(task.args.blob), &out->args);
    }
    out->ref_values.resize(task.ref_values.size());
    for (size_t i = 0; i < task.ref_values.size(); ++i) {
      FillValue(std::move(task.ref_values[i].metadata), std::move(task.ref_values[i].blob), &out->ref_values[i]);
      out->refs.push_back(spec.refs[i].ref);
    }
    if (spec.tmpl->type != TaskType::kActorCreation) out->n_returns = spec.tmpl->NumReturnIds();
    out->has_instances = !task.instances.empty();
    if (spec.creation != nullptr) {
      out->is_actor_creation = true;
      worker_->SetOwnActor(spec.creation->actor_id);
    }
    if (has_namespace_.load(std::memory_order_acquire)) return;
    std::lock_guard lock(mu_);
    if (namespace_.empty()) namespace_ = NamespaceOf(spec);  // what a worker submits is of the namespace of its job
    has_namespace_.store(!namespace_.empty(), std::memory_order_release);
  }

  static const std::string& NamespaceOf(const TaskSpec& spec) {
    return spec.tmpl->ray_namespace.empty() && spec.creation != nullptr ? spec.creation->ray_namespace : spec.tmpl->ray_namespace;
  }

  const std::unique_ptr<core::CoreWorker> worker_;
  async::EpollLoop* const loop_;  // the worker's
  std::mutex mu_;
  std::string namespace_;                   // guarded by mu_; workers: of the first task
  std::atomic<bool> has_namespace_{false};  // workers: it is set and stays
  CoreInfo info_;
};

}  // namespace

Status ParsePythonBlob(ValueOut* value) {
  RAY_ASSIGN_OR_RETURN(PythonBlob parsed, ray::ParsePythonBlob(value->blob->view()));
  value->pickle = {parsed.pickle.data(), parsed.pickle.size()};
  value->buffers = std::move(parsed.buffers);
  return Status::Ok();
}

Status ParseError(const ValueOut& value, ErrorFields* out) {
  if (value.blob == nullptr) return Status::InvalidArgument("not an error value");
  RAY_ASSIGN_OR_RETURN(v1::ErrorDetail detail, ParseErrorValue(value.metadata, value.blob->view()));
  out->error_type = detail.error_type();
  out->message = detail.message();
  out->actor_id = detail.actor_id();
  out->cause = detail.cause();
  out->class_name = detail.class_name();
  out->actor_name = detail.actor_name();
  out->ray_namespace = detail.ray_namespace();
  if (v1::Address owner; !detail.owner_address().empty() && owner.ParseFromString(detail.owner_address()))
    out->owner_address = PackAddress(FromProto(owner));
  out->task_id = detail.task_id();
  out->actor_init_failed = detail.actor_init_failed();
  out->never_ran = detail.never_ran();
  out->preempted = detail.preempted();
  out->pid = detail.pid();
  out->task_name = detail.task_name();
  out->timeout_s = detail.timeout_s();
  out->node_ip = detail.node_ip();
  return Status::Ok();
}

bool PrepareProcessTitle() { return ray::PrepareProcessTitle(); }
void SetProcessTitle(const char* title, size_t size) { ray::SetProcessTitle({title, size}); }

Status Core::Start(const CoreOptions& options, std::unique_ptr<Core>* out) {
  RAY_ASSIGN_OR_RETURN(LogLevel level, ParseLogLevel(options.log_level));
  LogOptions log{.file = options.log_file, .level = level};
  ReadRotationLimits(&log);
  RAY_RETURN_NOT_OK(StartLogging(log));
  core::CoreWorkerConfig config;
  config.is_driver = options.is_driver;
  config.is_observer = options.is_observer;
  config.session_dir = options.session_dir;
  config.worker_id = options.worker_id.empty() ? WorkerId::FromRandom() : WorkerId::FromBinaryOrNil(options.worker_id);
  if (config.worker_id.IsNil()) return Status::InvalidArgument("a worker id has 28 bytes");
  config.startup_token = options.startup_token;
  config.job_id = JobId::FromBinaryOrNil(options.job_id);
  config.ray_namespace = options.ray_namespace;
  config.entrypoint = options.entrypoint;
  config.job_config_json = options.job_config_json;
  config.python_version = options.python_version;
  RAY_ASSIGN_OR_RETURN(config.faults, rpc::FaultConfig::Parse(options.rpc_faults, options.rpc_faults_seed));
  config.max_inline_bytes = static_cast<size_t>(std::max<int64_t>(0, options.max_inline_bytes));
  config.oom_retries = options.oom_retries;
  config.gcs_timeout = std::chrono::milliseconds(std::max<int64_t>(1, options.gcs_timeout_ms));
  config.oom_backoff = std::chrono::milliseconds(std::max<int64_t>(0, options.oom_backoff_ms));
  config.lineage_cap_bytes = static_cast<uint64_t>(std::max<int64_t>(0, options.lineage_cap_bytes));
  RAY_ASSIGN_OR_RETURN(auto platform, core::UnixPlatform::Make(config.session_dir + "/sockets"));
  async::EpollLoop* loop = platform->loop();
  RAY_ASSIGN_OR_RETURN(auto worker, core::CoreWorker::Start(config, std::move(platform)));
  *out = std::make_unique<CoreImpl>(std::move(worker), loop, options);
  return Status::Ok();
}

}  // namespace ray::bindings
