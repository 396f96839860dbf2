#include "text/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "base/error.h"
#include "text/tokenizer/unicode.h"
#include "text/tokenizer/unicode_updates.h"

namespace pmetal::text {

namespace {

// Backtracking steps of one search. The patterns in use need a few per character; a hostile one gives up in seconds.
constexpr uint32_t kMatchLimit = 20'000'000;
// Stack of compiled code: grows only for groups repeated over long texts.
constexpr size_t kJitStackStart = 64 << 10, kJitStackLimit = 64 << 20;
constexpr size_t kMaxPatternLength = 64 << 10;
constexpr int kMaxClassDepth = 16;

constexpr std::string_view kSpaceItems =
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
constexpr std::string_view kNotSpaceItems =
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}";
// Oniguruma's word characters: Alphabetic, M, Nd, Pc; outside of classes the numbers of Latin-1 as well
constexpr std::string_view kLatinNumbers = "\\xb2\\xb3\\xb9\\xbc-\\xbe";
constexpr std::string_view kHanUpdates = "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}";  // since Unicode 15
constexpr std::string_view kWordItems =
    "\\p{L}\\p{Nl}\\p{M}\\p{Nd}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}";

// class items for the characters of a general category (or of all with that first letter) that PCRE2 does not know yet
std::string newer_items(std::string_view category) {
  std::string items;
  for (const CategoryUpdate& u : kRegexUpdates)
    if (std::string_view(u.category).starts_with(category)) {
      items += fmt::format("\\x{{{:x}}}", u.first);
      if (u.last > u.first) items += fmt::format("-\\x{{{:x}}}", u.last);
    }
  return items;
}

class Translator {
 public:
  Translator(std::string_view in, const std::string& where) : in_(in), where_(where) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        escape(out_, false);
      } else if (c == '[') {
        out_ += char_class(0);
      } else if (c == '(' && in_.substr(at_, 2) == "(?") {
        group_options();
      } else {
        out_ += c;
        ++at_;
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void unsupported(std::string_view what) const {
    fail(ErrorCode::kUnsupported, "{}: {} in the regular expression \"{}\" is not supported", where_, what, in_);
  }

  // an escape at at_, outside or inside a class
  void escape(std::string& out, bool in_class) {
    if (at_ + 1 >= in_.size()) unsupported("a backslash at the end");
    const char c = in_[at_ + 1];
    const auto item = [&](std::string_view items, bool negated) {
      at_ += 2;
      if (in_class && negated) unsupported("a negated shorthand inside a class");
      if (in_class)
        out += items;
      else
        out.append(negated ? "[^" : "[").append(items).append("]");
    };
    switch (c) {
      case 's': return item(kSpaceItems, false);
      case 'S':
        if (!in_class) return item(kSpaceItems, true);
        return item(kNotSpaceItems, false);
      case 'w':
      case 'W':
        return item(std::string(kWordItems) + newer_items("L") + newer_items("M") + newer_items("Nd") +
                        std::string(in_class ? "" : kLatinNumbers),
                    c == 'W');
      case 'h': return item("0-9a-fA-F", false);
      case 'H': return item("0-9a-fA-F", true);
      case 'd':
      case 'D': at_ += 2; return category(out, "Nd", c == 'D', in_class);
      case 'p':
      case 'P': return property(out, in_class);
      default:
        out += '\\';
        out += c;
        at_ += 2;
    }
  }

  // A negated category inside a class stays with PCRE2's data: what is newer cannot be taken out of it there.
  static void category(std::string& out, const std::string& name, bool negated, bool in_class) {
    const std::string newer = name == "sc:Han"              ? std::string(kHanUpdates)
                              : name == "C" || name == "Cn" ? ""
                                                            : newer_items(name);
    if (newer.empty() || (in_class && negated))
      out += (negated ? "\\P{" : "\\p{") + name + "}";
    else if (in_class)
      out += "\\p{" + name + "}" + newer;
    else
      out += (negated ? "[^\\p{" : "[\\p{") + name + "}" + newer + "]";
  }

  void property(std::string& out, bool in_class) {
    const size_t close = in_.find('}', at_);
    if (in_.substr(at_ + 2, 1) != "{" || close == std::string_view::npos) unsupported("\\p without {name}");
    std::string name(in_.substr(at_ + 3, close - at_ - 3));
    bool negated = in_[at_ + 1] == 'P';
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.erase(0, 1);
    }
    static constexpr std::array<std::array<std::string_view, 2>, 12> kLongNames{{{"Letter", "L"},
                                                                                 {"Mark", "M"},
                                                                                 {"Number", "N"},
                                                                                 {"Punctuation", "P"},
                                                                                 {"Punct", "P"},
                                                                                 {"Symbol", "S"},
                                                                                 {"Separator", "Z"},
                                                                                 {"Other", "C"},
                                                                                 {"Uppercase_Letter", "Lu"},
                                                                                 {"Lowercase_Letter", "Ll"},
                                                                                 {"Alpha", "Alphabetic"},
                                                                                 {"Decimal_Number", "Nd"}}};
    for (const auto& [long_name, short_name] : kLongNames)
      if (name == long_name) name = short_name;
    static constexpr std::array<std::string_view, 8> kBinary{"Alphabetic", "Lowercase",   "Uppercase",   "White_Space",
                                                             "Emoji",      "Ideographic", "ID_Continue", "Any"};
    bool is_binary = false;
    for (auto b : kBinary) is_binary |= name == b;
    at_ = close + 1;
    if (name.size() <= 2) return category(out, name, negated, in_class);
    if (name == "Han") return category(out, "sc:Han", negated, in_class);
    if (!is_binary) name = "sc:" + name;  // PCRE2 would take script extensions
    out += negated ? "\\P{" : "\\p{";
    out += name + "}";
  }

  // "(?m" is Oniguruma's dot-matches-newline
  void group_options() {
    out_ += "(?";
    at_ += 2;
    size_t end = at_;
    while (end < in_.size() && (std::isalpha(static_cast<unsigned char>(in_[end])) || in_[end] == '-')) ++end;
    if (end < in_.size() && (in_[end] == ':' || in_[end] == ')'))
      for (; at_ < end; ++at_) out_ += in_[at_] == 'm' ? 's' : in_[at_];
  }

  // A class at at_ (on '['), with nested classes and && : intersections become look-aheads.
  std::string char_class(int depth) {
    if (depth > kMaxClassDepth) unsupported("a class nested too deeply");
    std::string items, conditions;
    const bool negated = parse_items(items, conditions, depth);
    std::string body = (negated ? "[^" : "[") + items + "]";
    if (conditions.empty()) return body;
    if (negated) unsupported("a negated intersection of classes");
    return "(?:" + conditions + body + ")";
  }

  bool parse_items(std::string& items, std::string& conditions, int depth) {
    ++at_;
    bool negated = false;
    if (at_ < in_.size() && in_[at_] == '^') {
      negated = true;
      ++at_;
    }
    for (bool first = true;; first = false) {
      if (at_ >= in_.size()) unsupported("a class without its end");
      const char c = in_[at_];
      if (c == ']' && !first) {
        ++at_;
        return negated;
      }
      if (c == '\\') {
        escape(items, true);
      } else if (c == '[' && in_.substr(at_, 2) == "[:") {
        const size_t close = in_.find(":]", at_);
        if (close == std::string_view::npos) unsupported("a class name without its end");
        items += in_.substr(at_, close + 2 - at_);
        at_ = close + 2;
      } else if (c == '[') {
        std::string inner, inner_conditions;
        if (parse_items(inner, inner_conditions, depth + 1) || !inner_conditions.empty())
          unsupported("a union with a negated class");
        items += inner;
      } else if (c == '&' && in_.substr(at_, 2) == "&&") {
        at_ += 2;
        if (in_.substr(at_, 1) != "[") unsupported("an intersection with anything but a bracketed class");
        conditions += "(?=" + char_class(depth + 1) + ")";
      } else {
        if (c == ']') items += '\\';
        items += c;
        ++at_;
      }
    }
  }

  std::string_view in_;
  const std::string& where_;
  size_t at_ = 0;
  std::string out_;
};

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

std::string translate_regex(std::string_view oniguruma, const std::string& where) {
  if (oniguruma.size() > kMaxPatternLength)
    fail(ErrorCode::kInvalidInput, "{}: a regular expression of {} bytes; at most {} are taken", where,
         oniguruma.size(), kMaxPatternLength);
  return Translator(oniguruma, where).run();
}

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
