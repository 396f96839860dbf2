// What one option of a command is: its name, type, bounds, help, and how it is written on the command line and in
// YAML. Every form (flags, YAML, JSON, schema, help, completion, terminal and web forms) is generated from this.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace pmetal::jobs {

using Json = nlohmann::ordered_json;

// Which editor a form shows. The C++ type of the member (ValueType) is separate: a model is stored as text.
enum class FieldKind { kText, kInteger, kNumber, kEnum, kToggle, kModel, kDataset, kPath, kList, kMap };
std::string_view name_of(FieldKind kind);

enum class ValueType {
  kText,
  kInteger,
  kUnsigned,
  kNumber,
  kToggle,
  kEnum,
  kTextList,
  kIntegerList,
  kIntegerMap,
  kNumberMap
};

// One accepted spelling of an enumerator. The first entry of a value is the one that is written; later ones are
// aliases.
struct EnumName {
  std::string_view name;
  int value;
};

// Names mapped to numbers in the order given, e.g. rank_pattern: {"q_proj": 8}
template <class T>
using NamedValues = std::vector<std::pair<std::string, T>>;

struct FieldDescriptor;

// Reads and writes one member of an options struct. Made by access_of<&Struct::member> (describe.h).
struct FieldAccess {
  ValueType type;
  bool is_optional;  // std::optional: null in JSON, left out elsewhere
  void (*get)(const void* object, const FieldDescriptor& field, Json& out);
  // throws Error(kUsage) that begins with `where` when the JSON value is not of the type
  void (*set)(void* object, const FieldDescriptor& field, const Json& value, std::string_view where);
};

struct FieldDescriptor {
  std::string_view name;  // snake_case: the key in JSON and YAML
  const FieldAccess* access;
  FieldKind kind = FieldKind::kText;
  std::string_view flag = {};     // "--output" where it is not the name with dashes
  char short_flag = 0;            // 'm' for -m
  std::string_view aliases = {};  // further flags, comma-separated: "--old-name,--older-name"
  // nested places in YAML and JSON, comma-separated: "lora.r"; "!model.use_flash_attention" stores a toggle's opposite
  std::string_view places = {};
  std::string_view group = {};
  std::string_view help = {};
  std::string_view value_name = {};  // FILE, DIR, A,B: shown in help
  bool required = false;
  double min = -std::numeric_limits<double>::infinity();  // inclusive; list and map entries too
  double max = std::numeric_limits<double>::infinity();
  std::span<const EnumName> options = {};
  bool is_output = false;      // a path that the command writes: `..` is refused
  bool is_positional = false;  // may also be given as a bare word
};

std::string flag_of(const FieldDescriptor& field);   // "--lora-r"
std::string label_of(const FieldDescriptor& field);  // "Lora r": for forms
std::vector<std::string> canonical_options(const FieldDescriptor& field);
bool has_bounds(const FieldDescriptor& field);
std::string bounds_text(const FieldDescriptor& field);  // "1..1024", "0 or more", ""
std::vector<std::string_view> split_commas(std::string_view text);

// a flag of the system this one follows that has no meaning here; refused with the text
struct RefusedFlag {
  std::string_view flag;  // "--ane"
  std::string_view text;  // what to do instead
};

}  // namespace pmetal::jobs
