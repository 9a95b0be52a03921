#include "ray/wire/task_spec.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "ray/util/mutex.h"
#include "ray/v1/types.pb.h"
#include "ray/wire/convert.h"

namespace ray {
namespace {

void SetId(std::string* field, std::string_view id) { field->assign(id.data(), id.size()); }
template <typename Id>
void SetUnlessNil(std::string* field, const Id& id) {
  if (!id.IsNil()) SetId(field, id.View());
}

void TemplateToProto(const TaskTemplate& t, v1::TaskTemplate* out) {
  out->set_type(static_cast<v1::TaskType>(t.type));
  SetUnlessNil(out->mutable_job_id(), t.job_id);
  out->set_function_id(t.function_id);
  out->set_function_name(t.function_name);
  out->set_method_name(t.method_name);
  out->set_name(t.name);
  ToProto(t.resources, out->mutable_resources());
  out->set_num_returns(t.num_returns);
  out->set_max_retries(t.max_retries);
  out->set_retry_exceptions(t.retry_exceptions);
  out->set_retry_exception_allowlist(t.retry_exception_allowlist);
  out->set_max_calls(t.max_calls);
  out->set_runtime_env(t.runtime_env);
  SetUnlessNil(out->mutable_actor_id(), t.actor_id);
  out->set_concurrency_group(t.concurrency_group);
  ToProto(t.strategy, out->mutable_strategy());
  out->set_generator_backpressure(t.generator_backpressure);
  out->set_ray_namespace(t.ray_namespace);
  out->set_timeout_s(t.timeout_s);
  out->set_out_of_order(t.out_of_order);
  out->set_retry_timeouts(t.retry_timeouts);
  out->set_omit_task_events(t.omit_task_events);
  out->set_objects_per_yield(t.objects_per_yield);
  out->set_shared_backpressure(t.shared_backpressure);
}

// Equal messages give equal bytes, also where they have maps.
std::string BytesOf(const v1::TaskTemplate& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream out(&stream);
  out.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&out);
  out.Trim();
  return bytes;
}

// Equal templates get equal keys, from whatever connection they come, so that the executor's caches hit. After so many others a template may get another
// key, but no key ever stands for two templates.
uint64_t KeyOf(std::string content) {
  constexpr size_t kMaxKnown = 4096;
  static Mutex mu;
  static auto* keys = new std::unordered_map<std::string, uint64_t>;
  static uint64_t last = 0;
  MutexLock lock(&mu);
  if (const auto known = keys->find(content); known != keys->end()) return known->second;
  if (keys->size() >= kMaxKnown) keys->clear();
  keys->emplace(std::move(content), ++last);
  return last;
}

TaskTemplatePtr TemplateFromProto(const v1::TaskTemplate& m) {
  auto t = std::make_shared<TaskTemplate>();
  t->type = static_cast<TaskType>(m.type());
  t->job_id = JobId::FromBinaryOrNil(m.job_id());
  t->function_id = m.function_id();
  t->function_name = m.function_name();
  t->method_name = m.method_name();
  t->name = m.name();
  t->resources = FromProto(m.resources());
  t->num_returns = m.num_returns();
  t->max_retries = m.max_retries();
  t->retry_exceptions = m.retry_exceptions();
  t->retry_exception_allowlist = m.retry_exception_allowlist();
  t->max_calls = m.max_calls();
  t->runtime_env = m.runtime_env();
  t->actor_id = ActorId::FromBinaryOrNil(m.actor_id());
  t->concurrency_group = m.concurrency_group();
  t->strategy = FromProto(m.strategy());
  t->generator_backpressure = m.generator_backpressure();
  t->ray_namespace = m.ray_namespace();
  t->timeout_s = m.timeout_s();
  t->out_of_order = m.out_of_order();
  t->retry_timeouts = m.retry_timeouts();
  t->omit_task_events = m.omit_task_events();
  t->objects_per_yield = m.objects_per_yield();
  t->shared_backpressure = m.shared_backpressure();
  t->key = KeyOf(BytesOf(m));
  return t;
}

// A ref without an owner is the task owner's: most are, and the owner is larger than the ref.
void RefToProto(const ObjectRefInfo& ref, const Address& task_owner, v1::ObjectRef* out) {
  ToProto(ref.owner == task_owner ? ObjectRefInfo{ref.id, {}} : ref, out);
}

void AddRefs(const std::vector<ObjectRefInfo>& refs, const Address& task_owner, google::protobuf::RepeatedPtrField<v1::ObjectRef>* out) {
  for (const ObjectRefInfo& ref : refs) RefToProto(ref, task_owner, out->Add());
}

// What differs from call to call.
void EncodeCall(const TaskSpec& spec, v1::TaskSpec* out, PartList* parts) {
  SetId(out->mutable_task_id(), spec.task_id.View());
  if (spec.attempt != 0) out->set_attempt(spec.attempt);
  if (spec.sequence != 0) out->set_sequence(spec.sequence);
  if (spec.epoch != 0) out->set_epoch(spec.epoch);
  if (!spec.parent_task_id.IsNil()) SetId(out->mutable_parent_task_id(), spec.parent_task_id.View());
  if (spec.depth != 0) out->set_depth(spec.depth);
  if (spec.args_object) RefToProto(*spec.args_object, spec.owner, out->mutable_args_object());
  bool any_inline = false;
  for (const TaskArg& arg : spec.refs) any_inline |= arg.value != nullptr;
  // Part 0 is always the arguments where there are parts at all.
  if (spec.args) {
    parts->push_back(spec.args);
  } else if (any_inline) {
    parts->push_back(HeapBuffer::CopyOf({}));
  }
  InlineBudget budget;
  for (const TaskArg& arg : spec.refs) {
    v1::TaskArg* a = out->add_refs();
    RefToProto(arg.ref, spec.owner, a->mutable_ref());
    a->set_in_store(arg.in_store);
    if (arg.value == nullptr || budget.spent()) continue;
    budget.Add(arg.value->size(), arg.nested.size());
    a->set_inline_(true);
    a->set_metadata(arg.metadata);
    AddRefs(arg.nested, spec.owner, a->mutable_nested());
    parts->push_back(arg.value);
  }
  AddRefs(spec.nested, spec.owner, out->mutable_nested());
  if (spec.creation) ToProto(*spec.creation, out->mutable_creation());
}

}  // namespace

std::string SchedulingStrategy::Key() const {
  std::string key = std::to_string(kind) + ',' + std::to_string(soft) + std::to_string(spill_on_unavailable) +
                    std::to_string(fail_on_unavailable) + std::to_string(capture_child_tasks) + ',' + std::to_string(bundle_index) + ',' +
                    std::to_string(priority) + node_id.Binary() + placement_group_id.Binary();
  auto add = [&key](const Labels& labels) {
    key += '{';
    for (const auto& [name, value] : labels) key += name + '\0' + value + '\0';
    key += '}';
  };
  for (const Labels& selector : selectors) add(selector);
  add(preferred);
  return key;
}

void ToProto(const SchedulingStrategy& strategy, v1::SchedulingStrategy* out) {
  out->set_kind(static_cast<v1::StrategyKind>(strategy.kind));
  SetUnlessNil(out->mutable_node_id(), strategy.node_id);
  out->set_soft(strategy.soft);
  out->set_spill_on_unavailable(strategy.spill_on_unavailable);
  out->set_fail_on_unavailable(strategy.fail_on_unavailable);
  SetUnlessNil(out->mutable_placement_group_id(), strategy.placement_group_id);
  out->set_bundle_index(strategy.bundle_index);
  out->set_capture_child_tasks(strategy.capture_child_tasks);
  for (const auto& selector : strategy.selectors) {
    out->add_selectors()->mutable_constraints()->insert(selector.begin(), selector.end());
  }
  if (!strategy.preferred.empty()) {
    out->mutable_preferred()->mutable_constraints()->insert(strategy.preferred.begin(), strategy.preferred.end());
  }
  out->set_priority(strategy.priority);
}

SchedulingStrategy FromProto(const v1::SchedulingStrategy& m) {
  SchedulingStrategy s;
  s.kind = m.kind();
  s.node_id = NodeId::FromBinaryOrNil(m.node_id());
  s.soft = m.soft();
  s.spill_on_unavailable = m.spill_on_unavailable();
  s.fail_on_unavailable = m.fail_on_unavailable();
  s.placement_group_id = PlacementGroupId::FromBinaryOrNil(m.placement_group_id());
  s.bundle_index = m.bundle_index();
  s.capture_child_tasks = m.capture_child_tasks();
  for (const auto& selector : m.selectors()) s.selectors.emplace_back(selector.constraints().begin(), selector.constraints().end());
  s.preferred = {m.preferred().constraints().begin(), m.preferred().constraints().end()};
  s.priority = m.priority();
  return s;
}

void ToProto(const ActorCreation& c, v1::ActorCreation* out) {
  SetId(out->mutable_actor_id(), c.actor_id.View());
  out->set_name(c.name);
  out->set_ray_namespace(c.ray_namespace);
  out->set_detached(c.detached);
  out->set_max_restarts(c.max_restarts);
  out->set_max_task_retries(c.max_task_retries);
  out->set_max_concurrency(c.max_concurrency);
  out->set_is_async(c.is_async);
  out->set_allow_out_of_order(c.allow_out_of_order);
  for (const auto& [name, limit] : c.concurrency_groups) {
    auto* group = out->add_concurrency_groups();
    group->set_name(name);
    group->set_max_concurrency(limit);
  }
  ToProto(c.placement_resources, out->mutable_placement_resources());
  out->set_class_name(c.class_name);
  out->set_method_table(c.method_table);
  ToProto(c.owner, out->mutable_owner());
  out->set_max_pending_calls(c.max_pending_calls);
}

ActorCreation FromProto(const v1::ActorCreation& m) {
  ActorCreation c;
  c.actor_id = ActorId::FromBinaryOrNil(m.actor_id());
  c.name = m.name();
  c.ray_namespace = m.ray_namespace();
  c.detached = m.detached();
  c.max_restarts = m.max_restarts();
  c.max_task_retries = m.max_task_retries();
  c.max_concurrency = m.max_concurrency();
  c.is_async = m.is_async();
  c.allow_out_of_order = m.allow_out_of_order();
  for (const auto& group : m.concurrency_groups()) c.concurrency_groups.emplace_back(group.name(), group.max_concurrency());
  c.placement_resources = FromProto(m.placement_resources());
  c.class_name = m.class_name();
  c.method_table = m.method_table();
  c.owner = FromProto(m.owner());
  c.max_pending_calls = m.max_pending_calls();
  return c;
}

std::string ContentOf(const TaskTemplate& tmpl) {
  v1::TaskTemplate message;
  TemplateToProto(tmpl, &message);
  return BytesOf(message);
}

void EncodeWhole(const TaskSpec& spec, v1::TaskSpec* out, PartList* parts) {
  TemplateToProto(*spec.tmpl, out->mutable_template_());
  ToProto(spec.owner, out->mutable_owner());
  EncodeCall(spec, out, parts);
}

void TemplateSender::Encode(const TaskSpec& spec, v1::TaskSpec* out, PartList* parts) {
  out->Clear();
  auto it = ids_.find(spec.tmpl->key);
  const bool fresh = it == ids_.end();
  if (fresh) {
    auto number = static_cast<uint32_t>(ids_.size() + 1);
    if (number > max_known_) {
      number = ids_.extract(told_.front()).mapped();
      told_.pop_front();
    }
    it = ids_.emplace(spec.tmpl->key, number).first;
    told_.push_back(spec.tmpl->key);
  }
  out->set_template_id(it->second);
  if (fresh) {
    TemplateToProto(*spec.tmpl, out->mutable_template_());
    ToProto(spec.owner, out->mutable_owner());
  }
  EncodeCall(spec, out, parts);
}

Result<TaskSpec> TemplateReceiver::Decode(const v1::TaskSpec& m, PartList parts) {
  TaskSpec spec;
  if (m.has_template_()) {
    Known known{TemplateFromProto(m.template_()), FromProto(m.owner())};
    spec.tmpl = known.tmpl;
    spec.owner = known.owner;
    if (m.template_id() != 0) known_[m.template_id()] = std::move(known);
  } else {
    auto it = known_.find(m.template_id());
    if (it == known_.end()) return Status::InvalidArgument("a task of a template that was not defined on this connection");
    spec.tmpl = it->second.tmpl;
    spec.owner = it->second.owner;
  }
  RAY_ASSIGN_OR_RETURN(spec.task_id, TaskId::FromBinary(m.task_id()));
  spec.attempt = m.attempt();
  spec.sequence = m.sequence();
  spec.epoch = m.epoch();
  spec.parent_task_id = TaskId::FromBinaryOrNil(m.parent_task_id());
  spec.depth = m.depth();
  if (m.has_args_object()) spec.args_object = FromProto(m.args_object(), spec.owner);
  size_t next = 1;
  spec.refs.reserve(static_cast<size_t>(m.refs_size()));
  for (const auto& a : m.refs()) {
    TaskArg arg;
    arg.ref = FromProto(a.ref(), spec.owner);
    arg.in_store = a.in_store();
    if (a.inline_()) {
      if (next >= parts.size()) return Status::InvalidArgument("a task with fewer payload parts than inlined arguments");
      arg.value = std::move(parts[next++]);
      arg.metadata = a.metadata();
      arg.nested = RefsFromProto(a.nested(), spec.owner);
    }
    spec.refs.push_back(std::move(arg));
  }
  if (m.nested_size() > 0) spec.nested = RefsFromProto(m.nested(), spec.owner);
  if (!parts.empty() && parts[0]->size() > 0) spec.args = std::move(parts[0]);
  if (m.has_creation()) spec.creation = std::make_shared<const ActorCreation>(FromProto(m.creation()));
  return spec;
}

}  // namespace ray
