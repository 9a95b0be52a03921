#include "ray/wire/convert.h"

#include <gtest/gtest.h>

#include "ray/wire/error_detail.h"

namespace ray {
namespace {

TEST(ConvertTest, AddressesComeBack) {
  const Address full{NodeId::FromRandom(), WorkerId::FromRandom()}, raylet{NodeId::FromRandom(), {}};
  EXPECT_EQ(FromProto(ToProto(full)), full);
  EXPECT_EQ(FromProto(ToProto(raylet)), raylet);
  EXPECT_EQ(PackAddress(full).size(), kPackedAddressSize);
  EXPECT_EQ(UnpackAddress(PackAddress(full)), full);
  EXPECT_TRUE(UnpackAddress("short").IsNil());
}

TEST(ConvertTest, ARefWithoutOwnerIsTheSenders) {
  const Address sender{NodeId::FromRandom(), WorkerId::FromRandom()}, other{NodeId::FromRandom(), WorkerId::FromRandom()};
  v1::ObjectRef mine, theirs;
  const ObjectId id = ObjectId::FromRandom();
  ToProto(ObjectRefInfo{id, {}}, &mine);
  ToProto(ObjectRefInfo{id, other}, &theirs);
  EXPECT_EQ(FromProto(mine, sender).owner, sender);
  EXPECT_EQ(FromProto(theirs, sender).owner, other);
  EXPECT_EQ(FromProto(theirs, sender).id, id);
}

TEST(ConvertTest, ResourcesComeBack) {
  ResourceSet set;
  set.Set("GPU", 5000);
  set.Set("CPU", 20000);
  EXPECT_EQ(FromProto(ToProto(set)), set);
}

TEST(ErrorDetailTest, ValuesNameTypeAndOwner) {
  const Address owner{NodeId::FromRandom(), WorkerId::FromRandom()};
  const ErrorValue value = MakeOwnerDiedValue("abcd", owner);
  EXPECT_EQ(value.metadata, "9");
  auto detail = ParseErrorValue(value.metadata, value.blob->view());
  ASSERT_TRUE(detail.ok());
  EXPECT_EQ(detail->error_type(), 9);
  v1::Address address;
  ASSERT_TRUE(address.ParseFromString(detail->owner_address()));
  EXPECT_EQ(FromProto(address), owner);
  const ErrorValue of_argument = MakeDependencyError(value, "use");
  EXPECT_EQ(of_argument.metadata, "9");
  EXPECT_EQ(ParseErrorValue(of_argument.metadata, of_argument.blob->view())->argument_of(), "use");
  EXPECT_FALSE(ParseErrorValue("8", "\xff\xff\xff").ok());
  EXPECT_FALSE(ParseErrorValue("PYTHON", "").ok());
  EXPECT_EQ(DetailOf(Status(StatusCode::kInternal, "x", 22), ErrorType::kWorkerDied).error_type(), 22);
}

}  // namespace
}  // namespace ray
