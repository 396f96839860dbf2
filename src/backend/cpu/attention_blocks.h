// Shared by attention forward and backward on matrix kernels: element types, workspace, packing of blocks of 64 keys.
//
// The rows of a product are the (query row, head) pairs that share one key/value head, query by query: so the heads of
// a group share each packed block, and one query of decode is as many rows as its group has heads.
#pragma once

#include <algorithm>
#include <cstring>

#include "backend/cpu/attention.h"
#include "backend/cpu/gemm/kernels.h"
#include "backend/cpu/gemm/pack.h"
#include "backend/cpu/score_rows.h"

namespace pmetal::cpu {

static_assert(kScoreColumns == ops::kAttentionBlock);

// a piece of workspace after the other, each on a line of its own
class Carver {
 public:
  explicit Carver(void* data) : data_(static_cast<char*>(data)) {}
  template <class T>
  T* take(int64_t n) {
    T* p = reinterpret_cast<T*>(data_ + used_);
    used_ += (n * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return p;
  }
  int64_t used() const { return used_; }

 private:
  char* data_;
  int64_t used_ = 0;
};

inline int64_t padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// What the element type means for the products: A and B of q · k and p · v, and of products between activations.
struct AttentionTypes {
  const GemmKernels& kernels;
  DType dtype, a;      // of the tensors; of the A operands
  BlockFn block, own;  // B in dtype; B in the type of A
  int64_t a_size, b_size;

  AttentionTypes(const GemmKernels& k, DType t) : kernels(k), dtype(t) {
    const bool narrow = t == DType::kBF16 && k.block_bf16;
    a = narrow ? DType::kBF16 : DType::kF32;
    block = narrow ? k.block_bf16 : t == DType::kBF16 ? k.block_f32_bf16 : k.block_f32;
    own = narrow ? k.block_bf16 : k.block_f32;
    a_size = size_of(a);
    b_size = size_of(t);
  }

  // one row of n elements to the A operand at `to`, zero up to `width`
  void put_row(const View& v, int64_t offset, int64_t n, void* to, int64_t width) const {
    const char* from = static_cast<const char*>(v.data) + offset * b_size;
    if (a == dtype)
      std::memcpy(to, from, static_cast<size_t>(n * a_size));
    else
      kernels.widen(reinterpret_cast<const uint16_t*>(from), static_cast<float*>(to), n);
    if (width > n) std::memset(static_cast<char*>(to) + n * a_size, 0, static_cast<size_t>((width - n) * a_size));
  }

  // c [rows, 16 · n_blocks] (+)= a [rows, depth] · b
  void multiply(BlockFn fn, int64_t rows, int64_t n_blocks, int64_t depth, const void* a_data, int64_t a_row_bytes,
                const void* b, int64_t b_stride, float* c, int64_t c_stride, bool from_zero) const {
    BlockArgs s;
    s.rows = rows;
    s.n_blocks = n_blocks;
    s.depth = depth;
    s.a = static_cast<const char*>(a_data);
    s.a_row_stride = a_row_bytes;
    s.a_tile_row_stride = 16 * a_row_bytes;
    s.a_tile_stride = 64;
    s.b = static_cast<const char*>(b);
    s.b_stride = b_stride;
    s.c = c;
    s.c_stride = c_stride;
    s.from_zero = from_zero;
    fn(s);
  }

  // [n, d] rows with `stride` elements between them, as B of rows · xᵀ (cols = n up to 64) ...
  void pack_keys(const char* rows, int64_t stride, int64_t n, int64_t d, char* to) const {
    pack_b(kernels, {BSource::kRows, dtype, rows, stride * b_size, d, n}, 0, kScoreColumns / 16, 0, d, to);
  }
  // ... and as B of p · x (depth = n)
  void pack_values(DType type, const char* rows, int64_t stride, int64_t n, int64_t d, char* to) const {
    pack_b(kernels, {BSource::kColumns, type, rows, stride * size_of(type), n, d}, 0, padded(d, 16) / 16, 0, n, to);
  }
  int64_t keys_bytes(int64_t d) const { return kScoreColumns / 16 * b_block_bytes(dtype, d); }
  int64_t values_bytes(DType type, int64_t n, int64_t d) const { return padded(d, 32) / 16 * b_block_bytes(type, n); }
};

// Rows of one key block of one head: in place, or, where the block is not full, copied with zeros after them.
struct BlockRows {
  const char* data;
  int64_t stride;  // elements
  BlockRows(const AttentionTypes& types, const View& v, const KeyBlock& at, int64_t n, int64_t d, char* stage) {
    data = static_cast<const char*>(v.data) + at.offset * types.b_size;
    stride = at.stride;
    if (n >= kScoreColumns) return;
    std::memset(stage, 0, static_cast<size_t>(kScoreColumns * d * types.b_size));
    for (int64_t j = 0; j < n; ++j)
      std::memcpy(stage + j * d * types.b_size, data + j * stride * types.b_size,
                  static_cast<size_t>(d * types.b_size));
    data = stage;
    stride = d;
  }
};

inline const char* decline_attention(const ops::AttentionArgs& args, Isa needed) {
  if (isa() < needed) return "the instruction set is not here";
  const DType t = args.q.dtype;
  if (t != DType::kBF16 && t != DType::kF32) return "takes bf16 and f32 alone";
  for (const View* v : {&args.k, &args.v, &args.out})
    if (v->dtype != t) return "takes one type alone";
  for (const View* v : {&args.q, &args.k, &args.v, &args.out})
    if (v->stride(-1) != 1) return "rows must be dense";
  if (args.lse && args.lse.dtype != DType::kF32) return "lse must be f32";
  return nullptr;
}

}  // namespace pmetal::cpu
