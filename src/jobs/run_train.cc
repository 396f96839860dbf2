// pmetal train: supervised fine-tuning of an adapter or of all parameters.
#include <algorithm>
#include <cmath>
#include <ostream>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "data/loader.h"
#include "jobs/dataset_text.h"
#include "jobs/hub_names.h"
#include "jobs/memory_report.h"
#include "jobs/model_session.h"
#include "jobs/run_folder.h"
#include "jobs/spec.h"
#include "jobs/specs/train.h"
#include "jobs/text_session.h"
#include "jobs/training.h"
#include "jobs/training_data.h"

namespace pmetal::jobs {
namespace {

constexpr int64_t kDefaultMaxSeqLen = 8192;

adapters::PeftConfig peft_config(const TrainOptions& o) {
  adapters::PeftConfig c;
  c.r = o.lora_r;
  c.alpha = o.lora_alpha;
  c.dropout = o.lora_dropout;
  c.use_rslora = o.rslora;
  c.use_dora = o.dora;
  c.bias = o.lora_bias == LoraBias::kAll        ? adapters::BiasTraining::kAll
           : o.lora_bias == LoraBias::kLoraOnly ? adapters::BiasTraining::kLoraOnly
                                                : adapters::BiasTraining::kNone;
  c.init = o.init_lora_weights == LoraInit::kGaussian ? adapters::LoraInit::kGaussian : adapters::LoraInit::kKaiming;
  if (o.target_modules == std::vector<std::string>{"all-linear"})
    c.targets.all_linear = true;
  else if (o.target_modules.size() == 1 && o.target_modules[0].find_first_of("*+?()[]{}|\\^$") != std::string::npos)
    c.targets.regex = o.target_modules[0];
  else
    c.targets.names = o.target_modules;
  if (!c.targets.regex.empty() && !o.layers_to_transform.empty())
    fail(ErrorCode::kUsage, "--layers-to-transform goes with a list of --target-modules, not with a pattern of them");
  c.excludes.names = o.exclude_modules;
  c.modules_to_save = o.modules_to_save;
  c.layers_to_transform = o.layers_to_transform;
  c.rank_pattern = o.rank_pattern;
  c.alpha_pattern = o.alpha_pattern;
  c.base_model = o.model;
  return c;
}

train::Schedule schedule(const TrainOptions& o, int64_t total_steps) {
  train::Schedule s;
  s.base = o.learning_rate;
  s.total = total_steps;
  s.warmup = o.warmup_ratio ? static_cast<int64_t>(std::ceil(*o.warmup_ratio * static_cast<double>(total_steps)))
                            : o.warmup_steps;
  s.min_ratio = o.min_lr ? *o.min_lr / o.learning_rate : 0;
  s.stable_ratio = o.wsd_stable_ratio;
  s.power = o.polynomial_power;
  switch (o.lr_schedule) {
    case LrSchedule::kCosine: s.kind = train::ScheduleKind::kCosine; break;
    case LrSchedule::kLinear: s.kind = train::ScheduleKind::kLinear; break;
    case LrSchedule::kConstant: s.kind = train::ScheduleKind::kConstant; break;
    case LrSchedule::kCosineWithRestarts:
      s.kind = train::ScheduleKind::kCosineWithRestarts;
      s.cycles = static_cast<double>(o.cosine_num_restarts);
      break;
    case LrSchedule::kPolynomial: s.kind = train::ScheduleKind::kPolynomial; break;
    case LrSchedule::kWsd: s.kind = train::ScheduleKind::kWsd; break;
  }
  return s;
}

// What decides the numbers of a run: a resume with anything else would not be the same run.
std::string run_identity(const JobOptions& options) {
  Json j = to_json(options);
  for (const char* free :
       {"resume", "log_metrics", "logging_steps", "keep_checkpoints", "save_steps", "eval_steps", "threads",
        "output_dir", "config_path", "recompute", "gradient_checkpointing_layers", "no_gradient_checkpointing"})
    j.erase(free);
  return j.dump();
}

std::vector<data::PackedSequence> one_by_one(std::vector<data::Example> examples) {
  std::vector<data::PackedSequence> all;
  for (const data::Example& e : examples) {
    data::PackedSequence s;
    s.append(e);
    all.push_back(std::move(s));
  }
  return all;
}

// Puts the files of `from` into `to` under their names, the config last: a reader finds the old set or the new one.
void publish(const fs::path& from, const fs::path& to) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& e : fs::directory_iterator(from)) files.push_back(e.path());
  const auto is_manifest = [](const fs::path& p) {
    return p.filename() == "config.json" || p.filename() == "adapter_config.json";
  };
  std::stable_partition(files.begin(), files.end(), [&](const fs::path& p) { return !is_manifest(p); });
  for (const fs::path& p : files) fs::rename(p, to / p.filename());
  sync_directory(to);
}

// How a step is cut so that it fits, by plan; --recompute none and blocks are orders.
train::StepChoice plan_step(const JobOptions& options, const ModelSession& s, const train::LearningRates& rates,
                            int64_t tokens, const JobContext& job) {
  const TrainOptions& o = options.as<TrainOptions>();
  train::PlanRequest request;
  request.device = s.ctx->device();
  request.stream = s.ctx->stream();
  request.threads = s.threads;
  request.load = {.dtype = to_dtype(o.dtype), .for_training = o.full};
  request.tokens = tokens;
  request.sequences = o.batch_size;
  request.loss.embedding_noise = static_cast<float>(o.neftune_alpha);
  request.loss.draws = !o.full && o.lora_dropout > 0;
  request.target = [&](Context& ctx, models::Model& model) -> std::unique_ptr<train::TrainTarget> {
    if (o.full) return train::make_model_target(model, *s.checkpoint, s.checkpoint->folder(), to_dtype(o.dtype), rates);
    const auto adapter = adapters::Adapter::create(ctx, model, peft_config(o), o.seed);
    adapter->attach(model, 0);
    adapters::prepare_training(ctx, model, *adapter, 0);
    return train::make_adapter_target(model, adapter, rates);
  };
  constexpr double kShare = 0.95;  // the rest is for data, code and what others take meanwhile
  const std::optional<int64_t> free = free_memory(s.ctx->device());
  const auto budget =
      static_cast<int64_t>(kShare * static_cast<double>(free.value_or(int64_t{1} << 60) + resident_bytes(*s.model)));
  train::StepChoice choice;
  choice.batch_size = o.batch_size;
  if (o.recompute == Recompute::kAuto && !o.no_gradient_checkpointing) {
    // single blocks take the least memory; who names a group gets that
    const bool named = options.was_asked_for("gradient_checkpointing_layers");
    choice = train::choose_step(*s.checkpoint, request, budget, named ? o.gradient_checkpointing_layers : 1);
  } else {
    request.loss.recompute_group = choice.recompute_group =
        o.recompute == Recompute::kBlocks ? o.gradient_checkpointing_layers : 0;
    choice.plan = train::plan_training(*s.checkpoint, request);
    choice.fits = choice.plan.total <= budget;
  }
  if (!choice.fits)
    job.log(LogLevel::kWarn,
            "a step of {} tokens is planned to take {}; {:.2f} GB are there. Lower --max-seq-len or --batch-size{}",
            tokens * choice.batch_size, describe(choice.plan), static_cast<double>(budget) / 1e9,
            choice.recompute_group > 0 ? "" : ", or take --recompute blocks");
  else if (choice.batch_size != o.batch_size || (choice.recompute_group > 0 && o.recompute == Recompute::kAuto))
    job.log(LogLevel::kInfo, "to fit into {:.2f} GB, {} sequences go in at a time{}", static_cast<double>(budget) / 1e9,
            choice.batch_size, choice.recompute_group > 0 ? " and blocks are computed again in the backward pass" : "");
  return choice;
}

void train_model(const JobOptions& options, JobContext& job) {
  const TrainOptions& o = options.as<TrainOptions>();
  ModelSession s = open_session(job, {.model = o.model,
                                      .dtype = o.dtype,
                                      .device = o.device,
                                      .threads = o.threads,
                                      .for_training = o.full,
                                      .seed = o.seed});
  Context& ctx = *s.ctx;
  const models::ModelInfo& info = s.model->info();

  job.phase("loading_tokenizer", s.checkpoint->folder().string());
  const TextSession text = open_text(s.checkpoint->folder(), info);
  const int64_t max_seq_len = o.max_seq_len > 0 ? o.max_seq_len : std::min(info.max_positions, kDefaultMaxSeqLen);
  if (max_seq_len > info.max_positions)
    fail(ErrorCode::kUsage, "--max-seq-len {} is above the model's {} positions", max_seq_len, info.max_positions);

  job.phase("tokenizing_dataset", o.dataset);
  const auto builder = make_example_builder(text, {.train_on = to_data(o.train_on), .max_length = max_seq_len});
  const TrainingData data = open_training_data(o, job, builder, info.vocabulary, max_seq_len, s.threads.get());
  const int64_t per_step = o.batch_size * o.gradient_accumulation_steps;
  const int64_t an_epoch = data.loader->sequences_per_epoch().value_or(0);
  int64_t total_steps = (an_epoch * o.epochs + per_step - 1) / per_step;
  if (o.max_steps) total_steps = data.is_streamed ? *o.max_steps : std::min(total_steps, *o.max_steps);

  // the thing that trains
  const train::LearningRates rates{o.learning_rate, o.embedding_lr, o.loraplus_lr_ratio};
  std::unique_ptr<train::TrainTarget> target;
  if (o.full) {
    target = train::make_model_target(*s.model, *s.checkpoint, s.checkpoint->folder(), to_dtype(o.dtype), rates);
  } else {
    s.adapter = adapters::Adapter::create(ctx, *s.model, peft_config(o), o.seed);
    s.adapter->attach(*s.model, 0);
    adapters::prepare_training(ctx, *s.model, *s.adapter, 0);
    target = train::make_adapter_target(*s.model, s.adapter, rates);
  }

  const train::StepChoice choice = plan_step(options, s, rates, data.sequence_length, job);
  s.ctx->allocator().set_plan(describe(choice.plan));
  train::TrainOptions t;
  t.batch_size = choice.batch_size;
  t.accumulation = o.gradient_accumulation_steps * (o.batch_size / choice.batch_size);
  t.max_steps = o.max_steps.value_or(0);
  t.total_steps = total_steps;
  t.max_grad_norm = o.max_grad_norm;
  t.adamw.weight_decay = o.weight_decay;
  t.schedule = schedule(o, total_steps);
  if (o.adaptive_lr) {
    t.adaptive_lr.emplace();
    t.adaptive_lr->total_steps = total_steps;
    t.adaptive_lr->warmup_steps = t.schedule.warmup;
    t.adaptive_lr->rollback = !o.full;
  }
  t.seed = o.seed;
  t.recompute_group = choice.recompute_group;
  t.neftune_alpha = o.neftune_alpha;
  t.save_steps = o.save_steps;
  t.eval_steps = o.eval_steps;
  t.keep_checkpoints = static_cast<int>(o.keep_checkpoints);
  t.output = o.output_dir;
  t.config_text = run_identity(options);

  const std::string what_is_read =
      data.is_streamed ? fmt::format("streamed, {} rows at a time, in sequences of at most {} tokens", o.shuffle_buffer,
                                     data.sequence_length)
                       : fmt::format("{} samples, {} tokens, {} sequences of at most {} tokens an epoch",
                                     data.n_examples, data.n_tokens, an_epoch, data.sequence_length);
  if (job.dry_run) {
    const models::ParameterCount n = models::count_parameters(*s.model);
    int64_t trained = 0;
    for (const train::Trainable& p : target->trainables()) trained += p.slot->numel();
    job.data() << fmt::format(
        "model       {} ({:.1f} M parameters, {:.2f} M train)\ndata        {}\n"
        "steps       {} of {} sequences, {} at a time{}\nmemory      {}\noutput      {}\n",
        o.model, static_cast<double>(n.total) / 1e6, static_cast<double>(trained) / 1e6, what_is_read, total_steps,
        per_step, choice.batch_size, choice.recompute_group > 0 ? ", blocks computed again in the backward pass" : "",
        describe(choice.plan), o.output_dir);
    return;
  }

  const fs::path output = o.output_dir;
  write_file_atomic(output / "training_args.json", to_json(options).dump(2) + "\n");
  std::unique_ptr<MetricsWriter> metrics;
  if (o.log_metrics) {
    metrics = std::make_unique<MetricsWriter>(*o.log_metrics);
    metrics->train_start(output.filename().string(), to_json(options).dump());
  }
  TrainingObserver observer(job, metrics.get(), o.epochs);
  train::Trainer trainer(ctx, *target, *data.loader, t, observer);
  if (o.eval_dataset) {
    const auto eval_source = data::open_source(local_dataset(job, *o.eval_dataset), "validation");
    std::vector<data::Example> held_out = data::read_examples(*eval_source, column_flags(o), *builder, s.threads.get());
    check_tokens(held_out, *o.eval_dataset, info.vocabulary);
    trainer.set_eval(one_by_one(std::move(held_out)));
  }
  // a run that was killed before its first save begins again: nothing is lost by it
  if (!o.resume)
    set_checkpoints_aside(output, job);
  else if (trainer.resume())
    job.log(LogLevel::kInfo, "resumed at step {}", trainer.steps_done());
  else
    job.log(LogLevel::kWarn, "{} has no checkpoint yet: the run begins at its first step", o.output_dir);
  job.log(LogLevel::kInfo, "{}; {} optimizer steps; {:.2f} M parameters train", what_is_read, total_steps,
          static_cast<double>(trainer.parameters().count()) / 1e6);
  job.log(LogLevel::kInfo, "memory planned: {}", describe(choice.plan));
  job.phase("training");
  const train::TrainSummary summary = trainer.run();

  if (!summary.stopped) {
    job.phase("saving_weights", o.output_dir);
    const fs::path staging = output / ".final";
    fs::remove_all(staging);
    fs::create_directories(staging);
    target->save(staging, [&](const std::string& key) -> Tensor {
      for (const auto& item : trainer.parameters().items())
        if (item.key == key) return ops::to_host(ctx, trainer.parameters().master(item));
      return {};
    });
    if (!o.full) models::copy_sidecars(s.checkpoint->folder(), staging);
    publish(staging, output);
    fs::remove_all(staging);
    job.artefact(o.output_dir, o.full ? "model" : "adapter");
  }
  finish_training(job, metrics.get(), summary, o.output_dir);
  job.summary.extra.emplace_back("skipped_steps", static_cast<double>(summary.skipped));
  if (summary.stopped) job.stop_if_cancelled();
}

}  // namespace

void run_train(const JobOptions& options, JobContext& job) {
  const TrainOptions& o = options.as<TrainOptions>();
  if (job.dry_run) return train_model(options, job);
  in_run_folder(o.output_dir, o.logging_steps, job, [&](JobContext& logged) { train_model(options, logged); });
}

}  // namespace pmetal::jobs
