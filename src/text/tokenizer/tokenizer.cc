#include "text/tokenizer/tokenizer.h"

#include <simdjson.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "text/tokenizer/tokenizer_impl.h"
#include "text/tokenizer/unicode.h"

namespace pmetal::text {

namespace {

constexpr size_t kMaxTextBytes =
    std::numeric_limits<uint32_t>::max() / 4;  // positions are 32 bits, also when text grows
constexpr size_t kMaxFreeScratch = 64;         // more threads than this encode rarely

// Bytes of a text to code points, as the reference converts them: a position inside a character is that character.
class CodePoints {
 public:
  explicit CodePoints(std::string_view text) : text_(text), ascii_(is_ascii(text)) {
    if (ascii_) return;
    before_.reserve(text.size() / kBlock + 1);
    uint32_t n = 0;
    for (size_t at = 0; at < text.size(); ++at) {
      if (at % kBlock == 0) before_.push_back(n);
      n += !is_utf8_continuation(text[at]);
    }
  }
  Offset convert(Range r) const {
    const size_t size = text_.size();
    if (r.begin >= size) return {r.begin, r.end};
    const uint32_t begin = index(r.begin);
    if (r.end < size) return {begin, index(r.end)};
    return {begin, (r.end - 1 < size ? index(r.end - 1) : begin + 1) + 1};
  }

 private:
  static constexpr size_t kBlock = 64;
  uint32_t index(size_t at) const {
    if (ascii_) return static_cast<uint32_t>(at);
    uint32_t n = before_[at / kBlock];
    for (size_t i = at / kBlock * kBlock; i <= at; ++i) n += !is_utf8_continuation(text_[i]);
    return n - 1;
  }
  std::string_view text_;
  bool ascii_;
  std::vector<uint32_t> before_;
};

Part::Edge edge_spaces(std::string_view text) {
  const CharClasses classes;
  const uint32_t space = byte_to_char(' ');
  const auto is_space = [&](uint32_t c) { return c == space || classes(c) & kSpace; };
  Part::Edge edge;
  for (size_t at = 0; at < text.size() && is_space(next_char(text, at));) ++edge.leading;
  for (size_t at = text.size(); at > 0 && is_space(previous_char(text, at));) ++edge.trailing;
  return edge;
}

}  // namespace

void Tokenizer::Impl::add_tokens(std::vector<AddedToken> tokens) {
  int32_t next_id = model->vocab_size();
  std::vector<int32_t> special_ids, other_ids;
  for (AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    const auto known =
        std::find_if(added.begin(), added.end(), [&](const auto& t) { return t.content == token.content; });
    if (known != added.end())
      token.id = known->id;
    else if (const auto id = model->token_to_id(token.content))
      token.id = *id;
    else
      token.id = next_id++;
    (token.special ? special_ids : other_ids).push_back(token.id);
    const auto same_id = std::find_if(added.begin(), added.end(), [&](const auto& t) { return t.id == token.id; });
    if (same_id != added.end())
      *same_id = std::move(token);
    else
      added.push_back(std::move(token));
  }
  const auto by_id = [](const auto& a, const auto& b) { return a.id < b.id; };
  std::sort(added.begin(), added.end(), by_id);
  special_ids.insert(special_ids.end(), other_ids.begin(), other_ids.end());
  for (const int32_t id : special_ids) {
    AddedToken wanted;
    wanted.id = id;
    search_order.push_back(
        static_cast<size_t>(std::lower_bound(added.begin(), added.end(), wanted, by_id) - added.begin()));
  }
}

void Tokenizer::Impl::prepare() {
  vocab_size = model->id_limit();
  for (const AddedToken& t : added) vocab_size = std::max(vocab_size, t.id + 1);
  token_text.resize(vocab_size);
  for (int32_t id = 0; id < model->id_limit(); ++id)
    if (model->has_id(id)) token_text[id] = model->id_to_token(id);
  std::unordered_set<std::string> special;
  for (size_t i = 0; i < added.size(); ++i) {
    const AddedToken& t = added[i];
    token_text[t.id] = t.content;
    if (t.normalized && normalizer) {
      Arena arena(false);
      Normalized text{t.content};
      normalizer->apply(text, arena);
      token_text[t.id] = text.text;
    }
    if (t.special) special.insert(t.content);
  }
  for (const size_t i : search_order) {
    const AddedToken& t = added[i];
    (t.normalized ? normalized_tokens : raw_tokens).add(token_text[t.id], static_cast<int32_t>(i));
  }
  is_special.resize(vocab_size);
  for (int32_t id = 0; id < vocab_size; ++id) is_special[id] = special.contains(token_text[id]);
  for (const auto& [id, text] : shown_as) token_text[id] = text;
  if (decodes_bytes) {
    token_bytes.resize(vocab_size);
    for (int32_t id = 0; id < vocab_size; ++id)
      if (!alphabet_to_bytes(token_text[id], token_bytes[id])) token_bytes[id] = token_text[id];
  }
  if (post_processor && post_processor->trims_offsets()) {
    edges.resize(vocab_size);
    for (int32_t id = 0; id < model->id_limit(); ++id)
      if (model->has_id(id)) edges[id] = edge_spaces(model->id_to_token(id));
  }
  if (model->reads_bytes() && !pre_tokenizers.only_regex.empty()) {
    scanner = find_scanner(pre_tokenizers.only_regex);
    if (scanner) bytes_model = dynamic_cast<const Bpe*>(model.get());
  }
}

std::unique_ptr<Scratch> Tokenizer::Impl::take_scratch() const {
  {
    const std::lock_guard lock(mutex);
    if (!free_scratch.empty()) {
      auto s = std::move(free_scratch.back());
      free_scratch.pop_back();
      return s;
    }
  }
  return model->make_scratch();
}

void Tokenizer::Impl::give_scratch(std::unique_ptr<Scratch> scratch) const {
  if (!scratch) return;
  const std::lock_guard lock(mutex);
  if (free_scratch.size() < kMaxFreeScratch) free_scratch.push_back(std::move(scratch));
}

// Added tokens out of the raw text, normalization of the rest, added tokens out of the normalized text.
void Tokenizer::Impl::cut(std::string_view text, Arena& arena, std::vector<Piece>& pieces) const {
  if (text.size() > kMaxTextBytes)
    fail(ErrorCode::kInvalidInput, "{}: a text of {} bytes; one text may have {}", name, text.size(), kMaxTextBytes);
  if (!simdjson::validate_utf8(text.data(), text.size()))
    fail(ErrorCode::kInvalidInput, "{}: the text to encode is not valid UTF-8", name);
  std::vector<Piece> raw;
  raw_tokens.split(Normalized{text}, added, raw);
  for (Piece& piece : raw) {
    if (piece.token >= 0) {
      pieces.push_back(piece);
      continue;
    }
    if (normalizer) normalizer->apply(piece.text, arena);
    normalized_tokens.split(piece.text, added, pieces);
  }
}

void Tokenizer::Impl::encode_bytes(std::string_view text, Scratch* scratch, std::vector<int32_t>& ids) const {
  Arena arena(false);
  std::vector<Piece> pieces;
  cut(text, arena, pieces);
  for (const Piece& piece : pieces) {
    if (piece.token >= 0) {
      ids.push_back(piece.token);
      continue;
    }
    const std::string_view s = piece.text.text;
    for (size_t at = 0; at < s.size();) {
      const size_t end = scanner(s, at);
      bytes_model->append_ids(s.substr(at, end - at), scratch, ids);
      at = end;
    }
  }
}

void Tokenizer::Impl::encode_part(std::string_view text, bool is_second, const std::optional<Truncation>& limits,
                                  bool with_offsets, Part& out) const {
  auto scratch = take_scratch();
  const bool stops_early =
      limits && (limits->strategy != Truncation::Strategy::kOnlySecond || is_second) && limits->max_length > 0;
  out.has_offsets = with_offsets;
  out.has_edges = with_offsets && !edges.empty();
  if (bytes_model && !with_offsets && !stops_early) {
    encode_bytes(text, scratch.get(), out.e.ids);
  } else {
    Arena arena(with_offsets || pre_tokenizers.needs_origin);
    std::vector<Piece> pieces;
    cut(text, arena, pieces);
    run_pre_tokenizers(pre_tokenizers, pieces, arena);
    const CodePoints code_points(with_offsets ? text : std::string_view());
    std::vector<Token> tokens;
    // tokens are wanted up to the limit: whole pieces from the side that stays
    std::vector<std::vector<int32_t>> kept;
    size_t first = 0, last = pieces.size();
    if (stops_early) {
      size_t n = 0;
      const bool from_right = limits->direction == Truncation::Direction::kLeft;
      for (size_t i = 0; i < pieces.size(); ++i) {
        const size_t p = from_right ? pieces.size() - 1 - i : i;
        if (pieces[p].token >= 0) {
          ++n;  // an added token alone does not end the search, as in the reference
          continue;
        }
        tokens.clear();
        model->tokenize(pieces[p].text.text, scratch.get(), tokens);
        n += tokens.size();
        if (n >= limits->max_length) {
          (from_right ? first : last) = from_right ? p : p + 1;
          break;
        }
      }
    }
    for (size_t p = first; p < last; ++p) {
      const Piece& piece = pieces[p];
      tokens.clear();
      if (piece.token >= 0)
        tokens.push_back({piece.token, 0, static_cast<uint32_t>(piece.text.text.size())});
      else
        model->tokenize(piece.text.text, scratch.get(), tokens);
      for (const Token& t : tokens) {
        out.e.ids.push_back(t.id);
        if (!with_offsets) continue;
        Range r{piece.text.begin + t.begin, piece.text.begin + t.end};
        if (t.begin < t.end)
          r = t.end <= piece.text.text.size() ? piece.text.origin(t.begin, t.end) : Range{t.begin, t.end};
        out.e.offsets.push_back(code_points.convert(r));
        if (!out.has_edges) continue;
        if (piece.token >= 0)
          out.edges.push_back(edge_spaces(piece.text.text));
        else if (t.id == model->id_named_by_text())
          out.edges.push_back(edge_spaces(piece.text.text.substr(t.begin, t.end - t.begin)));
        else
          out.edges.push_back(edges[t.id]);
      }
    }
  }
  give_scratch(std::move(scratch));
  const size_t n = out.e.ids.size();
  out.e.type_ids.assign(n, is_second ? 1 : 0);
  out.e.special_mask.assign(n, 0);
  out.e.attention_mask.assign(n, 1);
}

namespace {

size_t padded_length(size_t length, const Padding& padding) {
  if (padding.fixed_length) length = *padding.fixed_length;
  if (padding.multiple_of > 0 && length % padding.multiple_of > 0)
    length += padding.multiple_of - length % padding.multiple_of;
  return length;
}

void pad_encoding(Encoding& e, size_t length, const Padding& padding, bool with_offsets) {
  for (Encoding& o : e.overflow) pad_encoding(o, length, padding, with_offsets);
  if (e.ids.size() >= length) return;
  const size_t n = length - e.ids.size();
  const bool left = padding.direction == Padding::Direction::kLeft;
  const auto put = [&](auto& v, auto value) { v.insert(left ? v.begin() : v.end(), n, value); };
  put(e.ids, padding.pad_id);
  put(e.type_ids, padding.pad_type_id);
  put(e.special_mask, uint8_t{1});
  put(e.attention_mask, uint8_t{0});
  if (with_offsets) put(e.offsets, Offset{});
}

}  // namespace

Encoding Tokenizer::Impl::encode(std::string_view text, const EncodeOptions& options, bool pads) const {
  std::optional<Truncation> limits = options.truncation;
  if (!limits && options.apply_file_limits) limits = truncation;
  std::vector<Part> parts(options.pair ? 2 : 1);
  encode_part(text, false, limits, options.with_offsets, parts[0]);
  if (options.pair) encode_part(*options.pair, true, limits, options.with_offsets, parts[1]);
  if (limits) {
    const size_t n_added =
        post_processor && options.add_special_tokens ? post_processor->n_added(parts.size() == 2) : 0;
    if (n_added > limits->max_length)
      fail(ErrorCode::kInvalidInput, "{}: truncation to {} tokens leaves no room for the {} special tokens", name,
           limits->max_length, n_added);
    limits->max_length -= n_added;
    truncate(parts[0], parts.size() == 2 ? &parts[1] : nullptr, *limits);
  }
  if (post_processor) post_processor->process(parts, options.add_special_tokens);
  Part whole = std::move(parts[0]);
  for (size_t i = 1; i < parts.size(); ++i) whole.append(parts[i]);
  Encoding e = std::move(whole).finish();
  if (pads && padding && options.apply_file_limits)
    pad_encoding(e, padded_length(e.ids.size(), *padding), *padding, options.with_offsets);
  return e;
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) { impl_->prepare(); }
Tokenizer::~Tokenizer() = default;

Encoding Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  return impl_->encode(text, options, true);
}

std::vector<int32_t> Tokenizer::encode_ids(std::string_view text, bool add_special_tokens) const {
  EncodeOptions options;
  options.add_special_tokens = add_special_tokens;
  options.apply_file_limits = false;
  return impl_->encode(text, options, false).ids;
}

std::vector<Encoding> Tokenizer::encode_batch(const std::vector<std::string>& texts,
                                              const EncodeOptions& options) const {
  std::vector<Encoding> out;
  out.reserve(texts.size());
  size_t longest = 0;
  for (const std::string& text : texts) {
    out.push_back(impl_->encode(text, options, false));
    longest = std::max(longest, out.back().ids.size());
  }
  if (impl_->padding && options.apply_file_limits)
    for (Encoding& e : out)
      pad_encoding(e, padded_length(longest, *impl_->padding), *impl_->padding, options.with_offsets);
  return out;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_special) const {
  const Impl& m = *impl_;
  const auto shown = [&](int32_t id) { return id >= 0 && id < m.vocab_size && !(skip_special && m.is_special[id]); };
  std::string out;
  if (m.decodes_bytes) {
    for (int32_t id : ids)
      if (shown(id)) out += m.token_bytes[id];
    if (!simdjson::validate_utf8(out.data(), out.size())) out = to_valid_utf8(out);
    return out;
  }
  DecodeStream stream(m.decoders);
  for (int32_t id : ids)
    if (shown(id) && !m.token_text[id].empty()) stream.push(m.token_text[id], out);
  stream.finish(out);
  return out;
}

int32_t Tokenizer::vocab_size() const { return impl_->vocab_size; }

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  for (const AddedToken& t : impl_->added)
    if (t.content == token) return t.id;
  return impl_->model->token_to_id(token);
}

std::string Tokenizer::id_to_token(int32_t id) const {
  for (const AddedToken& t : impl_->added)
    if (t.id == id) return t.content;
  return impl_->model->has_id(id) ? std::string(impl_->model->id_to_token(id)) : std::string();
}

bool Tokenizer::is_special(int32_t id) const { return id >= 0 && id < impl_->vocab_size && impl_->is_special[id]; }
const std::vector<AddedToken>& Tokenizer::added_tokens() const { return impl_->added; }
uint64_t Tokenizer::hash() const { return impl_->content_hash; }

std::unique_ptr<Tokenizer> Tokenizer::from_file(const std::filesystem::path& path) {
  const std::string contents = read_text(path);
  const std::string name = path.string();
  return path.extension() == ".model" ? from_sentencepiece(contents, name) : from_json(contents, name);
}

std::unique_ptr<Tokenizer> Tokenizer::from_dir(const std::filesystem::path& dir) {
  for (const char* file : {"tokenizer.json", "tokenizer.model"})
    if (std::filesystem::exists(dir / file)) return from_file(dir / file);
  fail(ErrorCode::kNotFound, "{}: neither tokenizer.json nor tokenizer.model is there", dir.string());
}

struct StreamingDecoder::State {
  const Tokenizer::Impl& tokenizer;
  bool skip_special;
  DecodeStream stream;
};

StreamingDecoder::StreamingDecoder(const Tokenizer& tokenizer, bool skip_special)
    : state_(new State{tokenizer.impl(), skip_special, DecodeStream(tokenizer.impl().decoders)}) {}
StreamingDecoder::~StreamingDecoder() = default;
StreamingDecoder::StreamingDecoder(StreamingDecoder&&) noexcept = default;

std::string StreamingDecoder::push(int32_t id) {
  const auto& t = state_->tokenizer;
  std::string out;
  if (id < 0 || id >= t.vocab_size || t.token_text[id].empty()) return out;
  if (state_->skip_special && t.is_special[id]) return out;
  state_->stream.push(t.token_text[id], out);
  return out;
}

std::string StreamingDecoder::flush() {
  std::string out;
  state_->stream.finish(out);
  state_->stream = DecodeStream(state_->tokenizer.decoders);
  return out;
}

}  // namespace pmetal::text
