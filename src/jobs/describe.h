// Turns a member of a plain options struct into a FieldAccess. Included only by specs/*.cc, where a table like
//
//   using Options = TrainOptions;
//   constexpr FieldDescriptor kFields[] = {
//       {PMETAL_FIELD(lora_r), .kind = FieldKind::kInteger, .group = "LoRA", .help = "rank", .min = 1, .max = 1024},
//
// is the one description of the command's options. An enum member needs `.options`.
#pragma once

#include <optional>
#include <type_traits>

#include "jobs/field.h"
#include "jobs/spec.h"

namespace pmetal::jobs {
namespace detail {

// field_values.cc; JSON is complete only there, so that specs compile fast
void to_json_value(bool value, Json& out);
void to_json_value(int64_t value, Json& out);
void to_json_value(uint64_t value, Json& out);
void to_json_value(double value, Json& out);
void to_json_value(const std::string& value, Json& out);
void to_json_value(const std::vector<std::string>& value, Json& out);
void to_json_value(const std::vector<int64_t>& value, Json& out);
void to_json_value(const NamedValues<int64_t>& value, Json& out);
void to_json_value(const NamedValues<double>& value, Json& out);
void enum_to_json(const FieldDescriptor& field, int value, Json& out);
void null_to_json(Json& out);

void from_json_value(const Json& value, std::string_view where, bool& out);
void from_json_value(const Json& value, std::string_view where, int64_t& out);
void from_json_value(const Json& value, std::string_view where, uint64_t& out);
void from_json_value(const Json& value, std::string_view where, double& out);
void from_json_value(const Json& value, std::string_view where, std::string& out);
void from_json_value(const Json& value, std::string_view where, std::vector<std::string>& out);
void from_json_value(const Json& value, std::string_view where, std::vector<int64_t>& out);
void from_json_value(const Json& value, std::string_view where, NamedValues<int64_t>& out);
void from_json_value(const Json& value, std::string_view where, NamedValues<double>& out);
int enum_from_json(const FieldDescriptor& field, const Json& value, std::string_view where);
bool is_json_null(const Json& value);

template <class T>
struct OptionalOf {
  using Value = T;
  static constexpr bool kIs = false;
};
template <class T>
struct OptionalOf<std::optional<T>> {
  using Value = T;
  static constexpr bool kIs = true;
};

template <class T>
constexpr ValueType value_type_of() {
  if constexpr (std::is_enum_v<T>)
    return ValueType::kEnum;
  else if constexpr (std::is_same_v<T, bool>)
    return ValueType::kToggle;
  else if constexpr (std::is_same_v<T, int64_t>)
    return ValueType::kInteger;
  else if constexpr (std::is_same_v<T, uint64_t>)
    return ValueType::kUnsigned;
  else if constexpr (std::is_same_v<T, double>)
    return ValueType::kNumber;
  else if constexpr (std::is_same_v<T, std::string>)
    return ValueType::kText;
  else if constexpr (std::is_same_v<T, std::vector<std::string>>)
    return ValueType::kTextList;
  else if constexpr (std::is_same_v<T, std::vector<int64_t>>)
    return ValueType::kIntegerList;
  else if constexpr (std::is_same_v<T, NamedValues<int64_t>>)
    return ValueType::kIntegerMap;
  else {
    static_assert(std::is_same_v<T, NamedValues<double>>, "an option member must be one of the types of ValueType");
    return ValueType::kNumberMap;
  }
}

template <class T>
void get_value(const FieldDescriptor& field, const T& value, Json& out) {
  if constexpr (OptionalOf<T>::kIs) {
    if (value)
      get_value(field, *value, out);
    else
      null_to_json(out);
  } else if constexpr (std::is_enum_v<T>) {
    enum_to_json(field, static_cast<int>(value), out);
  } else {
    to_json_value(value, out);
  }
}

template <class T>
void set_value(const FieldDescriptor& field, const Json& json, std::string_view where, T& value) {
  if constexpr (OptionalOf<T>::kIs) {
    typename OptionalOf<T>::Value plain{};
    if (is_json_null(json)) return value.reset();
    set_value(field, json, where, plain);
    value = std::move(plain);
  } else if constexpr (std::is_enum_v<T>) {
    value = static_cast<T>(enum_from_json(field, json, where));
  } else {
    from_json_value(json, where, value);
  }
}

template <class Member>
struct MemberOf;
template <class Object_, class Value_>
struct MemberOf<Value_ Object_::*> {
  using Object = Object_;
  using Value = Value_;
};

}  // namespace detail

template <auto kMember>
struct AccessOf {
  using Object = typename detail::MemberOf<decltype(kMember)>::Object;
  using Value = typename detail::MemberOf<decltype(kMember)>::Value;
  static void get(const void* object, const FieldDescriptor& field, Json& out) {
    detail::get_value(field, static_cast<const Object*>(object)->*kMember, out);
  }
  static void set(void* object, const FieldDescriptor& field, const Json& value, std::string_view where) {
    detail::set_value(field, value, where, static_cast<Object*>(object)->*kMember);
  }
  static constexpr FieldAccess kAccess = {detail::value_type_of<typename detail::OptionalOf<Value>::Value>(),
                                          detail::OptionalOf<Value>::kIs, &get, &set};
};

template <class T>
constexpr OptionsType options_type() {
  return {&typeid(T), [] { return std::static_pointer_cast<void>(std::make_shared<T>()); }};
}

}  // namespace pmetal::jobs

#define PMETAL_FIELD(member) .name = #member, .access = &::pmetal::jobs::AccessOf<&Options::member>::kAccess
