// Options as JSON objects, and the JSON Schema of a command.
#include <algorithm>
#include <cmath>
#include <set>

#include <nlohmann/json.hpp>

#include "base/nearest.h"
#include "jobs/spec.h"

namespace pmetal::jobs {
namespace {

Json type_of(ValueType type) {
  switch (type) {
    case ValueType::kText:
    case ValueType::kEnum: return "string";
    case ValueType::kInteger:
    case ValueType::kUnsigned: return "integer";
    case ValueType::kNumber: return "number";
    case ValueType::kToggle: return "boolean";
    case ValueType::kTextList:
    case ValueType::kIntegerList: return "array";
    case ValueType::kIntegerMap:
    case ValueType::kNumberMap: return "object";
  }
  return "string";
}

// 1024, not 1024.0, where the field counts things
Json bound(double value, bool is_integer) {
  if (is_integer) return static_cast<int64_t>(value);
  return value;
}

void add_bounds(Json& schema, const FieldDescriptor& field, bool is_integer) {
  if (std::isfinite(field.min)) schema["minimum"] = bound(field.min, is_integer);
  if (std::isfinite(field.max)) schema["maximum"] = bound(field.max, is_integer);
}

Json field_schema(const FieldDescriptor& field, const Json& default_value) {
  Json schema;
  const ValueType type = field.access->type;
  schema["type"] = type_of(type);
  schema["title"] = label_of(field);
  schema["description"] = field.help;
  switch (type) {
    case ValueType::kInteger:
    case ValueType::kUnsigned:
      add_bounds(schema, field, true);
      if (type == ValueType::kUnsigned && !schema.contains("minimum")) schema["minimum"] = 0;
      break;
    case ValueType::kNumber: add_bounds(schema, field, false); break;
    case ValueType::kEnum: schema["enum"] = canonical_options(field); break;
    case ValueType::kTextList: schema["items"]["type"] = "string"; break;
    case ValueType::kIntegerList:
      schema["items"]["type"] = "integer";
      add_bounds(schema["items"], field, true);
      break;
    case ValueType::kIntegerMap:
    case ValueType::kNumberMap: {
      const bool is_integer = type == ValueType::kIntegerMap;
      schema["additionalProperties"]["type"] = is_integer ? "integer" : "number";
      add_bounds(schema["additionalProperties"], field, is_integer);
      break;
    }
    case ValueType::kText:
    case ValueType::kToggle: break;
  }
  if (!default_value.is_null() && !field.required) schema["default"] = default_value;
  schema["x-kind"] = name_of(field.kind);
  schema["x-group"] = field.group;
  return schema;
}

std::string dashed(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

struct Place {
  size_t field;
  bool is_negated;
};

// "lora.r" -> field; flat names come first
std::optional<Place> find_place(const JobOptions& options, std::string_view path) {
  if (const std::optional<size_t> field = options.find(path)) return Place{*field, false};
  for (size_t i = 0; i < options.fields().size(); ++i)
    for (std::string_view place : split_commas(options.fields()[i].places)) {
      const bool is_negated = place.front() == '!';
      if (is_negated) place.remove_prefix(1);
      if (place == path) return Place{i, is_negated};
    }
  return std::nullopt;
}

// the names that may stand inside `section` ("" = top level), sections included
std::vector<std::string_view> names_in(const JobOptions& options, std::string_view section) {
  std::vector<std::string_view> names;
  for (const FieldDescriptor& field : options.fields()) {
    if (section.empty()) names.push_back(field.name);
    for (std::string_view place : split_commas(field.places)) {
      if (place.front() == '!') place.remove_prefix(1);
      const size_t dot = place.find('.');
      if (section.empty())
        names.push_back(place.substr(0, dot));
      else if (place.substr(0, dot) == section)
        names.push_back(place.substr(dot + 1));
    }
  }
  return names;
}

class ObjectReader {
 public:
  ObjectReader(JobOptions& options, std::string_view where) : options_(options), where_(where) {}

  void read(const Json& object, const std::string& section) {
    for (const auto& [key, value] : object.items()) {
      const std::string path = section.empty() ? key : section + "." + key;
      const std::optional<Place> place = find_place(options_, path);
      const bool takes_map = place && options_.fields()[place->field].kind == FieldKind::kMap;
      // `model: x` is the field, `model: {dtype: f32}` the section of that name
      if (section.empty() && value.is_object() && !takes_map && !names_in(options_, key).empty()) {
        read(value, key);
      } else if (place) {
        read_field(*place, path, value);
      } else {
        for (const RefusedFlag& refused : options_.spec().refused)
          if (refused.flag == "--" + dashed(key)) fail(ErrorCode::kUsage, "{}: {}: {}", where_, path, refused.text);
        fail(ErrorCode::kUsage, "{}: unknown key \"{}\"{}", where_, path,
             did_you_mean(key, names_in(options_, section)));
      }
    }
  }

 private:
  void read_field(Place place, const std::string& path, const Json& value) {
    const std::string where = fmt::format("{}: {}", where_, path);
    const bool is_second = !used_.insert(place.field).second;
    const Json first = options_.get(place.field);
    options_.set(place.field, value, where);
    if (place.is_negated) options_.set(place.field, !options_.get(place.field).get<bool>(), where);
    // a field has several places, as model.max_seq_len and training.max_seq_len: both may say the same
    if (const Json now = options_.get(place.field); is_second && now != first)
      fail(ErrorCode::kUsage, "{}: sets {} a second time, to {} instead of {}", where,
           options_.fields()[place.field].name, now.dump(), first.dump());
  }

  JobOptions& options_;
  std::string_view where_;
  std::set<size_t> used_;
};

}  // namespace

Json to_json(const JobOptions& options) {
  Json object = Json::object();
  for (size_t i = 0; i < options.fields().size(); ++i) {
    Json value = options.get(i);
    if (!value.is_null()) object[std::string(options.fields()[i].name)] = std::move(value);
  }
  return object;
}

void apply_json(JobOptions& options, const Json& object, std::string_view where) {
  if (!object.is_object()) fail(ErrorCode::kUsage, "{}: expected options, each a name with a value", where);
  ObjectReader(options, where).read(object, "");
}

Json json_schema(const JobSpec& spec) {
  const JobOptions defaults(spec);
  Json schema;
  schema["$schema"] = "https://json-schema.org/draft/2020-12/schema";
  schema["title"] = spec.name;
  schema["description"] = spec.summary;
  schema["type"] = "object";
  schema["properties"] = Json::object();
  Json required = Json::array();
  for (size_t i = 0; i < spec.fields.size(); ++i) {
    schema["properties"][std::string(spec.fields[i].name)] = field_schema(spec.fields[i], defaults.get(i));
    if (spec.fields[i].required) required.push_back(spec.fields[i].name);
  }
  schema["required"] = required;
  schema["additionalProperties"] = false;
  return schema;
}

}  // namespace pmetal::jobs
