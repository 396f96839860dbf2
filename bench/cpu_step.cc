// Whole steps of a model on the CPU, through the code that commands use: prefill, decode, one LoRA optimizer step.
//   cpu_step [--config FILE.json] [--step prefill|decode|loss|lora] [--tokens N] [--sequences N] [--rank R] [--threads
//   N]
//   [--repeat N] [--recompute] [--ops] [--cpu-time]
// Prints median and best tokens/s, the share of the bound, peak memory, and with --ops where the time goes, on average
// and with each call at its shortest.
//   bound   prefill, lora: floating-point operations / measured bf16 peak; decode: bytes of the weights / measured
//           memory speed
// --cpu-time counts processor time, which is fair on a busy machine with --threads 1. Op times are of the wall.
// Weights are noise, repeated from one block, so that a step starts at once; PMETAL_STRICT=1 is set.
#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "adapters/adapter.h"
#include "base/rng.h"
#include "cpu_peak.h"
#include "infer/kv.h"
#include "models/checkpoint.h"
#include "tensor/op_times.h"
#include "train/flat_parameters.h"
#include "train/sequence_loss.h"

namespace pmetal::bench {
namespace {

struct Options {
  std::string config = "bench/shapes/qwen3-0.6b.json", step;
  int64_t tokens = 512, sequences = 1, rank = 16, repeat = 5;
  int threads = 0;
  bool recompute = false, ops = false, cpu_time = false;
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) std::fprintf(stderr, "%s wants a value\n", flag.c_str()), std::exit(2);
      return argv[++i];
    };
    if (flag == "--config")
      o.config = value();
    else if (flag == "--step")
      o.step = value();
    else if (flag == "--tokens")
      o.tokens = std::stoll(value());
    else if (flag == "--sequences")
      o.sequences = std::stoll(value());
    else if (flag == "--rank")
      o.rank = std::stoll(value());
    else if (flag == "--repeat")
      o.repeat = std::stoll(value());
    else if (flag == "--threads")
      o.threads = std::stoi(value());
    else if (flag == "--recompute")
      o.recompute = true;
    else if (flag == "--cpu-time")
      o.cpu_time = true;
    else if (flag == "--ops")
      o.ops = true;
    else
      std::fprintf(stderr, "unknown flag %s\n", flag.c_str()), std::exit(2);
  }
  return o;
}

// noise of the model's own spread: one block of rows for all
class NoiseWeights final : public models::ParameterVisitor {
 public:
  NoiseWeights(Context& ctx, models::Model& model) : ctx_(ctx), dtype_(model.dtype) {
    noise_.resize(size_t{1} << 20);
    PhiloxStream rng(1, RngPurpose::kInit);
    for (float& v : noise_) v = static_cast<float>(rng.normal()) * model.info().initializer_range;
  }
  void on(nn::Linear& l) override { l.weight = matrix(l.out(), l.in()); }
  void on(nn::Embedding& e) override { e.weight = matrix(e.vocabulary(), e.dim()); }
  void on(nn::Parameter& p) override {
    p.value = ctx_.empty(p.shape, dtype_);
    ops::fill(ctx_, p.value, p.initial);
  }
  int64_t bytes() const { return bytes_; }

 private:
  quant::Weight matrix(int64_t out, int64_t in) {
    const quant::Format& format = ops::preferred_format(ctx_.device(), quant::format(name_of(dtype_)));
    quant::Weight w = quant::allocate(format, out, in);
    const int64_t block = std::max<int64_t>(format.row_cut, 64);
    ctx_.threads().parallel_for(out, block, [&](int64_t begin, int64_t end) {
      std::vector<float> rows(static_cast<size_t>(block * in));
      for (int64_t r = begin; r < end; r += block) {
        for (size_t i = 0; i < rows.size(); ++i) rows[i] = noise_[(i + static_cast<size_t>(r) * 7919) % noise_.size()];
        format.encode_rows(w, r, std::min(r + block, out), rows.data());
      }
    });
    for (const auto& plane : w.planes) bytes_ += plane.bytes.size_bytes();
    return w;
  }
  Context& ctx_;
  DType dtype_;
  std::vector<float> noise_;
  int64_t bytes_ = 0;
};

int64_t resident_bytes(const char* field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind(field, 0) == 0) return std::stoll(line.substr(std::strlen(field) + 1)) * 1024;
  return 0;
}
void reset_resident_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

struct Machine {
  double flops, bytes_per_s;
};

class Bench {
 public:
  Bench(const Options& o) : o_(o), threads_(std::make_shared<ThreadPool>(o.threads)), ctx_(threads_) {
    pin_caller();
    checkpoint_ = models::Checkpoint::open("random:" + o.config);
    model_ = models::build(checkpoint_->config(), checkpoint_->source());
    model_->dtype = DType::kBF16;
    NoiseWeights noise(ctx_, *model_);
    model_->visit(noise);
    weight_bytes_ = noise.bytes();
    machine_ = {peak_bf16_flops(cpu::isa(), *threads_), memory_read_bytes_per_s(*threads_)};
    std::printf("%s, %d threads: bf16 peak %.0f GFLOP/s, memory read %.1f GB/s, weights %.2f GB\n",
                std::string(cpu::name_of(cpu::isa())).c_str(), threads_->size(), machine_.flops * 1e-9,
                machine_.bytes_per_s * 1e-9, static_cast<double>(weight_bytes_) * 1e-9);
  }

  void prefill() {
    nn::KvStore store = infer::make_kv_store(ctx_, *model_, o_.sequences * nn::KvStore::pages_for(o_.tokens));
    const std::vector<int32_t> ids = tokens(o_.tokens);
    const double t = static_cast<double>(o_.tokens * o_.sequences);
    const double flops = 2 * layer_parameters() * t + attention_flops(2);
    measure("prefill", o_.tokens * o_.sequences, flops / machine_.flops, [&] {
      std::vector<nn::SequenceState> states;
      for (int64_t s = 0; s < o_.sequences; ++s) states.emplace_back(store);
      std::vector<nn::StepSequence> steps;
      for (nn::SequenceState& s : states) steps.push_back({.state = &s, .tokens = ids});
      const nn::KvStore::Step step = store.begin_step(ctx_, steps);
      models::logits(ctx_, *model_, models::forward(ctx_, *model_, step.batch));
    });
  }

  void decode() {
    constexpr int64_t kSteps = 8;
    const int64_t room = nn::KvStore::pages_for(o_.tokens + kSteps * (o_.repeat + 1));
    nn::KvStore store = infer::make_kv_store(ctx_, *model_, o_.sequences * room);
    const std::vector<int32_t> ids = tokens(o_.tokens), one = tokens(1);
    std::vector<nn::SequenceState> states;
    for (int64_t s = 0; s < o_.sequences; ++s) states.emplace_back(store);
    const auto advance = [&](const std::vector<int32_t>& next) {
      std::vector<nn::StepSequence> steps;
      for (nn::SequenceState& s : states) steps.push_back({.state = &s, .tokens = next});
      const nn::KvStore::Step step = store.begin_step(ctx_, steps);
      models::logits(ctx_, *model_, models::forward(ctx_, *model_, step.batch));
    };
    advance(ids);
    const double bound = static_cast<double>(kSteps * weight_bytes_) / machine_.bytes_per_s;
    measure("decode", kSteps * o_.sequences, bound, [&] {
      for (int64_t i = 0; i < kSteps; ++i) advance(one);
    });
  }

  // the head's loss and its gradient alone
  void loss() {
    const int64_t rows = o_.tokens * o_.sequences, hidden = model_->info().hidden;
    const std::vector<int32_t> ids = tokens(rows);
    Tensor x = ctx_.empty({rows, hidden}, DType::kBF16), scale = ctx_.empty({rows}, DType::kF32);
    std::vector<float> noise(static_cast<size_t>(rows * hidden));
    PhiloxStream rng(3, RngPurpose::kInit);
    for (float& v : noise) v = static_cast<float>(rng.normal());
    convert(noise.data(), DType::kF32, x.bytes(), DType::kBF16, rows * hidden);
    ops::fill(ctx_, scale, 1 / static_cast<float>(rows));
    x = make_leaf(x, "hidden");
    const Tensor labels = host_tensor<int32_t>(ids, Shape{rows}, DType::kI32);
    const double flops = 4.0 * static_cast<double>(rows * hidden * model_->info().vocabulary);
    measure("loss", rows, flops / machine_.flops, [&] {
      Tape tape = ops::make_tape();
      TapeScope recording(ctx_, &tape);
      models::loss(ctx_, *model_, x, labels, scale, {});
    });
  }

  void lora() {
    adapters::PeftConfig config;
    config.r = o_.rank;
    config.alpha = 2 * static_cast<double>(o_.rank);
    config.targets.all_linear = true;
    const auto adapter = adapters::Adapter::create(ctx_, *model_, config, 1);
    adapter->attach(*model_, 0);
    std::vector<train::Trainable> trainables;
    for (adapters::AdapterParameter& p : adapter->parameters()) trainables.push_back({p.key, p.value});
    {
      train::FlatParameters parameters(ctx_, std::move(trainables));
      data::PackedSequence packed;
      for (int64_t s = 0; s < o_.sequences; ++s) {
        data::Example example;
        example.ids = example.labels = tokens(o_.tokens);
        packed.append(example);
      }
      const double t = static_cast<double>(packed.length()),
                   head = static_cast<double>(model_->info().vocabulary) * static_cast<double>(model_->info().hidden);
      const double flops = (4 * layer_parameters() + 4 * head) * t + attention_flops(7) +
                           6 * static_cast<double>(parameters.count()) * t;
      train::LossOptions options;
      options.recompute_group = o_.recompute ? 1 : 0;
      int64_t step = 0;
      measure("lora step", packed.length(), flops / machine_.flops, [&] {
        parameters.zero_gradients(ctx_);
        Tape tape = ops::make_tape(ctx_);
        {
          TapeScope recording(ctx_, &tape);
          const train::SequenceLoss loss =
              train::sequence_loss(ctx_, *model_, packed, 1.0 / static_cast<double>(packed.n_learned()), options);
          Tensor seed = ctx_.empty({1}, DType::kF32);
          ops::fill(ctx_, seed, 1);
          tape.backward(ctx_, loss.loss, seed);
        }
        const double norm = parameters.gradient_norm(ctx_);
        parameters.step(ctx_, {}, 1e-4, std::min(1.0, 1 / (norm + 1e-6)), ++step);
      });
    }
    adapter->detach(*model_, 0);
  }

 private:
  std::vector<int32_t> tokens(int64_t n) const {
    PhiloxStream rng(2, RngPurpose::kInit);
    std::vector<int32_t> ids(static_cast<size_t>(n));
    for (int32_t& id : ids)
      id = static_cast<int32_t>(rng.uniform() * static_cast<double>(model_->info().vocabulary - 1));
    return ids;
  }

  double layer_parameters() const {
    const models::ParameterCount n = models::count_parameters(*model_);
    return static_cast<double>(n.matrices) -
           static_cast<double>(model_->info().vocabulary) * static_cast<double>(model_->info().hidden);
  }
  // causal; `products`: 2 forward, 7 with backward
  double attention_flops(double products) const {
    const models::ModelInfo& info = model_->info();
    const double t = static_cast<double>(o_.tokens);
    return products * 2 * static_cast<double>(info.layers * info.heads * info.head_dim * o_.sequences) * t * t / 2;
  }

  template <class Body>
  void measure(const char* name, int64_t tokens, double bound_s, Body&& body) {
    body();  // warm
    ctx_.allocator().reset_peak();
    reset_resident_peak();
    OpTimes times;
    std::vector<double> seconds;
    for (int64_t i = 0; i < o_.repeat; ++i) {
      ctx_.set_op_times(o_.ops && i > 0 ? &times : nullptr);
      times.next_run();
      const double begin = now_s(*threads_);
      body();
      seconds.push_back(now_s(*threads_) - begin);
    }
    ctx_.set_op_times(nullptr);
    std::sort(seconds.begin(), seconds.end());
    const double n = static_cast<double>(tokens), median = seconds[seconds.size() / 2], best = seconds[0];
    std::printf(
        "%-9s %lld tokens: median %.1f tok/s (%.0f %% of bound), best %.1f tok/s (%.0f %%), bound %.1f tok/s; "
        "activations %.2f GB, resident peak %.2f GB\n",
        name, static_cast<long long>(tokens), n / median, 100 * bound_s / median, n / best, 100 * bound_s / best,
        n / bound_s, static_cast<double>(ctx_.allocator().stats().peak_bytes) * 1e-9,
        static_cast<double>(resident_bytes("VmHWM:")) * 1e-9);
    if (o_.ops) print_ops(times, std::max<double>(1, static_cast<double>(o_.repeat - 1)));
  }

  static void print_ops(const OpTimes& times, double runs) {
    std::vector<OpTime> rows = times.rows();
    std::sort(rows.begin(), rows.end(), [](const OpTime& a, const OpTime& b) { return a.seconds > b.seconds; });
    double total = 0, least = 0;
    for (const OpTime& r : rows) total += r.seconds, least += r.least;
    for (const OpTime& r : rows)
      std::printf("  %-20s %-12s %6.0f calls %9.2f ms %5.1f %%   each call at its best %9.2f ms\n",
                  std::string(r.op).c_str(), std::string(r.kernel).c_str(), static_cast<double>(r.calls) / runs,
                  1e3 * r.seconds / runs, 100 * r.seconds / total, 1e3 * r.least);
    std::printf("  %-47s %9.2f ms %33.2f ms\n", "all ops", 1e3 * total / runs, 1e3 * least);
  }

  Options o_;
  std::shared_ptr<ThreadPool> threads_;
  Context ctx_;
  std::unique_ptr<models::Checkpoint> checkpoint_;
  std::unique_ptr<models::Model> model_;
  int64_t weight_bytes_ = 0;
  Machine machine_{};
};

}  // namespace
}  // namespace pmetal::bench

int main(int argc, char** argv) {
  using namespace pmetal::bench;
  const Options o = parse(argc, argv);
  use_processor_time(o.cpu_time);
  setenv("PMETAL_STRICT", "1", 0);
  try {
    Bench bench(o);
    if (o.step.empty() || o.step == "prefill") bench.prefill();
    if (o.step.empty() || o.step == "decode") bench.decode();
    if (o.step == "loss") bench.loss();
    if (o.step.empty() || o.step == "lora") bench.lora();
  } catch (const pmetal::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
