// Options as YAML. Scalars are read by the type of the field, not by guessing: `revision: 1.10` stays text. A quoted
// scalar is text and nothing else. Unknown and repeated keys are errors with file, line and the nearest valid name.
#include <cmath>
#include <set>

#include <yaml-cpp/yaml.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/nearest.h"
#include "jobs/spec.h"

namespace pmetal::jobs {
namespace {

constexpr size_t kMaxYamlBytes = 1 << 20;  // a configuration is a page; more is another kind of file

struct Place {
  size_t field;
  bool is_negated;
};

// "lora.r" -> field; flat names come first
std::optional<Place> find_place(const JobOptions& options, std::string_view path) {
  if (const std::optional<size_t> field = options.find(path)) return Place{*field, false};
  for (size_t i = 0; i < options.fields().size(); ++i)
    for (std::string_view alias : split_commas(options.fields()[i].yaml)) {
      const bool is_negated = alias.front() == '!';
      if (is_negated) alias.remove_prefix(1);
      if (alias == path) return Place{i, is_negated};
    }
  return std::nullopt;
}

// the names that may stand inside `section` ("" = top level), sections included
std::vector<std::string_view> names_in(const JobOptions& options, std::string_view section) {
  std::vector<std::string_view> names;
  for (const FieldDescriptor& field : options.fields()) {
    if (section.empty()) names.push_back(field.name);
    for (std::string_view alias : split_commas(field.yaml)) {
      if (alias.front() == '!') alias.remove_prefix(1);
      const size_t dot = alias.find('.');
      if (section.empty())
        names.push_back(alias.substr(0, dot));
      else if (dot != std::string_view::npos && alias.substr(0, dot) == section)
        names.push_back(alias.substr(dot + 1));
    }
  }
  return names;
}

class YamlReader {
 public:
  YamlReader(JobOptions& options, std::string_view file_name) : options_(options), file_name_(file_name) {}

  void read(const YAML::Node& root) {
    if (!root.IsDefined() || root.IsNull()) return;  // an empty file gives no option
    if (!root.IsMap()) fail(ErrorCode::kUsage, "{}: expected options as `name: value` lines", at(root));
    read_section(root, "");
  }

 private:
  std::string at(const YAML::Node& node) const {
    return node.Mark().is_null() ? std::string(file_name_) : fmt::format("{}:{}", file_name_, node.Mark().line + 1);
  }

  void read_section(const YAML::Node& map, const std::string& section) {
    std::set<std::string> seen;
    for (const auto& entry : map) {
      if (!entry.first.IsScalar()) fail(ErrorCode::kUsage, "{}: a key must be a plain word", at(entry.first));
      const std::string& key = entry.first.Scalar();
      const std::string path = section.empty() ? key : section + "." + key;
      if (!seen.insert(key).second) fail(ErrorCode::kUsage, "{}: \"{}\" is given twice", at(entry.first), path);
      const std::optional<Place> place = find_place(options_, path);
      const bool takes_map = place && options_.fields()[place->field].kind == FieldKind::kMap;
      // `model: x` is the field, `model: {dtype: f32}` the section of that name
      if (section.empty() && entry.second.IsMap() && !takes_map && !names_in(options_, key).empty()) {
        read_section(entry.second, key);
      } else if (place) {
        read_field(*place, path, entry.second, at(entry.first));
      } else {
        const std::vector<std::string_view> names = names_in(options_, section);
        fail(ErrorCode::kUsage, "{}: unknown key \"{}\"{}", at(entry.first), path, did_you_mean(key, names));
      }
    }
  }

  void read_field(Place place, const std::string& path, const YAML::Node& node, const std::string& line) {
    const FieldDescriptor& field = options_.fields()[place.field];
    const std::string where = line + ": " + path;
    if (!used_.insert(place.field).second)
      fail(ErrorCode::kUsage, "{}: sets {} a second time in this file", where, field.name);
    if (node.IsNull()) {
      if (!field.access->is_optional) fail(ErrorCode::kUsage, "{}: has no value", where);
      return options_.set(place.field, Json(nullptr), where);
    }
    if (node.IsScalar() && node.Tag() != "!")
      options_.set_text(place.field, node.Scalar(), where);
    else
      options_.set(place.field, to_json(node, field, where), where);
    if (place.is_negated) options_.set(place.field, !options_.get(place.field).get<bool>(), where);
  }

  Json to_json(const YAML::Node& node, const FieldDescriptor& field, const std::string& where) {
    if (node.IsScalar()) return node.Scalar();  // quoted
    Json out;
    if (node.IsSequence()) {
      out = Json::array();
      for (const YAML::Node& entry : node) out.push_back(entry_to_json(entry, field, where));
    } else if (node.IsMap()) {
      out = Json::object();
      for (const auto& entry : node) {
        if (!entry.first.IsScalar()) fail(ErrorCode::kUsage, "{}: a name must be a plain word", where);
        if (out.contains(entry.first.Scalar()))
          fail(ErrorCode::kUsage, "{}: \"{}\" is given twice", where, entry.first.Scalar());
        out[entry.first.Scalar()] = entry_to_json(entry.second, field, where);
      }
    }
    return out;
  }

  // an entry of a list or map: text for text lists, else a number
  Json entry_to_json(const YAML::Node& entry, const FieldDescriptor& field, const std::string& where) {
    if (!entry.IsScalar()) fail(ErrorCode::kUsage, "{}: entries must be single values", where);
    const ValueType type = field.access->type;
    const bool wants_number =
        type == ValueType::kIntegerList || type == ValueType::kIntegerMap || type == ValueType::kNumberMap;
    if (!wants_number || entry.Tag() == "!") return entry.Scalar();
    Json number = Json::parse(entry.Scalar(), nullptr, false);
    if (number.is_discarded() || !number.is_number())
      fail(ErrorCode::kUsage, "{}: expected a number, got \"{}\"", where, entry.Scalar());
    return number;
  }

  JobOptions& options_;
  std::string_view file_name_;
  std::set<size_t> used_;
};

// a scalar that reads back as the same value: text always quoted, numbers and words plain
std::string yaml_scalar(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::strict); }

std::string yaml_value(const Json& value) {
  if (!value.is_structured()) return yaml_scalar(value);
  std::string text;
  if (value.is_array()) {
    for (const Json& entry : value) text += (text.empty() ? "" : ", ") + yaml_scalar(entry);
    return "[" + text + "]";
  }
  for (const auto& [name, number] : value.items())
    text += (text.empty() ? "" : ", ") + Json(name).dump() + ": " + number.dump();
  return "{" + text + "}";
}

// enum words read better without quotes, and need none
std::string yaml_field(const FieldDescriptor& field, const Json& value) {
  return field.access->type == ValueType::kEnum ? value.get<std::string>() : yaml_value(value);
}

}  // namespace

void apply_yaml_text(JobOptions& options, std::string_view text, std::string_view file_name) {
  if (text.size() > kMaxYamlBytes)
    fail(ErrorCode::kUsage, "{}: {} bytes is too long for a configuration (limit {})", file_name, text.size(),
         kMaxYamlBytes);
  YAML::Node root;
  try {
    root = YAML::Load(std::string(text));
  } catch (const YAML::Exception& error) {
    fail(ErrorCode::kUsage, "{}:{}: not valid YAML: {}", file_name, error.mark.line + 1, error.msg);
  }
  YamlReader(options, file_name).read(root);
}

void apply_yaml_file(JobOptions& options, const std::string& path) { apply_yaml_text(options, read_text(path), path); }

std::string to_yaml(const JobOptions& options) {
  const JobOptions defaults(options.spec());
  std::string text;
  for (size_t i = 0; i < options.fields().size(); ++i) {
    const FieldDescriptor& field = options.fields()[i];
    const Json value = options.get(i);
    if (value.is_null() || (!options.was_given(i) && value == defaults.get(i))) continue;
    text += fmt::format("{}: {}\n", field.name, yaml_field(field, value));
  }
  return text;
}

std::string sample_yaml(const JobSpec& spec) {
  const JobOptions defaults(spec);
  std::string text = fmt::format(
      "# Options of `pmetal {0}`: {1}.\n# Use it with `pmetal {0} --config FILE`; a flag given on the command line "
      "wins.\n"
      "# `#name: value` shows a default: remove the # to change it.\n",
      spec.name, spec.summary);
  std::string_view group;
  for (size_t i = 0; i < spec.fields.size(); ++i) {
    const FieldDescriptor& field = spec.fields[i];
    if (field.group != group) text += fmt::format("\n# ---- {} ----\n", group = field.group);
    text += fmt::format("\n# {}", field.help);
    if (field.access->type == ValueType::kEnum) text += fmt::format(" ({})", fmt::join(canonical_options(field), ", "));
    if (has_bounds(field)) text += fmt::format(" ({})", bounds_text(field));
    const Json value = defaults.get(i);
    if (field.required)
      text += fmt::format("; required\n{}: {}\n", field.name, yaml_value(value));
    else if (value.is_null())
      text += fmt::format("\n# {}:\n", field.name);
    else
      text += fmt::format("\n#{}: {}\n", field.name, yaml_field(field, value));
  }
  return text;
}

}  // namespace pmetal::jobs
