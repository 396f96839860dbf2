#include "text/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "text/tokenizer/unicode.h"

namespace pmetal::text {

namespace {

// Backtracking steps of one search. The patterns in use need a few per character; a hostile one gives up in seconds.
constexpr uint32_t kMatchLimit = 20'000'000;
// Stack of compiled code: grows only for groups repeated over long texts.
constexpr size_t kJitStackStart = 64 << 10, kJitStackLimit = 64 << 20;

struct MatchScratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackLimit, nullptr);
  MatchScratch() {
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchScratch() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

MatchScratch& scratch() {
  thread_local MatchScratch s;
  return s;
}

std::string message_of(int code) {
  unsigned char text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(const std::string& pattern, const std::string& where)
    : pattern_(pattern), where_(where), code_(std::make_unique<Code>()) {
  const std::string translated = translate_regex(pattern, where);
  std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  size_t offset = 0;
  code_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get());
  if (!code_->code)
    fail(ErrorCode::kInvalidInput, "{}: the regular expression \"{}\" does not compile: {}", where, pattern,
         message_of(error));
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);  // without it the interpreter runs
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

bool Regex::find(std::string_view text, size_t from, size_t& begin, size_t& end) const {
  MatchScratch& s = scratch();
  const int rc = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                             PCRE2_NO_UTF_CHECK, s.data, s.context);
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  if (rc < 0)
    fail(ErrorCode::kInvalidInput, "{}: the regular expression \"{}\" gave up on a text of {} bytes: {}", where_,
         pattern_, text.size(), message_of(rc));
  const size_t* range = pcre2_get_ovector_pointer(s.data);
  begin = range[0];
  end = range[1];
  return begin <= end;
}

void Regex::for_each(std::string_view text, FunctionRef<void(size_t, size_t)> found) const {
  size_t from = 0, begin = 0, end = 0, last_end = text.size() + 1;
  while (from <= text.size() && find(text, from, begin, end)) {
    if (begin == end && end == last_end) {
      from += from < text.size() ? utf8_length(static_cast<unsigned char>(text[from])) : 1;
      continue;
    }
    found(begin, end);
    from = last_end = end;
  }
}

}  // namespace pmetal::text
