// Options as YAML: the parser of formats/ gives JSON, which options_json.cc applies.
#include <nlohmann/json.hpp>

#include "formats/yaml.h"
#include "jobs/spec.h"

namespace pmetal::jobs {
namespace {

// on one line: JSON is YAML, and the words of an enum read better without quotes
std::string yaml_field(const FieldDescriptor& field, const Json& value) {
  return field.access->type == ValueType::kEnum ? value.get<std::string>() : value.dump();
}

}  // namespace

void apply_yaml_text(JobOptions& options, std::string_view text, const std::string& file_name) {
  const Json root = formats::parse_yaml(text, file_name);
  if (!root.is_null()) apply_json(options, root, file_name);  // an empty file gives no option
}

void apply_yaml_file(JobOptions& options, const std::string& path) {
  const Json root = formats::read_yaml(path);
  if (!root.is_null()) apply_json(options, root, path);
}

std::string to_yaml(const JobOptions& options) {
  const JobOptions defaults(options.spec());
  Json object = Json::object();
  for (size_t i = 0; i < options.fields().size(); ++i) {
    Json value = options.get(i);
    if (value.is_null() || (!options.was_given(i) && value == defaults.get(i))) continue;
    object[std::string(options.fields()[i].name)] = std::move(value);
  }
  return formats::dump_yaml(object);
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
      text += fmt::format("; required\n{}: {}\n", field.name, value.dump());
    else if (value.is_null())
      text += fmt::format("\n# {}:\n", field.name);
    else
      text += fmt::format("\n#{}: {}\n", field.name, yaml_field(field, value));
  }
  return text;
}

}  // namespace pmetal::jobs
