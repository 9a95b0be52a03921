#include "ray/raylet/router/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ray/raylet/router/fake_link.h"
#include "ray/v1/gcs_actor.pb.h"

namespace ray::raylet {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class RouterTest : public testing::Test {
 protected:
  RouterTest() {
    router_.RegisterHandlers(&dispatcher_);
    router_.SetGcs(gcs_, /*resume=*/false);
    while (!gcs_->callbacks.empty()) gcs_->Answer(0, {});  // the node's own subscriptions
  }
  // By a process of this node.
  void Call(MethodId method, const rpc::MessageLite& message) {
    const std::string control = message.SerializeAsString();
    dispatcher_.Dispatch({method, control, {}, process_}, rpc::Responder(process_, method, ++calls_));
  }
  void Register() {
    v1::RegisterActorRequest message;
    message.mutable_spec()->mutable_creation()->set_actor_id(actor_.Binary());
    Call(MethodId::kRegisterActor, message);
  }
  void Fail() {
    v1::FailActorRequest message;
    message.set_actor_id(actor_.Binary());
    Call(MethodId::kFailActor, message);
  }

  const ActorId actor_ = ActorId::FromBinaryOrNil(std::string(ActorId::kSize, 'a'));
  std::vector<ActorId> made_, ended_;
  Router router_{NodeId::FromBinaryOrNil(std::string(NodeId::kSize, 'n')),
                 {.on_job_added = nullptr,
                  .on_job_finishing = nullptr,
                  .on_actor_made = [this](uint64_t, const ActorId& actor) { made_.push_back(actor); },
                  .on_actor_ended = [this](const ActorId& actor) { ended_.push_back(actor); }}};
  rpc::Dispatcher dispatcher_;
  const std::shared_ptr<FakeLink> gcs_ = std::make_shared<FakeLink>(), process_ = std::make_shared<FakeLink>();
  uint64_t calls_ = 0;
};

TEST_F(RouterTest, AnActorThatIsNotRegisteredEndsAtOnce) {
  Register();
  EXPECT_THAT(made_, ElementsAre(actor_));
  EXPECT_THAT(ended_, IsEmpty());
  gcs_->Answer(0, Status::NotFound("its job is over"));
  EXPECT_THAT(ended_, ElementsAre(actor_));
}

// Its owner waited for the registration for too long, and has given it up without a subscription.
TEST_F(RouterTest, AnActorThatItsOwnerFailsEndsWhenTheGcsKnows) {
  Register();
  Fail();
  gcs_->Answer(0, {});
  EXPECT_THAT(ended_, IsEmpty());
  gcs_->Answer(0, {});
  EXPECT_THAT(ended_, ElementsAre(actor_));
}

}  // namespace
}  // namespace ray::raylet
