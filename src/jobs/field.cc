#include "jobs/field.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include <fmt/format.h>

namespace pmetal::jobs {

std::string_view name_of(FieldKind kind) {
  switch (kind) {
    case FieldKind::kText: return "text";
    case FieldKind::kInteger: return "integer";
    case FieldKind::kNumber: return "number";
    case FieldKind::kEnum: return "enum";
    case FieldKind::kToggle: return "toggle";
    case FieldKind::kModel: return "model";
    case FieldKind::kDataset: return "dataset";
    case FieldKind::kPath: return "path";
    case FieldKind::kList: return "list";
    case FieldKind::kMap: return "map";
  }
  return "text";
}

std::string flag_of(const FieldDescriptor& field) {
  if (!field.flag.empty()) return std::string(field.flag);
  std::string flag = "--" + std::string(field.name);
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

std::string label_of(const FieldDescriptor& field) {
  std::string label(field.name);
  std::replace(label.begin(), label.end(), '_', ' ');
  if (!label.empty()) label[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(label[0])));
  return label;
}

std::vector<std::string> canonical_options(const FieldDescriptor& field) {
  std::vector<std::string> names;
  for (size_t i = 0; i < field.options.size(); ++i) {
    const bool is_alias = std::any_of(field.options.begin(), field.options.begin() + static_cast<ptrdiff_t>(i),
                                      [&](const EnumName& o) { return o.value == field.options[i].value; });
    if (!is_alias) names.emplace_back(field.options[i].name);
  }
  return names;
}

bool has_bounds(const FieldDescriptor& field) { return std::isfinite(field.min) || std::isfinite(field.max); }

std::string bounds_text(const FieldDescriptor& field) {
  if (std::isfinite(field.min) && std::isfinite(field.max)) return fmt::format("{}..{}", field.min, field.max);
  if (std::isfinite(field.min)) return fmt::format("{} or more", field.min);
  if (std::isfinite(field.max)) return fmt::format("{} or less", field.max);
  return {};
}

std::vector<std::string_view> split_commas(std::string_view text) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    if (comma > 0) parts.push_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return parts;
}

}  // namespace pmetal::jobs
