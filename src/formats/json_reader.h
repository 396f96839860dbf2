// Typed access to the fields of one JSON object, with messages that name file and field:
//   config.json: field "rope_parameters.factor": expected a number, got string "abc"
// A field that is null counts as absent, as in Hugging Face configs. The reader remembers which fields were asked for:
// what nobody asked for is in unread(), so that a caller can refuse keys that might change numbers.
// The JSON value must outlive the reader. Copies and nested readers are cheap.
// Errors: Error(kInvalidInput).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace pmetal::formats {

class JsonReader {
 public:
  // `source` is the file name for messages; fails when `value` is not an object
  JsonReader(const nlohmann::ordered_json& value, std::string source);

  bool has(std::string_view key) const;        // present and not null
  bool is_object(std::string_view key) const;  // likewise for one type: fields that come in two forms
  bool is_array(std::string_view key) const;
  bool is_string(std::string_view key) const;
  bool is_number(std::string_view key) const;
  bool is_bool(std::string_view key) const;

  // Required: an absent field is an error. An integer may be written 64 or 64.0; a number also as an integer.
  int64_t integer(std::string_view key) const;
  int64_t integer(std::string_view key, int64_t smallest, int64_t largest) const;  // both ends allowed
  double number(std::string_view key) const;
  bool boolean(std::string_view key) const;
  std::string string(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;
  std::vector<std::string> strings(std::string_view key) const;
  std::vector<bool> booleans(std::string_view key) const;
  JsonReader object(std::string_view key) const;
  std::vector<JsonReader> objects(std::string_view key) const;

  // Optional: absent or null gives the fallback; a wrong type is still an error.
  int64_t integer_or(std::string_view key, int64_t fallback) const { return has(key) ? integer(key) : fallback; }
  double number_or(std::string_view key, double fallback) const { return has(key) ? number(key) : fallback; }
  bool boolean_or(std::string_view key, bool fallback) const { return has(key) ? boolean(key) : fallback; }
  std::string string_or(std::string_view key, std::string fallback) const {
    return has(key) ? string(key) : std::move(fallback);
  }
  std::optional<int64_t> maybe_integer(std::string_view key) const;
  std::optional<double> maybe_number(std::string_view key) const;
  std::optional<std::string> maybe_string(std::string_view key) const;
  std::optional<JsonReader> maybe_object(std::string_view key) const;

  std::vector<std::string> keys() const;    // in file order, null ones too
  std::vector<std::string> unread() const;  // top-level fields of this object nobody asked for, in file order
  const nlohmann::ordered_json& raw() const { return *value_; }
  const nlohmann::ordered_json& raw(std::string_view key) const;  // required
  // throws "<source>: field "<key>": <message>": for checks of the caller's own
  [[noreturn]] void refuse(std::string_view key, std::string_view message) const;

 private:
  struct Shared {
    std::string source;
  };
  JsonReader(const nlohmann::ordered_json& value, std::shared_ptr<const Shared> shared, std::string prefix);
  const nlohmann::ordered_json* find(std::string_view key) const;
  const nlohmann::ordered_json& require(std::string_view key, std::string_view expected) const;
  const nlohmann::ordered_json& require_array(std::string_view key, std::string_view expected) const;
  [[noreturn]] void wrong_type(std::string_view key, std::string_view expected,
                               const nlohmann::ordered_json& got) const;

  const nlohmann::ordered_json* value_;
  std::shared_ptr<const Shared> shared_;
  std::string prefix_;  // "rope_parameters." inside a nested object
  std::shared_ptr<std::set<std::string, std::less<>>> read_;
};

}  // namespace pmetal::formats
