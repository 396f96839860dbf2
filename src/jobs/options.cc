#include <algorithm>
#include <charconv>

#include <nlohmann/json.hpp>

#include "base/nearest.h"
#include "jobs/spec.h"

namespace pmetal::jobs {
namespace {

constexpr std::string_view kEmptyList = "[] for an empty list";

Json parse_document(std::string_view text, std::string_view where) {
  Json parsed = Json::parse(text, nullptr, false);
  if (parsed.is_discarded()) fail(ErrorCode::kUsage, "{}: \"{}\" is not valid JSON", where, text);
  return parsed;
}

template <class T>
T parse_number(std::string_view text, std::string_view where, std::string_view expected) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    fail(ErrorCode::kUsage, "{}: expected {}, got \"{}\"", where, expected, text);
  return value;
}

Json parse_toggle(std::string_view text, std::string_view where) {
  for (const std::string_view word : {"true", "yes", "on", "1", "True", "TRUE", "Yes", "On"})
    if (text == word) return true;
  for (const std::string_view word : {"false", "no", "off", "0", "False", "FALSE", "No", "Off"})
    if (text == word) return false;
  fail(ErrorCode::kUsage, "{}: expected true or false, got \"{}\"", where, text);
}

// the entries of `a,b`, the short form of what a JSON array or object says of any text; nothing is dropped in silence
std::vector<std::string_view> parse_commas(std::string_view text, std::string_view where, std::string_view none) {
  if (text.empty() || text.front() == ',' || text.back() == ',' || text.find(",,") != std::string_view::npos)
    fail(ErrorCode::kUsage, "{}: \"{}\" holds an empty entry; leave it out, or write {}", where, text, none);
  return split_commas(text);
}

Json parse_map(std::string_view text, std::string_view where, bool integers) {
  if (!text.empty() && text.front() == '{') return parse_document(text, where);
  Json map = Json::object();
  for (const std::string_view part : parse_commas(text, where, "{} for an empty map")) {
    const size_t equals = part.rfind('=');  // names may be patterns that hold '='
    if (equals == std::string_view::npos || equals == 0)
      fail(ErrorCode::kUsage, "{}: expected NAME=NUMBER, got \"{}\"", where, part);
    const std::string name(part.substr(0, equals));
    const std::string_view number = part.substr(equals + 1);
    if (map.contains(name)) fail(ErrorCode::kUsage, "{}: \"{}\" is given twice", where, name);
    if (integers)
      map[name] = parse_number<int64_t>(number, where, "an integer after '='");
    else
      map[name] = parse_number<double>(number, where, "a number after '='");
  }
  return map;
}

Json parse_word(const FieldDescriptor& field, std::string_view text, std::string_view where) {
  switch (field.access->type) {
    case ValueType::kText:
    case ValueType::kEnum: return std::string(text);
    case ValueType::kInteger: return parse_number<int64_t>(text, where, "an integer");
    case ValueType::kUnsigned: return parse_number<uint64_t>(text, where, "an integer from 0 to 2^64 - 1");
    case ValueType::kNumber: return parse_number<double>(text, where, "a number");
    case ValueType::kToggle: return parse_toggle(text, where);
    case ValueType::kTextList: {
      if (!text.empty() && text.front() == '[') return parse_document(text, where);
      Json list = Json::array();
      for (const std::string_view part : parse_commas(text, where, kEmptyList)) list.push_back(std::string(part));
      return list;
    }
    case ValueType::kIntegerList: {
      if (!text.empty() && text.front() == '[') return parse_document(text, where);
      Json list = Json::array();
      for (const std::string_view part : parse_commas(text, where, kEmptyList))
        list.push_back(parse_number<int64_t>(part, where, "integers separated by commas"));
      return list;
    }
    case ValueType::kIntegerMap: return parse_map(text, where, true);
    case ValueType::kNumberMap: return parse_map(text, where, false);
  }
  return nullptr;
}

void check_bounds(const FieldDescriptor& field, const Json& value, std::vector<FieldIssue>& issues) {
  if (value.is_structured()) {
    for (const Json& entry : value) check_bounds(field, entry, issues);
  } else if (value.is_number()) {
    const double number = value.get<double>();
    if (number < field.min || number > field.max)
      issues.push_back({std::string(field.name), fmt::format("must be {}, is {}", bounds_text(field), value.dump())});
  }
}

bool climbs(std::string_view path) {
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    if (path.substr(begin, end - begin) == "..") return true;
    begin = end + 1;
  }
  return false;
}

}  // namespace

JobOptions::JobOptions(const JobSpec& spec)
    : spec_(&spec), object_(spec.options.make()), given_(spec.fields.size(), Given::kNo) {}

Json JobOptions::get(size_t field) const {
  Json value;
  fields()[field].access->get(object_.get(), fields()[field], value);
  return value;
}

void JobOptions::set(size_t field, const Json& value, std::string_view where) {
  fields()[field].access->set(object_.get(), fields()[field], value, where);
  given_[field] = Given::kByFile;
}

void JobOptions::set_typed(size_t field, const Json& value, std::string_view where) {
  set(field, value, where);
  given_[field] = Given::kByFlag;
}

void JobOptions::set_text(size_t field, std::string_view text, std::string_view where) {
  set_typed(field, parse_word(fields()[field], text, where), where);
}

std::optional<size_t> JobOptions::find(std::string_view name) const {
  for (size_t i = 0; i < fields().size(); ++i)
    if (fields()[i].name == name) return i;
  return std::nullopt;
}

bool JobOptions::was_given(std::string_view name) const {
  const std::optional<size_t> field = find(name);
  PMETAL_ASSERT(field.has_value(), "{} has no field {}", spec_->name, name);
  return was_given(*field);
}

bool JobOptions::was_asked_for(size_t field) const {
  return given_[field] == Given::kByFlag ||
         (given_[field] == Given::kByFile && get(field) != JobOptions(*spec_).get(field));
}

bool JobOptions::was_asked_for(std::string_view name) const {
  const std::optional<size_t> field = find(name);
  PMETAL_ASSERT(field.has_value(), "{} has no field {}", spec_->name, name);
  return was_asked_for(*field);
}

std::vector<FieldIssue> JobOptions::normalize() const {
  std::vector<FieldIssue> issues;
  for (size_t i = 0; i < fields().size(); ++i) {
    const FieldDescriptor& field = fields()[i];
    const Json value = get(i);
    const bool is_absent = value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty()) ||
                           (value.is_array() && value.empty());
    if (field.required && is_absent)
      issues.push_back({std::string(field.name), fmt::format("is required: give {}", flag_of(field))});
    check_bounds(field, value, issues);
    if (field.is_output && value.is_string() && climbs(value.get_ref<const std::string&>()))
      issues.push_back({std::string(field.name), fmt::format("{} climbs out with \"..\": give the folder itself or an "
                                                             "absolute path",
                                                             value.dump())});
  }
  if (spec_->check != nullptr) spec_->check(*this, issues);
  return issues;
}

void require_valid(const JobOptions& options) {
  const std::vector<FieldIssue> issues = options.normalize();
  if (issues.empty()) return;
  std::string text;
  for (const FieldIssue& issue : issues) {
    if (!text.empty()) text += "; ";
    const std::optional<size_t> field = options.find(issue.field);
    text += field ? flag_of(options.fields()[*field]) + " " + issue.message : issue.message;
  }
  throw Error(ErrorCode::kUsage, text);
}

}  // namespace pmetal::jobs
