#include "train/adaptive_lr.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/json.h"
#include "formats/json_reader.h"

namespace pmetal::train {
namespace {

constexpr int64_t kKnown = 30;        // losses before a spike can be told from noise
constexpr int64_t kWarmSamples = 10;  // how many the averages count as after a rollback
constexpr double kTiny = 1e-8;

}  // namespace

const char* name_of(LrAction action) {
  switch (action) {
    case LrAction::kNone: return "none";
    case LrAction::kSpike: return "spike";
    case LrAction::kRecovered: return "recovered";
    case LrAction::kReduce: return "divergence";
    case LrAction::kRollback: return "rollback";
    case LrAction::kPlateau: return "plateau";
    case LrAction::kStop: return "early_stop";
  }
  return "none";
}

AdaptiveLr::AdaptiveLr(const AdaptiveLrOptions& options)
    : o_(options),
      grace_(std::max({static_cast<int64_t>(std::ceil(o_.grace_ratio * static_cast<double>(o_.total_steps))), kKnown,
                       o_.warmup_steps + std::max<int64_t>(10, o_.warmup_steps / 10)})) {}

double AdaptiveLr::mean() const { return seen_ ? raw_mean_ / (1 - std::pow(o_.alpha, static_cast<double>(seen_))) : 0; }

double AdaptiveLr::deviation() const {
  return seen_ ? std::sqrt(raw_variance_ / (1 - std::pow(o_.alpha, static_cast<double>(seen_)))) : 0;
}

void AdaptiveLr::observe(double loss) {
  const double distance = seen_ ? loss - mean() : 0;
  raw_mean_ = o_.alpha * raw_mean_ + (1 - o_.alpha) * loss;
  raw_variance_ = o_.alpha * raw_variance_ + (1 - o_.alpha) * distance * distance;
  ++seen_;
}

double AdaptiveLr::slope() const {
  const auto n = static_cast<double>(window_.size());
  const double middle = (n - 1) / 2;
  double products = 0, squares = 0;
  for (size_t i = 0; i < window_.size(); ++i) {
    const double x = static_cast<double>(i) - middle;
    products += x * window_[i];
    squares += x * x;
  }
  return products / squares;
}

// the averages as they would be after kWarmSamples losses of the best mean
void AdaptiveLr::forget_to_best() {
  seen_ = kWarmSamples;
  raw_mean_ = best_ * (1 - std::pow(o_.alpha, static_cast<double>(kWarmSamples)));
  raw_variance_ = 0;
}

AdaptiveLr::Decision AdaptiveLr::step(double loss, double scheduled) {
  const double z = (loss - mean()) / (deviation() + kTiny);
  const bool spike = !std::isfinite(loss) || (seen_ > kKnown && z > o_.spike_z);
  if (!spike) observe(loss);
  ++steps_;
  if (std::isfinite(loss)) {
    window_.push_back(mean());
    if (static_cast<int64_t>(window_.size()) > o_.window) window_.pop_front();
  }
  if (divergence_left_ > 0) --divergence_left_;

  Decision d{};
  if (!spike && seen_ > 0 && (!has_best_ || mean() < best_ - o_.min_delta * std::max(1.0, mean()))) {
    best_ = mean();
    d.new_best = has_best_ = true;
    since_best_ = 0;
  } else if (steps_ > grace_) {
    ++since_best_;
  }
  const auto decide = [&](LrAction action, double factor, std::string text) {
    d.action = action;
    d.text = std::move(text);
    d.lr = std::max(o_.min_lr, scheduled * multiplier_ * factor);
    return d;
  };
  if (steps_ <= grace_) {
    d.lr = scheduled * multiplier_;
    return d;
  }
  if (spike_left_ > 0) {
    if (--spike_left_ > 0) return decide(LrAction::kNone, o_.spike_factor, {});
    return decide(LrAction::kRecovered, 1, "learning rate back after the spike");
  }
  if (spike) {
    spike_left_ = o_.spike_cooldown;
    return decide(LrAction::kSpike, o_.spike_factor,
                  fmt::format("loss {:.4g} is a spike (mean {:.4g}, deviation {:.2g}): learning rate x {} for {} steps",
                              loss, mean(), deviation(), o_.spike_factor, o_.spike_cooldown));
  }
  const int64_t limit = o_.rollback ? o_.max_rollbacks : o_.max_reductions;
  const int64_t used = o_.rollback ? rollbacks_ : reductions_;
  const bool may_judge = static_cast<int64_t>(window_.size()) == o_.window && divergence_left_ == 0;
  if (may_judge && (o_.rollback || used < limit)) {
    const double rise = slope();
    rising_ = rise > o_.divergence_slope ? rising_ + 1 : 0;
    if (rising_ >= o_.divergence_confirm) {
      rising_ = 0;
      window_.clear();
      divergence_left_ = o_.divergence_cooldown;
      if (!o_.rollback) {
        ++reductions_;
        multiplier_ *= o_.divergence_factor;
        return decide(LrAction::kReduce, 1,
                      fmt::format("the loss rises by {:.3g} a step: learning rate x {}", rise, o_.divergence_factor));
      }
      if (used >= limit)
        return decide(LrAction::kStop, 1,
                      fmt::format("the loss rises by {:.3g} a step after {} rollbacks: the run ends with its best "
                                  "weights",
                                  rise, rollbacks_));
      ++rollbacks_;
      multiplier_ *= o_.rollback_factor;
      forget_to_best();
      since_best_ = 0;
      return decide(LrAction::kRollback, 1,
                    fmt::format("the loss rises by {:.3g} a step: back to the weights of mean loss {:.4g}, learning "
                                "rate x {}",
                                rise, best_, o_.rollback_factor));
    }
  }
  if (since_best_ >= o_.plateau_patience && plateaus_ < o_.max_plateaus) {
    ++plateaus_;
    since_best_ = 0;
    multiplier_ *= o_.plateau_factor;
    return decide(LrAction::kPlateau, 1,
                  fmt::format("no better mean loss than {:.4g} in {} steps: learning rate x {}", best_,
                              o_.plateau_patience, o_.plateau_factor));
  }
  return decide(LrAction::kNone, 1, {});
}

std::string AdaptiveLr::state() const {
  nlohmann::ordered_json j;
  j["steps"] = steps_;
  j["seen"] = seen_;
  j["mean"] = raw_mean_;
  j["variance"] = raw_variance_;
  j["multiplier"] = multiplier_;
  j["best"] = has_best_ ? nlohmann::ordered_json(best_) : nlohmann::ordered_json(nullptr);
  j["window"] = std::vector<double>(window_.begin(), window_.end());
  j["spike_left"] = spike_left_;
  j["divergence_left"] = divergence_left_;
  j["rising"] = rising_;
  j["reductions"] = reductions_;
  j["rollbacks"] = rollbacks_;
  j["plateaus"] = plateaus_;
  j["since_best"] = since_best_;
  return j.dump();
}

void AdaptiveLr::restore(const std::string& state, const std::string& source) {
  const nlohmann::ordered_json value = formats::parse_json(state, source);
  const formats::JsonReader j(value, source);
  steps_ = j.integer("steps");
  seen_ = j.integer("seen");
  raw_mean_ = j.number("mean");
  raw_variance_ = j.number("variance");
  multiplier_ = j.number("multiplier");
  has_best_ = j.has("best");
  best_ = j.number_or("best", 0);
  const std::vector<double> window = j.numbers("window");
  window_.assign(window.begin(), window.end());
  spike_left_ = j.integer("spike_left");
  divergence_left_ = j.integer("divergence_left");
  rising_ = j.integer("rising");
  reductions_ = j.integer("reductions");
  rollbacks_ = j.integer("rollbacks");
  plateaus_ = j.integer("plateaus");
  since_best_ = j.integer("since_best");
}

}  // namespace pmetal::train
