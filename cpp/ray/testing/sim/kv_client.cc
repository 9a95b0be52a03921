#include "ray/testing/sim/kv_client.h"

#include <utility>

#include "ray/testing/sim/sim_gcs.h"
#include "ray/v1/gcs_kv.pb.h"

namespace ray::sim {
namespace {

constexpr Duration kReconnect = std::chrono::milliseconds(100);

}  // namespace

void KvClient::Start(SimNetwork* network, Process* process, KvClientConfig config, KvHistory* history, std::function<void()> done) {
  const auto client = std::make_shared<KvClient>(network, process, config, history, std::move(done));
  process->Own(client);
  process->Run([&] {
    client->Connect();
    client->Next();
  });
}

KvClient::KvClient(SimNetwork* network, Process* process, KvClientConfig config, KvHistory* history, std::function<void()> done)
    : network_(network),
      process_(process),
      config_(config),
      history_(history),
      done_(std::move(done)),
      random_(process->world()->random().Fork()) {}

void KvClient::Connect() {
  link_ = network_->Connect(process_, kGcsAddress, &dispatcher_);
  link_->OnClose([this](const Status&) {
    calls_.Wait();
    process_->loop()->AddTimer(kReconnect, [this] { Connect(); });
  });
  calls_.SetLink(link_);
}

void KvClient::Next() {
  if (asked_ == config_.operations) return done_();
  process_->loop()->AddTimer(random_.Between(Duration::zero(), config_.max_pause), [this] { Ask(); });
}

void KvClient::Ask() {
  ++asked_;
  const std::string key = "key" + std::to_string(random_.Below(static_cast<uint64_t>(config_.keys)));
  KvOperation operation;
  operation.kind = static_cast<KvOperation::Kind>(random_.Below(4));
  operation.called = process_->world()->now();
  const std::string value = std::to_string(process_->id()) + "." + std::to_string(asked_);
  if (operation.kind == KvOperation::Kind::kPut || operation.kind == KvOperation::Kind::kPutIfAbsent) operation.value = value;
  const auto index = history_->Called(key, operation);
  if (!index) return Next();
  const auto answered = [this, key, index = *index](bool truth, const std::string& read) {
    history_->Returned(key, index, truth, read, process_->world()->now());
    Next();
  };
  if (operation.kind == KvOperation::Kind::kGet) {
    v1::KvGetRequest request;
    request.set_ns("sim");
    request.set_key(key);
    return calls_.Call(MethodId::kKvGet, request.SerializeAsString(), {}, [answered](const Status& status, const rpc::Reply& reply) {
      v1::KvGetReply found;
      if (status.ok() && found.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size())))
        answered(found.found(), found.value());
    });
  }
  const std::string id = "request " + value;
  if (operation.kind == KvOperation::Kind::kDelete) {
    v1::KvDelRequest request;
    request.set_ns("sim");
    request.set_key(key);
    request.set_request_id(id);
    return calls_.Call(MethodId::kKvDel, request.SerializeAsString(), {}, [answered](const Status& status, const rpc::Reply& reply) {
      v1::KvDelReply deleted;
      if (status.ok() && deleted.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size())))
        answered(deleted.deleted() > 0, {});
    });
  }
  v1::KvPutRequest request;
  request.set_ns("sim");
  request.set_key(key);
  request.set_value(value);
  request.set_overwrite(operation.kind == KvOperation::Kind::kPut);
  request.set_request_id(id);
  calls_.Call(MethodId::kKvPut, request.SerializeAsString(), {}, [answered](const Status& status, const rpc::Reply& reply) {
    v1::KvPutReply put;
    if (status.ok() && put.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size()))) answered(put.added(), {});
  });
}

}  // namespace ray::sim
