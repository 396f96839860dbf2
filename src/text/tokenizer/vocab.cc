#include "text/tokenizer/vocab.h"

#include "base/error.h"

namespace pmetal::text {

namespace {
constexpr int32_t kMaxId = 1 << 24;     // released vocabularies end below 2^19; the id table is dense
constexpr size_t kMaxChars = 1u << 30;  // all strings together
}  // namespace

void Vocab::reserve(size_t n) { grow(n * 2); }

void Vocab::grow(size_t capacity) {
  size_t size = 64;
  while (size < capacity) size *= 2;
  if (size <= slots_.size()) return;
  std::vector<Slot> old = std::move(slots_);
  slots_.assign(size, Slot{});
  for (const Slot& s : old) {
    if (s.offset == kNone) continue;
    size_t i = hash_bytes({chars_.data() + s.offset, s.size}) & (size - 1);
    while (slots_[i].offset != kNone) i = (i + 1) & (size - 1);
    slots_[i] = s;
  }
}

void Vocab::add(std::string_view token, int32_t id) {
  if (id < 0 || id >= kMaxId)
    fail(ErrorCode::kInvalidInput, "token \"{}\" has id {}; ids lie in [0, {})", token, id, kMaxId);
  if (chars_.size() + token.size() > kMaxChars)
    fail(ErrorCode::kInvalidInput, "the vocabulary's strings exceed {} bytes", kMaxChars);
  if (static_cast<size_t>(n_) * 2 >= slots_.size()) grow(slots_.size() * 2 + 64);
  const uint64_t h = hash_bytes(token);
  const auto tag = static_cast<uint32_t>(h >> 32);
  const size_t mask = slots_.size() - 1;
  size_t i = h & mask;
  for (; slots_[i].offset != kNone; i = (i + 1) & mask)
    if (slots_[i].tag == tag && std::string_view(chars_.data() + slots_[i].offset, slots_[i].size) == token) break;
  if (slots_[i].offset == kNone) {
    slots_[i] = {static_cast<uint32_t>(chars_.size()), static_cast<uint32_t>(token.size()), id, tag};
    chars_ += token;
    ++n_;
  }
  slots_[i].id = id;
  if (id >= id_limit()) by_id_.resize(static_cast<size_t>(id) + 1);
  by_id_[id] = {slots_[i].offset, slots_[i].size};
  longest_ = std::max(longest_, token.size());
}

int32_t Vocab::find(std::string_view token) const {
  if (slots_.empty() || token.size() > longest_) return -1;
  const uint64_t h = hash_bytes(token);
  const auto tag = static_cast<uint32_t>(h >> 32);
  const size_t mask = slots_.size() - 1;
  for (size_t i = h & mask; slots_[i].offset != kNone; i = (i + 1) & mask)
    if (slots_[i].tag == tag && std::string_view(chars_.data() + slots_[i].offset, slots_[i].size) == token)
      return slots_[i].id;
  return -1;
}

}  // namespace pmetal::text
