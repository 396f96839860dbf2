// pmetal pretrain: all parameters of a new model, from random weights, on token shards.
#include <algorithm>
#include <ostream>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "data/shards.h"
#include "formats/json.h"
#include "formats/json_reader.h"
#include "jobs/model_session.h"
#include "jobs/run_folder.h"
#include "jobs/spec.h"
#include "jobs/specs/pretrain.h"
#include "jobs/training.h"
#include "text/tokenizer/tokenizer.h"

namespace pmetal::jobs {
namespace {

// A small shape of the architecture for whoever names no config: about 12 M parameters besides the embedding.
Json default_config(const std::string& arch, int64_t vocabulary, int64_t seq_len, int64_t eos) {
  Json j;
  std::string type = arch;
  std::replace(type.begin(), type.end(), '-', '_');
  const models::Family* family = nullptr;
  std::string known;
  for (const models::Family* f : models::families()) {
    if (f->name == type) family = f;
    known += (known.empty() ? "" : ", ") + std::string(f->name);
  }
  if (!family) fail(ErrorCode::kUsage, "--arch \"{}\" is not known; known: {}", arch, known);
  j["architectures"] = {std::string(family->architecture)};
  j["model_type"] = std::string(family->name);
  j["vocab_size"] = vocabulary;
  j["hidden_size"] = 384;
  j["intermediate_size"] = 1024;
  j["num_hidden_layers"] = 8;
  j["num_attention_heads"] = 6;
  j["num_key_value_heads"] = 2;
  j["head_dim"] = 64;
  j["hidden_act"] = "silu";
  j["max_position_embeddings"] = seq_len;
  j["rms_norm_eps"] = 1e-6;
  j["rope_theta"] = 10000.0;
  j["tie_word_embeddings"] = true;
  j["initializer_range"] = 0.02;
  j["eos_token_id"] = eos;
  if (family->name == "mistral") j["sliding_window"] = nullptr;
  return j;
}

std::vector<fs::path> find_shards(const std::vector<std::string>& names) {
  std::vector<fs::path> all;
  for (const std::string& name : names)
    for (fs::path& p : data::resolve_shards(name)) all.push_back(std::move(p));
  return all;
}

fs::path tokenizer_folder(const PretrainOptions& o) {
  if (!o.tokenizer) return {};
  const fs::path p = *o.tokenizer;
  if (!fs::exists(p)) fail(ErrorCode::kNotFound, "--tokenizer {}: no such file or folder", p.string());
  return fs::is_directory(p) ? p : p.has_parent_path() ? p.parent_path() : fs::path(".");
}

std::string run_identity(const JobOptions& options) {
  Json j = to_json(options);
  for (const char* free : {"resume", "log_metrics", "log_every", "keep_checkpoints", "checkpoint_every", "eval_every",
                           "eval_batches", "threads", "output_dir", "config_path"})
    j.erase(free);
  return j.dump();
}

void pretrain(const JobOptions& options, JobContext& job) {
  const PretrainOptions& o = options.as<PretrainOptions>();
  const fs::path output = o.output_dir;
  job.phase("resolving_dataset", o.shards.empty() ? "" : o.shards[0]);
  const std::vector<fs::path> shards = find_shards(o.shards);
  if (shards.empty()) fail(ErrorCode::kNotFound, "--shards: no file matches; write shards with `pmetal tokenize`");
  const std::optional<data::ShardIndex> index = data::read_shard_index(shards[0].parent_path());

  // the shape
  Json config;
  std::string config_name;
  if (o.model_config) {
    config_name = *o.model_config;
    config = formats::read_json(config_name);
    std::string arch = o.arch;
    std::replace(arch.begin(), arch.end(), '-', '_');
    const std::string type = formats::JsonReader(config, config_name).string("model_type");
    if (options.was_asked_for("arch") && arch != type)
      fail(ErrorCode::kUsage, "--arch {} contradicts {}, whose model_type is \"{}\"; leave one of them out", o.arch,
           config_name, type);
  } else {
    int64_t vocabulary = index ? index->vocab_size : 0;
    if (o.tokenizer)
      vocabulary = fs::is_directory(*o.tokenizer) ? text::Tokenizer::from_dir(*o.tokenizer)->vocab_size()
                                                  : text::Tokenizer::from_file(*o.tokenizer)->vocab_size();
    if (vocabulary <= 0)
      fail(ErrorCode::kUsage,
           "the vocabulary's size is not known: give --model-config, --tokenizer, or shards with an index.json");
    config = default_config(o.arch, vocabulary, o.seq_len, o.eos_token_id);
    config_name = "the default shape";
  }
  const fs::path config_file = output / "config.json";
  std::unique_ptr<models::Model> shape = models::build(config, config_name);
  if (o.seq_len > shape->info().max_positions)
    fail(ErrorCode::kUsage, "--seq-len {} is above the model's {} positions (max_position_embeddings of {})", o.seq_len,
         shape->info().max_positions, config_name);
  const models::ParameterCount n = models::count_parameters(*shape);

  data::ShardLoaderOptions shard_options;
  shard_options.loader = {.seed = o.seed, .max_length = o.seq_len, .epochs = 0};
  // an index knows its end token; a given flag overrides it
  if (options.was_given("eos_token_id") || !index || !index->eos_id)
    shard_options.eos_id = static_cast<int32_t>(o.eos_token_id);
  shard_options.vocab_size = shape->info().vocabulary;
  shard_options.attend_across_documents = o.cross_document_attention;
  const auto loader = data::make_shard_loader(shards, shard_options);

  if (job.dry_run) {
    job.data() << fmt::format(
        "model       {} ({:.2f} M parameters)\ndata        {} shards, {} sequences of at most {} tokens an "
        "epoch\nsteps       {} of {} sequences ({:.1f} M tokens)\n"
        "memory      weights, gradients and optimizer {:.2f} GB, activations come on top\noutput      {}\n",
        config_name, static_cast<double>(n.total) / 1e6, shards.size(), loader->sequences_per_epoch().value_or(0),
        o.seq_len, o.steps, o.batch_size * o.gradient_accumulation_steps,
        static_cast<double>(o.steps * o.batch_size * o.gradient_accumulation_steps * o.seq_len) / 1e6,
        static_cast<double>(n.total) * (o.dtype == ComputeDtype::kF32 ? 16 : 18) / 1e9, o.output_dir);
    return;
  }
  write_file_atomic(config_file, formats::dump_json(config) + "\n");
  shape.reset();
  ModelSession s = open_session(job, {.model = "random:" + config_file.string(),
                                      .dtype = o.dtype,
                                      .device = o.device,
                                      .threads = o.threads,
                                      .for_training = true,
                                      .scale_residual = true,
                                      .seed = o.seed});

  train::TrainOptions t;
  t.batch_size = o.batch_size;
  t.accumulation = o.gradient_accumulation_steps;
  t.max_steps = t.total_steps = o.steps;
  t.max_grad_norm = o.max_grad_norm;
  t.adamw = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = o.weight_decay};
  t.schedule.kind = o.lr_schedule == PretrainSchedule::kConstant ? train::ScheduleKind::kConstant
                    : o.lr_schedule == PretrainSchedule::kLinear ? train::ScheduleKind::kLinear
                                                                 : train::ScheduleKind::kCosine;
  t.schedule.base = o.learning_rate;
  t.schedule.total = o.steps;
  t.schedule.warmup = o.warmup_steps;
  t.schedule.min_ratio = o.min_lr / o.learning_rate;
  t.head.z_loss = static_cast<float>(o.z_loss);
  t.seed = o.seed;
  t.save_steps = o.checkpoint_every;
  t.eval_steps = o.eval_every;
  t.keep_checkpoints = static_cast<int>(o.keep_checkpoints);
  t.output = output;
  t.config_text = run_identity(options);

  write_file_atomic(output / "training_args.json", to_json(options).dump(2) + "\n");
  std::unique_ptr<MetricsWriter> metrics;
  if (o.log_metrics) {
    metrics = std::make_unique<MetricsWriter>(*o.log_metrics);
    metrics->train_start(output.filename().string(), to_json(options).dump());
  }
  TrainingObserver observer(job, metrics.get(), 1);
  const auto target = train::make_model_target(*s.model, *s.checkpoint, tokenizer_folder(o), to_dtype(o.dtype),
                                               {o.learning_rate, {}, {}});
  train::Trainer trainer(*s.ctx, *target, *loader, t, observer);
  if (!o.eval_shards.empty()) {
    data::ShardLoaderOptions e = shard_options;
    e.loader.shuffle = false;
    e.loader.epochs = 1;
    const auto eval_loader = data::make_shard_loader(find_shards(o.eval_shards), e);
    std::vector<data::PackedSequence> sequences;
    data::PackedSequence one;
    while (static_cast<int64_t>(sequences.size()) < o.eval_batches * o.batch_size && eval_loader->next(one))
      sequences.push_back(one);
    trainer.set_eval(std::move(sequences));
  }
  // the folder of a run, of its checkpoints, or of one checkpoint
  std::error_code error;
  if (o.resume && trainer.resume(*o.resume)) {
    job.log(LogLevel::kInfo, "resumed at step {}", trainer.steps_done());
  } else if (o.resume && fs::equivalent(*o.resume, output, error)) {
    // killed before its first save
    job.log(LogLevel::kWarn, "{} has no checkpoint yet: the run begins at its first step", *o.resume);
  } else if (o.resume) {
    fail(ErrorCode::kNotFound, "--resume {}: holds no checkpoint; name the folder of a run, or leave --resume out",
         *o.resume);
  }
  if (!o.resume) set_checkpoints_aside(output, job);
  job.log(LogLevel::kInfo, "{:.2f} M parameters from random weights; {} steps", static_cast<double>(n.total) / 1e6,
          o.steps);
  job.phase("training");
  const train::TrainSummary summary = trainer.run();
  if (!summary.stopped) {
    job.phase("saving_weights", (output / "final").string());
    AtomicDirectory final(output / "final");
    target->save(final.temporary(), {});
    final.commit();
    job.artefact((output / "final").string(), "model");
  }
  finish_training(job, metrics.get(), summary, summary.stopped ? o.output_dir : (output / "final").string());
  if (summary.stopped) job.stop_if_cancelled();
}

}  // namespace

void run_pretrain(const JobOptions& options, JobContext& job) {
  const PretrainOptions& o = options.as<PretrainOptions>();
  if (job.dry_run) return pretrain(options, job);
  in_run_folder(o.output_dir, o.log_every, job, [&](JobContext& logged) { pretrain(options, logged); });
}

}  // namespace pmetal::jobs
