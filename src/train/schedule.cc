#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace pmetal::train {
namespace {

double share(int64_t part, int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, whole));
}

}  // namespace

double Schedule::factor(int64_t s) const {
  if (kind == ScheduleKind::kInverseSqrt) {
    const int64_t scale = timescale > 0 ? timescale : warmup > 0 ? warmup : 10000;
    if (s < warmup) return share(s, warmup);
    return 1 / std::sqrt(static_cast<double>(s + scale - warmup) / static_cast<double>(scale));
  }
  // the reference's wsd begins at its floor
  if (s < warmup) return kind == ScheduleKind::kWsd ? share(s, warmup) * (1 - min_ratio) + min_ratio : share(s, warmup);
  const double p = share(s - warmup, total - warmup);
  switch (kind) {
    case ScheduleKind::kConstant: return 1;
    case ScheduleKind::kLinear: return std::max(0.0, share(total - s, total - warmup));
    case ScheduleKind::kCosine: {
      const double f = 0.5 * (1 + std::cos(std::numbers::pi * 2 * cycles * p));
      return std::max(0.0, f * (1 - min_ratio) + min_ratio);
    }
    case ScheduleKind::kCosineWithRestarts: {
      if (p >= 1) return min_ratio;
      const double n = cycles < 1 ? 1 : cycles;
      const double f = 0.5 * (1 + std::cos(std::numbers::pi * std::fmod(n * p, 1.0)));
      return std::max(0.0, f * (1 - min_ratio) + min_ratio);
    }
    case ScheduleKind::kPolynomial: {
      const double last = min_ratio > 0 ? min_ratio * base : end;
      if (s > total) return last / base;
      return (last + (base - last) * std::pow(1 - p, power)) / base;
    }
    case ScheduleKind::kWsd: {
      const int64_t after = std::max<int64_t>(0, total - warmup);
      const int64_t flat = stable >= 0 ? stable : static_cast<int64_t>(stable_ratio * static_cast<double>(after));
      const int64_t fall = decay >= 0 ? decay : after - flat;
      if (s < warmup + flat) return 1;
      if (s >= warmup + flat + fall) return min_ratio;
      const double q = share(s - warmup - flat, fall);
      const double f = shape == DecayShape::kLinear   ? 1 - q
                       : shape == DecayShape::kCosine ? 0.5 * (1 + std::cos(std::numbers::pi * q))
                                                      : 1 - std::sqrt(q);
      return f * (1 - min_ratio) + min_ratio;
    }
    case ScheduleKind::kInverseSqrt: break;
  }
  return 1;
}

}  // namespace pmetal::train
