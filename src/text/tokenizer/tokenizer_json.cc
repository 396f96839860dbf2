// Reads tokenizer.json. Untrusted: every field is checked for its type, unknown component types are errors, sizes and
// nesting are bounded (simdjson refuses nesting beyond kMaxDepth).
#include <simdjson.h>

#include <array>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/tokenizer/tokenizer_impl.h"
#include "text/tokenizer/unicode.h"
#include "text/tokenizer/unigram.h"

namespace pmetal::text {

namespace {

using simdjson::dom::array;
using simdjson::dom::element;

constexpr size_t kMaxDepth = 64;
constexpr int32_t kMaxTokens = 1 << 24;

// A JSON value and where it stands, for messages.
struct Node {
  element value;
  std::string where;

  [[noreturn]] void bad(std::string_view expected) const {
    fail(ErrorCode::kInvalidInput, "{}: expected {}", where, expected);
  }
  bool is_null() const { return value.is_null(); }
  std::optional<Node> find(std::string_view key) const {
    element child;
    if (value[key].get(child) != simdjson::SUCCESS || child.is_null()) return std::nullopt;
    return Node{child, where + "." + std::string(key)};
  }
  Node at(std::string_view key) const {
    if (auto child = find(key)) return *child;
    fail(ErrorCode::kInvalidInput, "{}: \"{}\" is missing", where, key);
  }
  std::string_view text() const {
    std::string_view s;
    if (value.get(s) != simdjson::SUCCESS) bad("a string");
    return s;
  }
  bool boolean() const {
    bool b = false;
    if (value.get(b) != simdjson::SUCCESS) bad("true or false");
    return b;
  }
  int64_t integer(int64_t low, int64_t high) const {
    int64_t i = 0;
    if (value.get(i) != simdjson::SUCCESS || i < low || i > high) bad(fmt::format("an integer in [{}, {}]", low, high));
    return i;
  }
  double number() const {
    double d = 0;
    if (value.get(d) != simdjson::SUCCESS) bad("a number");
    return d;
  }
  uint32_t character() const {
    const std::string_view s = text();
    size_t at = 0;
    if (s.empty()) bad("one character");
    const uint32_t c = next_char(s, at);
    if (at != s.size()) bad("one character");
    return c;
  }
  array list() const {
    array a;
    if (value.get(a) != simdjson::SUCCESS) bad("a list");
    return a;
  }
  template <class F>
  void for_each(F f) const {
    size_t i = 0;
    for (element child : list()) f(Node{child, fmt::format("{}[{}]", where, i++)});
  }
  std::string text_or(std::string_view key, std::string_view otherwise) const {
    const auto n = find(key);
    return std::string(n ? n->text() : otherwise);
  }
  bool boolean_or(std::string_view key, bool otherwise) const {
    const auto n = find(key);
    return n ? n->boolean() : otherwise;
  }
  int64_t integer_or(std::string_view key, int64_t otherwise, int64_t low, int64_t high) const {
    const auto n = find(key);
    return n ? n->integer(low, high) : otherwise;
  }
  std::string_view type() const { return at("type").text(); }
  [[noreturn]] void unknown_type(std::string_view kind) const {
    fail(ErrorCode::kUnsupported, "{}: {} type \"{}\" is not known", where, kind, type());
  }
};

struct Pattern {
  std::string text;
  bool is_regex;
};

Pattern read_pattern(const Node& n) {
  const Node pattern = n.at("pattern");
  if (const auto s = pattern.find("String")) return {std::string(s->text()), false};
  if (const auto s = pattern.find("Regex")) return {std::string(s->text()), true};
  pattern.bad("an object with \"String\" or \"Regex\"");
}

std::string from_base64(const Node& n) {
  std::string out;
  uint32_t bits = 0;
  int n_bits = 0;
  for (char c : n.text()) {
    int v = -1;
    if (c >= 'A' && c <= 'Z')
      v = c - 'A';
    else if (c >= 'a' && c <= 'z')
      v = c - 'a' + 26;
    else if (c >= '0' && c <= '9')
      v = c - '0' + 52;
    else if (c == '+')
      v = 62;
    else if (c == '/')
      v = 63;
    else if (c == '=')
      break;
    if (v < 0) n.bad("base64");
    bits = bits << 6 | static_cast<uint32_t>(v);
    n_bits += 6;
    if (n_bits >= 8) {
      n_bits -= 8;
      out += static_cast<char>(bits >> n_bits);
    }
  }
  return out;
}

NormalizerPtr read_normalizer(const Node& n) {
  const std::string_view type = n.type();
  if (type == "Sequence") {
    std::vector<NormalizerPtr> parts;
    n.at("normalizers").for_each([&](const Node& child) { parts.push_back(read_normalizer(child)); });
    if (parts.empty()) return nullptr;
    parts.erase(std::remove(parts.begin(), parts.end(), nullptr), parts.end());
    return normalizer_sequence(std::move(parts));
  }
  if (type == "NFC") return unicode_normalizer(UnicodeForm::kNfc);
  if (type == "NFD") return unicode_normalizer(UnicodeForm::kNfd);
  if (type == "NFKC") return unicode_normalizer(UnicodeForm::kNfkc);
  if (type == "NFKD") return unicode_normalizer(UnicodeForm::kNfkd);
  if (type == "Lowercase") return lowercase_normalizer();
  if (type == "StripAccents") return strip_accents_normalizer();
  if (type == "Nmt") return nmt_normalizer();
  if (type == "ByteLevel") return byte_level_normalizer();
  if (type == "Strip") return strip_normalizer(n.at("strip_left").boolean(), n.at("strip_right").boolean());
  if (type == "Prepend") return prepend_normalizer(std::string(n.at("prepend").text()));
  if (type == "Replace") {
    const Pattern p = read_pattern(n);
    return replace_normalizer(p.text, p.is_regex, std::string(n.at("content").text()), n.where);
  }
  if (type == "BertNormalizer") {
    const bool lowercase = n.at("lowercase").boolean();
    return bert_normalizer(n.at("clean_text").boolean(), n.at("handle_chinese_chars").boolean(),
                           n.boolean_or("strip_accents", lowercase), lowercase);
  }
  if (type == "Precompiled") return precompiled_normalizer(from_base64(n.at("precompiled_charsmap")), n.where);
  n.unknown_type("normalizer");
}

SplitBehavior read_behavior(const Node& n) {
  static constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kNames{
      {{"Removed", SplitBehavior::kRemoved},
       {"Isolated", SplitBehavior::kIsolated},
       {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
       {"MergedWithNext", SplitBehavior::kMergedWithNext},
       {"Contiguous", SplitBehavior::kContiguous}}};
  for (const auto& [name, behavior] : kNames)
    if (n.text() == name) return behavior;
  n.bad("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

struct MetaspaceSettings {
  std::string replacement;
  PrependScheme scheme;
  bool split;
};

MetaspaceSettings read_metaspace(const Node& n) {
  const Node replacement = n.at("replacement");
  replacement.character();
  const std::string scheme = n.text_or("prepend_scheme", "always");
  MetaspaceSettings m{std::string(replacement.text()), PrependScheme::kAlways, n.boolean_or("split", true)};
  if (scheme == "first")
    m.scheme = PrependScheme::kFirst;
  else if (scheme == "never")
    m.scheme = PrependScheme::kNever;
  else if (scheme != "always")
    n.at("prepend_scheme").bad("first, never or always");
  if (!n.boolean_or("add_prefix_space", true)) {
    if (n.find("prepend_scheme") && m.scheme != PrependScheme::kNever)
      fail(ErrorCode::kInvalidInput, "{}: add_prefix_space is false but prepend_scheme is \"{}\"", n.where, scheme);
    m.scheme = PrependScheme::kNever;
  }
  return m;
}

void read_pre_tokenizer(const Node& n, PreTokenizerChain& chain) {
  const std::string_view type = n.type();
  auto& steps = chain.steps;
  if (type == "Sequence") {
    n.at("pretokenizers").for_each([&](const Node& child) { read_pre_tokenizer(child, chain); });
    return;
  }
  if (chain.ends_in_bytes) {  // not the end after all: spell the bytes out for the steps that follow
    steps.push_back(byte_alphabet_pre_tokenizer());
    chain.ends_in_bytes = false;
  }
  if (type == "ByteLevel") {
    const bool use_regex = n.boolean_or("use_regex", true), prefix = n.at("add_prefix_space").boolean();
    chain.only_regex = steps.size() == 1 && !use_regex && !prefix ? chain.only_regex : "";
    if (steps.empty() && use_regex && !prefix) chain.only_regex = kGpt2Pattern;
    if (prefix) steps.push_back(prefix_space_pre_tokenizer());
    if (use_regex) steps.push_back(split_pre_tokenizer(kGpt2Pattern, true, SplitBehavior::kIsolated, false, n.where));
    chain.ends_in_bytes = true;
    return;
  }
  const bool is_first = steps.empty();
  chain.only_regex.clear();
  if (type == "Split") {
    const Pattern p = read_pattern(n);
    const SplitBehavior behavior = read_behavior(n.at("behavior"));
    const bool invert = n.at("invert").boolean();
    if (is_first && p.is_regex && behavior == SplitBehavior::kIsolated) chain.only_regex = p.text;
    steps.push_back(split_pre_tokenizer(p.text, p.is_regex, behavior, invert, n.where));
  } else if (type == "Metaspace") {
    MetaspaceSettings m = read_metaspace(n);
    chain.needs_origin |= m.scheme == PrependScheme::kFirst;
    steps.push_back(metaspace_pre_tokenizer(std::move(m.replacement), m.scheme, m.split));
  } else if (type == "Whitespace") {
    steps.push_back(whitespace_pre_tokenizer());
  } else if (type == "WhitespaceSplit") {
    steps.push_back(whitespace_split_pre_tokenizer());
  } else if (type == "Digits") {
    steps.push_back(digits_pre_tokenizer(n.at("individual_digits").boolean()));
  } else if (type == "Punctuation") {
    const auto behavior = n.find("behavior");
    steps.push_back(punctuation_pre_tokenizer(behavior ? read_behavior(*behavior) : SplitBehavior::kIsolated));
  } else if (type == "BertPreTokenizer") {
    steps.push_back(bert_pre_tokenizer());
  } else if (type == "CharDelimiterSplit") {
    steps.push_back(delimiter_pre_tokenizer(n.at("delimiter").character()));
  } else if (type == "UnicodeScripts") {
    steps.push_back(unicode_scripts_pre_tokenizer());
  } else if (type == "FixedLength") {
    steps.push_back(fixed_length_pre_tokenizer(static_cast<size_t>(n.integer_or("length", 5, 1, 1 << 30))));
  } else {
    n.unknown_type("pre-tokenizer");
  }
}

// The reference's JSON reader does not round every number to the nearest double: it divides the digits, as a double, by
// a power of ten. Two ways to cut a text whose scores tie depend on that last bit.
double as_reference_reads(double nearest) {
  char text[32];
  char* const end = std::to_chars(text, text + sizeof text, nearest, std::chars_format::scientific).ptr;
  uint64_t digits = 0;
  int n_decimals = 0, exponent = 0;
  const char* c = text + (text[0] == '-');
  for (; c < end && *c != 'e'; ++c) {
    if (*c == '.') continue;
    if (*c < '0' || *c > '9') return nearest;  // not a finite number
    digits = digits * 10 + static_cast<uint64_t>(*c - '0');
    ++n_decimals;
  }
  if (c < end) std::from_chars(c + 1 + (c[1] == '+'), end, exponent);
  exponent -= n_decimals - 1;
  static constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                       1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  if (std::abs(exponent) >= static_cast<int>(std::size(kPowers))) return nearest;  // no score is like that
  const auto whole = static_cast<double>(digits);
  const double value = exponent < 0 ? whole / kPowers[-exponent] : whole * kPowers[exponent];
  return std::signbit(nearest) ? -value : value;
}

Vocab read_vocab(const Node& n) {
  simdjson::dom::object object;
  if (n.value.get(object) != simdjson::SUCCESS) n.bad("an object of token: id");
  Vocab vocab;
  vocab.reserve(object.size());
  for (const auto field : object) {
    int64_t id = 0;
    if (field.value.get(id) != simdjson::SUCCESS || id < 0 || id >= kMaxTokens)
      fail(ErrorCode::kInvalidInput, "{}: token \"{}\" must have an integer id in [0, {})", n.where, field.key,
           kMaxTokens);
    vocab.add(field.key, static_cast<int32_t>(id));
  }
  return vocab;
}

std::vector<BpeMerge> read_merges(const Node& n, const Vocab& vocab, size_t prefix_size) {
  std::vector<BpeMerge> merges;
  const array list = n.list();
  merges.reserve(list.size());
  std::string merged;
  for (element item : list) {
    std::string_view left, right;
    array pair;
    if (item.get(left) == simdjson::SUCCESS) {
      const size_t space = left.find(' ');
      if (space == std::string_view::npos || left.find(' ', space + 1) != std::string_view::npos)
        fail(ErrorCode::kInvalidInput, "{}[{}]: expected two tokens with one space between, found \"{}\"", n.where,
             merges.size(), left);
      right = left.substr(space + 1);
      left = left.substr(0, space);
    } else if (item.get(pair) != simdjson::SUCCESS || pair.size() != 2 || pair.at(0).get(left) != simdjson::SUCCESS ||
               pair.at(1).get(right) != simdjson::SUCCESS) {
      fail(ErrorCode::kInvalidInput, "{}[{}]: expected two tokens", n.where, merges.size());
    }
    merged.assign(left).append(right.size() >= prefix_size ? right.substr(prefix_size) : std::string_view());
    const BpeMerge m{vocab.find(left), vocab.find(right), vocab.find(merged)};
    if (m.left < 0 || m.right < 0 || m.merged < 0)
      fail(ErrorCode::kInvalidInput, "{}[{}]: merges \"{}\" and \"{}\", but \"{}\" is not in the vocabulary", n.where,
           merges.size(), left, right,
           m.left < 0    ? left
           : m.right < 0 ? right
                         : std::string_view(merged));
    merges.push_back(m);
  }
  return merges;
}

std::unique_ptr<Model> read_bpe(const Node& n, Tokenizer::Impl& t) {
  if (const auto dropout = n.find("dropout"); dropout && dropout->number() != 0)
    fail(ErrorCode::kUnsupported, "{}: dropout {} makes encoding random; set it to null", n.where, dropout->number());
  BpeOptions o;
  o.vocab = read_vocab(n.at("vocab"));
  o.continuing_prefix = n.text_or("continuing_subword_prefix", "");
  o.end_of_word_suffix = n.text_or("end_of_word_suffix", "");
  o.fuse_unk = n.boolean_or("fuse_unk", false);
  o.byte_fallback = n.boolean_or("byte_fallback", false);
  o.ignore_merges = n.boolean_or("ignore_merges", false);
  o.merges = read_merges(n.at("merges"), o.vocab, o.continuing_prefix.size());
  if (const auto unk = n.find("unk_token")) {
    o.unk_id = o.vocab.find(unk->text());
    if (o.unk_id < 0)
      fail(ErrorCode::kInvalidInput, "{}: unk_token \"{}\" is not in the vocabulary", n.where, unk->text());
  }
  std::string bytes;
  o.reads_bytes = t.pre_tokenizers.ends_in_bytes && o.continuing_prefix.empty() && !o.byte_fallback &&
                  alphabet_to_bytes(o.end_of_word_suffix, bytes) && bytes == o.end_of_word_suffix;
  return Bpe::make(std::move(o));
}

std::unique_ptr<Model> read_model(const Node& n, Tokenizer::Impl& t) {
  std::string type = n.text_or("type", "");
  if (type.empty())  // files from before the type was written
    type = n.find("merges")                                    ? "BPE"
           : n.find("vocab") && n.at("vocab").value.is_array() ? "Unigram"
           : n.find("continuing_subword_prefix")               ? "WordPiece"
                                                               : "WordLevel";
  if (type == "BPE") return read_bpe(n, t);
  if (type == "WordPiece")
    return make_wordpiece(read_vocab(n.at("vocab")), n.text_or("unk_token", "[UNK]"),
                          n.text_or("continuing_subword_prefix", "##"),
                          static_cast<size_t>(n.integer_or("max_input_chars_per_word", 100, 0, 1 << 20)), n.where);
  if (type == "WordLevel") return make_wordlevel(read_vocab(n.at("vocab")), n.text_or("unk_token", "<unk>"), n.where);
  if (type == "Unigram") {
    std::vector<std::pair<std::string, double>> pieces;
    n.at("vocab").for_each([&](const Node& item) {
      const array pair = item.list();
      std::string_view piece;
      double score = 0;
      if (pair.size() != 2 || pair.at(0).get(piece) != simdjson::SUCCESS || pair.at(1).get(score) != simdjson::SUCCESS)
        item.bad("[piece, score]");
      pieces.emplace_back(piece, as_reference_reads(score));
    });
    return make_unigram(std::move(pieces), static_cast<int32_t>(n.integer_or("unk_id", -1, 0, kMaxTokens)),
                        n.boolean_or("byte_fallback", false), n.where);
  }
  fail(ErrorCode::kUnsupported, "{}: model type \"{}\" is not known", n.where, type);
}

int32_t read_special(const Node& pair) {
  const array a = pair.list();
  int64_t id = 0;
  if (a.size() != 2 || a.at(1).get(id) != simdjson::SUCCESS || id < 0 || id >= kMaxTokens) pair.bad("[token, id]");
  return static_cast<int32_t>(id);
}

std::vector<TemplatePiece> read_template(const Node& pieces, const Node& special) {
  std::vector<TemplatePiece> out;
  pieces.for_each([&](const Node& item) {
    TemplatePiece piece;
    const auto sequence = item.find("Sequence");
    const Node body = sequence ? *sequence : item.at("SpecialToken");
    piece.type_id = static_cast<int32_t>(body.at("type_id").integer(0, INT32_MAX));
    const std::string_view id = body.at("id").text();
    if (sequence) {
      if (id != "A" && id != "B") body.at("id").bad("A or B");
      piece.sequence = id == "A" ? 0 : 1;
    } else {
      special.at(id).at("ids").for_each(
          [&](const Node& token) { piece.special_ids.push_back(static_cast<int32_t>(token.integer(0, kMaxTokens))); });
    }
    out.push_back(std::move(piece));
  });
  return out;
}

PostProcessorPtr read_post_processor(const Node& n) {
  const std::string_view type = n.type();
  if (type == "Sequence") {
    std::vector<PostProcessorPtr> parts;
    n.at("processors").for_each([&](const Node& child) { parts.push_back(read_post_processor(child)); });
    return processor_sequence(std::move(parts));
  }
  if (type == "TemplateProcessing") {
    const Node special = n.at("special_tokens");
    return template_processor(read_template(n.at("single"), special), read_template(n.at("pair"), special));
  }
  if (type == "ByteLevel")
    return byte_level_processor(n.boolean_or("trim_offsets", true), n.at("add_prefix_space").boolean());
  if (type == "BertProcessing") return bert_processor(read_special(n.at("sep")), read_special(n.at("cls")));
  if (type == "RobertaProcessing")
    return roberta_processor(read_special(n.at("sep")), read_special(n.at("cls")), n.at("trim_offsets").boolean(),
                             n.at("add_prefix_space").boolean());
  n.unknown_type("post-processor");
}

void read_decoder(const Node& n, DecoderSteps& steps) {
  const std::string_view type = n.type();
  if (type == "Sequence") {
    n.at("decoders").for_each([&](const Node& child) { read_decoder(child, steps); });
  } else if (type == "ByteLevel") {
    steps.push_back(byte_level_decoder());
  } else if (type == "ByteFallback") {
    steps.push_back(byte_fallback_decoder());
  } else if (type == "Fuse") {
    steps.push_back(fuse_decoder());
  } else if (type == "Replace") {
    const Pattern p = read_pattern(n);
    steps.push_back(replace_decoder(p.text, p.is_regex, std::string(n.at("content").text()), n.where));
  } else if (type == "Strip") {
    steps.push_back(strip_decoder(n.at("content").character(), static_cast<size_t>(n.at("start").integer(0, INT32_MAX)),
                                  static_cast<size_t>(n.at("stop").integer(0, INT32_MAX))));
  } else if (type == "Metaspace") {
    MetaspaceSettings m = read_metaspace(n);
    steps.push_back(metaspace_decoder(std::move(m.replacement), m.scheme != PrependScheme::kNever));
  } else if (type == "WordPiece") {
    steps.push_back(wordpiece_decoder(std::string(n.at("prefix").text()), n.at("cleanup").boolean()));
  } else if (type == "BPEDecoder") {
    if (n.at("suffix").text().empty()) n.at("suffix").bad("a suffix that is not empty");
    steps.push_back(bpe_decoder(std::string(n.at("suffix").text())));
  } else if (type == "CTC") {
    if (n.at("pad_token").text().empty() || n.at("word_delimiter_token").text().empty())
      n.bad("pad_token and word_delimiter_token that are not empty");
    steps.push_back(ctc_decoder(std::string(n.at("pad_token").text()), std::string(n.at("word_delimiter_token").text()),
                                n.at("cleanup").boolean()));
  } else {
    n.unknown_type("decoder");
  }
}

Truncation read_truncation(const Node& n) {
  Truncation t;
  t.max_length = static_cast<size_t>(n.at("max_length").integer(0, INT32_MAX));
  t.stride = static_cast<size_t>(n.at("stride").integer(0, INT32_MAX));
  const std::string_view strategy = n.at("strategy").text();
  if (strategy == "OnlyFirst")
    t.strategy = Truncation::Strategy::kOnlyFirst;
  else if (strategy == "OnlySecond")
    t.strategy = Truncation::Strategy::kOnlySecond;
  else if (strategy != "LongestFirst")
    n.at("strategy").bad("LongestFirst, OnlyFirst or OnlySecond");
  const std::string direction = n.text_or("direction", "Right");
  if (direction != "Right" && direction != "Left") n.at("direction").bad("Right or Left");
  t.direction = direction == "Left" ? Truncation::Direction::kLeft : Truncation::Direction::kRight;
  return t;
}

Padding read_padding(const Node& n) {
  constexpr int64_t kMaxPadding = 1 << 24;  // tokens; a file must not make every text gigabytes long
  Padding p;
  const Node strategy = n.at("strategy");
  if (const auto fixed = strategy.value.is_object() ? strategy.find("Fixed") : std::nullopt)
    p.fixed_length = static_cast<size_t>(fixed->integer(0, kMaxPadding));
  else if (!strategy.value.is_string() || strategy.text() != "BatchLongest")
    strategy.bad("\"BatchLongest\" or {\"Fixed\": length}");
  p.multiple_of = static_cast<size_t>(n.integer_or("pad_to_multiple_of", 0, 0, kMaxPadding));
  const std::string_view direction = n.at("direction").text();
  if (direction != "Right" && direction != "Left") n.at("direction").bad("Right or Left");
  p.direction = direction == "Left" ? Padding::Direction::kLeft : Padding::Direction::kRight;
  p.pad_id = static_cast<int32_t>(n.at("pad_id").integer(0, kMaxTokens));
  p.pad_type_id = static_cast<int32_t>(n.at("pad_type_id").integer(0, INT32_MAX));
  return p;
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::from_json(std::string_view json, const std::string& name) {
  simdjson::dom::parser parser;
  if (parser.allocate(json.size() + 1, kMaxDepth) != simdjson::SUCCESS)
    fail(ErrorCode::kInvalidInput, "{}: {} bytes are too many for a tokenizer", name, json.size());
  element root_value;
  if (const auto error = parser.parse(json.data(), json.size()).get(root_value); error != simdjson::SUCCESS)
    fail(ErrorCode::kInvalidInput, "{}: not valid JSON: {}", name, simdjson::error_message(error));
  const Node root{root_value, name};
  if (!root_value.is_object()) root.bad("an object");
  if (const std::string version = root.text_or("version", "1.0"); version != "1.0")
    fail(ErrorCode::kUnsupported, "{}: tokenizer version \"{}\" is not known; this program reads 1.0", name, version);

  auto t = std::make_unique<Impl>();
  t->name = name;
  t->content_hash = hash_bytes(json, 0x746f6b656e697a65ull);
  if (const auto n = root.find("normalizer")) t->normalizer = read_normalizer(*n);
  if (const auto n = root.find("pre_tokenizer")) read_pre_tokenizer(*n, t->pre_tokenizers);
  t->model = read_model(root.at("model"), *t);
  if (t->pre_tokenizers.ends_in_bytes && !t->model->reads_bytes())
    t->pre_tokenizers.steps.push_back(byte_alphabet_pre_tokenizer());
  if (const auto n = root.find("post_processor")) t->post_processor = read_post_processor(*n);
  if (const auto n = root.find("decoder")) {
    read_decoder(*n, t->decoders);
    t->decodes_bytes = n->type() == "ByteLevel";
  } else {
    t->decoders.push_back(space_decoder());
  }
  if (const auto n = root.find("truncation")) t->truncation = read_truncation(*n);
  if (const auto n = root.find("padding")) t->padding = read_padding(*n);
  std::vector<AddedToken> added;
  if (const auto n = root.find("added_tokens"))
    n->for_each([&](const Node& item) {
      AddedToken a;
      a.id = static_cast<int32_t>(item.at("id").integer(0, kMaxTokens));
      a.content = item.at("content").text();
      a.single_word = item.boolean_or("single_word", false);
      a.lstrip = item.boolean_or("lstrip", false);
      a.rstrip = item.boolean_or("rstrip", false);
      a.special = item.boolean_or("special", false);
      a.normalized = item.boolean_or("normalized", !a.special);
      added.push_back(std::move(a));
    });
  t->add_tokens(std::move(added));
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(t)));
}

}  // namespace pmetal::text
