#include "nn/rope.h"

#include <cmath>
#include <numbers>

namespace pmetal::nn {
namespace {

std::vector<float> plain(float theta, int64_t dim) {
  std::vector<float> f(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < f.size(); ++i)
    f[i] = 1.f / std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(dim));
  return f;
}

double yarn_mscale(double factor, double mscale = 1) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

// dimension at which `rotations` full turns fit into the trained context
double correction_dim(double rotations, const RopeConfig& c, double original) {
  return static_cast<double>(c.rotary_dim) * std::log(original / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(static_cast<double>(c.theta)));
}

RopeFrequencies yarn(const RopeConfig& c) {
  const double original = static_cast<double>(c.original_max_positions ? c.original_max_positions : c.max_positions);
  double low = correction_dim(c.beta_fast, c, original), high = correction_dim(c.beta_slow, c, original);
  if (c.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(c.rotary_dim - 1));
  if (low == high) high += 0.001;
  RopeFrequencies r{plain(c.theta, c.rotary_dim), 1};
  for (size_t i = 0; i < r.inv_freq.size(); ++i) {
    const float ramp = static_cast<float>(std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0));
    const float keep = 1.f - ramp, extrapolated = r.inv_freq[i],
                interpolated = extrapolated / static_cast<float>(c.factor);
    r.inv_freq[i] = interpolated * (1.f - keep) + extrapolated * keep;
  }
  r.scale = static_cast<float>(c.attention_factor > 0 ? c.attention_factor
                               : c.mscale > 0 && c.mscale_all_dim > 0
                                   ? yarn_mscale(c.factor, c.mscale) / yarn_mscale(c.factor, c.mscale_all_dim)
                                   : yarn_mscale(c.factor));
  return r;
}

RopeFrequencies llama3(const RopeConfig& c) {
  RopeFrequencies r{plain(c.theta, c.rotary_dim), 1};
  const double original = static_cast<double>(c.original_max_positions ? c.original_max_positions : c.max_positions);
  const double low_wavelength = original / c.low_freq_factor, high_wavelength = original / c.high_freq_factor;
  for (float& f : r.inv_freq) {
    const double wavelength = 2 * std::numbers::pi / f;
    if (wavelength > low_wavelength) {
      f = static_cast<float>(f / c.factor);
    } else if (wavelength >= high_wavelength) {
      const double smooth = (original / wavelength - c.low_freq_factor) / (c.high_freq_factor - c.low_freq_factor);
      f = static_cast<float>((1 - smooth) * f / c.factor + smooth * f);
    }
  }
  return r;
}

RopeFrequencies longrope(const RopeConfig& c, int64_t length) {
  const int64_t original = c.original_max_positions ? c.original_max_positions : c.max_positions;
  const std::vector<float>& factors = length > original ? c.long_factor : c.short_factor;
  RopeFrequencies r{plain(c.theta, c.rotary_dim), 1};
  for (size_t i = 0; i < r.inv_freq.size(); ++i) r.inv_freq[i] /= factors[i];
  const double factor = c.factor > 1 ? c.factor : static_cast<double>(c.max_positions) / static_cast<double>(original);
  r.scale =
      static_cast<float>(c.attention_factor > 0 ? c.attention_factor
                         : factor <= 1          ? 1
                                       : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original))));
  return r;
}

}  // namespace

std::optional<RopeConfig::Type> parse_rope_type(const std::string& name) {
  if (name == "default" || name == "mrope") return RopeConfig::Type::kDefault;
  if (name == "linear") return RopeConfig::Type::kLinear;
  if (name == "dynamic") return RopeConfig::Type::kDynamic;
  if (name == "yarn") return RopeConfig::Type::kYarn;
  if (name == "llama3") return RopeConfig::Type::kLlama3;
  if (name == "longrope" || name == "su") return RopeConfig::Type::kLongRope;
  return std::nullopt;
}

RopeFrequencies rope_frequencies(const RopeConfig& c, int64_t length) {
  switch (c.type) {
    case RopeConfig::Type::kDefault: return {plain(c.theta, c.rotary_dim), 1};
    case RopeConfig::Type::kLinear: {
      RopeFrequencies r{plain(c.theta, c.rotary_dim), 1};
      for (float& f : r.inv_freq) f /= static_cast<float>(c.factor);
      return r;
    }
    case RopeConfig::Type::kDynamic: {
      const double n = static_cast<double>(std::max(length, c.max_positions)),
                   max = static_cast<double>(c.max_positions);
      const double dim = static_cast<double>(c.rotary_dim);
      const double base = c.theta * std::pow(c.factor * n / max - (c.factor - 1), dim / (dim - 2));
      return {plain(static_cast<float>(base), c.rotary_dim), 1};
    }
    case RopeConfig::Type::kYarn: return yarn(c);
    case RopeConfig::Type::kLlama3: return llama3(c);
    case RopeConfig::Type::kLongRope: return longrope(c, length);
  }
  return {};
}

ops::RopeTable Rope::table(Context& ctx, const Batch& batch, DType dtype) {
  const auto upload = [&](const RopeFrequencies& f) {
    return ops::to_device(ctx,
                          host_tensor<float>(f.inv_freq, Shape{static_cast<int64_t>(f.inv_freq.size())}, DType::kF32));
  };
  if (!config_.depends_on_length()) {
    if (allocator_ != &ctx.allocator()) {
      const RopeFrequencies f = rope_frequencies(config_, 0);
      inv_freq_ = upload(f);
      scale_ = f.scale;
      allocator_ = &ctx.allocator();
    }
    return ops::rope_table(ctx, batch.positions, inv_freq_, scale_, dtype);
  }
  const auto table = [&](const Tensor& positions, int64_t length) {
    const RopeFrequencies f = rope_frequencies(config_, length);
    return ops::rope_table(ctx, positions, upload(f), f.scale, dtype);
  };
  bool same = true;
  for (int32_t n : batch.rope_length) same &= n == batch.rope_length[0];
  if (same) return table(batch.positions, batch.rope_length.empty() ? 0 : batch.rope_length[0]);
  const Shape shape{batch.n_tokens(), config_.rotary_dim / 2};
  ops::RopeTable all{ctx.empty(shape, dtype), ctx.empty(shape, dtype)};
  for (int64_t s = 0; s < batch.n_sequences(); ++s) {
    const int64_t begin = batch.cu_q[static_cast<size_t>(s)], n = batch.cu_q[static_cast<size_t>(s) + 1] - begin;
    const ops::RopeTable part = table(batch.positions.narrowed(0, begin, n), batch.rope_length[static_cast<size_t>(s)]);
    ops::copy(ctx, part.cos, all.cos.narrowed(0, begin, n));
    ops::copy(ctx, part.sin, all.sin.narrowed(0, begin, n));
  }
  return all;
}

}  // namespace pmetal::nn
