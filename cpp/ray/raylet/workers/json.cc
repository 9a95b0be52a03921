#include "ray/raylet/workers/json.h"

#include <charconv>
#include <cmath>

namespace ray::raylet {

namespace {

void AppendUtf8(uint32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xc0 | c >> 6));
    out->push_back(static_cast<char>(0x80 | (c & 0x3f)));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xe0 | c >> 12));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3f)));
  } else {
    out->push_back(static_cast<char>(0xf0 | c >> 18));
    out->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3f)));
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}

  Result<JsonObject> Object() {
    JsonObject object;
    if (!Take('{')) return Bad("an object");
    if (!Take('}')) {
      do {
        Skip();
        std::string key;
        if (!String(&key)) return Bad("a name in quotes");
        if (!Take(':')) return Bad("':'");
        Skip();
        JsonScalar value;
        if (!Scalar(&value)) return Bad("a string, number, true, false or null");
        if (!object.emplace(std::move(key), std::move(value)).second) return Status::InvalidArgument("JSON: a name occurs twice");
      } while (Take(','));
      if (!Take('}')) return Bad("',' or '}'");
    }
    Skip();
    if (!rest_.empty()) return Bad("the end");
    return object;
  }

 private:
  Status Bad(std::string_view expected) const {
    return Status::InvalidArgument("JSON: expected " + std::string(expected) + " at '" + std::string(rest_.substr(0, 20)) + "'");
  }
  void Skip() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\t' || rest_[0] == '\n' || rest_[0] == '\r')) rest_.remove_prefix(1);
  }
  bool Take(char c) {
    Skip();
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool Word(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  bool Hex4(uint32_t* out) {
    if (rest_.size() < 4) return false;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + 4, *out, 16);
    if (error != std::errc() || end != rest_.data() + 4) return false;
    rest_.remove_prefix(4);
    return true;
  }
  bool String(std::string* out) {
    if (rest_.empty() || rest_[0] != '"') return false;
    rest_.remove_prefix(1);
    while (!rest_.empty()) {
      const char c = rest_[0];
      rest_.remove_prefix(1);
      if (c == '"') return true;
      if (static_cast<unsigned char>(c) < 0x20) return false;
      if (c != '\\') {
        out->push_back(c);
        continue;
      }
      if (rest_.empty()) return false;
      const char escape = rest_[0];
      rest_.remove_prefix(1);
      static constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
      if (const size_t i = kFrom.find(escape); i != kFrom.npos) {
        out->push_back(kTo[i]);
        continue;
      }
      uint32_t code = 0;
      if (escape != 'u' || !Hex4(&code)) return false;
      if (code >= 0xd800 && code < 0xdc00) {
        uint32_t low = 0;
        if (!Word("\\u") || !Hex4(&low) || low < 0xdc00 || low > 0xdfff) return false;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      }
      AppendUtf8(code, out);
    }
    return false;
  }
  bool Scalar(JsonScalar* out) {
    if (Word("true")) return *out = true, true;
    if (Word("false")) return *out = false, true;
    if (Word("null")) return *out = nullptr, true;
    if (!rest_.empty() && rest_[0] == '"') {
      std::string text;
      if (!String(&text)) return false;
      *out = std::move(text);
      return true;
    }
    if (rest_.empty() || (rest_[0] != '-' && (rest_[0] < '0' || rest_[0] > '9'))) return false;
    double number = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), number);
    if (error != std::errc()) return false;
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    *out = number;
    return true;
  }

  std::string_view rest_;
};

}  // namespace

Result<JsonObject> ParseFlatJson(std::string_view text) { return Parser(text).Object(); }

double JsonNumber(const JsonObject& object, const std::string& key, double fallback) {
  const auto it = object.find(key);
  const double* number = it == object.end() ? nullptr : std::get_if<double>(&it->second);
  return number == nullptr ? fallback : *number;
}

std::string JsonString(const JsonObject& object, const std::string& key) {
  const auto it = object.find(key);
  const std::string* text = it == object.end() ? nullptr : std::get_if<std::string>(&it->second);
  return text == nullptr ? std::string() : *text;
}

void JsonWriter::Separate() {
  if (needs_comma_) text_.push_back(',');
  needs_comma_ = true;
}
JsonWriter& JsonWriter::Open(char c) {
  Separate();
  text_.push_back(c);
  needs_comma_ = false;
  return *this;
}
JsonWriter& JsonWriter::Close(char c) {
  text_.push_back(c);
  needs_comma_ = true;
  return *this;
}
JsonWriter& JsonWriter::Raw(std::string_view text) {
  Separate();
  text_ += text;
  return *this;
}
JsonWriter& JsonWriter::Key(std::string_view key) {
  String(key);
  text_.push_back(':');
  needs_comma_ = false;
  return *this;
}
JsonWriter& JsonWriter::Double(double value) {
  if (!std::isfinite(value)) return Raw("null");
  char buffer[40];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  return Raw({buffer, static_cast<size_t>(end - buffer)});
}
JsonWriter& JsonWriter::String(std::string_view value) {
  Separate();
  text_.push_back('"');
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      text_.push_back('\\');
      text_.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      static constexpr char kHex[] = "0123456789abcdef";
      text_ += "\\u00";
      text_.push_back(kHex[c >> 4 & 0xf]);
      text_.push_back(kHex[c & 0xf]);
    } else {
      text_.push_back(c);
    }
  }
  text_.push_back('"');
  return *this;
}

}  // namespace ray::raylet
