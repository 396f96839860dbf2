#include "nn/kv_store.h"

#include <algorithm>
#include <utility>

#include "ops/kv.h"

namespace pmetal::nn {

class PagedMemory final : public Memory {
 public:
  PagedMemory(KvStore& store, Tensor slots) : store_(store), slots_(std::move(slots)) {}
  Tensor append_and_attend(Context& ctx, int layer, const Tensor& q, const Tensor& k, const Tensor& v,
                           const Batch& batch, const ops::AttentionOptions& options) override {
    const Tensor& kp = store_.k_[static_cast<size_t>(layer)];
    const Tensor& vp = store_.v_[static_cast<size_t>(layer)];
    ops::kv_append(ctx, k, v, kp, vp, slots_);
    return ops::attention(ctx, q, kp, vp, batch.rows, options);
  }
  Tensor rotate_append_and_attend(Context& ctx, int layer, const Tensor& q, const Tensor& k, const Tensor& v,
                                  const ops::HeadNorms& norms, const ops::RopeTable& rope, const Batch& batch,
                                  const ops::AttentionOptions& options) override {
    const Tensor& kp = store_.k_[static_cast<size_t>(layer)];
    const Tensor& vp = store_.v_[static_cast<size_t>(layer)];
    const Tensor turned = ops::rope_append(ctx, q, k, v, norms, rope, kp, vp, slots_);
    return turned ? ops::attention(ctx, turned, kp, vp, batch.rows, options) : Tensor();
  }
  Tensor run_blocks(Context& ctx, const Tensor& x, ops::DecodeBlocks& blocks, const ops::RopeTable& rope,
                    const Batch& batch) override {
    PMETAL_ASSERT(blocks.blocks.size() == store_.k_.size());
    for (size_t i = 0; i < blocks.blocks.size(); ++i) {
      blocks.blocks[i].k_pages = store_.k_[i];
      blocks.blocks[i].v_pages = store_.v_[i];
    }
    return ops::decode_blocks(ctx, x, blocks, rope, slots_, batch.rows);
  }

 private:
  KvStore& store_;
  Tensor slots_;  // [tokens] i64
};

SequenceState::~SequenceState() {
  // the deepest page first, so that a prefix stays longest
  for (size_t i = pages_.size(); i-- > 0;) store_->release(pages_[i]);
}

SequenceState::SequenceState(SequenceState&& other) noexcept
    : store_(other.store_), pages_(std::exchange(other.pages_, {})), length_(std::exchange(other.length_, 0)) {}

SequenceState& SequenceState::operator=(SequenceState&& other) noexcept {
  std::swap(store_, other.store_);
  std::swap(pages_, other.pages_);
  std::swap(length_, other.length_);
  return *this;
}

SequenceState SequenceState::fork() const {
  SequenceState copy(*store_);
  copy.pages_ = pages_;
  copy.length_ = length_;
  for (int32_t page : pages_) ++store_->references_[static_cast<size_t>(page)];
  return copy;
}

void SequenceState::truncate(int64_t length) {
  PMETAL_ASSERT(length >= 0 && length <= length_, "truncate {} to {}", length_, length);
  const size_t keep = static_cast<size_t>(KvStore::pages_for(length));
  while (pages_.size() > keep) {
    store_->release(pages_.back());
    pages_.pop_back();
  }
  length_ = length;
}

KvStore::KvStore(Context& ctx, std::vector<KvLayer> layers, int64_t max_pages, DType dtype)
    : layers_(std::move(layers)), max_pages_(max_pages), dtype_(dtype) {
  PMETAL_ASSERT(max_pages > 0 && max_pages < (int64_t{1} << 31));
  for (const KvLayer& l : layers_) {
    k_.push_back(ctx.empty({max_pages, l.kv_heads, kPageTokens, l.d_k}, dtype));
    v_.push_back(ctx.empty({max_pages, l.kv_heads, kPageTokens, l.d_v}, dtype));
  }
  references_.assign(static_cast<size_t>(max_pages), 0);
  for (int64_t p = max_pages; p-- > 0;) free_.push_back(static_cast<int32_t>(p));
}

int64_t KvStore::bytes_per_page() const {
  int64_t n = 0;
  for (const KvLayer& l : layers_) n += kPageTokens * l.kv_heads * (l.d_k + l.d_v) * size_of(dtype_);
  return n;
}

void KvStore::release(int32_t page) {
  if (--references_[static_cast<size_t>(page)] == 0) free_.push_back(page);
}

int32_t KvStore::take() {
  PMETAL_ASSERT(!free_.empty());
  const int32_t page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  return page;
}

int64_t KvStore::pages_needed(std::span<const StepSequence> sequences) const {
  int64_t need = 0;
  for (const StepSequence& s : sequences) {
    const int64_t after = s.state->length_ + static_cast<int64_t>(s.tokens.size());
    need += pages_for(after) - static_cast<int64_t>(s.state->pages_.size());
    const bool open = s.state->length_ % kPageTokens != 0;
    if (open && !s.tokens.empty() && references_[static_cast<size_t>(s.state->pages_.back())] > 1) ++need;
  }
  return need;
}

void KvStore::make_writable(Context& ctx, SequenceState& state) {
  if (state.length_ % kPageTokens == 0 || references_[static_cast<size_t>(state.pages_.back())] == 1) return;
  const int32_t from = state.pages_.back(), to = take();
  for (size_t l = 0; l < layers_.size(); ++l) {
    ops::copy(ctx, k_[l].narrowed(0, from, 1), k_[l].narrowed(0, to, 1));
    ops::copy(ctx, v_[l].narrowed(0, from, 1), v_[l].narrowed(0, to, 1));
  }
  release(from);
  state.pages_.back() = to;
}

void KvStore::check_free(std::span<const StepSequence> sequences) const {
  if (const int64_t need = pages_needed(sequences); need > free_pages())
    fail(ErrorCode::kOutOfMemory,
         "the KV store has {} free pages of {} tokens and this step needs {}; allow fewer or shorter sequences",
         free_pages(), kPageTokens, need);
}

void KvStore::extend(Context& ctx, SequenceState& state, int64_t n) {
  PMETAL_ASSERT(n > 0);
  make_writable(ctx, state);
  while (static_cast<int64_t>(state.pages_.size()) < pages_for(state.length_ + n)) state.pages_.push_back(take());
}

KvStore::Step KvStore::begin_step(Context& ctx, std::span<const StepSequence> sequences) {
  check_free(sequences);
  std::vector<int32_t> tokens, positions, cu{0}, kv_len, adapters, rows, rope_length;
  std::vector<int64_t> slots;
  int64_t max_q = 0, max_kv = 0, max_pages = 1;
  bool any_adapter = false, all_go_on = true;
  Step step;
  for (const StepSequence& s : sequences) {
    SequenceState& state = *s.state;
    const int64_t n = static_cast<int64_t>(s.tokens.size());
    extend(ctx, state, n);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = state.length_ + i;
      tokens.push_back(s.tokens[static_cast<size_t>(i)]);
      positions.push_back(static_cast<int32_t>(at));
      slots.push_back(int64_t{state.pages_[static_cast<size_t>(at / kPageTokens)]} * kPageTokens + at % kPageTokens);
    }
    const int32_t last = static_cast<int32_t>(tokens.size()) - 1;
    step.first_row.push_back(s.no_rows ? -1 : static_cast<int32_t>(rows.size()));
    if (!s.no_rows)
      for (int32_t r = s.all_rows ? cu.back() : last; r <= last; ++r) rows.push_back(r);
    all_go_on &= s.all_rows || (n == 1 && !s.no_rows);
    state.length_ += n;
    cu.push_back(last + 1);
    kv_len.push_back(static_cast<int32_t>(state.length_));
    rope_length.push_back(static_cast<int32_t>(state.length_));
    adapters.push_back(s.adapter == -2 ? 0 : s.adapter);
    any_adapter |= s.adapter != -2;
    max_q = std::max(max_q, n);
    max_kv = std::max(max_kv, state.length_);
    max_pages = std::max(max_pages, static_cast<int64_t>(state.pages_.size()));
  }
  std::vector<int32_t> table(sequences.size() * static_cast<size_t>(max_pages), 0);
  for (size_t s = 0; s < sequences.size(); ++s)
    std::copy(sequences[s].state->pages_.begin(), sequences[s].state->pages_.end(),
              table.begin() + static_cast<int64_t>(s) * max_pages);

  const auto i32 = [&](const std::vector<int32_t>& v, Shape shape) {
    return ops::to_device(ctx, host_tensor<int32_t>(v, shape, DType::kI32));
  };
  const int64_t t = static_cast<int64_t>(tokens.size()), n = static_cast<int64_t>(sequences.size());
  Batch& b = step.batch;
  b.tokens = i32(tokens, {t});
  b.positions = i32(positions, {t});
  b.rows = {i32(cu, {n + 1}), i32(kv_len, {n}), {}, i32(table, {n, max_pages}), max_q, max_kv};
  b.cu_q = cu;
  b.rope_length = rope_length;
  if (any_adapter) b.adapter = adapters;
  if (!all_go_on) b.output_rows = i32(rows, {static_cast<int64_t>(rows.size())});
  step.memory =
      std::make_unique<PagedMemory>(*this, ops::to_device(ctx, host_tensor<int64_t>(slots, Shape{t}, DType::kI64)));
  b.memory = step.memory.get();
  return step;
}

DecodeInputs::DecodeInputs(Context& ctx, int64_t rows, int64_t pages) : rows_(rows), pages_(pages) {
  // slots are twice as wide: they come first
  all_ = ctx.empty({2 * rows + rows + rows + (rows + 1) + rows + rows * pages}, DType::kI32);
  int64_t at = 0;
  const auto part = [&](Shape shape, DType dtype) {
    const int64_t bytes = shape.numel() * size_of(dtype);
    const Tensor t(all_.buffer().slice(at, bytes), shape, dtype);
    at += bytes;
    return t;
  };
  slots_ = part({rows}, DType::kI64);
  tokens_ = part({rows}, DType::kI32);
  positions_ = part({rows}, DType::kI32);
  cu_q_ = part({rows + 1}, DType::kI32);
  kv_len_ = part({rows}, DType::kI32);
  page_table_ = part({rows, pages}, DType::kI32);
}

KvStore::Step KvStore::begin_decode(Context& ctx, std::span<const StepSequence> sequences, const DecodeInputs& inputs) {
  const int64_t rows = inputs.rows_;
  PMETAL_ASSERT(static_cast<int64_t>(sequences.size()) <= rows, "{} sequences for {} rows", sequences.size(), rows);
  check_free(sequences);
  const Tensor host(allocate_host(inputs.all_.size_bytes()), inputs.all_.shape(), DType::kI32);
  std::fill_n(host.data<int32_t>(), host.numel(), 0);
  const auto there = [&](const Tensor& t) { return host.bytes() + (t.bytes() - inputs.all_.bytes()); };
  auto* slots = reinterpret_cast<int64_t*>(there(inputs.slots_));
  auto* tokens = reinterpret_cast<int32_t*>(there(inputs.tokens_));
  auto* positions = reinterpret_cast<int32_t*>(there(inputs.positions_));
  auto* cu = reinterpret_cast<int32_t*>(there(inputs.cu_q_));
  auto* kv_len = reinterpret_cast<int32_t*>(there(inputs.kv_len_));
  auto* table = reinterpret_cast<int32_t*>(there(inputs.page_table_));
  Step step;
  Batch& b = step.batch;
  std::vector<int32_t> adapters;
  bool any_adapter = false;
  for (const StepSequence& s : sequences) {
    SequenceState& state = *s.state;
    PMETAL_ASSERT(s.tokens.size() == 1 && !s.no_rows);
    extend(ctx, state, 1);
    PMETAL_ASSERT(static_cast<int64_t>(state.pages_.size()) <= inputs.pages_, "{} pages, at most {}",
                  state.pages_.size(), inputs.pages_);
    const int64_t at = state.length_++, row = static_cast<int64_t>(step.first_row.size());
    tokens[row] = s.tokens[0];
    positions[row] = static_cast<int32_t>(at);
    slots[row] = int64_t{state.pages_.back()} * kPageTokens + at % kPageTokens;
    kv_len[row] = static_cast<int32_t>(at + 1);
    std::copy(state.pages_.begin(), state.pages_.end(), table + row * inputs.pages_);
    step.first_row.push_back(static_cast<int32_t>(row));
    b.rope_length.push_back(static_cast<int32_t>(at + 1));
    adapters.push_back(s.adapter == -2 ? 0 : s.adapter);
    any_adapter |= s.adapter != -2;
  }
  for (auto row = static_cast<int64_t>(sequences.size()); row < rows; ++row) {
    slots[row] = -1;
    b.rope_length.push_back(1);
    adapters.push_back(adapters.empty() ? 0 : adapters.back());
  }
  for (int32_t i = 0; i <= rows; ++i) {
    cu[i] = i;
    b.cu_q.push_back(i);
  }
  ops::upload(ctx, host, inputs.all_);
  b.tokens = inputs.tokens_;
  b.positions = inputs.positions_;
  b.rows = {inputs.cu_q_, inputs.kv_len_, {}, inputs.page_table_, 1, inputs.pages_ * kPageTokens};
  if (any_adapter) b.adapter = std::move(adapters);
  step.memory = std::make_unique<PagedMemory>(*this, inputs.slots_);
  b.memory = step.memory.get();
  return step;
}

}  // namespace pmetal::nn
