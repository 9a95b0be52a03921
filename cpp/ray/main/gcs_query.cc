#include "ray/main/gcs_query.h"

#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "ray/async/loop.h"
#include "ray/common/resources.h"
#include "ray/main/security_flags.h"
#include "ray/raylet/workers/json.h"
#include "ray/rpc/grpc/grpc_client.h"
#include "ray/util/flags.h"
#include "ray/util/logging.h"
#include "ray/util/signals.h"
#include "ray/v1/gcs_actor.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/gcs_placement_group.pb.h"
#include "ray/wire/convert.h"

namespace ray::raylet {
namespace {

enum ExitCode { kOk = 0, kNoAnswer = 1, kBadFlags = 2, kNotAuthenticated = 4, kRefused = 5, kNoSuchNode = 6 };

struct Options {
  std::string gcs_address;
  std::string auth_mode = "token";
  rpc::SecurityConfig security;
  bool waiting = false;
  bool config = false;
  std::string drain;
  std::string reason = "asked for";
  bool only_if_idle = false;
  Duration deadline = std::chrono::seconds(30);
  Duration timeout = std::chrono::seconds(5);
};

// Nil: the text is no id.
NodeId NodeOf(const std::string& hex) { return NodeId::FromBinaryOrNil(HexToBytes(hex).value_or("")); }

void WriteResources(const v1::ResourceSet& message, JsonWriter* json) {
  json->BeginObject();
  for (const auto& [name, amount] : FromProto(message).ToDoubles()) json->Key(name).Double(amount);
  json->EndObject();
}

void WriteDemand(const v1::ResourceSet& need, int64_t count, JsonWriter* json) {
  json->BeginObject().Key("need");
  WriteResources(need, json);
  json->Key("count").Int(count).EndObject();
}

// Actors and placement groups that wait for a place.
std::string WaitingAsJson(const v1::ListActorsReply& actors, const v1::ListPlacementGroupsReply& groups) {
  JsonWriter json;
  std::map<ResourceSet, int64_t> needs;
  for (const v1::ActorInfo& actor : actors.actors()) {
    if (actor.state() == v1::ACTOR_STATE_PENDING_CREATION || actor.state() == v1::ACTOR_STATE_RESTARTING)
      ++needs[FromProto(actor.creation().placement_resources())];
  }
  json.BeginObject().Key("actors").BeginArray();
  for (const auto& [need, count] : needs) WriteDemand(ToProto(need), count, &json);
  json.EndArray().Key("placement_groups").BeginArray();
  for (const v1::PlacementGroupInfo& group : groups.groups()) {
    if (group.state() != v1::PLACEMENT_GROUP_STATE_PENDING && group.state() != v1::PLACEMENT_GROUP_STATE_RESCHEDULING) continue;
    json.BeginObject().Key("id").String(PlacementGroupId::FromBinaryOrNil(group.placement_group_id()).Hex());
    json.Key("strategy").Int(group.strategy()).Key("why").String(group.scheduling_state()).Key("bundles").BeginArray();
    for (const v1::Bundle& bundle : group.bundles()) {
      if (bundle.node_id().empty()) WriteResources(bundle.resources(), &json);
    }
    json.EndArray().EndObject();
  }
  return json.EndArray().EndObject().Take();
}

std::string NodesAsJson(const v1::ListNodesReply& reply) {
  JsonWriter json;
  json.BeginArray();
  for (const v1::NodeInfo& node : reply.nodes()) {
    json.BeginObject().Key("node_id").String(NodeId::FromBinaryOrNil(node.node_id()).Hex());
    json.Key("node_name").String(node.node_name()).Key("ip").String(node.ip()).Key("hostname").String(node.hostname());
    json.Key("port").Int(node.port()).Key("alive").Bool(node.alive()).Key("is_head").Bool(node.is_head());
    json.Key("driver_only").Bool(node.driver_only()).Key("draining").Bool(node.draining());
    json.Key("python_version")
        .String(node.python_version())
        .Key("left")
        .Bool(node.death_kind() == v1::DEATH_KIND_LEFT)
        .Key("drain_reason")
        .String(node.drain_reason());
    json.Key("raylet_socket").String(node.raylet_socket()).Key("session_dir").String(node.session_dir());
    json.Key("death_reason").String(node.death_reason());
    json.Key("start_time_ms").Int(node.start_time_ms()).Key("end_time_ms").Int(node.end_time_ms());
    json.Key("total");
    WriteResources(node.total(), &json);
    json.Key("available");
    WriteResources(node.available(), &json);
    json.Key("waiting").BeginArray();
    for (const v1::WaitingDemand& waiting : node.waiting()) WriteDemand(waiting.need(), waiting.count(), &json);
    json.EndArray();
    json.Key("labels").BeginObject();
    for (const auto& [name, value] : std::map<std::string, std::string>(node.labels().begin(), node.labels().end())) {
      json.Key(name).String(value);
    }
    json.EndObject().EndObject();
  }
  return json.EndArray().Take();
}

int Ask(const Options& options) {
  async::LoopOptions loop_options;
  loop_options.name = "query";
  loop_options.max_spin = Duration::zero();
  auto loop = async::EpollLoop::Make(loop_options);
  if (!loop.ok()) {
    std::cerr << loop.status().message() << std::endl;
    return kNoAnswer;
  }
  rpc::Dispatcher nothing;  // the GCS asks nothing of one that is no node
  const SystemClock clock;
  auto security = rpc::Security::Make(options.security, &clock);
  if (!security.ok()) {
    std::cerr << security.status().message() << std::endl;
    return kNotAuthenticated;
  }
  rpc::GrpcClient grpc(loop->get(), *security);
  const rpc::ConnectionPtr gcs = grpc.Connect(options.gcs_address, &nothing);
  Status outcome;
  std::string text;
  const rpc::CallOptions call_options = {.timeout = options.timeout};
  const auto finish = [&](Status status) {
    outcome = std::move(status);
    (*loop)->Stop();
  };
  v1::ListActorsReply actors;
  if (options.waiting) {
    v1::ListActorsRequest all;
    all.set_all_namespaces(true);
    const auto listed = [&](Status status, v1::ListPlacementGroupsReply& reply, PartList) {
      if (status.ok()) text = WaitingAsJson(actors, reply);
      finish(std::move(status));
    };
    const auto actors_listed = [&, listed](Status status, v1::ListActorsReply& reply, PartList) {
      if (!status.ok()) return finish(std::move(status));
      actors.Swap(&reply);
      rpc::CallTyped<v1::ListPlacementGroupsReply>(*gcs, MethodId::kListPlacementGroups, v1::PlacementGroupEmpty(), {}, listed,
                                                   call_options);
    };
    rpc::CallTyped<v1::ListActorsReply>(*gcs, MethodId::kListActors, all, {}, actors_listed, call_options);
  } else if (options.drain.empty()) {
    const auto answered = [&](Status status, v1::ListNodesReply& reply, PartList) {
      if (status.ok() && options.config) text = reply.config_json().empty() ? "{}" : reply.config_json();
      if (status.ok() && !options.config) text = NodesAsJson(reply);
      finish(std::move(status));
    };
    v1::ListNodesRequest request;
    request.set_without_config(!options.config);
    rpc::CallTyped<v1::ListNodesReply>(*gcs, MethodId::kListNodes, request, {}, answered, call_options);
  } else {
    v1::DrainNodeRequest order;
    order.set_node_id(NodeOf(options.drain).Binary());
    order.set_reason(options.reason);
    order.set_only_if_idle(options.only_if_idle);
    order.set_deadline_ms(std::chrono::duration_cast<std::chrono::milliseconds>(options.deadline).count());
    const auto answered = [&](Status status, v1::NodeEmpty&, PartList) {
      if (status.ok()) text = "[]";
      finish(std::move(status));
    };
    rpc::CallTyped<v1::NodeEmpty>(*gcs, MethodId::kDrainNode, order, {}, answered, call_options);
  }
  (*loop)->Run();
  grpc.Stop();
  if (!outcome.ok()) {
    std::cerr << outcome.message() << std::endl;
    if (outcome.code() == StatusCode::kFailedPrecondition && !options.drain.empty()) return kRefused;
    if (outcome.code() == StatusCode::kNotFound && !options.drain.empty()) return kNoSuchNode;
    return outcome.code() == StatusCode::kUnauthenticated ? kNotAuthenticated : kNoAnswer;
  }
  std::cout << text << std::endl;
  return kOk;
}

}  // namespace

int RunQuery(int argc, char** argv) {
  Options options;
  FlagParser flags(
      "raylet query",
      "Prints the nodes of a cluster as JSON, without joining it, or has a node drained. Exit codes: 0 answered, 1 no answer, 2 bad flags, "
      "4 the credential was not accepted, 5 the node is not idle and stays, 6 it is not part of the cluster (any more).");
  flags.Group("Where");
  flags.Add("gcs-address", "where the GCS listens, unix:/path or host:port", &options.gcs_address).Required();
  flags.Add("timeout", "how long the answer may take", &options.timeout);
  AddSecurityFlags(&flags, &options.auth_mode, &options.security);
  flags.Group("Instead of the list");
  flags.Add("waiting", "what actors and placement groups wait for", &options.waiting);
  flags.Add("config", "the settings for the whole cluster that its head was started with", &options.config);
  flags.Add("drain", "node, by its id in hex, that is to take no more work and to leave", &options.drain);
  flags.Add("reason", "why, for people", &options.reason);
  flags.Add("deadline", "how long what runs there may go on", &options.deadline);
  flags.Add("only-if-idle", "a node on which something runs or lies stays", &options.only_if_idle);
  auto help = flags.Parse(argc, argv);
  if (help.ok() && help->has_value()) {
    std::cout << **help;
    return kOk;
  }
  Status status = help.status();
  if (status.ok()) status = CompleteSecurity(options.auth_mode, &options.security);
  if (status.ok() && !options.drain.empty() && NodeOf(options.drain).IsNil()) {
    status = Status::InvalidArgument("--drain: '" + options.drain + "' is not the id of a node");
  }
  if (!status.ok()) {
    std::cerr << "raylet query: " << status.message() << "\nTry --help." << std::endl;
    return kBadFlags;
  }
  IgnoreSigPipe();
  LogOptions log;
  log.level = LogLevel::kError;  // stderr is for the answer that did not come
  if (status = StartLogging(log); !status.ok()) {
    std::cerr << status.message() << std::endl;
    return kNoAnswer;
  }
  return Ask(options);
}

}  // namespace ray::raylet
