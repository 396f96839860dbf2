// Adaptive learning rate (--adaptive-lr): watches the loss and multiplies the schedule's rate.
// State: mean and variance of the loss as exponential averages with bias correction, a multiplier M that persists, a
// window of the mean's last values, counters. Each step gives one decision; in this order of priority:
//   grace       the first max(30 % of the steps, 30, warm-up and a little more): schedule · M, nothing is judged
//   cooldown    after a spike: · 0.3 until 10 steps have passed, then "recovered"
//   spike       loss more than 3.5 standard deviations above the mean (or not finite): · 0.3 now
//   divergence  the mean rises by more than 0.005 a step over 40 steps, twice in a row: M · 0.7 (at most 4 times); with
//               rollback M · 0.5 and back to the best weights (at most 3 times), after that the run ends
//   plateau     100 steps without a better mean: M · 0.5, at most 5 times
// A spike enters neither mean nor variance once 30 losses are known. Outside grace the rate is at least `min_lr`.
// Everything is a pure function of the losses; state() and restore() carry it over a resume without loss.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

namespace pmetal::train {

struct AdaptiveLrOptions {
  double alpha = 0.97;  // of the averages
  double spike_z = 3.5, spike_factor = 0.3;
  int64_t spike_cooldown = 10;
  int64_t window = 40;  // steps of the slope
  double divergence_slope = 0.005, divergence_factor = 0.7, rollback_factor = 0.5;
  int64_t divergence_confirm = 2, divergence_cooldown = 80, max_reductions = 4;
  bool rollback = false;
  int64_t max_rollbacks = 3;
  int64_t plateau_patience = 100, max_plateaus = 5;
  double plateau_factor = 0.5, min_delta = 1e-4;
  double grace_ratio = 0.3, min_lr = 1e-7;
  int64_t total_steps = 1, warmup_steps = 0;
};

enum class LrAction : uint8_t { kNone, kSpike, kRecovered, kReduce, kRollback, kPlateau, kStop };
const char* name_of(LrAction action);  // "spike", "recovered", "divergence", "rollback", "plateau", "early_stop"

class AdaptiveLr {
 public:
  explicit AdaptiveLr(const AdaptiveLrOptions& options);

  struct Decision {
    double lr;
    LrAction action = LrAction::kNone;
    std::string text;       // for the log, when there is an action
    bool new_best = false;  // the mean is the best so far: the weights before this update are worth keeping
  };
  // `loss` of the step whose update is about to be made, `scheduled` its rate by the schedule
  Decision step(double loss, double scheduled);

  double mean() const;       // bias-corrected; 0 before the first loss
  double deviation() const;  // square root of the bias-corrected variance
  double multiplier() const { return multiplier_; }
  int64_t grace() const { return grace_; }

  std::string state() const;  // a JSON object
  // Error(kInvalidInput) naming `source` and the field
  void restore(const std::string& state, const std::string& source);

 private:
  void observe(double loss);
  double slope() const;  // least squares over the window, per step
  void forget_to_best();

  AdaptiveLrOptions o_;
  int64_t grace_;
  int64_t steps_ = 0, seen_ = 0;  // seen_: losses in the averages
  double raw_mean_ = 0, raw_variance_ = 0, multiplier_ = 1;
  bool has_best_ = false;
  double best_ = 0;
  std::deque<double> window_;
  int64_t spike_left_ = 0, divergence_left_ = 0;  // steps of cooldown that remain
  int64_t rising_ = 0, reductions_ = 0, rollbacks_ = 0, plateaus_ = 0, since_best_ = 0;
};

}  // namespace pmetal::train
