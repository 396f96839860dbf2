#include "train/micro_batch.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace pmetal::train {
namespace {

constexpr size_t kMostRecorded = 8;  // shapes; each holds thousands of kernel calls and, cut otherwise, its own memory
constexpr int64_t kFewestRows = 64;

// up by at most a sixteenth, to at least 64
int64_t rounded(int64_t n) {
  const int64_t step = std::max(kFewestRows, static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(n - 1))) / 16);
  return (n + step - 1) / step * step;
}
int64_t power_of_two(int64_t n) { return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(n))); }

}  // namespace

struct MicroBatches::Recorded {
  Layout layout;
  bool fails = false;
  LossInputs inputs;
  Result result;
  std::unique_ptr<ops::Graph> graph;
};

MicroBatches::MicroBatches(Context& ctx, models::Model& model, bool records)
    : ctx_(ctx), model_(model), records_(records) {
  if (!records) counts_.reason = "what is trained keeps values derived from its parameters";
}
MicroBatches::~MicroBatches() = default;

bool MicroBatches::forget() {
  const bool any = memory_ != nullptr;
  records_ = false;
  recorded_.clear();
  memory_.reset();
  return any;
}

MicroBatches::Result MicroBatches::start(const LossInputs& inputs, const LossOptions& options) {
  ++counts_.started;
  if (!memory_) return compute(inputs, options);
  const ops::GraphMemoryScope scope(*memory_);
  return compute(inputs, options);
}

MicroBatches::Result MicroBatches::compute(const LossInputs& inputs, const LossOptions& options) {
  Tape tape = ops::make_tape(ctx_);
  TapeScope recording(ctx_, &tape);
  const SequenceLoss loss = sequence_loss(ctx_, model_, inputs, options);
  Tensor seed = ctx_.empty({1}, DType::kF32);
  ops::fill(ctx_, seed, 1);
  tape.backward(ctx_, loss.loss, seed);
  return {loss.n_learned, loss.head.nll, loss.head.correct, loss.head.entropy, loss.loss.detached()};
}

// What is kept for this shape; made when it is seen first.
MicroBatches::Recorded* MicroBatches::recorded(const Layout& layout) {
  const auto found =
      std::find_if(recorded_.begin(), recorded_.end(), [&](const Recorded& r) { return r.layout == layout; });
  if (found != recorded_.end()) {
    recorded_.splice(recorded_.begin(), recorded_, found);
    return &recorded_.front();
  }
  if (recorded_.size() >= kMostRecorded) recorded_.pop_back();
  Recorded& r = recorded_.emplace_front();
  r.layout = layout;
  const auto integers = [&](int64_t n, DType dtype = DType::kI32) { return ctx_.empty({n}, dtype); };
  nn::Batch& batch = r.inputs.batch;
  batch.tokens = integers(layout.tokens);
  batch.positions = integers(layout.tokens);
  batch.rows.cu_q = batch.rows.cu_k = integers(layout.documents + 1);
  batch.rows.kv_len = integers(layout.documents);
  batch.rows.max_q = batch.rows.max_kv = layout.longest;
  batch.output_rows = integers(layout.rows);
  if (layout.draws) {
    batch.row_ids = integers(layout.tokens, DType::kI64);
    batch.dropout.step_at = integers(1);
  }
  r.inputs.labels = integers(layout.rows);
  r.inputs.row_scale = integers(layout.rows, DType::kF32);
  return &r;
}

MicroBatches::Result MicroBatches::run(const data::PackedSequence& packed, double scale, const LossOptions& options) {
  if (!ops::can_record(ctx_) || options.embedding_noise > 0 || model_.info().rope_depends_on_length) {
    Tape tape = ops::make_tape(ctx_);
    TapeScope recording(ctx_, &tape);
    const SequenceLoss loss = sequence_loss(ctx_, model_, packed, scale, options);
    if (!loss.n_learned) return {};
    ++counts_.started;
    counts_.reason = !ops::can_record(ctx_)        ? "this device records nothing"
                     : options.embedding_noise > 0 ? "the embeddings' noise is drawn on the host"
                                                   : "the model's rope depends on the documents' lengths";
    Tensor seed = ctx_.empty({1}, DType::kF32);
    ops::fill(ctx_, seed, 1);
    tape.backward(ctx_, loss.loss, seed);
    return {loss.n_learned, loss.head.nll, loss.head.correct, loss.head.entropy, loss.loss.detached()};
  }
  LossValues v = loss_values(packed, scale, options);
  if (v.n_learned == 0) return {};

  // Idle tokens are one more document, idle documents are empty, idle rows are such that have no label.
  const int64_t tokens = packed.length(), all_tokens = rounded(tokens);
  Layout layout{all_tokens, 0, 0, std::min(rounded(v.n_learned), all_tokens), !v.row_ids.empty()};
  if (all_tokens > tokens) {
    v.tokens.resize(static_cast<size_t>(all_tokens), 0);
    for (int64_t i = tokens; i < all_tokens; ++i) v.positions.push_back(static_cast<int32_t>(i - tokens));
    v.borders.push_back(static_cast<int32_t>(all_tokens));
    v.lengths.push_back(static_cast<int32_t>(all_tokens - tokens));
    if (layout.draws) v.row_ids.resize(static_cast<size_t>(all_tokens), 0);
  }
  layout.longest = std::min(power_of_two(*std::max_element(v.lengths.begin(), v.lengths.end())), all_tokens);
  layout.documents = power_of_two(static_cast<int64_t>(v.lengths.size()));
  v.borders.resize(static_cast<size_t>(layout.documents + 1), static_cast<int32_t>(all_tokens));
  v.lengths.resize(static_cast<size_t>(layout.documents), 0);
  size_t learned = 0;
  for (int32_t row = 0; static_cast<int64_t>(v.rows.size()) < layout.rows; ++row) {
    if (learned < static_cast<size_t>(v.n_learned) && v.rows[learned] == row) {
      ++learned;
      continue;
    }
    v.rows.push_back(row);
  }
  v.labels.resize(v.rows.size(), 0);
  v.row_scale.resize(v.rows.size(), 0);

  Recorded* r = recorded(layout);
  const bool is_first = !r->inputs.n_learned;
  nn::Batch& batch = r->inputs.batch;
  const auto put = [&]<class T>(const std::vector<T>& values, const Tensor& to) {
    ops::upload(ctx_, host_tensor<T>(values, to.shape(), to.dtype()), to);
  };
  put(v.tokens, batch.tokens);
  put(v.positions, batch.positions);
  put(v.borders, batch.rows.cu_q);
  put(v.lengths, batch.rows.kv_len);
  put(v.rows, batch.output_rows);
  put(v.labels, r->inputs.labels);
  put(v.row_scale, r->inputs.row_scale);
  if (layout.draws) {
    put(v.row_ids, batch.row_ids);
    put(std::vector<int32_t>{static_cast<int32_t>(options.step)}, batch.dropout.step_at);
  }
  batch.dropout.seed = options.seed;
  batch.cu_q = v.borders;
  r->inputs.n_learned = v.n_learned;
  if (records_ && !memory_) memory_ = std::make_unique<ops::GraphMemory>(ctx_);
  if (is_first || r->fails || !records_ || ctx_.op_times()) return start(r->inputs, options);
  if (!r->graph) {
    try {
      r->graph = std::make_unique<ops::Graph>(*memory_, [&] { r->result = compute(r->inputs, options); });
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kUnsupported && e.code() != ErrorCode::kOutOfMemory) throw;
      counts_.reason = e.what();
      if (e.code() == ErrorCode::kUnsupported) {
        r->fails = true;
        return start(r->inputs, options);
      }
      const LossInputs inputs = r->inputs;
      forget();
      return start(inputs, options);
    }
  }
  r->graph->replay();
  ++counts_.replayed;
  Result result = r->result;
  result.n_learned = v.n_learned;
  return result;
}

}  // namespace pmetal::train
