#include "ray/wire/convert.h"

namespace ray {

void ToProto(const Address& address, v1::Address* out) {
  if (!address.node_id.IsNil()) out->set_node_id(address.node_id.data(), NodeId::kSize);
  if (!address.worker_id.IsNil()) out->set_worker_id(address.worker_id.data(), WorkerId::kSize);
}

v1::Address ToProto(const Address& address) {
  v1::Address message;
  ToProto(address, &message);
  return message;
}

Address FromProto(const v1::Address& message) {
  return {NodeId::FromBinaryOrNil(message.node_id()), WorkerId::FromBinaryOrNil(message.worker_id())};
}

void ToProto(const ObjectRefInfo& ref, v1::ObjectRef* out) {
  out->set_object_id(ref.id.data(), ObjectId::kSize);
  if (!ref.owner.IsNil()) ToProto(ref.owner, out->mutable_owner());
}

ObjectRefInfo FromProto(const v1::ObjectRef& message, const Address& sender) {
  return {ObjectId::FromBinaryOrNil(message.object_id()), message.has_owner() ? FromProto(message.owner()) : sender};
}

void ToProto(const ResourceSet& resources, v1::ResourceSet* out) {
  for (const auto& [name, amount] : resources.items()) {
    auto* item = out->add_items();
    item->set_name(name);
    item->set_amount(amount);
  }
}

v1::ResourceSet ToProto(const ResourceSet& resources) {
  v1::ResourceSet message;
  ToProto(resources, &message);
  return message;
}

ResourceSet FromProto(const v1::ResourceSet& message) {
  ResourceSet resources;
  for (const auto& item : message.items()) resources.Set(item.name(), item.amount());
  return resources;
}

std::string PackAddress(const Address& address) {
  std::string packed;
  packed.reserve(kPackedAddressSize);
  packed.append(address.node_id.View()).append(address.worker_id.View());
  return packed;
}

Address UnpackAddress(std::string_view packed) {
  if (packed.size() != kPackedAddressSize) return {};
  return {NodeId::FromBytes(packed.data()), WorkerId::FromBytes(packed.data() + NodeId::kSize)};
}

}  // namespace ray
