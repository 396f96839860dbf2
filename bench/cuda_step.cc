// Whole steps on a GPU with random weights: prefill, decode, LoRA and full fine-tuning, on the shapes of bench/shapes.
//   cuda_step SHAPES [--device cuda:0] [--batch-invariant] [--check] [--ops] [--no-graphs] [--host] [ROW...]
// SHAPES: the folder bench/shapes. ROW selects rows by the beginning of their name (default: all).
// --check: a few steps, of the smallest shape where no ROW is named. --batch-invariant: decode rows of several
// sequences once more with it. --ops: seconds of a step by op and kernel; launch times, unless CUDA_LAUNCH_BLOCKING=1
// makes each launch wait. --no-graphs: training steps start kernel by kernel. --host: the time it takes the host to
// queue a training step, and how many micro-batches were replayed. Decode rows start from 512 remembered tokens unless
// they say otherwise; greedy sampling is not part of them. Training rows are optimizer steps over 8 sequences of 2048
// tokens, LoRA of rank 16 on all linears, no recomputation; "cut" rows take one sequence at a time (0.6B: two) and add
// the gradients. Peers: best of llama.cpp, transformers, Liger on one H200; bounds: 4.25 TB/s and 785 TFLOP/s, both
// measured there.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/rng.h"
#include "infer/kv.h"
#include "infer/step_runner.h"
#include "ops/device.h"
#include "sm_clock.h"
#include "tensor/op_times.h"
#include "train/targets.h"

namespace pmetal {
namespace {

constexpr double kBytesPerSecond = 4.25e12, kFlopsPerSecond = 785e12;
constexpr int64_t kContext = 512, kSequence = 2048, kSequences = 8;

struct Row {
  const char* name;
  const char* model;
  enum Kind { kPrefill, kDecode, kLora, kFull } kind;
  int64_t size;     // prefill: tokens; decode: sequences
  int64_t context;  // decode: tokens remembered
  double peer, peer_gib;
  int64_t parts = 1;  // training: micro-batches of an optimizer step
};
constexpr Row kRows[] = {
    {"decode b1 0.6B", "qwen3-0.6b", Row::kDecode, 1, kContext, 676, 0},
    {"lora 0.6B", "qwen3-0.6b", Row::kLora, kSequences, 0, 102e3, 21},
    {"lora cut 0.6B", "qwen3-0.6b", Row::kLora, kSequences, 0, 102e3, 21, kSequences / 2},
    {"decode b1 8B", "qwen3-8b", Row::kDecode, 1, kContext, 202, 0},
    {"decode b32 8B", "qwen3-8b", Row::kDecode, 32, kContext, 3708, 0},
    {"decode b128 8B", "qwen3-8b", Row::kDecode, 128, kContext, 8064, 0},
    {"decode b1 8B 32k", "qwen3-8b", Row::kDecode, 1, 32000, 142, 0},
    {"prefill 8B 2048", "qwen3-8b", Row::kPrefill, 2048, 0, 30.3e3, 0},
    {"prefill 8B 8192", "qwen3-8b", Row::kPrefill, 8192, 0, 28.9e3, 0},
    {"lora 8B", "qwen3-8b", Row::kLora, kSequences, 0, 15.0e3, 92},
    {"lora 4x2048 8B", "qwen3-8b", Row::kLora, kSequences / 2, 0, 16.0e3, 54},
    {"lora cut 8B", "qwen3-8b", Row::kLora, kSequences, 0, 15.0e3, 92, kSequences},
    {"lora 4B", "qwen3-4b", Row::kLora, kSequences, 0, 26.1e3, 70},
    {"lora cut 4B", "qwen3-4b", Row::kLora, kSequences, 0, 26.1e3, 70, kSequences},
    {"full 0.6B", "qwen3-0.6b", Row::kFull, kSequences, 0, 76.3e3, 38.5},
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Loaded {
  std::string name;
  bool training = false;
  std::unique_ptr<models::Checkpoint> checkpoint;
  std::unique_ptr<models::Model> model;
};

std::vector<int32_t> random_tokens(PhiloxStream& rng, int64_t n, int64_t vocabulary) {
  std::vector<int32_t> all(static_cast<size_t>(n));
  for (int32_t& t : all) t = static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocabulary)));
  return all;
}

struct Timing {
  std::vector<double> seconds;  // sorted
  unsigned mhz = 0;             // median SM clock, 0: not known
  double median() const { return seconds[seconds.size() / 2]; }
};
bool wants_ops = false, wants_invariant = false, wants_graphs = true, wants_host = false;

void print_ops(const OpTimes& times) {
  std::vector<OpTime> rows = times.rows();
  std::sort(rows.begin(), rows.end(), [](const OpTime& a, const OpTime& b) { return a.seconds > b.seconds; });
  double all = 0;
  for (const OpTime& r : rows) all += r.seconds;
  for (const OpTime& r : rows)
    std::printf("#   %-22.*s %-14.*s %6ld calls %9.3f ms %5.1f %%\n", static_cast<int>(r.op.size()), r.op.data(),
                static_cast<int>(r.kernel.size()), r.kernel.data(), static_cast<long>(r.calls), 1e3 * r.seconds,
                100 * r.seconds / all);
}

// waits: for the device after each run; else the body does, for the run before
template <class Body>
Timing measure(Context& ctx, int warm, double budget_s, int most, Body&& body, bool waits = true) {
  static SmClock clock(static_cast<unsigned>(ctx.device().index));
  for (int i = 0; i < warm; ++i) body();
  if (waits || wants_ops) ops::synchronize(ctx);
  if (wants_ops) {
    OpTimes times;
    ctx.set_op_times(&times);
    body();
    ctx.set_op_times(nullptr);
    ops::synchronize(ctx);
    print_ops(times);
    if (!waits) body();
  }
  clock.clear();
  Timing t;
  const double end = now() + budget_s;
  while (static_cast<int>(t.seconds.size()) < 3 || (now() < end && static_cast<int>(t.seconds.size()) < most)) {
    const double start = now();
    body();
    if (waits) ops::synchronize(ctx);
    t.seconds.push_back(now() - start);
    clock.sample();
  }
  t.mhz = clock.median_mhz();
  std::sort(t.seconds.begin(), t.seconds.end());
  return t;
}

// the last row's logits, computed and left on the device
Tensor step_logits(Context& ctx, models::Model& model, const nn::KvStore::Step& step) {
  return models::logits(ctx, model, models::forward(ctx, model, step.batch));
}

void prefill(Context& ctx, models::Model& model, nn::KvStore& store, std::vector<nn::SequenceState>& states,
             int64_t tokens, PhiloxStream& rng) {
  constexpr int64_t kChunk = 8192;
  for (nn::SequenceState& state : states)
    for (int64_t at = 0; at < tokens; at += kChunk) {
      const auto ids = random_tokens(rng, std::min(kChunk, tokens - at), model.info().vocabulary);
      const nn::StepSequence one[] = {{.state = &state, .tokens = ids}};
      step_logits(ctx, model, store.begin_step(ctx, one));
    }
}

Timing decode(Context& ctx, models::Model& model, const Row& row, int most, bool apart = false) {
  PhiloxStream rng(1, RngPurpose::kSynthetic);
  constexpr int64_t kRoom = 160;
  nn::KvStore store = infer::make_kv_store(ctx, model, row.size * nn::KvStore::pages_for(row.context + kRoom) + 1);
  std::vector<nn::SequenceState> states;
  for (int64_t i = 0; i < row.size; ++i) states.emplace_back(store);
  prefill(ctx, model, store, states, row.context, rng);
  const std::vector<int32_t> tokens = random_tokens(rng, row.size, model.info().vocabulary);
  infer::StepRunner runner(ctx, model, store, apart);
  return measure(ctx, 5, 3, std::min(most, static_cast<int>(kRoom) - 8), [&] {
    std::vector<nn::StepSequence> step;
    for (size_t i = 0; i < states.size(); ++i)
      step.push_back({.state = &states[i], .tokens = std::span(tokens).subspan(i, 1)});
    runner.run(step);
  });
}

Timing prefill_row(Context& ctx, models::Model& model, const Row& row, int most) {
  PhiloxStream rng(2, RngPurpose::kSynthetic);
  nn::KvStore store = infer::make_kv_store(ctx, model, nn::KvStore::pages_for(row.size) + 1);
  return measure(ctx, 2, 3, most, [&] {
    std::vector<nn::SequenceState> states;
    states.emplace_back(store);
    prefill(ctx, model, store, states, row.size, rng);
  });
}

// The same sequences again and again; packed as training packs them.
struct RandomLoader final : data::Loader {
  std::vector<data::PackedSequence> batches;
  RandomLoader(int64_t vocabulary, int64_t sequences, int64_t parts) : batches(static_cast<size_t>(parts)) {
    PhiloxStream rng(3, RngPurpose::kSynthetic);
    for (data::PackedSequence& b : batches) {
      for (int64_t i = 0; i < sequences / parts; ++i) {
        data::Example e;
        e.ids = e.labels = random_tokens(rng, kSequence, vocabulary);
        b.append(e);
      }
    }
  }
  bool next(data::PackedSequence&) override { return false; }
  int64_t epoch() const override { return 0; }
  double progress() const override { return 0; }
  std::optional<int64_t> sequences_per_epoch() const override { return {}; }
  std::string state() const override { return "{}"; }
  void restore(const std::string&, bool) override {}
};

struct Target final : train::TrainTarget {
  models::Model& m;
  std::vector<train::Trainable> all;
  Target(models::Model& model, std::vector<train::Trainable> trainables) : m(model), all(std::move(trainables)) {}
  models::Model& model() override { return m; }
  std::vector<train::Trainable> trainables() override { return all; }
  void save(const std::filesystem::path&, const std::function<Tensor(const std::string&)>&) override {}
  bool is_recordable() const override { return true; }
};

// `parts` micro-batches per optimizer step, through the trainer as `pmetal train` runs it
Timing train(Context& ctx, models::Model& model, std::vector<train::Trainable> trainables, const Row& row,
             int64_t parts, int most) {
  RandomLoader loader(model.info().vocabulary, row.size, parts);
  Target target(model, std::move(trainables));
  train::TrainObserver silent;
  train::TrainOptions options;
  options.schedule.base = 1e-5;
  options.schedule.kind = train::ScheduleKind::kConstant;
  options.records = wants_graphs;
  train::Trainer trainer(ctx, target, loader, options, silent);
  std::shared_ptr<train::Trainer::Queued> under_way;
  std::vector<double> queued;
  const Timing t = measure(
      ctx, 4, 4, most,
      [&] {
        const double start = now();
        const auto next = trainer.queue(loader.batches);
        queued.push_back(now() - start);
        if (under_way) trainer.settle(*under_way);
        under_way = next;
      },
      false);
  trainer.settle(*under_way);
  std::sort(queued.begin(), queued.end());
  if (wants_host)
    std::printf("# queued in %.2f ms; %ld micro-batches replayed, %ld started %s\n", 1e3 * queued[queued.size() / 2],
                static_cast<long>(trainer.micro_batches().replayed), static_cast<long>(trainer.micro_batches().started),
                trainer.micro_batches().reason.c_str());
  return t;
}

// tokens per second that the measured limits allow; formulas of the MFU convention
double bound(models::Model& model, const Row& row, int64_t lora_parameters) {
  const models::ModelInfo& info = model.info();
  const models::ParameterCount n = models::count_parameters(model);
  const double matrices = static_cast<double>(n.matrices);
  const double attention = 2.0 * static_cast<double>(info.heads * info.head_dim * info.layers);  // per token of context
  double kv = 0;
  for (const models::LayerMemory& m : info.memory) kv += 2.0 * static_cast<double>(m.kv_heads * (m.d_k + m.d_v));
  switch (row.kind) {
    case Row::kDecode:
      return static_cast<double>(row.size) * kBytesPerSecond /
             (2 * matrices + static_cast<double>(row.size * row.context) * kv);
    case Row::kPrefill: {
      const double head = static_cast<double>(info.vocabulary * info.hidden);
      return kFlopsPerSecond / (2 * (matrices - head) + attention * static_cast<double>(row.size));
    }
    case Row::kLora:
      return kFlopsPerSecond / (4 * matrices + 3 * attention * kSequence + 6 * static_cast<double>(lora_parameters));
    default: return kFlopsPerSecond / (6 * matrices + 3 * attention * kSequence);
  }
}

void run_row(Context& ctx, Loaded& loaded, const Row& row, int most) {
  ctx.allocator().release_cached();
  ctx.allocator().reset_peak();
  models::Model& model = *loaded.model;
  Timing t;
  int64_t parts = row.parts, lora_parameters = 0;
  double tokens = static_cast<double>(row.size);
  if (row.kind == Row::kDecode) {
    t = decode(ctx, model, row, most);
  } else if (row.kind == Row::kPrefill) {
    t = prefill_row(ctx, model, row, most);
  } else {
    tokens *= kSequence;
    for (;; parts *= 2) {
      try {
        if (row.kind == Row::kLora) {
          adapters::PeftConfig config;
          config.r = config.alpha = 16;
          config.targets.all_linear = true;
          const auto adapter = adapters::Adapter::create(ctx, model, config, 1);
          adapter->attach(model, 0);
          adapters::prepare_training(ctx, model, *adapter, 0);
          std::vector<train::Trainable> trainables;
          lora_parameters = 0;
          for (const adapters::AdapterParameter& p : adapter->parameters()) {
            trainables.push_back({p.key, p.value});
            lora_parameters += p.value->numel();
          }
          struct Detach {
            adapters::Adapter& a;
            models::Model& m;
            ~Detach() { a.detach(m, 0); }
          } detach{*adapter, model};
          t = train(ctx, model, std::move(trainables), row, parts, most);
        } else {
          t = train(ctx, model, train::all_parameters(model), row, parts, most);
        }
        break;
      } catch (const Error& e) {
        if (e.code() != ErrorCode::kOutOfMemory || parts >= row.size) throw;
        std::printf("# %s in %ld part(s): %s\n", row.name, static_cast<long>(parts), e.what());
        ctx.allocator().release_cached();
        ctx.allocator().reset_peak();
      }
    }
  }
  const double rate = tokens / t.median(), limit = bound(model, row, lora_parameters);
  std::printf("%-18s %9.0f tok/s  (%.2f ms, %.2f .. %.2f, %zu runs)  %4.1f %% of %7.0f  peak %6.1f GiB", row.name, rate,
              1e3 * t.median(), 1e3 * t.seconds.front(), 1e3 * t.seconds.back(), t.seconds.size(), 100 * rate / limit,
              limit, static_cast<double>(ctx.allocator().stats().peak_bytes) / (1 << 30));
  if (t.mhz) std::printf("  %u MHz", t.mhz);
  if (parts > 1) std::printf("  %ld parts", static_cast<long>(parts));
  std::printf("  peer %7.0f", row.peer);
  if (row.peer_gib > 0) std::printf(" (%.0f GiB)", row.peer_gib);
  std::printf("  x%.2f", rate / row.peer);
  if (wants_invariant && row.kind == Row::kDecode && row.size > 1)
    std::printf("  batch-invariant %.0f", tokens / decode(ctx, model, row, std::min(most, 20), true).median());
  std::printf("\n");
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  std::filesystem::path shapes;
  std::string device = "cuda";
  std::vector<std::string> wanted;
  bool check = false;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--device" && i + 1 < argc)
      device = argv[++i];
    else if (arg == "--check")
      check = true;
    else if (arg == "--batch-invariant")
      wants_invariant = true;
    else if (arg == "--no-graphs")
      wants_graphs = false;
    else if (arg == "--host")
      wants_host = true;
    else if (arg == "--ops")
      wants_ops = true;
    else if (shapes.empty())
      shapes = arg;
    else
      wanted.push_back(arg);
  }
  if (shapes.empty()) {
    std::fprintf(
        stderr,
        "usage: cuda_step SHAPES [--device cuda:0] [--batch-invariant] [--check] [--ops] [--no-graphs] [--host] "
        "[ROW...]\n");
    return 2;
  }
  Context ctx = ops::make_context(parse_device(device), std::make_shared<ThreadPool>(0));
  Loaded loaded;
  int n_run = 0, n_failed = 0;
  for (const Row& row : kRows) {
    if (check && wanted.empty() && (row.kind == Row::kFull || std::string_view(row.model) != "qwen3-0.6b")) continue;
    if (!wanted.empty() && std::none_of(wanted.begin(), wanted.end(),
                                        [&](const std::string& w) { return std::string(row.name).starts_with(w); }))
      continue;
    const bool training = row.kind == Row::kFull;
    ++n_run;
    try {
      if (loaded.name != row.model || loaded.training != training) {
        loaded = {};
        ctx.allocator().release_cached();
        const double start = now();
        loaded.name = row.model;
        loaded.training = training;
        loaded.checkpoint = models::Checkpoint::open("random:" + (shapes / (loaded.name + ".json")).string());
        loaded.model = models::build(loaded.checkpoint->config(), loaded.checkpoint->source());
        models::load_weights(ctx, *loaded.model, *loaded.checkpoint, {.dtype = DType::kBF16, .for_training = training});
        ops::synchronize(ctx);
        std::printf("# %s: weights drawn and copied in %.1f s\n", row.model, now() - start);
      }
      run_row(ctx, loaded, row, check ? 3 : 200);
    } catch (const Error& e) {
      ++n_failed;
      std::printf("%-18s FAILED: %s\n", row.name, e.what());
    }
  }
  if (n_run == 0) {
    std::fprintf(stderr, "cuda_step: no row begins with \"%s\"\n", wanted.empty() ? "" : wanted.front().c_str());
    return 2;
  }
  return n_failed > 0 ? 1 : 0;
}

}  // namespace
}  // namespace pmetal

int main(int argc, char** argv) {
  try {
    return pmetal::run(argc, argv);
  } catch (const pmetal::Error& e) {
    std::fprintf(stderr, "cuda_step: %s\n", e.what());
    return 1;
  }
}
