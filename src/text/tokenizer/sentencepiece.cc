#include "text/tokenizer/sentencepiece.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "text/tokenizer/byte_trie.h"
#include "text/tokenizer/charsmap.h"
#include "text/tokenizer/tokenizer_impl.h"
#include "text/tokenizer/unicode.h"

namespace pmetal::text {

namespace {

constexpr std::string_view kMeta = "\xe2\x96\x81";  // U+2581 stands for a space
constexpr size_t kMaxPieces = 1 << 24;

// Protocol-buffer fields of one message, read in order; lengths are checked against what is left.
class Message {
 public:
  Message(std::string_view bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  bool next() {
    if (at_ >= bytes_.size()) return false;
    const uint64_t key = varint();
    field_ = static_cast<uint32_t>(key >> 3);
    switch (key & 7) {
      case 0: number_ = varint(); break;
      case 1: take(8); break;
      case 2: {
        const uint64_t size = varint();
        if (size > bytes_.size() - at_) broken("a field is longer than the file");
        text_ = take(size);
        break;
      }
      case 5: text_ = take(4); break;
      default: broken("a field has an unknown wire type");
    }
    wire_type_ = key & 7;
    return true;
  }
  uint32_t field() const { return field_; }
  bool flag() const { return expect(0), number_ != 0; }
  int64_t number() const { return expect(0), static_cast<int64_t>(number_); }
  std::string_view text() const { return expect(2), text_; }
  float real() const {
    expect(5);
    float f = 0;
    std::memcpy(&f, text_.data(), sizeof f);
    return f;
  }

 private:
  [[noreturn]] void broken(std::string_view what) const {
    fail(ErrorCode::kInvalidInput, "{}: not a SentencePiece model: {} (near byte {})", name_, what, at_);
  }
  void expect(uint64_t wire_type) const {
    if (wire_type_ != wire_type) broken("a field has another type than it must");
  }
  std::string_view take(size_t n) {
    if (n > bytes_.size() - at_) broken("it ends inside a field");
    const std::string_view part = bytes_.substr(at_, n);
    at_ += n;
    return part;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ >= bytes_.size()) broken("it ends inside a number");
      const auto b = static_cast<uint8_t>(bytes_[at_++]);
      value |= uint64_t{b & 0x7fu} << shift;
      if (b < 0x80) return value;
    }
    broken("a number is too long");
  }
  std::string_view bytes_, text_;
  const std::string& name_;
  size_t at_ = 0;
  uint32_t field_ = 0;
  uint64_t wire_type_ = 0, number_ = 0;
};

SentencePieceFile::Piece parse_piece(std::string_view bytes, const std::string& name, size_t index) {
  SentencePieceFile::Piece piece;
  for (Message m(bytes, name); m.next();) {
    if (m.field() == 1) piece.text = m.text();
    if (m.field() == 2) piece.score = m.real();
    if (m.field() == 3) {
      if (m.number() < 1 || m.number() > 6)
        fail(ErrorCode::kInvalidInput, "{}: piece {} has type {}; types are 1 to 6", name, index, m.number());
      piece.type = static_cast<SentencePieceFile::Type>(m.number());
    }
  }
  if (piece.text.empty() || !is_valid_utf8(piece.text))
    fail(ErrorCode::kInvalidInput, "{}: piece {} is empty or not UTF-8", name, index);
  if (!(piece.score == piece.score)) fail(ErrorCode::kInvalidInput, "{}: piece {} has no number as score", name, index);
  return piece;
}

// Finds user-defined symbols, which neither normalizer nor segmenter may touch.
class SymbolMatcher {
 public:
  explicit SymbolMatcher(const SentencePieceFile& file) {
    for (const auto& p : file.pieces)
      if (p.type == SentencePieceFile::Type::kUserDefined) trie_.insert(p.text, 0);
  }
  size_t longest(std::string_view text) const {
    size_t best = 0;
    uint32_t node = ByteTrie::kRoot;
    for (size_t i = 0; i < text.size() && !trie_.empty(); ++i) {
      node = trie_.step(node, static_cast<uint8_t>(text[i]));
      if (node == ByteTrie::kNoNode) break;
      if (trie_.value(node) >= 0) best = i + 1;
    }
    return best;
  }

 private:
  ByteTrie trie_;
};

class SentencePieceNormalizer final : public Normalizer {
 public:
  SentencePieceNormalizer(const SentencePieceFile& f, const std::string& name)
      : map_(f.charsmap, name + " (normalizer_spec)"),
        symbols_(f),
        dummy_(f.add_dummy_prefix),
        squeeze_(f.remove_extra_whitespaces),
        escape_(f.escape_whitespaces),
        suffix_(f.whitespace_is_suffix) {}

  void apply(Normalized& text, Arena& arena) const override {
    const std::string_view in = text.text;
    size_t at = 0;
    if (squeeze_)
      while (at < in.size()) {
        const auto [size, out] = prefix(in.substr(at));
        if (out != " ") break;
        at += size;
      }
    if (at == in.size()) {
      text = text.slice(in.size(), in.size());
      return;
    }
    const std::string_view space = escape_ ? kMeta : " ";
    Rewriter out(text, arena);
    // characters are held back until it is known that they are not trailing spaces
    size_t held_spaces = 0;
    const auto put_space = [&](int change) { out.put(next_of(space), change); };
    const size_t skipped = count_chars(in.substr(0, at));
    out.drop(skipped);
    if (!suffix_ && dummy_) squeeze_ ? void(++held_spaces) : put_space(1);
    bool is_previous_space = squeeze_;
    const auto release = [&] {
      for (; held_spaces > 0; --held_spaces) put_space(1);
    };
    while (at < in.size()) {
      auto [size, replacement] = prefix(in.substr(at));
      while (is_previous_space && replacement.starts_with(' ')) replacement.remove_prefix(1);
      if (!replacement.empty()) is_previous_space = replacement.ends_with(' ');
      bool consumed = false;
      for (size_t i = 0; i < replacement.size();) {
        const uint32_t c = next_char(replacement, i);
        if (squeeze_ && (c == ' ' || (escape_ && c == next_of(kMeta)))) {
          ++held_spaces;
          continue;
        }
        release();
        if (c == ' ')
          put_space(consumed ? 1 : 0);
        else
          out.put(c, consumed ? 1 : 0);
        consumed = true;
      }
      const size_t n_chars = count_chars(in.substr(at, size));
      out.drop(consumed ? n_chars - 1 : n_chars);
      at += size;
      if (!squeeze_) is_previous_space = false;
    }
    if (suffix_ && dummy_) put_space(1);
    text = out.finish();
  }

 private:
  static uint32_t next_of(std::string_view s) {
    size_t at = 0;
    return next_char(s, at);
  }
  // what the start of the text becomes, and how many bytes that takes
  std::pair<size_t, std::string_view> prefix(std::string_view text) const {
    if (const size_t n = symbols_.longest(text); n > 0) return {n, text.substr(0, n)};
    if (const auto match = map_.longest(text)) return {match->size, match->replacement};
    const size_t n = utf8_length(static_cast<unsigned char>(text[0]));
    return {n, text.substr(0, n)};
  }
  Charsmap map_;
  SymbolMatcher symbols_;
  bool dummy_, squeeze_, escape_, suffix_;
};

// Spaces for U+2581 (none at the start), bytes of <0x..> pieces as characters, U+FFFD for each byte that fits in none.
class SentencePieceDecode final : public DecodeStage {
 public:
  SentencePieceDecode(bool strips_first, bool strips_all) : strips_first_(strips_first), strips_all_(strips_all) {}
  void push(std::string_view token, Sink sink) override {
    int byte = -1;
    if (token.size() == 6 && token.starts_with("<0x") && token[5] == '>')
      byte = static_cast<int>(std::strtol(std::string(token.substr(3, 2)).c_str(), nullptr, 16));
    if (byte >= 0) {
      run_ += static_cast<char>(byte);
      emit_run(sink, false);
      return;
    }
    emit_run(sink, true);
    if (is_start_ && strips_first_ && token.starts_with(kMeta)) {
      token.remove_prefix(kMeta.size());
      if (!strips_all_) is_start_ = false;
    }
    if (token.empty()) return;
    is_start_ = false;
    std::string out;
    for (size_t at = 0; at < token.size();) {
      if (token.substr(at).starts_with(kMeta)) {
        out += ' ';
        at += kMeta.size();
      } else {
        out += token[at++];
      }
    }
    sink(out);
  }
  void finish(Sink sink) override {
    emit_run(sink, true);
    is_start_ = true;
  }

 private:
  void emit_run(Sink sink, bool is_end) {
    size_t at = 0;
    std::string out;
    while (at < run_.size()) {
      const std::string_view rest = std::string_view(run_).substr(at);
      const size_t n = utf8_length(static_cast<unsigned char>(rest[0]));
      if (n <= rest.size() && is_valid_utf8(rest.substr(0, n))) {
        out += rest.substr(0, n);
        at += n;
      } else if (!is_end && incomplete_tail(rest) == rest.size()) {
        break;
      } else {
        out += "\xef\xbf\xbd";
        ++at;
      }
    }
    run_.erase(0, at);
    if (out.empty()) return;
    is_start_ = false;
    sink(out);
  }
  bool strips_first_, strips_all_, is_start_ = true;
  std::string run_;
};

}  // namespace

SentencePieceFile parse_sentencepiece(std::string_view bytes, const std::string& name) {
  SentencePieceFile file;
  for (Message m(bytes, name); m.next();) {
    if (m.field() == 1) {
      if (file.pieces.size() >= kMaxPieces) fail(ErrorCode::kInvalidInput, "{}: more than {} pieces", name, kMaxPieces);
      file.pieces.push_back(parse_piece(m.text(), name, file.pieces.size()));
    } else if (m.field() == 2) {
      for (Message t(m.text(), name); t.next();) {
        if (t.field() == 3) file.model_type = static_cast<int>(std::clamp<int64_t>(t.number(), 0, 99));
        if (t.field() == 24) file.whitespace_is_suffix = t.flag();
        if (t.field() == 35) file.byte_fallback = t.flag();
        if (t.field() == 44) file.unk_surface = t.text();
      }
    } else if (m.field() == 3) {
      for (Message n(m.text(), name); n.next();) {
        if (n.field() == 2) file.charsmap = n.text();
        if (n.field() == 3) file.add_dummy_prefix = n.flag();
        if (n.field() == 4) file.remove_extra_whitespaces = n.flag();
        if (n.field() == 5) file.escape_whitespaces = n.flag();
      }
    } else if (m.field() == 5) {
      for (Message n(m.text(), name); n.next();)
        if (n.field() == 2) file.denormalizer_charsmap = n.text();
    }
  }
  if (file.pieces.empty()) fail(ErrorCode::kInvalidInput, "{}: not a SentencePiece model: it has no pieces", name);
  if (file.model_type != 1 && file.model_type != 2)
    fail(ErrorCode::kUnsupported, "{}: SentencePiece model type {} is not supported; 1 (Unigram) and 2 (BPE) are", name,
         file.model_type);
  if (!file.denormalizer_charsmap.empty())
    fail(ErrorCode::kUnsupported, "{}: denormalizer_spec has a character map, which is not supported", name);
  if (!is_valid_utf8(file.unk_surface))
    fail(ErrorCode::kInvalidInput, "{}: trainer_spec.unk_surface is not UTF-8", name);
  return file;
}

NormalizerPtr sentencepiece_normalizer(const SentencePieceFile& file, const std::string& name) {
  return std::make_unique<SentencePieceNormalizer>(file, name);
}

DecoderStep sentencepiece_decoder(const SentencePieceFile& file) {
  const bool first = file.add_dummy_prefix || file.remove_extra_whitespaces, all = file.remove_extra_whitespaces;
  return {[first, all](bool) { return std::make_unique<SentencePieceDecode>(first, all); }, false};
}

std::unique_ptr<Tokenizer> Tokenizer::from_sentencepiece(std::string_view bytes, const std::string& name) {
  const SentencePieceFile file = parse_sentencepiece(bytes, name);
  auto t = std::make_unique<Impl>();
  t->name = name;
  t->content_hash = hash_bytes(bytes, 0x746f6b656e697a65ull);
  t->normalizer = sentencepiece_normalizer(file, name);
  t->model = sentencepiece_model(file, name);
  t->decoders.push_back(sentencepiece_decoder(file));
  // The library never reads control symbols out of a text: search_order stays empty.
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const auto& piece = file.pieces[id];
    if (piece.type != SentencePieceFile::Type::kControl && piece.type != SentencePieceFile::Type::kUnknown) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = piece.text;
    token.special = true;
    t->added.push_back(token);
    t->shown_as.emplace_back(token.id, piece.type == SentencePieceFile::Type::kUnknown ? file.unk_surface : "");
  }
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(t)));
}

}  // namespace pmetal::text
