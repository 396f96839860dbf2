#include "text/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <queue>
#include <unordered_map>

#include "base/error.h"
#include "text/tokenizer/normalizers.h"
#include "text/tokenizer/scanner.h"
#include "text/tokenizer/unicode.h"
#include "text/tokenizer/vocab.h"

namespace pmetal::text {

namespace {

// Longer words are cut: each merge reads whole words, so that one endless word would make training quadratic.
constexpr size_t kMaxWordBytes = 512;
constexpr int32_t kMaxVocab = 1 << 22;

uint64_t pair_key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

struct Pair {
  int64_t count = 0;
  std::vector<uint32_t> words;  // where it has occurred; may repeat, may be out of date
};

struct Candidate {
  int64_t count;
  uint64_t pair;
  bool operator<(const Candidate& other) const {  // the queue's top is its largest
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

struct Word {
  uint32_t begin, size;  // symbols
  int64_t count;
};

}  // namespace

struct BpeTrainer::Impl {
  BpeTrainerOptions options;
  NormalizerPtr nfc = unicode_normalizer(UnicodeForm::kNfc);
  Vocab words;
  std::vector<int64_t> counts;

  std::vector<Word> word_of;
  std::vector<int32_t> symbols;
  std::vector<std::string> tokens;  // by id, in the byte-level alphabet
  std::unordered_map<std::string, int32_t> ids;
  std::vector<std::pair<int32_t, int32_t>> merges;
  std::unordered_map<uint64_t, Pair> pairs;
  std::priority_queue<Candidate> queue;

  void count_word(std::string_view word) {
    int32_t id = words.find(word);
    if (id < 0) {
      id = words.size();
      words.add(word, id);
      counts.push_back(0);
    }
    ++counts[id];
  }

  void start() {
    for (const std::string& token : options.special_tokens) {
      if (token.empty() || !ids.emplace(token, static_cast<int32_t>(tokens.size())).second)
        fail(ErrorCode::kUsage, "special token \"{}\" is empty or given twice", token);
      tokens.push_back(token);
    }
    // bytes in the order of their characters in the alphabet
    std::vector<std::pair<uint32_t, int>> bytes;
    for (int b = 0; b < 256; ++b) bytes.emplace_back(byte_to_char(static_cast<uint8_t>(b)), b);
    std::sort(bytes.begin(), bytes.end());
    std::vector<int32_t> id_of_byte(256);
    for (const auto& [c, b] : bytes) {
      id_of_byte[b] = static_cast<int32_t>(tokens.size());
      if (!ids.emplace(to_utf8(c), id_of_byte[b]).second)
        fail(ErrorCode::kUsage, "special token \"{}\" is a single character that stands for a byte", to_utf8(c));
      tokens.push_back(to_utf8(c));
    }
    for (int32_t w = 0; w < words.size(); ++w) {
      const std::string_view word = words.token(w);
      if (word.size() < 2) continue;
      word_of.push_back({static_cast<uint32_t>(symbols.size()), static_cast<uint32_t>(word.size()), counts[w]});
      for (char c : word) symbols.push_back(id_of_byte[static_cast<uint8_t>(c)]);
    }
    for (uint32_t w = 0; w < word_of.size(); ++w) {
      const Word& word = word_of[w];
      for (uint32_t i = 0; i + 1 < word.size; ++i) {
        Pair& pair = pairs[pair_key(symbols[word.begin + i], symbols[word.begin + i + 1])];
        pair.count += word.count;
        if (pair.words.empty() || pair.words.back() != w) pair.words.push_back(w);
      }
    }
    for (const auto& [key, pair] : pairs) queue.push({pair.count, key});
  }

  // Replaces the pair in one word; neighbouring pairs change their counts, new ones are noted in `fresh`.
  void merge_in(uint32_t w, int32_t left, int32_t right, int32_t merged, std::vector<uint64_t>& fresh) {
    Word& word = word_of[w];
    int32_t* s = symbols.data() + word.begin;
    const auto lose = [&](int32_t a, int32_t b) { pairs[pair_key(a, b)].count -= word.count; };
    const auto gain = [&](int32_t a, int32_t b) {
      Pair& pair = pairs[pair_key(a, b)];
      pair.count += word.count;
      if (pair.words.empty() || pair.words.back() != w) pair.words.push_back(w);
      fresh.push_back(pair_key(a, b));
    };
    uint32_t kept = 0;
    for (uint32_t i = 0; i < word.size;) {
      if (i + 1 < word.size && s[i] == left && s[i + 1] == right) {
        if (kept > 0) {
          lose(s[kept - 1], left);
          gain(s[kept - 1], merged);
        }
        if (i + 2 < word.size) {
          lose(right, s[i + 2]);
          gain(merged, s[i + 2]);
        }
        s[kept++] = merged;
        i += 2;
      } else {
        s[kept++] = s[i++];
      }
    }
    word.size = kept;
  }

  void run() {
    std::vector<uint64_t> fresh;
    while (static_cast<int32_t>(tokens.size()) < options.vocab_size && !queue.empty()) {
      const Candidate top = queue.top();
      queue.pop();
      Pair& pair = pairs[top.pair];
      if (pair.count != top.count) {  // out of date: back into the queue at its place
        if (pair.count > 0 && pair.count < top.count) queue.push({pair.count, top.pair});
        continue;
      }
      if (top.count < std::max<int64_t>(options.min_frequency, 1)) break;
      const auto left = static_cast<int32_t>(top.pair >> 32), right = static_cast<int32_t>(top.pair & UINT32_MAX);
      std::string text = tokens[left] + tokens[right];
      const auto [entry, is_new] = ids.emplace(std::move(text), static_cast<int32_t>(tokens.size()));
      if (is_new) tokens.push_back(entry->first);
      merges.emplace_back(left, right);
      const std::vector<uint32_t> places = std::move(pair.words);
      fresh.clear();
      for (uint32_t w : places) merge_in(w, left, right, entry->second, fresh);
      pairs[top.pair].count = 0;
      std::sort(fresh.begin(), fresh.end());
      fresh.erase(std::unique(fresh.begin(), fresh.end()), fresh.end());
      for (uint64_t key : fresh)
        if (pairs[key].count > 0) queue.push({pairs[key].count, key});
    }
  }
};

BpeTrainer::BpeTrainer(BpeTrainerOptions options) : impl_(std::make_unique<Impl>()) {
  const auto least = static_cast<int64_t>(options.special_tokens.size()) + 256;
  if (options.vocab_size < least || options.vocab_size > kMaxVocab)
    fail(ErrorCode::kUsage, "vocab_size {} does not lie in [{}, {}]: {} special tokens and 256 bytes come first",
         options.vocab_size, least, kMaxVocab, options.special_tokens.size());
  impl_->options = std::move(options);
}
BpeTrainer::~BpeTrainer() = default;

void BpeTrainer::add(std::string_view text) {
  if (!is_valid_utf8(text)) fail(ErrorCode::kInvalidInput, "the text to train a tokenizer on is not valid UTF-8");
  static const ScanFunction scan = find_scanner(kQwen2Pattern);
  Arena arena(false);
  Normalized normal{text};
  impl_->nfc->apply(normal, arena);
  for (size_t at = 0; at < normal.text.size();) {
    const size_t end = scan(normal.text, at);
    for (; at < end; at += std::min(end - at, kMaxWordBytes))
      impl_->count_word(normal.text.substr(at, std::min(end - at, kMaxWordBytes)));
  }
}

std::string BpeTrainer::finish() {
  impl_->start();
  impl_->run();
  using json = nlohmann::ordered_json;
  json added = json::array();
  for (size_t i = 0; i < impl_->options.special_tokens.size(); ++i)
    added.push_back({{"id", i},
                     {"content", impl_->options.special_tokens[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  const auto byte_level = [](bool prefix, bool trim, bool regex) {
    return json{{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"trim_offsets", trim}, {"use_regex", regex}};
  };
  json vocab = json::object(), merges = json::array();
  // nlohmann's ordered object searches on every insertion: filled through its vector
  auto& entries = vocab.get_ref<json::object_t&>();
  for (size_t id = 0; id < impl_->tokens.size(); ++id) entries.push_back({impl_->tokens[id], json(id)});
  for (const auto& [left, right] : impl_->merges) merges.push_back({impl_->tokens[left], impl_->tokens[right]});
  const json split{
      {"type", "Split"}, {"pattern", {{"Regex", kQwen2Pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  json file{{"version", "1.0"},
            {"truncation", nullptr},
            {"padding", nullptr},
            {"added_tokens", added},
            {"normalizer", {{"type", "NFC"}}},
            {"pre_tokenizer",
             {{"type", "Sequence"}, {"pretokenizers", json::array({split, byte_level(false, true, false)})}}},
            {"post_processor", byte_level(true, false, true)},
            {"decoder", byte_level(true, true, true)}};
  file["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", false}};
  file["model"]["vocab"] = std::move(vocab);
  file["model"]["merges"] = std::move(merges);
  impl_ = std::make_unique<Impl>();
  return file.dump(2) + "\n";
}

}  // namespace pmetal::text
