#include "jobs/specs/pretrain.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = PretrainOptions;
using enum FieldKind;

constexpr EnumName kSchedules[] = {{"constant", static_cast<int>(PretrainSchedule::kConstant)},
                                   {"linear", static_cast<int>(PretrainSchedule::kLinear)},
                                   {"cosine", static_cast<int>(PretrainSchedule::kCosine)}};

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(arch), .kind = kText, .short_flag = 'a', .group = "Model",
     .help = "architecture, a model type of `pmetal list models`", .value_name = "NAME"},
    {PMETAL_FIELD(model_config), .kind = kPath, .group = "Model",
     .help = "config.json with the shape; without it a small shape of the architecture", .value_name = "FILE"},
    {PMETAL_FIELD(tokenizer), .kind = kPath, .group = "Model",
     .help = "tokenizer.json, or a folder with one, copied into the saved model", .value_name = "PATH"},
    {PMETAL_FIELD(dtype), .kind = kEnum, .group = "Model", .help = kDtypeHelp, .options = kComputeDtypes},

    {PMETAL_FIELD(shards), .kind = kList, .short_flag = 's', .group = "Data",
     .help = "token shards or patterns such as data/shard_*.bin", .value_name = "A,B", .required = true},
    {PMETAL_FIELD(eval_shards), .kind = kList, .group = "Data", .help = "token shards for evaluation",
     .value_name = "A,B"},
    {PMETAL_FIELD(seq_len), .kind = kInteger, .group = "Data", .help = "tokens per sequence", .min = 2, .max = 1 << 20},
    {PMETAL_FIELD(eos_token_id), .kind = kInteger, .group = "Data", .help = "token that ends a document", .min = 0,
     .max = 1 << 30},
    {PMETAL_FIELD(cross_document_attention), .kind = kToggle, .group = "Data",
     .help = "let a document see those before it in the same sequence"},

    {PMETAL_FIELD(batch_size), .kind = kInteger, .group = "Training", .help = "sequences per forward pass", .min = 1,
     .max = 65536},
    {PMETAL_FIELD(gradient_accumulation_steps), .kind = kInteger, .group = "Training",
     .help = "forward passes per optimizer step", .min = 1, .max = 65536},
    {PMETAL_FIELD(steps), .kind = kInteger, .group = "Training", .help = "optimizer steps", .min = 1},
    {PMETAL_FIELD(seed), .kind = kInteger, .group = "Training", .help = kSeedHelp},
    {PMETAL_FIELD(resume), .kind = kPath, .group = "Training", .help = "checkpoint folder to go on from",
     .value_name = "DIR"},

    {PMETAL_FIELD(learning_rate), .kind = kNumber, .group = "Optimization", .help = "peak learning rate", .min = 1e-8,
     .max = 1},
    {PMETAL_FIELD(min_lr), .kind = kNumber, .group = "Optimization", .help = "learning rate at the end", .min = 0,
     .max = 1},
    {PMETAL_FIELD(warmup_steps), .kind = kInteger, .group = "Optimization",
     .help = "steps during which the learning rate rises", .min = 0},
    {PMETAL_FIELD(lr_schedule), .kind = kEnum, .group = "Optimization", .help = "how the learning rate falls",
     .options = kSchedules},
    {PMETAL_FIELD(weight_decay), .kind = kNumber, .group = "Optimization", .help = "decoupled weight decay", .min = 0,
     .max = 1},
    {PMETAL_FIELD(max_grad_norm), .kind = kNumber, .group = "Optimization",
     .help = "clip the gradient to this norm; 0 = off", .min = 0, .max = 1000},
    {PMETAL_FIELD(z_loss), .kind = kNumber, .group = "Optimization",
     .help = "adds this times the mean of squared log-normalizers", .min = 0, .max = 1},

    {PMETAL_FIELD(device), .kind = kEnum, .group = "Compute", .help = kDeviceHelp, .options = kDeviceChoices},
    {PMETAL_FIELD(threads), .kind = kInteger, .group = "Compute", .help = kThreadsHelp, .min = 0, .max = 4096},

    {PMETAL_FIELD(output_dir), .kind = kPath, .flag = "--output", .short_flag = 'o', .aliases = "--output-dir",
     .group = "Output", .help = "folder for checkpoints and the final model", .value_name = "DIR", .is_output = true},
    {PMETAL_FIELD(checkpoint_every), .kind = kInteger, .group = "Output", .help = "steps between checkpoints",
     .min = 1},
    {PMETAL_FIELD(keep_checkpoints), .kind = kInteger, .group = "Output",
     .help = "how many of the newest checkpoints stay", .min = 1, .max = 100000},
    {PMETAL_FIELD(log_every), .kind = kInteger, .group = "Output", .help = "steps between log lines", .min = 1},
    {PMETAL_FIELD(eval_every), .kind = kInteger, .group = "Output", .help = "steps between evaluations; 0 = never",
     .min = 0},
    {PMETAL_FIELD(eval_batches), .kind = kInteger, .group = "Output", .help = "batches per evaluation", .min = 1},
    {PMETAL_FIELD(log_metrics), .kind = kPath, .group = "Output", .help = "write metrics as JSON lines",
     .value_name = "FILE", .is_output = true},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  const auto& o = job.as<PretrainOptions>();
  if (o.min_lr > o.learning_rate) issues.push_back({"min_lr", "is above --learning-rate"});
  if (o.eval_every > 0 && o.eval_shards.empty()) issues.push_back({"eval_every", "needs --eval-shards"});
}

}  // namespace

extern const JobSpec spec_pretrain = {
    .name = "pretrain",
    .summary = "train a model from random weights on token shards",
    .examples = "pretrain --arch qwen3 --shards 'shards/shard_*.bin' --tokenizer tokenizer.json --steps 2000",
    .fields = kFields,
    .options = options_type<PretrainOptions>(),
    .has_dry_run = true,
    .check = check,
};

}  // namespace pmetal::jobs
