// Error values: the blob of a value whose metadata is an error number other than 3 is a serialised ErrorDetail.
#pragma once

#include <string>
#include <string_view>

#include "ray/common/address.h"
#include "ray/common/buffer.h"
#include "ray/common/errors.h"
#include "ray/util/status.h"
#include "ray/v1/types.pb.h"

namespace ray {

// An error as a value: what a failed object's entry holds.
struct ErrorValue {
  std::string metadata;
  BufferPtr blob;
};
ErrorValue MakeErrorValue(const v1::ErrorDetail& detail);
ErrorValue MakeErrorValue(ErrorType type, std::string message);
// The result of a task, displayed as `task_name`, that did not run because its argument is `error`: of the same kind, and told as that of an argument.
ErrorValue MakeDependencyError(const ErrorValue& error, const std::string& task_name);
// OWNER_DIED of `object_hex`, naming the owner.
ErrorValue MakeOwnerDiedValue(std::string_view object_hex, const Address& owner);
// DATA_LOSS when the blob is not an ErrorDetail; error_type is that of the metadata where the blob has none.
Result<v1::ErrorDetail> ParseErrorValue(std::string_view metadata, std::string_view blob);
// The detail that tells `status` to a user: error type from its cause, else `fallback`.
v1::ErrorDetail DetailOf(const Status& status, ErrorType fallback);

}  // namespace ray
