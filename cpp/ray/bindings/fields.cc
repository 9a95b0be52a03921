#include "ray/bindings/fields.h"

#include <utility>

#include "ray/wire/convert.h"

namespace ray::bindings {
namespace {

std::string PackIfAny(const v1::Address& message) {
  const Address address = FromProto(message);
  return address.IsNil() ? std::string() : PackAddress(address);
}

TaskRowFields TaskRowOf(const v1::TaskRow& row) {
  TaskRowFields f;
  f.owned = row.owned();
  f.in_wait = row.in_wait();
  f.type = static_cast<int32_t>(row.type());
  f.error_type = row.error_type();
  f.submitted_at_ms = row.submitted_at_ms();
  f.started_at_ms = row.started_at_ms();
  f.ended_at_ms = row.ended_at_ms();
  f.function_name = row.function_name();
  f.parent_task_id = row.parent_task_id();
  f.error_message = row.error_message();
  f.runtime_env = row.runtime_env();
  if (!row.has_strategy()) return f;
  f.placement_group_id = row.strategy().placement_group_id();
  f.label_selectors = FromProto(row.strategy()).selectors;
  return f;
}

}  // namespace

Result<TaskTemplate> TemplateFrom(const TemplateOptions& o) {
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
  return t;
}

Result<ActorCreation> CreationFrom(const ActorOptions& o) {
  ActorCreation c;
  c.name = o.name;
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
  return c;
}

Result<v1::PlacementGroupInfo> GroupFrom(const PlacementGroupFields& group) {
  v1::PlacementGroupInfo info;
  info.set_name(group.name);
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
  return info;
}

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
  f.node_ip = info.node_ip();
  f.num_restarts = static_cast<int32_t>(info.num_restarts());
  f.max_task_retries = c.max_task_retries();
  f.max_pending_calls = c.max_pending_calls();
  f.max_concurrency = c.max_concurrency();
  f.detached = c.detached();
  f.is_async = c.is_async();
  f.allow_out_of_order = c.allow_out_of_order();
  return f;
}

NodeFields FieldsOf(const v1::NodeInfo& n) {
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
  f.start_time_ms = n.start_time_ms();
  f.end_time_ms = n.end_time_ms();
  f.death_kind = static_cast<int32_t>(n.death_kind());
  f.total = FromProto(n.total()).ToDoubles();
  f.available = FromProto(n.available()).ToDoubles();
  f.labels.insert(n.labels().begin(), n.labels().end());
  f.port = n.port();
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
  f.infeasible = info.infeasible();
  return f;
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
  f.has_row = fact.has_row();
  if (f.has_row) f.row = TaskRowOf(fact.row());
  f.has_totals = fact.has_totals();
  const v1::TaskTotals& totals = fact.totals();
  f.totals = {totals.forgotten_finished(), totals.forgotten_failed(), totals.left_out(), totals.silent()};
  return f;
}

}  // namespace ray::bindings
