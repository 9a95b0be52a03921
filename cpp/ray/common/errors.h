// Kinds of failure that a user's program can tell apart. The decimal number is the metadata of an error object.
#pragma once

#include <cstdint>

namespace ray {

// Numbers are public (Ray's ErrorType) and persist: never change them.
enum class ErrorType : int32_t {
  kWorkerDied = 0,
  kActorDied = 1,
  kTaskExecutionException = 3,
  kTaskCancelled = 5,
  kActorCreationFailed = 6,
  kRuntimeEnvSetupFailed = 7,
  kObjectLost = 8,
  kOwnerDied = 9,
  kObjectDeleted = 10,
  kDependencyResolutionFailed = 11,
  kObjectUnreconstructableMaxAttempts = 12,
  kObjectUnreconstructableLineageEvicted = 13,
  kObjectFetchTimedOut = 14,
  kLocalRayletDied = 15,
  kTaskPlacementGroupRemoved = 16,
  kActorPlacementGroupRemoved = 17,
  kTaskUnschedulable = 18,
  kActorUnschedulable = 19,
  kOutOfDisk = 20,
  kObjectFreed = 21,
  kOutOfMemory = 22,
  kNodeDied = 23,
  kEndOfStream = 24,
  kActorUnavailable = 25,
  kGeneratorTaskFailedForReconstruction = 26,
  kObjectUnreconstructablePut = 27,
  kObjectUnreconstructableRetriesDisabled = 28,
  kObjectUnreconstructableBorrowed = 29,
  kObjectUnreconstructableRefNotFound = 30,
  kObjectUnreconstructableTaskCancelled = 31,
  kObjectUnreconstructableLineageDisabled = 32,
  kWorkerStartupFailed = 33,
  kStreamingGeneratorReplayInconsistent = 34,
  kObjectStoreFull = 40,  // from here on: our own
  kTaskTimedOut = 41,
  kObjectUnreconstructableOwnerLeft = 42,
  kObjectUnreadable = 43,  // it is there, but this process cannot read it now
};

}  // namespace ray
