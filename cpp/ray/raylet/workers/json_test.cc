#include "ray/raylet/workers/json.h"

#include <gtest/gtest.h>

namespace ray::raylet {
namespace {

TEST(Json, ReadsFlatObjects) {
  const auto object = ParseFlatJson(R"( {"op":"forked", "token" : 7,"x":-1.5e3,"b":true,"n":null,"s":"a\"\\\n\u00e9\ud83d\ude00"} )");
  ASSERT_TRUE(object.ok()) << object.status().message();
  EXPECT_EQ(JsonString(*object, "op"), "forked");
  EXPECT_EQ(JsonNumber(*object, "token", 0), 7);
  EXPECT_EQ(JsonNumber(*object, "x", 0), -1500);
  EXPECT_EQ(std::get<bool>(object->at("b")), true);
  EXPECT_EQ(JsonString(*object, "s"), "a\"\\\n\xc3\xa9\xf0\x9f\x98\x80");
  EXPECT_EQ(JsonNumber(*object, "missing", 3), 3);
  EXPECT_TRUE(ParseFlatJson("{}").ok());
}

TEST(Json, RefusesAnythingElse) {
  for (const char* text : {"", "[]", "{", "{\"a\"}", "{\"a\":1,}", "{\"a\":1} x", "{\"a\":[1]}", "{\"a\":1,\"a\":2}", "{\"a\":tru}",
                           "{\"a\":\"\n\"}", "{\"a\":\"\\ud800\"}", "{a:1}", "{\"a\":+1}"}) {
    EXPECT_FALSE(ParseFlatJson(text).ok()) << text;
  }
}

TEST(Json, Writes) {
  JsonWriter json;
  json.BeginObject()
      .Key("a")
      .Int(1)
      .Key("b")
      .BeginArray()
      .String("x\"\n")
      .Bool(false)
      .BeginObject()
      .EndObject()
      .EndArray()
      .Key("c")
      .Double(0.5)
      .EndObject();
  EXPECT_EQ(json.Take(), R"({"a":1,"b":["x\"\u000a",false,{}],"c":0.5})");
}

}  // namespace
}  // namespace ray::raylet
