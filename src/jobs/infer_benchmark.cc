#include "jobs/infer_benchmark.h"

#include <algorithm>
#include <chrono>
#include <ostream>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/rng.h"
#include "infer/engine.h"
#include "infer/layer_profile.h"
#include "jobs/machine.h"

namespace pmetal::jobs {
namespace {

using Clock = std::chrono::steady_clock;

double ms_between(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double, std::milli>(b - a).count();
}

// of sorted times; nearest rank
double quantile(std::vector<double> v, double q) {
  std::sort(v.begin(), v.end());
  return v[static_cast<size_t>(q * static_cast<double>(v.size() - 1) + 0.5)];
}

// The same ids every time: any of the vocabulary, so that embedding rows do not stay in the cache.
std::vector<int32_t> random_prompt(int64_t n, int64_t vocabulary) {
  PhiloxStream random(0, RngPurpose::kSynthetic);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (int32_t& id : ids) id = static_cast<int32_t>(random.below(static_cast<uint64_t>(vocabulary)));
  return ids;
}

}  // namespace

void show_layer_profile(const InferOptions& o, const JobContext& job, ModelSession& s,
                        std::span<const int32_t> prompt) {
  job.phase("custom", "profiling layers");
  const std::vector<infer::LayerTime> times = infer::profile_layers(*s.ctx, *s.model, prompt);
  if (o.profile_output) {
    Json json;
    json["model"] = o.model;
    json["prompt_tokens"] = prompt.size();
    json["device"] = read_cpu_info().model;
    json["layers"] = Json::array();
    for (const infer::LayerTime& t : times)
      json["layers"].push_back({{"name", t.name}, {"prefill_ms", t.prefill_ms}, {"decode_ms", t.decode_ms}});
    write_file_atomic(*o.profile_output, json.dump(2) + "\n");
    job.artefact(*o.profile_output, "profile");
  }
  if (job.json) return;
  std::string table = fmt::format("{:<10} {:>14} {:>14}\n", "", "prefill ms", "decode ms");
  double prefill = 0, decode = 0;
  for (const infer::LayerTime& t : times) {
    table += fmt::format("{:<10} {:>14.3f} {:>14.3f}\n", t.name, t.prefill_ms, t.decode_ms);
    prefill += t.prefill_ms;
    decode += t.decode_ms;
  }
  job.data() << table << fmt::format("{:<10} {:>14.3f} {:>14.3f}\n", "all", prefill, decode);
}

void run_infer_benchmark(const InferOptions& o, JobContext& job, ModelSession& s) {
  const int64_t vocabulary = s.model->info().vocabulary, n_prompt = *o.benchmark_prompt_tokens;
  const std::vector<int32_t> prompt = random_prompt(n_prompt, vocabulary);
  if (o.profile_layers) show_layer_profile(o, job, s, prompt);
  infer::Engine engine(*s.ctx, *s.model,
                       {.max_pages = nn::KvStore::pages_for(n_prompt + o.max_tokens),
                        .max_chunk = n_prompt,
                        .batch_invariant = o.batch_invariant});
  std::vector<double> first_ms, token_ms;
  for (int64_t i = -1; i < o.benchmark_iters; ++i) {  // the first run warms up
    job.stop_if_cancelled();
    std::vector<Clock::time_point> at;
    const Clock::time_point start = Clock::now();
    const auto generation =
        engine.submit({.prompt = prompt, .sampling = {.temperature = 0}, .max_tokens = o.max_tokens},
                      [&](const infer::Update&) { at.push_back(Clock::now()); });
    while (engine.step()) job.stop_if_cancelled();
    if (i < 0) continue;
    first_ms.push_back(ms_between(start, at[0]));
    for (size_t t = 1; t < at.size(); ++t) token_ms.push_back(ms_between(at[t - 1], at[t]));
    job.progress("benchmark", i + 1, o.benchmark_iters);
  }
  std::vector<BenchTrial> trials = {{"prefill", n_prompt, 1000 * static_cast<double>(n_prompt) / quantile(first_ms, .5),
                                     quantile(first_ms, .5), quantile(first_ms, .99)}};
  if (!token_ms.empty())
    trials.push_back(
        {"decode", o.max_tokens - 1, 1000 / quantile(token_ms, .5), quantile(token_ms, .5), quantile(token_ms, .99)});
  for (const BenchTrial& t : trials) job.emit(t);
  if (!job.json) return;
  Json json;
  json["model"] = o.model;
  json["device"] = read_cpu_info().model;
  json["threads"] = s.threads->size();
  json["iterations"] = o.benchmark_iters;
  json["peak_gb"] = static_cast<double>(read_memory_info().process_peak) / 1e9;
  for (const BenchTrial& t : trials)
    json[t.label] = {{"tokens", t.tokens}, {"tok_per_sec", t.tok_per_sec}, {"p50_ms", t.p50_ms}, {"p99_ms", t.p99_ms}};
  job.data() << json.dump(2) << "\n";
}

}  // namespace pmetal::jobs
