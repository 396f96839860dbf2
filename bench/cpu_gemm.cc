// How close the CPU matrix products come to the machine: for each shape of Qwen3-0.6B and 4096², for M tokens, per
// instruction set. Weights rotate through more memory than the last-level cache holds, so that small M reads memory.
//   cpu_gemm [--op forward|dx|dw] [--type bf16|f32] [--level NAME] [--shape NAME] [--m N,N] [--threads N] [--row-major]
//   [--peers] [--groups [--pad N]]
// --groups: the products of a layer with what goes with them (norm, glu, residual, LoRA), forward and backward, in
// turns, rows N columns further apart than they are long (32; 0 shows what that gains)
// Columns: median and best time, and the share of the bound each reaches; bound = max(operations / measured peak, bytes
// of W + X + Y / measured memory speed).
#include <sched.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#ifdef PMETAL_BENCH_DNNL
#include <dnnl.hpp>
#endif
#ifdef PMETAL_BENCH_OPENBLAS
#include <cblas.h>
#endif

#include <algorithm>

#include "backend/cpu/fused_rows.h"
#include "backend/cpu/gemm/gemm.h"
#include "backend/cpu/gemm/kernels.h"
#include "base/buffer.h"
#include "base/rng.h"
#include "cpu_peak.h"

namespace pmetal::bench {
namespace {

using cpu::Isa;

struct Shape {
  const char* name;
  int64_t n, k;
};
constexpr Shape kShapes[] = {{"qkv", 4096, 1024},   {"o", 1024, 2048},    {"gate_up", 6144, 1024},
                             {"down", 1024, 3072},  {"4096", 4096, 4096}, {"head", 151936, 1024},
                             {"lora_a", 16, 1024},  {"lora_b", 4096, 16}, {"lora_a64", 64, 1024},
                             {"lora_b64", 4096, 64}};

struct Options {
  int64_t pad = 32;  // --groups: columns between rows
  std::string op = "forward", type = "bf16", level, shape;
  std::vector<int64_t> m = {1, 8, 64, 512, 2048};
  int threads = 0;
  bool row_major = false, peers = false, variants = false, kernel = false, peaks = false, scan = false, sweep = false,
       groups = false;
  double seconds = 0.25;  // of measuring, each row
  int64_t block_rows = 0, chunk = 0, super_blocks = 0,
          depth_outer_from = -1;  // tuning: other blocking than the table's
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) std::fprintf(stderr, "%s wants a value\n", flag.c_str()), std::exit(2);
      return argv[++i];
    };
    if (flag == "--op")
      o.op = value();
    else if (flag == "--type")
      o.type = value();
    else if (flag == "--level")
      o.level = value();
    else if (flag == "--shape")
      o.shape = value();
    else if (flag == "--threads")
      o.threads = std::atoi(value().c_str());
    else if (flag == "--block-rows")
      o.block_rows = std::atoll(value().c_str());
    else if (flag == "--chunk")
      o.chunk = std::atoll(value().c_str());
    else if (flag == "--super-blocks")
      o.super_blocks = std::atoll(value().c_str());
    else if (flag == "--depth-outer-from")
      o.depth_outer_from = std::atoll(value().c_str());
    else if (flag == "--pad")
      o.pad = std::atoll(value().c_str());
    else if (flag == "--cpu-time")
      use_processor_time(true);
    else if (flag == "--row-major")
      o.row_major = true;
    else if (flag == "--peers")
      o.peers = true;
    else if (flag == "--variants")
      o.variants = true;
    else if (flag == "--kernel")
      o.kernel = true;
    else if (flag == "--peaks")
      o.peaks = true;
    else if (flag == "--scan")
      o.scan = true;
    else if (flag == "--groups")
      o.groups = true;
    else if (flag == "--sweep")
      o.sweep = true;
    else if (flag == "--seconds")
      o.seconds = std::atof(value().c_str());
    else if (flag == "--m") {
      o.m.clear();
      const std::string list = value();
      for (size_t at = 0; at < list.size();
           at = list.find(',', at) == std::string::npos ? list.size() : list.find(',', at) + 1)
        o.m.push_back(std::atoll(list.c_str() + at));
    } else {
      std::fprintf(stderr, "unknown flag %s\n", flag.c_str());
      std::exit(2);
    }
  }
  return o;
}

struct Seconds {
  double median, best;
};

// seconds of one call; `call(i)` uses the i-th copy of the weights
Seconds measure(const Options& o, const ThreadPool& pool, const std::function<void(int)>& call) {
  call(0);
  std::vector<double> times;
  double total = 0;
  for (int i = 1; i < 400 && (total < o.seconds || i < 4); ++i) {
    const double start = now_s(pool);
    call(i);
    times.push_back(now_s(pool) - start);
    total += times.back();
  }
  std::nth_element(times.begin(), times.begin() + static_cast<long>(times.size() / 2), times.end());
  return {times[times.size() / 2], *std::min_element(times.begin(), times.end())};
}

Buffer random_matrix(int64_t elements, DType dtype) {
  const Buffer buffer = allocate_host(elements * size_of(dtype));
  std::vector<float> block(4096);
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  for (float& v : block) v = static_cast<float>(rng.uniform() - 0.5);
  for (int64_t i = 0; i < elements; i += 4096)
    convert(block.data(), DType::kF32, buffer.data() + i * size_of(dtype), dtype,
            std::min<int64_t>(4096, elements - i));
  return buffer;
}

struct Problem {
  int64_t m, n, k;
  DType type;
  int copies;
  Buffer x, y, w, workspace;
  int64_t w_bytes;
};

void print_row(const char* who, const Problem& p, Seconds seconds, double peak, double bandwidth) {
  const double ops = 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  const double bytes = static_cast<double>(p.w_bytes + (p.m * p.k + p.m * p.n) * size_of(p.type));
  const double bound = std::max(ops / peak, bytes / bandwidth);
  std::printf(
      "  %-14s m %5lld  %9.3f ms  %8.1f GFLOP/s  %6.1f GB/s  %5.1f %%   best %9.3f ms  %8.1f GFLOP/s  %5.1f %%\n", who,
      static_cast<long long>(p.m), seconds.median * 1e3, ops / seconds.median * 1e-9, bytes / seconds.median * 1e-9,
      100 * bound / seconds.median, seconds.best * 1e3, ops / seconds.best * 1e-9, 100 * bound / seconds.best);
  std::fflush(stdout);
}

Seconds run_ours(const Options& o, Problem& p, const cpu::GemmKernels& kernels, ThreadPool& pool) {
  const auto layout = o.row_major ? cpu::WeightLayout::kRowMajor : cpu::WeightLayout::kPacked;
  const auto weight = [&](int i) {
    return cpu::WeightMatrix{p.w.data() + i % p.copies * p.w_bytes, p.type, layout, p.k};
  };
  const auto room = [&](int64_t bytes) { p.workspace = allocate_host(bytes + 64); };
  if (o.op == "forward") {
    cpu::LinearForward f;
    f.m = p.m, f.n = p.n, f.k = p.k, f.kernels = &kernels;
    f.x = {p.x.data(), p.type, p.k}, f.y = {p.y.data(), p.type, p.n}, f.w = weight(0);
    room(workspace_bytes(f, pool.size()));
    return measure(o, pool, [&](int i) { f.w = weight(i), linear_forward(f, p.workspace.data(), pool); });
  }
  if (o.op == "dx") {
    cpu::LinearInputGrad g;
    g.m = p.m, g.n = p.n, g.k = p.k, g.kernels = &kernels;
    g.dy = {p.y.data(), p.type, p.n}, g.dx = {p.x.data(), p.type, p.k}, g.w = weight(0);
    room(workspace_bytes(g, pool.size()));
    return measure(o, pool, [&](int i) { g.w = weight(i), linear_input_grad(g, p.workspace.data(), pool); });
  }
  cpu::LinearWeightGrad g;
  g.m = p.m, g.n = p.n, g.k = p.k, g.kernels = &kernels, g.accumulate = true;
  const Buffer dw = random_matrix(p.n * p.k, DType::kF32);
  g.dy = {p.y.data(), p.type, p.n}, g.x = {p.x.data(), p.type, p.k}, g.dw = {dw.data(), DType::kF32, p.k};
  room(workspace_bytes(g, pool.size()));
  return measure(o, pool, [&](int) { linear_weight_grad(g, p.workspace.data(), pool); });
}

// Y = X Wᵀ by the peers; W row-major, and in oneDNN's own layout
void run_peers([[maybe_unused]] const Options& o, [[maybe_unused]] const Problem& p, [[maybe_unused]] double peak,
               [[maybe_unused]] double bandwidth, [[maybe_unused]] const ThreadPool& pool) {
#ifdef PMETAL_BENCH_OPENBLAS
  if (p.type == DType::kF32) {
    const auto copy = [&](int i) { return reinterpret_cast<const float*>(p.w.data() + i % p.copies * p.w_bytes); };
    print_row("OpenBLAS", p,
              measure(o, pool,
                      [&](int i) {
                        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(p.m),
                                    static_cast<int>(p.n), static_cast<int>(p.k), 1,
                                    reinterpret_cast<const float*>(p.x.data()), static_cast<int>(p.k), copy(i),
                                    static_cast<int>(p.k), 0, reinterpret_cast<float*>(p.y.data()),
                                    static_cast<int>(p.n));
                      }),
              peak, bandwidth);
  }
#endif
#ifdef PMETAL_BENCH_DNNL
  using namespace dnnl;
  const auto type = p.type == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
  engine cpu_engine(engine::kind::cpu, 0);
  stream queue(cpu_engine);
  const memory::desc x({p.m, p.k}, type, memory::format_tag::ab), y({p.m, p.n}, type, memory::format_tag::ab);
  const memory::desc any({p.k, p.n}, type, memory::format_tag::any), plain({p.k, p.n}, type, memory::format_tag::ba);
  for (const bool packed : {true, false}) {
    try {
      const matmul::primitive_desc pd(matmul::desc(x, packed ? any : plain, y), cpu_engine);
      const matmul primitive(pd);
      const auto bytes = static_cast<int64_t>(pd.weights_desc().get_size());
      const Buffer own = allocate_host(bytes * p.copies);
      std::vector<memory> weights;
      for (int i = 0; i < p.copies; ++i) {
        memory from(plain, cpu_engine, p.w.data() + i * p.w_bytes);
        weights.emplace_back(pd.weights_desc(), cpu_engine, own.data() + i * bytes);
        reorder(from, weights.back()).execute(queue, from, weights.back());
      }
      queue.wait();
      memory mx(x, cpu_engine, p.x.data()), my(y, cpu_engine, p.y.data());
      print_row(packed ? "oneDNN packed" : "oneDNN plain", p,
                measure(o, pool,
                        [&](int i) {
                          primitive.execute(queue, {{DNNL_ARG_SRC, mx},
                                                    {DNNL_ARG_WEIGHTS, weights[static_cast<size_t>(i % p.copies)]},
                                                    {DNNL_ARG_DST, my}});
                          queue.wait();
                        }),
                peak, bandwidth);
    } catch (const dnnl::error& e) {
      std::printf("  oneDNN: %s\n", e.message);
    }
  }
#endif
}

cpu::GemmKernels tuned(cpu::GemmKernels kernels, const Options& o) {
  if (o.block_rows > 0) kernels.block_rows = o.block_rows;
  if (o.chunk > 0) kernels.chunk_bf16 = kernels.chunk_f32 = o.chunk;
  if (o.super_blocks > 0) kernels.super_blocks = o.super_blocks;
  if (o.depth_outer_from >= 0) kernels.depth_outer_from = o.depth_outer_from;
  return kernels;
}

// The inner kernel alone, over packed A in L2 (depth 1024) and panels of B that come from memory (`moving`) or stay the
// same: what packing, finishing and sharing cost is the difference to the whole product. Buffers of one worker.
class KernelRun {
 public:
  KernelRun(cpu::GemmKernels kernels, int64_t rows, bool moving)
      : k_(kernels),
        rows_(rows),
        moving_(moving),
        a_(random_matrix(2 << 20, DType::kBF16)),  // from 4 MiB on buffers have huge pages
        b_(random_matrix(kBlocks * 16 * kDepth, DType::kBF16)),
        c_(allocate_host(rows * k_.panel_blocks * 64)) {}

  double operations() const { return 2.0 * static_cast<double>(rows_ * kDepth * kBlocks * 16); }

  void operator()() const {
    const int64_t chunk = std::min(k_.chunk_bf16, kDepth);
    for (int64_t j = 0; j < kBlocks; j += k_.panel_blocks)
      for (int64_t d = 0; d < kDepth; d += chunk) {
        cpu::BlockArgs s;
        s.rows = rows_, s.n_blocks = k_.panel_blocks, s.depth = std::min(chunk, kDepth - d), s.from_zero = d == 0;
        s.a = reinterpret_cast<const char*>(a_.data()) + d * 32, s.a_row_stride = 64;
        s.a_tile_row_stride = kDepth * 32, s.a_tile_stride = 1024;
        s.b = reinterpret_cast<const char*>(b_.data()) + (moving_ ? j * kBlockBytes : 0) + d * 32;
        s.b_stride = kBlockBytes;
        const bool last = d + chunk >= kDepth;
        if (moving_ && (!last || j + k_.panel_blocks < kBlocks))
          s.b_next = {last ? s.b - d * 32 + k_.panel_blocks * kBlockBytes : s.b + chunk * 32, k_.panel_blocks,
                      chunk * 32, kBlockBytes};
        s.c = reinterpret_cast<float*>(c_.data()), s.c_stride = k_.panel_blocks * 16;
        k_.block_bf16(s);
      }
  }

 private:
  static constexpr int64_t kDepth = 1024, kBlocks = 64, kBlockBytes = kDepth * 32;
  const cpu::GemmKernels k_;
  int64_t rows_;
  bool moving_;
  Buffer a_, b_, c_;
};

// seconds of `body`, one figure a round, the bodies taking turns: what a shared machine does meets all of them alike
std::vector<std::vector<double>> take_turns(const ThreadPool& pool, const std::vector<std::function<void()>>& bodies,
                                            int rounds) {
  std::vector<std::vector<double>> seconds(bodies.size());
  for (const auto& body : bodies) body();
  for (int r = 0; r < rounds; ++r)
    for (size_t i = 0; i < bodies.size(); ++i) {
      const double start = now_s(pool);
      bodies[i]();
      seconds[i].push_back(now_s(pool) - start);
    }
  for (auto& s : seconds) std::sort(s.begin(), s.end());
  return seconds;
}

void print_turns(const std::string& what, const std::vector<double>& seconds, double operations) {
  const auto rate = [&](size_t i) { return operations / seconds[i] * 1e-9; };
  std::printf("  %-34s best %6.0f  median %6.0f  worst %6.0f GFLOP/s\n", what.c_str(), rate(0),
              rate(seconds.size() / 2), rate(seconds.size() - 1));
  std::fflush(stdout);
}

void run_kernels(ThreadPool& pool) {
  const bool amx = cpu::detect_isa() == Isa::kAmx;
  std::vector<cpu::GemmKernels> list(cpu::amx_variants().begin(), cpu::amx_variants().end());
  if (!amx) list = {cpu::kernels_for(cpu::detect_isa())};
  std::vector<std::unique_ptr<KernelRun>> runs;
  std::vector<std::string> names;
  for (const cpu::GemmKernels& k : list)
    for (const int64_t chunk : {256, 512})
      for (const int64_t rows : {64, 128, 256, 512})
        for (const bool moving : {false, true}) {
          if ((chunk != k.chunk_bf16 || !moving) && rows != 512) continue;
          cpu::GemmKernels own = k;
          own.chunk_bf16 = chunk;
          runs.push_back(std::make_unique<KernelRun>(own, rows, moving));
          names.push_back(std::string(k.name) + ", depth " + std::to_string(chunk) + ", rows " + std::to_string(rows) +
                          (moving ? "" : ", B stays"));
        }
  std::vector<std::function<void()>> bodies;
  for (const auto& run : runs) bodies.emplace_back([&run] { (*run)(); });
  const auto seconds = take_turns(pool, bodies, 60);
  for (size_t i = 0; i < runs.size(); ++i) print_turns(names[i], seconds[i], runs[i]->operations());
}

// each core by itself: which are quiet, and for how long
void scan_cores() {
  const KernelRun run(cpu::kernels_for(cpu::detect_isa()), 512, true);
  cpu_set_t all;
  if (sched_getaffinity(0, sizeof all, &all) != 0) return;
  ThreadPool pool(1);
  for (int round = 0; round < 2; ++round) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (!CPU_ISSET(core, &all)) continue;
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(core, &one);
      sched_setaffinity(0, sizeof one, &one);
      const auto seconds = take_turns(pool, {[&] { run(); }}, 40);
      std::printf("core %d: best %.0f median %.0f GFLOP/s; ", core, run.operations() / seconds[0][0] * 1e-9,
                  run.operations() / seconds[0][20] * 1e-9);
    }
    std::printf("\n");
  }
}

// whole products under other blocking, in turns
void run_sweep(const Options& o, ThreadPool& pool) {
  const cpu::GemmKernels base = cpu::kernels_for(cpu::detect_isa());
  struct Blocking {
    int64_t rows, chunk, super, outer_from;
  };
  constexpr Blocking kBlockings[] = {{512, 512, 32, 2048}, {256, 512, 32, 2048}, {512, 512, 32, 0},
                                     {512, 512, 16, 0},    {256, 512, 32, 0},    {256, 512, 16, 0},
                                     {512, 256, 32, 0},    {256, 1024, 32, 0},   {512, 512, 32, 99999}};
  for (const Shape& shape : kShapes) {
    if (o.shape.empty() ? shape.n * shape.k > 8 << 20 || std::strncmp(shape.name, "lora", 4) == 0
                        : o.shape != shape.name)
      continue;
    const int64_t m = o.m.size() == 1 ? o.m[0] : 512;
    const Buffer x = random_matrix(m * shape.k, DType::kBF16), y = random_matrix(m * shape.n, DType::kBF16);
    const int64_t w_bytes = cpu::packed_weight_bytes(DType::kBF16, shape.n, shape.k), copies = (64 << 20) / w_bytes;
    const Buffer w = random_matrix(w_bytes / 2 * copies, DType::kBF16), workspace = allocate_host(64 << 20);
    std::vector<cpu::GemmKernels> kernels;
    for (const Blocking& b : kBlockings) {
      kernels.push_back(base);
      kernels.back().block_rows = b.rows, kernels.back().chunk_bf16 = b.chunk;
      kernels.back().super_blocks = b.super, kernels.back().depth_outer_from = b.outer_from;
    }
    int64_t turn = 0;
    std::vector<std::function<void()>> bodies;
    const auto next = [&] { return cpu::WeightMatrix{w.data() + turn++ % copies * w_bytes, DType::kBF16}; };
    for (const cpu::GemmKernels& k : kernels)
      bodies.emplace_back([&] {
        if (o.op == "dx") {
          cpu::LinearInputGrad g;
          g.m = m, g.n = shape.n, g.k = shape.k, g.kernels = &k;
          g.dy = {y.data(), DType::kBF16, g.n}, g.dx = {x.data(), DType::kBF16, g.k}, g.w = next();
          linear_input_grad(g, workspace.data(), pool);
          return;
        }
        cpu::LinearForward f;
        f.m = m, f.n = shape.n, f.k = shape.k, f.kernels = &k;
        f.x = {x.data(), DType::kBF16, f.k}, f.y = {y.data(), DType::kBF16, f.n}, f.w = next();
        linear_forward(f, workspace.data(), pool);
      });
    const auto seconds = take_turns(pool, bodies, 24);
    for (size_t i = 0; i < bodies.size(); ++i) {
      const Blocking& b = kBlockings[i];
      print_turns(std::string(o.op) + " " + shape.name + " rows " + std::to_string(b.rows) + " depth " +
                      std::to_string(b.chunk) + " super " + std::to_string(b.super) + " from " +
                      std::to_string(b.outer_from),
                  seconds[i], 2.0 * static_cast<double>(m * shape.n * shape.k));
    }
  }
}

// The products of a layer (Qwen3-0.6B) with what goes with them, forward and backward, in turns. Rows lie `pad` columns
// apart from where they would.
class GroupRun {
 public:
  GroupRun(const Options& o, ThreadPool& pool)
      : m_(o.m.size() == 1 ? o.m[0] : 512), pad_(o.pad), pool_(pool), workspace_(allocate_host(64 << 20)) {}

  struct Group {
    const char* name;
    int64_t k;
    std::vector<int64_t> n;
    bool normed = false, gated = false, adds = false;
  };
  void forward(const Group& group, int64_t rank = 0) {
    const cpu::FusedRows& rows = cpu::fused_rows_avx512_bf16();
    auto g = std::make_shared<cpu::LinearGroup>();
    g->m = m_, g->k = group.k, g->n_parts = static_cast<int>(group.n.size());
    g->x = matrix(m_, group.k);
    if (group.normed) g->norm = {rows.norm, matrix(1, group.k).data, 1e-6f};
    g->is_gated = group.gated;
    if (group.gated) g->finish = rows.glu(ops::Activation::kSilu);
    if (group.adds) g->finish = rows.add;
    auto weights = std::make_shared<std::vector<const std::byte*>>();
    for (size_t i = 0; i < group.n.size(); ++i) {
      cpu::LinearGroup::Part& part = g->parts[i];
      part.n = group.n[i];
      part.y = result(part.n);
      if (group.adds) part.residual = matrix(m_, part.n);
      if (rank > 0) part.low = {rank, matrix(m_, rank, 0), matrix(part.n, rank, 0)};
      weights->push_back(copies(part.n * group.k));
    }
    add(group, 1, [this, g, weights](int64_t copy) {
      for (size_t p = 0; p < weights->size(); ++p)
        g->parts[p].w = {(*weights)[p] + copy * g->parts[p].n * g->k * 2, DType::kBF16};
      linear_group(*g, workspace_.data(), pool_);
    });
  }
  // dx of one weight [n, k]
  void backward(const char* name, int64_t n, int64_t k, int64_t rank, bool adds) {
    auto g = std::make_shared<cpu::LinearInputGrad>();
    g->m = m_, g->n = n, g->k = k;
    g->dy = matrix(m_, n);
    g->dx = result(k);
    if (adds) g->residual = {g->dx.data, g->dx.dtype, g->dx.stride};
    if (rank > 0) g->low = {rank, matrix(m_, rank, 0), matrix(rank, k, 0)};
    const std::byte* weights = copies(n * k);
    add({name, k, {n}}, 1, [this, g, weights](int64_t copy) {
      g->w = {weights + copy * g->n * g->k * 2, DType::kBF16};
      linear_input_grad(*g, workspace_.data(), pool_);
    });
  }
  void operator()() {
    constexpr int kRounds = 200;
    const auto seconds = take_turns(pool_, bodies_, kRounds);
    for (size_t i = 0; i < bodies_.size(); ++i) {
      const auto ms = [&](size_t at) { return seconds[i][at] * 1e3; };
      std::printf("%-24s best %.3f, tenth %.3f, median %.3f ms: %.0f, %.0f, %.0f GFLOP/s\n", names_[i].c_str(), ms(0),
                  ms(kRounds / 10), ms(kRounds / 2), operations_[i] / ms(0) * 1e-6,
                  operations_[i] / ms(kRounds / 10) * 1e-6, operations_[i] / ms(kRounds / 2) * 1e-6);
    }
  }

 private:
  static constexpr int64_t kCopies = 16;
  std::byte* room(int64_t elements) { return buffers_.emplace_back(random_matrix(elements, DType::kBF16)).data(); }
  cpu::ConstMatrix matrix(int64_t rows, int64_t n) { return matrix(rows, n, pad_); }
  cpu::ConstMatrix matrix(int64_t rows, int64_t n, int64_t pad) {
    return {room(rows * (n + pad)), DType::kBF16, n + pad};
  }
  cpu::Matrix result(int64_t n) { return {room(m_ * (n + pad_)), DType::kBF16, n + pad_}; }
  const std::byte* copies(int64_t elements) { return room(elements * kCopies); }
  void add(const Group& group, double products, std::function<void(int64_t)> body) {
    names_.emplace_back(group.name);
    operations_.push_back(0);
    for (const int64_t n : group.n) operations_.back() += products * 2 * static_cast<double>(m_ * n * group.k);
    bodies_.emplace_back([body = std::move(body), turn = int64_t{0}]() mutable { body(turn++ % kCopies); });
  }

  int64_t m_, pad_;
  ThreadPool& pool_;
  Buffer workspace_;
  std::vector<Buffer> buffers_;
  std::vector<std::string> names_;
  std::vector<double> operations_;
  std::vector<std::function<void()>> bodies_;
};

void run_groups(const Options& o, ThreadPool& pool) {
  constexpr int64_t kRank = 16;
  GroupRun run(o, pool);
  run.forward({"norm, q k v", 1024, {2048, 1024, 1024}, true});
  run.forward({"o + residual", 2048, {1024}, false, false, true});
  run.forward({"norm, gate up, glu", 1024, {3072, 3072}, true, true});
  run.forward({"down + residual", 3072, {1024}, false, false, true});
  run.forward({"q with LoRA", 1024, {2048}}, kRank);
  run.forward({"o with LoRA", 2048, {1024}}, kRank);
  run.forward({"gate with LoRA", 1024, {3072}}, kRank);
  run.forward({"down with LoRA", 3072, {1024}}, kRank);
  run.backward("dx of q", 2048, 1024, kRank, true);
  run.backward("dx of o", 1024, 2048, kRank, false);
  run.backward("dx of gate", 3072, 1024, kRank, true);
  run.backward("dx of down", 1024, 3072, kRank, false);
  run();
}

// what the machine gives, and what handing work to the pool costs
void print_peaks(ThreadPool& pool) {
  const Isa isa = cpu::detect_isa();
  std::printf("%s, %d threads: bf16 %.0f, f32 %.0f GFLOP/s, memory read %.1f GB/s;", std::string(name_of(isa)).c_str(),
              pool.size(), peak_bf16_flops(isa, pool) * 1e-9, peak_f32_flops(isa, pool) * 1e-9,
              memory_read_bytes_per_s(pool) * 1e-9);
  for (const int gap_us : {0, 20, 200}) {  // the caller is busy for so long between two runs
    double inside = 0;
    constexpr int kRuns = 400;
    for (int i = 0; i < kRuns; ++i) {
      for (const double until = now_s(pool) + gap_us * 1e-6; now_s(pool) < until;) {
      }
      const double start = now_s(pool);
      pool.run([](int) {});
      inside += now_s(pool) - start;
    }
    std::printf(" run after %d us: %.2f us", gap_us, inside / kRuns * 1e6);
  }
  std::printf("\n");
}

int main_of(const Options& o) {
  if (o.scan) return scan_cores(), 0;
  ThreadPool pool(o.threads);
  pin_caller();
  if (o.peaks) return print_peaks(pool), 0;
  if (o.kernel) return run_kernels(pool), 0;
  if (o.groups) return run_groups(o, pool), 0;
  if (o.sweep) return run_sweep(o, pool), 0;
  const DType type = o.type == "f32" ? DType::kF32 : DType::kBF16;
  const double bandwidth = memory_read_bytes_per_s(pool);
  std::printf("%d threads, memory read %.1f GB/s, best level %s\n", pool.size(), bandwidth * 1e-9,
              std::string(name_of(cpu::detect_isa())).c_str());
  std::vector<std::pair<Isa, double>> levels;
  for (Isa level : {Isa::kPlain, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx}) {
    if (level > cpu::detect_isa() || (!o.level.empty() && name_of(level) != o.level)) continue;
    if (o.level.empty() && level == Isa::kPlain) continue;  // on request only
    levels.emplace_back(level, type == DType::kF32 ? peak_f32_flops(level, pool) : peak_bf16_flops(level, pool));
    std::printf("%s: %s peak from registers %.1f GFLOP/s\n", std::string(name_of(level)).c_str(), o.type.c_str(),
                levels.back().second * 1e-9);
  }
  for (const Shape& shape : kShapes) {
    if (!o.shape.empty() && o.shape != shape.name) continue;
    if (o.shape.empty() && std::strncmp(shape.name, "lora", 4) == 0) continue;  // on request only
    std::printf("%s %s [%lld, %lld] %s\n", o.op.c_str(), shape.name, static_cast<long long>(shape.n),
                static_cast<long long>(shape.k), o.type.c_str());
    Problem p{0, shape.n, shape.k, type, 1, {}, {}, {}, {}, 0};
    p.w_bytes = std::max(cpu::packed_weight_bytes(type, p.n, p.k), p.n * p.k * size_of(type));
    p.copies = static_cast<int>(std::clamp<int64_t>((int64_t{192} << 20) / p.w_bytes, 1, 32));
    p.w = random_matrix(p.w_bytes / size_of(type) * p.copies, type);
    for (const int64_t m : o.m) {
      if (m * shape.n > int64_t{1} << 27) continue;  // nobody keeps so many logits
      p.m = m;
      p.x = random_matrix(m * p.k, type);
      p.y = random_matrix(m * p.n, type);
      for (const auto& [level, peak] : levels) {
        if (o.variants && level == Isa::kAmx) {
          for (const cpu::GemmKernels& k : cpu::amx_variants())
            print_row(k.name, p, run_ours(o, p, tuned(k, o), pool), peak, bandwidth);
          continue;
        }
        const cpu::GemmKernels kernels = tuned(cpu::kernels_for(level), o);
        print_row(kernels.name, p, run_ours(o, p, kernels, pool), peak, bandwidth);
      }
      if (o.peers && o.op == "forward") run_peers(o, p, levels.back().second, bandwidth, pool);
    }
  }
  return 0;
}

}  // namespace
}  // namespace pmetal::bench

int main(int argc, char** argv) { return pmetal::bench::main_of(pmetal::bench::parse(argc, argv)); }
