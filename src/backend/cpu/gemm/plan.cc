#include "backend/cpu/gemm/plan.h"

#include <algorithm>
#include <atomic>

namespace pmetal::cpu {
namespace {

constexpr int64_t kPackedABytes = int64_t{16} << 20;  // of the shared buffer for packed A
constexpr int64_t kSplitDepth = 2048;                 // weight gradients: depth (tokens) of one piece of packed A
constexpr int64_t kStreamBytes = 256 << 10;           // from this size on C is stored past the caches
constexpr int64_t kNarrow = 64;                       // outputs up to which tiles come from rows as they lie

// where the parts lie in the count of blocks; `panel` and what packs_b are known
void place_parts(const Product& p, Plan& plan) {
  if (p.is_gated) {
    plan.blocks = 2 * round_up(p.first().blocks(), plan.panel);
    return;
  }
  for (int i = 0; i < p.n_parts; ++i) {
    plan.first_block[static_cast<size_t>(i)] = plan.blocks;
    const int64_t own = p.parts[static_cast<size_t>(i)].blocks();
    plan.blocks += p.n_parts == 1 ? own : round_up(own, p.kernels->panel_blocks);
  }
}

}  // namespace

Plan make_plan(const Product& p, int n_threads) {
  const GemmKernels& k = *p.kernels;
  Plan plan;
  const DType b_dtype = p.first().b.dtype;
  const bool b_bf16 = b_dtype == DType::kBF16;
  const int64_t cols = p.cols();
  plan.is_bf16 = p.a.dtype == DType::kBF16 && b_bf16 && k.block_bf16;
  plan.block = plan.is_bf16 ? k.block_bf16 : b_bf16 ? k.block_f32_bf16 : k.block_f32;
  plan.a_dtype = plan.is_bf16 ? DType::kBF16 : DType::kF32;
  plan.few = p.rows <= k.few_rows;
  plan.packs_b = p.first().b.source != BSource::kPacked && p.depth > 0;
  const bool tiled = plan.tiled = plan.is_bf16 && k.a_tiled;
  const bool narrow = plan.few || cols <= kNarrow;  // A is read once or twice: not worth packing
  // rows a multiple of 4 KiB apart share one set of L1: copied apart where that is little beside the product
  const bool aliases = p.a.stride % 4096 == 0 && p.rows > 4 && cols >= 256 && !tiled;
  // tiles come from rows as they lie where sixteen of them fall into different sets of L1
  const bool in_place = narrow || p.a.stride % 128 == 64;
  plan.packs_a = p.depth > 0 &&
                 (p.a.is_transposed || p.a.dtype != plan.a_dtype || (plan.is_bf16 && p.depth % k.depth_granule != 0) ||
                  (tiled && (!in_place || (p.norm && !plan.few))) || aliases);

  // a piece of A
  plan.row_piece = p.rows;
  plan.depth_piece = p.depth;
  if (plan.packs_a) {
    if (p.a.is_transposed) plan.depth_piece = std::min(p.depth, kSplitDepth);
    plan.a_packed = {plan.a_dtype, tiled, round_up(plan.depth_piece, 32) + (tiled ? 0 : 32)};
    const int64_t groups = std::max<int64_t>(1, kPackedABytes / plan.a_packed.group_bytes());
    const int64_t rows = std::max(k.block_rows, groups * 16 / k.block_rows * k.block_rows);
    plan.row_piece = std::min(p.rows, rows);
    plan.a_bytes = divide_up(plan.row_piece, 16) * plan.a_packed.group_bytes();
  }
  if (p.norm && !plan.packs_a) plan.norm_bytes = round_up(p.rows * p.depth * size_of(p.a.dtype), 64);

  // blocking: enough tasks for every worker, but no more passes over A and B than needed. Tiles outrun L3, so there one
  // even task for each worker is better than many.
  plan.block_rows = std::min(k.block_rows, round_up(plan.row_piece, 16));
  plan.chunk = b_bf16 ? k.chunk_bf16 : k.chunk_f32;
  plan.panel = k.panel_blocks;
  const int64_t pair = p.is_gated ? 2 : 1;
  if (plan.few) {
    if (!plan.packs_b) plan.chunk = std::max<int64_t>(plan.depth_piece, 1);
    const int64_t all = p.is_gated ? p.first().blocks() : divide_up(cols, 16);
    const int64_t width =
        std::clamp(round_up(divide_up(all, 8 * n_threads), k.panel_blocks), k.panel_blocks, 64 / pair);
    if (!plan.packs_b) plan.panel = width;
    plan.super_blocks = pair * width;
    plan.is_depth_outer = true;
    place_parts(p, plan);
  } else {
    const int64_t unit = pair * plan.panel;
    place_parts(p, plan);
    plan.is_depth_outer = plan.depth_piece >= k.depth_outer_from && plan.depth_piece > plan.chunk;
    plan.super_blocks = plan.is_depth_outer ? k.super_blocks : unit;
    const auto is_uneven = [&] {
      const int64_t tasks = divide_up(plan.row_piece, plan.block_rows) * divide_up(plan.blocks, plan.super_blocks);
      if (n_threads == 1 || tasks >= 8 * n_threads) return false;
      return tiled ? 10 * tasks < 9 * round_up(tasks, n_threads) : tasks < 4 * n_threads;
    };
    if (plan.super_blocks > unit && !p.is_gated) {
      const int64_t widest = k.super_blocks * ranges_of(n_threads), stages = divide_up(plan.blocks, widest);
      const int64_t width = round_up(divide_up(plan.blocks, stages), plan.panel);
      if (width / plan.panel >= 4 * n_threads) plan.stage_blocks = width;
    }
    while (plan.stage_blocks == 0 && is_uneven() && plan.super_blocks > unit)
      plan.super_blocks = std::max(unit, round_up(plan.super_blocks / 2, unit));
    while (plan.stage_blocks == 0 && is_uneven() && plan.block_rows > 96)
      plan.block_rows = round_up(plan.block_rows / 2, 96);
  }
  plan.finishes = plan.is_bf16 && k.finishes && !plan.few;
  const Part& made = p.first();
  plan.streams = plan.finishes && p.rows * (p.is_gated ? made.cols : cols) * size_of(made.c.dtype) >= kStreamBytes;
  plan.chunk = std::min(plan.chunk, round_up(std::max<int64_t>(plan.depth_piece, 1), 32));
  if (plan.packs_b) plan.b_bytes = round_up(plan.panel, 2) * b_block_bytes(b_dtype, plan.chunk);
  const int64_t c_bytes = round_up(plan.block_rows, 16) * 64;  // of a block of columns
  if (plan.stage_blocks > 0)
    plan.stage_bytes =
        c_bytes * plan.stage_blocks + round_up(plan.stage_blocks * int64_t{sizeof(std::atomic<int64_t>)}, 64);
  else
    plan.c_bytes = c_bytes * plan.super_blocks;
  for (const Part& part : p.used())
    if (part.bias) plan.bias_bytes = plan.super_blocks * 64;
  if (p.is_gated) plan.gate_bytes = round_up(plan.block_rows, 16) * plan.panel * 16 * 2;
  for (size_t i = 0; i < static_cast<size_t>(p.n_parts); ++i) {
    if (p.parts[i].low_depth == 0) continue;
    plan.low_a[i] = {DType::kBF16, true, round_up(p.parts[i].low_depth, 32)};
    plan.low_a_bytes += divide_up(p.rows, 16) * plan.low_a[i].group_bytes();
    plan.low_b_bytes = std::max(plan.low_b_bytes, round_up(plan.few ? plan.super_blocks : plan.panel, 2) *
                                                      b_block_bytes(DType::kBF16, plan.low_a[i].depth_padded));
  }
  return plan;
}

}  // namespace pmetal::cpu
