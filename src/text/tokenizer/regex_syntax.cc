// Oniguruma's dialect (its Ruby syntax, Unicode 16) written in PCRE2's: what \s \w \d \h \b \v \uHHHH, [:names:] and
// \p{names} stand for, unions and intersections of classes, {n,m}+ (which is no possessive quantifier there), {,n} and
// (?m). Checked against the reference library by tools/oracle/tokenizers.
#include <array>
#include <cctype>
#include <optional>
#include <vector>

#include "base/error.h"
#include "text/tokenizer/regex.h"
#include "text/tokenizer/unicode_updates.h"

namespace pmetal::text {
namespace {

constexpr size_t kMaxPatternLength = 64 << 10;
constexpr int kMaxClassDepth = 16;

constexpr std::string_view kSpaceItems =
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
constexpr std::string_view kNotSpaceItems =
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}";
// Oniguruma's word characters: Alphabetic, M, Nd, Pc; outside of classes the numbers of Latin-1 as well
constexpr std::string_view kLatinNumbers = "\\xb2\\xb3\\xb9\\xbc-\\xbe";
constexpr std::string_view kWordItems =
    "\\p{L}\\p{Nl}\\p{M}\\p{Nd}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}";
// A character whose category Unicode 16 changed, against PCRE2's data: no longer Mn but Mc.
constexpr std::string_view kMovedToMc = "\\x{1171e}";

// what these properties hold beyond PCRE2's data and the newer characters of their categories
constexpr std::string_view kMoreAlphabetic =
    "\\x{363}-\\x{36f}\\x{897}\\x{c04}\\x{cf3}\\x{f82}-\\x{f83}\\x{1dd3}-\\x{1de6}\\x{10d69}\\x{10efc}\\x{11080}-\\x{"
    "11081}\\x{11241}\\x{113b8}-\\x{113c0}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113cd}\\x{11f00}-\\x{"
    "11f01}\\x{11f03}\\x{11f34}-\\x{11f3a}\\x{11f3e}-\\x{11f40}\\x{1611e}-\\x{1612e}\\x{1e08f}";
constexpr std::string_view kMoreLowercase = "\\x{10fc}\\x{a7f2}-\\x{a7f4}\\x{ab69}\\x{1e030}-\\x{1e06d}";
constexpr std::string_view kMoreEmoji =
    "\\x{1f6dc}\\x{1fa75}-\\x{1fa77}\\x{1fa87}-\\x{1fa89}\\x{1fa8f}\\x{1faad}-\\x{1faaf}\\x{1fabb}-\\x{1fabf}\\x{1fac6}"
    "\\x{1face}-\\x{1facf}\\x{1fada}-\\x{1fadc}\\x{1fadf}\\x{1fae8}-\\x{1fae9}\\x{1faf7}-\\x{1faf8}";
constexpr std::string_view kMoreIdeographic = "\\x{18cff}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}";

// what scripts have gained since PCRE2's Unicode 14
struct ScriptUpdate {
  std::string_view script, items;
};
constexpr ScriptUpdate kScriptUpdates[] = {
    {"Han", "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"},
    {"Cyrillic", "\\x{1c89}\\x{1c8a}\\x{1e030}-\\x{1e06d}\\x{1e08f}"},
    {"Latin", "\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{1df25}-\\x{1df2a}"},
    {"Arabic", "\\x{897}\\x{10ec2}-\\x{10ec4}\\x{10efc}-\\x{10eff}"},
    {"Devanagari", "\\x{11b00}-\\x{11b09}"},
    {"Hiragana", "\\x{1b132}"},
    {"Katakana", "\\x{1b155}"},
    {"Kannada", "\\x{cf3}"},
    {"Lao", "\\x{ece}"},
    {"Myanmar", "\\x{116d0}-\\x{116e3}"},
};

// class items for the characters of a general category (or of all with that first letter; "" = all) that PCRE2
// does not know yet
std::string newer_items(std::string_view category, std::string_view but = "-") {
  std::string items;
  for (const CategoryUpdate& u : kRegexUpdates) {
    const std::string_view is(u.category);
    if (!is.starts_with(category) || is.starts_with(but)) continue;
    items += fmt::format("\\x{{{:x}}}", u.first);
    if (u.last > u.first) items += fmt::format("-\\x{{{:x}}}", u.last);
  }
  return items;
}

// A set of characters: what can stand in one class of PCRE2's, and alternatives that cannot.
struct CharSet {
  std::string items = {};
  std::vector<std::string> others = {};

  void add(const CharSet& more) {
    items += more.items;
    others.insert(others.end(), more.others.begin(), more.others.end());
  }
  std::string text(bool negated) const {
    if (others.empty()) return (negated ? "[^" : "[") + items + "]";
    std::string any = items.empty() ? "" : "[" + items + "]";
    for (const std::string& other : others) any += (any.empty() ? "" : "|") + other;
    return negated ? "(?:(?!" + any + ")(?s:.))" : "(?:" + any + ")";
  }
};

std::string word_items() { return std::string(kWordItems) + newer_items("L") + newer_items("M") + newer_items("Nd"); }

CharSet category(const std::string& name) {
  const std::string known = "\\p{" + name + "}";
  if (name == "Mc") return {known + newer_items(name) + std::string(kMovedToMc)};
  if (name == "Mn") return {newer_items(name), {"(?!" + std::string(kMovedToMc) + ")" + known}};
  if (name == "Cn") return {newer_items(name), {"(?![" + newer_items("") + "])" + known}};
  if (name == "C") return {newer_items(name), {"(?![" + newer_items("", "C") + "])" + known}};
  return {known + newer_items(name)};
}

// sets that [:name:] and \p{Name} share
std::optional<CharSet> named(std::string_view name) {
  if (name == "alpha" || name == "alphabetic")
    return CharSet{"\\p{Alphabetic}" + newer_items("L") + std::string(kMoreAlphabetic)};
  if (name == "alnum")
    return CharSet{"\\p{Alphabetic}\\p{Nd}" + newer_items("L") + newer_items("Nd") + std::string(kMoreAlphabetic)};
  if (name == "lower" || name == "lowercase")
    return CharSet{"\\p{Lowercase}" + newer_items("Ll") + std::string(kMoreLowercase)};
  if (name == "upper" || name == "uppercase") return CharSet{"\\p{Uppercase}" + newer_items("Lu")};
  if (name == "digit") return category("Nd");
  if (name == "space" || name == "whitespace") return CharSet{std::string(kSpaceItems)};
  if (name == "word") return CharSet{word_items()};
  if (name == "blank") return CharSet{"\\p{Zs}\\x09"};
  if (name == "cntrl") return CharSet{"\\p{Cc}"};
  if (name == "xdigit") return CharSet{"0-9a-fA-F"};
  if (name == "ascii") return CharSet{"\\x00-\\x7f"};
  const std::string graph = "[^" + std::string(kSpaceItems) + "\\p{Cc}\\p{Cn}\\p{Cs}]";
  if (name == "graph") return CharSet{newer_items(""), {graph}};
  if (name == "print") return CharSet{newer_items("") + "\\p{Zs}", {graph}};
  return std::nullopt;
}

class Translator {
 public:
  Translator(std::string_view in, const std::string& where) : in_(in), where_(where) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '{') {
        interval();
      } else if (c == ')') {
        if (!groups_.empty()) {
          atom_ = groups_.back();
          groups_.pop_back();
        }
        take(1);
      } else if (c == '(') {
        groups_.push_back(out_.size());
        group();
      } else if (c == '*' || c == '+' || c == '?') {
        take(1);
      } else {
        if ((static_cast<unsigned char>(c) & 0xc0) != 0x80) atom_ = out_.size();  // a character is one atom
        if (c == '\\')
          escape();
        else if (c == '[')
          out_ += char_class(0).text(false);
        else
          take(1);
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void unsupported(std::string_view what) const {
    fail(ErrorCode::kUnsupported, "{}: {} in the regular expression \"{}\" is not supported", where_, what, in_);
  }

  void take(size_t n) {
    out_ += in_.substr(at_, n);
    at_ += n;
  }

  // {n}, {n,}, {n,m}, {,m}; a brace that begins none of them is a character
  void interval() {
    size_t end = at_ + 1;
    const auto digits = [&] {
      const size_t from = end;
      while (end < in_.size() && std::isdigit(static_cast<unsigned char>(in_[end]))) ++end;
      return in_.substr(from, end - from);
    };
    const std::string_view low = digits();
    const bool has_comma = in_.substr(end, 1) == ",";
    if (has_comma) ++end;
    const std::string_view high = has_comma ? digits() : "";
    if (in_.substr(end, 1) != "}" || (low.empty() && high.empty())) {
      atom_ = out_.size();
      out_ += "\\{";
      ++at_;
      return;
    }
    at_ = end + 1;
    const std::string braces = fmt::format("{{{}{}{}}}", low.empty() ? "0" : low, has_comma ? "," : "", high);
    // a further + or, behind {n}, ? repeats the whole
    const std::string_view next = in_.substr(at_, 1);
    if (next == "+" || (next == "?" && !has_comma)) {
      out_.insert(atom_, "(?:");
      out_ += braces + ")" + std::string(next);
      ++at_;
    } else {
      out_ += braces;
    }
  }

  // an escape outside of a class
  void escape() {
    if (std::optional<CharSet> set = shorthand(false)) {
      out_ += set->text(false);
      return;
    }
    const char c = in_[at_ + 1];
    if (c == 'b' || c == 'B') {
      at_ += 2;
      word_boundary(c == 'B');
    } else if (c == 'O') {
      at_ += 2;
      out_ += "(?s:.)";
    } else {
      plain_escape(out_, "aefnrtcxo01234567kgKGAzZXRN89");
    }
  }

  // by this dialect's word characters, which PCRE2's own \b does not know
  void word_boundary(bool negated) {
    const std::string word = "[" + word_items() + std::string(kLatinNumbers) + "]";
    const std::string before = "(?<=" + word + ")", not_before = "(?<!" + word + ")", behind = "(?=" + word + ")",
                      not_behind = "(?!" + word + ")";
    out_ += negated ? "(?:" + before + behind + "|" + not_before + not_behind + ")"
                    : "(?:" + not_before + behind + "|" + before + not_behind + ")";
  }

  // \uHHHH; letters that mean something in both dialects; other letters are themselves
  void plain_escape(std::string& out, std::string_view shared) {
    const char c = in_[at_ + 1];
    if (c == 'u') {
      const std::string_view digits = in_.substr(at_ + 2, 4);
      if (digits.size() < 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos)
        unsupported("\\u without four hexadecimal digits");
      out.append("\\x{").append(digits).append("}");
      at_ += 6;
      return;
    }
    at_ += 2;
    if (c == 'v') {
      out += "\\x0b";
    } else if (c == 'y' || c == 'Y') {
      unsupported("\\y, a border of text segments,");
    } else {
      if (!std::isalnum(static_cast<unsigned char>(c)) || shared.find(c) != std::string_view::npos) out += '\\';
      out += c;
    }
  }

  // the set that the escape at at_ stands for; nothing, and nothing read, where it stands for none
  std::optional<CharSet> shorthand(bool in_class) {
    if (at_ + 1 >= in_.size()) unsupported("a backslash at the end");
    const char c = in_[at_ + 1];
    const char kind = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    bool negated = kind != c;
    CharSet set;
    switch (kind) {
      case 's': at_ += 2; return CharSet{std::string(negated ? kNotSpaceItems : kSpaceItems)};
      case 'w': set.items = word_items() + std::string(in_class ? "" : kLatinNumbers); break;
      case 'h': set.items = "0-9a-fA-F"; break;
      case 'd': set = category("Nd"); break;
      case 'p': set = property(negated); break;
      default: return std::nullopt;
    }
    if (kind != 'p') at_ += 2;
    if (!negated) return set;
    return CharSet{"", {set.text(true)}};
  }

  // \p{Name} at at_; `negated` is turned by a ^
  CharSet property(bool& negated) {
    const size_t close = in_.find('}', at_);
    if (in_.substr(at_ + 2, 1) != "{" || close == std::string_view::npos) unsupported("\\p without {name}");
    std::string name(in_.substr(at_ + 3, close - at_ - 3));
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.erase(0, 1);
    }
    at_ = close + 1;
    std::string folded;  // as names are compared
    for (const char c : name)
      if (c != ' ' && c != '_' && c != '-') folded += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    static constexpr std::array<std::array<std::string_view, 2>, 37> kCategories{{{"letter", "L"},
                                                                                  {"mark", "M"},
                                                                                  {"number", "N"},
                                                                                  {"punctuation", "P"},
                                                                                  {"punct", "P"},
                                                                                  {"symbol", "S"},
                                                                                  {"separator", "Z"},
                                                                                  {"other", "C"},
                                                                                  {"uppercaseletter", "Lu"},
                                                                                  {"lowercaseletter", "Ll"},
                                                                                  {"titlecaseletter", "Lt"},
                                                                                  {"modifierletter", "Lm"},
                                                                                  {"otherletter", "Lo"},
                                                                                  {"nonspacingmark", "Mn"},
                                                                                  {"spacingmark", "Mc"},
                                                                                  {"enclosingmark", "Me"},
                                                                                  {"decimalnumber", "Nd"},
                                                                                  {"letternumber", "Nl"},
                                                                                  {"othernumber", "No"},
                                                                                  {"connectorpunctuation", "Pc"},
                                                                                  {"dashpunctuation", "Pd"},
                                                                                  {"openpunctuation", "Ps"},
                                                                                  {"closepunctuation", "Pe"},
                                                                                  {"initialpunctuation", "Pi"},
                                                                                  {"finalpunctuation", "Pf"},
                                                                                  {"otherpunctuation", "Po"},
                                                                                  {"mathsymbol", "Sm"},
                                                                                  {"currencysymbol", "Sc"},
                                                                                  {"modifiersymbol", "Sk"},
                                                                                  {"othersymbol", "So"},
                                                                                  {"spaceseparator", "Zs"},
                                                                                  {"lineseparator", "Zl"},
                                                                                  {"paragraphseparator", "Zp"},
                                                                                  {"control", "Cc"},
                                                                                  {"format", "Cf"},
                                                                                  {"privateuse", "Co"},
                                                                                  {"unassigned", "Cn"}}};
    for (const auto& [long_name, short_name] : kCategories)
      if (folded == long_name) return category(std::string(short_name));
    if (folded.size() == 1 || (folded.size() == 2 && folded != "yi")) {
      folded[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(folded[0])));
      return category(folded);
    }
    if (folded == "word") return {word_items() + std::string(kLatinNumbers)};
    if (std::optional<CharSet> set = named(folded)) return *set;
    if (name == "Emoji") return {"\\p{Emoji}" + std::string(kMoreEmoji)};
    if (name == "Ideographic") return {"\\p{Ideographic}" + std::string(kMoreIdeographic)};
    if (name == "ID_Continue" || name == "Any") return {"\\p{" + name + "}"};
    CharSet set{"\\p{sc:" + name + "}"};  // PCRE2 would take script extensions
    for (const ScriptUpdate& update : kScriptUpdates)
      if (name == update.script) set.items += update.items;
    return set;
  }

  // "(?m" is Oniguruma's dot-matches-newline
  void group() {
    if (in_.substr(at_, 3) == "(?~") unsupported("the absent operator (?~)");
    if (in_.substr(at_, 2) != "(?") return take(1);
    if (in_.substr(at_, 3) == "(?#") {  // a comment is no group
      const size_t close = in_.find(')', at_);
      if (close == std::string_view::npos) unsupported("a comment without its end");
      groups_.pop_back();
      at_ = close + 1;
      return;
    }
    take(2);
    size_t end = at_;
    while (end < in_.size() && (std::isalpha(static_cast<unsigned char>(in_[end])) || in_[end] == '-')) ++end;
    if (end < in_.size() && (in_[end] == ':' || in_[end] == ')'))
      for (; at_ < end; ++at_) out_ += in_[at_] == 'm' ? 's' : in_[at_];
  }

  // [:name:] or [:^name:] at at_
  CharSet posix_class() {
    const size_t close = in_.find(":]", at_);
    if (close == std::string_view::npos) unsupported("a class name without its end");
    std::string_view name = in_.substr(at_ + 2, close - at_ - 2);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    std::optional<CharSet> set =
        name == "punct" ? CharSet{"\\p{P}\\p{S}" + newer_items("P") + newer_items("S")} : named(name);
    if (!set) unsupported("[:" + std::string(name) + ":]");
    at_ = close + 2;
    return negated ? CharSet{"", {set->text(true)}} : *set;
  }

  // A class at at_ (on '['), with classes in it and && between its operands: intersections become look-aheads.
  CharSet char_class(int depth) {
    if (depth > kMaxClassDepth) unsupported("a class nested too deeply");
    ++at_;
    const bool negated = in_.substr(at_, 1) == "^";
    if (negated) ++at_;
    std::string ahead;  // look-aheads of the operands that are complete
    CharSet set;
    for (bool first = true;; first = false) {
      if (at_ >= in_.size()) unsupported("a class without its end");
      const char c = in_[at_];
      if (c == ']' && !first) break;
      if (c == '\\') {
        if (std::optional<CharSet> items = shorthand(true))
          set.add(*items);
        else
          plain_escape(set.items, "aefnrtcx01234567b");
      } else if (c == '[') {
        set.add(in_.substr(at_, 2) == "[:" ? posix_class() : char_class(depth + 1));
      } else if (c == '&' && in_.substr(at_, 2) == "&&") {
        if (set.items.empty() && set.others.empty()) unsupported("&& without a left side");
        ahead += "(?=" + set.text(false) + ")";
        set = {};
        at_ += 2;
      } else {
        if (c == ']' || c == '^') set.items += '\\';
        set.items += c;
        ++at_;
      }
    }
    ++at_;
    if (set.items.empty() && set.others.empty()) unsupported("an empty operand of a class");
    if (!ahead.empty()) set = CharSet{"", {ahead + set.text(false)}};
    return negated ? CharSet{"", {set.text(true)}} : set;
  }

  std::string_view in_;
  const std::string& where_;
  size_t at_ = 0;
  size_t atom_ = 0;             // where in out_ what a quantifier would repeat begins
  std::vector<size_t> groups_;  // where in out_ the open groups begin
  std::string out_;
};

}  // namespace

std::string translate_regex(std::string_view oniguruma, const std::string& where) {
  if (oniguruma.size() > kMaxPatternLength)
    fail(ErrorCode::kInvalidInput, "{}: a regular expression of {} bytes; at most {} are taken", where,
         oniguruma.size(), kMaxPatternLength);
  return Translator(oniguruma, where).run();
}

}  // namespace pmetal::text
