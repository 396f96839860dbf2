// Random options for tests that run over every command. Not used by the product.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "base/rng.h"
#include "jobs/spec.h"

namespace pmetal::jobs::testing_support {

class RandomOptions {
 public:
  explicit RandomOptions(uint64_t seed) : random_(seed, RngPurpose::kSynthetic) {}

  // about half of the fields get a random value of their type within their bounds
  JobOptions make(const JobSpec& spec) {
    JobOptions options(spec);
    for (size_t i = 0; i < spec.fields.size(); ++i)
      if (random_.below(2) == 0) options.set_text(i, word(spec.fields[i]), spec.fields[i].name);
    return options;
  }

 private:
  // texts that a quoting mistake would change
  std::string text() {
    static const char* const kPieces[] = {"a",    "Q",  "7",    ",",  "=",  "[",    "]",  "{",    "}",    "\"", "'",
                                          "\\",   "\n", "\t",   ":",  "#",  "- ",   "--", "null", "~",    "é",  "漢",
                                          "true", "on", "1.10", "&x", "*x", "!tag", "|",  "%",    "\x01", " ",  "😀"};
    std::string out;
    for (uint64_t n = random_.below(6); n > 0; --n) out += kPieces[random_.below(std::size(kPieces))];
    return out;
  }
  static std::string json_quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\')
        out += '\\', out += c;
      else if (static_cast<unsigned char>(c) < 0x20)
        out += fmt::format("\\u{:04x}", static_cast<int>(c));
      else
        out += c;
    }
    return out + "\"";
  }
  double number(const FieldDescriptor& field) {
    const double low = std::isfinite(field.min) ? field.min : -1e6, high = std::isfinite(field.max) ? field.max : 1e6;
    return std::clamp(low + random_.uniform() * (high - low), low, high);
  }
  int64_t integer(const FieldDescriptor& field) {
    const double low = std::isfinite(field.min) ? field.min : -1e15, high = std::isfinite(field.max) ? field.max : 1e15;
    return static_cast<int64_t>(low) + static_cast<int64_t>(random_.below(static_cast<uint64_t>(high - low) + 1));
  }
  std::string word(const FieldDescriptor& field) {
    std::string list;
    const auto fill = [&](auto&& entry) {
      for (uint64_t n = random_.below(4); n > 0; --n) list += (list.empty() ? "" : ",") + entry();
    };
    const auto unique_name = [&] { return json_quoted(text() + std::to_string(list.size())) + ":"; };
    switch (field.access->type) {
      case ValueType::kText: return text();
      case ValueType::kInteger: return std::to_string(integer(field));
      case ValueType::kUnsigned: return std::to_string(uint64_t{random_.next_u32()} << 32 | random_.next_u32());
      case ValueType::kNumber: return fmt::format("{}", number(field));
      case ValueType::kToggle: return random_.below(2) == 0 ? "true" : "false";
      case ValueType::kEnum: return std::string(field.options[random_.below(field.options.size())].name);
      case ValueType::kTextList: fill([&] { return json_quoted(text()); }); return "[" + list + "]";
      case ValueType::kIntegerList: fill([&] { return std::to_string(integer(field)); }); return "[" + list + "]";
      case ValueType::kIntegerMap:
        fill([&] { return unique_name() + std::to_string(integer(field)); });
        return "{" + list + "}";
      case ValueType::kNumberMap:
        fill([&] { return unique_name() + fmt::format("{}", number(field)); });
        return "{" + list + "}";
    }
    return {};
  }

  PhiloxStream random_;
};

}  // namespace pmetal::jobs::testing_support
