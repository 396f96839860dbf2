#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <utility>

#include "ops/device.h"
#include "train/checkpoints.h"
#include "train/control.h"

namespace pmetal::train {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Sums {
  double nll = 0, entropy = 0;
  int64_t correct = 0, learned = 0;
  void add(int64_t n_learned, const Tensor& n, const Tensor& c, const Tensor& e) {
    if (!n_learned) return;
    for (int64_t i = 0; i < n_learned; ++i) {
      nll += n.data<float>()[i];
      correct += c.data<uint8_t>()[i];
    }
    if (e.defined())
      for (int64_t i = 0; i < n_learned; ++i) entropy += e.data<float>()[i];
    learned += n_learned;
  }
  double mean(double sum) const { return sum / static_cast<double>(std::max<int64_t>(learned, 1)); }
};

}  // namespace

Trainer::Trainer(Context& ctx, TrainTarget& target, data::Loader& loader, TrainOptions options, TrainObserver& observer)
    : ctx_(ctx),
      target_(target),
      loader_(loader),
      o_(std::move(options)),
      observer_(observer),
      parameters_(ctx, target.trainables()),
      runner_(ctx, target.model(), o_.records && target.is_recordable()) {
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

struct Trainer::Queued {
  struct Part {
    int64_t n_learned;
    ops::Download nll, correct, entropy;
  };
  std::vector<Part> parts;
  ops::Download decision;
  StepReport report;
  Clock::time_point start;
  bool is_decided = false;  // the report holds norm, rate and whether it was skipped

  // waits
  Sums sums() {
    Sums all;
    for (Part& p : parts) all.add(p.n_learned, p.nll.get(), p.correct.get(), p.entropy.get());
    return all;
  }
};

// Runs `work`, once more without recorded graphs where their memory is what it lacks.
template <class Work>
void Trainer::with_memory_of_graphs(const Work& work) {
  try {
    work();
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kOutOfMemory || !runner_.forget()) throw;
    observer_.on_warning("recorded graphs of training steps are given up: their memory is needed");
    work();
  }
}

StepReport Trainer::step(const std::vector<data::PackedSequence>& micro_batches) {
  return settle(*queue(micro_batches));
}

std::shared_ptr<Trainer::Queued> Trainer::queue(const std::vector<data::PackedSequence>& micro_batches) {
  const auto queued = std::make_shared<Queued>();
  queued->start = Clock::now();
  StepReport& r = queued->report;
  int64_t learned = 0;
  for (const data::PackedSequence& s : micro_batches) {
    learned += s.n_learned();
    r.step_tokens += s.length();
  }
  LossOptions loss_options;
  loss_options.recompute_group = o_.recompute_group;
  loss_options.embedding_noise = static_cast<float>(o_.neftune_alpha);
  loss_options.head = o_.head;
  loss_options.seed = o_.seed;
  loss_options.step = static_cast<uint32_t>(step_);
  loss_options.draws = target_.draws_random();
  const int64_t replayed = runner_.counts().replayed;
  Tensor loss;
  const auto forward_backward = [&] {
    parameters_.zero_gradients(ctx_);
    queued->parts.clear();
    loss = {};
    for (const data::PackedSequence& s : micro_batches) {
      const MicroBatches::Result part =
          runner_.run(s, 1.0 / static_cast<double>(std::max<int64_t>(learned, 1)), loss_options);
      if (!part.n_learned) continue;
      queued->parts.push_back({part.n_learned, {ctx_, part.nll}, {ctx_, part.correct}, {}});
      if (part.entropy.defined()) queued->parts.back().entropy = {ctx_, part.entropy};
      if (!loss) {
        loss = ctx_.empty({1}, part.loss.dtype());
        ops::fill(ctx_, loss, 0);
      }
      ops::accumulate(ctx_, loss, part.loss);
    }
  };
  with_memory_of_graphs(forward_backward);
  r.replayed = runner_.counts().replayed - replayed;
  r.forward_backward_ms = 1e3 * seconds_since(queued->start);

  const auto update = Clock::now();
  went_back_ = false;
  const auto rate_of = [&](double mean_loss) { return adapted_rate(mean_loss); };
  if (FlatParameters::decides_alone(ctx_) && learned > 0) {
    // the adaptive rate looks at the loss first
    if (adaptive_) {
      const Sums sums = queued->sums();
      r.loss = sums.mean(sums.nll);
    }
    r.lr = rate_of(r.loss);
    if (went_back_) {
      r.grad_norm = parameters_.gradient_norm(ctx_);
      r.skipped = !std::isfinite(r.grad_norm) || !std::isfinite(r.loss);
      queued->is_decided = true;
      parameters_.set_updates(ctx_, step_ - skipped_ + 1);
    } else {
      parameters_.decided_step(ctx_, o_.adamw, r.lr, o_.max_grad_norm, loss);
      queued->decision = {ctx_, parameters_.decision()};
    }
    target_.values_changed();
  } else {
    const Sums sums = queued->sums();
    r.grad_norm = parameters_.gradient_norm(ctx_);
    r.loss = sums.mean(sums.nll);
    r.lr = rate_of(r.loss);
    r.skipped = !std::isfinite(r.grad_norm) || !std::isfinite(r.loss) || learned == 0;
    queued->is_decided = true;
    if (!went_back_ && !r.skipped) {
      const double clip = o_.max_grad_norm > 0 ? std::min(1.0, o_.max_grad_norm / (r.grad_norm + 1e-6)) : 1;
      // skipped steps do not count for the bias correction of the moments
      parameters_.step(ctx_, o_.adamw, r.lr, clip, step_ - skipped_ + 1);
    }
    if (went_back_ || !r.skipped) target_.values_changed();
  }
  r.optimizer_ms = 1e3 * seconds_since(update);
  ++step_;
  tokens_ += r.step_tokens;
  r.step = step_;
  r.total_steps = o_.total_steps;
  r.tokens = tokens_;
  r.epoch = loader_.progress();
  return queued;
}

StepReport Trainer::settle(Queued& queued) {
  StepReport& r = queued.report;
  const Sums sums = queued.sums();
  r.loss = sums.mean(sums.nll);
  if (!queued.is_decided) {
    const double* decision = queued.decision.get().data<double>();
    r.skipped = decision[1] == 0;
    r.grad_norm = decision[2];
  }
  if (r.skipped && !went_back_) ++skipped_;
  r.learned_tokens = sums.learned;
  r.entropy = sums.mean(sums.entropy);
  r.token_accuracy = sums.mean(static_cast<double>(sums.correct));
  const auto end = Clock::now();
  r.seconds = std::chrono::duration<double>(end - std::max(queued.start, last_end_)).count();
  last_end_ = end;
  if (!queued.is_decided) r.forward_backward_ms = 1e3 * r.seconds - r.optimizer_ms - r.data_ms;
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
  std::shared_ptr<Queued> under_way;
  std::string told;
  const auto deliver = [&] {
    if (!under_way) return;
    const StepReport report = settle(*std::exchange(under_way, nullptr));
    if (const std::string& why = runner_.counts().reason; ctx_.device().is_cuda() && !why.empty() && why != told)
      observer_.on_log("forward and backward are started kernel by kernel instead of replayed: " + (told = why));
    observer_.on_step(report);
    consecutive_skips = report.skipped ? consecutive_skips + 1 : 0;
    if (consecutive_skips >= 10)
      fail(ErrorCode::kNumerical,
           "training: the loss or its gradient was not finite in {} steps in a row (last loss {}); lower the learning "
           "rate "
           "(now {:.3g}), check the data, or use --dtype f32",
           consecutive_skips, report.loss, report.lr);
  };
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
    const std::shared_ptr<Queued> next = queue(batch);
    next->report.data_ms = data_ms;
    next->start = waiting;
    deliver();
    under_way = next;
    const bool evaluates = o_.eval_steps > 0 && !eval_.empty() && step_ % o_.eval_steps == 0;
    const bool saves = !o_.output.empty() && o_.save_steps > 0 && step_ % o_.save_steps == 0;
    // While the device makes this step the host may prepare the next, unless something wants to see what came of it.
    if (!ctx_.device().is_cuda() || adaptive_ || evaluates || saves || looks_at_control()) deliver();
    if (evaluates) evaluate();
    poll_control();
    if (saves || (control_save_ && !o_.output.empty())) {
      deliver();
      save_checkpoint();
      saved_at = step_;
      control_save_ = false;
    }
  }
  deliver();
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
    const SequenceLoss loss = sequence_loss(ctx, model, s, 1);
    if (loss.n_learned)
      sums.add(loss.n_learned, ops::to_host(ctx, loss.head.nll), ops::to_host(ctx, loss.head.correct),
               loss.head.entropy.defined() ? ops::to_host(ctx, loss.head.entropy) : Tensor());
    r.tokens += s.length();
  }
  r.loss = sums.nll / static_cast<double>(std::max<int64_t>(sums.learned, 1));
  r.perplexity = std::exp(r.loss);
  r.token_accuracy = static_cast<double>(sums.correct) / static_cast<double>(std::max<int64_t>(sums.learned, 1));
  return r;
}

EvalReport Trainer::evaluate() {
  EvalReport r;
  with_memory_of_graphs([&] { r = train::evaluate(ctx_, target_.model(), eval_); });
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

bool Trainer::looks_at_control() const {
  constexpr int64_t kEvery = 10;  // steps between looks at the control file
  return !o_.output.empty() && step_ % kEvery == 0;
}

void Trainer::poll_control() {
  if (!looks_at_control()) return;
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
  if (FlatParameters::decides_alone(ctx_)) parameters_.set_updates(ctx_, step_ - skipped_);
  target_.values_changed();
  return true;
}

}  // namespace pmetal::train
