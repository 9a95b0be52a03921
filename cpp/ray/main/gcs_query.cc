#include "ray/main/gcs_query.h"

#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "ray/async/loop.h"
#include "ray/common/resources.h"
#include "ray/raylet/workers/json.h"
#include "ray/rpc/grpc/grpc_client.h"
#include "ray/util/flags.h"
#include "ray/util/logging.h"
#include "ray/util/signals.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/wire/convert.h"

namespace ray::raylet {
namespace {

enum ExitCode { kOk = 0, kNoAnswer = 1, kBadFlags = 2, kNotAuthenticated = 4 };

struct Options {
  std::string gcs_address;
  Duration timeout = std::chrono::seconds(5);
};

void WriteResources(const v1::ResourceSet& message, JsonWriter* json) {
  json->BeginObject();
  for (const auto& [name, amount] : FromProto(message).ToDoubles()) json->Key(name).Double(amount);
  json->EndObject();
}

std::string NodesAsJson(const v1::ListNodesReply& reply) {
  JsonWriter json;
  json.BeginArray();
  for (const v1::NodeInfo& node : reply.nodes()) {
    json.BeginObject().Key("node_id").String(NodeId::FromBinaryOrNil(node.node_id()).Hex());
    json.Key("node_name").String(node.node_name()).Key("ip").String(node.ip()).Key("hostname").String(node.hostname());
    json.Key("port").Int(node.port()).Key("alive").Bool(node.alive()).Key("is_head").Bool(node.is_head());
    json.Key("raylet_socket").String(node.raylet_socket()).Key("session_dir").String(node.session_dir());
    json.Key("death_reason").String(node.death_reason());
    json.Key("start_time_ms").Int(node.start_time_ms()).Key("end_time_ms").Int(node.end_time_ms());
    json.Key("total");
    WriteResources(node.total(), &json);
    json.Key("available");
    WriteResources(node.available(), &json);
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
  rpc::GrpcClient grpc(loop->get());
  const rpc::ConnectionPtr gcs = grpc.Connect(options.gcs_address, &nothing);
  Status outcome;
  std::string text;
  rpc::CallTyped<v1::ListNodesReply>(*gcs, MethodId::kListNodes, v1::NodeEmpty(), {},
                                     [&](Status status, v1::ListNodesReply& reply, PartList) {
                                       outcome = std::move(status);
                                       if (outcome.ok()) text = NodesAsJson(reply);
                                       (*loop)->Stop();
                                     },
                                     {.timeout = options.timeout});
  (*loop)->Run();
  grpc.Stop();
  if (!outcome.ok()) {
    std::cerr << outcome.message() << std::endl;
    return outcome.code() == StatusCode::kUnauthenticated ? kNotAuthenticated : kNoAnswer;
  }
  std::cout << text << std::endl;
  return kOk;
}

}  // namespace

int RunQuery(int argc, char** argv) {
  Options options;
  FlagParser flags("raylet query",
                   "Prints the nodes of a cluster as JSON, without joining it. Exit codes: 0 answered, 1 no answer, 2 bad flags, "
                   "4 the credential was not accepted.");
  flags.Group("Where");
  flags.Add("gcs-address", "where the GCS listens, unix:/path or host:port", &options.gcs_address).Required();
  flags.Add("timeout", "how long the answer may take", &options.timeout);
  auto help = flags.Parse(argc, argv);
  if (help.ok() && help->has_value()) {
    std::cout << **help;
    return kOk;
  }
  if (!help.ok()) {
    std::cerr << "raylet query: " << help.status().message() << "\nTry --help." << std::endl;
    return kBadFlags;
  }
  IgnoreSigPipe();
  LogOptions log;
  log.level = LogLevel::kError;  // stderr is for the answer that did not come
  if (Status status = StartLogging(log); !status.ok()) {
    std::cerr << status.message() << std::endl;
    return kNoAnswer;
  }
  return Ask(options);
}

}  // namespace ray::raylet
