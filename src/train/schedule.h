// Learning-rate schedules with the definitions of Hugging Face `optimization` (specs and fixtures: lr_schedules.json).
// The rate of optimizer step number k (from 1) is base · factor(k − 1): a warm-up's first step has rate 0.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pmetal::train {

enum class ScheduleKind { kConstant, kLinear, kCosine, kCosineWithRestarts, kPolynomial, kWsd, kInverseSqrt };
enum class DecayShape { kLinear, kCosine, kOneMinusSqrt };

struct Schedule {
  ScheduleKind kind = ScheduleKind::kCosine;
  double base = 2e-4;
  int64_t warmup = 0, total = 1;
  double min_ratio = 0;                    // cosine and wsd end at base · min_ratio
  double cycles = 0.5;                     // cosine; restarts: number of hard restarts
  double power = 1;                        // polynomial
  double end = 1e-7;                       // polynomial: final rate
  double stable_ratio = 0.7;               // wsd: share of the steps after warm-up at full rate
  int64_t stable = -1, decay = -1;         // wsd: in steps, override stable_ratio
  DecayShape shape = DecayShape::kCosine;  // wsd
  int64_t timescale = 0;                   // inverse_sqrt: 0 = warm-up, or 10000 without one

  double factor(int64_t steps_done) const;
  double rate(int64_t steps_done) const { return base * factor(steps_done); }
};

}  // namespace pmetal::train
