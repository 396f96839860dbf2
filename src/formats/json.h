// JSON files of other people: configs, indexes, tokenizer settings. Values are nlohmann::ordered_json (keys keep the
// order of the file); a .cc that looks inside includes <nlohmann/json.hpp>, headers only json_fwd.hpp.
// Accepts what Python's json module accepts: NaN, Infinity and -Infinity become doubles; of a key that occurs twice
// the last value counts, unless the caller asks for an error. Typed access with good messages: json_reader.h.
// Errors: Error(kInvalidInput) "<source>:<line>:<column>: …", read_json also those of read_text.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "formats/json_events.h"

namespace pmetal::formats {

struct JsonOptions {
  JsonLimits limits;
  bool refuse_duplicate_keys = false;
};

nlohmann::ordered_json parse_json(std::string_view text, const std::string& source, const JsonOptions& options = {});
nlohmann::ordered_json read_json(const std::filesystem::path& path, const JsonOptions& options = {});

// How a number that is not finite is written: as Python does (a config that goes back to Hugging Face tools), or as
// null (a reader that takes strict JSON only).
enum class NonFinite { kPythonTokens, kNull };
// indent < 0: one line, else that many spaces a level, laid out as Python's json.dumps(indent=n) does. Invalid UTF-8
// is written as U+FFFD. Doubles are the shortest text that reads back to the same bits. No newline at the end.
std::string dump_json(const nlohmann::ordered_json& value, int indent = 2,
                      NonFinite non_finite = NonFinite::kPythonTokens);

}  // namespace pmetal::formats
