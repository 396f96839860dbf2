// Whether a model fits into memory and how fast it would be, estimated from little: its number of parameters and how
// they are stored. GB are 1e9 bytes throughout.
//
//   weights   = params · bytes per parameter
//   KV cache  = 2 · layers · kv_heads · head_dim · context · bytes; 8e-6 · params_b · context where the shape is
//   unknown inference = weights + KV + 0.5 training  = weights + KV + activations + 0.2 + 0.5 (adapters); activations =
//   hidden · context · layers · 4 bytes with
//               hidden = sqrt(params / (12 · layers)), half of the weights where the layers are unknown
//   tokens/s  = bandwidth / (weights · active part) · efficiency
#pragma once

#include <cstdint>
#include <string_view>

namespace pmetal::hub {

enum class Precision : uint8_t { kF32, kF16, k8Bit, kQ6, kQ5, k4Bit, kQ3, kQ2 };
double bytes_per_parameter(Precision precision);
std::string_view name_of(Precision precision);

enum class KvPrecision : uint8_t { k16Bit, kQ8, kQ4, kQ2 };
double bytes_per_kv_value(KvPrecision precision);

struct ModelSize {
  double params_b = 0;  // 1e9 parameters
  double active_b = 0;  // those one token meets, of a mixture of experts; 0: a dense model
  Precision precision = Precision::kF16;
  int64_t layers = 0, kv_heads = 0, head_dim = 0;  // 0: unknown
};

double weights_gb(const ModelSize& size);
double kv_gb(const ModelSize& size, int64_t context, KvPrecision precision = KvPrecision::k16Bit);
double inference_gb(const ModelSize& size, int64_t context, KvPrecision precision = KvPrecision::k16Bit);

enum class Fit : uint8_t { kFits, kTight, kTooLarge };  // up to 80 % of the memory, up to all of it, more
Fit fit_of(double needed_gb, double memory_gb);
std::string_view name_of(Fit fit);

// 0.60 of the bandwidth is reached, 0.50 by mixtures of experts; 0.05 less for each doubling of the context above 8192,
// never less than 0.30
double tokens_per_second(const ModelSize& size, int64_t context, double bandwidth_gb_s);

struct TrainingEstimate {
  double needed_gb = 0;
  double activations_gb = 0;     // of one sequence
  int64_t batch_size = 1;        // 1..32: what the memory left over holds
  bool wants_quantized = false;  // needs more than 85 % of the memory: train over a quantized base
};
TrainingEstimate training_estimate(const ModelSize& size, int64_t context, double memory_gb);

}  // namespace pmetal::hub
