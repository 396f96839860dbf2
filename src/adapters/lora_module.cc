#include "adapters/lora_module.h"

#include "adapters/embedding_module.h"
#include "ops/device.h"
#include "ops/lora.h"

namespace pmetal::adapters {

std::vector<float> host_floats(const Tensor& t) {
  const Tensor host = ops::host_copy(t);
  std::vector<float> v(static_cast<size_t>(t.numel()));
  convert(host.bytes(), t.dtype(), v.data(), DType::kF32, t.numel());
  return v;
}

Tensor identity(Context& ctx, int64_t n, DType dtype) {
  std::vector<float> values(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i) values[static_cast<size_t>(i * n + i)] = 1;
  return ops::cast(ctx, ops::to_device(ctx, host_tensor<float>(values, Shape{n, n}, DType::kF32)), dtype);
}

std::vector<float> row_norms_squared(Context& ctx, const nn::Linear& linear) {
  std::vector<float> norms(static_cast<size_t>(linear.out()));
  if (ctx.device().is_meta()) return norms;
  const quant::Weight weight = linear.weight.defined() ? ops::host_copy(linear.weight) : quant::Weight{};
  const Tensor trainable = linear.trainable.defined() ? ops::host_copy(linear.trainable.detached()) : Tensor();
  constexpr int64_t kBlock = 64;
  ctx.threads().parallel_for(linear.out(), kBlock, [&](int64_t begin, int64_t end) {
    std::vector<float> rows(static_cast<size_t>(kBlock * linear.in()));
    for (int64_t r = begin; r < end; r += kBlock) {
      const int64_t n = std::min(kBlock, end - r);
      read_rows(weight, trainable, r, n, rows.data());
      for (int64_t i = 0; i < n; ++i) {
        double sum = 0;
        for (int64_t k = 0; k < linear.in(); ++k) {
          const double v = rows[static_cast<size_t>(i * linear.in() + k)];
          sum += v * v;
        }
        norms[static_cast<size_t>(r + i)] = static_cast<float>(sum);
      }
    }
  });
  return norms;
}

// ‖W_i + s (BA)_i‖² = ‖W_i‖² + 2 s Σ_r B_ir (W Aᵀ)_ir + s² B_i (A Aᵀ) B_iᵀ: needs one product with W and no dense copy
// of it, whatever its format.
void LoraModule::update_norms(Context& ctx, const nn::Linear& linear) {
  TapeScope off(ctx, nullptr);
  if (!weight_norms_squared_.defined())
    weight_norms_squared_ =
        ops::to_device(ctx, host_tensor<float>(row_norms_squared(ctx, linear), Shape{linear.out()}, DType::kF32));
  const DType f = a.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  const Tensor bf = ops::cast(ctx, b.detached(), f);
  const Tensor p = linear.trainable.defined() ? ops::linear_dense(ctx, a.detached(), linear.trainable.detached(), {}, f)
                                              : ops::linear(ctx, a.detached(), linear.weight, {}, f);  // [r, out]
  // [out, r] by a product with the identity: the primitive set has no transpose
  const Tensor p_t = ops::matmul(ctx, p, identity(ctx, p.dim(0), f), true, false);
  const Tensor gram = ops::matmul(ctx, a.detached(), a.detached(), false, true, 1, f);      // [r, r]
  const Tensor cross = ops::sum_rows(ctx, ops::mul(ctx, bf, p_t));                          // [out]
  const Tensor square = ops::sum_rows(ctx, ops::mul(ctx, bf, ops::matmul(ctx, bf, gram)));  // [out]
  Tensor n2 = ops::add(ctx, ops::cast(ctx, weight_norms_squared_, f), ops::affine(ctx, cross, 2 * scale));
  n2 = ops::add(ctx, n2, ops::affine(ctx, square, scale * scale));
  inverse_norms_ = ops::cast(ctx, ops::unary(ctx, ops::unary(ctx, n2, ops::Unary::kSqrt), ops::Unary::kReciprocal), f);
  norms_stale = false;
}

bool LoraModule::drops_rows(const Context& ctx, const nn::Batch& batch) const {
  return dropout > 0 && ctx.tape() != nullptr && batch.row_ids.defined();
}

Tensor LoraModule::dropped(Context& ctx, const nn::Batch& batch, int64_t first_row, const Tensor& x) const {
  if (!drops_rows(ctx, batch)) return x;
  ops::DropoutKey key = batch.dropout;
  key.module = number;
  return ops::dropout(ctx, x, dropout, key, batch.row_ids.narrowed(0, first_row, x.dim(0)));
}

Tensor LoraModule::apply_fused(Context& ctx, const nn::Batch& batch, int64_t first_row, const nn::Linear& linear,
                               const Tensor& x) {
  if (!has_lora() || whole.defined() || tokens.defined() || magnitude.defined() || !linear.weight.defined() ||
      !a.requires_grad() || !b.requires_grad() || !ops::has_linear_lora(ctx, x, linear.weight, linear.bias, a))
    return {};
  const Tensor xd = dropped(ctx, batch, first_row, x);
  return with_biases(ctx, linear, ops::linear_lora(ctx, x, linear.weight, linear.bias, xd, a, b, scale));
}

std::optional<nn::LinearAdapter::LowRank> LoraModule::low_rank(const Context& ctx, const nn::Batch& batch) const {
  if (!has_lora() || drops_rows(ctx, batch) || magnitude.defined() || b_bias.defined() || bias.defined() ||
      whole.defined() || tokens.defined())
    return {};
  return LowRank{a, b, scale};
}

Tensor LoraModule::with_tokens(Context& ctx, const nn::Linear& linear) const {
  TapeScope off(ctx, nullptr);
  std::vector<float> rows(static_cast<size_t>(linear.out() * linear.in()));
  const quant::Weight weight = linear.weight.defined() ? ops::host_copy(linear.weight) : quant::Weight{};
  const Tensor trainable = linear.trainable.defined() ? ops::host_copy(linear.trainable.detached()) : Tensor();
  read_rows(weight, trainable, 0, linear.out(), rows.data());
  const std::vector<float> own = host_floats(tokens);
  for (size_t i = 0; i < token_ids.size(); ++i)
    std::copy_n(own.begin() + static_cast<int64_t>(i) * linear.in(), linear.in(),
                rows.begin() + token_ids[i] * linear.in());
  return ops::cast(ctx, ops::to_device(ctx, host_tensor<float>(rows, Shape{linear.out(), linear.in()}, DType::kF32)),
                   tokens.dtype());
}

Tensor LoraModule::apply(Context& ctx, const nn::Batch& batch, int64_t first_row, const nn::Linear& linear,
                         const Tensor& x, const Tensor& base) {
  Tensor y = base;
  if (tokens.defined() && !whole.defined()) whole = with_tokens(ctx, linear);
  if (whole.defined()) {
    const Tensor own_bias = bias.defined() ? bias : linear.bias;
    return ops::linear_dense(ctx, x, whole, own_bias, base.dtype());
  }
  const Tensor xd = has_lora() ? dropped(ctx, batch, first_row, x) : x;
  const bool drops = drops_rows(ctx, batch);
  if (magnitude.defined()) {
    if (norms_stale) update_norms(ctx, linear);
    const auto without_bias = [&](const Tensor& t) {
      return linear.bias.defined() ? ops::add_row(ctx, t, ops::affine(ctx, linear.bias.detached(), -1)) : t;
    };
    // result = base(x) + (m/n − 1) · base'(drop x) + (m/n) · s B A drop x, base' without bias
    const Tensor ratio = ops::mul(ctx, magnitude, ops::cast(ctx, inverse_norms_, magnitude.dtype()));
    const Tensor plain = drops ? without_bias(linear.forward_base(ctx, xd)) : without_bias(base);
    const Tensor updated = ops::lora(ctx, xd, drops ? ops::affine(ctx, plain, 1) : plain, a, b, scale);
    y = ops::mul_row(ctx, updated, ratio);
    if (drops)
      y = ops::add(ctx, y, ops::sub(ctx, base, plain));
    else if (linear.bias.defined())
      y = ops::add_row(ctx, y, linear.bias);
  } else if (has_lora()) {
    y = ops::lora(ctx, xd, base, a, b, scale);
  }
  return with_biases(ctx, linear, y);
}

Tensor LoraModule::with_biases(Context& ctx, const nn::Linear& linear, Tensor y) const {
  if (b_bias.defined()) {
    Tensor shift = ops::affine(ctx, b_bias, scale);
    if (magnitude.defined())
      shift = ops::mul(ctx, shift, ops::mul(ctx, magnitude, ops::cast(ctx, inverse_norms_, magnitude.dtype())));
    y = ops::add_row(ctx, y, shift);
  }
  if (bias.defined()) {
    y = ops::add_row(ctx, y, linear.bias.defined() ? ops::sub(ctx, bias, linear.bias.detached()) : bias);
  }
  return y;
}

}  // namespace pmetal::adapters
