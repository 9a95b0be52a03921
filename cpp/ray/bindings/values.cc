#include "ray/bindings/values.h"

#include <utility>

#include "ray/wire/convert.h"
#include "ray/wire/error_detail.h"
#include "ray/wire/value_layout.h"

namespace ray::bindings {

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
  out->argument_of = detail.argument_of();
  return Status::Ok();
}

}  // namespace ray::bindings
