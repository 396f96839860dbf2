#include "text/tokenizer/pre_tokenizers.h"

#include "text/tokenizer/normalizers.h"
#include "text/tokenizer/regex.h"
#include "text/tokenizer/scanner.h"

namespace pmetal::text {

const char* const kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

struct Match {
  uint32_t begin, end;
  bool is_match;
};

// Cuts by a cover of the text with matches and the gaps between them.
void cut(const Normalized& piece, std::vector<Match>& cover, SplitBehavior behavior, std::vector<Normalized>& out) {
  const auto emit = [&](uint32_t begin, uint32_t end) { out.push_back(piece.slice(begin, end)); };
  switch (behavior) {
    case SplitBehavior::kIsolated:
      for (const Match& m : cover) emit(m.begin, m.end);
      return;
    case SplitBehavior::kRemoved:
      for (const Match& m : cover)
        if (!m.is_match) emit(m.begin, m.end);
      return;
    case SplitBehavior::kMergedWithNext: {
      // a match joins what follows it, unless that is a match too
      std::vector<Match> merged;
      bool previous = false;
      for (auto m = cover.rbegin(); m != cover.rend(); ++m) {
        if (m->is_match && !previous && !merged.empty())
          merged.back().begin = m->begin;
        else
          merged.push_back(*m);
        previous = m->is_match;
      }
      for (auto m = merged.rbegin(); m != merged.rend(); ++m) emit(m->begin, m->end);
      return;
    }
    default: {
      std::vector<Match> merged;
      bool previous = false;
      for (const Match& m : cover) {
        const bool joins = behavior == SplitBehavior::kContiguous ? m.is_match == previous : m.is_match && !previous;
        if (joins && !merged.empty())
          merged.back().end = m.end;
        else
          merged.push_back(m);
        previous = m.is_match;
      }
      for (const Match& m : merged) emit(m.begin, m.end);
    }
  }
}

template <class IsDelimiter>
void cut_at(const Normalized& piece, IsDelimiter is_delimiter, SplitBehavior behavior, std::vector<Normalized>& out) {
  std::vector<Match> cover;
  size_t last = 0;
  for (size_t at = 0; at < piece.text.size();) {
    const size_t begin = at;
    if (!is_delimiter(next_char(piece.text, at))) continue;
    if (last < begin) cover.push_back({static_cast<uint32_t>(last), static_cast<uint32_t>(begin), false});
    cover.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(at), true});
    last = at;
  }
  if (last < piece.text.size())
    cover.push_back({static_cast<uint32_t>(last), static_cast<uint32_t>(piece.text.size()), false});
  cut(piece, cover, behavior, out);
}

// collects matches and gaps
class Cover {
 public:
  explicit Cover(bool invert) : invert_(invert) {}
  void match(size_t begin, size_t end) {
    if (last_ != begin) add(last_, begin, invert_);
    add(begin, end, !invert_);
    last_ = end;
  }
  std::vector<Match>& finish(size_t size) {
    if (last_ != size) add(last_, size, invert_);
    return matches_;
  }

 private:
  void add(size_t begin, size_t end, bool is_match) {
    matches_.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end), is_match});
  }
  bool invert_;
  size_t last_ = 0;
  std::vector<Match> matches_;
};

class Split final : public PreTokenizer {
 public:
  Split(const std::string& pattern, bool is_regex, SplitBehavior behavior, bool invert, const std::string& where)
      : behavior_(behavior), invert_(invert) {
    if (!is_regex) {
      literal_ = pattern;
      return;
    }
    scanner_ = find_scanner(pattern);
    if (!scanner_) regex_ = std::make_unique<Regex>(pattern, where);
  }
  void split(const Normalized& piece, Arena&, std::vector<Normalized>& out) const override {
    const std::string_view text = piece.text;
    Cover cover(invert_);
    if (scanner_) {
      for (size_t at = 0; at < text.size();) {
        const size_t end = scanner_(text, at);
        cover.match(at, end);
        at = end;
      }
    } else if (regex_) {
      regex_->for_each(text, [&](size_t begin, size_t end) { cover.match(begin, end); });
    } else if (!literal_.empty()) {
      for (size_t at = text.find(literal_); at != std::string_view::npos;
           at = text.find(literal_, at + literal_.size()))
        cover.match(at, at + literal_.size());
    }
    cut(piece, cover.finish(text.size()), behavior_, out);
  }

 private:
  SplitBehavior behavior_;
  bool invert_;
  ScanFunction scanner_ = nullptr;
  std::unique_ptr<Regex> regex_;
  std::string literal_;
};

class Whitespace final : public PreTokenizer {
  void split(const Normalized& piece, Arena&, std::vector<Normalized>& out) const override {
    const CharClasses classes;
    const auto kind = [&](uint32_t c) { return classes(c) & kWord ? 1 : classes(c) & kSpace ? 0 : 2; };
    int run_kind = 0;
    size_t begin = 0;
    for (size_t at = 0; at < piece.text.size();) {
      const size_t here = at;
      const int k = kind(next_char(piece.text, at));
      if (k == run_kind) continue;
      if (run_kind != 0) out.push_back(piece.slice(begin, here));
      begin = here;
      run_kind = k;
    }
    if (run_kind != 0) out.push_back(piece.slice(begin, piece.text.size()));
  }
};

class WhitespaceSplit final : public PreTokenizer {
  void split(const Normalized& piece, Arena&, std::vector<Normalized>& out) const override {
    const CharClasses classes;
    cut_at(
        piece, [&](uint32_t c) { return (classes(c) & kSpace) != 0; }, SplitBehavior::kRemoved, out);
  }
};

class Digits final : public PreTokenizer {
 public:
  explicit Digits(bool individual) : individual_(individual) {}
  void split(const Normalized& piece, Arena&, std::vector<Normalized>& out) const override {
    const CharClasses classes;
    cut_at(
        piece, [&](uint32_t c) { return (classes(c) & kNumeric) != 0; },
        individual_ ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, out);
  }

 private:
  bool individual_;
};

bool is_ascii_punctuation(uint32_t c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

class Punctuation final : public PreTokenizer {
 public:
  explicit Punctuation(SplitBehavior behavior) : behavior_(behavior) {}
  void split(const Normalized& piece, Arena&, std::vector<Normalized>& out) const override {
    const CharClasses classes;
    cut_at(
        piece, [&](uint32_t c) { return is_ascii_punctuation(c) || classes(c) & kPunctuation; }, behavior_, out);
  }

 private:
  SplitBehavior behavior_;
};

class Delimiter final : public PreTokenizer {
 public:
  explicit Delimiter(uint32_t c) : delimiter_(c) {}
  void split(const Normalized& piece, Arena&, std::vector<Normalized>& out) const override {
    cut_at(
        piece, [&](uint32_t c) { return c == delimiter_; }, SplitBehavior::kRemoved, out);
  }

 private:
  uint32_t delimiter_;
};

class Bert final : public PreTokenizer {
  void split(const Normalized& piece, Arena& arena, std::vector<Normalized>& out) const override {
    std::vector<Normalized> words;
    words_.split(piece, arena, words);
    for (const Normalized& word : words)
      if (!word.empty()) static_cast<const PreTokenizer&>(punctuation_).split(word, arena, out);
  }
  PreTokenizerPtr words_owner_ = std::make_unique<WhitespaceSplit>();
  const PreTokenizer& words_ = *words_owner_;
  Punctuation punctuation_{SplitBehavior::kIsolated};
};

class FixedLength final : public PreTokenizer {
 public:
  explicit FixedLength(size_t n_chars) : n_chars_(n_chars) {}
  void split(const Normalized& piece, Arena&, std::vector<Normalized>& out) const override {
    for (size_t at = 0; at < piece.text.size();) {
      const size_t begin = at;
      for (size_t i = 0; i < n_chars_ && at < piece.text.size(); ++i) next_char(piece.text, at);
      out.push_back(piece.slice(begin, at));
    }
  }

 private:
  size_t n_chars_;
};

class Metaspace final : public PreTokenizer {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {
    spaces_ = replace_normalizer(" ", false, replacement_, "Metaspace");
  }
  void split(const Normalized& piece, Arena& arena, std::vector<Normalized>& out) const override {
    Normalized text = piece;
    spaces_->apply(text, arena);
    const bool wants = scheme_ == PrependScheme::kAlways || (scheme_ == PrependScheme::kFirst && piece.begin == 0);
    if (wants && !text.text.starts_with(replacement_)) prepend(text, replacement_, arena);
    if (!split_) {
      out.push_back(text);
      return;
    }
    Cover cover(false);
    for (size_t at = text.text.find(replacement_); at != std::string_view::npos;
         at = text.text.find(replacement_, at + replacement_.size()))
      cover.match(at, at + replacement_.size());
    cut(text, cover.finish(text.text.size()), SplitBehavior::kMergedWithNext, out);
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
  NormalizerPtr spaces_;
};

class PrefixSpace final : public PreTokenizer {
  void split(const Normalized& piece, Arena& arena, std::vector<Normalized>& out) const override {
    Normalized text = piece;
    if (!text.text.starts_with(' ')) prepend(text, " ", arena);
    out.push_back(text);
  }
};

class ByteAlphabet final : public PreTokenizer {
  void split(const Normalized& piece, Arena& arena, std::vector<Normalized>& out) const override {
    Normalized text = piece;
    to_byte_alphabet(text, arena);
    out.push_back(text);
  }
};

}  // namespace

void run_pre_tokenizers(const PreTokenizerChain& chain, std::vector<Piece>& pieces, Arena& arena) {
  std::vector<Piece> next;
  std::vector<Normalized> parts;
  for (const auto& step : chain.steps) {
    next.clear();
    next.reserve(pieces.size());
    for (Piece& piece : pieces) {
      if (piece.token >= 0) {
        next.push_back(piece);
        continue;
      }
      parts.clear();
      step->split(piece.text, arena, parts);
      for (const Normalized& part : parts)
        if (!part.empty()) next.push_back({part, -1});
    }
    pieces.swap(next);
  }
}

PreTokenizerPtr split_pre_tokenizer(const std::string& pattern, bool is_regex, SplitBehavior behavior, bool invert,
                                    const std::string& where) {
  return std::make_unique<Split>(pattern, is_regex, behavior, invert, where);
}
PreTokenizerPtr whitespace_pre_tokenizer() { return std::make_unique<Whitespace>(); }
PreTokenizerPtr whitespace_split_pre_tokenizer() { return std::make_unique<WhitespaceSplit>(); }
PreTokenizerPtr digits_pre_tokenizer(bool individual) { return std::make_unique<Digits>(individual); }
PreTokenizerPtr punctuation_pre_tokenizer(SplitBehavior behavior) { return std::make_unique<Punctuation>(behavior); }
PreTokenizerPtr bert_pre_tokenizer() { return std::make_unique<Bert>(); }
PreTokenizerPtr delimiter_pre_tokenizer(uint32_t delimiter) { return std::make_unique<Delimiter>(delimiter); }
PreTokenizerPtr fixed_length_pre_tokenizer(size_t n_chars) { return std::make_unique<FixedLength>(n_chars); }
PreTokenizerPtr metaspace_pre_tokenizer(std::string replacement, PrependScheme scheme, bool split) {
  return std::make_unique<Metaspace>(std::move(replacement), scheme, split);
}
PreTokenizerPtr prefix_space_pre_tokenizer() { return std::make_unique<PrefixSpace>(); }
PreTokenizerPtr byte_alphabet_pre_tokenizer() { return std::make_unique<ByteAlphabet>(); }

}  // namespace pmetal::text
