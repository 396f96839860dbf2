// Products with weights that share their input, and the low-rank updates of them, in passes over the activations that
// the plain products make anyway:
//   y_p = x W_pᵀ + scale · (x A_pᵀ) B_pᵀ,    p = 1 .. parts
// The frozen weights and the updates' matrices lie in one matrix
//
//        in          rank
//   [    W        |   B     ]  out      W: the weights of the parts one below the other,
//   [    A        |   ·     ]  rank     B: blocks along the diagonal, zeros beside them; A: one below the other
//
// so that with u = scale · x Aᵀ written behind the rows of x, y = [x u] · [W B]ᵀ is one product with a few more inner
// steps, and with du = scale · dy B behind the rows of dy, dx = [dy du] · [W; A] is one too. What is left are the
// narrow products x Aᵀ, dy B, duᵀ x and dyᵀ u: one pass over x and one over dy in each direction, for all parts
// together.
#pragma once

#include <span>
#include <vector>

#include "tensor/kernel.h"

namespace pmetal::ops {

inline constexpr int64_t kMostLoraParts = 4;

// Copies the parts' A and B into the matrix, or adds blocks of f32 gradients to the parts' own.
struct LoraBlocksArgs {
  struct Part {
    View a, b;                       // [r, in], [out_p, r] contiguous, or none
    int64_t row, column, rank, out;  // of B's block and A's rows in the matrix
  };
  View a, b;  // [rank, in] and [out, rank]: parts of the matrix, or the joint gradients
  int64_t n = 0;
  Part part[kMostLoraParts] = {};
  bool adds = false;  // parts += joint; else joint = parts
};
PMETAL_DECLARE_FUSED_KERNELS(lora_blocks, LoraBlocksArgs)

struct LoraPart {
  int64_t out = 0;
  Tensor a, b;  // [r, in], [out, r]; undefined: the part has no update
};
// Rows of W are filled by the caller; zeros everywhere else. The row step is a multiple of 64 elements.
struct LoraGroup {
  Tensor matrix;  // [out + rank, in + rank], rows may be strided
  int64_t out = 0, in = 0;
  Tensor bias;  // [out] or undefined
  float scale = 1;
  int64_t rank() const { return matrix.dim(1) - in; }
};
// What a group of parts with these ranks together needs: the next multiple of 8 (16 bytes of bf16).
int64_t lora_rank(int64_t ranks);
LoraGroup empty_lora_group(Context& ctx, int64_t out, int64_t in, int64_t rank, DType dtype);

// x [rows, in], best with x.room() >= rank. Results are columns of one tensor. Gradients to x and to the parts' A and
// B.
std::vector<Tensor> lora_group(Context& ctx, const Tensor& x, const LoraGroup& group, std::span<const LoraPart> parts);

}  // namespace pmetal::ops
