#include "ops/lora_group.h"

#include "ops/column_gradients.h"
#include "ops/common.h"
#include "ops/elementwise.h"
#include "ops/linear.h"

namespace pmetal::ops {
namespace {

constexpr int64_t kRowStep = 64;  // elements: rows start on lines of 128 bytes

// columns behind `n` for at least `rank` more
int64_t room_behind(int64_t n, int64_t rank) { return (n + rank + kRowStep - 1) / kRowStep * kRowStep - n; }

void multiply(Context& ctx, const Tensor& a, bool ta, const Tensor& b, bool tb, const Tensor& c, float alpha = 1,
              bool add = false) {
  dispatch(ctx, matmul_cpu, matmul_cuda, MatmulArgs{a.view(), b.view(), c.view(), ta, tb, add, alpha});
}

// rows and columns of the matrix
Tensor block(const LoraGroup& g, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  return g.matrix.narrowed(0, row, rows).narrowed(1, column, columns);
}

// y = x Wᵀ + bias over `in` columns of the matrix
void product(Context& ctx, const Tensor& x, const LoraGroup& g, int64_t in, const Tensor& y) {
  if (!g.bias) return multiply(ctx, x, false, block(g, 0, g.out, 0, in), true, y);
  quant::Weight w{&quant::format(name_of(g.matrix.dtype())), g.out, in,
                  {{g.matrix.buffer(), g.matrix.dtype()}},   0,     g.matrix.strides()[0]};
  LinearArgs args;
  args.x = x.view();
  args.weight = &w;
  args.bias = g.bias.view();
  args.y = y.view();
  dispatch(ctx, linear_cpu, linear_cuda, args);
}

struct Ranks {
  int64_t row, column, rank, out;
};
std::vector<Ranks> ranks_of(std::span<const LoraPart> parts) {
  std::vector<Ranks> all;
  int64_t row = 0, column = 0;
  for (const LoraPart& p : parts) {
    const int64_t rank = p.a ? p.a.dim(0) : 0;
    all.push_back({row, column, rank, p.out});
    row += p.out;
    column += rank;
  }
  return all;
}

// one kernel for all parts where the device has it; else copies and sums of views
void move_blocks(Context& ctx, const Tensor& a, const Tensor& b, const std::vector<Ranks>& ranks,
                 std::span<const Tensor> part_a, std::span<const Tensor> part_b, bool adds) {
  LoraBlocksArgs args;
  args.a = a.view();
  args.b = b.view();
  args.adds = adds;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (!part_a[i] && !part_b[i]) continue;
    LoraBlocksArgs::Part& p = args.part[args.n++];
    if (part_a[i]) p.a = part_a[i].view();
    if (part_b[i]) p.b = part_b[i].view();
    p.row = ranks[i].row, p.column = ranks[i].column, p.rank = ranks[i].rank, p.out = ranks[i].out;
  }
  if (args.n == 0 || try_dispatch(ctx, lora_blocks_cuda, args)) return;
  const auto move = [&](const Tensor& joint, const Tensor& own) {
    adds ? accumulate(ctx, own, joint) : copy(ctx, own, joint);
  };
  for (size_t i = 0; i < ranks.size(); ++i) {
    const Ranks& r = ranks[i];
    if (part_a[i]) move(a.narrowed(0, r.column, r.rank), part_a[i]);
    if (part_b[i]) move(b.narrowed(0, r.row, r.out).narrowed(1, r.column, r.rank), part_b[i]);
  }
}

// The gradients of the parts' matrices: f32 sums of the group, then each part's block where it belongs.
void parameter_gradients(Context& ctx, GradSink& sink, const LoraGroup& g, const std::vector<Ranks>& ranks,
                         const Tensor& dy, const Tensor& du, const Tensor& x, const Tensor& u) {
  const DType real = wide(dy.dtype());
  const size_t n = ranks.size();
  std::vector<Tensor> to_a(n), to_b(n);
  bool wants_a = false, wants_b = false, direct = n == 1 && ranks[0].rank == g.rank();
  for (size_t i = 0; i < n; ++i) {
    const int a = static_cast<int>(1 + 2 * i), b = a + 1;
    wants_a |= ranks[i].rank && sink.wants(a);
    wants_b |= ranks[i].rank && sink.wants(b);
    if (ranks[i].rank) to_a[i] = sink.destination(a), to_b[i] = sink.destination(b);
  }
  if (direct && to_a[0] && to_b[0]) {  // one part without padding: straight into its flat buffers
    multiply(ctx, du, true, x, false, to_a[0].reshaped({g.rank(), g.in}), 1, true);
    multiply(ctx, dy, true, u, false, to_b[0].reshaped({g.out, g.rank()}), 1, true);
    return;
  }
  Tensor da, db;
  if (wants_a) multiply(ctx, du, true, x, false, da = ctx.empty({g.rank(), g.in}, real));
  if (wants_b) multiply(ctx, dy, true, u, false, db = ctx.empty({g.out, g.rank()}, real));
  for (size_t i = 0; i < n; ++i) {
    const Ranks& r = ranks[i];
    if (!r.rank) continue;
    const int a = static_cast<int>(1 + 2 * i), b = a + 1;
    if (!to_a[i] && sink.wants(a)) sink.add(a, contiguous(ctx, da.narrowed(0, r.column, r.rank)));
    if (!to_b[i] && sink.wants(b))
      sink.add(b, contiguous(ctx, db.narrowed(0, r.row, r.out).narrowed(1, r.column, r.rank)));
    if (to_a[i]) to_a[i] = to_a[i].reshaped({r.rank, g.in});
    if (to_b[i]) to_b[i] = to_b[i].reshaped({r.out, r.rank});
  }
  if (!da) da = ctx.empty({1, 1}, real);
  if (!db) db = ctx.empty({1, 1}, real);
  move_blocks(ctx, da, db, ranks, to_a, to_b, true);
}

}  // namespace

int64_t lora_rank(int64_t ranks) { return (ranks + 7) / 8 * 8; }

LoraGroup empty_lora_group(Context& ctx, int64_t out, int64_t in, int64_t rank, DType dtype) {
  LoraGroup g;
  g.out = out;
  g.in = in;
  const Tensor rows = ctx.empty_rows(out + rank, in, dtype, room_behind(in, rank));
  fill(ctx, rows.behind(rank), 0);
  fill(ctx, rows.narrowed(0, out, rank), 0);
  g.matrix = rows.widened(rank);
  return g;
}

std::vector<Tensor> lora_group(Context& ctx, const Tensor& x, const LoraGroup& g, std::span<const LoraPart> parts) {
  const std::vector<Ranks> ranks = ranks_of(parts);
  const int64_t rank = g.rank();
  PMETAL_ASSERT(x.rank() == 2 && x.dim(1) == g.in && !parts.empty() && parts.size() <= size_t{kMostLoraParts} &&
                    ranks.back().row + ranks.back().out == g.out && ranks.back().column + ranks.back().rank <= rank,
                "x {}, {} parts, a matrix for [{}, {}] and rank {}", x.shape().to_string(), parts.size(), g.out, g.in,
                rank);
  std::vector<const Tensor*> inputs{&x};
  std::vector<Tensor> part_a, part_b;
  bool records = ctx.records({&x});
  for (const LoraPart& p : parts) {
    inputs.push_back(&p.a);
    inputs.push_back(&p.b);
    records |= ctx.records({&p.a, &p.b});
    part_a.push_back(p.a.detached());
    part_b.push_back(p.b.detached());
  }
  const int64_t rows = x.dim(0);
  Tensor wide_x = x, u;
  if (rank > 0) {
    move_blocks(ctx, block(g, g.out, rank, 0, g.in), block(g, 0, g.out, g.in, rank), ranks, part_a, part_b, false);
    if (x.room() < rank) {
      wide_x = ctx.empty_rows(rows, g.in, x.dtype(), room_behind(g.in, rank));
      copy(ctx, x, wide_x);
    }
    const Tensor behind = wide_x.behind(rank);
    multiply(ctx, x, false, block(g, g.out, rank, 0, g.in), true, behind, g.scale);
    if (records) {  // x may be made again without its room
      u = ctx.empty({rows, rank}, x.dtype());
      copy(ctx, behind, u);
    }
    wide_x = wide_x.widened(rank);
  }
  const Tensor y = ctx.empty({rows, g.out}, x.dtype());
  product(ctx, wide_x, g, g.in + rank, y);
  std::vector<Tensor> out;
  for (const Ranks& r : ranks) out.push_back(y.narrowed(1, r.row, r.out));
  if (!records) return out;

  // with room for du
  const ColumnGradients side_by_side(rows, g.out, x.dtype(), rank > 0 ? room_behind(g.out, rank) : 0);
  std::vector<int64_t> widths;
  for (const Ranks& r : ranks) widths.push_back(r.out);
  std::vector<Tensor*> outputs;
  for (Tensor& t : out) outputs.push_back(&t);
  ctx.tape()->record("lora_group", inputs, outputs,
                     [saved = rank > 0 ? Saved(x) : Saved(), u, g, ranks, widths, side_by_side](
                         Context& c, std::span<const Tensor> grads, GradSink& sink) {
                       const Tensor dy = side_by_side.gather(c, grads, widths);
                       const int64_t rank = g.rank();
                       Tensor wide_dy = dy;
                       if (rank > 0) {
                         multiply(c, dy, false, block(g, 0, g.out, g.in, rank), false, dy.behind(rank), g.scale);
                         wide_dy = dy.widened(rank);
                       }
                       if (sink.wants(0)) {
                         const Tensor dx = sink.empty_for(0, {dy.dim(0), g.in}, dy.dtype());
                         multiply(c, wide_dy, false, block(g, 0, g.out + rank, 0, g.in), false, dx);
                         sink.add(0, dx);
                       }
                       if (rank > 0) parameter_gradients(c, sink, g, ranks, dy, dy.behind(rank), saved.get(c), u);
                     });
  side_by_side.place(out);
  return out;
}

}  // namespace pmetal::ops
