// A vocabulary: strings to ids and back, in one block of characters and a flat hash table.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pmetal::text {

inline uint64_t hash_bytes(std::string_view s, uint64_t seed = 0) {
  // multiply-and-fold over 8-byte words (as wyhash does)
  const auto mix = [](uint64_t a, uint64_t b) {
    const unsigned __int128 p = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(p) ^ static_cast<uint64_t>(p >> 64);
  };
  uint64_t h = seed ^ (s.size() * 0x9e3779b97f4a7c15ull);
  const char* p = s.data();
  size_t n = s.size();
  uint64_t word = 0;
  for (; n >= 8; n -= 8, p += 8) {
    __builtin_memcpy(&word, p, 8);
    h = mix(h ^ word, 0xa0761d6478bd642full);
  }
  if (n >= 4) {
    uint32_t a = 0, b = 0;
    __builtin_memcpy(&a, p, 4);
    __builtin_memcpy(&b, p + n - 4, 4);
    word = uint64_t{a} << 32 | b;
  } else if (n > 0) {
    word = uint64_t{static_cast<uint8_t>(p[0])} << 16 | uint64_t{static_cast<uint8_t>(p[n / 2])} << 8 |
           static_cast<uint8_t>(p[n - 1]);
  } else {
    word = 0;
  }
  return mix(h ^ word, 0xe7037ed1a0b428dbull);
}

class Vocab {
 public:
  // Adds or replaces: a repeated string keeps its last id, a repeated id its last string (as a map filled in order).
  void add(std::string_view token, int32_t id);
  // -1: absent
  int32_t find(std::string_view token) const;
  int32_t size() const { return n_; }
  int32_t id_limit() const { return static_cast<int32_t>(by_id_.size()); }
  bool has_id(int32_t id) const { return id >= 0 && id < id_limit() && by_id_[id].offset != kNone; }
  std::string_view token(int32_t id) const { return {chars_.data() + by_id_[id].offset, by_id_[id].size}; }
  void reserve(size_t n);
  size_t longest() const { return longest_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Slot {
    uint32_t offset = kNone, size = 0;
    int32_t id = 0;
    uint32_t tag = 0;
  };
  struct Entry {
    uint32_t offset = kNone, size = 0;
  };
  void grow(size_t capacity);
  std::string chars_;
  std::vector<Slot> slots_;
  std::vector<Entry> by_id_;
  int32_t n_ = 0;
  size_t longest_ = 0;
};

}  // namespace pmetal::text
