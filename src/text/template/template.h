// Chat templates: a Jinja interpreter equal to python3-jinja2's immutable sandbox as transformers sets it up
// (trim_blocks, lstrip_blocks, break and continue, tojson without HTML escapes, raise_exception, strftime_now and
// {% generation %}). Parsed once, rendered any number of times from any thread.
//
// Templates come with models, so they are untrusted: nothing outside the given values can be reached, values cannot be
// changed, and work, memory, output and recursion have budgets.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/template/value.h"

namespace pmetal::text::jinja {

struct ParsedTemplate;

// wall-clock time without a zone, as Python's datetime.now()
struct DateTime {
  int year = 1970, month = 1, day = 1, hour = 0, minute = 0, second = 0, microsecond = 0;
  static DateTime now();  // local time
  // "2026-03-04", "2026-03-04T05:06:07", "2026-03-04 05:06:07.250000"; throws on anything else
  static DateTime parse(std::string_view text);
  // strftime in the C locale; %f is the microsecond, %z and %Z are empty
  std::string format(std::string_view format) const;
};

struct Limits {
  int64_t steps = 50'000'000;         // nodes evaluated and elements touched: some seconds
  int64_t output_bytes = 64 << 20;    // a context of a million tokens is about 5 MB
  int64_t scratch_bytes = 2LL << 30;  // of all strings built on the way, not at once
  int64_t range = 100'000;            // elements of range(), as in the reference
  int macro_depth = 150;
  int64_t stack_bytes = 2 << 20;
};

struct RenderOptions {
  DateTime now = {};
  Limits limits = {};
};

struct Span {
  size_t begin = 0, end = 0;  // bytes of the rendered text
  bool operator==(const Span&) const = default;
};

struct Rendered {
  std::string text;
  std::vector<Span> generation;  // what {% generation %} blocks wrote, in order
};

// What went wrong in a template: what() names the template and the line, cause() is the bare message, which is that of
// the reference.
class TemplateError : public Error {
 public:
  TemplateError(ErrorCode code, const std::string& name, int line, const std::string& cause)
      : Error(code, name + (name.empty() ? "" : ": ") + "line " + std::to_string(line) + ": " + cause),
        line_(line),
        cause_(cause) {}
  int line() const { return line_; }
  const std::string& cause() const { return cause_; }

 private:
  int line_;
  std::string cause_;
};

class Template {
 public:
  // throws TemplateError(kInvalidInput) naming `name` and the line
  static Template parse(std::string_view source, std::string name = "chat template");

  // `context` is a dict: the variables the template sees. Throws as above, also for raise_exception().
  Rendered render(const Value& context, const RenderOptions& options) const;

  bool has_generation() const;
  const std::string& name() const { return name_; }

 private:
  Template(std::shared_ptr<const ParsedTemplate> parsed, std::string name)
      : parsed_(std::move(parsed)), name_(std::move(name)) {}
  std::shared_ptr<const ParsedTemplate> parsed_;
  std::string name_;
};

}  // namespace pmetal::text::jinja
