#include "jobs/specs/infer.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = InferOptions;
using enum FieldKind;

constexpr EnumName kModes[] = {
    {"auto", static_cast<int>(SamplingMode::kAuto)},
    {"thinking-general", static_cast<int>(SamplingMode::kThinkingGeneral)},
    {"thinking-coding", static_cast<int>(SamplingMode::kThinkingCoding)},
    {"instruct-general", static_cast<int>(SamplingMode::kInstructGeneral)},
    {"instruct-reasoning", static_cast<int>(SamplingMode::kInstructReasoning)},
};

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Model", .help = kModelHelp,
     .value_name = "MODEL", .required = true},
    {PMETAL_FIELD(lora), .kind = kPath, .aliases = "--adapter", .group = "Model", .help = kAdapterHelp,
     .value_name = "DIR"},
    {PMETAL_FIELD(dtype), .kind = kEnum, .group = "Model", .help = kDtypeHelp, .options = kComputeDtypes},

    {PMETAL_FIELD(prompt), .kind = kText, .short_flag = 'p', .group = "Prompt", .help = "text to continue or answer",
     .value_name = "TEXT"},
    {PMETAL_FIELD(prompt_file), .kind = kPath, .group = "Prompt", .help = "file that holds the prompt; - = stdin",
     .value_name = "FILE"},
    {PMETAL_FIELD(interactive), .kind = kToggle, .short_flag = 'i', .group = "Prompt",
     .help = "chat: read one message per line, keep the conversation"},
    {PMETAL_FIELD(chat), .kind = kToggle, .group = "Prompt", .help = "apply the model's chat template"},
    {PMETAL_FIELD(system), .kind = kText, .group = "Prompt", .help = "system message of the chat",
     .value_name = "TEXT"},
    {PMETAL_FIELD(tools), .kind = kPath, .group = "Prompt", .help = "JSON file with tools in OpenAI form",
     .value_name = "FILE"},
    {PMETAL_FIELD(no_thinking), .kind = kToggle, .group = "Prompt", .help = "ask the template for no reasoning"},
    {PMETAL_FIELD(hide_thinking), .kind = kToggle, .group = "Prompt", .help = "generate the reasoning, do not show it"},

    {PMETAL_FIELD(mode), .kind = kEnum, .group = "Sampling", .help = "preset of sampling values", .options = kModes},
    {PMETAL_FIELD(max_tokens), .kind = kInteger, .group = "Sampling", .help = "stop after this many new tokens",
     .min = 1, .max = 1048576},
    {PMETAL_FIELD(temperature), .kind = kNumber, .group = "Sampling", .help = "0 = always the likeliest token",
     .min = 0, .max = 5},
    {PMETAL_FIELD(top_k), .kind = kInteger, .group = "Sampling", .help = "keep the k likeliest; 0 = all", .min = 0,
     .max = 1 << 30},
    {PMETAL_FIELD(top_p), .kind = kNumber, .group = "Sampling", .help = "keep the likeliest that sum to this", .min = 0,
     .max = 1},
    {PMETAL_FIELD(min_p), .kind = kNumber, .group = "Sampling", .help = "drop tokens below this part of the likeliest",
     .min = 0, .max = 1},
    {PMETAL_FIELD(repetition_penalty), .kind = kNumber, .group = "Sampling", .help = "1 = off", .min = 0, .max = 10},
    {PMETAL_FIELD(frequency_penalty), .kind = kNumber, .group = "Sampling", .help = "0 = off", .min = -10, .max = 10},
    {PMETAL_FIELD(presence_penalty), .kind = kNumber, .group = "Sampling", .help = "0 = off", .min = -10, .max = 10},
    {PMETAL_FIELD(seed), .kind = kInteger, .group = "Sampling", .help = "seed of the draws; random without it"},
    {PMETAL_FIELD(stop), .kind = kList, .group = "Sampling", .help = "texts that end the answer", .value_name = "A,B"},
    {PMETAL_FIELD(detect_repetition), .kind = kToggle, .group = "Sampling",
     .help = "stop a text that goes round in circles"},

    {PMETAL_FIELD(device), .kind = kEnum, .group = "Compute", .help = kDeviceHelp, .options = kDeviceChoices},
    {PMETAL_FIELD(threads), .kind = kInteger, .group = "Compute", .help = kThreadsHelp, .min = 0, .max = 4096},
    {PMETAL_FIELD(batch_invariant), .kind = kToggle, .group = "Compute",
     .help = "answers do not depend on what runs beside them, bit by bit; slower on a GPU, always so on a CPU"},

    {PMETAL_FIELD(benchmark), .kind = kToggle, .group = "Benchmark", .help = "measure instead of answering"},
    {PMETAL_FIELD(benchmark_iters), .kind = kInteger, .group = "Benchmark", .help = "timed runs", .min = 1,
     .max = 100000},
    {PMETAL_FIELD(benchmark_prompt_tokens), .kind = kInteger, .group = "Benchmark",
     .help = "prompt length of the timed runs", .min = 1, .max = 1 << 20},
    {PMETAL_FIELD(profile_layers), .kind = kToggle, .group = "Benchmark", .help = "table of time per layer"},
    {PMETAL_FIELD(profile_output), .kind = kPath, .group = "Benchmark", .help = "write that table as JSON",
     .value_name = "FILE", .is_output = true},
};

constexpr RefusedFlag kRefused[] = {
    {"--ane", "there is no Neural Engine here: use `--device cpu`"},
    {"--ane-max-seq-len", "there is no Neural Engine here: use `--device cpu`"},
    {"--ane-real-time", "there is no Neural Engine here: use `--device cpu`"},
    {"--metal-sampler", "there is no Metal here: leave it out, or use `--device cpu`"},
    {"--minimal", "there is one forward pass: leave it out, or use `--device cpu`"},
    {"--compiled", "there is one forward pass: leave it out"},
    {"--stream", "text is always shown as it comes: leave it out"},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  const auto& o = job.as<InferOptions>();
  const int n_prompts = int{!o.prompt.empty()} + int{o.prompt_file.has_value()};
  if (n_prompts == 0 && !o.interactive && !o.benchmark)
    issues.push_back({"prompt", "is required (or --prompt-file, or --interactive)"});
  if (n_prompts == 2) issues.push_back({"prompt_file", "contradicts --prompt: give one of them"});
  if (o.benchmark && !o.benchmark_prompt_tokens)
    issues.push_back({"benchmark_prompt_tokens", "is required with --benchmark"});
  if (!o.benchmark && (job.was_asked_for("benchmark_iters") || o.benchmark_prompt_tokens))
    issues.push_back({"benchmark", "is missing: --benchmark-iters and --benchmark-prompt-tokens belong to it"});
  if (o.benchmark && o.interactive) issues.push_back({"benchmark", "contradicts --interactive"});
  if (!o.chat && !o.interactive)
    for (const std::string_view name : {"system", "tools", "no_thinking", "hide_thinking"})
      if (job.was_asked_for(name)) issues.push_back({std::string(name), "needs --chat or --interactive"});
  if (o.benchmark)
    for (const std::string_view name : {"prompt", "prompt_file", "chat", "stop", "detect_repetition"})
      if (job.was_asked_for(name)) issues.push_back({std::string(name), "contradicts --benchmark"});
  if (o.interactive)
    for (const std::string_view name : {"prompt_file", "profile_layers"})
      if (job.was_asked_for(name)) issues.push_back({std::string(name), "contradicts --interactive"});
  if (o.profile_output && !o.profile_layers) issues.push_back({"profile_output", "needs --profile-layers"});
  for (const std::string& stop : o.stop)
    if (stop.empty()) issues.push_back({"stop", "holds an empty text"});
}

}  // namespace

extern const JobSpec spec_infer = {
    .name = "infer",
    .summary = "answer a prompt, or chat",
    .examples =
        "infer --model ./Qwen3-0.6B --chat --prompt 'Why is the sky blue?'\n"
        "infer --model ./Qwen3-0.6B --lora ./output --interactive",
    .fields = kFields,
    .options = options_type<InferOptions>(),
    .refused = kRefused,
    .has_json = true,
    .check = check,
};

}  // namespace pmetal::jobs
