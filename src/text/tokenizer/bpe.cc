#include "text/tokenizer/bpe.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "text/tokenizer/unicode.h"

namespace pmetal::text {

namespace {

constexpr uint32_t kNoRank = UINT32_MAX;
// Words up to here are merged by scanning for the best pair (no heap): faster for the few symbols of a real word.
constexpr size_t kShortWord = 32;
constexpr size_t kCacheEntries = 1 << 15;  // 64 bytes each

// pair of ids -> rank and merged id
class MergeTable {
 public:
  struct Merge {
    uint32_t rank = kNoRank;
    int32_t merged = -1;
  };
  explicit MergeTable(const std::vector<BpeMerge>& merges) {
    size_t size = 64;
    while (size < merges.size() * 2 + 1) size *= 2;
    slots_.assign(size, Slot{});
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      const uint64_t key = key_of(merges[rank].left, merges[rank].right);
      size_t i = place(key);
      while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & (size - 1);
      slots_[i] = {key, {static_cast<uint32_t>(rank), merges[rank].merged}};  // a repeated pair takes its last rank
    }
  }
  Merge find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t i = place(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].key == key) return slots_[i].merge;
      if (slots_[i].key == kEmpty) return {};
    }
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t place(uint64_t key) const {
    return static_cast<size_t>((key * 0x9e3779b97f4a7c15ull) >> 32) & (slots_.size() - 1);
  }
  std::vector<Slot> slots_;
};

struct CacheEntry {
  uint64_t hash = 0;
  uint8_t size = 0, n_ids = 0;  // size 0: empty
  char key[22] = {};
  int32_t ids[8] = {};
};

struct BpeScratch final : Scratch {
  std::vector<CacheEntry> cache = std::vector<CacheEntry>(kCacheEntries);
  // symbols of the word at hand
  std::vector<int32_t> ids;
  std::vector<uint32_t> sizes;  // bytes of the text
  // linked list and queue of long words
  std::vector<int32_t> next, previous, merged;
  std::vector<uint32_t> rank;
  std::vector<uint64_t> heap;
  std::string buffer;
};

class BpeModel final : public Bpe {
 public:
  explicit BpeModel(BpeOptions o) : Bpe(std::move(o.vocab)), o_(std::move(o)), merges_(o_.merges) {
    o_.merges = {};
    std::string bytes;
    byte_id_.fill(-1);
    fallback_id_.fill(-1);
    size_of_.assign(vocab_.id_limit(), 0);
    if (o_.reads_bytes) raw_.reserve(vocab_.size());
    for (int32_t id = 0; id < vocab_.id_limit(); ++id) {
      if (!vocab_.has_id(id)) continue;
      const std::string_view token = vocab_.token(id);
      if (vocab_.find(token) != id) continue;
      if (!o_.reads_bytes) {
        size_of_[id] = static_cast<uint32_t>(token.size());
        if (token.size() == 1) byte_id_[static_cast<uint8_t>(token[0])] = id;
      } else if (alphabet_to_bytes(token, bytes)) {
        size_of_[id] = static_cast<uint32_t>(bytes.size());
        raw_.add(bytes, id);
        if (bytes.size() == 1) byte_id_[static_cast<uint8_t>(bytes[0])] = id;
      }
    }
    if (o_.byte_fallback)
      for (int b = 0; b < 256; ++b) fallback_id_[b] = vocab_.find(fmt::format("<0x{:02X}>", b));
    const bool has_affixes = !o_.continuing_prefix.empty() || !o_.end_of_word_suffix.empty();
    plain_symbols_ = !has_affixes;
  }

  std::unique_ptr<Scratch> make_scratch() const override { return std::make_unique<BpeScratch>(); }
  bool reads_bytes() const override { return o_.reads_bytes; }

  void tokenize(std::string_view text, Scratch* scratch, std::vector<Token>& out) const override {
    auto& s = static_cast<BpeScratch&>(*scratch);
    const auto size = static_cast<uint32_t>(text.size());
    if (const CacheEntry* hit = cached(text, s)) {
      uint32_t begin = 0;
      for (int i = 0; i < hit->n_ids; ++i) {
        const uint32_t end = i + 1 == hit->n_ids ? size : begin + size_of_[hit->ids[i]];
        out.push_back({hit->ids[i], begin, end});
        begin = end;
      }
      return;
    }
    merge_word(text, s);
    uint32_t begin = 0;
    for (size_t i = 0; i < s.ids.size(); ++i) {
      out.push_back({s.ids[i], begin, begin + s.sizes[i]});
      begin += s.sizes[i];
    }
  }

  void append_ids(std::string_view text, Scratch* scratch, std::vector<int32_t>& ids) const override {
    auto& s = static_cast<BpeScratch&>(*scratch);
    if (const CacheEntry* hit = cached(text, s)) {
      ids.insert(ids.end(), hit->ids, hit->ids + hit->n_ids);
      return;
    }
    merge_word(text, s);
    ids.insert(ids.end(), s.ids.begin(), s.ids.end());
  }

 private:
  // The cache's entry for a short word, computed now if need be. Null where the entry could not hold the word or where
  // token sizes do not follow from ids (affixes, unknown characters, byte fallback).
  const CacheEntry* cached(std::string_view text, BpeScratch& s) const {
    if (!plain_symbols_ || text.size() > sizeof(CacheEntry::key) || text.empty()) return nullptr;
    const uint64_t hash = hash_bytes(text);
    CacheEntry& entry = s.cache[hash >> 49];
    static_assert(kCacheEntries == 1 << 15);
    if (entry.hash == hash && entry.size == text.size() && std::memcmp(entry.key, text.data(), text.size()) == 0)
      return &entry;
    if (!merge_word(text, s) || s.ids.size() > std::size(entry.ids)) return nullptr;
    entry.hash = hash;
    entry.size = static_cast<uint8_t>(text.size());
    entry.n_ids = static_cast<uint8_t>(s.ids.size());
    std::memcpy(entry.key, text.data(), text.size());
    std::copy(s.ids.begin(), s.ids.end(), entry.ids);
    return &entry;
  }

  // Fills s.ids and s.sizes. True: every symbol came from the vocabulary by its own text.
  bool merge_word(std::string_view text, BpeScratch& s) const {
    s.ids.clear();
    s.sizes.clear();
    if (o_.ignore_merges) {
      const int32_t id = o_.reads_bytes ? raw_.find(text) : vocab_.find(text);
      if (id >= 0) {
        s.ids.push_back(id);
        s.sizes.push_back(static_cast<uint32_t>(text.size()));
        return true;
      }
    }
    const bool plain = initial_symbols(text, s);
    if (s.ids.size() > kShortWord)
      merge_long(s);
    else
      merge_short(s);
    return plain;
  }

  bool initial_symbols(std::string_view text, BpeScratch& s) const {
    bool plain = true;
    int32_t unk = -1;
    uint32_t unk_size = 0;
    const auto add = [&](int32_t id, uint32_t size) {
      s.ids.push_back(id);
      s.sizes.push_back(size);
    };
    for (size_t at = 0; at < text.size();) {
      const size_t n = o_.reads_bytes ? 1 : utf8_length(static_cast<unsigned char>(text[at]));
      const bool is_first = at == 0, is_last = at + n >= text.size();
      std::string_view symbol = text.substr(at, n);
      const auto size = static_cast<uint32_t>(n);
      at += n;
      int32_t id = -1;
      if ((is_first || o_.continuing_prefix.empty()) && (!is_last || o_.end_of_word_suffix.empty())) {
        id = n == 1 ? byte_id_[static_cast<uint8_t>(symbol[0])] : vocab_.find(symbol);
      } else {
        s.buffer.clear();
        if (!is_first) s.buffer += o_.continuing_prefix;
        s.buffer += symbol;
        if (is_last) s.buffer += o_.end_of_word_suffix;
        symbol = s.buffer;
        id = o_.reads_bytes ? raw_.find(symbol) : vocab_.find(symbol);
      }
      if (id >= 0) {
        if (unk >= 0) add(unk, unk_size);
        unk = -1;
        add(id, size);
        continue;
      }
      plain = false;
      if (o_.byte_fallback && std::all_of(symbol.begin(), symbol.end(),
                                          [&](char c) { return fallback_id_[static_cast<uint8_t>(c)] >= 0; })) {
        for (char c : symbol) add(fallback_id_[static_cast<uint8_t>(c)], 1);  // a pending unknown stays pending
        continue;
      }
      if (o_.unk_id < 0) continue;
      if (unk >= 0 && o_.fuse_unk) {
        unk_size += size;
      } else {
        if (unk >= 0) add(unk, unk_size);
        unk = o_.unk_id;
        unk_size = size;
      }
    }
    if (unk >= 0) add(unk, unk_size);
    return plain;
  }

  void merge_short(BpeScratch& s) const {
    size_t n = s.ids.size();
    if (n < 2) return;
    std::array<MergeTable::Merge, kShortWord> pair;
    for (size_t i = 0; i + 1 < n; ++i) pair[i] = merges_.find(s.ids[i], s.ids[i + 1]);
    for (;;) {
      size_t best = 0;
      uint32_t best_rank = kNoRank;
      for (size_t i = 0; i + 1 < n; ++i)
        if (pair[i].rank < best_rank) {
          best_rank = pair[i].rank;
          best = i;
        }
      if (best_rank == kNoRank) break;
      s.ids[best] = pair[best].merged;
      s.sizes[best] += s.sizes[best + 1];
      --n;
      for (size_t i = best + 1; i < n; ++i) {
        s.ids[i] = s.ids[i + 1];
        s.sizes[i] = s.sizes[i + 1];
      }
      for (size_t i = best + 1; i + 1 < n; ++i) pair[i] = pair[i + 1];
      if (best > 0) pair[best - 1] = merges_.find(s.ids[best - 1], s.ids[best]);
      if (best + 1 < n) pair[best] = merges_.find(s.ids[best], s.ids[best + 1]);
    }
    s.ids.resize(n);
    s.sizes.resize(n);
  }

  // A queue of pairs, best rank first, leftmost first among equals. An entry is stale when its pair has changed, which
  // shows as another rank at its place.
  void merge_long(BpeScratch& s) const {
    const auto n = static_cast<int32_t>(s.ids.size());
    s.next.resize(n);
    s.previous.resize(n);
    s.rank.assign(n, kNoRank);
    s.merged.resize(n);
    s.heap.clear();
    const auto look_up = [&](int32_t i, int32_t j) {
      const auto m = merges_.find(s.ids[i], s.ids[j]);
      s.rank[i] = m.rank;
      s.merged[i] = m.merged;
      return m.rank != kNoRank;
    };
    const auto key = [&](int32_t i) { return uint64_t{s.rank[i]} << 32 | static_cast<uint32_t>(i); };
    for (int32_t i = 0; i < n; ++i) {
      s.previous[i] = i - 1;
      s.next[i] = i + 1 < n ? i + 1 : -1;
      if (i + 1 < n && look_up(i, i + 1)) s.heap.push_back(key(i));
    }
    std::make_heap(s.heap.begin(), s.heap.end(), std::greater<>());
    const auto push = [&](int32_t i) {
      s.heap.push_back(key(i));
      std::push_heap(s.heap.begin(), s.heap.end(), std::greater<>());
    };
    while (!s.heap.empty()) {
      std::pop_heap(s.heap.begin(), s.heap.end(), std::greater<>());
      const uint64_t top = s.heap.back();
      s.heap.pop_back();
      const auto i = static_cast<int32_t>(top & UINT32_MAX);
      if (s.rank[i] != top >> 32) continue;
      const int32_t j = s.next[i];
      s.ids[i] = s.merged[i];
      s.sizes[i] += s.sizes[j];
      s.ids[j] = -1;
      s.rank[i] = s.rank[j] = kNoRank;
      s.next[i] = s.next[j];
      if (s.next[i] >= 0) {
        s.previous[s.next[i]] = i;
        if (look_up(i, s.next[i])) push(i);
      }
      if (s.previous[i] >= 0 && look_up(s.previous[i], i)) push(s.previous[i]);
    }
    size_t kept = 0;
    for (int32_t i = 0; i >= 0; i = s.next[i]) {
      s.ids[kept] = s.ids[i];
      s.sizes[kept++] = s.sizes[i];
    }
    s.ids.resize(kept);
    s.sizes.resize(kept);
  }

  BpeOptions o_;
  MergeTable merges_;
  Vocab raw_;  // raw bytes -> id, where reads_bytes
  std::array<int32_t, 256> byte_id_{}, fallback_id_{};
  std::vector<uint32_t> size_of_;  // bytes of text that a token stands for
  bool plain_symbols_ = true;
};

}  // namespace

std::unique_ptr<Bpe> Bpe::make(BpeOptions options) { return std::make_unique<BpeModel>(std::move(options)); }

}  // namespace pmetal::text
