// Common types to and from their messages. Messages come from other processes: ids of a wrong length become nil, which no table knows.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ray/common/address.h"
#include "ray/common/ids.h"
#include "ray/common/resources.h"
#include "ray/v1/types.pb.h"

namespace ray {

void ToProto(const Address& address, v1::Address* out);
v1::Address ToProto(const Address& address);
Address FromProto(const v1::Address& message);  // empty fields give nil ids

void ToProto(const ObjectRefInfo& ref, v1::ObjectRef* out);
// `sender` owns the object where the message names no owner.
ObjectRefInfo FromProto(const v1::ObjectRef& message, const Address& sender);
template <typename RepeatedRefs>
std::vector<ObjectRefInfo> RefsFromProto(const RepeatedRefs& messages, const Address& sender) {
  std::vector<ObjectRefInfo> refs;
  refs.reserve(static_cast<size_t>(messages.size()));
  for (const auto& message : messages) refs.push_back(FromProto(message, sender));
  return refs;
}

void ToProto(const ResourceSet& resources, v1::ResourceSet* out);
v1::ResourceSet ToProto(const ResourceSet& resources);
ResourceSet FromProto(const v1::ResourceSet& message);

// Node id + worker id, 56 bytes: the form in which the bindings carry an address.
inline constexpr size_t kPackedAddressSize = NodeId::kSize + WorkerId::kSize;
std::string PackAddress(const Address& address);
Address UnpackAddress(std::string_view packed);  // nil unless it has 56 bytes

}  // namespace ray
