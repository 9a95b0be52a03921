// WaitFact: what one process knows of where something stands and what it waits for (protos/ray/v1/explain.proto). Made by whoever keeps the state, put
// together by who asked.
#pragma once

#include <string_view>

#include "ray/common/address.h"
#include "ray/common/ids.h"
#include "ray/util/clock.h"
#include "ray/v1/explain.pb.h"

namespace ray {

inline constexpr int kMaxWaitPointers = 8;  // of one fact; beyond them only their number is told

void SetSubject(v1::SubjectKind kind, std::string_view id, v1::WaitState state, v1::WaitFact* out);
// `since` infinite: unknown.
void SetAge(Time since, Time now, v1::WaitFact* out);
// `address` as in WaitPointer: nil is the GCS.
void AddPointer(v1::SubjectKind kind, std::string_view id, const Address& address, v1::WaitFact* out);

}  // namespace ray
