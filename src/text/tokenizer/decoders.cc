#include "text/tokenizer/decoders.h"

#include <algorithm>
#include <array>

#include "text/tokenizer/regex.h"
#include "text/tokenizer/unicode.h"

namespace pmetal::text {

namespace {

// Gathers the pieces of a joined token for a stage that has to see it whole.
class Collect final : public DecodeStage {
 public:
  explicit Collect(std::unique_ptr<DecodeStage> inner) : inner_(std::move(inner)) {}
  void push(std::string_view text, Sink) override { text_ += text; }
  void finish(Sink sink) override {
    inner_->push(text_, sink);
    inner_->finish(sink);
  }

 private:
  std::unique_ptr<DecodeStage> inner_;
  std::string text_;
};

// a step whose stage handles tokens; a joined token is collected first
template <class MakeStage>
DecoderStep token_step(MakeStage make_stage, bool joins = false) {
  return {[make_stage](bool joined) -> std::unique_ptr<DecodeStage> {
            std::unique_ptr<DecodeStage> stage = make_stage();
            if (joined) return std::make_unique<Collect>(std::move(stage));
            return stage;
          },
          joins};
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t done = 0;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, done)) {
    out.append(text, done, at - done).append(to);
    done = at + from.size();
  }
  return out.append(text, done);
}

class ByteLevel final : public DecodeStage {
 public:
  void push(std::string_view token, Sink sink) override {
    if (alphabet_to_bytes(token, bytes_))
      pending_ += bytes_;
    else
      pending_ += token;
    const size_t whole = pending_.size() - incomplete_tail(pending_);
    if (whole > 0) sink(to_valid_utf8(std::string_view(pending_).substr(0, whole)));
    pending_.erase(0, whole);
  }
  void finish(Sink sink) override {
    if (!pending_.empty()) sink(to_valid_utf8(pending_));
    pending_.clear();
  }

 private:
  std::string pending_, bytes_;
};

// Tokens like <0x61> are bytes. A run of them that is not UTF-8 becomes one U+FFFD for each.
class ByteFallback final : public DecodeStage {
 public:
  void push(std::string_view token, Sink sink) override {
    if (const int byte = byte_of(token); byte >= 0) {
      run_ += static_cast<char>(byte);
      return;
    }
    finish(sink);
    sink(token);
  }
  void finish(Sink sink) override {
    if (run_.empty()) return;
    if (is_valid_utf8(run_))
      sink(run_);
    else
      for (size_t i = 0; i < run_.size(); ++i) sink("\xef\xbf\xbd");
    run_.clear();
  }

 private:
  static int byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
    const auto digit = [](char c) {
      if (c >= '0' && c <= '9') return c - '0';
      if (c >= 'a' && c <= 'f') return c - 'a' + 10;
      return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    };
    const int low = digit(token[4]);
    const int high = token[3] == '+' ? 0 : digit(token[3]);  // the reference's number parser takes a plus sign
    return high < 0 || low < 0 ? -1 : high * 16 + low;
  }
  std::string run_;
};

class PassOn final : public DecodeStage {
  void push(std::string_view token, Sink sink) override { sink(token); }
};

class ReplaceToken final : public DecodeStage {
 public:
  ReplaceToken(std::shared_ptr<const Regex> regex, std::string literal, std::string content)
      : regex_(std::move(regex)), literal_(std::move(literal)), content_(std::move(content)) {}
  void push(std::string_view token, Sink sink) override {
    if (!regex_) {
      sink(literal_.empty() ? std::string(token) : replace_all(token, literal_, content_));
      return;
    }
    std::string out;
    size_t done = 0;
    if (!token.empty())
      regex_->for_each(token, [&](size_t begin, size_t end) {
        out.append(token, done, begin - done).append(content_);
        done = end;
      });
    sink(out.append(token, done));
  }

 private:
  std::shared_ptr<const Regex> regex_;
  std::string literal_, content_;
};

// Replaces a literal in a joined token; holds back what may be the start of an occurrence.
class ReplaceJoined final : public DecodeStage {
 public:
  ReplaceJoined(std::string literal, std::string content)
      : literal_(std::move(literal)), content_(std::move(content)) {}
  void push(std::string_view text, Sink sink) override {
    pending_ += text;
    std::string out;
    size_t done = 0;
    for (size_t at = pending_.find(literal_); at != std::string::npos; at = pending_.find(literal_, done)) {
      out.append(pending_, done, at - done).append(content_);
      done = at + literal_.size();
    }
    size_t held = std::min(literal_.size() - 1, pending_.size() - done);
    while (held > 0 &&
           !std::string_view(literal_).starts_with(std::string_view(pending_).substr(pending_.size() - held)))
      --held;
    out.append(pending_, done, pending_.size() - held - done);
    pending_.erase(0, pending_.size() - held);
    if (!out.empty()) sink(out);
  }
  void finish(Sink sink) override {
    if (!pending_.empty()) sink(pending_);
    pending_.clear();
  }

 private:
  std::string literal_, content_, pending_;
};

class Strip final : public DecodeStage {
 public:
  Strip(uint32_t c, size_t start, size_t stop) : c_(c), start_(start), stop_(stop) {}
  void push(std::string_view token, Sink sink) override {
    size_t begin = 0, end = token.size();
    for (size_t i = 0; i < start_ && begin < token.size(); ++i) {
      size_t next = begin;
      if (next_char(token, next) != c_) break;
      begin = next;
    }
    for (size_t i = 0; i < stop_ && end > begin; ++i) {
      size_t previous = end;
      if (previous_char(token, previous) != c_) break;
      end = previous;
    }
    sink(token.substr(begin, end - begin));
  }

 private:
  uint32_t c_;
  size_t start_, stop_;
};

class StripJoinedStart final : public DecodeStage {
 public:
  StripJoinedStart(uint32_t c, size_t start) : c_(c), left_(start) {}
  void push(std::string_view text, Sink sink) override {
    size_t begin = 0;
    for (; left_ > 0 && begin < text.size(); --left_) {
      size_t next = begin;
      if (next_char(text, next) != c_) {
        left_ = 0;
        break;
      }
      begin = next;
    }
    if (begin < text.size()) sink(text.substr(begin));
  }

 private:
  uint32_t c_;
  size_t left_;
};

class Metaspace final : public DecodeStage {
 public:
  Metaspace(std::string replacement, bool drops_first, bool joined)
      : replacement_(std::move(replacement)), drops_first_(drops_first), joined_(joined) {}
  void push(std::string_view token, Sink sink) override {
    sink(replace_all(token, replacement_, is_first_ && drops_first_ ? "" : " "));
    is_first_ = joined_;
  }

 private:
  std::string replacement_;
  bool drops_first_, joined_, is_first_ = true;
};

std::string clean_up(std::string_view text) {
  static constexpr std::array<std::array<std::string_view, 2>, 11> kRules{{{" .", "."},
                                                                           {" ?", "?"},
                                                                           {" !", "!"},
                                                                           {" ,", ","},
                                                                           {" ' ", "'"},
                                                                           {" n't", "n't"},
                                                                           {" 'm", "'m"},
                                                                           {" do not", " don't"},
                                                                           {" 's", "'s"},
                                                                           {" 've", "'ve"},
                                                                           {" 're", "'re"}}};
  std::string out(text);
  for (const auto& [from, to] : kRules)
    if (out.find(from) != std::string::npos) out = replace_all(out, from, to);
  return out;
}

class WordPiece final : public DecodeStage {
 public:
  WordPiece(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  void push(std::string_view token, Sink sink) override {
    std::string text;
    if (is_first_)
      text = token;
    else if (token.starts_with(prefix_))
      text = token.substr(prefix_.size());
    else
      text.append(" ").append(token);
    is_first_ = false;
    sink(cleanup_ ? clean_up(text) : text);
  }

 private:
  std::string prefix_;
  bool cleanup_, is_first_ = true;
};

class BpeSuffix final : public DecodeStage {
 public:
  explicit BpeSuffix(std::string suffix) : suffix_(std::move(suffix)) {}
  void push(std::string_view token, Sink sink) override {
    if (has_last_) sink(replace_all(last_, suffix_, " "));
    last_ = token;
    has_last_ = true;
  }
  void finish(Sink sink) override {
    if (has_last_) sink(replace_all(last_, suffix_, ""));
    has_last_ = false;
  }

 private:
  std::string suffix_, last_;
  bool has_last_ = false;
};

class Ctc final : public DecodeStage {
 public:
  Ctc(std::string pad, std::string delimiter, bool cleanup)
      : pad_(std::move(pad)), delimiter_(std::move(delimiter)), cleanup_(cleanup) {}
  void push(std::string_view token, Sink sink) override {
    if (has_last_ && token == last_) return;
    has_last_ = true;
    last_ = token;
    std::string text = replace_all(token, pad_, "");
    if (cleanup_) text = replace_all(clean_up(text), delimiter_, " ");
    if (!text.empty()) sink(text);
  }

 private:
  std::string pad_, delimiter_, last_;
  bool cleanup_, has_last_ = false;
};

class Spaces final : public DecodeStage {
  void push(std::string_view token, Sink sink) override {
    if (!is_first_) sink(" ");
    is_first_ = false;
    sink(token);
  }
  bool is_first_ = true;
};

}  // namespace

DecoderStep byte_level_decoder() {
  return token_step([] { return std::make_unique<ByteLevel>(); }, true);
}
DecoderStep byte_fallback_decoder() {
  return token_step([] { return std::make_unique<ByteFallback>(); });
}
DecoderStep fuse_decoder() {
  return {[](bool) { return std::make_unique<PassOn>(); }, true};
}
DecoderStep replace_decoder(const std::string& pattern, bool is_regex, std::string content, const std::string& where) {
  if (is_regex) {
    auto regex = std::make_shared<const Regex>(pattern, where);
    return token_step([regex, content] { return std::make_unique<ReplaceToken>(regex, std::string(), content); });
  }
  return {[pattern, content](bool joined) -> std::unique_ptr<DecodeStage> {
            if (joined && !pattern.empty()) return std::make_unique<ReplaceJoined>(pattern, content);
            return std::make_unique<ReplaceToken>(nullptr, pattern, content);
          },
          false};
}
DecoderStep strip_decoder(uint32_t c, size_t start, size_t stop) {
  return {[c, start, stop](bool joined) -> std::unique_ptr<DecodeStage> {
            if (joined && stop == 0) return std::make_unique<StripJoinedStart>(c, start);
            auto stage = std::make_unique<Strip>(c, start, stop);
            if (joined) return std::make_unique<Collect>(std::move(stage));
            return stage;
          },
          false};
}
DecoderStep metaspace_decoder(std::string replacement, bool drops_first) {
  return {
      [replacement, drops_first](bool joined) { return std::make_unique<Metaspace>(replacement, drops_first, joined); },
      false};
}
DecoderStep wordpiece_decoder(std::string prefix, bool cleanup) {
  return token_step([prefix, cleanup] { return std::make_unique<WordPiece>(prefix, cleanup); });
}
DecoderStep bpe_decoder(std::string suffix) {
  return token_step([suffix] { return std::make_unique<BpeSuffix>(suffix); });
}
DecoderStep ctc_decoder(std::string pad_token, std::string word_delimiter, bool cleanup) {
  return token_step([=] { return std::make_unique<Ctc>(pad_token, word_delimiter, cleanup); });
}
DecoderStep space_decoder() {
  return token_step([] { return std::make_unique<Spaces>(); });
}

DecodeStream::DecodeStream(const DecoderSteps& steps) {
  bool joined = false;
  for (const DecoderStep& step : steps) {
    stages_.push_back(step.make(joined));
    joined |= step.joins;
  }
}

void DecodeStream::run(size_t stage, std::string_view text, std::string& out) {
  if (stage == stages_.size())
    out += text;
  else
    stages_[stage]->push(text, [&](std::string_view t) { run(stage + 1, t, out); });
}

void DecodeStream::finish(std::string& out) {
  for (size_t i = 0; i < stages_.size(); ++i) stages_[i]->finish([&](std::string_view t) { run(i + 1, t, out); });
}

}  // namespace pmetal::text
