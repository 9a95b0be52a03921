#include "ray/wire/task_spec.h"

#include <gtest/gtest.h>

#include "ray/v1/types.pb.h"

namespace ray {
namespace {

TaskSpec Spec(uint64_t key) {
  auto t = std::make_shared<TaskTemplate>();
  t->key = key;
  t->job_id = JobId::FromInt(7);
  t->function_name = "f";
  t->resources.Set("CPU", ResourceSet::kUnit);
  TaskSpec spec;
  spec.tmpl = t;
  spec.task_id = TaskId::Of(t->job_id, ActorId::Nil());
  spec.owner = {NodeId::FromRandom(), WorkerId::FromRandom()};
  return spec;
}

TEST(TaskSpec, TemplateTravelsOncePerConnection) {
  TemplateSender sender;
  TemplateReceiver receiver;
  TaskSpec spec = Spec(3);
  uint64_t key = 0;
  for (int i = 0; i < 3; ++i) {
    v1::TaskSpec message;
    PartList parts;
    sender.Encode(spec, &message, &parts);
    EXPECT_EQ(message.has_template_(), i == 0);
    auto back = receiver.Decode(message, parts);
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->tmpl->function_name, "f");
    EXPECT_EQ(back->owner, spec.owner);
    EXPECT_EQ(back->task_id, spec.task_id);
    if (i == 0) key = back->tmpl->key;
    EXPECT_EQ(back->tmpl->key, key);
  }
  // Another connection, the same content: the same key.
  TemplateSender other_sender;
  TemplateReceiver other_receiver;
  v1::TaskSpec message;
  PartList parts;
  other_sender.Encode(spec, &message, &parts);
  EXPECT_EQ(other_receiver.Decode(message, parts)->tmpl->key, key);
}

TEST(TaskSpec, PartsFollowTheInlinedArguments) {
  TaskSpec spec = Spec(1);
  TaskArg stored{{ObjectId::Of(spec.task_id, 1), spec.owner}, "", nullptr, {}, true};
  TaskArg small{{ObjectId::Of(spec.task_id, 2), spec.owner}, "RAW", HeapBuffer::CopyOf("xyz"), {}, false};
  spec.refs = {stored, small};
  v1::TaskSpec message;
  PartList parts;
  EncodeWhole(spec, &message, &parts);
  ASSERT_EQ(parts.size(), 2u);  // part 0 is there, empty
  auto back = TemplateReceiver().Decode(message, parts);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->args, nullptr);
  EXPECT_EQ(back->refs[0].value, nullptr);
  EXPECT_TRUE(back->refs[0].in_store);
  EXPECT_EQ(back->refs[1].value->view(), "xyz");
  EXPECT_FALSE(TemplateReceiver().Decode(message, {}).ok());
}

TEST(TaskSpec, UnknownTemplateIsRefused) {
  v1::TaskSpec message;
  message.set_template_id(4);
  message.set_task_id(std::string(TaskId::kSize, 'x'));
  EXPECT_EQ(TemplateReceiver().Decode(message, {}).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ray
