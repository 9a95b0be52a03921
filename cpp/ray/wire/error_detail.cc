#include "ray/wire/error_detail.h"

#include "ray/wire/convert.h"
#include "ray/wire/value_layout.h"

namespace ray {

ErrorValue MakeErrorValue(const v1::ErrorDetail& detail) {
  auto blob = std::make_shared<HeapBuffer>(detail.ByteSizeLong());
  detail.SerializeWithCachedSizesToArray(blob->mutable_data());
  return {std::to_string(detail.error_type()), std::move(blob)};
}

ErrorValue MakeErrorValue(ErrorType type, std::string message) {
  v1::ErrorDetail detail;
  detail.set_error_type(static_cast<int32_t>(type));
  detail.set_message(std::move(message));
  return MakeErrorValue(detail);
}

ErrorValue MakeDependencyError(const ErrorValue& error, const std::string& task_name) {
  if (error.blob == nullptr) return error;
  if (error.metadata != std::to_string(static_cast<int32_t>(ErrorType::kTaskExecutionException))) {
    Result<v1::ErrorDetail> system = ParseErrorValue(error.metadata, error.blob->view());
    if (!system.ok()) return error;
    system->set_argument_of(task_name);
    return MakeErrorValue(*system);
  }
  v1::ErrorDetail detail;
  detail.set_error_type(static_cast<int32_t>(ErrorType::kDependencyResolutionFailed));
  detail.set_message("an argument of the task is the error of another task");
  detail.set_task_name(task_name);
  detail.set_cause(std::string(error.blob->view()));
  return MakeErrorValue(detail);
}

ErrorValue MakeOwnerDiedValue(std::string_view object_hex, const Address& owner) {
  v1::ErrorDetail detail;
  detail.set_error_type(static_cast<int32_t>(ErrorType::kOwnerDied));
  detail.set_message("object " + std::string(object_hex) + " cannot be had: its owner, worker " + owner.worker_id.Hex() + ", has died");
  detail.set_owner_address(ToProto(owner).SerializeAsString());
  return MakeErrorValue(detail);
}

Result<v1::ErrorDetail> ParseErrorValue(std::string_view metadata, std::string_view blob) {
  const int32_t type = ErrorTypeOfMetadata(metadata);
  v1::ErrorDetail detail;
  if (type < 0 || !detail.ParseFromArray(blob.data(), static_cast<int>(blob.size())))
    return Status::DataLoss("an error value that cannot be parsed");
  if (detail.error_type() == 0) detail.set_error_type(type);
  return detail;
}

v1::ErrorDetail DetailOf(const Status& status, ErrorType fallback) {
  v1::ErrorDetail detail;
  detail.set_error_type(status.cause() >= 0 ? status.cause() : static_cast<int32_t>(fallback));
  detail.set_message(status.message());
  return detail;
}

}  // namespace ray
