// pmetal eval: perplexity of a text, likelihood of answers, or exact match by generation.
#include <ostream>

#include <nlohmann/json.hpp>

#include "jobs/eval_methods.h"
#include "jobs/spec.h"

namespace pmetal::jobs {

void run_eval(const JobOptions& options, JobContext& job) {
  EvalOptions o = options.as<EvalOptions>();
  ModelSession s = open_session(
      job, {.model = o.model, .adapter = o.lora, .dtype = o.dtype, .device = o.device, .threads = o.threads});
  const int64_t positions = s.model->info().max_positions;
  if (options.was_given("max_seq_len") && o.max_seq_len > positions)
    fail(ErrorCode::kUsage, "--max-seq-len {} is above the model's {} positions", o.max_seq_len, positions);
  o.max_seq_len = std::min(o.max_seq_len, positions);
  if (o.stride && *o.stride > o.max_seq_len)
    fail(ErrorCode::kUsage, "--stride {} is above the window of {} tokens", *o.stride, o.max_seq_len);
  job.phase("loading_tokenizer", s.checkpoint->folder().string());
  const TextSession text = open_text(s.checkpoint->folder(), s.model->info());

  Json json;
  json["model"] = o.model;
  json["dataset"] = o.dataset;
  std::string lines;
  if (o.metric == EvalMetric::kExactMatch) {
    const ExactMatchResult r = eval_exact_match(o, job, s, text);
    const double share = static_cast<double>(r.correct) / static_cast<double>(r.samples);
    json["metric"] = "exact_match";
    json["num_samples"] = r.samples;
    json["correct"] = r.correct;
    json["exact_match"] = share;
    json["total_tokens"] = r.generated_tokens;
    lines = fmt::format("exact match {:.2f} % ({} of {})\n", 100 * share, r.correct, r.samples);
    job.summary.extra = {{"exact_match", share}};
    job.summary.total_tokens = r.generated_tokens;
  } else {
    const PerplexityResult r = eval_perplexity(o, job, s, text);
    const double mean = r.likelihood.mean(), perplexity = r.likelihood.perplexity();
    const double accuracy = static_cast<double>(r.likelihood.correct) / static_cast<double>(r.likelihood.tokens);
    json["metric"] = "perplexity";
    json["num_samples"] = r.samples;
    json["total_tokens"] = r.likelihood.tokens;
    json["avg_nll"] = mean;
    json["perplexity"] = perplexity;
    json["token_accuracy"] = accuracy;
    if (r.windows > 0) {
      json["text_tokens"] = r.text_tokens;
      json["windows"] = r.windows;
      json["window"] = r.window;
      if (o.stride) json["stride"] = *o.stride;
    }
    lines = fmt::format("perplexity {:.6f}, mean negative log-likelihood {:.6f}, {} tokens scored\n", perplexity, mean,
                        r.likelihood.tokens);
    job.summary.final_loss = mean;
    job.summary.total_tokens = r.likelihood.tokens;
    job.summary.extra = {{"perplexity", perplexity}, {"token_accuracy", accuracy}};
  }
  if (job.json)
    job.data() << json.dump(2) << "\n";
  else
    job.data() << lines;
}

}  // namespace pmetal::jobs
