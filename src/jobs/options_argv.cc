// Options as the words of a command line.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "jobs/spec.h"

namespace pmetal::jobs {
namespace {

// a JSON array or object where the comma form could not be read back
bool needs_document(const std::string& entry) {
  return entry.empty() || entry.front() == '[' || entry.front() == '{' || entry.find(',') != std::string::npos;
}

std::string list_word(const Json& list) {
  std::string word;
  for (const Json& entry : list) {
    const std::string text = entry.is_string() ? entry.get<std::string>() : entry.dump();
    if (needs_document(text)) return list.dump();
    word += (word.empty() ? "" : ",") + text;
  }
  return word.empty() ? "[]" : word;
}

std::string map_word(const Json& map) {
  std::string word;
  for (const auto& [name, number] : map.items()) {
    if (needs_document(name)) return map.dump();
    word += (word.empty() ? "" : ",") + name + "=" + number.dump();
  }
  return word.empty() ? "{}" : word;
}

std::string word_of(ValueType type, const Json& value) {
  switch (type) {
    case ValueType::kTextList:
    case ValueType::kIntegerList: return list_word(value);
    case ValueType::kIntegerMap:
    case ValueType::kNumberMap: return map_word(value);
    default: return value.is_string() ? value.get<std::string>() : value.dump();
  }
}

}  // namespace

std::vector<std::string> to_argv(const JobOptions& options) {
  const JobOptions defaults(options.spec());
  std::vector<std::string> words;
  for (size_t i = 0; i < options.fields().size(); ++i) {
    const FieldDescriptor& field = options.fields()[i];
    const Json value = options.get(i);
    if (value.is_null() || (!options.was_asked_for(i) && value == defaults.get(i))) continue;
    const std::string flag = flag_of(field);
    if (field.access->type == ValueType::kToggle && value.get<bool>())
      words.push_back(flag);
    else
      words.push_back(flag + "=" + word_of(field.access->type, value));
  }
  return words;
}

}  // namespace pmetal::jobs
