// Regular expressions of tokenizer files. They are written for Oniguruma (regex_syntax.cc turns its dialect into
// PCRE2's), then PCRE2 compiles them to machine code. Matching is bounded: a
// pattern that backtracks without end is an error, not a hang.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/threads.h"

namespace pmetal::text {

class Regex {
 public:
  // `where` names the file and the component for error messages
  Regex(const std::string& pattern, const std::string& where);
  ~Regex();
  Regex(Regex&&) noexcept;

  const std::string& pattern() const { return pattern_; }
  // first match at or after `from`; the text is well-formed UTF-8
  bool find(std::string_view text, size_t from, size_t& begin, size_t& end) const;
  // all matches from left to right; an empty match directly behind a match does not count
  void for_each(std::string_view text, FunctionRef<void(size_t begin, size_t end)> found) const;

 private:
  struct Code;
  std::string pattern_, where_;
  std::unique_ptr<Code> code_;
};

// The same expression in PCRE2's dialect. Throws Error(kUnsupported) on what has no equal there.
std::string translate_regex(std::string_view oniguruma, const std::string& where);

}  // namespace pmetal::text
