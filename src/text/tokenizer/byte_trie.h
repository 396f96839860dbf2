// A trie over bytes with an integer at the end of each key; edges in one flat hash table, the root's in an array.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace pmetal::text {

class ByteTrie {
 public:
  static constexpr uint32_t kRoot = 0, kNoNode = 0;  // no edge leads to the root

  ByteTrie() : values_(1, -1) {}
  void reserve(size_t n_edges) { grow(n_edges * 2); }
  // key not empty, value >= 0; a repeated key takes the new value
  void insert(std::string_view key, int32_t value) {
    uint32_t node = kRoot;
    for (char c : key) node = step_or_add(node, static_cast<uint8_t>(c));
    values_[node] = value;
    if (key.size() > longest_) longest_ = key.size();
  }
  uint32_t step(uint32_t node, uint8_t byte) const {
    if (node == kRoot) return root_[byte];
    if (slots_.empty()) return kNoNode;
    const uint64_t key = key_of(node, byte);
    for (size_t i = place(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].key == key) return slots_[i].child;
      if (slots_[i].key == 0) return kNoNode;
    }
  }
  int32_t value(uint32_t node) const { return values_[node]; }  // -1: no key ends here
  bool starts_with(uint8_t byte) const { return root_[byte] != kNoNode; }
  bool empty() const { return values_.size() == 1; }
  size_t longest() const { return longest_; }

 private:
  struct Slot {
    uint64_t key = 0;
    uint32_t child = 0;
  };
  static uint64_t key_of(uint32_t node, uint8_t byte) { return uint64_t{node} << 8 | byte; }  // node >= 1: never 0
  size_t place(uint64_t key) const {
    return static_cast<size_t>((key * 0x9e3779b97f4a7c15ull) >> 32) & (slots_.size() - 1);
  }
  uint32_t step_or_add(uint32_t node, uint8_t byte) {
    if (const uint32_t child = step(node, byte); child != kNoNode) return child;
    const auto child = static_cast<uint32_t>(values_.size());
    values_.push_back(-1);
    if (node == kRoot) {
      root_[byte] = child;
      return child;
    }
    if (++n_edges_ * 2 > slots_.size()) grow(slots_.size() * 2 + 64);
    put(key_of(node, byte), child);
    return child;
  }
  void put(uint64_t key, uint32_t child) {
    size_t i = place(key);
    while (slots_[i].key != 0) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = {key, child};
  }
  void grow(size_t capacity) {
    size_t size = 64;
    while (size < capacity) size *= 2;
    if (size <= slots_.size()) return;
    std::vector<Slot> old = std::move(slots_);
    slots_.assign(size, Slot{});
    for (const Slot& s : old)
      if (s.key != 0) put(s.key, s.child);
  }
  std::array<uint32_t, 256> root_{};
  std::vector<Slot> slots_;
  std::vector<int32_t> values_;
  size_t n_edges_ = 0, longest_ = 0;
};

}  // namespace pmetal::text
