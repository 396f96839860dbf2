// Each rule on made losses whose effect follows from the rule's text; a resume in the middle changes nothing.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/rng.h"
#include "train/adaptive_lr.h"

namespace pmetal::train {
namespace {

constexpr double kRate = 1e-3;

AdaptiveLrOptions options(int64_t total = 100, int64_t warmup = 0) {
  AdaptiveLrOptions o;
  o.total_steps = total;
  o.warmup_steps = warmup;
  return o;
}
// noise around 2 that is no spike and no trend
double calm(int64_t i) { return 2 + (i % 2 ? 0.01 : -0.01); }
// `n` calm losses
void settle(AdaptiveLr& a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) EXPECT_EQ(a.step(calm(i), kRate).action, LrAction::kNone) << i;
}

TEST(AdaptiveLr, Grace_is_the_longest_of_three_spans) {
  EXPECT_EQ(AdaptiveLr(options(1000)).grace(), 300);
  EXPECT_EQ(AdaptiveLr(options(20)).grace(), 30);
  EXPECT_EQ(AdaptiveLr(options(100, 50)).grace(), 60);
  EXPECT_EQ(AdaptiveLr(options(1000, 400)).grace(), 440);
  AdaptiveLr a(options(1000));
  settle(a, 100);
  const auto d = a.step(50, kRate);  // a spike, but within grace
  EXPECT_EQ(d.action, LrAction::kNone);
  EXPECT_EQ(d.lr, kRate);
}

TEST(AdaptiveLr, Mean_is_bias_corrected) {
  AdaptiveLr a(options());
  a.step(3, kRate);
  EXPECT_DOUBLE_EQ(a.mean(), 3);
  a.step(1, kRate);
  // (0.97 · 0.03 · 3 + 0.03 · 1) / (1 − 0.97²)
  EXPECT_NEAR(a.mean(), (0.97 * 0.03 * 3 + 0.03) / (1 - 0.97 * 0.97), 1e-12);
}

TEST(AdaptiveLr, Spike_cuts_the_rate_for_ten_steps_and_stays_out_of_the_mean) {
  AdaptiveLr a(options());
  settle(a, 40);
  const double mean = a.mean();
  auto d = a.step(4, kRate);
  EXPECT_EQ(d.action, LrAction::kSpike);
  EXPECT_DOUBLE_EQ(d.lr, 0.3 * kRate);
  EXPECT_EQ(a.mean(), mean);
  for (int i = 0; i < 9; ++i) {
    d = a.step(calm(i), kRate);
    EXPECT_EQ(d.action, LrAction::kNone);
    EXPECT_DOUBLE_EQ(d.lr, 0.3 * kRate);
  }
  d = a.step(calm(9), kRate);
  EXPECT_EQ(d.action, LrAction::kRecovered);
  EXPECT_DOUBLE_EQ(d.lr, kRate);
  EXPECT_EQ(a.multiplier(), 1);
}

TEST(AdaptiveLr, A_loss_that_is_not_finite_is_a_spike_and_never_enters_the_mean) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    AdaptiveLr a(options());
    a.step(bad, kRate);
    EXPECT_EQ(a.mean(), 0);
    settle(a, 40);
    EXPECT_EQ(a.step(bad, kRate).action, LrAction::kSpike);
    EXPECT_NEAR(a.mean(), 2, 0.01);
  }
}

// a rise slow enough to be no spike: 0.02 a step under noise of 0.2
double rising(int64_t i) { return 2 + 0.02 * static_cast<double>(i) + (i % 2 ? 0.2 : -0.2); }

TEST(AdaptiveLr, Divergence_reduces_at_most_four_times_with_pauses_between) {
  AdaptiveLrOptions o = options(60);
  o.max_plateaus = 0;  // a rising loss is a plateau as well; here one rule alone
  AdaptiveLr a(o);
  for (int64_t i = 0; i < 60; ++i) a.step(2 + (i % 2 ? 0.2 : -0.2), kRate);
  std::vector<int64_t> at;
  for (int64_t i = 0; i < 1000; ++i) {
    const auto d = a.step(rising(i), kRate);
    if (d.action == LrAction::kReduce) {
      at.push_back(i);
      EXPECT_NEAR(a.multiplier(), std::pow(0.7, static_cast<double>(at.size())), 1e-12);
      EXPECT_NEAR(d.lr, kRate * a.multiplier(), 1e-12);
    }
    EXPECT_NE(d.action, LrAction::kRollback);
  }
  ASSERT_EQ(at.size(), 4u);
  for (size_t i = 1; i < at.size(); ++i) EXPECT_GE(at[i] - at[i - 1], 80);
}

TEST(AdaptiveLr, With_rollback_it_goes_back_three_times_then_stops) {
  AdaptiveLrOptions o = options(60);
  o.rollback = true;
  AdaptiveLr a(o);
  for (int64_t i = 0; i < 60; ++i) a.step(2 + (i % 2 ? 0.2 : -0.2), kRate);
  int64_t rollbacks = 0, i = 0;
  for (; i < 2000; ++i) {
    const auto d = a.step(rising(i % 400), kRate);
    if (d.action == LrAction::kRollback) {
      ++rollbacks;
      EXPECT_NEAR(a.multiplier(), std::pow(0.5, static_cast<double>(rollbacks)), 1e-12);
      EXPECT_EQ(a.deviation(), 0);
      EXPECT_NEAR(a.mean(), 2, 0.21);  // the best mean
    }
    if (d.action == LrAction::kStop) break;
  }
  EXPECT_EQ(rollbacks, 3);
  EXPECT_LT(i, 2000) << "never stopped";
}

TEST(AdaptiveLr, Plateau_halves_the_rate_every_hundred_steps_five_times) {
  AdaptiveLr a(options(100));
  std::vector<int64_t> at;
  for (int64_t i = 1; i <= 1000; ++i)
    if (a.step(2, kRate).action == LrAction::kPlateau) at.push_back(i);
  EXPECT_EQ(at, (std::vector<int64_t>{130, 230, 330, 430, 530}));  // grace of 30, then patience of 100
  EXPECT_NEAR(a.multiplier(), 1 / 32.0, 1e-12);
}

TEST(AdaptiveLr, A_falling_loss_is_left_alone_and_each_better_mean_is_told) {
  AdaptiveLr a(options(400));
  int64_t best = 0;
  for (int64_t i = 0; i < 400; ++i) {
    const auto d = a.step(3 - 0.005 * static_cast<double>(i), kRate);
    EXPECT_EQ(d.action, LrAction::kNone);
    EXPECT_EQ(d.lr, kRate);
    best += d.new_best;
  }
  EXPECT_GT(best, 390);
}

TEST(AdaptiveLr, Rate_has_a_floor_after_grace) {
  AdaptiveLr a(options());
  EXPECT_EQ(a.step(2, 0).lr, 0);
  settle(a, 40);
  EXPECT_EQ(a.step(2, 1e-9).lr, 1e-7);
}

TEST(AdaptiveLr, Restored_state_decides_as_the_original) {
  AdaptiveLrOptions o = options(60);
  o.rollback = true;
  AdaptiveLr whole(o);
  PhiloxStream random(11, RngPurpose::kSynthetic);
  std::vector<double> losses;
  for (int64_t i = 0; i < 900; ++i)
    losses.push_back(2 + 0.1 * std::sin(static_cast<double>(i) / 60) + 0.001 * static_cast<double>(random.below(200)) +
                     (random.below(50) ? 0 : 3) + (i / 300) * 0.01 * static_cast<double>(i % 300));
  AdaptiveLr resumed(o);
  int64_t actions = 0;
  for (size_t i = 0; i < losses.size(); ++i) {
    if (i % 37 == 0) {
      AdaptiveLr fresh(o);
      fresh.restore(resumed.state(), "test");
      resumed = fresh;
    }
    const auto a = whole.step(losses[i], kRate), b = resumed.step(losses[i], kRate);
    ASSERT_EQ(a.lr, b.lr) << i;
    ASSERT_EQ(a.action, b.action) << i;
    ASSERT_EQ(a.new_best, b.new_best) << i;
    actions += a.action != LrAction::kNone;
  }
  EXPECT_GT(actions, 3);
}

}  // namespace
}  // namespace pmetal::train
