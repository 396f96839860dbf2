#include "text/tokenizer/normalizers.h"

#include <algorithm>

#include "text/tokenizer/regex.h"

namespace pmetal::text {

namespace {

// Applies keep(c): characters for which it is false are dropped, the others pass.
template <class Keep>
void filter(Normalized& text, Arena& arena, Keep keep) {
  bool drops = false;
  for (size_t at = 0; at < text.text.size() && !drops;) drops = !keep(next_char(text.text, at));
  if (!drops) return;
  Rewriter out(text, arena);
  // a kept character carries the count of those dropped behind it; those before the first are dropped up front
  bool has_kept = false;
  uint32_t kept = 0;
  int dropped = 0;
  for (size_t at = 0; at < text.text.size();) {
    const uint32_t c = next_char(text.text, at);
    if (!keep(c)) {
      ++dropped;
      continue;
    }
    if (has_kept)
      out.put(kept, -dropped);
    else
      out.drop(dropped);
    has_kept = true;
    kept = c;
    dropped = 0;
  }
  if (has_kept) out.put(kept, -dropped);
  text = out.finish();
}

template <class Map>
void map_chars(Normalized& text, Arena& arena, Map map) {
  bool changes = false;
  for (size_t at = 0; at < text.text.size() && !changes;) {
    const uint32_t c = next_char(text.text, at);
    changes = map(c) != c;
  }
  if (!changes) return;
  Rewriter out(text, arena);
  for (size_t at = 0; at < text.text.size();) out.put(map(next_char(text.text, at)), 0);
  text = out.finish();
}

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<NormalizerPtr> parts) : parts_(std::move(parts)) {}
  void apply(Normalized& text, Arena& arena) const override {
    for (const auto& part : parts_) part->apply(text, arena);
  }

 private:
  std::vector<NormalizerPtr> parts_;
};

void lower(Normalized& text, Arena& arena) {
  bool changes = false;
  uint32_t mapped[3];
  for (size_t at = 0; at < text.text.size() && !changes;) {
    const uint32_t c = next_char(text.text, at);
    changes = c < 0x80 ? c >= 'A' && c <= 'Z' : lowercase(c, mapped) != 1 || mapped[0] != c;
  }
  if (!changes) return;
  Rewriter out(text, arena);
  for (size_t at = 0; at < text.text.size();) {
    const int n = lowercase(next_char(text.text, at), mapped);
    for (int i = 0; i < n; ++i) out.put(mapped[i], i > 0);
  }
  text = out.finish();
}

class Lowercase final : public Normalizer {
  void apply(Normalized& text, Arena& arena) const override { lower(text, arena); }
};

class StripAccents final : public Normalizer {
  void apply(Normalized& text, Arena& arena) const override {
    const CharClasses classes;
    filter(text, arena, [&](uint32_t c) { return !(classes(c) & kAccent); });
  }
};

bool is_chinese(uint32_t c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
         (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

class Bert final : public Normalizer {
 public:
  Bert(bool clean, bool chinese, bool accents, bool lowercase)
      : clean_(clean), chinese_(chinese), accents_(accents), lowercase_(lowercase) {
    nfd_ = unicode_normalizer(UnicodeForm::kNfd);
  }
  void apply(Normalized& text, Arena& arena) const override {
    const CharClasses classes;
    if (clean_) {
      filter(text, arena, [&](uint32_t c) {
        if (c == '\t' || c == '\n' || c == '\r') return true;
        return c != 0 && c != 0xfffd && !(classes(c) & kOther);
      });
      map_chars(text, arena, [&](uint32_t c) { return classes(c) & kSpace ? uint32_t{' '} : c; });
    }
    if (chinese_) surround_chinese(text, arena);
    if (accents_) {
      nfd_->apply(text, arena);
      filter(text, arena, [&](uint32_t c) { return !(classes(c) & kNonspacing); });
    }
    if (lowercase_) lower(text, arena);
  }

 private:
  static void surround_chinese(Normalized& text, Arena& arena) {
    bool found = false;
    for (size_t at = 0; at < text.text.size() && !found;) found = is_chinese(next_char(text.text, at));
    if (!found) return;
    Rewriter out(text, arena);
    for (size_t at = 0; at < text.text.size();) {
      const uint32_t c = next_char(text.text, at);
      if (is_chinese(c)) {
        out.put(' ', 0);
        out.put(c, 1);
        out.put(' ', 1);
      } else {
        out.put(c, 0);
      }
    }
    text = out.finish();
  }
  bool clean_, chinese_, accents_, lowercase_;
  NormalizerPtr nfd_;
};

class Replace final : public Normalizer {
 public:
  Replace(const std::string& pattern, bool is_regex, std::string content, const std::string& where)
      : content_(std::move(content)) {
    if (is_regex)
      regex_ = std::make_unique<Regex>(pattern, where);
    else
      literal_ = pattern;
  }
  void apply(Normalized& text, Arena& arena) const override {
    if (regex_) {
      std::vector<Range> found;
      regex_->for_each(text.text, [&](size_t begin, size_t end) {
        found.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
      });
      if (found.empty()) return;
      Rewriter out(text, arena);
      for (const Range& r : found) replace(out, text, r.begin, r.end);
      out.copy_until(text.text.size());
      text = out.finish();
      return;
    }
    if (literal_.empty()) return;
    size_t at = text.text.find(literal_);
    if (at == std::string_view::npos) return;
    Rewriter out(text, arena);
    for (; at != std::string_view::npos; at = text.text.find(literal_, at + literal_.size()))
      replace(out, text, at, at + literal_.size());
    out.copy_until(text.text.size());
    text = out.finish();
  }

 private:
  // the new characters are insertions behind the replaced ones
  void replace(Rewriter& out, const Normalized& text, size_t begin, size_t end) const {
    out.copy_until(begin);
    out.drop(count_chars(text.text.substr(begin, end - begin)));
    for (size_t at = 0; at < content_.size();) out.put(next_char(content_, at), 1);
  }
  std::unique_ptr<Regex> regex_;
  std::string literal_, content_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(Normalized& text, Arena& arena) const override {
    if (!text.empty()) prepend(text, prefix_, arena);
  }

 private:
  std::string prefix_;
};

class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(Normalized& text, Arena& arena) const override {
    const CharClasses classes;
    const std::string_view s = text.text;
    size_t n_chars = count_chars(s), leading = 0, trailing = 0;
    if (left_)
      for (size_t at = 0; at < s.size() && classes(next_char(s, at)) & kSpace;) ++leading;
    if (right_)
      for (size_t at = s.size(); at > 0 && classes(previous_char(s, at)) & kSpace;) ++trailing;
    if (leading + trailing == 0) return;
    Rewriter out(text, arena);
    out.drop(leading);
    size_t i = 0;
    for (size_t at = 0; at < s.size(); ++i) {
      const uint32_t c = next_char(s, at);
      if (i < leading || i + trailing >= n_chars) continue;
      // the reference compares a character index with a byte length here; only all-ASCII text meets it
      out.put(c, i + trailing + 1 == s.size() ? -static_cast<int>(trailing) : 0);
    }
    text = out.finish();
  }

 private:
  bool left_, right_;
};

class Nmt final : public Normalizer {
  void apply(Normalized& text, Arena& arena) const override {
    filter(text, arena, [](uint32_t c) {
      return !((c >= 0x01 && c <= 0x08) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f || c == 0x8f ||
               c == 0x9f);
    });
    map_chars(text, arena, [](uint32_t c) {
      const bool blank = c == 0x09 || c == 0x0a || c == 0x0c || c == 0x0d || c == 0x1680 ||
                         (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff ||
                         c == 0xfffd;
      return blank ? uint32_t{' '} : c;
    });
  }
};

class ByteLevel final : public Normalizer {
  void apply(Normalized& text, Arena& arena) const override { to_byte_alphabet(text, arena); }
};

}  // namespace

void prepend(Normalized& text, std::string_view prefix, Arena& arena) {
  if (text.empty()) return;
  Rewriter out(text, arena);
  size_t after_first = 0;
  const uint32_t first = next_char(text.text, after_first);
  bool is_first = true;
  for (size_t at = 0; at < prefix.size(); is_first = false) out.put(next_char(prefix, at), is_first ? 0 : 1);
  if (is_first) return;  // an empty prefix changes nothing
  out.put(first, 1);
  out.copy_until(text.text.size());
  text = out.finish();
}

void to_byte_alphabet(Normalized& text, Arena& arena) {
  Rewriter out(text, arena);
  for (size_t at = 0; at < text.text.size();) {
    const size_t n = utf8_length(static_cast<unsigned char>(text.text[at]));
    for (size_t i = 0; i < n; ++i) out.put(byte_to_char(static_cast<uint8_t>(text.text[at + i])), i > 0);
    at += n;
  }
  text = out.finish();
}

NormalizerPtr normalizer_sequence(std::vector<NormalizerPtr> parts) {
  return std::make_unique<Sequence>(std::move(parts));
}
NormalizerPtr lowercase_normalizer() { return std::make_unique<Lowercase>(); }
NormalizerPtr strip_accents_normalizer() { return std::make_unique<StripAccents>(); }
NormalizerPtr bert_normalizer(bool clean_text, bool handle_chinese_chars, bool strip_accents, bool lowercase) {
  return std::make_unique<Bert>(clean_text, handle_chinese_chars, strip_accents, lowercase);
}
NormalizerPtr replace_normalizer(const std::string& pattern, bool is_regex, std::string content,
                                 const std::string& where) {
  return std::make_unique<Replace>(pattern, is_regex, std::move(content), where);
}
NormalizerPtr prepend_normalizer(std::string prefix) { return std::make_unique<Prepend>(std::move(prefix)); }
NormalizerPtr strip_normalizer(bool left, bool right) { return std::make_unique<Strip>(left, right); }
NormalizerPtr nmt_normalizer() { return std::make_unique<Nmt>(); }
NormalizerPtr byte_level_normalizer() { return std::make_unique<ByteLevel>(); }

}  // namespace pmetal::text
