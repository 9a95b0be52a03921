// The little JSON that the raylet needs: flat objects on the zygote's socket and in --resources, and a writer for node statistics.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>

#include "ray/util/status.h"

namespace ray::raylet {

using JsonScalar = std::variant<std::nullptr_t, bool, double, std::string>;
using JsonObject = std::map<std::string, JsonScalar>;

// One object whose values are scalars. Strict: INVALID_ARGUMENT for anything else, duplicates and trailing text included.
Result<JsonObject> ParseFlatJson(std::string_view text);
// The value under `key`, or `fallback` if it is missing or of another type.
double JsonNumber(const JsonObject& object, const std::string& key, double fallback);
std::string JsonString(const JsonObject& object, const std::string& key);

// Builds one document, top down. Commas come by themselves; the caller keeps begin and end paired.
class JsonWriter {
 public:
  JsonWriter& BeginObject() { return Open('{'); }
  JsonWriter& EndObject() { return Close('}'); }
  JsonWriter& BeginArray() { return Open('['); }
  JsonWriter& EndArray() { return Close(']'); }
  JsonWriter& Key(std::string_view key);
  JsonWriter& String(std::string_view value);
  JsonWriter& Int(int64_t value) { return Raw(std::to_string(value)); }
  JsonWriter& Double(double value);
  JsonWriter& Bool(bool value) { return Raw(value ? "true" : "false"); }
  std::string Take() { return std::move(text_); }

 private:
  JsonWriter& Open(char c);
  JsonWriter& Close(char c);
  JsonWriter& Raw(std::string_view text);
  void Separate();
  std::string text_;
  bool needs_comma_ = false;
};

}  // namespace ray::raylet
