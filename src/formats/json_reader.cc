#include "formats/json_reader.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace pmetal::formats {
namespace {

using nlohmann::ordered_json;

constexpr size_t kShownBytes = 60;  // of a wrong value in a message

std::string describe(const ordered_json& value) {
  if (value.is_null()) return "null";
  if (value.is_object()) return fmt::format("an object with {} fields", value.size());
  if (value.is_array()) return fmt::format("an array of {} values", value.size());
  std::string text = value.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
  if (text.size() > kShownBytes) text = text.substr(0, kShownBytes) + "...";
  return fmt::format("{} {}", value.is_string() ? "string" : value.is_boolean() ? "boolean" : "number", text);
}

std::optional<int64_t> as_integer(const ordered_json& value) {
  if (value.is_number_unsigned()) {
    const auto u = value.get<uint64_t>();
    if (u > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<int64_t>(u);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const auto d = value.get<double>();
  constexpr double kExact = 9007199254740992.0;  // 2^53: beyond it a double may stand for a neighbour
  if (!(std::fabs(d) <= kExact) || d != std::trunc(d)) return std::nullopt;
  return static_cast<int64_t>(d);
}

}  // namespace

JsonReader::JsonReader(const ordered_json& value, std::string source)
    : JsonReader(value, std::make_shared<const Shared>(Shared{std::move(source)}), "") {
  if (!value.is_object())
    fail(ErrorCode::kInvalidInput, "{}: expected an object, got {}", shared_->source, describe(value));
}

JsonReader::JsonReader(const ordered_json& value, std::shared_ptr<const Shared> shared, std::string prefix)
    : value_(&value),
      shared_(std::move(shared)),
      prefix_(std::move(prefix)),
      read_(std::make_shared<std::set<std::string, std::less<>>>()) {}

const ordered_json* JsonReader::find(std::string_view key) const {
  if (!read_->contains(key)) read_->emplace(key);
  const auto it = value_->find(std::string(key));
  return it == value_->end() || it->is_null() ? nullptr : &*it;
}

bool JsonReader::has(std::string_view key) const { return find(key) != nullptr; }
bool JsonReader::is_object(std::string_view key) const {
  const ordered_json* v = find(key);
  return v && v->is_object();
}
bool JsonReader::is_array(std::string_view key) const {
  const ordered_json* v = find(key);
  return v && v->is_array();
}
bool JsonReader::is_string(std::string_view key) const {
  const ordered_json* v = find(key);
  return v && v->is_string();
}
bool JsonReader::is_number(std::string_view key) const {
  const ordered_json* v = find(key);
  return v && v->is_number();
}
bool JsonReader::is_bool(std::string_view key) const {
  const ordered_json* v = find(key);
  return v && v->is_boolean();
}

void JsonReader::refuse(std::string_view key, std::string_view message) const {
  fail(ErrorCode::kInvalidInput, "{}: field \"{}{}\": {}", shared_->source, prefix_, key, message);
}

void JsonReader::wrong_type(std::string_view key, std::string_view expected, const ordered_json& got) const {
  refuse(key, fmt::format("expected {}, got {}", expected, describe(got)));
}

const ordered_json& JsonReader::require(std::string_view key, std::string_view expected) const {
  const ordered_json* v = find(key);
  if (!v) refuse(key, fmt::format("expected {}, the field is missing", expected));
  return *v;
}

const ordered_json& JsonReader::require_array(std::string_view key, std::string_view expected) const {
  const ordered_json& v = require(key, expected);
  if (!v.is_array()) wrong_type(key, expected, v);
  return v;
}

const ordered_json& JsonReader::raw(std::string_view key) const { return require(key, "a value"); }

int64_t JsonReader::integer(std::string_view key) const {
  const ordered_json& v = require(key, "an integer");
  const auto i = as_integer(v);
  if (!i) wrong_type(key, "an integer", v);
  return *i;
}

int64_t JsonReader::integer(std::string_view key, int64_t smallest, int64_t largest) const {
  const int64_t i = integer(key);
  if (i < smallest || i > largest)
    refuse(key, fmt::format("expected an integer from {} to {}, got {}", smallest, largest, i));
  return i;
}

double JsonReader::number(std::string_view key) const {
  const ordered_json& v = require(key, "a number");
  if (!v.is_number()) wrong_type(key, "a number", v);
  return v.get<double>();
}

bool JsonReader::boolean(std::string_view key) const {
  const ordered_json& v = require(key, "true or false");
  if (!v.is_boolean()) wrong_type(key, "true or false", v);
  return v.get<bool>();
}

std::string JsonReader::string(std::string_view key) const {
  const ordered_json& v = require(key, "a string");
  if (!v.is_string()) wrong_type(key, "a string", v);
  return v.get<std::string>();
}

std::vector<int64_t> JsonReader::integers(std::string_view key) const {
  std::vector<int64_t> out;
  for (const ordered_json& v : require_array(key, "an array of integers")) {
    const auto i = as_integer(v);
    if (!i) wrong_type(fmt::format("{}[{}]", key, out.size()), "an integer", v);
    out.push_back(*i);
  }
  return out;
}

std::vector<double> JsonReader::numbers(std::string_view key) const {
  std::vector<double> out;
  for (const ordered_json& v : require_array(key, "an array of numbers")) {
    if (!v.is_number()) wrong_type(fmt::format("{}[{}]", key, out.size()), "a number", v);
    out.push_back(v.get<double>());
  }
  return out;
}

std::vector<std::string> JsonReader::strings(std::string_view key) const {
  std::vector<std::string> out;
  for (const ordered_json& v : require_array(key, "an array of strings")) {
    if (!v.is_string()) wrong_type(fmt::format("{}[{}]", key, out.size()), "a string", v);
    out.push_back(v.get<std::string>());
  }
  return out;
}

std::vector<bool> JsonReader::booleans(std::string_view key) const {
  std::vector<bool> out;
  for (const ordered_json& v : require_array(key, "an array of true and false")) {
    if (!v.is_boolean()) wrong_type(fmt::format("{}[{}]", key, out.size()), "true or false", v);
    out.push_back(v.get<bool>());
  }
  return out;
}

JsonReader JsonReader::object(std::string_view key) const {
  const ordered_json& v = require(key, "an object");
  if (!v.is_object()) wrong_type(key, "an object", v);
  return JsonReader(v, shared_, fmt::format("{}{}.", prefix_, key));
}

std::vector<JsonReader> JsonReader::objects(std::string_view key) const {
  std::vector<JsonReader> out;
  for (const ordered_json& v : require_array(key, "an array of objects")) {
    const std::string place = fmt::format("{}[{}]", key, out.size());
    if (!v.is_object()) wrong_type(place, "an object", v);
    out.push_back(JsonReader(v, shared_, fmt::format("{}{}.", prefix_, place)));
  }
  return out;
}

std::optional<int64_t> JsonReader::maybe_integer(std::string_view key) const {
  return has(key) ? std::optional(integer(key)) : std::nullopt;
}
std::optional<double> JsonReader::maybe_number(std::string_view key) const {
  return has(key) ? std::optional(number(key)) : std::nullopt;
}
std::optional<std::string> JsonReader::maybe_string(std::string_view key) const {
  return has(key) ? std::optional(string(key)) : std::nullopt;
}
std::optional<JsonReader> JsonReader::maybe_object(std::string_view key) const {
  return has(key) ? std::optional(object(key)) : std::nullopt;
}

std::vector<std::string> JsonReader::keys() const {
  std::vector<std::string> out;
  for (const auto& item : value_->items()) out.push_back(item.key());
  return out;
}

std::vector<std::string> JsonReader::unread() const {
  std::vector<std::string> out;
  for (const auto& item : value_->items())
    if (!read_->contains(item.key())) out.push_back(item.key());
  return out;
}

}  // namespace pmetal::formats
