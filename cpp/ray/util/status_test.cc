#include "ray/util/status.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace ray {
namespace {

Status FailIf(bool fail) { return fail ? Status::NotFound("gone") : Status::Ok(); }

Result<int> Half(int n) {
  if (n % 2 != 0) return Status::InvalidArgument("odd");
  return n / 2;
}

Result<int> Quarter(int n) {
  RAY_ASSIGN_OR_RETURN(int half, Half(n));
  RAY_ASSIGN_OR_RETURN(int quarter, Half(half));
  return quarter;
}

Status Chain(bool fail, bool* reached) {
  RAY_RETURN_NOT_OK(FailIf(fail));
  *reached = true;
  return Status::Ok();
}

TEST(StatusTest, OkHasNoMessage) {
  Status ok;
  EXPECT_TRUE(ok.ok());
  EXPECT_EQ(ok.code(), StatusCode::kOk);
  EXPECT_EQ(ok.cause(), -1);
  EXPECT_EQ(ok.message(), "");
  EXPECT_EQ(ok.ToString(), "OK");
  EXPECT_TRUE(Status(StatusCode::kOk, "ignored").ok());
}

TEST(StatusTest, KeepsCodeMessageAndCause) {
  Status status(StatusCode::kUnavailable, "no worker", 33);
  Status copy = status;
  EXPECT_EQ(copy.code(), StatusCode::kUnavailable);
  EXPECT_EQ(copy.cause(), 33);
  EXPECT_EQ(copy.ToString(), "UNAVAILABLE: no worker");
}

TEST(StatusTest, FromErrnoGivesTheNearestCode) {
  EXPECT_EQ(Status::FromErrno(ENOENT, "open x").code(), StatusCode::kNotFound);
  EXPECT_EQ(Status::FromErrno(ENOENT, "open x").message(), "open x: No such file or directory");
  EXPECT_EQ(Status::FromErrno(ENOSPC, "").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Status::FromErrno(EIO, "").code(), StatusCode::kInternal);
  EXPECT_EQ(Status::FromErrno(EMFILE, "").code(), StatusCode::kResourceExhausted);
  EXPECT_NE(Status::FromErrno(EMFILE, "").message().find("`ulimit -n` raises it"), std::string::npos);
}

TEST(StatusTest, ReturnNotOkStopsAtTheFirstFailure) {
  bool reached = false;
  EXPECT_EQ(Chain(true, &reached).message(), "gone");
  EXPECT_FALSE(reached);
  EXPECT_TRUE(Chain(false, &reached).ok());
  EXPECT_TRUE(reached);
}

TEST(ResultTest, CarriesAValueOrAStatus) {
  EXPECT_EQ(Quarter(12).value(), 3);
  EXPECT_EQ(Quarter(6).status().code(), StatusCode::kInvalidArgument);
  EXPECT_FALSE(Quarter(6).ok());
  Result<std::unique_ptr<int>> moved(std::make_unique<int>(5));
  std::unique_ptr<int> p = std::move(moved).value();
  EXPECT_EQ(*p, 5);
}

TEST(ResultDeathTest, NeedsAnError) { EXPECT_DEATH(Result<int>{Status::Ok()}, "needs an error"); }

TEST(CheckDeathTest, SaysWhatAndWhere) {
  EXPECT_DEATH(RAY_CHECK(1 + 1 == 3) << "sums " << 7, "status_test.cc:[0-9]+: check failed: 1 \\+ 1 == 3 sums 7");
}

}  // namespace
}  // namespace ray
