#include "text/tokenizer/unigram.h"

#include <array>
#include <limits>

#include "base/error.h"
#include "text/tokenizer/byte_trie.h"
#include "text/tokenizer/unicode.h"
#include "text/tokenizer/vocab_model.h"

namespace pmetal::text {

namespace {

// Below the worst piece by this much: an unknown character (SentencePiece's constant).
constexpr double kUnknownPenalty = 10.0;
// Bounds the work per character. SentencePiece's own pieces end at 16 characters by default.
constexpr size_t kMaxPieceBytes = 4096;

struct UnigramScratch final : Scratch {
  struct Node {
    double score;
    int32_t id;
    uint32_t begin;
  };
  std::vector<Node> best;  // best way to end at each byte
  std::vector<Token> path;
};

class Unigram final : public VocabModel {
 public:
  Unigram(Vocab vocab, std::vector<double> scores, int32_t unk_id, bool byte_fallback, const std::string& where)
      : VocabModel(std::move(vocab)), scores_(std::move(scores)), unk_id_(unk_id), where_(where) {
    double worst = std::numeric_limits<double>::infinity();
    for (size_t id = 0; id < scores_.size(); ++id) {
      worst = std::min(worst, scores_[id]);
      const std::string_view piece = vocab_.token(static_cast<int32_t>(id));
      if (!piece.empty()) trie_.insert(piece, vocab_.find(piece));
    }
    unknown_score_ = worst - kUnknownPenalty;
    byte_id_.fill(-1);
    if (byte_fallback)
      for (int b = 0; b < 256; ++b) byte_id_[b] = vocab_.find(fmt::format("<0x{:02X}>", b));
  }
  std::unique_ptr<Scratch> make_scratch() const override { return std::make_unique<UnigramScratch>(); }
  int32_t id_named_by_text() const override { return unk_id_; }

  void tokenize(std::string_view text, Scratch* scratch, std::vector<Token>& out) const override {
    auto& s = static_cast<UnigramScratch&>(*scratch);
    best_path(text, s);
    // from the end; neighbouring unknowns join
    s.path.clear();
    for (auto end = static_cast<uint32_t>(text.size()); end > 0;) {
      const auto& node = s.best[end];
      if (node.id == unk_id_ && unk_id_ >= 0 && !s.path.empty() && s.path.back().id == unk_id_)
        s.path.back().begin = node.begin;
      else
        s.path.push_back({node.id, node.begin, end});
      end = node.begin;
    }
    for (auto t = s.path.rbegin(); t != s.path.rend(); ++t) emit(text, *t, out);
  }

 private:
  void best_path(std::string_view text, UnigramScratch& s) const {
    constexpr uint32_t kUnreached = UINT32_MAX;
    s.best.assign(text.size() + 1, {0.0, -1, kUnreached});
    for (size_t at = 0; at < text.size();) {
      const size_t n = utf8_length(static_cast<unsigned char>(text[at]));
      const double so_far = s.best[at].score;
      const auto offer = [&](size_t end, double score, int32_t id) {
        auto& node = s.best[end];
        if (node.begin == kUnreached || score + so_far > node.score)
          node = {score + so_far, id, static_cast<uint32_t>(at)};
      };
      bool has_single = false;
      uint32_t node = ByteTrie::kRoot;
      for (size_t end = at; end < text.size();) {
        node = trie_.step(node, static_cast<uint8_t>(text[end++]));
        if (node == ByteTrie::kNoNode) break;
        const int32_t id = trie_.value(node);
        if (id < 0) continue;
        offer(end, scores_[id], id);
        has_single |= end - at == n;
      }
      if (!has_single) {
        if (unk_id_ < 0)
          fail(ErrorCode::kInvalidInput,
               "{}: the text has a character that no piece covers, and the model has no unk_id", where_);
        offer(at + n, unknown_score_, unk_id_);
      }
      at += n;
    }
  }

  void emit(std::string_view text, const Token& t, std::vector<Token>& out) const {
    if (t.id != unk_id_) {
      out.push_back(t);
      return;
    }
    // joined unknowns may spell a piece; else bytes, where all bytes are known
    const std::string_view part = text.substr(t.begin, t.end - t.begin);
    if (const int32_t id = vocab_.find(part); id >= 0) {
      out.push_back({id, t.begin, t.end});
      return;
    }
    bool has_bytes = true;
    for (char c : part) has_bytes &= byte_id_[static_cast<uint8_t>(c)] >= 0;
    if (!has_bytes) {
      out.push_back(t);
      return;
    }
    for (char c : part) out.push_back({byte_id_[static_cast<uint8_t>(c)], t.begin, t.end});
  }

  std::vector<double> scores_;
  int32_t unk_id_;
  std::string where_;
  ByteTrie trie_;
  double unknown_score_ = 0;
  std::array<int32_t, 256> byte_id_{};
};

class WordPiece final : public VocabModel {
 public:
  WordPiece(Vocab vocab, int32_t unk_id, std::string unk, std::string prefix, size_t max_chars,
            const std::string& where)
      : VocabModel(std::move(vocab)),
        unk_id_(unk_id),
        unk_(std::move(unk)),
        prefix_(std::move(prefix)),
        max_chars_(max_chars),
        where_(where) {}

  void tokenize(std::string_view text, Scratch*, std::vector<Token>& out) const override {
    const size_t n_before = out.size();
    const auto size = static_cast<uint32_t>(text.size());
    bool is_bad = count_chars(text) > max_chars_;
    std::string buffer;
    for (size_t begin = 0; begin < text.size() && !is_bad;) {
      // nothing longer than the longest token can match
      const size_t reach =
          begin == 0 ? vocab_.longest() : vocab_.longest() - std::min(vocab_.longest(), prefix_.size());
      size_t end = std::min(text.size(), begin + reach);
      while (end > begin && end < text.size() && is_utf8_continuation(text[end])) --end;
      int32_t id = -1;
      while (end > begin) {
        if (begin == 0) {
          id = vocab_.find(text.substr(0, end));
        } else {
          buffer.assign(prefix_).append(text, begin, end - begin);
          id = vocab_.find(buffer);
        }
        if (id >= 0) break;
        previous_char(text, end);
      }
      if (id < 0) {
        is_bad = true;
      } else {
        out.push_back({id, static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
        begin = end;
      }
    }
    if (!is_bad) return;
    if (unk_id_ < 0)
      fail(ErrorCode::kInvalidInput, "{}: a word cannot be cut and unk_token \"{}\" is not in the vocabulary", where_,
           unk_);
    out.resize(n_before);
    out.push_back({unk_id_, 0, size});
  }

 private:
  int32_t unk_id_;
  std::string unk_, prefix_;
  size_t max_chars_;
  std::string where_;
};

class WordLevel final : public VocabModel {
 public:
  WordLevel(Vocab vocab, std::string unk, const std::string& where)
      : VocabModel(std::move(vocab)), unk_(std::move(unk)), unk_id_(vocab_.find(unk_)), where_(where) {}
  void tokenize(std::string_view text, Scratch*, std::vector<Token>& out) const override {
    int32_t id = vocab_.find(text);
    if (id < 0) id = unk_id_;
    if (id < 0)
      fail(ErrorCode::kInvalidInput, "{}: \"{}\" is not in the vocabulary, and neither is unk_token \"{}\"", where_,
           text, unk_);
    out.push_back({id, 0, static_cast<uint32_t>(text.size())});
  }

 private:
  std::string unk_;
  int32_t unk_id_;
  std::string where_;
};

}  // namespace

std::unique_ptr<Model> make_unigram(std::vector<std::pair<std::string, double>> pieces, int32_t unk_id,
                                    bool byte_fallback, const std::string& where) {
  if (unk_id >= static_cast<int32_t>(pieces.size()))
    fail(ErrorCode::kInvalidInput, "{}: unk_id is {} but the vocabulary has {} pieces", where, unk_id, pieces.size());
  Vocab vocab;
  vocab.reserve(pieces.size());
  std::vector<double> scores;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].first.size() > kMaxPieceBytes)
      fail(ErrorCode::kInvalidInput, "{}: piece {} has {} bytes; at most {} are taken", where, i,
           pieces[i].first.size(), kMaxPieceBytes);
    vocab.add(pieces[i].first, static_cast<int32_t>(i));
    scores.push_back(pieces[i].second);
  }
  return std::make_unique<Unigram>(std::move(vocab), std::move(scores), unk_id, byte_fallback, where);
}

std::unique_ptr<Model> make_wordpiece(Vocab vocab, std::string unk_token, std::string continuing_prefix,
                                      size_t max_chars, const std::string& where) {
  const int32_t unk_id = vocab.find(unk_token);
  return std::make_unique<WordPiece>(std::move(vocab), unk_id, std::move(unk_token), std::move(continuing_prefix),
                                     max_chars, where);
}

std::unique_ptr<Model> make_wordlevel(Vocab vocab, std::string unk_token, const std::string& where) {
  return std::make_unique<WordLevel>(std::move(vocab), std::move(unk_token), where);
}

}  // namespace pmetal::text
