#include "hub/fit.h"

#include <algorithm>
#include <cmath>

namespace pmetal::hub {
namespace {

constexpr double kOverheadGb = 0.5;
constexpr double kAdaptersGb = 0.2;  // adapters, their gradients and moments
constexpr double kKvGbPerBillionAndToken = 8e-6;

struct PrecisionRow {
  std::string_view name;
  double bytes;
};
constexpr PrecisionRow kPrecisions[] = {{"f32", 4},   {"16-bit", 2},   {"8-bit", 1.05}, {"q6", 0.80},
                                        {"q5", 0.68}, {"4-bit", 0.58}, {"q3", 0.48},    {"q2", 0.37}};

const PrecisionRow& row_of(Precision precision) { return kPrecisions[static_cast<size_t>(precision)]; }

}  // namespace

double bytes_per_parameter(Precision precision) { return row_of(precision).bytes; }
std::string_view name_of(Precision precision) { return row_of(precision).name; }

double bytes_per_kv_value(KvPrecision precision) {
  constexpr double kBytes[] = {2, 1.1, 0.6, 0.35};
  return kBytes[static_cast<size_t>(precision)];
}

double weights_gb(const ModelSize& size) { return size.params_b * bytes_per_parameter(size.precision); }

double kv_gb(const ModelSize& size, int64_t context, KvPrecision precision) {
  const auto tokens = static_cast<double>(context);
  if (size.layers == 0 || size.kv_heads == 0 || size.head_dim == 0)
    return kKvGbPerBillionAndToken * size.params_b * tokens;
  return 2.0 * static_cast<double>(size.layers) * static_cast<double>(size.kv_heads) *
         static_cast<double>(size.head_dim) * tokens * bytes_per_kv_value(precision) / 1e9;
}

double inference_gb(const ModelSize& size, int64_t context, KvPrecision precision) {
  return weights_gb(size) + kv_gb(size, context, precision) + kOverheadGb;
}

Fit fit_of(double needed_gb, double memory_gb) {
  return needed_gb <= 0.8 * memory_gb ? Fit::kFits : needed_gb <= memory_gb ? Fit::kTight : Fit::kTooLarge;
}

std::string_view name_of(Fit fit) { return fit == Fit::kFits ? "fits" : fit == Fit::kTight ? "tight" : "too large"; }

double tokens_per_second(const ModelSize& size, int64_t context, double bandwidth_gb_s) {
  const bool is_mixture = size.active_b > 0 && size.active_b < size.params_b;
  const double active_part = is_mixture ? 0.4 + 0.6 * size.active_b / size.params_b : 1.0;
  double efficiency = is_mixture ? 0.50 : 0.60;
  if (context > 8192) efficiency -= 0.05 * std::log2(static_cast<double>(context) / 8192);
  return bandwidth_gb_s / (weights_gb(size) * active_part) * std::max(efficiency, 0.30);
}

TrainingEstimate training_estimate(const ModelSize& size, int64_t context, double memory_gb) {
  TrainingEstimate e;
  const auto layers = static_cast<double>(size.layers);
  const double hidden = size.layers > 0 ? std::sqrt(size.params_b * 1e9 / (12 * layers)) : 0;
  e.activations_gb = size.layers > 0 ? hidden * static_cast<double>(context) * layers * 4 / 1e9 : weights_gb(size) / 2;
  e.needed_gb = weights_gb(size) + kv_gb(size, context) + e.activations_gb + kAdaptersGb + kOverheadGb;
  const double headroom = memory_gb - e.needed_gb;
  if (headroom > 0 && e.activations_gb > 0)
    e.batch_size = static_cast<int64_t>(std::clamp(std::floor(headroom / e.activations_gb) + 1, 1.0, 32.0));
  e.wants_quantized = e.needed_gb > 0.85 * memory_gb;
  return e;
}

}  // namespace pmetal::hub
