// The Core of core.h: what a process submits, and the streams it reads.
#include "ray/bindings/core.h"

#include <memory>
#include <utility>

#include "ray/bindings/fields.h"
#include "ray/bindings/values.h"
#include "ray/core_worker/core_worker.h"

namespace ray::bindings {

Status Core::RegisterTemplate(const TemplateOptions& options, uint64_t* handle) {
  RAY_ASSIGN_OR_RETURN(TaskTemplate t, TemplateFrom(options));
  t.ray_namespace = Namespace({});
  *handle = worker_->RegisterTemplate(std::move(t));
  return Status::Ok();
}

void Core::ReleaseTemplate(uint64_t handle) { worker_->ReleaseTemplate(handle); }

Status Core::SubmitTask(uint64_t handle, const ValueIn& args, const std::vector<Ref>& refs, std::vector<ObjectId>* return_ids) {
  return worker_->SubmitTask(handle, ViewOf(args), refs, return_ids);
}

Status Core::CreateActor(uint64_t handle, const ActorOptions& o, const ValueIn& args, const std::vector<Ref>& refs, std::string* actor_id) {
  RAY_ASSIGN_OR_RETURN(ActorCreation c, CreationFrom(o));
  c.ray_namespace = Namespace(o.ray_namespace);
  ActorId actor;
  RAY_RETURN_NOT_OK(worker_->CreateActor(handle, std::move(c), ViewOf(args), refs, &actor));
  *actor_id = actor.Binary();
  return Status::Ok();
}

Status Core::SubmitActorTask(const ActorId& actor_id, uint64_t handle, const ValueIn& args, const std::vector<Ref>& refs,
                             std::vector<ObjectId>* return_ids) {
  return worker_->SubmitActorTask(actor_id, handle, ViewOf(args), refs, return_ids);
}

void Core::RegisterActorHandle(const std::string& actor_id, const std::string&, const ActorOptions& options) {
  worker_->actors().RegisterHandle(ActorId::FromBinaryOrNil(actor_id), options.max_pending_calls, options.class_name);
}
Status Core::KillActor(const std::string& actor_id, bool no_restart) {
  return worker_->actors().Kill(ActorId::FromBinaryOrNil(actor_id), no_restart);
}
Status Core::CancelTask(const Ref& ref, bool force, bool recursive) { return worker_->CancelTask(ref, force, recursive); }
Status Core::GetNamedActor(const std::string& name, const std::string& ray_namespace, ActorFields* out) {
  v1::ActorInfo info;
  RAY_RETURN_NOT_OK(worker_->actors().GetNamed(name, Namespace(ray_namespace), &info));
  *out = FieldsOf(info);
  return Status::Ok();
}
Status Core::ListActors(bool named_only, bool all_namespaces, const std::string& ray_namespace, std::vector<ActorFields>* out) {
  v1::ListActorsRequest request;
  request.set_named_only(named_only);
  request.set_all_namespaces(all_namespaces);
  request.set_ray_namespace(Namespace(ray_namespace));
  v1::ListActorsReply reply;
  RAY_RETURN_NOT_OK(worker_->actors().List(request, &reply));
  for (const auto& actor : reply.actors()) out->push_back(FieldsOf(actor));
  return Status::Ok();
}

GetStatus Core::NextGeneratorItem(const ObjectId& generator_id, int64_t timeout_ms, ObjectId* object_id) {
  *object_id = ObjectId::Nil();
  TaskId task = generator_id.task_id();
  const Time deadline = worker_->objects().DeadlineOf(timeout_ms);
  while (true) {
    bool end;
    ObjectId item;
    if (worker_->streams().TryNext(task, &end, &item)) {
      if (!end) *object_id = item;
      return GetStatus::kReady;
    }
    auto waiter = std::make_shared<async::Waiter>();
    const uint64_t number = worker_->streams().OnNext(task, [waiter] { waiter->Notify(); });
    const core::ReadResult result = worker_->objects().Block(waiter.get(), deadline);
    if (result != core::ReadResult::kReady) worker_->streams().Cancel(task, number);
    switch (result) {
      case core::ReadResult::kReady: break;
      case core::ReadResult::kTimeout: return GetStatus::kTimeout;
      case core::ReadResult::kInterrupted: return GetStatus::kInterrupted;
      case core::ReadResult::kClosed:  // its stream has failed, or is gone
        if (!worker_->streams().TryNext(task, &end, &item)) end = true;
        if (!end) *object_id = item;
        return GetStatus::kReady;
    }
  }
}
void Core::ReleaseGenerator(const ObjectId& generator_id) { worker_->streams().Release(generator_id.task_id()); }

}  // namespace ray::bindings
