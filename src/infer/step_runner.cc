#include "infer/step_runner.h"

#include <algorithm>
#include <bit>
#include <iterator>

#include "base/error.h"

namespace pmetal::infer {
namespace {

constexpr size_t kMostRecorded = 64;  // graphs; each holds a few hundred kernel calls
constexpr int64_t kFewestPages = 16;  // the shortest reach of a page table: 1024 tokens

// 1..8, then multiples of 8, from 64 on of 16
int64_t rounded_rows(int64_t n) {
  const int64_t step = n <= 8 ? 1 : n <= 64 ? 8 : 16;
  return (n + step - 1) / step * step;
}

}  // namespace

// What is kept for this kind of step; made when the kind is seen first. Null: it is not a decode step.
StepRunner::Recorded* StepRunner::recorded(std::span<const nn::StepSequence> sequences) {
  if (!ops::can_record(ctx_) || ctx_.tape() || ctx_.op_times() || model_.info().rope_depends_on_length) return nullptr;
  int64_t most = kFewestPages;
  std::vector<int32_t> adapters;
  for (const nn::StepSequence& s : sequences) {
    if (s.tokens.size() != 1 || s.no_rows) return nullptr;
    most = std::max(most, nn::KvStore::pages_for(s.state->length() + 1));
    adapters.push_back(s.adapter);
  }
  const int64_t rows = rounded_rows(static_cast<int64_t>(sequences.size()));
  const auto pages = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(most)));
  const auto found = std::find_if(recorded_.begin(), recorded_.end(), [&](const Recorded& r) {
    return r.rows == rows && r.pages == pages && r.adapters == adapters;
  });
  if (found != recorded_.end()) {
    recorded_.splice(recorded_.begin(), recorded_, found);
  } else {
    if (recorded_.size() >= kMostRecorded) recorded_.pop_back();
    recorded_.emplace_front();
    recorded_.front().rows = rows;
    recorded_.front().pages = pages;
    recorded_.front().adapters = std::move(adapters);
  }
  return &recorded_.front();
}

Tensor StepRunner::logits(const nn::Batch& batch) {
  return models::logits(ctx_, model_, models::forward(ctx_, model_, batch), &batch);
}

StepRunner::Result StepRunner::run(std::span<const nn::StepSequence> sequences) {
  if (!is_batch_invariant_ || store_.pages_needed(sequences) > store_.free_pages()) return run_together(sequences);
  return run_invariant(sequences);
}

StepRunner::Result StepRunner::run_invariant(std::span<const nn::StepSequence> sequences) {
  const auto is_decode = [](const nn::StepSequence& s) { return s.tokens.size() == 1 && !s.no_rows; };
  const auto together = [&](std::span<const nn::StepSequence> part) {
    const bool before = ctx_.is_batch_invariant();
    ctx_.set_batch_invariant(true);
    try {
      Result r = run_together(part);
      ctx_.set_batch_invariant(before);
      return r;
    } catch (...) {
      ctx_.set_batch_invariant(before);
      throw;
    }
  };
  std::vector<nn::StepSequence> decode;
  std::copy_if(sequences.begin(), sequences.end(), std::back_inserter(decode), is_decode);
  if (decode.size() == sequences.size()) return together(sequences);
  const auto rows_of = [](const nn::StepSequence& s) {
    return s.no_rows ? 0 : s.all_rows ? static_cast<int64_t>(s.tokens.size()) : 1;
  };
  Result all;
  int64_t rows = 0;
  for (const nn::StepSequence& s : sequences) {
    all.first_row.push_back(s.no_rows ? -1 : static_cast<int32_t>(rows));
    rows += rows_of(s);
  }
  // what the next part may overwrite is copied to the sequence's place
  const auto keep = [&](const Tensor& logits, int64_t from, int64_t to, int64_t n) {
    if (!all.logits) all.logits = ctx_.empty({rows, logits.dim(1)}, logits.dtype());
    ops::copy(ctx_, logits.narrowed(0, from, n), all.logits.narrowed(0, to, n));
  };
  if (!decode.empty()) {
    const Result part = together(decode);
    size_t at = 0;
    for (size_t i = 0; i < sequences.size(); ++i)
      if (is_decode(sequences[i])) keep(part.logits, part.first_row[at++], all.first_row[i], 1);
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (is_decode(sequences[i])) continue;
    const Result part = run_together(sequences.subspan(i, 1));
    if (part.logits) keep(part.logits, 0, all.first_row[i], rows_of(sequences[i]));
  }
  return all;
}

StepRunner::Result StepRunner::run_together(std::span<const nn::StepSequence> sequences) {
  Recorded* r = recorded(sequences);
  if (!r || r->fails) {
    nn::KvStore::Step step = store_.begin_step(ctx_, sequences);
    const bool any_rows = std::any_of(step.first_row.begin(), step.first_row.end(), [](int32_t i) { return i >= 0; });
    const Tensor hidden = models::forward(ctx_, model_, step.batch);
    return {any_rows ? models::logits(ctx_, model_, hidden, &step.batch) : Tensor(), std::move(step.first_row)};
  }
  const bool is_first = !r->inputs;
  if (is_first) r->inputs = std::make_unique<nn::DecodeInputs>(ctx_, r->rows, r->pages);
  nn::KvStore::Step step = store_.begin_decode(ctx_, sequences, *r->inputs);
  // The first step of a kind runs kernel by kernel: what kernels need is loaded and planned. The second is recorded.
  if (is_first) return {logits(step.batch), std::move(step.first_row)};
  if (!r->graph) {
    if (!memory_) memory_ = std::make_unique<ops::GraphMemory>(ctx_);
    try {
      r->graph = std::make_unique<ops::Graph>(*memory_, [&] { r->logits = logits(step.batch); });
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kUnsupported) throw;
      r->fails = true;  // an adapter that computes on the host: the same work, started one by one
      return {logits(step.batch), std::move(step.first_row)};
    }
  }
  r->graph->replay();
  return {r->logits, std::move(step.first_row)};
}

}  // namespace pmetal::infer
