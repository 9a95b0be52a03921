// Every method of every service: its number in frames and its name in gRPC paths. Numbers are never reused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace ray {

// RAY_METHODS(X): X(enumerator, number, "Service", "Method")
#define RAY_METHODS(X)                                                       \
  X(kPushTask, 1, "WorkerTask", "PushTask")                                  \
  X(kStealTasks, 2, "WorkerTask", "StealTasks")                              \
  X(kCancelTask, 3, "WorkerTask", "CancelTask")                              \
  X(kReportGeneratorItem, 4, "WorkerTask", "ReportGeneratorItem")            \
  X(kExit, 5, "WorkerTask", "Exit")                                          \
  X(kGetObject, 10, "WorkerObject", "GetObject")                             \
  X(kAddBorrowers, 11, "WorkerObject", "AddBorrowers")                       \
  X(kRemoveBorrowers, 12, "WorkerObject", "RemoveBorrowers")                 \
  X(kGetLocations, 13, "WorkerObject", "GetLocations")                       \
  X(kSettleBorrows, 14, "WorkerObject", "SettleBorrows")                     \
  X(kRegisterWorker, 20, "RayletWorker", "RegisterWorker")                   \
  X(kNotifyBlocked, 21, "RayletWorker", "NotifyBlocked")                     \
  X(kNotifyUnblocked, 22, "RayletWorker", "NotifyUnblocked")                 \
  X(kAnnounceExit, 23, "RayletWorker", "AnnounceExit")                       \
  X(kWorkerDied, 24, "RayletWorker", "WorkerDied")                           \
  X(kLogLines, 25, "RayletWorker", "LogLines")                               \
  X(kDriverMessage, 26, "RayletWorker", "DriverMessage")                     \
  X(kReclaimLeases, 27, "RayletWorker", "ReclaimLeases")                     \
  X(kDrainJobLogs, 29, "RayletWorker", "DrainJobLogs")                       \
  X(kGetNodeStats, 28, "RayletWorker", "GetNodeStats")                       \
  X(kWatchProcess, 30, "RayletWorker", "WatchProcess")                       \
  X(kRequestLease, 40, "RayletLease", "RequestLease")                        \
  X(kReturnLease, 41, "RayletLease", "ReturnLease")                          \
  X(kCancelLease, 42, "RayletLease", "CancelLease")                          \
  X(kStartActor, 43, "RayletLease", "StartActor")                            \
  X(kKillActorOnNode, 44, "RayletLease", "KillActor")                        \
  X(kJobFinished, 45, "RayletLease", "JobFinished")                          \
  X(kChaosListTargets, 48, "Chaos", "ListTargets")                           \
  X(kChaosKillWorker, 49, "Chaos", "KillWorker")                             \
  X(kChaosKillNode, 50, "Chaos", "KillNode")                                 \
  X(kShutdownNode, 46, "RayletLease", "Shutdown")                            \
  X(kDrain, 47, "RayletLease", "Drain")                                      \
  X(kStoreConnect, 60, "ObjectStore", "StoreConnect")                        \
  X(kStoreCreate, 61, "ObjectStore", "StoreCreate")                          \
  X(kStoreSeal, 62, "ObjectStore", "StoreSeal")                              \
  X(kStoreAbort, 63, "ObjectStore", "StoreAbort")                            \
  X(kStoreGet, 64, "ObjectStore", "StoreGet")                                \
  X(kStoreRelease, 65, "ObjectStore", "StoreRelease")                        \
  X(kStoreFree, 66, "ObjectStore", "StoreFree")                              \
  X(kStoreContains, 67, "ObjectStore", "StoreContains")                      \
  X(kStoreStats, 68, "ObjectStore", "StoreStats")                            \
  X(kStoreSegment, 69, "ObjectStore", "StoreSegment")                        \
  X(kStoreReclaim, 70, "ObjectStore", "StoreReclaim")                        \
  X(kStoreLeaseSlab, 71, "ObjectStore", "StoreLeaseSlab")                    \
  X(kStorePut, 72, "ObjectStore", "StorePut")                                \
  X(kStoreReturnSlab, 73, "ObjectStore", "StoreReturnSlab")                  \
  X(kRegisterNode, 80, "GcsNode", "RegisterNode")                            \
  X(kUnregisterNode, 81, "GcsNode", "UnregisterNode")                        \
  X(kReportResources, 82, "GcsNode", "ReportResources")                      \
  X(kReportWorkerDied, 83, "GcsNode", "ReportWorkerDied")                    \
  X(kListNodes, 84, "GcsNode", "ListNodes")                                  \
  X(kDrainNode, 86, "GcsNode", "DrainNode")                                  \
  X(kReportDraining, 87, "GcsNode", "ReportDraining")                        \
  X(kAddJob, 90, "GcsJob", "AddJob")                                         \
  X(kFinishJob, 91, "GcsJob", "FinishJob")                                   \
  X(kListJobs, 92, "GcsJob", "ListJobs")                                     \
  X(kRegisterActor, 100, "GcsActor", "RegisterActor")                        \
  X(kCreateActor, 101, "GcsActor", "CreateActor")                            \
  X(kFailActor, 102, "GcsActor", "FailActor")                                \
  X(kGetNamedActor, 103, "GcsActor", "GetNamedActor")                        \
  X(kGetActor, 104, "GcsActor", "GetActor")                                  \
  X(kListActors, 105, "GcsActor", "ListActors")                              \
  X(kKillActor, 106, "GcsActor", "KillActor")                                \
  X(kActorOutOfScope, 107, "GcsActor", "ActorOutOfScope")                    \
  X(kActorExiting, 108, "GcsActor", "ActorExiting")                          \
  X(kKvGet, 120, "GcsKv", "KvGet")                                           \
  X(kKvPut, 121, "GcsKv", "KvPut")                                           \
  X(kKvDel, 122, "GcsKv", "KvDel")                                           \
  X(kKvExists, 123, "GcsKv", "KvExists")                                     \
  X(kKvKeys, 124, "GcsKv", "KvKeys")                                         \
  X(kSubscribe, 140, "PubSub", "Subscribe")                                  \
  X(kUnsubscribe, 141, "PubSub", "Unsubscribe")                              \
  X(kPublish, 142, "PubSub", "Publish")                                      \
  X(kLinkHello, 200, "NodeLink", "Hello")                                    \
  X(kLinkProbe, 201, "NodeLink", "Probe")                                    \
  X(kTunnel, 202, "Tunnel", "Frames")                                        \
  X(kTunnelClosed, 203, "Tunnel", "Closed")                                  \
  X(kNodeDied, 204, "RayletWorker", "NodeDied")                              \
  X(kLinkWatch, 205, "NodeLink", "Watch")                                    \
  X(kFetchChunk, 240, "ObjectTransfer", "FetchChunk")                        \
  X(kLeaveObject, 241, "ObjectTransfer", "LeaveObject")                      \
  X(kPullObject, 242, "ObjectTransfer", "PullObject")                        \
  X(kCancelPull, 243, "ObjectTransfer", "CancelPull")                        \
  X(kFreeCopies, 244, "ObjectTransfer", "FreeCopies")                        \
  X(kKeepCopies, 245, "ObjectTransfer", "KeepCopies")                        \
  X(kFindSpilled, 255, "ObjectTransfer", "FindSpilled")                      \
  X(kAddLocation, 246, "WorkerObject", "AddLocation")                        \
  X(kAdoptObjects, 247, "ObjectAdoption", "AdoptObjects")                    \
  X(kOwnerMoved, 248, "ObjectAdoption", "OwnerMoved")                        \
  X(kCompleteAdoption, 249, "ObjectAdoption", "CompleteAdoption")            \
  X(kFindAdopted, 250, "ObjectAdoption", "FindAdopted")                      \
  X(kReownCopies, 251, "ObjectAdoption", "ReownCopies")                      \
  X(kCreatePlacementGroup, 220, "GcsPlacementGroup", "CreatePlacementGroup") \
  X(kRemovePlacementGroup, 221, "GcsPlacementGroup", "RemovePlacementGroup") \
  X(kGetPlacementGroup, 222, "GcsPlacementGroup", "GetPlacementGroup")       \
  X(kListPlacementGroups, 223, "GcsPlacementGroup", "ListPlacementGroups")   \
  X(kPrepareBundles, 230, "RayletBundle", "PrepareBundles")                  \
  X(kCommitBundles, 231, "RayletBundle", "CommitBundles")                    \
  X(kReturnBundles, 232, "RayletBundle", "ReturnBundles")                    \
  X(kResourceViews, 233, "Sync", "ResourceViews")                            \
  X(kMoveCopies, 254, "WorkerObject", "MoveCopies")                          \
  X(kExplain, 253, "Explain", "Explain")                                     \
  X(kLeaveTasks, 252, "Explain", "LeaveTasks")                               \
  X(kExplainGcs, 130, "GcsExplain", "Explain")

enum class MethodId : uint16_t {
#define RAY_X(name, number, service, method) name = number,
  RAY_METHODS(RAY_X)
#undef RAY_X
};
inline constexpr size_t kMaxMethodId = 256;

// "GcsKv/KvGet"; "unknown" for a number that no method has.
std::string_view MethodName(MethodId method);
// From a gRPC path "/ray.v1.GcsKv/KvGet".
std::optional<MethodId> MethodFromPath(std::string_view path);
// Served by the GCS: a raylet passes it on.
constexpr bool IsGcsMethod(MethodId m) {
  auto n = static_cast<uint16_t>(m);
  return (n >= 80 && n < 140) || (n >= 220 && n < 230);
}

}  // namespace ray
