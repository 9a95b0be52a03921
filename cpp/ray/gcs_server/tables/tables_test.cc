// Nodes, jobs, key-values and worker deaths; actors have a file of their own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ray/gcs_server/tables/job_table_core.h"
#include "ray/gcs_server/tables/kv_table_core.h"
#include "ray/gcs_server/tables/node_table_core.h"
#include "ray/gcs_server/tables/worker_table_core.h"
#include "ray/wire/convert.h"

namespace ray::gcs {
namespace {

using testing::ElementsAre;

// Kinds in order: P persist, A answer, F failure, N publish, J job finished.
std::string Kinds(const Effects& effects) {
  std::string kinds;
  for (const Effect& effect : effects) {
    if (std::holds_alternative<Persist>(effect)) kinds += 'P';
    if (auto* answer = std::get_if<Answer>(&effect)) kinds += answer->status.ok() ? 'A' : 'F';
    if (std::holds_alternative<Publish>(effect)) kinds += 'N';
    if (std::holds_alternative<TellJobFinished>(effect)) kinds += 'J';
  }
  return kinds;
}

template <typename Message>
const Message& ReplyIn(const Effects& effects) {
  for (const Effect& effect : effects) {
    if (auto* answer = std::get_if<Answer>(&effect)) return static_cast<const Message&>(*answer->reply);
  }
  ADD_FAILURE() << "no answer";
  static Message none;
  return none;
}

v1::NodeInfo MakeNode(const NodeId& id) {
  v1::NodeInfo node;
  node.set_node_id(id.Binary());
  return node;
}

TEST(NodeTableTest, RegisterReportDie) {
  NodeTableCore core({});
  NodeId id = NodeId::FromRandom();
  Effects out;
  EXPECT_TRUE(core.Register(MakeNode(id), 1, 5, &out));
  EXPECT_EQ(Kinds(out), "PAN");
  out.clear();
  EXPECT_TRUE(core.Register(MakeNode(id), 1, 6, &out));
  EXPECT_EQ(Kinds(out), "A") << "idempotent";
  EXPECT_EQ(core.num_alive(), 1u);

  v1::ReportResourcesRequest report;
  report.set_node_id(id.Binary());
  report.set_version(2);
  EXPECT_TRUE(core.Report(report, &out));
  report.set_version(1);
  EXPECT_FALSE(core.Report(report, &out)) << "older";

  out.clear();
  EXPECT_TRUE(core.Die(id, "why", v1::DEATH_KIND_LEFT, 1, 9, &out));
  EXPECT_EQ(Kinds(out), "PAN");
  EXPECT_EQ(std::get<Publish>(out.back()).notice.node().death_reason(), "why");
  out.clear();
  EXPECT_FALSE(core.Die(id, "again", v1::DEATH_KIND_FAILED, 1, 9, &out));
  EXPECT_EQ(Kinds(out), "A");
  EXPECT_EQ(core.num_alive(), 0u);
  report.set_version(9);
  EXPECT_FALSE(core.Report(report, &out));
  out.clear();
  EXPECT_FALSE(core.Register(MakeNode(id), 1, 5, &out)) << "dead is for good";
  EXPECT_EQ(Kinds(out), "F");
}

TEST(NodeTableTest, ADrainingNodeIsMarkedUntilItHasGone) {
  NodeTableCore core({});
  const NodeId id = NodeId::FromRandom();
  Effects out;
  core.Register(MakeNode(id), 1, 5, &out);
  v1::DrainNodeRequest report;
  report.set_node_id(id.Binary());
  report.set_reason("SIGTERM");
  report.set_deadline_ms(300);
  out.clear();
  EXPECT_TRUE(core.Drain(report, 1000, &out));
  ASSERT_EQ(out.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<Persist>(out[0]));
  const v1::NodeInfo& shown = std::get<Publish>(out[1]).notice.node();
  EXPECT_TRUE(shown.draining());
  EXPECT_EQ(shown.drain_reason(), "SIGTERM");
  EXPECT_EQ(shown.drain_deadline_ms(), 1300);
  out.clear();
  core.Die(id, "drained", v1::DEATH_KIND_LEFT, 0, 1200, &out);
  EXPECT_EQ(core.Find(id)->death_kind(), v1::DEATH_KIND_LEFT);
  out.clear();
  EXPECT_FALSE(core.Drain(report, 2000, &out)) << "it is dead";
  report.set_node_id(NodeId::FromRandom().Binary());
  EXPECT_FALSE(core.Drain(report, 2000, &out)) << "nobody knows it";
  EXPECT_TRUE(out.empty());
}

TEST(NodeTableTest, OldDeadNodesAreForgotten) {
  NodeTableConfig config;
  config.max_dead = 1;
  NodeTableCore core(config);
  Effects out;
  NodeId ids[] = {NodeId::FromRandom(), NodeId::FromRandom()};
  for (const NodeId& id : ids) {
    core.Register(MakeNode(id), 0, 1, &out);
    core.Die(id, "", v1::DEATH_KIND_FAILED, 0, 1, &out);
  }
  EXPECT_EQ(core.Find(ids[0]), nullptr);
  EXPECT_NE(core.Find(ids[1]), nullptr);
}

TEST(NodeTableTest, DeadNodesNeedNotBeRemembered) {
  NodeTableConfig config;
  config.max_dead = 0;
  NodeTableCore core(config);
  Effects out;
  const NodeId id = NodeId::FromRandom();
  core.Register(MakeNode(id), 0, 1, &out);
  out.clear();
  EXPECT_TRUE(core.Die(id, "gone", v1::DEATH_KIND_FAILED, 0, 1, &out));
  EXPECT_EQ(core.Find(id), nullptr);
  ASSERT_EQ(out.size(), 3u);
  EXPECT_EQ(std::get<Publish>(out[1]).notice.node().death_reason(), "gone");
  EXPECT_TRUE(std::get<Persist>(out[2]).erase);
}

TEST(JobTableTest, NumbersFromOneAndFinishesOnce) {
  JobTableCore core;
  Effects out;
  v1::JobInfo job;
  NodeId node = NodeId::FromRandom();
  job.set_driver_node_id(node.Binary());
  job.set_ray_namespace("ns");
  core.Add(job, 1, 5, &out);
  EXPECT_EQ(Kinds(out), "PPA");
  EXPECT_EQ(ReplyIn<v1::AddJobReply>(out).job_id(), JobId::FromInt(1).Binary());
  core.Add(job, 0, 5, &out);
  EXPECT_THAT(core.RunningOn(node), ElementsAre(JobId::FromInt(1), JobId::FromInt(2)));
  out.clear();
  EXPECT_TRUE(core.Finish(JobId::FromInt(1), 1, 6, &out));
  EXPECT_EQ(Kinds(out), "PAJ");
  out.clear();
  EXPECT_FALSE(core.Finish(JobId::FromInt(1), 1, 6, &out));
  EXPECT_FALSE(core.Finish(JobId::FromInt(77), 1, 6, &out));
  EXPECT_EQ(Kinds(out), "AA");
  EXPECT_THAT(core.RunningOn(node), ElementsAre(JobId::FromInt(2)));
}

TEST(JobTableTest, RemembersTheLastThatAreOver) {
  JobTableCore core(2);
  Effects out;
  MemoryStorage storage;
  const auto keep = [&] {
    std::vector<StorageOp> rows;
    for (Effect& effect : out)
      if (auto* row = std::get_if<Persist>(&effect)) rows.push_back(std::move(*row));
    storage.Write(std::move(rows), [](const Status& status) { EXPECT_TRUE(status.ok()); });
    out.clear();
    return storage.Load()->at("job");
  };
  for (int n = 0; n < 4; n++) core.Add({}, 1, 5, &out);
  for (const uint32_t n : {3u, 1u, 2u}) EXPECT_TRUE(core.Finish(JobId::FromInt(n), 1, 10 - n, &out));
  const StorageTable rows = keep();
  EXPECT_EQ(rows.size(), 3u) << "the one that ended first is forgotten";
  EXPECT_FALSE(rows.contains(JobId::FromInt(3).Binary()));
  EXPECT_TRUE(core.IsOver(JobId::FromInt(3))) << "and over nevertheless";
  EXPECT_FALSE(core.IsOver(JobId::FromInt(4)));
  EXPECT_FALSE(core.IsOver(JobId::FromInt(5))) << "never given out";
  EXPECT_FALSE(core.IsOver(JobId())) << "none";

  JobTableCore next(2);
  ASSERT_TRUE(next.Restore(*storage.Load()).ok());
  EXPECT_TRUE(next.IsOver(JobId::FromInt(3)));
  EXPECT_TRUE(next.Finish(JobId::FromInt(4), 1, 11, &out));
  const StorageTable later = keep();
  EXPECT_FALSE(later.contains(JobId::FromInt(2).Binary())) << "the order is that of their ends, also after a restart";
  EXPECT_TRUE(later.contains(JobId::FromInt(1).Binary()));
}

TEST(KvTableTest, PutGetDelKeys) {
  KvTableCore core;
  Effects out;
  auto put = [&](const char* ns, const char* key, const char* value, bool overwrite) {
    v1::KvPutRequest request;
    request.set_ns(ns);
    request.set_key(key);
    request.set_value(value);
    request.set_overwrite(overwrite);
    out.clear();
    core.Put(request, 1, &out);
    return Kinds(out) + (ReplyIn<v1::KvPutReply>(out).added() ? "+" : "");
  };
  auto get = [&](const char* ns, const char* key) {
    v1::KvGetRequest request;
    request.set_ns(ns);
    request.set_key(key);
    out.clear();
    core.Get(request, 1, &out);
    auto& reply = ReplyIn<v1::KvGetReply>(out);
    return reply.found() ? reply.value() : "none";
  };
  EXPECT_EQ(put("n", "a1", "x", false), "PA+");
  EXPECT_EQ(put("n", "a1", "y", false), "A");
  EXPECT_EQ(get("n", "a1"), "x");
  EXPECT_EQ(put("n", "a1", "y", true), "PA");
  EXPECT_EQ(get("n", "a1"), "y");
  EXPECT_EQ(get("m", "a1"), "none");
  put("n", "a2", "", false);
  put("n", "b", "z", false);
  put("o", "a3", "z", false);
  v1::KvKeysRequest keys;
  keys.set_ns("n");
  keys.set_prefix("a");
  out.clear();
  core.Keys(keys, 1, &out);
  EXPECT_THAT(ReplyIn<v1::KvKeysReply>(out).keys(), ElementsAre("a1", "a2"));
  v1::KvDelRequest del;
  del.set_ns("n");
  del.set_key("a");
  out.clear();
  core.Del(del, 1, &out);
  EXPECT_EQ(ReplyIn<v1::KvDelReply>(out).deleted(), 0);
  del.set_by_prefix(true);
  out.clear();
  core.Del(del, 1, &out);
  EXPECT_EQ(ReplyIn<v1::KvDelReply>(out).deleted(), 2);
  EXPECT_EQ(Kinds(out), "PPA");
  EXPECT_EQ(get("n", "a2"), "none");
  EXPECT_EQ(get("o", "a3"), "z");
}

TEST(WorkerTableTest, RemembersSomeDeaths) {
  WorkerTableCore core(1);
  Effects out;
  v1::ReportWorkerDiedRequest report;
  WorkerId ids[] = {WorkerId::FromRandom(), WorkerId::FromRandom()};
  report.set_worker_id(ids[0].Binary());
  report.set_detail("exit code 1");
  EXPECT_TRUE(core.Died(report, 1, &out));
  EXPECT_EQ(Kinds(out), "AN");
  EXPECT_FALSE(core.Died(report, 0, &out));
  EXPECT_EQ(core.DetailOf(ids[0]), "exit code 1");
  report.set_worker_id(ids[1].Binary());
  EXPECT_TRUE(core.Died(report, 0, &out));
  EXPECT_FALSE(core.IsDead(ids[0]));
  EXPECT_TRUE(core.IsDead(ids[1]));
}

}  // namespace
}  // namespace ray::gcs
