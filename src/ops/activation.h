// Gated activations: y = act(gate) · up. Computed in f32, rounded once. The output can be made again (see Tape).
#pragma once

#include <string_view>

#include "tensor/kernel.h"

namespace pmetal::ops {

enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu, kRelu2, kQuickGelu, kIdentity };
// Hugging Face names ("silu", "swish", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu", "relu2", "quick_gelu");
// throws Error(kUnsupported) naming the known ones
Activation parse_activation(std::string_view name);

struct GluArgs {
  View gate, up;  // [rows, n]; up absent: plain activation
  View y;
  View dy, dgate, dup;  // backward when dy is given: dgate, dup written
  Activation activation = Activation::kSilu;
};
PMETAL_DECLARE_KERNELS(glu, GluArgs)
PMETAL_DECLARE_KERNELS(glu_backward, GluArgs)

// `room`: see Tensor::room(); for [rows, n] alone
Tensor glu(Context& ctx, const Tensor& gate, const Tensor& up, Activation activation, int64_t room = 0);
Tensor activate(Context& ctx, const Tensor& x, Activation activation);

}  // namespace pmetal::ops
