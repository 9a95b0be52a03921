#include "ray/testing/workload/session.h"

#include <cstring>
#include <deque>
#include <utility>

#include "ray/util/check.h"
#include "ray/wire/convert.h"
#include "ray/wire/error_detail.h"
#include "ray/wire/task_spec.h"
#include "ray/wire/value_layout.h"

namespace ray::sim {
namespace {

constexpr char kNamespace[] = "sim";
constexpr size_t kPackedRef = ObjectId::kSize + NodeId::kSize + WorkerId::kSize;

ResourceSet Cpus(int64_t n) {
  ResourceSet set;
  set.Set("CPU", n * ResourceSet::kUnit);
  return set;
}

// One slot of a bundle.
void PlaceInGroup(const PlacementGroupId& group, int32_t bundle, bool capture, TaskTemplate* tmpl) {
  tmpl->resources = ResourceSet();
  tmpl->resources.Set(kSlot, ResourceSet::kUnit);
  tmpl->strategy.kind = SchedulingStrategy::kPlacementGroup;
  tmpl->strategy.placement_group_id = group;
  tmpl->strategy.bundle_index = bundle;
  tmpl->strategy.capture_child_tasks = capture;
}

TaskTemplate NormalTask(const std::string& function, const TaskOptions& options) {
  TaskTemplate tmpl;
  tmpl.type = TaskType::kNormal;
  tmpl.function_id = tmpl.function_name = function;
  tmpl.resources = Cpus(options.cpus);
  if (!options.group.IsNil()) PlaceInGroup(options.group, options.bundle, options.capture, &tmpl);
  tmpl.max_retries = options.max_retries;
  tmpl.retry_exceptions = options.retry_exceptions;
  return tmpl;
}

// Bytes that follow from their number and the run of the task that makes them, so that who reads them knows whether they are right, and all of one run.
void AppendFilling(uint32_t size, uint32_t run, std::string* out) {
  Random random((uint64_t{run} << 32) + size);
  const size_t begin = out->size();
  out->resize(begin + size);
  random.Fill(out->data() + begin, size);
}

uint32_t TakeNumber(std::string_view* bytes) {
  uint32_t number = 0;
  RAY_CHECK(bytes->size() >= sizeof number) << "a value is cut off";
  std::memcpy(&number, bytes->data(), sizeof number);
  bytes->remove_prefix(sizeof number);
  return number;
}

}  // namespace

// u32 number of refs, each id and owner; u32 size of the filling, u32 run, and the filling; the text.
Session::Packed Session::Pack(const Value& value, uint32_t filling, uint32_t run) {
  Packed packed;
  const auto count = static_cast<uint32_t>(value.refs.size());
  packed.bytes.append(reinterpret_cast<const char*>(&count), sizeof count);
  for (const Ref& ref : value.refs) {
    packed.bytes += ref.id().Binary() + ref.info().owner.node_id.Binary() + ref.info().owner.worker_id.Binary();
    packed.nested.push_back(ref.info());
  }
  packed.bytes.append(reinterpret_cast<const char*>(&filling), sizeof filling);
  packed.bytes.append(reinterpret_cast<const char*>(&run), sizeof run);
  AppendFilling(filling, run, &packed.bytes);
  packed.bytes += value.text;
  return packed;
}

uint32_t Session::FillingOf(uint64_t number) {
  Random random(number);
  return static_cast<uint32_t>(random.Chance(kLarge) ? random.Between(kMaxInline, kMaxLarge) : 0);
}

Got Session::Read(const core::ReadValue& value, const ObjectId& outer, uint64_t token) {
  Got got;
  if (IsErrorMetadata(value.metadata)) {
    if (ErrorTypeOfMetadata(value.metadata) == static_cast<int32_t>(ErrorType::kLocalRayletDied)) throw SessionOver{};
    got.kind = Got::kError;
    got.error = static_cast<ErrorType>(ErrorTypeOfMetadata(value.metadata));
    if (HasPythonLayout(value.metadata)) {
      if (const auto blob = ParsePythonBlob(value.blob->view()); blob.ok()) got.message = std::string(blob->pickle);
    } else if (const auto detail = ParseErrorValue(value.metadata, value.blob->view()); detail.ok()) {
      got.message = detail->message();
    }
    return got;
  }
  got.kind = Got::kValue;
  std::string_view bytes = value.blob->view();
  if (HasPythonLayout(value.metadata)) {
    const auto blob = ParsePythonBlob(bytes);
    RAY_CHECK(blob.ok());
    bytes = blob->pickle;
  }
  for (uint32_t i = TakeNumber(&bytes); i > 0; --i) {
    RAY_CHECK(bytes.size() >= kPackedRef);
    const auto take = [&bytes](size_t n) {
      const std::string_view taken = bytes.substr(0, n);
      bytes.remove_prefix(n);
      return taken;
    };
    ObjectRefInfo info;
    info.id = ObjectId::FromBinaryOrNil(take(ObjectId::kSize));
    info.owner.node_id = NodeId::FromBinaryOrNil(take(NodeId::kSize));
    info.owner.worker_id = WorkerId::FromBinaryOrNil(take(WorkerId::kSize));
    worker_->objects().AddBorrowedRef(info, outer, token);
    got.value.refs.emplace_back(worker_, info);
  }
  const uint32_t filling = TakeNumber(&bytes), run = TakeNumber(&bytes);
  if (filling > 0) {
    got.large = true;
    std::string expected;
    AppendFilling(filling, run, &expected);
    RAY_CHECK(bytes.substr(0, filling) == expected)
        << "object " << outer << " has other bytes than were written, in seed " << process_->world()->seed();
    bytes.remove_prefix(filling);
  }
  got.value.text = std::string(bytes);
  return got;
}

std::vector<ObjectRefInfo> Session::InfosOf(std::span<const Ref> refs) {
  std::vector<ObjectRefInfo> infos;
  for (const Ref& ref : refs) infos.push_back(ref.info());
  return infos;
}

uint64_t Session::Template(TaskTemplate tmpl) {
  tmpl.job_id = worker_->info().job_id;
  const auto [it, added] = templates_.try_emplace(ContentOf(tmpl), 0);
  if (added) it->second = worker_->RegisterTemplate(std::move(tmpl));
  return it->second;
}

Ref Session::Put(const Value& value) {
  const Packed packed = Pack(value);
  ObjectId id;
  if (!worker_->objects().Put(packed.View(kMetadataRaw), &id).ok()) throw SessionOver{};
  return Ref(worker_, {id, worker_->info().address});
}

Ref Session::Call(const std::string& function, const Value& args, std::span<const Ref> refs, TaskOptions options) {
  TaskTemplate tmpl = NormalTask(function, options);
  if (options.spread) tmpl.strategy.kind = SchedulingStrategy::kSpread;
  const Packed packed = Pack(args);
  std::vector<ObjectId> ids;
  if (!worker_->SubmitTask(Template(std::move(tmpl)), packed.View(kMetadataPython), InfosOf(refs), &ids).ok()) throw SessionOver{};
  return Ref(worker_, {ids.at(0), worker_->info().address});
}

Status Session::TryCreate(const std::string& cls, const Value& args, const ActorOptions& options, ActorId* actor) {
  TaskTemplate tmpl;
  tmpl.type = TaskType::kActorCreation;
  tmpl.function_id = tmpl.function_name = cls;
  ActorCreation creation;
  creation.max_restarts = options.max_restarts;
  creation.max_task_retries = options.max_task_retries;
  creation.class_name = cls;
  creation.name = options.name;
  if (!options.name.empty()) creation.ray_namespace = kNamespace;
  creation.detached = options.detached;
  if (!options.group.IsNil()) {
    PlaceInGroup(options.group, options.bundle, /*capture=*/false, &tmpl);
    creation.placement_resources = tmpl.resources;
  }
  // Those of an actor that may outlive us, or wait for long, stay small: in a store they would be held for it.
  const bool small = !options.name.empty() || !options.group.IsNil();
  const Packed packed = small ? Pack(args, 0) : Pack(args);
  return worker_->CreateActor(Template(std::move(tmpl)), std::move(creation), packed.View(kMetadataPython), {}, actor);
}

ActorHandle Session::Create(const std::string& cls, const Value& args, const ActorOptions& options) {
  ActorId actor;
  if (!TryCreate(cls, args, options, &actor).ok()) throw SessionOver{};
  return {actor, Ref(worker_, {ObjectId::ForActorHandle(actor), worker_->info().address})};
}

std::optional<ActorHandle> Session::CreateNamed(const std::string& cls, const Value& args, const ActorOptions& options, bool* unknown) {
  ActorId actor;
  const Status status = TryCreate(cls, args, options, &actor);
  *unknown = status.code() == StatusCode::kDeadlineExceeded;
  if (*unknown || status.code() == StatusCode::kAlreadyExists) return std::nullopt;
  if (!status.ok()) throw SessionOver{};
  return ActorHandle{actor, Ref(worker_, {ObjectId::ForActorHandle(actor), worker_->info().address})};
}

std::optional<ActorId> Session::GetNamed(const std::string& name, bool* unknown) {
  v1::ActorInfo info;
  const Status status = worker_->actors().GetNamed(name, kNamespace, &info);
  *unknown = status.code() == StatusCode::kDeadlineExceeded;
  if (*unknown || status.code() == StatusCode::kNotFound) return std::nullopt;
  if (!status.ok()) throw SessionOver{};
  const ActorId actor = ActorId::FromBinaryOrNil(info.actor_id());
  worker_->actors().RegisterHandle(actor, -1, {});
  return actor;
}

PlacementGroupId Session::CreateGroup(v1::PlacementStrategy strategy, const std::vector<int64_t>& bundles) {
  v1::PlacementGroupInfo info;
  info.set_strategy(strategy);
  for (const int64_t slots : bundles) {
    ResourceSet need;
    need.Set(kSlot, slots * ResourceSet::kUnit);
    ToProto(need, info.add_bundles()->mutable_resources());
  }
  PlacementGroupId group;
  if (!worker_->placement_groups().Create(std::move(info), &group).ok()) throw SessionOver{};
  return group;
}

core::GroupState Session::WaitForGroup(const PlacementGroupId& group, Duration timeout) {
  const Time deadline = process_->loop()->clock().Now() + timeout;
  for (;;) {
    const Duration rest = std::max(deadline - process_->loop()->clock().Now(), Duration::zero());
    core::GroupState state;
    switch (worker_->placement_groups().Wait(group, std::chrono::ceil<std::chrono::milliseconds>(rest).count(), &state)) {
      case core::ReadResult::kReady: return state;
      case core::ReadResult::kTimeout: return worker_->placement_groups().StateOf(group);
      case core::ReadResult::kInterrupted: continue;
      case core::ReadResult::kClosed: throw SessionOver{};
    }
  }
}

Ref Session::GroupReady(const PlacementGroupId& group, const Value& value) {
  const Packed packed = Pack(value);
  ObjectId id;
  if (!worker_->placement_groups().WhenReady(group, packed.View(kMetadataRaw), &id).ok()) throw SessionOver{};
  return Ref(worker_, {id, worker_->info().address});
}

Ref Session::CallActor(const ActorId& actor, const std::string& method, const Value& args, std::span<const Ref> refs, int32_t max_retries) {
  TaskTemplate tmpl;
  tmpl.type = TaskType::kActorTask;
  tmpl.function_name = tmpl.method_name = method;
  tmpl.actor_id = actor;
  tmpl.max_retries = max_retries;
  const Packed packed = Pack(args);
  std::vector<ObjectId> ids;
  if (!worker_->SubmitActorTask(actor, Template(std::move(tmpl)), packed.View(kMetadataPython), InfosOf(refs), &ids).ok())
    throw SessionOver{};
  return Ref(worker_, {ids.at(0), worker_->info().address});
}

ActorHandle Session::HandleOf(const Ref& ref) {
  const ActorId actor = ref.id().task_id().actor_id();
  RAY_CHECK(ref.id() == ObjectId::ForActorHandle(actor)) << "not a handle of an actor";
  worker_->actors().RegisterHandle(actor, -1, {});
  return {actor, ref};
}

// Listed as waiting while it lives.
class Session::Waits {
 public:
  Waits(Session* s, const ObjectId& object, std::string text) : session_(s), number_(++s->last_wait_) {
    s->waits_.emplace(number_, Waiting{object, std::move(text), s->now()});
  }
  ~Waits() { session_->waits_.erase(number_); }
  Waits(const Waits&) = delete;
  Waits& operator=(const Waits&) = delete;

 private:
  Session* const session_;
  const uint64_t number_;
};

Ref Session::CallStream(const std::string& function, const Value& args, TaskOptions options, int64_t backpressure) {
  TaskTemplate tmpl = NormalTask(function, options);
  tmpl.num_returns = kStreamingReturns;
  tmpl.generator_backpressure = backpressure;
  const Packed packed = Pack(args);
  std::vector<ObjectId> ids;
  if (!worker_->SubmitTask(Template(std::move(tmpl)), packed.View(kMetadataPython), {}, &ids).ok()) throw SessionOver{};
  return Ref(worker_, {ids.at(0), worker_->info().address});
}

Ref Session::NextItem(const Ref& stream, const std::string& what) {
  const Waits registered(this, stream.id(), what);
  const TaskId task = stream.id().task_id();
  for (;;) {
    bool end = false;
    ObjectId item;
    if (worker_->streams().TryNext(task, &end, &item)) return end ? Ref() : Ref(worker_, {item, worker_->info().address});
    const auto waiter = std::make_shared<async::Waiter>();
    const uint64_t number = worker_->streams().OnNext(task, [waiter] { waiter->Notify(); });
    const core::ReadResult result = worker_->objects().Block(waiter.get(), Time::Infinite());
    if (result != core::ReadResult::kReady) worker_->streams().Cancel(task, number);
    if (result == core::ReadResult::kClosed) throw SessionOver{};
  }
}

std::vector<bool> Session::Wait(std::span<const Ref> refs, size_t count, Duration timeout) {
  const std::vector<ObjectRefInfo> infos = InfosOf(refs);
  const Time deadline = process_->loop()->clock().Now() + timeout;
  for (;;) {
    const Duration rest = std::max(deadline - process_->loop()->clock().Now(), Duration::zero());
    std::vector<bool> ready;
    switch (
        worker_->objects().Wait(infos, count, std::chrono::ceil<std::chrono::milliseconds>(rest).count(), /*fetch_local=*/true, &ready)) {
      case core::ReadResult::kReady: return ready;
      case core::ReadResult::kTimeout: return {};
      case core::ReadResult::kInterrupted: continue;
      case core::ReadResult::kClosed: throw SessionOver{};
    }
  }
}

Got Session::Get(const Ref& ref, std::optional<Duration> timeout, const std::string& what) {
  const ObjectRefInfo info = ref.info();
  const Time deadline = timeout ? process_->loop()->clock().Now() + *timeout : Time::Infinite();
  const Waits registered(this, info.id, (what.empty() ? std::string("an object") : what) + " (" + info.id.Hex() + ")");
  for (;;) {
    int64_t left = -1;
    if (timeout) {
      const Duration rest = std::max(deadline - process_->loop()->clock().Now(), Duration::zero());
      left = std::chrono::ceil<std::chrono::milliseconds>(rest).count();
    }
    std::vector<core::ReadValue> values;
    switch (worker_->objects().Get(std::span(&info, 1), left, &values)) {
      case core::ReadResult::kReady: return Read(values.at(0), info.id, 0);
      case core::ReadResult::kTimeout: return {};
      case core::ReadResult::kInterrupted: continue;
      case core::ReadResult::kClosed: throw SessionOver{};
    }
  }
}

std::vector<std::string> Session::waiting() const {
  std::vector<std::string> texts;
  for (const auto& [number, wait] : waits_) {
    std::string text = wait.what + ", for " + std::to_string((now() - wait.since).count() / 1'000'000'000) + " s";
    // From one thing to what it waits for, as far as this process knows.
    std::deque<std::pair<v1::SubjectKind, std::string>> asked{{v1::SUBJECT_KIND_OBJECT, wait.object.Binary()}};
    for (int left = 8; left > 0 && !asked.empty(); --left) {
      const auto [kind, id] = asked.front();
      asked.pop_front();
      for (const v1::WaitFact& fact : worker_->explain().Local(kind, id)) {
        text += "; " + fact.name() + " (kind " + std::to_string(kind) + ", " + BytesToHex(id) + ") is in state " +
                std::to_string(fact.state()) + " (" + fact.detail() + "), attempt " + std::to_string(fact.attempt()) + ", ahead " +
                std::to_string(fact.ahead());
        for (const v1::WaitPointer& next : fact.next()) asked.emplace_back(next.kind(), next.id());
      }
    }
    texts.push_back(std::move(text));
  }
  return texts;
}

}  // namespace ray::sim
