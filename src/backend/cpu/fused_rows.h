// What a product does with rows before and after it, for linear_group on the CPU: RMS norm of its input's rows, and how
// its sums become results. Values are those of the ops by themselves (rms_norm, linear, glu, binary), bit for bit.
#pragma once

#include "backend/cpu/gemm/kernels.h"
#include "ops/activation.h"

namespace pmetal::cpu {

struct FusedRows {
  void (*norm)(const void* x, const void* weight, float eps, int64_t n, void* y);  // bf16
  // y = act(gate) · round(c + bias); bf16; null where the activation has no vector form
  void (*(*glu)(ops::Activation))(const FinishArgs&);
  // y = round(c + bias) + residual; bf16
  void (*add)(const FinishArgs&);
};
const FusedRows& fused_rows_avx512_bf16();

}  // namespace pmetal::cpu
