// Replays tests/scenarios/gcs: the tables of the GCS and the core that judges whether nodes live. Actors, nodes, workers and owners are
// single letters, jobs are numbers. A name in front says which core an event is for:
//   actor.node N cpu= label=KEY:VALUE    actor.node-withdrawn N    actor.node-died N    actor.group G NODE...  (of each bundle with one CPU; -: nowhere)
//   actor.register A owner= home=NODE name= restarts= cpu= job= on=NODE [soft] [detached] group= bundle= label=KEY:VALUE or=KEY:VALUE    actor.create A    actor.why A
//   actor.fail A    actor.started A start= worker=    actor.start-failed A start= [raised] [died] [refused] [link-lost]
//   actor.start-cancelled A start=    actor.worker-died W    actor.owner-was-dead A    actor.kill A [restart]    actor.out-of-scope A
//   actor.exiting A worker=    actor.job-finished JOB    actor.named NAME    actor.show A
//   node.register N python=    node.report N version= cpu=    node.drain N    node.die N    job.add node=    job.finish JOB    job.running-on N    job.over-of-late
//   kv.put KEY VALUE ns= job= [overwrite]    kv.job-gone JOB    kv.get KEY    kv.del KEY [prefix]    kv.keys PREFIX    worker.died W    worker.is-dead W
//   health.link-up N LINK attempt=    health.link-down N LINK    health.left N
//   health.due N at=TIME    health.answered N LINK at=TIME    health.missed N LINK at=TIME     (a probe every 3 s, 2 s for its answer, 3 misses are death)
#include <gtest/gtest.h>

#include <memory>

#include "ray/gcs_server/health/health_core.h"
#include "ray/gcs_server/tables/actor_table_core.h"
#include "ray/gcs_server/tables/job_table_core.h"
#include "ray/gcs_server/tables/kv_table_core.h"
#include "ray/gcs_server/tables/node_table_core.h"
#include "ray/gcs_server/tables/worker_table_core.h"
#include "ray/testing/golden/golden.h"
#include "ray/wire/convert.h"

namespace ray::gcs {
namespace {

using testing::GoldenEvent;

template <typename Id>
Id MakeId(const std::string& letter) {
  return letter.empty() ? Id::Nil() : Id::FromBinaryOrNil(std::string(Id::kSize, letter[0]));
}
// The letter of an id's bytes.
std::string Letter(std::string_view id) { return id.empty() || static_cast<uint8_t>(id[0]) == 0xff ? "-" : std::string(1, id[0]); }
std::string JobText(std::string_view id) { return std::to_string(JobId::FromBinaryOrNil(id).ToInt()); }

ResourceSet Cpus(uint64_t n) {
  ResourceSet set;
  if (n > 0) set.Set("CPU", static_cast<int64_t>(n) * ResourceSet::kUnit);
  return set;
}

std::string Show(const v1::ActorInfo& actor) {
  static const char* const kStates[] = {"?", "waits for arguments", "pending", "alive", "restarting", "dead"};
  std::string text = "actor " + Letter(actor.actor_id()) + " " + kStates[actor.state()];
  if (actor.has_address()) text += " as " + Letter(actor.address().worker_id());
  if (actor.num_restarts() > 0) text += ", restarts " + std::to_string(actor.num_restarts());
  if (actor.has_death_cause()) {
    const v1::ErrorDetail& cause = actor.death_cause();
    text += ": " + cause.message() + (cause.never_ran() ? " (never ran)" : "");
    if (!cause.node_ip().empty()) text += " (process " + std::to_string(cause.pid()) + " on " + cause.node_ip() + ")";
  }
  return text;
}

std::string ShowReply(const google::protobuf::MessageLite* reply) {
  if (const auto* registered = dynamic_cast<const v1::RegisterActorReply*>(reply); registered != nullptr && registered->has_existing()) {
    return "reply: the name is taken by " + Letter(registered->existing().actor_id());
  }
  if (const auto* actor = dynamic_cast<const v1::GetActorReply*>(reply)) return "reply: " + Show(actor->actor());
  if (const auto* job = dynamic_cast<const v1::AddJobReply*>(reply)) return "reply: job " + JobText(job->job_id());
  if (const auto* value = dynamic_cast<const v1::KvGetReply*>(reply)) return value->found() ? "reply: " + value->value() : "reply: nothing";
  if (const auto* put = dynamic_cast<const v1::KvPutReply*>(reply)) return put->added() ? "reply: new" : "reply: it was there";
  if (const auto* del = dynamic_cast<const v1::KvDelReply*>(reply)) return "reply: " + std::to_string(del->deleted()) + " deleted";
  if (const auto* keys = dynamic_cast<const v1::KvKeysReply*>(reply)) {
    std::string text = "reply:";
    for (const std::string& key : keys->keys()) text += " " + key;
    return text;
  }
  return "reply";
}

struct Show_ {
  std::string operator()(const Persist& e) const { return (e.erase ? "erase " : "persist ") + e.table; }
  std::string operator()(const Answer& e) const {
    if (e.status.ok()) return ShowReply(e.reply.get());
    return "refuse: " + std::string(StatusCodeName(e.status.code()));
  }
  std::string operator()(const Publish& e) const {
    if (e.notice.has_actor()) return "publish " + Show(e.notice.actor());
    if (e.notice.has_worker()) return "publish worker " + Letter(e.notice.worker().worker_id()) + " dead";
    return "publish node " + Letter(e.notice.node().node_id()) +
           (e.notice.node().draining() && e.notice.node().alive() ? " about to leave"
            : e.notice.node().alive()                             ? " alive"
                                                                  : " dead: " + e.notice.node().death_reason());
  }
  std::string operator()(const StartOnNode& e) const {
    return "start " + Letter(e.actor.View()) + " on " + Letter(e.node.View()) + ", attempt " + std::to_string(e.start) + ", restart " +
           std::to_string(e.restart);
  }
  std::string operator()(const KillOnNode& e) const {
    return "end " + Letter(e.actor.View()) + " on " + Letter(e.node.View()) +
           (e.worker.IsNil() ? std::string(", still starting") : ", worker " + Letter(e.worker.View())) + (e.force ? ", at once" : "") +
           (e.call != 0 ? ", then answer" : "");
  }
  std::string operator()(const TellJobFinished& e) const { return "tell the nodes that job " + std::to_string(e.job.ToInt()) + " is over"; }
  std::string operator()(const TellDriver& e) const { return "tell the driver: " + e.kind; }
  std::string operator()(const auto&) const { return "an effect that is not shown here"; }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    Effects effects;
    lines_.clear();
    const std::string& name = event.name();
    if (name.starts_with("actor.")) {
      Actors(event, name.substr(6), &effects);
    } else {
      Others(event, name, &effects);
    }
    std::vector<std::string> lines = std::move(lines_);
    for (const Effect& effect : effects) lines.push_back(std::visit(Show_(), effect));
    return lines;
  }

 private:
  struct Tables {
    scheduling::ClusterView view;
    uint64_t view_version = 0;
    ActorTableCore actors{{}, &view};
    NodeTableCore nodes{NodeTableConfig{}};
    JobTableCore jobs;
    KvTableCore kv;
    WorkerTableCore workers;
    HealthCore health{{.period = std::chrono::seconds(3), .timeout = std::chrono::seconds(2), .threshold = 3}};
  };

  static v1::RegisterActorRequest Registration(const GoldenEvent& event) {
    v1::RegisterActorRequest request;
    v1::TaskTemplate* task = request.mutable_spec()->mutable_template_();
    task->set_job_id(JobId::FromInt(static_cast<uint32_t>(event.Number("job", 1))).Binary());
    if (const std::string node = event.Word("on", ""); !node.empty()) {
      task->mutable_strategy()->set_kind(v1::STRATEGY_KIND_NODE_AFFINITY);
      task->mutable_strategy()->set_node_id(MakeId<NodeId>(node).Binary());
      task->mutable_strategy()->set_soft(event.Has("soft"));
    }
    if (const std::string group = event.Word("group", ""); !group.empty()) {
      task->mutable_strategy()->set_kind(v1::STRATEGY_KIND_PLACEMENT_GROUP);
      task->mutable_strategy()->set_placement_group_id(MakeId<PlacementGroupId>(group).Binary());
      task->mutable_strategy()->set_bundle_index(std::stoi(event.Word("bundle", "-1")));
    }
    for (const char* alternative : {"label", "or"}) {
      const auto label = event.Label(alternative);
      if (!label.empty()) task->mutable_strategy()->add_selectors()->mutable_constraints()->insert(label.begin(), label.end());
    }
    v1::ActorCreation* creation = request.mutable_spec()->mutable_creation();
    creation->set_actor_id(MakeId<ActorId>(event.Word(0)).Binary());
    creation->set_class_name("Foo");
    creation->set_name(event.Word("name", ""));
    creation->set_ray_namespace("ns");
    creation->set_max_restarts(std::stoi(event.Word("restarts", "0")));
    creation->set_detached(event.Has("detached"));
    ToProto(Address{MakeId<NodeId>(event.Word("home", "N")), MakeId<WorkerId>(event.Word("owner", "D"))}, creation->mutable_owner());
    ToProto(Cpus(event.Number("cpu", 1)), creation->mutable_placement_resources());
    return request;
  }

  void Actors(const GoldenEvent& event, const std::string& name, Effects* out) {
    constexpr CallToken kCall = 1;
    ActorTableCore& actors = t_->actors;
    const ActorId id = MakeId<ActorId>(event.Word(0));
    const auto start = static_cast<uint32_t>(event.Number("start", 1));
    v1::StartActorReply reply;
    if (name == "node") {
      const ResourceSet set = Cpus(event.Number("cpu", 4));
      t_->view.Set(MakeId<NodeId>(event.Word(0)), set, set, event.Label("label"), ++t_->view_version);
      actors.NodeChanged(1, out);
    } else if (name == "node-withdrawn") {
      const NodeId node = MakeId<NodeId>(event.Word(0));
      const scheduling::ClusterView::Node* known = t_->view.Find(node);
      t_->view.Set(node, known->total(), known->available(), known->labels, ++t_->view_version, /*draining=*/true);
    } else if (name == "node-died") {
      t_->view.Remove(MakeId<NodeId>(event.Word(0)));
      actors.NodeDied(MakeId<NodeId>(event.Word(0)), "it was lost", 1, out);
    } else if (name == "group") {
      v1::PlacementGroupInfo group;
      group.set_placement_group_id(MakeId<PlacementGroupId>(event.Word(0)).Binary());
      group.set_state(v1::PLACEMENT_GROUP_STATE_CREATED);
      for (size_t i = 1; i < event.num_words(); ++i) {
        v1::Bundle* bundle = group.add_bundles();
        *bundle->mutable_resources() = ToProto(Cpus(1));
        if (event.Word(i) != "-") bundle->set_node_id(MakeId<NodeId>(event.Word(i)).Binary());
      }
      actors.GroupChanged(group, 1, out);
    } else if (name == "why") {
      v1::WaitFact fact;
      if (actors.Explain(id, 1, &fact)) lines_.push_back(fact.detail());
    } else if (name == "register") {
      actors.Register(Registration(event), kCall, 1, out);
    } else if (name == "create") {
      actors.Create(id, std::make_shared<const CreationSpec>(CreationSpec{"spec", {HeapBuffer::CopyOf("args")}}), kCall, 1, out);
    } else if (name == "fail") {
      v1::ErrorDetail cause;
      cause.set_message("An argument failed.");
      actors.FailCreation(id, cause, kCall, 1, out);
    } else if (name == "started") {
      ToProto(Address{MakeId<NodeId>("N"), MakeId<WorkerId>(event.Word("worker", "w"))}, reply.mutable_worker());
      reply.set_pid(static_cast<int64_t>(event.Number("pid", 0)));
      reply.set_node_ip(event.Word("ip", ""));
      actors.Started(id, start, {}, reply, 1, out);
    } else if (name == "start-failed") {
      Status status;
      if (event.Has("refused")) status = Status::Internal("it said no");
      if (event.Has("link-lost")) status = Status::Unavailable("the link broke");
      const bool died = event.Has("died");
      v1::ErrorDetail* error = reply.mutable_creation_error();
      error->set_error_type(static_cast<int32_t>(died ? ErrorType::kWorkerDied : ErrorType::kActorCreationFailed));
      error->set_message(died ? "The worker died." : "The constructor raised.");
      error->set_actor_init_failed(event.Has("raised"));
      error->set_pid(static_cast<int64_t>(event.Number("pid", 0)));
      error->set_node_ip(event.Word("ip", ""));
      actors.Started(id, start, status, reply, 1, out);
    } else if (name == "start-cancelled") {
      reply.set_cancelled(true);
      actors.Started(id, start, {}, reply, 1, out);
    } else if (name == "worker-died") {
      actors.WorkerDied(Death(event), 1, out);
    } else if (name == "owner-was-dead") {
      actors.OwnerWasDead(id, "killed by signal 9", 1, out);
    } else if (name == "kill") {
      actors.Kill(id, !event.Has("restart"), kCall, 1, out);
    } else if (name == "out-of-scope") {
      actors.OutOfScope(id, kCall, 1, out);
    } else if (name == "exiting") {
      actors.Exiting(id, MakeId<WorkerId>(event.Word("worker", "w")), kCall, out);
    } else if (name == "job-finished") {
      actors.JobFinished(JobId::FromInt(static_cast<uint32_t>(event.Number(0))), 1, out);
    } else if (name == "named") {
      actors.GetNamed("ns", event.Word(0), kCall, out);
    } else if (name == "show") {
      actors.Get(id, kCall, out);
    } else {
      event.Fail("no such event: actor." + name);
    }
  }

  static v1::ReportWorkerDiedRequest Death(const GoldenEvent& event) {
    v1::ReportWorkerDiedRequest report;
    report.set_worker_id(MakeId<WorkerId>(event.Word(0)).Binary());
    report.set_detail("killed by signal 9");
    return report;
  }

  void Others(const GoldenEvent& event, const std::string& name, Effects* out) {
    constexpr CallToken kCall = 1;
    if (name == "job.over-of-late") {
      for (const JobId& job : t_->jobs.OverOfLate()) lines_.push_back("job " + std::to_string(job.ToInt()));
      return;
    }
    const NodeId node = MakeId<NodeId>(event.Word(0));
    auto tell = [this](bool yes, const char* text) {
      if (yes) lines_.emplace_back(text);
    };
    if (name == "node.register") {
      v1::NodeInfo info;
      info.set_node_id(node.Binary());
      info.set_python_version(event.Word("python", ""));
      tell(t_->nodes.Register(info, kCall, 1, out), "it is alive");
    } else if (name == "node.report") {
      v1::ReportResourcesRequest report;
      report.set_node_id(node.Binary());
      report.set_version(event.Number("version", 1));
      ToProto(Cpus(event.Number("cpu", 4)), report.mutable_available());
      tell(t_->nodes.Report(report, out), "taken");
    } else if (name == "node.die") {
      tell(t_->nodes.Die(node, "it was lost", v1::DEATH_KIND_FAILED, kCall, 1, out), "it was alive");
    } else if (name == "node.drain") {
      v1::DrainNodeRequest request;
      request.set_node_id(node.Binary());
      tell(t_->nodes.Drain(request, 1, out), "it is alive");
    } else if (name == "job.add") {
      v1::JobInfo job;
      job.set_driver_node_id(node.Binary());
      if (const std::string driver = event.Word("driver", ""); !driver.empty()) job.set_driver_worker_id(MakeId<WorkerId>(driver).Binary());
      t_->jobs.Add(job, kCall, 1, out);
    } else if (name == "job.finish") {
      tell(t_->jobs.Finish(JobId::FromInt(static_cast<uint32_t>(event.Number(0))), kCall, 1, out), "it was running");
    } else if (name == "job.running-on") {
      for (const JobId& job : t_->jobs.RunningOn(node)) lines_.push_back("job " + std::to_string(job.ToInt()));
    } else if (name == "kv.put") {
      v1::KvPutRequest request;
      request.set_ns(event.Word("ns", ""));
      request.set_key(event.Word(0));
      request.set_value(event.Word(1));
      request.set_overwrite(event.Has("overwrite"));
      if (const uint64_t job = event.Number("job", 0); job != 0) request.set_job_id(JobId::FromInt(static_cast<uint32_t>(job)).Binary());
      t_->kv.Put(request, kCall, out);
    } else if (name == "kv.job-gone") {
      t_->kv.JobGone(JobId::FromInt(static_cast<uint32_t>(event.Number(0))), out);
    } else if (name == "kv.get") {
      v1::KvGetRequest request;
      request.set_ns(event.Word("ns", ""));
      request.set_key(event.Word(0));
      t_->kv.Get(request, kCall, out);
    } else if (name == "kv.del") {
      v1::KvDelRequest request;
      request.set_ns(event.Word("ns", ""));
      request.set_key(event.Word(0));
      request.set_by_prefix(event.Has("prefix"));
      t_->kv.Del(request, kCall, out);
    } else if (name == "kv.keys") {
      v1::KvKeysRequest request;
      request.set_ns(event.Word("ns", ""));
      request.set_prefix(event.Word(0));
      t_->kv.Keys(request, kCall, out);
    } else if (name == "worker.died") {
      tell(t_->workers.Died(Death(event), kCall, out), "that is news");
    } else if (name == "worker.is-dead") {
      lines_.push_back(t_->workers.IsDead(MakeId<WorkerId>(event.Word(0))) ? "yes" : "not known");
    } else if (name == "health.link-up") {
      const uint64_t link = event.Number(1), attempt = event.Number("attempt", 0);
      if (t_->health.IsStale(node, attempt)) return lines_.push_back("a later one came first");
      if (t_->health.IsRepeat(node, link, attempt)) return lines_.push_back("the same once more");
      tell(t_->health.LinkUp(node, link, {}, attempt), "watch this link");
    } else if (name == "health.link-down") {
      tell(t_->health.LinkDown(node, event.Number(1)), "the node is dead");
    } else if (name == "health.left") {
      t_->health.Left(node);
    } else if (name == "health.due") {
      for (const auto& [due, link] : t_->health.Due(Time{0} + event.Span("at", {}))) {
        if (due == node) lines_.push_back("probe it over link " + std::to_string(link));
      }
    } else if (name == "health.answered" || name == "health.missed") {
      const HealthCore::Verdict verdict =
          t_->health.OnProbe(node, event.Number(1), name == "health.answered", Time{0} + event.Span("at", {}));
      if (verdict == HealthCore::Verdict::kSuspect) lines_.push_back("suspect, misses " + std::to_string(t_->health.MissesOf(node)));
      tell(verdict == HealthCore::Verdict::kDead, "the node is dead");
    } else {
      event.Fail("no such event: " + name);
    }
  }

  std::shared_ptr<Tables> t_ = std::make_shared<Tables>();
  std::vector<std::string> lines_;  // what an event returned, before its effects
};

TEST(GcsGolden, Scenarios) {
  testing::ReplayGoldens("gcs", [] { return testing::Replayer(Replay()); });
}

}  // namespace
}  // namespace ray::gcs
