// The JSON grammar of RFC 8259 as a stream of events, plus what Python's json module writes beyond it: the bare
// tokens NaN, Infinity and -Infinity, which published Hugging Face configs contain. One pass over the text, no memory
// beyond the current string; json.h builds values from it, safetensors.cc reads its header with it.
// Errors: Error(kInvalidInput) "<source>:<line>:<column>: what was expected, what was found".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pmetal::formats {

struct JsonLimits {
  // Configs are kilobytes, the index of the largest published model is 10 MB. A value takes 16 bytes and up for each
  // two bytes of hostile text, so 64 MiB keeps the worst case near a gigabyte. Bulk data goes through simdjson.
  size_t max_bytes = size_t{64} << 20;
  // Parsing recurses; 512 levels need under 200 kB of stack. Real files stay below 20.
  int max_depth = 512;
  bool allow_nonfinite = true;  // NaN, Infinity, -Infinity
};

// What the parser calls, in the order of the text. A handler may throw.
class JsonEvents {
 public:
  virtual ~JsonEvents() = default;
  virtual void on_null() = 0;
  virtual void on_bool(bool value) = 0;
  virtual void on_integer(int64_t value) = 0;    // negative integers
  virtual void on_unsigned(uint64_t value) = 0;  // integers from 0 on
  virtual void on_number(double value) = 0;      // has '.', an exponent, or more than 64 bits; or is not finite
  virtual void on_string(std::string value) = 0;
  virtual void on_key(std::string key) = 0;
  virtual void on_begin_object() = 0;
  virtual void on_end_object() = 0;
  virtual void on_begin_array() = 0;
  virtual void on_end_array() = 0;
};

// `source` is the file name used in messages. One value, white space around it, nothing after it.
void parse_json_events(std::string_view text, const std::string& source, const JsonLimits& limits, JsonEvents& events);

// Length of the valid UTF-8 sequence at the start of `text` (1 to 4), 0 when there is none (Unicode table 3-7).
size_t utf8_sequence_length(std::string_view text);

}  // namespace pmetal::formats
