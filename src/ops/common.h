// Shared by the ops: shape checks and the views that kernels want.
#pragma once

#include <algorithm>

#include "base/error.h"
#include "tensor/kernel.h"
#include "tensor/tape.h"

namespace pmetal::ops {

// accumulator dtype of a computation on tensors of `dtype`
inline DType wide(DType dtype) { return dtype == DType::kF64 ? DType::kF64 : DType::kF32; }

// [rows, n] over the last dimension. The caller gives a tensor whose leading dimensions merge (see mergeable).
inline View as_rows(const Tensor& t) {
  View v = t.view();
  const int64_t n = v.dim(-1), step = v.stride(-1);
  int64_t rows = 1, outer = n;
  for (int i = 0; i + 1 < v.rank; ++i) rows *= v.shape[i];
  for (int i = v.rank - 2; i >= 0; --i)
    if (v.shape[i] != 1) {
      outer = v.strides[i];
      break;
    }
  return View{v.data, v.dtype, 2, {rows, n}, {outer, step}};
}

inline bool is_mergeable(const Tensor& t) {
  int64_t expected = -1;
  for (int i = t.rank() - 2; i >= 0; --i) {
    if (t.shape()[i] == 1) continue;
    if (expected >= 0 && t.strides()[i] != expected) return false;
    expected = t.strides()[i] * t.shape()[i];
  }
  return t.rank() >= 1 && (t.dim(-1) == 1 || t.strides()[-1] == 1);
}

// The candidate of a fused op for the CPU that takes the arguments, or null: then the caller runs the ops it stands
// for. A meta context that plans for the CPU answers for it.
template <class Args>
const Candidate<Args>* fused_candidate(Context& ctx, const KernelList<Args>& cpu, const Args& args) {
  const Device device = ctx.device().is_meta() ? ctx.planned().value_or(ctx.device()) : ctx.device();
  if (device.is_meta() || device.is_cuda()) return nullptr;
  const KernelContext kernel{&ctx.threads(), ctx.stream(), 0, nullptr, 0};
  for (const Candidate<Args>& c : cpu.candidates)
    if (!c.decline || !c.decline(args, kernel)) return &c;
  return nullptr;
}
template <class Args>
bool run_fused(Context& ctx, const KernelList<Args>& cpu, const Args& args) {
  const Candidate<Args>* c = fused_candidate(ctx, cpu, args);
  if (!c) return false;
  KernelContext kernel{&ctx.threads(), ctx.stream(), 0, nullptr, 0};
  if (!ctx.device().is_meta())
    detail::run_candidate(ctx, cpu, *c, args, kernel);
  else if (const int64_t bytes = c->workspace ? c->workspace(args, kernel) : 0; bytes > 0)
    ctx.allocator().allocate(bytes);
  return true;
}

// t itself, or a contiguous copy where its rows are not evenly spaced
Tensor with_rows(Context& ctx, const Tensor& t);

template <class... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) [[unlikely]]
    fail(ErrorCode::kInvalidInput, format, std::forward<Args>(args)...);
}

}  // namespace pmetal::ops
