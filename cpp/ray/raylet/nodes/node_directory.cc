#include "ray/raylet/nodes/node_directory.h"

#include <algorithm>
#include <utility>

#include "ray/util/logging.h"
#include "ray/v1/node_link.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/version.h"

namespace ray::raylet {
namespace {

std::string AddressOf(const v1::NodeInfo& node) {
  if (node.port() == 0) return {};
  const bool v6 = node.ip().find(':') != std::string::npos;
  return (v6 ? "[" + node.ip() + "]:" : node.ip() + ":") + std::to_string(node.port());
}

}  // namespace

NodeDirectory::NodeDirectory(Deps deps, LinkConfig config)
    : deps_(std::move(deps)), core_(deps_.self, deps_.listens, config), timer_(deps_.loop, [this] { OnTick(); }) {}

NodeDirectory::~NodeDirectory() { *alive_ = false; }

void NodeDirectory::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::LinkHello>(
      MethodId::kLinkHello, [this](const v1::LinkHello& message, rpc::Request& request, rpc::Responder responder) {
        if (!responder.valid()) return;
        const NodeId node = NodeId::FromBinaryOrNil(message.node_id());
        const Lane lane = message.bulk() ? Lane::kBulk : Lane::kControl;
        if (node.IsNil()) return responder.Fail(Status::InvalidArgument("Hello needs a node_id"));
        if (!ProtocolsMayMeet(message.protocol_version(), kProtocolVersion)) {
          return responder.Fail(Status::FailedPrecondition("this node speaks protocol " + std::string(kProtocolVersion) + ", the caller " +
                                                           message.protocol_version() + ": nodes may be at most one version apart"));
        }
        // The caller gives this link up, for it was meant for a node that had this address before. Taken for one of its links here, it would take with it
        // what the two have on others.
        if (const NodeId meant = NodeId::FromBinaryOrNil(message.to_node_id()); !meant.IsNil() && meant != deps_.self)
          return responder.Fail(Status::Unavailable("node " + meant.Hex() + " is not here any more"));
        const LinkNo link = core_.NewLink();
        LinkEffects effects;
        if (closed_) return responder.Fail(Status::Unavailable("this node stops"));
        if (!core_.OnIncoming(node, lane, link, &effects)) {
          return responder.Fail(Status::FailedPrecondition("node " + node.Hex() + " was declared dead; it has to start anew"));
        }
        Watch(node, lane, link, request.connection);
        v1::LinkWelcome welcome;
        welcome.set_node_id(deps_.self.Binary());
        responder.Send(welcome);
        Run(std::move(effects));
      });
}

void NodeDirectory::OnNews(const v1::NodeInfo& info) {
  const NodeId id = NodeId::FromBinaryOrNil(info.node_id());
  if (closed_ || id.IsNil() || id == deps_.self) return;
  LinkEffects effects;
  if (!info.alive()) {
    reasons_[id] = info.death_reason();
    core_.OnDead(id, info.death_reason(), &effects);
    Run(std::move(effects));
    reasons_.erase(id);
    return;
  }
  if (core_.IsDead(id)) return;
  NodeDescription& node = nodes_[id];
  node.id = id;
  node.name = info.node_name();
  node.ip = info.ip();
  node.address = AddressOf(info);
  node.is_head = info.is_head();
  node.plain_links = info.plain_links();
  node.plain_bulk = info.plain_bulk();
  node.total = FromProto(info.total());
  node.labels = {info.labels().begin(), info.labels().end()};
  core_.OnAlive(id, node.address, Now(), &effects);
  Run(std::move(effects));
}

const NodeDescription* NodeDirectory::Find(const NodeId& node) const {
  const auto it = nodes_.find(node);
  return it == nodes_.end() ? nullptr : &it->second;
}

rpc::ConnectionPtr NodeDirectory::ExistingLink(const NodeId& node) const {
  const auto link = links_.find(core_.Current(node, Lane::kControl));
  return link == links_.end() || link->second->closed() ? nullptr : link->second;
}

rpc::ConnectionPtr NodeDirectory::Get(const NodeId& node, Lane lane) {
  if (closed_) return nullptr;
  LinkNo link = core_.Current(node, lane);
  if (link == 0) {
    LinkEffects effects;
    core_.Want(node, lane, Now(), &effects);
    Run(std::move(effects));
    link = core_.Current(node, lane);
  }
  const auto it = links_.find(link);
  return it == links_.end() ? nullptr : it->second;
}

void NodeDirectory::Run(LinkEffects effects) {
  for (const LinkEffect& effect : effects) {
    if (const auto* dial = std::get_if<DialLink>(&effect)) {
      Dial(*dial);
    } else if (const auto* redial = std::get_if<DialAgain>(&effect)) {
      if (const auto it = dial_again_.find(redial->link); it != dial_again_.end()) std::exchange(it->second, nullptr)();
    } else if (const auto* drop = std::get_if<DropLink>(&effect)) {
      if (const auto it = links_.find(drop->link); it != links_.end()) it->second->Close(Status::Unavailable(drop->reason));
    } else if (const auto* joined = std::get_if<NodeJoined>(&effect)) {
      const NodeDescription node = nodes_.at(joined->node);
      RAY_LOG(INFO) << "node " << node.id << " is there, at " << (node.address.empty() ? node.ip + ", dialling out" : node.address);
      for (const auto& handler : added_) handler(node);
    } else if (const auto* gone = std::get_if<NodeGone>(&effect)) {
      const std::string reason = reasons_[gone->node];
      if (nodes_.erase(gone->node) != 0) RAY_LOG(WARNING) << "node " << gone->node << " is dead: " << reason;
      for (const auto& handler : dead_) handler(gone->node, reason);
    } else if (const auto* up = std::get_if<LinkUp>(&effect)) {
      if (up->lane != Lane::kControl) continue;
      for (const auto& handler : link_up_) handler(up->node);
    } else if (const auto* broke = std::get_if<LinkBroke>(&effect)) {
      RAY_LOG(WARNING) << "a link to node " << broke->node << " broke: " << broke->reason;
      if (broke->lane != Lane::kControl) continue;
      for (const auto& handler : link_broke_) handler(broke->node, broke->reason);
    }
  }
  if (!closed_) timer_.Arm(core_.NextDeadline());
}

void NodeDirectory::Dial(const DialLink& dial) {
  RAY_LOG(DEBUG) << "dialling node " << dial.node << " at " << dial.address;
  const NodeDescription* node = Find(dial.node);
  const bool plain = node != nullptr && (dial.lane == Lane::kBulk ? node->plain_bulk : node->plain_links);
  const rpc::ConnectionPtr connection =
      deps_.dial(dial.address, dial.lane, plain, [this, dial, alive = alive_](const Status& why, std::function<void()> again) {
        if (*alive) OnDialFailed(dial, why, std::move(again));
      });
  Watch(dial.node, dial.lane, dial.link, connection);
  v1::LinkHello hello;
  hello.set_node_id(deps_.self.Binary());
  hello.set_bulk(dial.lane == Lane::kBulk);
  hello.set_protocol_version(std::string(kProtocolVersion));
  hello.set_to_node_id(dial.node.Binary());
  rpc::CallTyped<v1::LinkWelcome>(*connection, MethodId::kLinkHello, hello, {},
                                  [this, dial, connection, alive = alive_](Status status, const v1::LinkWelcome& welcome, const PartList&) {
                                    if (!*alive || closed_) return;
                                    if (status.ok() && NodeId::FromBinaryOrNil(welcome.node_id()) != dial.node) {
                                      status = Status::Unavailable("another node answers at " + dial.address);
                                    }
                                    if (status.ok()) {
                                      core_.OnUp(dial.node, dial.lane, dial.link);
                                      return;
                                    }
                                    connection->Close(status);
                                    if (status.code() == StatusCode::kFailedPrecondition) deps_.on_refused(status);
                                  });
}

void NodeDirectory::OnDialFailed(const DialLink& dial, const Status& why, std::function<void()> again) {
  if (closed_ || !links_.contains(dial.link)) return;
  const auto [it, first] = dial_again_.try_emplace(dial.link);
  if (first) RAY_LOG(WARNING) << "node " << dial.node << " cannot be reached, and is dialled again: " << why.message();
  it->second = std::move(again);
  LinkEffects effects;
  core_.OnDialFailed(dial.node, dial.lane, dial.link, why.message(), Now(), &effects);
  Run(std::move(effects));
}

void NodeDirectory::Watch(const NodeId& node, Lane lane, LinkNo link, const rpc::ConnectionPtr& connection) {
  links_[link] = connection;
  connection->OnClose([this, node, lane, link, alive = alive_](const Status& reason) {
    if (*alive) OnClosed(node, lane, link, reason.message());
  });
}

void NodeDirectory::OnClosed(const NodeId& node, Lane lane, LinkNo link, const std::string& reason) {
  links_.erase(link);
  dial_again_.erase(link);
  if (closed_) return;
  LinkEffects effects;
  core_.OnClosed(node, lane, link, reason, Now(), &effects);
  Run(std::move(effects));
}

void NodeDirectory::OnTick() {
  LinkEffects effects;
  core_.Tick(Now(), &effects);
  Run(std::move(effects));
}

void NodeDirectory::Close() {
  closed_ = true;
  timer_.Cancel();
  const auto links = links_;
  for (const auto& [link, connection] : links) connection->Close(Status::Cancelled("this node stops"));
}

}  // namespace ray::raylet
