// The Precompiled normalizer: SentencePiece's character map applied as the reference library does it, by grapheme. A
// grapheme of less than six bytes is looked up whole (its shortest prefix in the map decides), otherwise and where that
// finds nothing, character by character.
#include <utf8proc.h>

#include "text/tokenizer/charsmap.h"
#include "text/tokenizer/normalizers.h"

namespace pmetal::text {

namespace {

constexpr size_t kMaxGraphemeBytes = 5;

// Marks that Unicode 16 and 17 added and utf8proc does not know to be such: they break as any mark does. Found by
// asking the reference library about every code point of the first plane behind a character that the map replaces.
int32_t known_mark(uint32_t c) {
  constexpr uint32_t kAnyMark = 0x301;
  return static_cast<int32_t>(c == 0x897 || (c >= 0x1acf && c <= 0x1add) || (c >= 0x1ae0 && c <= 0x1aeb) ? kAnyMark
                                                                                                         : c);
}

// end of the extended grapheme cluster that starts at text[at]
size_t grapheme_end(std::string_view text, size_t at) {
  utf8proc_int32_t state = 0;
  uint32_t c = next_char(text, at);
  while (at < text.size()) {
    size_t after = at;
    const uint32_t next = next_char(text, after);
    if (utf8proc_grapheme_break_stateful(known_mark(c), known_mark(next), &state)) break;
    c = next;
    at = after;
  }
  return at;
}

class Precompiled final : public Normalizer {
 public:
  Precompiled(std::string_view charsmap, const std::string& where) : map_(charsmap, where) {}

  void apply(Normalized& text, Arena& arena) const override {
    if (!changes(text.text)) return;
    std::vector<Step> steps;
    steps.reserve(text.text.size());
    for_each_part(text.text, [&](std::string_view part, std::optional<Charsmap::Match> match) {
      if (match)
        replace(steps, part, match->replacement);
      else
        for (size_t at = 0; at < part.size();) steps.push_back({next_char(part, at), 0});
      return true;
    });
    Rewriter out(text, arena);
    for (const Step& step : steps) out.put(step.c, step.change);
    text = out.finish();
  }

 private:
  // f(part, match) for each part that is looked up on its own; stops when f returns false
  template <class F>
  void for_each_part(std::string_view text, F f) const {
    for (size_t at = 0; at < text.size();) {
      const size_t end = grapheme_end(text, at);
      const std::string_view grapheme = text.substr(at, end - at);
      at = end;
      if (grapheme.size() <= kMaxGraphemeBytes)
        if (const auto match = map_.shortest(grapheme)) {
          if (!f(grapheme, match)) return;
          continue;
        }
      for (size_t i = 0; i < grapheme.size();) {
        const size_t n = utf8_length(static_cast<unsigned char>(grapheme[i]));
        const std::string_view part = grapheme.substr(i, n);
        if (!f(part, map_.shortest(part))) return;
        i += n;
      }
    }
  }

  bool changes(std::string_view text) const {
    bool found = false;
    for_each_part(text, [&](std::string_view, const std::optional<Charsmap::Match>& match) {
      found = match.has_value();
      return !found;
    });
    return found;
  }

  struct Step {
    uint32_t c;
    int change;
  };
  // The last new characters are insertions where there are more than before; where there are fewer, the last character
  // so far takes the loss (none at the very start: so it is in the reference).
  static void replace(std::vector<Step>& steps, std::string_view from, std::string_view to) {
    for (size_t at = 0; at < to.size();) steps.push_back({next_char(to, at), 0});
    const int excess = static_cast<int>(count_chars(to)) - static_cast<int>(count_chars(from));
    for (int i = 0; i < excess; ++i) steps[steps.size() - 1 - i].change = 1;
    if (excess < 0 && !steps.empty()) steps.back().change += excess;
  }

  Charsmap map_;
};

}  // namespace

NormalizerPtr precompiled_normalizer(std::string charsmap, const std::string& where) {
  return std::make_unique<Precompiled>(charsmap, where);
}

}  // namespace pmetal::text
