#include "jobs/specs/memory.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = MemoryOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Plan",
     .help = "plan generation and training of this model: a folder, a name of the hub, or random:CONFIG.json",
     .value_name = "MODEL"},
    {PMETAL_FIELD(dtype), .kind = kEnum, .group = "Plan", .help = kDtypeHelp, .options = kComputeDtypes},
    {PMETAL_FIELD(context_length), .kind = kInteger, .aliases = "--max-seq-len", .group = "Plan",
     .help = "tokens of a sequence, at most the model's positions", .min = 1, .max = 1 << 24},
    {PMETAL_FIELD(batch_size), .kind = kInteger, .group = "Plan", .help = "sequences at a time", .min = 1, .max = 4096},
    {PMETAL_FIELD(lora_r), .kind = kInteger, .group = "Plan", .help = "rank of the adapter", .min = 1, .max = 1024},
    {PMETAL_FIELD(device), .kind = kEnum, .group = "Compute", .help = kDeviceHelp, .options = kDeviceChoices},
    {PMETAL_FIELD(threads), .kind = kInteger, .group = "Compute", .help = kThreadsHelp, .min = 0, .max = 4096},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  if (job.as<MemoryOptions>().model) return;
  for (const std::string_view name : {"dtype", "context_length", "batch_size", "lora_r", "device", "threads"})
    if (job.was_asked_for(name)) issues.push_back({std::string(name), "has no effect without --model"});
}

}  // namespace

extern const JobSpec spec_memory = {
    .name = "memory",
    .summary = "show memory in use, and what a model would take",
    .examples = "memory\nmemory --model ./Qwen3-0.6B --context-length 8192",
    .fields = kFields,
    .options = options_type<MemoryOptions>(),
    .has_json = true,
    .check = check,
};

}  // namespace pmetal::jobs
