#include "jobs/specs/train.h"

#include <algorithm>

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = TrainOptions;
using enum FieldKind;

constexpr EnumName kSchedules[] = {
    {"cosine", static_cast<int>(LrSchedule::kCosine)},
    {"linear", static_cast<int>(LrSchedule::kLinear)},
    {"constant", static_cast<int>(LrSchedule::kConstant)},
    {"cosine_with_restarts", static_cast<int>(LrSchedule::kCosineWithRestarts)},
    {"polynomial", static_cast<int>(LrSchedule::kPolynomial)},
    {"wsd", static_cast<int>(LrSchedule::kWsd)},
};
constexpr EnumName kOptimizers[] = {{"adamw", static_cast<int>(Optimizer::kAdamW)},
                                    {"adam_w", static_cast<int>(Optimizer::kAdamW)}};
constexpr EnumName kBias[] = {{"none", static_cast<int>(LoraBias::kNone)},
                              {"all", static_cast<int>(LoraBias::kAll)},
                              {"lora_only", static_cast<int>(LoraBias::kLoraOnly)}};
constexpr EnumName kInit[] = {{"default", static_cast<int>(LoraInit::kDefault)},
                              {"gaussian", static_cast<int>(LoraInit::kGaussian)},
                              {"true", static_cast<int>(LoraInit::kDefault)}};
constexpr EnumName kRecompute[] = {{"auto", static_cast<int>(Recompute::kAuto)},
                                   {"none", static_cast<int>(Recompute::kNone)},
                                   {"blocks", static_cast<int>(Recompute::kBlocks)}};

constexpr EnumName kStreamings[] = {{"auto", static_cast<int>(Streaming::kAuto)},
                                    {"on", static_cast<int>(Streaming::kOn)},
                                    {"off", static_cast<int>(Streaming::kOff)}};

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .places = "model.model_id", .group = "Model",
     .help = kModelHelp, .value_name = "MODEL", .required = true},
    {PMETAL_FIELD(dtype), .kind = kEnum, .places = "model.dtype", .group = "Model", .help = kDtypeHelp,
     .options = kComputeDtypes},

    {PMETAL_FIELD(dataset), .kind = kDataset, .short_flag = 'd', .places = "dataset.dataset_id", .group = "Data",
     .help = kDatasetHelp, .value_name = "DATA", .required = true},
    {PMETAL_FIELD(split), .kind = kText, .places = "dataset.split", .group = "Data",
     .help = "which split of a folder or of a dataset of the hub is read"},
    {PMETAL_FIELD(eval_dataset), .kind = kDataset, .group = "Data", .help = "data for evaluation during training",
     .value_name = "DATA"},
    {PMETAL_FIELD(max_seq_len), .kind = kInteger, .places = "model.max_seq_len,training.max_seq_len", .group = "Data",
     .help = "longest sequence in tokens; 0 = the model's limit, at most 8192", .min = 0, .max = 1 << 20},
    {PMETAL_FIELD(no_sequence_packing), .kind = kToggle, .places = "!training.use_packing", .group = "Data",
     .help = "one document per sequence instead of packing several"},
    {PMETAL_FIELD(pack_max_seq_len), .kind = kInteger, .group = "Data",
     .help = "length of a packed sequence; without it the 99th percentile of the lengths", .min = 16, .max = 1 << 20},
    {PMETAL_FIELD(train_on), .kind = kEnum, .group = "Data", .help = kTrainOnHelp, .options = kTrainOnNames},
    {PMETAL_FIELD(text_column), .kind = kText, .places = "dataset.text_column", .group = "Data",
     .help = kTextColumnHelp, .value_name = "NAME"},
    {PMETAL_FIELD(text_columns), .kind = kList, .group = "Data", .help = kTextColumnsHelp, .value_name = "A,B"},
    {PMETAL_FIELD(column_separator), .kind = kText, .group = "Data", .help = kColumnSeparatorHelp,
     .value_name = "TEXT"},
    {PMETAL_FIELD(prompt_column), .kind = kText, .group = "Data", .help = kPromptColumnHelp, .value_name = "NAME"},
    {PMETAL_FIELD(response_column), .kind = kText, .group = "Data", .help = kResponseColumnHelp, .value_name = "NAME"},
    {PMETAL_FIELD(max_samples), .kind = kInteger, .places = "dataset.max_samples", .group = "Data",
     .help = "use only the first N rows", .min = 1},
    {PMETAL_FIELD(no_shuffle), .kind = kToggle, .places = "!dataset.shuffle", .group = "Data",
     .help = "keep the order of the data"},
    {PMETAL_FIELD(mix), .kind = kMap, .group = "Data",
     .help = "further datasets, each with its share beside that of --dataset", .value_name = "DATA=W,...", .min = 1e-9,
     .max = 1e9},
    {PMETAL_FIELD(dataset_weight), .kind = kNumber, .group = "Data", .help = "share of --dataset in a mix", .min = 1e-9,
     .max = 1e9},
    {PMETAL_FIELD(streaming), .kind = kEnum, .group = "Data",
     .help = "read rows as they are needed, in constant memory; auto: above 1 GiB where --max-steps says how long",
     .options = kStreamings},
    {PMETAL_FIELD(shuffle_buffer), .kind = kInteger, .group = "Data",
     .help = "rows that are shuffled and packed together while streaming", .min = 1, .max = 1 << 24},

    {PMETAL_FIELD(full), .kind = kToggle, .group = "Training", .help = "train all parameters instead of an adapter"},
    {PMETAL_FIELD(epochs), .kind = kInteger, .places = "training.num_epochs", .group = "Training",
     .help = "passes over the data", .min = 1, .max = 1000},
    {PMETAL_FIELD(max_steps), .kind = kInteger, .places = "training.max_steps", .group = "Training",
     .help = "stop after this many optimizer steps", .min = 1},
    {PMETAL_FIELD(batch_size), .kind = kInteger, .places = "training.batch_size", .group = "Training",
     .help = "sequences per forward pass", .min = 1, .max = 1024},
    {PMETAL_FIELD(gradient_accumulation_steps), .kind = kInteger, .places = "training.gradient_accumulation_steps",
     .group = "Training", .help = "forward passes per optimizer step", .min = 1, .max = 1024},
    {PMETAL_FIELD(seed), .kind = kInteger, .places = "training.seed,dataset.seed", .group = "Training",
     .help = kSeedHelp},
    {PMETAL_FIELD(resume), .kind = kToggle, .group = "Training",
     .help = "go on from the newest checkpoint in the output folder"},
    {PMETAL_FIELD(logging_steps), .kind = kInteger, .places = "training.logging_steps", .group = "Training",
     .help = "steps between log lines", .min = 1},
    {PMETAL_FIELD(eval_steps), .kind = kInteger, .places = "training.eval_steps", .group = "Training",
     .help = "steps between evaluations when there is evaluation data", .min = 1},

    {PMETAL_FIELD(optimizer), .kind = kEnum, .places = "training.optimizer", .group = "Optimization",
     .help = "update rule", .options = kOptimizers},
    {PMETAL_FIELD(learning_rate), .kind = kNumber, .places = "training.learning_rate", .group = "Optimization",
     .help = "peak learning rate", .min = 1e-8, .max = 1},
    {PMETAL_FIELD(embedding_lr), .kind = kNumber, .places = "training.embedding_learning_rate", .group = "Optimization",
     .help = "learning rate of trained embeddings", .min = 1e-8, .max = 1},
    {PMETAL_FIELD(lr_schedule), .kind = kEnum, .places = "training.lr_scheduler", .group = "Optimization",
     .help = "how the learning rate falls", .options = kSchedules},
    {PMETAL_FIELD(min_lr), .kind = kNumber, .places = "training.min_lr", .group = "Optimization",
     .help = "learning rate at the end of the schedule", .min = 0, .max = 1},
    {PMETAL_FIELD(warmup_steps), .kind = kInteger, .places = "training.warmup_steps", .group = "Optimization",
     .help = "steps during which the learning rate rises", .min = 0},
    {PMETAL_FIELD(warmup_ratio), .kind = kNumber, .places = "training.warmup_ratio", .group = "Optimization",
     .help = "the same as a part of all steps", .min = 0, .max = 1},
    {PMETAL_FIELD(wsd_stable_ratio), .kind = kNumber, .places = "training.wsd_stable_ratio", .group = "Optimization",
     .help = "wsd: part of the steps after warm-up at the full rate", .min = 0, .max = 1},
    {PMETAL_FIELD(cosine_num_restarts), .kind = kInteger, .places = "training.cosine_num_restarts",
     .group = "Optimization", .help = "cosine_with_restarts: number of cycles", .min = 1, .max = 10000},
    {PMETAL_FIELD(polynomial_power), .kind = kNumber, .places = "training.polynomial_power", .group = "Optimization",
     .help = "polynomial: the power", .min = 0, .max = 100},
    {PMETAL_FIELD(weight_decay), .kind = kNumber, .places = "training.weight_decay", .group = "Optimization",
     .help = "decoupled weight decay", .min = 0, .max = 1},
    {PMETAL_FIELD(max_grad_norm), .kind = kNumber, .places = "training.max_grad_norm", .group = "Optimization",
     .help = "clip the gradient to this norm; 0 = off", .min = 0, .max = 1000},
    {PMETAL_FIELD(neftune_alpha), .kind = kNumber, .places = "training.neftune_alpha", .group = "Optimization",
     .help = "NEFTune noise on the embeddings; 0 = off", .min = 0, .max = 1000},
    {PMETAL_FIELD(adaptive_lr), .kind = kToggle, .places = "training.adaptive_lr", .group = "Optimization",
     .help = "lower the learning rate on spikes, divergence and plateaus of the loss; adapters go back to their best "
             "weights when the loss diverges"},

    {PMETAL_FIELD(lora_r), .kind = kInteger, .places = "lora.r", .group = "LoRA", .help = "rank of the adapter",
     .min = 1, .max = 1024},
    {PMETAL_FIELD(lora_alpha), .kind = kNumber, .places = "lora.alpha", .group = "LoRA",
     .help = "the update is scaled by alpha / r", .min = 1, .max = 1024},
    {PMETAL_FIELD(lora_dropout), .kind = kNumber, .places = "lora.dropout", .group = "LoRA",
     .help = "dropout on the adapter's input", .min = 0, .max = 0.99},
    {PMETAL_FIELD(target_modules), .kind = kList, .places = "lora.target_modules", .group = "LoRA",
     .help =
         "layers that get an adapter, by the end of their name, or one pattern (a regular expression of whole names); "
         "all-linear = every linear layer but the head; embed_tokens and lm_head can be named too",
     .value_name = "A,B"},
    {PMETAL_FIELD(exclude_modules), .kind = kList, .places = "lora.exclude_modules", .group = "LoRA",
     .help = "layers left out of those", .value_name = "A,B"},
    {PMETAL_FIELD(rslora), .kind = kToggle, .aliases = "--use-rslora", .places = "lora.use_rslora", .group = "LoRA",
     .help = "scale by alpha / sqrt(r)"},
    {PMETAL_FIELD(dora), .kind = kToggle, .aliases = "--use-dora", .places = "lora.use_dora", .group = "LoRA",
     .help = "train magnitude and direction apart (DoRA)"},
    {PMETAL_FIELD(loraplus_lr_ratio), .kind = kNumber, .places = "lora.loraplus_lr_ratio", .group = "LoRA",
     .help = "LoRA+: learning rate of B as a multiple of A's (16 is usual)", .min = 1, .max = 1000},
    {PMETAL_FIELD(lora_bias), .kind = kEnum, .places = "lora.bias", .group = "LoRA",
     .help = "biases to train: none, all of the model's, or those of adapted layers", .options = kBias},
    {PMETAL_FIELD(init_lora_weights), .kind = kEnum, .places = "lora.init_lora_weights", .group = "LoRA",
     .help = "how A begins", .options = kInit},
    {PMETAL_FIELD(modules_to_save), .kind = kList, .places = "lora.modules_to_save", .group = "LoRA",
     .help = "modules trained and saved whole beside the adapter, such as embed_tokens,lm_head", .value_name = "A,B"},
    {PMETAL_FIELD(layers_to_transform), .kind = kList, .places = "lora.layers_to_transform", .group = "LoRA",
     .help = "numbers of the blocks that get adapters; all when empty", .value_name = "0,1", .min = 0},
    {PMETAL_FIELD(rank_pattern), .kind = kMap, .places = "lora.rank_pattern", .group = "LoRA",
     .help = "ranks of single layers", .value_name = "NAME=R,...", .min = 1, .max = 1024},
    {PMETAL_FIELD(alpha_pattern), .kind = kMap, .places = "lora.alpha_pattern", .group = "LoRA",
     .help = "alphas of single layers", .value_name = "NAME=ALPHA,...", .min = 1, .max = 1024},

    {PMETAL_FIELD(device), .kind = kEnum, .places = "model.device", .group = "Compute", .help = kDeviceHelp,
     .options = kDeviceChoices},
    {PMETAL_FIELD(threads), .kind = kInteger, .group = "Compute", .help = kThreadsHelp, .min = 0, .max = 4096},
    {PMETAL_FIELD(recompute), .kind = kEnum, .places = "training.recompute", .group = "Compute",
     .help = "compute blocks again in the backward pass to save memory; auto = when it would not fit",
     .options = kRecompute},
    {PMETAL_FIELD(gradient_checkpointing_layers), .kind = kInteger, .group = "Compute",
     .help = "blocks computed again as one group; --recompute auto takes 1 unless this is given", .min = 1,
     .max = 1024},
    {PMETAL_FIELD(no_gradient_checkpointing), .kind = kToggle, .places = "!training.gradient_checkpointing",
     .group = "Compute", .help = "the same as --recompute none"},

    {PMETAL_FIELD(output_dir), .kind = kPath, .flag = "--output", .short_flag = 'o', .aliases = "--output-dir",
     .places = "training.output_dir", .group = "Output", .help = "folder for adapter or model, checkpoints and logs",
     .value_name = "DIR", .is_output = true},
    {PMETAL_FIELD(save_steps), .kind = kInteger, .places = "training.save_steps", .group = "Output",
     .help = "steps between checkpoints", .min = 1},
    {PMETAL_FIELD(keep_checkpoints), .kind = kInteger, .places = "training.keep_checkpoints", .group = "Output",
     .help = "how many of the newest checkpoints stay", .min = 1, .max = 100000},
    {PMETAL_FIELD(log_metrics), .kind = kPath, .group = "Output", .help = "write metrics as JSON lines",
     .value_name = "FILE", .is_output = true},
};

constexpr RefusedFlag kRefused[] = {
    {"--no-adaptive-lr", "the learning rate follows --lr-schedule alone unless --adaptive-lr is given: leave it out"},
    {"--no-flash-attention", "attention has one implementation here, without a score matrix: leave it out"},
    {"--no-fused", "kernels are chosen by the hardware; PMETAL_VERBOSE=dispatch shows which"},
    {"--no-fused-optimizer", "the optimizer step is one pass over all parameters: leave it out"},
    {"--no-metal-fused-optimizer", "the optimizer step is one pass over all parameters: leave it out"},
    {"--cut-cross-entropy", "the loss is always computed in chunks: leave it out"},
    {"--use-flash-attention", "attention has one implementation here, without a score matrix: leave it out"},
    {"--trust-remote-code", "code that comes with a model is never run: leave it out"},
    {"--hf-token", "the token of the hub comes from HF_TOKEN or from the file that `hf auth login` writes"},
    {"--revision", "`pmetal download NAME --revision REV` prints a folder: name that with --model"},
    {"--ane", "there is no Neural Engine here: use `--device cpu`"},
    {"--loss-scale", "training runs in bf16 or f32 (`--dtype`), which need no loss scale"},
    {"--no-jit-compilation", "nothing is compiled while training: leave it out"},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  const auto& o = job.as<TrainOptions>();
  const auto refuse = [&](std::string field, std::string message) { issues.push_back({field, message}); };
  if (o.full)
    for (const std::string_view name : {"lora_r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules",
                                        "rslora", "dora", "loraplus_lr_ratio", "lora_bias", "init_lora_weights",
                                        "modules_to_save", "layers_to_transform", "rank_pattern", "alpha_pattern"})
      if (job.was_asked_for(name)) refuse(std::string(name), "has no effect together with --full: drop one of them");
  const auto trains_embedding = [&](const std::vector<std::string>& modules) {
    return std::any_of(modules.begin(), modules.end(), [](const std::string& name) {
      return name.find("embed") != name.npos || name.find("head") != name.npos || name.find('*') != name.npos;
    });
  };
  if (o.embedding_lr && !o.full && !trains_embedding(o.target_modules) && !trains_embedding(o.modules_to_save))
    refuse("embedding_lr", "has no effect: no embedding trains. Name it in --modules-to-save or --target-modules");
  if (o.recompute == Recompute::kNone && job.was_asked_for("gradient_checkpointing_layers"))
    refuse("gradient_checkpointing_layers", "has no effect with --recompute none");
  if (!o.full && o.target_modules.empty())
    refuse("target_modules", "is empty: name at least one module, or all-linear");
  if (o.warmup_ratio && o.warmup_steps > 0) refuse("warmup_ratio", "contradicts --warmup-steps: give one of them");
  if (o.min_lr && *o.min_lr > o.learning_rate) refuse("min_lr", "is above --learning-rate");
  if (o.no_gradient_checkpointing && o.recompute == Recompute::kBlocks)
    refuse("no_gradient_checkpointing", "contradicts --recompute blocks");
  if (o.streaming == Streaming::kOn && !o.max_steps)
    refuse("max_steps", "is needed with --streaming on: how long the data are is known only at their end");
  if (o.streaming == Streaming::kOn && o.max_samples) refuse("max_samples", "has no effect with --streaming on");
  if (job.was_asked_for("dataset_weight") && o.mix.empty()) refuse("dataset_weight", "has no effect without --mix");
  if (o.no_sequence_packing && o.pack_max_seq_len)
    refuse("pack_max_seq_len", "has no effect with --no-sequence-packing");
  if (o.text_column && !o.text_columns.empty()) refuse("text_columns", "contradicts --text-column");
  if (o.prompt_column.has_value() != o.response_column.has_value())
    refuse(o.prompt_column ? "response_column" : "prompt_column", "is needed: prompt and response go together");
}

}  // namespace

extern const JobSpec spec_train = {
    .name = "train",
    .summary = "fine-tune a model on your data (LoRA, rsLoRA, DoRA, or all parameters)",
    .examples =
        "train --model ./Qwen3-0.6B --dataset data.jsonl --output ./output\n"
        "train --config train.yaml --epochs 3 --target-modules all-linear",
    .fields = kFields,
    .options = options_type<TrainOptions>(),
    .refused = kRefused,
    .has_dry_run = true,
    .check = check,
};

}  // namespace pmetal::jobs
