// The Core of core.h: objects.
#include "ray/bindings/core.h"

#include <algorithm>
#include <utility>

#include "ray/bindings/completion_queue.h"
#include "ray/bindings/fields.h"
#include "ray/bindings/values.h"
#include "ray/core_worker/core_worker.h"
#include "ray/v1/explain.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/error_detail.h"

namespace ray::bindings {

Status Core::Put(const ValueIn& in, ObjectId* object_id) { return worker_->objects().Put(ViewOf(in), object_id); }

GetStatus Core::Get(const std::vector<Ref>& refs, int64_t timeout_ms, std::vector<ValueOut>* out) {
  std::vector<core::ReadValue> values;
  core::ReadResult result = worker_->objects().Get(refs, timeout_ms, &values);
  values.resize(refs.size());
  out->assign(refs.size(), {});
  for (size_t i = 0; i < refs.size(); ++i) {
    if (!values[i].metadata.empty()) {
      FillValue(std::move(values[i].metadata), std::move(values[i].blob), &(*out)[i]);
    } else if (result == core::ReadResult::kClosed) {
      ErrorValue error = worker_->ClosedError();
      FillValue(error.metadata, error.blob, &(*out)[i]);
    }
  }
  return ToGetStatus(result);
}

bool Core::TryGet(const Ref& ref, ValueOut* out) {
  core::ReadValue value;
  if (!worker_->objects().TryGet(ref, &value)) return false;
  FillValue(std::move(value.metadata), std::move(value.blob), out);
  return true;
}

bool Core::IsReady(const ObjectId& object_id) { return worker_->objects().IsLocal(object_id); }

GetStatus Core::Wait(const std::vector<Ref>& refs, int32_t num_returns, int64_t timeout_ms, bool fetch_local, std::vector<bool>* ready) {
  core::ReadResult result = worker_->objects().Wait(refs, static_cast<size_t>(std::max(0, num_returns)), timeout_ms, fetch_local, ready);
  ready->resize(refs.size());
  if (result == core::ReadResult::kClosed) ready->assign(refs.size(), true);  // a get of any tells that the session is over
  return ToGetStatus(result);
}

int Core::PollFd() { return loop_->poll_fd(); }
void Core::Poll() { loop_->PollOnce(); }
Status Core::NewCompletionQueue(std::unique_ptr<CompletionQueue>* out) { return MakeCompletionQueue(worker_.get(), out); }

void Core::AddLocalRef(const ObjectId& id) { worker_->objects().AddLocalRef(id); }
void Core::AddBorrowedRef(const Ref& ref, const ObjectId& outer_id, uint64_t task_token) {
  worker_->objects().AddBorrowedRef(ref, outer_id, task_token);
}
void Core::RemoveLocalRef(const ObjectId& id) { worker_->objects().RemoveLocalRef(id); }
Address Core::OwnerOf(const ObjectId& id) { return worker_->objects().OwnerOf(id); }
Status Core::GetLocations(const std::vector<Ref>& refs, int64_t timeout_ms, bool only_known, std::vector<ObjectPlace>* out) {
  core::ObjectService& objects = worker_->objects();
  std::vector<core::Location> locations;
  RAY_RETURN_NOT_OK(only_known ? objects.GetKnownLocations(refs, &locations) : objects.GetLocations(refs, timeout_ms, &locations));
  for (const core::Location& location : locations) {
    ObjectPlace& place = out->emplace_back();
    if (!location.known) continue;
    place.size = static_cast<int64_t>(location.size);
    place.spilled = location.spilled;
    for (const NodeId& node : location.node_ids) place.node_ids.push_back(node.Binary());
  }
  return Status::Ok();
}
void Core::NoteCreationSite(const ObjectId& id, const std::string& site) { worker_->explain().NoteSite(id, site); }
void Core::Explain(const std::vector<WaitQuestion>& questions, int64_t timeout_ms, std::vector<WaitAnswer>* out) {
  std::vector<core::ExplainQuestion> asked;
  for (const WaitQuestion& q : questions) {
    asked.push_back({UnpackAddress(q.address), static_cast<v1::SubjectKind>(q.kind), q.id, q.of_node});
  }
  for (core::ExplainAnswer& answer : worker_->explain().Ask(asked, std::chrono::milliseconds(timeout_ms))) {
    WaitAnswer& a = out->emplace_back(WaitAnswer{std::move(answer.status), {}});
    for (const v1::WaitFact& fact : answer.facts) a.facts.push_back(WaitFactOf(fact));
  }
}

}  // namespace ray::bindings
