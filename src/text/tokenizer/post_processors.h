// Post-processors of tokenizer.json: special tokens around the sequences, and offsets without the spaces at the edges.
// Truncation and padding live here too, as they work on the same parts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer/encoding.h"

namespace pmetal::text {

// An encoding under construction. `edges`, parallel to ids, counts white space at the start and end of each token's
// string; filled only when a processor trims offsets.
struct Part {
  struct Edge {
    uint32_t leading = 0, trailing = 0;
  };
  Encoding e;
  std::vector<Edge> edges;
  std::vector<Part> overflow;  // instead of e.overflow
  bool has_offsets = false, has_edges = false;

  size_t size() const { return e.ids.size(); }
  void append(const Part& other);  // this and all its overflow followed by other and all its overflow
  Part slice(size_t begin, size_t end) const;
  void truncate(size_t max_length, size_t stride, Truncation::Direction direction);
  void pad(size_t length, const Padding& padding);
  Encoding finish() &&;
};

class PostProcessor {
 public:
  virtual ~PostProcessor() = default;
  virtual size_t n_added(bool is_pair) const = 0;
  virtual bool trims_offsets() const { return false; }
  virtual void process(std::vector<Part>& parts, bool add_special) const = 0;
};
using PostProcessorPtr = std::unique_ptr<PostProcessor>;

struct TemplatePiece {
  int sequence = -1;  // 0: first text, 1: second text, -1: the tokens below
  std::vector<int32_t> special_ids;
  int32_t type_id = 0;
};

PostProcessorPtr template_processor(std::vector<TemplatePiece> single, std::vector<TemplatePiece> pair);
PostProcessorPtr bert_processor(int32_t sep, int32_t cls);
PostProcessorPtr roberta_processor(int32_t sep, int32_t cls, bool trim_offsets, bool add_prefix_space);
PostProcessorPtr byte_level_processor(bool trim_offsets, bool add_prefix_space);
PostProcessorPtr processor_sequence(std::vector<PostProcessorPtr> parts);

// Cuts both to the limit. `first` and `second` (may be null) hold no template tokens.
void truncate(Part& first, Part* second, const Truncation& limits);

}  // namespace pmetal::text
