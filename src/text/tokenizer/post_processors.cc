#include "text/tokenizer/post_processors.h"

#include <algorithm>

#include "base/error.h"

namespace pmetal::text {

namespace {

template <class T>
void extend(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

void extend_fields(Part& to, const Part& from) {
  extend(to.e.ids, from.e.ids);
  extend(to.e.offsets, from.e.offsets);
  extend(to.e.type_ids, from.e.type_ids);
  extend(to.e.special_mask, from.e.special_mask);
  extend(to.e.attention_mask, from.e.attention_mask);
  extend(to.edges, from.edges);
  to.has_offsets |= from.has_offsets;
  to.has_edges |= from.has_edges;
}

Part fields_of(const Part& part) {
  Part p;
  extend_fields(p, part);
  return p;
}

// special tokens in the shape of `like`
Part special_part(const std::vector<int32_t>& ids, int32_t type_id, const Part& like) {
  Part p;
  p.has_offsets = like.has_offsets;
  p.has_edges = like.has_edges;
  p.e.ids = ids;
  p.e.type_ids.assign(ids.size(), type_id);
  p.e.special_mask.assign(ids.size(), 1);
  p.e.attention_mask.assign(ids.size(), 1);
  if (p.has_offsets) p.e.offsets.resize(ids.size());
  if (p.has_edges) p.edges.resize(ids.size());
  return p;
}

void trim_offsets(Part& part, bool add_prefix_space) {
  if (!part.has_offsets) return;
  for (size_t i = 0; i < part.size(); ++i) {
    auto [leading, trailing] = part.edges[i];
    Offset& o = part.e.offsets[i];
    if (leading > 0) {
      // the space that was put before the text does not count
      if ((i == 0 || o.begin == 0) && add_prefix_space && leading == 1) leading = 0;
      o.begin = std::min(o.begin + leading, o.end);
    }
    if (trailing > 0 && o.end >= trailing) o.end = std::max(o.end - trailing, o.begin);
  }
}

void trim_all(std::vector<Part>& parts, bool add_prefix_space) {
  for (Part& part : parts) {
    trim_offsets(part, add_prefix_space);
    for (Part& o : part.overflow) trim_offsets(o, add_prefix_space);
  }
}

class Template final : public PostProcessor {
 public:
  Template(std::vector<TemplatePiece> single, std::vector<TemplatePiece> pair)
      : single_(std::move(single)), pair_(std::move(pair)) {}
  size_t n_added(bool is_pair) const override {
    size_t n = 0;
    for (const auto& piece : is_pair ? pair_ : single_)
      if (piece.sequence < 0) n += piece.special_ids.size();
    return n;
  }
  void process(std::vector<Part>& parts, bool add_special) const override {
    if (parts.size() != 1 && parts.size() != 2)
      fail(ErrorCode::kUnsupported, "two templates in one post-processor sequence");
    std::vector<Part> out;
    for (const auto& piece : parts.size() == 2 ? pair_ : single_) {
      if (piece.sequence < 0) {
        if (add_special) out.push_back(special_part(piece.special_ids, piece.type_id, parts[0]));
        continue;
      }
      if (piece.sequence >= static_cast<int>(parts.size()))
        fail(ErrorCode::kInvalidInput, "the template for one text names a second one");
      Part& part = parts[piece.sequence];
      part.e.type_ids.assign(part.size(), piece.type_id);
      out.push_back(part);
    }
    parts = std::move(out);
  }

 private:
  std::vector<TemplatePiece> single_, pair_;
};

// Puts a token before and/or behind a part and each of its overflow parts. -1: none.
void surround(Part& part, int32_t before, int32_t behind, int32_t type_id, bool all_type_ids) {
  const auto apply = [&](Part& p) {
    Part out;
    if (before >= 0) out = special_part({before}, type_id, p);
    p.e.special_mask.assign(p.size(), 0);  // only what is added here counts, as in the reference
    extend_fields(out, p);
    if (behind >= 0) extend_fields(out, special_part({behind}, type_id, p));
    if (all_type_ids) out.e.type_ids.assign(out.size(), type_id);
    out.overflow = std::move(p.overflow);
    p = std::move(out);
  };
  for (Part& o : part.overflow) apply(o);
  apply(part);
}

class BertProcessor final : public PostProcessor {
 public:
  BertProcessor(int32_t sep, int32_t cls) : sep_(sep), cls_(cls) {}
  size_t n_added(bool is_pair) const override { return is_pair ? 3 : 2; }
  void process(std::vector<Part>& parts, bool add_special) const override {
    if (!add_special) return;
    for (size_t i = 0; i < parts.size(); ++i) surround(parts[i], i == 0 ? cls_ : -1, sep_, i == 0 ? 0 : 1, false);
  }

 private:
  int32_t sep_, cls_;
};

class RobertaProcessor final : public PostProcessor {
 public:
  RobertaProcessor(int32_t sep, int32_t cls, bool trim, bool prefix)
      : sep_(sep), cls_(cls), trim_(trim), prefix_(prefix) {}
  size_t n_added(bool is_pair) const override { return is_pair ? 4 : 2; }
  bool trims_offsets() const override { return trim_; }
  void process(std::vector<Part>& parts, bool add_special) const override {
    if (trim_) trim_all(parts, prefix_);
    for (Part& part : parts) part.e.type_ids.assign(part.size(), 0);
    if (!add_special) return;
    for (size_t i = 0; i < parts.size(); ++i) surround(parts[i], i == 0 ? cls_ : sep_, sep_, 0, true);
  }

 private:
  int32_t sep_, cls_;
  bool trim_, prefix_;
};

class ByteLevelProcessor final : public PostProcessor {
 public:
  ByteLevelProcessor(bool trim, bool prefix) : trim_(trim), prefix_(prefix) {}
  size_t n_added(bool) const override { return 0; }
  bool trims_offsets() const override { return trim_; }
  void process(std::vector<Part>& parts, bool) const override {
    if (trim_) trim_all(parts, prefix_);
  }

 private:
  bool trim_, prefix_;
};

class Sequence final : public PostProcessor {
 public:
  explicit Sequence(std::vector<PostProcessorPtr> parts) : parts_(std::move(parts)) {}
  size_t n_added(bool is_pair) const override {
    size_t n = 0;
    for (const auto& p : parts_) n += p->n_added(is_pair);
    return n;
  }
  bool trims_offsets() const override {
    return std::any_of(parts_.begin(), parts_.end(), [](const auto& p) { return p->trims_offsets(); });
  }
  void process(std::vector<Part>& parts, bool add_special) const override {
    for (const auto& p : parts_) p->process(parts, add_special);
  }

 private:
  std::vector<PostProcessorPtr> parts_;
};

}  // namespace

void Part::append(const Part& other) {
  std::vector<Part> combined;
  const auto join = [&](const Part& a, const Part& b) {
    Part p = fields_of(a);
    extend_fields(p, b);
    combined.push_back(std::move(p));
  };
  for (const Part& mine : overflow) {
    // the reference joins a part with the other's whole, whose own overflow then nests; flat here, in the same order
    join(mine, other);
    for (const Part& theirs : other.overflow) join(mine, theirs);
  }
  for (const Part& theirs : other.overflow) join(*this, theirs);
  extend_fields(*this, other);
  overflow = std::move(combined);
}

Part Part::slice(size_t begin, size_t end) const {
  Part p;
  p.has_offsets = has_offsets;
  p.has_edges = has_edges;
  const auto cut = [&](auto& to, const auto& from) {
    if (!from.empty()) to.assign(from.begin() + begin, from.begin() + end);
  };
  cut(p.e.ids, e.ids);
  cut(p.e.offsets, e.offsets);
  cut(p.e.type_ids, e.type_ids);
  cut(p.e.special_mask, e.special_mask);
  cut(p.e.attention_mask, e.attention_mask);
  cut(p.edges, edges);
  return p;
}

void Part::truncate(size_t max_length, size_t stride, Truncation::Direction direction) {
  if (max_length >= size()) return;
  if (max_length == 0) {
    Part whole = std::move(*this);
    *this = Part{};
    has_offsets = whole.has_offsets;
    has_edges = whole.has_edges;
    overflow.push_back(std::move(whole));
    return;
  }
  if (stride >= max_length)
    fail(ErrorCode::kInvalidInput,
         "truncation: stride {} must be smaller than the {} tokens that are left beside the special tokens", stride,
         max_length);
  const size_t step = max_length - stride;
  std::vector<Part> parts;
  if (direction == Truncation::Direction::kRight) {
    for (size_t begin = 0;; begin += step) {
      const size_t end = std::min(begin + max_length, size());
      parts.push_back(slice(begin, end));
      if (end == size()) break;
    }
  } else {
    for (size_t end = size();; end -= step) {
      const size_t begin = end > max_length ? end - max_length : 0;
      parts.push_back(slice(begin, end));
      if (begin == 0) break;
    }
  }
  *this = std::move(parts[0]);
  overflow.assign(std::make_move_iterator(parts.begin() + 1), std::make_move_iterator(parts.end()));
}

void Part::pad(size_t length, const Padding& padding) {
  for (Part& o : overflow) o.pad(length, padding);
  if (size() >= length) return;
  const size_t n = length - size();
  const auto put = [&](auto& v, auto value) {
    v.insert(padding.direction == Padding::Direction::kLeft ? v.begin() : v.end(), n, value);
  };
  if (has_offsets) put(e.offsets, Offset{});
  if (has_edges) put(edges, Edge{});
  put(e.ids, padding.pad_id);
  put(e.type_ids, padding.pad_type_id);
  put(e.special_mask, uint8_t{1});
  put(e.attention_mask, uint8_t{0});
}

Encoding Part::finish() && {
  e.overflow.reserve(overflow.size());
  for (Part& o : overflow) e.overflow.push_back(std::move(o).finish());
  return std::move(e);
}

PostProcessorPtr template_processor(std::vector<TemplatePiece> single, std::vector<TemplatePiece> pair) {
  return std::make_unique<Template>(std::move(single), std::move(pair));
}
PostProcessorPtr bert_processor(int32_t sep, int32_t cls) { return std::make_unique<BertProcessor>(sep, cls); }
PostProcessorPtr roberta_processor(int32_t sep, int32_t cls, bool trim_offsets, bool add_prefix_space) {
  return std::make_unique<RobertaProcessor>(sep, cls, trim_offsets, add_prefix_space);
}
PostProcessorPtr byte_level_processor(bool trim_offsets, bool add_prefix_space) {
  return std::make_unique<ByteLevelProcessor>(trim_offsets, add_prefix_space);
}
PostProcessorPtr processor_sequence(std::vector<PostProcessorPtr> parts) {
  return std::make_unique<Sequence>(std::move(parts));
}

void truncate(Part& first, Part* second, const Truncation& limits) {
  const size_t total = first.size() + (second ? second->size() : 0);
  if (limits.max_length == 0) {
    first.truncate(0, limits.stride, limits.direction);
    if (second) second->truncate(0, limits.stride, limits.direction);
    return;
  }
  if (total <= limits.max_length) return;
  const size_t excess = total - limits.max_length;
  if (limits.strategy == Truncation::Strategy::kLongestFirst) {
    if (!second) {
      first.truncate(limits.max_length, limits.stride, limits.direction);
      return;
    }
    size_t shorter = first.size(), longer = second->size();
    const bool swapped = shorter > longer;
    if (swapped) std::swap(shorter, longer);
    longer = shorter > limits.max_length ? shorter : std::max(shorter, limits.max_length - shorter);
    if (shorter + longer > limits.max_length) {
      shorter = limits.max_length / 2;
      longer = shorter + limits.max_length % 2;
    }
    if (swapped) std::swap(shorter, longer);
    first.truncate(shorter, limits.stride, limits.direction);
    second->truncate(longer, limits.stride, limits.direction);
    return;
  }
  Part* target = limits.strategy == Truncation::Strategy::kOnlyFirst ? &first : second;
  if (!target) fail(ErrorCode::kInvalidInput, "truncation: strategy OnlySecond needs a second text");
  if (target->size() <= excess)
    fail(ErrorCode::kInvalidInput, "truncation: the text to cut has {} tokens, {} too few to meet the limit of {}",
         target->size(), excess - target->size() + 1, limits.max_length);
  target->truncate(target->size() - excess, limits.stride, limits.direction);
}

}  // namespace pmetal::text
