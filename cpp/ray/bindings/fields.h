// The structs of core.h to and from the core's own and the GCS's messages, field by field.
#pragma once

#include "ray/bindings/core.h"
#include "ray/util/status.h"
#include "ray/v1/explain.pb.h"
#include "ray/v1/gcs_actor.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/gcs_placement_group.pb.h"
#include "ray/wire/task_spec.h"

namespace ray::bindings {

// Without the namespace, which the process knows. INVALID_ARGUMENT: an amount of a resource that cannot be.
Result<TaskTemplate> TemplateFrom(const TemplateOptions& o);
Result<ActorCreation> CreationFrom(const ActorOptions& o);
Result<v1::PlacementGroupInfo> GroupFrom(const PlacementGroupFields& group);

TemplateOptions OptionsOf(const TaskTemplate& t);
ActorOptions OptionsOf(const ActorCreation& c);
ActorFields FieldsOf(const v1::ActorInfo& info);
NodeFields FieldsOf(const v1::NodeInfo& n);
PlacementGroupFields FieldsOf(const v1::PlacementGroupInfo& info);
WaitFactFields WaitFactOf(const v1::WaitFact& fact);

}  // namespace ray::bindings
