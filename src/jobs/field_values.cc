// The typed members of options structs to and from JSON, with errors that say what was expected and what came.
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/nearest.h"
#include "jobs/describe.h"

namespace pmetal::jobs::detail {
namespace {

[[noreturn]] void wrong_type(const Json& value, std::string_view where, std::string_view expected) {
  std::string shown = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  constexpr size_t kShown = 60;
  if (shown.size() > kShown) shown = shown.substr(0, kShown) + "...";
  fail(ErrorCode::kUsage, "{}: expected {}, got {}", where, expected, shown);
}

template <class T>
void named_to_json(const NamedValues<T>& value, Json& out) {
  out = Json::object();
  for (const auto& [name, number] : value) out[name] = number;
}

template <class T>
void named_from_json(const Json& value, std::string_view where, NamedValues<T>& out) {
  if (!value.is_object()) wrong_type(value, where, "names with numbers, such as q_proj=8");
  out.clear();
  for (const auto& [name, number] : value.items()) {
    T parsed{};
    from_json_value(number, fmt::format("{}: {}", where, name), parsed);
    out.emplace_back(name, parsed);
  }
}

}  // namespace

void to_json_value(bool value, Json& out) { out = value; }
void to_json_value(int64_t value, Json& out) { out = value; }
void to_json_value(uint64_t value, Json& out) { out = value; }
void to_json_value(double value, Json& out) { out = value; }
void to_json_value(const std::string& value, Json& out) { out = value; }
void to_json_value(const std::vector<std::string>& value, Json& out) { out = value; }
void to_json_value(const std::vector<int64_t>& value, Json& out) { out = value; }
void to_json_value(const NamedValues<int64_t>& value, Json& out) { named_to_json(value, out); }
void to_json_value(const NamedValues<double>& value, Json& out) { named_to_json(value, out); }
void null_to_json(Json& out) { out = nullptr; }
bool is_json_null(const Json& value) { return value.is_null(); }

void enum_to_json(const FieldDescriptor& field, int value, Json& out) {
  for (const EnumName& option : field.options)
    if (option.value == value) {
      out = option.name;
      return;
    }
  PMETAL_ASSERT(false, "{} holds {} which has no name", field.name, value);
}

void from_json_value(const Json& value, std::string_view where, bool& out) {
  if (!value.is_boolean()) wrong_type(value, where, "true or false");
  out = value.get<bool>();
}

void from_json_value(const Json& value, std::string_view where, int64_t& out) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()})
    wrong_type(value, where, "an integer below 2^63");
  if (!value.is_number_integer()) wrong_type(value, where, "an integer");
  out = value.get<int64_t>();
}

void from_json_value(const Json& value, std::string_view where, uint64_t& out) {
  const bool fits = value.is_number_unsigned() || (value.is_number_integer() && value.get<int64_t>() >= 0);
  if (!fits) wrong_type(value, where, "an integer from 0 to 2^64 - 1");
  out = value.get<uint64_t>();
}

void from_json_value(const Json& value, std::string_view where, double& out) {
  if (!value.is_number() || !std::isfinite(value.get<double>())) wrong_type(value, where, "a number");
  out = value.get<double>();
}

void from_json_value(const Json& value, std::string_view where, std::string& out) {
  if (!value.is_string()) wrong_type(value, where, "text");
  out = value.get<std::string>();
}

void from_json_value(const Json& value, std::string_view where, std::vector<std::string>& out) {
  if (!value.is_array()) wrong_type(value, where, "a list");
  out.clear();
  for (const Json& entry : value) from_json_value(entry, where, out.emplace_back());
}

void from_json_value(const Json& value, std::string_view where, std::vector<int64_t>& out) {
  if (!value.is_array()) wrong_type(value, where, "a list of integers");
  out.clear();
  for (const Json& entry : value) from_json_value(entry, where, out.emplace_back());
}

void from_json_value(const Json& value, std::string_view where, NamedValues<int64_t>& out) {
  named_from_json(value, where, out);
}
void from_json_value(const Json& value, std::string_view where, NamedValues<double>& out) {
  named_from_json(value, where, out);
}

int enum_from_json(const FieldDescriptor& field, const Json& value, std::string_view where) {
  // YAML reads `true` as a boolean; some enums of the ecosystem have it as a word (init_lora_weights: true)
  const std::string text = value.is_string()    ? value.get<std::string>()
                           : value.is_boolean() ? (value.get<bool>() ? "true" : "false")
                                                : std::string();
  std::vector<std::string_view> names;
  for (const EnumName& option : field.options) {
    names.push_back(option.name);
    if (!text.empty() && edit_distance(text, option.name) == 0) return option.value;
  }
  if (!value.is_string()) wrong_type(value, where, fmt::format("one of {}", fmt::join(canonical_options(field), ", ")));
  fail(ErrorCode::kUsage, "{}: \"{}\" is not one of {}{}", where, text, fmt::join(canonical_options(field), ", "),
       did_you_mean(text, names));
}

}  // namespace pmetal::jobs::detail
