#include "ray/gcs_server/tables/actor_table_core.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ray/wire/convert.h"

namespace ray::gcs {
namespace {

template <typename Id>
Id MakeId(char fill) {
  return Id::FromBinaryOrNil(std::string(Id::kSize, fill));
}

// Effects as text, one line each, so that a test reads as a scenario.
class ActorTableTest : public testing::Test {
 protected:
  ActorTableTest() { Node('N', 4); }

  static ActorId Id(char c) { return MakeId<ActorId>(c); }

  void Node(char node, int cpus) {
    ResourceSet set;
    set.Set("CPU", cpus * ResourceSet::kUnit);
    view_.Set(MakeId<NodeId>(node), set, set, {}, ++version_);
    core_.NodeChanged(1, &out_);
  }
  void Die(char node) {
    view_.Remove(MakeId<NodeId>(node));
    core_.NodeDied(MakeId<NodeId>(node), "gone", 1, &out_);
  }

  struct Spec {
    std::string name;
    int max_restarts = 0;
    bool detached = false;
    char owner = 'D';
    int cpus = 1;
    char job = 'J';
  };
  static v1::RegisterActorRequest Request(char actor, const Spec& spec) {
    v1::RegisterActorRequest request;
    request.mutable_spec()->mutable_template_()->set_job_id(std::string(4, spec.job));
    v1::ActorCreation* creation = request.mutable_spec()->mutable_creation();
    creation->set_actor_id(Id(actor).Binary());
    creation->set_class_name("Foo");
    creation->set_name(spec.name);
    creation->set_ray_namespace("ns");
    creation->set_max_restarts(spec.max_restarts);
    creation->set_detached(spec.detached);
    *creation->mutable_owner() = ToProto(Address{MakeId<NodeId>('N'), MakeId<WorkerId>(spec.owner)});
    ResourceSet demand;
    demand.Set("CPU", spec.cpus * ResourceSet::kUnit);
    *creation->mutable_placement_resources() = ToProto(demand);
    return request;
  }
  std::string Register(char actor, const Spec& spec) {
    core_.Register(Request(actor, spec), 1, 1, &out_);
    return Take();
  }
  std::string Register(char actor) { return Register(actor, Spec()); }
  std::string Create(char actor) {
    core_.Create(Id(actor), std::make_shared<const CreationSpec>(CreationSpec{"spec", {HeapBuffer::CopyOf("args")}}), 1, 1, &out_);
    return Take();
  }
  std::string Started(char actor, uint32_t start, char worker) {
    v1::StartActorReply reply;
    *reply.mutable_worker() = ToProto(Address{MakeId<NodeId>('N'), MakeId<WorkerId>(worker)});
    reply.set_pid(100 + worker);
    core_.Started(Id(actor), start, {}, reply, 1, &out_);
    return Take();
  }
  std::string StartFailed(char actor, uint32_t start, ErrorType type, bool raised) {
    v1::StartActorReply reply;
    reply.mutable_creation_error()->set_error_type(static_cast<int32_t>(type));
    reply.mutable_creation_error()->set_message("told by the node");
    reply.mutable_creation_error()->set_actor_init_failed(raised);
    core_.Started(Id(actor), start, {}, reply, 1, &out_);
    return Take();
  }
  std::string StartCancelled(char actor, uint32_t start) {
    v1::StartActorReply reply;
    reply.set_cancelled(true);
    core_.Started(Id(actor), start, {}, reply, 1, &out_);
    return Take();
  }
  std::string WorkerDied(char worker, const std::string& detail = "killed by signal 9") {
    v1::ReportWorkerDiedRequest report;
    report.set_worker_id(MakeId<WorkerId>(worker).Binary());
    report.set_detail(detail);
    report.set_pid(7);
    core_.WorkerDied(report, 1, &out_);
    return Take();
  }
  std::string Kill(char actor, bool no_restart) {
    core_.Kill(Id(actor), no_restart, 1, 1, &out_);
    return Take();
  }
  void MakeAlive(char actor, Spec spec, char worker) {
    Register(actor, spec);
    Create(actor);
    Started(actor, 1, worker);
  }
  std::string Message(char actor) { return core_.Find(Id(actor))->death_cause().message(); }

  std::string Take() {
    std::string text;
    uint64_t version = 0;
    for (const Effect& effect : out_) {
      if (auto* row = std::get_if<Persist>(&effect)) {
        text += (row->erase ? "erase " : "persist ") + row->table + "\n";
      } else if (auto* answer = std::get_if<Answer>(&effect)) {
        auto* registered = dynamic_cast<const v1::RegisterActorReply*>(answer->reply.get());
        text += answer->status.ok() ? "reply" : "fail " + answer->status.ToString();
        if (registered && registered->has_existing()) text += std::string(" existing ") + registered->existing().actor_id()[0];
        text += "\n";
      } else if (auto* publish = std::get_if<Publish>(&effect)) {
        const v1::ActorInfo& actor = publish->notice.actor();
        static const char* const kStates[] = {"?", "UNREADY", "PENDING", "ALIVE", "RESTARTING", "DEAD"};
        text += std::string("publish ") + actor.actor_id()[0] + " " + kStates[actor.state()] + "\n";
        EXPECT_TRUE(actor.version() > version || actor.actor_id() != last_published_) << "versions must grow";
        version = actor.version();
        last_published_ = actor.actor_id();
        EXPECT_EQ(actor.state() == v1::ACTOR_STATE_ALIVE, actor.has_address());
        EXPECT_EQ(actor.state() == v1::ACTOR_STATE_DEAD, actor.has_death_cause());
      } else if (auto* start = std::get_if<StartOnNode>(&effect)) {
        text += std::string("start ") + static_cast<char>(start->actor.data()[0]) + " on " + static_cast<char>(start->node.data()[0]) +
                " #" + std::to_string(start->start) + " restart " + std::to_string(start->restart) + "\n";
        EXPECT_TRUE(start->spec && start->spec->control == "spec" && start->spec->parts.size() == 1);
      } else if (auto* kill = std::get_if<KillOnNode>(&effect)) {
        text += std::string("kill ") + static_cast<char>(kill->actor.data()[0]) + " on " + static_cast<char>(kill->node.data()[0]) +
                (kill->worker.IsNil() ? " starting" : std::string(" worker ") + static_cast<char>(kill->worker.data()[0])) +
                (kill->force ? " force" : " graceful") + (kill->call != 0 ? ", then answer" : "") + "\n";
      } else if (auto* message = std::get_if<TellDriver>(&effect)) {
        text += "driver " + message->kind + "\n";
        last_message_ = message->message;
      }
    }
    out_.clear();
    return text;
  }

  scheduling::ClusterView view_;
  uint64_t version_ = 0;
  ActorTableCore core_{{}, &view_};
  Effects out_;
  std::string last_published_, last_message_;
};

TEST_F(ActorTableTest, LifeOfAnActor) {
  EXPECT_EQ(Register('a'), "persist actor\nreply\npublish a UNREADY\n");
  EXPECT_EQ(Register('a'), "reply\n") << "idempotent";
  EXPECT_EQ(Create('a'), "persist actor_spec\npersist actor\nreply\npublish a PENDING\npersist actor\nstart a on N #1 restart 0\n");
  EXPECT_EQ(Create('a'), "reply\n") << "idempotent";
  EXPECT_EQ(Started('a', 1, 'w'), "persist actor\npublish a ALIVE\n");
  EXPECT_EQ(Started('a', 1, 'w'), "kill a on N worker w force\n") << "only the start under way counts";
  EXPECT_EQ(WorkerDied('w'), "erase actor_spec\npersist actor\npublish a DEAD\n");
  EXPECT_EQ(Message('a'), "The actor died because its worker process ended: killed by signal 9.");
  EXPECT_EQ(core_.Find(Id('a'))->death_cause().error_type(), static_cast<int>(ErrorType::kActorDied));
  EXPECT_FALSE(core_.Find(Id('a'))->death_cause().never_ran());
  EXPECT_EQ(core_.Find(Id('a'))->death_cause().pid(), 100 + 'w');
}

TEST_F(ActorTableTest, UnknownActor) {
  EXPECT_EQ(Create('x').substr(0, 14), "fail NOT_FOUND");
  EXPECT_EQ(Kill('x', true).substr(0, 14), "fail NOT_FOUND");
  core_.GetNamed("ns", "x", 1, &out_);
  EXPECT_EQ(Take(), "fail NOT_FOUND: no actor is named \"x\" in namespace \"ns\"\n");
}

TEST_F(ActorTableTest, RestartsUntilNoneAreLeft) {
  MakeAlive('a', {.max_restarts = 1}, 'v');
  EXPECT_EQ(WorkerDied('v'), "persist actor\npublish a RESTARTING\npersist actor\nstart a on N #2 restart 1\n");
  EXPECT_EQ(Started('a', 2, 'w'), "persist actor\npublish a ALIVE\n");
  EXPECT_EQ(WorkerDied('w'), "erase actor_spec\npersist actor\npublish a DEAD\n");
  EXPECT_EQ(Message('a'), "The actor died because its worker process ended: killed by signal 9, after 1 restart.");
}

TEST_F(ActorTableTest, RestartsWithoutEnd) {
  MakeAlive('a', {.max_restarts = -1}, 'a');
  for (char w = 'a'; w < 'k'; ++w) {
    WorkerDied(w);
    Started('a', static_cast<uint32_t>(w - 'a' + 2), static_cast<char>(w + 1));
  }
  EXPECT_EQ(core_.Find(Id('a'))->state(), v1::ACTOR_STATE_ALIVE);
  EXPECT_EQ(core_.Find(Id('a'))->num_restarts(), 10u);
}

TEST_F(ActorTableTest, NamesBelongToOneUntilDeath) {
  MakeAlive('a', {.name = "n"}, 'w');
  EXPECT_EQ(Register('b', {.name = "n"}), "reply existing a\n");
  EXPECT_EQ(core_.Find(Id('b')), nullptr);
  EXPECT_EQ(Kill('a', true), "erase actor_spec\npersist actor\npublish a DEAD\nkill a on N worker w force, then answer\n");
  EXPECT_EQ(Register('b', {.name = "n"}), "persist actor\nreply\npublish b UNREADY\n") << "the name is free at once";
  EXPECT_EQ(WorkerDied('w'), "") << "the death that was ordered says nothing new";
}

TEST_F(ActorTableTest, KillWhileStarting) {
  Register('a');
  Create('a');
  EXPECT_EQ(Kill('a', true), "erase actor_spec\npersist actor\npublish a DEAD\nkill a on N starting force, then answer\n");
  EXPECT_EQ(Kill('a', true), "reply\n");
  EXPECT_TRUE(core_.Find(Id('a'))->death_cause().never_ran());
  EXPECT_EQ(Started('a', 1, 'w'), "kill a on N worker w force\n") << "it came up in spite of it";
  EXPECT_EQ(StartCancelled('a', 1), "");
}

TEST_F(ActorTableTest, KillWithRestart) {
  MakeAlive('a', {.max_restarts = 2}, 'v');
  EXPECT_EQ(Kill('a', false), "persist actor\nreply\nkill a on N worker v force\n");
  EXPECT_EQ(WorkerDied('v'), "persist actor\npublish a RESTARTING\npersist actor\nstart a on N #2 restart 1\n");
  EXPECT_EQ(Kill('a', false), "persist actor\nreply\nkill a on N starting force\n");
  EXPECT_EQ(StartCancelled('a', 2), "persist actor\npublish a RESTARTING\npersist actor\nstart a on N #3 restart 2\n");
  Started('a', 3, 'w');
  Kill('a', false);
  WorkerDied('w');
  EXPECT_EQ(Message('a'), "The actor died because it was killed by `ray.kill`, after 2 restarts.");
}

TEST_F(ActorTableTest, ConstructorRaises) {
  Register('a', {.max_restarts = 5});
  Create('a');
  EXPECT_EQ(StartFailed('a', 1, ErrorType::kActorDied, true), "erase actor_spec\npersist actor\npublish a DEAD\n");
  EXPECT_EQ(Message('a'), "told by the node");
  EXPECT_TRUE(core_.Find(Id('a'))->death_cause().actor_init_failed());
}

TEST_F(ActorTableTest, WorkerDiesInConstructor) {
  Register('a', {.max_restarts = 1});
  Create('a');
  EXPECT_EQ(StartFailed('a', 1, ErrorType::kWorkerDied, false),
            "persist actor\npublish a RESTARTING\npersist actor\nstart a on N #2 restart 1\n");
  EXPECT_EQ(StartFailed('a', 2, ErrorType::kWorkerDied, false), "erase actor_spec\npersist actor\npublish a DEAD\n");
  EXPECT_EQ(Message('a'), "The actor died because told by the node, after 1 restart.");
}

TEST_F(ActorTableTest, ArgumentsFail) {
  Register('a');
  v1::ErrorDetail cause;
  cause.set_error_type(static_cast<int32_t>(ErrorType::kDependencyResolutionFailed));
  core_.FailCreation(Id('a'), cause, 1, 1, &out_);
  EXPECT_EQ(Take(), "persist actor\nreply\npublish a DEAD\n");
  EXPECT_EQ(core_.Find(Id('a'))->death_cause().class_name(), "Foo");
}

TEST_F(ActorTableTest, InfeasibleWaitsTellsTheDriverAndStartsWhenANodeJoins) {
  Register('a', {.cpus = 8});
  EXPECT_EQ(Create('a'), "persist actor_spec\npersist actor\nreply\npublish a PENDING\ndriver infeasible\n");
  EXPECT_NE(
      last_message_.find("waits: no node has {CPU: 8}; all nodes together have too little CPU. The cluster's nodes have {CPU: 4} in all."),
      std::string::npos)
      << last_message_;
  Node('N', 4);
  EXPECT_EQ(Take(), "") << "told once";
  Node('O', 16);
  EXPECT_EQ(Take(), "persist actor\nstart a on O #1 restart 0\n");
}

TEST_F(ActorTableTest, InfeasibleCanBeKilled) {
  Register('a', {.cpus = 8});
  Create('a');
  EXPECT_EQ(Kill('a', true), "erase actor_spec\npersist actor\nreply\npublish a DEAD\n");
  Node('O', 16);
  EXPECT_EQ(Take(), "");
}

TEST_F(ActorTableTest, PrefersNodesWithRoom) {
  Node('O', 4);
  Take();
  for (char a : {'a', 'b'}) Register(a, {.cpus = 3});
  EXPECT_NE(Create('a').find("on N"), std::string::npos);
  EXPECT_NE(Create('b').find("on O"), std::string::npos);
  Register('c', {.cpus = 3});
  EXPECT_NE(Create('c').find("start c"), std::string::npos) << "full nodes queue";
}

TEST_F(ActorTableTest, AStartThatWasTurnedAwayGoesElsewhere) {
  Node('O', 4);
  Take();
  Register('a', {.cpus = 3});
  EXPECT_NE(Create('a').find("persist actor\nstart a on N #1"), std::string::npos);
  v1::StartActorReply full;
  full.set_rejected(true);
  core_.Started(Id('a'), 1, {}, full, 1, &out_);
  EXPECT_EQ(Take(), "persist actor\nstart a on O #2 restart 0\n");
  core_.Started(Id('a'), 2, {}, full, 1, &out_);
  EXPECT_EQ(Take(), "persist actor\nstart a on N #3 restart 0\n");
}

TEST_F(ActorTableTest, HardAffinityToANodeThatIsNotThereIsTheEnd) {
  v1::RegisterActorRequest request = Request('a', {});
  request.mutable_spec()->mutable_template_()->mutable_strategy()->set_kind(v1::STRATEGY_KIND_NODE_AFFINITY);
  request.mutable_spec()->mutable_template_()->mutable_strategy()->set_node_id(MakeId<NodeId>('Z').Binary());
  core_.Register(request, 1, 1, &out_);
  Take();
  EXPECT_NE(Create('a').find("publish a DEAD"), std::string::npos);
  EXPECT_NE(Message('a').find("which is not part of the cluster"), std::string::npos);
}

TEST_F(ActorTableTest, AnActorInAGroupWaitsForItsBundleAndDiesWithTheGroup) {
  v1::PlacementGroupInfo group;
  group.set_placement_group_id(MakeId<PlacementGroupId>('G').Binary());
  group.set_state(v1::PLACEMENT_GROUP_STATE_PENDING);
  for (int i = 0; i < 2; ++i) *group.add_bundles()->mutable_resources() = ToProto(*ResourceSet::FromDoubles({{"CPU", 1}}));
  core_.GroupChanged(group, 1, &out_);
  auto start = [&](char id, int32_t bundle) {
    v1::RegisterActorRequest request = Request(id, {});
    auto* strategy = request.mutable_spec()->mutable_template_()->mutable_strategy();
    strategy->set_kind(v1::STRATEGY_KIND_PLACEMENT_GROUP);
    strategy->set_placement_group_id(group.placement_group_id());
    strategy->set_bundle_index(bundle);
    core_.Register(request, 1, 1, &out_);
    Take();
    return Create(id);
  };
  Node('O', 4);
  Take();
  EXPECT_EQ(start('a', -1), "persist actor_spec\npersist actor\nreply\npublish a PENDING\n");
  EXPECT_EQ(start('b', -1), "persist actor_spec\npersist actor\nreply\npublish b PENDING\n");
  group.set_state(v1::PLACEMENT_GROUP_STATE_CREATED);
  group.mutable_bundles(0)->set_node_id(MakeId<NodeId>('N').Binary());
  group.mutable_bundles(1)->set_node_id(MakeId<NodeId>('O').Binary());
  core_.GroupChanged(group, 1, &out_);
  EXPECT_EQ(Take(), "persist actor\nstart a on N #1 restart 0\npersist actor\nstart b on O #1 restart 0\n")
      << "each in a bundle of its own";
  EXPECT_NE(start('c', 1).find("persist actor\nstart c on O #1"), std::string::npos);
  EXPECT_NE(start('d', 7).find("publish d DEAD"), std::string::npos);
  group.set_state(v1::PLACEMENT_GROUP_STATE_REMOVED);
  core_.GroupChanged(group, 1, &out_);
  EXPECT_NE(Take().find("publish a DEAD\nkill a on N"), std::string::npos);
  EXPECT_EQ(core_.Find(Id('b'))->death_cause().error_type(), static_cast<int>(ErrorType::kActorPlacementGroupRemoved));
  EXPECT_NE(start('e', -1).find("publish e DEAD"), std::string::npos) << "it is gone";
}

TEST_F(ActorTableTest, AnActorInAGroupFollowsItsBundleWhenTheNodeDies) {
  v1::PlacementGroupInfo group;
  group.set_placement_group_id(MakeId<PlacementGroupId>('G').Binary());
  group.set_state(v1::PLACEMENT_GROUP_STATE_CREATED);
  *group.add_bundles()->mutable_resources() = ToProto(*ResourceSet::FromDoubles({{"CPU", 1}}));
  group.mutable_bundles(0)->set_node_id(MakeId<NodeId>('O').Binary());
  core_.GroupChanged(group, 1, &out_);
  Node('O', 4);
  v1::RegisterActorRequest request = Request('a', {.max_restarts = -1});
  auto* strategy = request.mutable_spec()->mutable_template_()->mutable_strategy();
  strategy->set_kind(v1::STRATEGY_KIND_PLACEMENT_GROUP);
  strategy->set_placement_group_id(group.placement_group_id());
  strategy->set_bundle_index(-1);
  core_.Register(request, 1, 1, &out_);
  Create('a');
  Started('a', 1, 'w');
  Die('O');
  EXPECT_EQ(Take(), "persist actor\npublish a RESTARTING\n") << "not started on a node that is dead";
  group.set_state(v1::PLACEMENT_GROUP_STATE_RESCHEDULING);
  group.mutable_bundles(0)->clear_node_id();
  core_.GroupChanged(group, 1, &out_);
  EXPECT_EQ(Take(), "");
  group.mutable_bundles(0)->set_node_id(MakeId<NodeId>('N').Binary());
  group.set_state(v1::PLACEMENT_GROUP_STATE_CREATED);
  core_.GroupChanged(group, 1, &out_);
  EXPECT_EQ(Take(), "persist actor\nstart a on N #2 restart 1\n");
}

TEST_F(ActorTableTest, AMoveOutlivesTheProcessThatOrderedIt) {
  Node('O', 4);
  Take();
  const v1::RegisterActorRequest request = Request('a', {.max_restarts = -1});
  core_.Register(request, 0, 1, &out_);
  core_.Create(Id('a'), std::make_shared<const CreationSpec>(CreationSpec{request.spec().SerializeAsString(), {}}), 0, 1, &out_);
  v1::StartActorReply started;
  *started.mutable_worker() = ToProto(Address{MakeId<NodeId>('N'), MakeId<WorkerId>('w')});
  core_.Started(Id('a'), 1, {}, started, 1, &out_);
  core_.NodeDraining(MakeId<NodeId>('N'), &out_);
  ASSERT_NE(std::get_if<KillOnNode>(&out_.back()), nullptr);
  StorageContents stored;
  for (const Effect& effect : out_) {
    const auto* row = std::get_if<Persist>(&effect);
    if (row == nullptr) continue;
    std::string& value = stored[row->table][row->key];
    value.clear();
    for (const BufferPtr& piece : row->value) value += piece->view();
  }
  out_.clear();
  ActorTableCore next({}, &view_);
  ASSERT_TRUE(next.Restore(stored).ok());
  // It says that it leaves before its node has said that it drains.
  next.Exiting(Id('a'), MakeId<WorkerId>('w'), 0, &out_);
  out_.clear();
  v1::ReportWorkerDiedRequest death;
  death.set_worker_id(MakeId<WorkerId>('w').Binary());
  death.set_in_order(true);
  next.WorkerDied(death, 1, &out_);
  EXPECT_EQ(next.Find(Id('a'))->state(), v1::ACTOR_STATE_RESTARTING);
  EXPECT_TRUE(next.Find(Id('a'))->moved());
  out_.clear();
}

TEST_F(ActorTableTest, AMoveThatWasNotOrderedYetIsOrderedAgain) {
  Node('O', 4);
  MakeAlive('a', {.max_restarts = -1}, 'w');
  core_.NodeDraining(MakeId<NodeId>('N'), &out_);
  Take();
  v1::ActorOnNode there;
  there.set_actor_id(Id('a').Binary());
  there.set_worker_id(MakeId<WorkerId>('w').Binary());
  core_.NodeReturned(MakeId<NodeId>('N'), {there}, 1, &out_);
  EXPECT_EQ(Take(), "kill a on N worker w graceful\n");
}

TEST_F(ActorTableTest, OwnerDies) {
  MakeAlive('a', {.owner = 'D'}, 'w');
  MakeAlive('b', {.detached = true, .owner = 'D'}, 'x');
  EXPECT_EQ(WorkerDied('D'), "erase actor_spec\npersist actor\npublish a DEAD\nkill a on N worker w force\n");
  EXPECT_EQ(Message('a'),
            "The actor died because its owner (worker " + MakeId<WorkerId>('D').Hex() + ", pid 7) ended: killed by signal 9.");
}

TEST_F(ActorTableTest, NodeDies) {
  Node('O', 16);
  Take();
  v1::RegisterActorRequest request;
  MakeAlive('a', {.max_restarts = 1, .cpus = 8}, 'w');  // only O can take it
  Die('O');
  EXPECT_EQ(Take(), "persist actor\npublish a RESTARTING\ndriver infeasible\n");
  Die('N');
  EXPECT_EQ(Take(), "erase actor_spec\npersist actor\npublish a DEAD\n") << "its owner was there";
}

TEST_F(ActorTableTest, BrokenLinkWaitsForTheNodesDeath) {
  Register('a');
  Create('a');
  core_.Started(Id('a'), 1, Status::Unavailable("link"), {}, 1, &out_);
  EXPECT_EQ(Take(), "");
  Die('N');
  EXPECT_EQ(Take(), "erase actor_spec\npersist actor\npublish a DEAD\n");
}

TEST_F(ActorTableTest, OutOfScopeEndsGracefully) {
  MakeAlive('a', {.max_restarts = -1}, 'w');
  core_.OutOfScope(Id('a'), 0, 1, &out_);
  EXPECT_EQ(Take(), "persist actor\nkill a on N worker w graceful\n");
  EXPECT_EQ(WorkerDied('w', "exited with code 0"), "erase actor_spec\npersist actor\npublish a DEAD\n") << "no restart";
  EXPECT_EQ(Message('a'), "The actor died because all handles to it have gone out of scope.");
}

TEST_F(ActorTableTest, OutOfScopeWhileStarting) {
  Register('a');
  Create('a');
  core_.OutOfScope(Id('a'), 0, 1, &out_);
  EXPECT_EQ(Take(), "persist actor\n") << "calls that were sent before still want their answers";
  EXPECT_EQ(Started('a', 1, 'w'), "persist actor\npublish a ALIVE\nkill a on N worker w graceful\n");
}

TEST_F(ActorTableTest, LeavesByItself) {
  MakeAlive('a', {.max_restarts = -1}, 'w');
  core_.Exiting(Id('a'), MakeId<WorkerId>('w'), 0, &out_);
  EXPECT_EQ(Take(), "persist actor\n");
  EXPECT_EQ(WorkerDied('w'), "erase actor_spec\npersist actor\npublish a DEAD\n");
}

TEST_F(ActorTableTest, JobFinishedSparesDetachedActorsAndTheirs) {
  MakeAlive('a', {}, 'u');
  MakeAlive('b', {.detached = true}, 'v');
  MakeAlive('c', {.owner = 'v'}, 'w');              // created by b
  MakeAlive('d', {.owner = 'w'}, 'x');              // created by c
  MakeAlive('e', {.owner = 'E', .job = 'K'}, 'y');  // of another job
  core_.JobFinished(MakeId<JobId>('J'), 1, &out_);
  EXPECT_EQ(Take(), "erase actor_spec\npersist actor\npublish a DEAD\nkill a on N worker u force\n");
}

TEST_F(ActorTableTest, DeadActorsNeedNotBeRemembered) {
  scheduling::ClusterView view;
  ActorTableCore core({.max_dead = 0}, &view);
  core.Register(Request('a', {.name = "n"}), 0, 1, &out_);
  out_.clear();
  core.Kill(Id('a'), true, 1, 1, &out_);
  EXPECT_EQ(core.Find(Id('a')), nullptr);
  EXPECT_EQ(Take(), "persist actor\nreply\npublish a DEAD\nerase actor\n") << "told, and no row is left";
}

TEST_F(ActorTableTest, DeadActorsAreForgottenInTheEnd) {
  scheduling::ClusterView view;
  ActorTableCore core({.max_dead = 1}, &view);
  for (char a : {'a', 'b'}) {
    v1::RegisterActorRequest request;
    request.mutable_spec()->mutable_creation()->set_actor_id(Id(a).Binary());
    core.Register(request, 0, 1, &out_);
    core.Kill(Id(a), true, 0, 1, &out_);
  }
  EXPECT_EQ(core.Find(Id('a')), nullptr);
  EXPECT_NE(core.Find(Id('b')), nullptr);
  out_.clear();
}

TEST_F(ActorTableTest, AJobLivesOnInTheActorsThatAreNotDead) {
  const JobId job = JobId::FromBinaryOrNil("JJJJ"), other = JobId::FromBinaryOrNil("KKKK");
  EXPECT_FALSE(core_.AnyLives(job));
  for (const char actor : {'a', 'b'}) Register(actor);
  Spec detached;
  detached.name = "n";
  detached.detached = true;
  detached.job = 'K';
  Register('c', detached);
  Register('c', detached);  // once more
  EXPECT_TRUE(core_.AnyLives(job));
  EXPECT_TRUE(core_.AnyLives(other));
  core_.Kill(Id('a'), /*no_restart=*/true, 1, 1, &out_);
  core_.Kill(Id('a'), /*no_restart=*/true, 1, 1, &out_);
  EXPECT_TRUE(core_.AnyLives(job));
  core_.Kill(Id('b'), /*no_restart=*/true, 1, 1, &out_);
  EXPECT_FALSE(core_.AnyLives(job));
  EXPECT_TRUE(core_.AnyLives(other));
  core_.Kill(Id('c'), /*no_restart=*/true, 1, 1, &out_);
  EXPECT_FALSE(core_.AnyLives(other));
}

}  // namespace
}  // namespace ray::gcs
