// The segmenters of native SentencePiece models: BPE by the scores of merged pieces, and Unigram in the library's own
// single-precision arithmetic.
#include <algorithm>
#include <array>
#include <unordered_map>

#include "base/error.h"
#include "text/tokenizer/byte_trie.h"
#include "text/tokenizer/sentencepiece.h"
#include "text/tokenizer/unicode.h"
#include "text/tokenizer/vocab_model.h"

namespace pmetal::text {

namespace {

using Type = SentencePieceFile::Type;
constexpr float kUnknownPenalty = 10.0f;
constexpr size_t kMaxPieceBytes = 4096;  // bounds the work per character of the text

struct Symbol {
  uint32_t begin, size;
  int32_t previous, next;
  bool is_frozen;
  uint32_t rank;  // of the pair with the next symbol
};

struct SentencePieceScratch final : Scratch {
  std::vector<Token> path;
  std::vector<Symbol> symbols;
  std::vector<uint64_t> heap;
  struct Node {
    float score;
    int32_t id;
    uint32_t begin;
  };
  std::vector<Node> best;
};

class SentencePieceModel final : public VocabModel {
 public:
  SentencePieceModel(const SentencePieceFile& file, const std::string& name) : is_bpe_(file.model_type == 2) {
    byte_id_.fill(-1);
    float low = 0, high = 0;
    bool has_normal = false;
    for (size_t i = 0; i < file.pieces.size(); ++i) {
      const auto& p = file.pieces[i];
      const auto id = static_cast<int32_t>(i);
      if (p.text.size() > kMaxPieceBytes)
        fail(ErrorCode::kInvalidInput, "{}: piece {} has {} bytes; at most {} are taken", name, i, p.text.size(),
             kMaxPieceBytes);
      if (vocab_.find(p.text) >= 0)
        fail(ErrorCode::kInvalidInput, "{}: piece {} \"{}\" is there twice", name, i, p.text);
      vocab_.add(p.text, id);
      types_.push_back(p.type);
      scores_.push_back(p.score);
      if (p.type == Type::kUnknown) {
        if (unk_id_ >= 0) fail(ErrorCode::kInvalidInput, "{}: pieces {} and {} are both unknown", name, unk_id_, i);
        unk_id_ = id;
      }
      if (p.type == Type::kByte && file.byte_fallback)
        for (int b = 0; b < 256; ++b)
          if (p.text == fmt::format("<0x{:02X}>", b)) byte_id_[b] = id;
      if (p.type == Type::kNormal) {
        low = has_normal ? std::min(low, p.score) : p.score;
        high = has_normal ? std::max(high, p.score) : p.score;
        has_normal = true;
      }
      if (p.type == Type::kNormal || p.type == Type::kUserDefined || p.type == Type::kUnused) {
        matched_.add(p.text, id);
        trie_.insert(p.text, id);
      }
      if (p.type == Type::kUserDefined) symbols_.insert(p.text, id);
    }
    if (unk_id_ < 0) fail(ErrorCode::kInvalidInput, "{}: no piece has the type unknown", name);
    has_bytes_ = std::all_of(byte_id_.begin(), byte_id_.end(), [](int32_t id) { return id >= 0; });
    if (file.byte_fallback && !has_bytes_)
      fail(ErrorCode::kInvalidInput, "{}: byte_fallback is set but not all 256 byte pieces are there", name);
    unknown_score_ = low - kUnknownPenalty;
    max_score_ = high;
    // equal scores must be equal ranks: the queue then takes the leftmost
    std::vector<float> order = scores_;
    std::sort(order.begin(), order.end(), std::greater<>());
    order.erase(std::unique(order.begin(), order.end()), order.end());
    for (float s : scores_)
      ranks_.push_back(
          static_cast<uint32_t>(std::lower_bound(order.begin(), order.end(), s, std::greater<>()) - order.begin()));
  }

  std::unique_ptr<Scratch> make_scratch() const override { return std::make_unique<SentencePieceScratch>(); }

  void tokenize(std::string_view text, Scratch* scratch, std::vector<Token>& out) const override {
    auto& s = static_cast<SentencePieceScratch&>(*scratch);
    s.path.clear();
    if (is_bpe_)
      bpe(text, s);
    else
      unigram(text, s);
    bool was_unknown = false;
    for (const Token& t : s.path) {
      const bool is_unknown = t.id == unk_id_;
      if (is_unknown && has_bytes_) {
        for (uint32_t i = t.begin; i < t.end; ++i)
          out.push_back({byte_id_[static_cast<uint8_t>(text[i])], t.begin, t.end});
      } else if (is_unknown && was_unknown) {
        out.back().end = t.end;  // a run of unknowns is one
      } else {
        out.push_back(t);
      }
      was_unknown = is_unknown;
    }
  }

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;

  size_t symbol_at(std::string_view text, size_t at, bool& is_frozen) const {
    size_t best = 0;
    uint32_t node = ByteTrie::kRoot;
    for (size_t i = at; i < text.size() && !symbols_.empty(); ++i) {
      node = symbols_.step(node, static_cast<uint8_t>(text[i]));
      if (node == ByteTrie::kNoNode) break;
      if (symbols_.value(node) >= 0) best = i + 1 - at;
    }
    is_frozen = best > 0;
    return is_frozen ? best : utf8_length(static_cast<unsigned char>(text[at]));
  }

  void bpe(std::string_view text, SentencePieceScratch& s) const {
    auto& symbols = s.symbols;
    symbols.clear();
    s.heap.clear();
    for (size_t at = 0; at < text.size();) {
      bool is_frozen = false;
      const size_t n = symbol_at(text, at, is_frozen);
      const auto i = static_cast<int32_t>(symbols.size());
      symbols.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(n), i - 1, i + 1, is_frozen, kNoRank});
      at += n;
    }
    if (symbols.empty()) return;
    symbols.back().next = -1;
    std::unordered_map<std::string_view, uint32_t> unused_cut;  // unused piece -> size of its left part
    const auto look_up = [&](int32_t left) {
      Symbol& l = symbols[left];
      l.rank = kNoRank;
      if (l.next < 0 || l.is_frozen || symbols[l.next].is_frozen) return false;
      const std::string_view piece = text.substr(l.begin, l.size + symbols[l.next].size);
      const int32_t id = matched_.find(piece);
      if (id < 0) return false;
      l.rank = ranks_[id];
      if (types_[id] == Type::kUnused) unused_cut[piece] = l.size;
      return true;
    };
    const auto key = [&](int32_t i) { return uint64_t{symbols[i].rank} << 32 | static_cast<uint32_t>(i); };
    for (int32_t i = 0; i + 1 < static_cast<int32_t>(symbols.size()); ++i)
      if (look_up(i)) s.heap.push_back(key(i));
    std::make_heap(s.heap.begin(), s.heap.end(), std::greater<>());
    while (!s.heap.empty()) {
      std::pop_heap(s.heap.begin(), s.heap.end(), std::greater<>());
      const uint64_t top = s.heap.back();
      s.heap.pop_back();
      const auto i = static_cast<int32_t>(top & UINT32_MAX);
      Symbol& left = symbols[i];
      if (left.rank != top >> 32) continue;
      Symbol& right = symbols[left.next];
      left.size += right.size;
      right.rank = kNoRank;
      left.next = right.next;
      if (left.next >= 0) symbols[left.next].previous = i;
      for (const int32_t j : {i, left.previous})
        if (j >= 0 && look_up(j)) {
          s.heap.push_back(key(j));
          std::push_heap(s.heap.begin(), s.heap.end(), std::greater<>());
        }
    }
    for (int32_t i = 0; i >= 0; i = symbols[i].next)
      emit_bpe(text, symbols[i].begin, symbols[i].size, unused_cut, s.path);
  }

  // A piece that is marked unused falls apart into what it was merged from.
  void emit_bpe(std::string_view text, uint32_t begin, uint32_t size,
                const std::unordered_map<std::string_view, uint32_t>& unused_cut, std::vector<Token>& out) const {
    std::vector<std::pair<uint32_t, uint32_t>> stack{{begin, size}};
    while (!stack.empty()) {
      const auto [b, n] = stack.back();
      stack.pop_back();
      const std::string_view piece = text.substr(b, n);
      const int32_t id = vocab_.find(piece);
      const auto cut = id >= 0 && types_[id] == Type::kUnused ? unused_cut.find(piece) : unused_cut.end();
      if (cut == unused_cut.end()) {
        out.push_back({id < 0 ? unk_id_ : id, b, b + n});
        continue;
      }
      stack.emplace_back(b + cut->second, n - cut->second);
      stack.emplace_back(b, cut->second);
    }
  }

  void unigram(std::string_view text, SentencePieceScratch& s) const {
    constexpr uint32_t kUnreached = UINT32_MAX;
    s.best.assign(text.size() + 1, {0.0f, -1, kUnreached});
    for (size_t at = 0; at < text.size();) {
      const size_t n = utf8_length(static_cast<unsigned char>(text[at]));
      const float so_far = s.best[at].score;
      const auto offer = [&](size_t end, float piece_score, int32_t id) {
        auto& node = s.best[end];
        const float score = so_far + piece_score;
        if (node.begin == kUnreached || score > node.score) node = {score, id, static_cast<uint32_t>(at)};
      };
      bool has_single = false;
      uint32_t node = ByteTrie::kRoot;
      for (size_t end = at; end < text.size();) {
        node = trie_.step(node, static_cast<uint8_t>(text[end++]));
        if (node == ByteTrie::kNoNode) break;
        const int32_t id = trie_.value(node);
        if (id < 0 || types_[id] == Type::kUnused) continue;
        offer(end, types_[id] == Type::kUserDefined ? static_cast<float>(end - at) * max_score_ - 0.1f : scores_[id],
              id);
        has_single |= end - at == n;
      }
      if (!has_single) offer(at + n, unknown_score_, unk_id_);
      at += n;
    }
    for (auto end = static_cast<uint32_t>(text.size()); end > 0; end = s.best[end].begin)
      s.path.push_back({s.best[end].id, s.best[end].begin, end});
    std::reverse(s.path.begin(), s.path.end());
  }

  bool is_bpe_, has_bytes_ = false;
  Vocab matched_;
  ByteTrie trie_, symbols_;
  std::vector<Type> types_;
  std::vector<float> scores_;
  std::vector<uint32_t> ranks_;
  std::array<int32_t, 256> byte_id_{};
  int32_t unk_id_ = -1;
  float unknown_score_ = 0, max_score_ = 0;
};

}  // namespace

std::unique_ptr<Model> sentencepiece_model(const SentencePieceFile& file, const std::string& name) {
  return std::make_unique<SentencePieceModel>(file, name);
}

}  // namespace pmetal::text
