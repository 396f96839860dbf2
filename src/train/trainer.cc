#include "train/trainer.h"

#include <chrono>
#include <cmath>

#include "train/checkpoints.h"
#include "train/control.h"

namespace pmetal::train {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Sums {
  double nll = 0, entropy = 0;
  int64_t correct = 0, learned = 0;
  void add(Context& ctx, const SequenceLoss& loss) {
    if (!loss.n_learned) return;
    const Tensor n = ops::to_host(ctx, loss.head.nll), c = ops::to_host(ctx, loss.head.correct);
    for (int64_t i = 0; i < loss.n_learned; ++i) {
      nll += n.data<float>()[i];
      correct += c.data<uint8_t>()[i];
    }
    if (loss.head.entropy.defined()) {
      const Tensor e = ops::to_host(ctx, loss.head.entropy);
      for (int64_t i = 0; i < loss.n_learned; ++i) entropy += e.data<float>()[i];
    }
    learned += loss.n_learned;
  }
};

}  // namespace

Trainer::Trainer(Context& ctx, TrainTarget& target, data::Loader& loader, TrainOptions options, TrainObserver& observer)
    : ctx_(ctx),
      target_(target),
      loader_(loader),
      o_(std::move(options)),
      observer_(observer),
      parameters_(ctx, target.trainables()) {
  if (o_.adaptive_lr) adaptive_.emplace(*o_.adaptive_lr);
}

// The rate of the update that is about to be made. A rollback happens here and takes the place of the update.
double Trainer::adapted_rate(double loss) {
  const double scheduled = o_.schedule.rate(step_) * lr_factor_;
  if (!adaptive_) return lr_override_ ? *lr_override_ : scheduled;
  const AdaptiveLr::Decision d = adaptive_->step(loss, scheduled);
  const bool keeps = o_.adaptive_lr->rollback;
  if (keeps && d.new_best) parameters_.keep(ctx_, snapshot_);
  const bool goes_back = d.action == LrAction::kRollback || d.action == LrAction::kStop;
  if (keeps && goes_back && snapshot_.defined()) parameters_.go_back(ctx_, snapshot_);
  adaptive_stop_ = d.action == LrAction::kStop;
  const double lr = lr_override_ ? *lr_override_ : d.lr;
  if (d.action != LrAction::kNone) observer_.on_lr_action(step_ + 1, name_of(d.action), lr, d.text);
  if (goes_back) went_back_ = true;
  return lr;
}

StepReport Trainer::step(const std::vector<data::PackedSequence>& micro_batches) {
  const auto start = Clock::now();
  StepReport r;
  int64_t learned = 0;
  for (const data::PackedSequence& s : micro_batches) {
    learned += s.n_learned();
    r.step_tokens += s.length();
  }
  parameters_.zero_gradients(ctx_);
  Sums sums;
  LossOptions loss_options;
  loss_options.recompute_group = o_.recompute_group;
  loss_options.embedding_noise = static_cast<float>(o_.neftune_alpha);
  loss_options.head = o_.head;
  loss_options.seed = o_.seed;
  loss_options.step = static_cast<uint32_t>(step_);
  loss_options.draws = target_.draws_random();
  for (const data::PackedSequence& s : micro_batches) {
    Tape tape = ops::make_tape();
    TapeScope recording(ctx_, &tape);
    const SequenceLoss loss =
        sequence_loss(ctx_, target_.model(), s, 1.0 / static_cast<double>(std::max<int64_t>(learned, 1)), loss_options);
    if (!loss.n_learned) continue;
    Tensor seed = ctx_.empty({1}, DType::kF32);
    ops::fill(ctx_, seed, 1);
    tape.backward(ctx_, loss.loss, seed);
    sums.add(ctx_, loss);
  }
  r.forward_backward_ms = 1e3 * seconds_since(start);
  const auto update = Clock::now();
  r.grad_norm = parameters_.gradient_norm(ctx_);
  r.loss = sums.nll / static_cast<double>(std::max<int64_t>(sums.learned, 1));
  went_back_ = false;
  r.lr = adapted_rate(r.loss);
  r.skipped = !std::isfinite(r.grad_norm) || !std::isfinite(r.loss) || learned == 0;
  if (went_back_) {
    target_.values_changed();  // these gradients belong to the weights that were left
  } else if (!r.skipped) {
    const double clip = o_.max_grad_norm > 0 ? std::min(1.0, o_.max_grad_norm / (r.grad_norm + 1e-6)) : 1;
    // skipped steps do not count for the bias correction of the moments
    parameters_.step(ctx_, o_.adamw, r.lr, clip, step_ - skipped_ + 1);
    target_.values_changed();
  } else {
    ++skipped_;
  }
  r.optimizer_ms = 1e3 * seconds_since(update);
  ++step_;
  tokens_ += r.step_tokens;
  r.step = step_;
  r.total_steps = o_.total_steps;
  r.tokens = tokens_;
  r.learned_tokens = sums.learned;
  r.entropy = sums.entropy / static_cast<double>(std::max<int64_t>(sums.learned, 1));
  r.token_accuracy = static_cast<double>(sums.correct) / static_cast<double>(std::max<int64_t>(sums.learned, 1));
  r.epoch = loader_.progress();
  r.seconds = seconds_since(start);
  r.memory_bytes = ctx_.allocator().stats().peak_bytes;
  last_loss_ = r.loss;
  return r;
}

bool Trainer::next_batch(std::vector<data::PackedSequence>& micro_batches) {
  micro_batches.clear();
  for (int64_t a = 0; a < o_.accumulation; ++a) {
    data::PackedSequence joined, one;
    for (int64_t b = 0; b < o_.batch_size && loader_.next(one); ++b) joined.append(one);
    if (joined.length() == 0) break;
    micro_batches.push_back(std::move(joined));
  }
  return !micro_batches.empty();
}

TrainSummary Trainer::run() {
  const auto start = Clock::now();
  TrainSummary summary;
  std::vector<data::PackedSequence> batch;
  int64_t saved_at = step_, consecutive_skips = 0;
  while (o_.max_steps == 0 || step_ < o_.max_steps) {
    if (observer_.stop_requested()) {
      summary.stopped = true;
      break;
    }
    if (control_stop_) break;
    if (adaptive_stop_) {
      summary.stopped_early = true;
      break;
    }
    const auto waiting = Clock::now();
    if (!next_batch(batch)) break;
    const double data_ms = 1e3 * seconds_since(waiting);
    StepReport report = step(batch);
    report.data_ms = data_ms;
    report.seconds += data_ms / 1e3;
    observer_.on_step(report);
    consecutive_skips = report.skipped ? consecutive_skips + 1 : 0;
    if (consecutive_skips >= 10)
      fail(ErrorCode::kNumerical,
           "training: the loss or its gradient was not finite in {} steps in a row (last loss {}); lower the learning "
           "rate "
           "(now {:.3g}), check the data, or use --dtype f32",
           consecutive_skips, report.loss, report.lr);
    if (o_.eval_steps > 0 && !eval_.empty() && step_ % o_.eval_steps == 0) evaluate();
    poll_control();
    if (!o_.output.empty() && ((o_.save_steps > 0 && step_ % o_.save_steps == 0) || control_save_)) {
      save_checkpoint();
      saved_at = step_;
      control_save_ = false;
    }
  }
  if ((summary.stopped || control_stop_) && !o_.output.empty() && saved_at != step_) save_checkpoint();
  if (!summary.stopped && !eval_.empty() && evaluated_at_ != step_) evaluate();
  summary.steps = step_;
  summary.tokens = tokens_;
  summary.skipped = skipped_;
  summary.final_loss = last_loss_;
  summary.best_eval_loss = best_eval_;
  summary.seconds = seconds_since(start);
  return summary;
}

EvalReport evaluate(Context& ctx, models::Model& model, const std::vector<data::PackedSequence>& sequences) {
  TapeScope off(ctx, nullptr);
  Sums sums;
  EvalReport r;
  for (const data::PackedSequence& s : sequences) {
    sums.add(ctx, sequence_loss(ctx, model, s, 1));
    r.tokens += s.length();
  }
  r.loss = sums.nll / static_cast<double>(std::max<int64_t>(sums.learned, 1));
  r.perplexity = std::exp(r.loss);
  r.token_accuracy = static_cast<double>(sums.correct) / static_cast<double>(std::max<int64_t>(sums.learned, 1));
  return r;
}

EvalReport Trainer::evaluate() {
  EvalReport r = train::evaluate(ctx_, target_.model(), eval_);
  r.step = step_;
  bool is_best = false;
  if (!has_best_ || r.loss < best_eval_) {
    best_eval_ = r.loss;
    has_best_ = true;
    is_best = true;
  }
  evaluated_at_ = step_;
  observer_.on_eval(r);
  if (is_best && !o_.output.empty())
    observer_.on_best(save_best(ctx_, o_.output / "checkpoints", state(), parameters_, target_));
  return r;
}

void Trainer::poll_control() {
  constexpr int64_t kEvery = 10;  // steps between looks at the control file
  if (o_.output.empty() || step_ % kEvery) return;
  std::optional<ControlAction> action;
  try {
    action = take_control(o_.output);
  } catch (const Error& error) {  // someone's slip of the pen ends no run
    observer_.on_warning(fmt::format("control file ignored: {}", error.what()));
  }
  if (!action) return;
  switch (action->kind) {
    case ControlAction::kSetLr: lr_override_ = action->value; break;
    case ControlAction::kReduceLr:
      lr_factor_ *= action->value;
      if (lr_override_) *lr_override_ *= action->value;
      break;
    case ControlAction::kResetLr: lr_override_.reset(), lr_factor_ = 1; break;
    case ControlAction::kSave: control_save_ = true; break;
    case ControlAction::kStop: control_stop_ = true; break;
  }
  observer_.on_log(action->text);
}

CheckpointState Trainer::state() const {
  CheckpointState state;
  state.step = step_;
  state.tokens = tokens_;
  state.skipped = skipped_;
  state.epoch = loader_.progress();
  state.loss = last_loss_;
  state.has_best = has_best_;
  state.best_eval_loss = best_eval_;
  state.lr_override = lr_override_;
  state.lr_factor = lr_factor_;
  state.seed = o_.seed;
  state.lr = o_.schedule.rate(step_);
  state.loader = loader_.state();
  state.config = o_.config_text;
  if (adaptive_) state.adaptive_lr = adaptive_->state();
  return state;
}

void Trainer::save_checkpoint() {
  const fs::path folder = train::save_checkpoint(ctx_, o_.output / "checkpoints", state(), parameters_, snapshot_,
                                                 target_, o_.keep_checkpoints);
  observer_.on_checkpoint(folder);
}

bool Trainer::resume(const fs::path& from) {
  std::optional<fs::path> folder;
  if (fs::exists(from / "optimizer.safetensors"))
    folder = from;
  else if (const fs::path run = from.empty() ? o_.output : from; fs::exists(run / "checkpoints"))
    folder = newest_checkpoint(run / "checkpoints");
  else
    folder = newest_checkpoint(run);
  if (!folder) return false;
  const CheckpointState state = load_checkpoint(ctx_, *folder, parameters_, snapshot_, o_.config_text);
  if (adaptive_ && !state.adaptive_lr.empty())
    adaptive_->restore(state.adaptive_lr, (*folder / "metadata.json").string());
  loader_.restore(state.loader);
  step_ = state.step;
  tokens_ = state.tokens;
  skipped_ = state.skipped;
  last_loss_ = state.loss;
  has_best_ = state.has_best;
  best_eval_ = state.best_eval_loss;
  lr_override_ = state.lr_override;
  lr_factor_ = state.lr_factor;
  target_.values_changed();
  return true;
}

}  // namespace pmetal::train
