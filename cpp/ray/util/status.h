// Status and Result<T>: how a function of ours says that it failed.
//
// Canonical codes (those of gRPC, so that they cross every carrier unchanged) plus a message for people and, where a
// user's program must tell causes apart, the number of a common::ErrorType in `cause`. No exceptions are thrown by our
// code; a Status that is dropped is a compile error. Value types, safe to copy between threads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "ray/util/check.h"

namespace ray {

// Numbers are those of gRPC and travel in frames: never change them.
enum class StatusCode : uint8_t {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

std::string_view StatusCodeName(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // OK
  Status(StatusCode code, std::string message, int32_t cause = -1)
      : rep_(code == StatusCode::kOk ? nullptr : std::make_shared<const Rep>(Rep{code, cause, std::move(message)})) {}

  static Status Ok() { return {}; }
  static Status Cancelled(std::string m) { return {StatusCode::kCancelled, std::move(m)}; }
  static Status InvalidArgument(std::string m) { return {StatusCode::kInvalidArgument, std::move(m)}; }
  static Status DeadlineExceeded(std::string m) { return {StatusCode::kDeadlineExceeded, std::move(m)}; }
  static Status NotFound(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
  static Status AlreadyExists(std::string m) { return {StatusCode::kAlreadyExists, std::move(m)}; }
  static Status PermissionDenied(std::string m) { return {StatusCode::kPermissionDenied, std::move(m)}; }
  static Status ResourceExhausted(std::string m) { return {StatusCode::kResourceExhausted, std::move(m)}; }
  static Status FailedPrecondition(std::string m) { return {StatusCode::kFailedPrecondition, std::move(m)}; }
  static Status Aborted(std::string m) { return {StatusCode::kAborted, std::move(m)}; }
  static Status Unimplemented(std::string m) { return {StatusCode::kUnimplemented, std::move(m)}; }
  static Status Internal(std::string m) { return {StatusCode::kInternal, std::move(m)}; }
  static Status Unavailable(std::string m) { return {StatusCode::kUnavailable, std::move(m)}; }
  static Status DataLoss(std::string m) { return {StatusCode::kDataLoss, std::move(m)}; }
  // Text of the errno value `err` after `what`, under the nearest canonical code.
  static Status FromErrno(int err, std::string_view what);

  bool ok() const { return rep_ == nullptr; }
  StatusCode code() const { return rep_ ? rep_->code : StatusCode::kOk; }
  // Number of a common::ErrorType, or -1.
  int32_t cause() const { return rep_ ? rep_->cause : -1; }
  const std::string& message() const;
  // "NOT_FOUND: no such actor", for logs.
  std::string ToString() const;

 private:
  struct Rep {
    StatusCode code;
    int32_t cause;
    std::string message;
  };
  std::shared_ptr<const Rep> rep_;
};

// A T, or the Status that says why there is none. REQUIRES: ok() before value access.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor): reads like a return
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    RAY_CHECK(!status_.ok()) << "a Result without a value needs an error";
  }
  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& value() && { return std::move(*value_); }
  T& operator*() & { return *value_; }
  T&& operator*() && { return std::move(*value_); }
  const T& operator*() const& { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

#define RAY_CONCAT_INNER_(a, b) a##b
#define RAY_CONCAT_(a, b) RAY_CONCAT_INNER_(a, b)
#define RAY_RETURN_NOT_OK(expr)                         \
  do {                                                  \
    if (::ray::Status s_ = (expr); !s_.ok()) return s_; \
  } while (false)
#define RAY_ASSIGN_OR_RETURN(lhs, expr)                                               \
  auto RAY_CONCAT_(res_, __LINE__) = (expr);                                          \
  if (!RAY_CONCAT_(res_, __LINE__).ok()) return RAY_CONCAT_(res_, __LINE__).status(); \
  lhs = std::move(RAY_CONCAT_(res_, __LINE__)).value()

}  // namespace ray
