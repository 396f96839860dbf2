// The paged store of keys and values: SequenceState's dense kind. One pool of pages of 64 tokens per device; a sequence
// is a list of page numbers; sharing is by reference count, never by copy; a shared page is copied before it is
// written. Layers have planes of their own, k [pages, kv_heads, 64, d_k] and v [pages, kv_heads, 64, d_v], under one
// numbering.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "nn/batch.h"

namespace pmetal::nn {

inline constexpr int64_t kPageTokens = ops::kAttentionBlock;

struct KvLayer {
  int64_t kv_heads, d_k, d_v;
};

class KvStore;

// What one sequence remembers. Moves, does not copy: fork() shares pages. Destroying it frees them.
class SequenceState {
 public:
  explicit SequenceState(KvStore& store) : store_(&store) {}
  ~SequenceState();
  SequenceState(SequenceState&& other) noexcept;
  SequenceState& operator=(SequenceState&& other) noexcept;
  SequenceState(const SequenceState&) = delete;

  int64_t length() const { return length_; }  // tokens remembered
  SequenceState fork() const;                 // shares every page
  void truncate(int64_t length);              // forgets what is beyond

 private:
  friend class KvStore;
  KvStore* store_;
  std::vector<int32_t> pages_;
  int64_t length_ = 0;
};

// One sequence's part in a step.
struct StepSequence {
  SequenceState* state;
  std::span<const int32_t> tokens;  // appended; their positions follow what is remembered
  int32_t adapter = -2;
  bool all_rows = false;  // every token's row goes on to the head, not the last one alone
  bool no_rows = false;   // none does (a prefill chunk that is not the last)
};

// Fixed device memory for what a decode step reads: `rows` sequences of one token each, none with more than `pages`
// pages. Work recorded over it (ops/graph.h) holds for every such step; rows that a step does not use are idle: they
// write nothing and attend to nothing.
class DecodeInputs {
 public:
  DecodeInputs(Context& ctx, int64_t rows, int64_t pages);
  int64_t rows() const { return rows_; }
  int64_t pages() const { return pages_; }

 private:
  friend class KvStore;
  int64_t rows_, pages_;
  Tensor all_, slots_, tokens_, positions_, cu_q_, kv_len_, page_table_;  // all_ holds the others: one copy per step
};

class KvStore {
 public:
  // Room for `max_pages` pages. On the CPU, memory is touched only when pages are used.
  KvStore(Context& ctx, std::vector<KvLayer> layers, int64_t max_pages, DType dtype);

  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }
  int64_t total_pages() const { return max_pages_; }
  static int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }
  // pages that a step would newly take; the caller checks against free_pages()
  int64_t pages_needed(std::span<const StepSequence> sequences) const;
  int64_t bytes_per_page() const;

  struct Step {
    Batch batch;
    std::unique_ptr<Memory> memory;  // batch.memory points to it
    std::vector<int32_t> first_row;  // of each sequence among the output rows; -1: none
  };
  // Takes pages, writes nothing yet; the states count the tokens as remembered. Error(kOutOfMemory) when pages lack:
  // then nothing has changed.
  Step begin_step(Context& ctx, std::span<const StepSequence> sequences);
  // The same for a decode step, over `inputs`: all sequences have one token, whose row goes on to the head. The batch's
  // bounds are those of `inputs`. Not while work is recorded.
  Step begin_decode(Context& ctx, std::span<const StepSequence> sequences, const DecodeInputs& inputs);

 private:
  friend class SequenceState;
  friend class PagedMemory;
  void release(int32_t page);
  int32_t take();
  void make_writable(Context& ctx, SequenceState& state);  // copies a shared open page
  void check_free(std::span<const StepSequence> sequences) const;
  void extend(Context& ctx, SequenceState& state, int64_t n);  // pages for n more tokens

  std::vector<KvLayer> layers_;
  std::vector<Tensor> k_, v_;
  std::vector<int32_t> free_;
  std::vector<int32_t> references_;
  int64_t max_pages_;
  DType dtype_;
};

}  // namespace pmetal::nn
