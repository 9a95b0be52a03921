#include "ray/raylet/resource_reports.h"

#include <algorithm>
#include <utility>

#include "ray/raylet/leases/lease_service.h"
#include "ray/raylet/objects/node_objects.h"
#include "ray/wire/convert.h"

namespace ray::raylet {
namespace {

int64_t Units(uint64_t amount) { return static_cast<int64_t>(amount) * ResourceSet::kUnit; }

}  // namespace

void ResourceReports::Begin() {
  reporting_ = true;
  reported_ = *deps_.total;
  LookAtStore();
}

void ResourceReports::Stop() {
  reporting_ = false;
  if (timer_ != 0) deps_.loop->CancelTimer(std::exchange(timer_, 0));
  if (store_timer_ != 0) deps_.loop->CancelTimer(std::exchange(store_timer_, 0));
  if (looks_timer_ != 0) deps_.loop->CancelTimer(std::exchange(looks_timer_, 0));
}

void ResourceReports::OnLookedElsewhere() {
  if (!reporting_) return;
  looked_elsewhere_ = deps_.loop->clock().Now();
  if (std::exchange(looks_, true)) return;
  RestLater();
  Soon();
}

void ResourceReports::RestLater() {
  looks_timer_ = deps_.loop->AddTimer(looked_elsewhere_ + kLooksFor - deps_.loop->clock().Now(), [this] {
    looks_timer_ = 0;
    // What waits is looked at again only when some node has more, which may be long from now: then it has to be told at once.
    if (deps_.leases->WaitsForOthers()) looked_elsewhere_ = deps_.loop->clock().Now();
    if (deps_.loop->clock().Now() < looked_elsewhere_ + kLooksFor) return RestLater();
    looks_ = false;
    Soon();
  });
}

void ResourceReports::Soon() {
  if (!reporting_) return;
  // What a removed placement group gives back may be all that another one waits for; and who begins to look elsewhere wants to know now.
  const bool at_once = deps_.leases->resources().HasDroppedBundle() || (looks_ && !reported_looks_);
  if (timer_ != 0) {
    if (!at_once) return;
    deps_.loop->CancelTimer(timer_);
  }
  const Duration wait = at_once ? Duration::zero() : last_ + deps_.interval - deps_.loop->clock().Now();
  timer_ = deps_.loop->AddTimer(std::max(wait, Duration::zero()), [this] {
    timer_ = 0;
    Report();
  });
}

ResourceSet ResourceReports::Available() const {
  ResourceSet available = deps_.leases->resources().available();
  // Tasks do not hold the store's memory; what is free is what the store says, unless tasks reserved more.
  const uint64_t free = deps_.store_capacity - std::min(store_used_, deps_.store_capacity);
  available.Set(kStoreMemory, std::min(available.Get(kStoreMemory), Units(free)));
  return available;
}

void ResourceReports::Fill(const ResourceSet& available, v1::ReportResourcesRequest* report) {
  reported_ = available;
  report->set_node_id(deps_.node_id.Binary());
  report->set_version(++version_);
  report->set_looks_elsewhere(looks_);
  reported_looks_ = looks_;
  ToProto(*deps_.total, report->mutable_total());
  ToProto(available, report->mutable_available());
  reported_waiting_ = deps_.leases->WaitingDemand();
  for (const auto& [need, count] : reported_waiting_) {
    v1::WaitingDemand* waiting = report->add_waiting();
    ToProto(need, waiting->mutable_need());
    waiting->set_count(count);
  }
  for (const auto& state : deps_.leases->TakeChangedBundles()) {
    v1::BundleReport* bundle = report->add_bundles();
    bundle->set_placement_group_id(state.bundle.group.Binary());
    bundle->set_index(state.bundle.index);
    ToProto(state.total, bundle->mutable_total());
    ToProto(state.available, bundle->mutable_available());
  }
}

void ResourceReports::Report() {
  const rpc::ConnectionPtr gcs = deps_.gcs();
  if (!reporting_ || gcs == nullptr) return;
  const ResourceSet available = Available();
  // Also when nothing has changed in the end: others may have counted on what came and went meanwhile.
  const bool touched = deps_.leases->TakeTouched();
  const bool same_queue = reported_waiting_ == deps_.leases->WaitingDemand();
  if (available == reported_ && !deps_.leases->resources().HasChangedBundles() && !touched && same_queue && looks_ == reported_looks_)
    return;
  last_ = deps_.loop->clock().Now();
  v1::ReportResourcesRequest report;
  Fill(available, &report);
  gcs->Notify(MethodId::kReportResources, report);
}

void ResourceReports::LookAtStore() {
  store_timer_ = 0;
  deps_.objects->ArmUse();  // before the look: what changes after it is told
  const uint64_t used = deps_.objects->used();
  if (used == store_used_) return;
  store_used_ = used;
  Soon();
}

void ResourceReports::OnStoreUse() {
  if (!reporting_ || store_timer_ != 0) return;
  store_timer_ = deps_.loop->AddTimer(deps_.store_interval, [this] { LookAtStore(); });
}

}  // namespace ray::raylet
