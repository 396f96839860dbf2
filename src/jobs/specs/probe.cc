#include "jobs/specs/probe.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = ProbeOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Model", .help = kModelHelp,
     .value_name = "MODEL", .required = true},
    {PMETAL_FIELD(adapter), .kind = kPath, .aliases = "--lora", .group = "Model", .help = kAdapterHelp,
     .value_name = "DIR"},
    {PMETAL_FIELD(dtype), .kind = kEnum, .group = "Model", .help = kDtypeHelp, .options = kComputeDtypes},

    {PMETAL_FIELD(input_ids), .kind = kText, .group = "Input",
     .help = "token ids: commas within a row, semicolons between rows", .value_name = "IDS"},
    {PMETAL_FIELD(inputs), .kind = kPath, .group = "Input",
     .help = "safetensors file with input_ids and, if wanted, attention_mask and labels", .value_name = "FILE"},

    {PMETAL_FIELD(hidden_states), .kind = kToggle, .group = "Output",
     .help = "write hidden_states.N: what enters block 0, then what leaves each block"},
    {PMETAL_FIELD(loss), .kind = kToggle, .group = "Output", .help = "write the mean loss of the labels"},
    {PMETAL_FIELD(grads), .kind = kList, .group = "Output", .help = "write grad.NAME of the loss for these parameters",
     .value_name = "NAME,..."},
    {PMETAL_FIELD(generate), .kind = kInteger, .group = "Output", .help = "write this many greedy tokens per row",
     .value_name = "N", .min = 1, .max = 1 << 20},
    {PMETAL_FIELD(output), .kind = kPath, .short_flag = 'o', .group = "Output", .help = "safetensors file to write",
     .value_name = "FILE", .required = true, .is_output = true},

    {PMETAL_FIELD(device), .kind = kEnum, .group = "Compute", .help = kDeviceHelp, .options = kDeviceChoices},
    {PMETAL_FIELD(threads), .kind = kInteger, .group = "Compute", .help = kThreadsHelp, .min = 0, .max = 4096},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  const auto& o = job.as<ProbeOptions>();
  if (o.input_ids.has_value() == o.inputs.has_value())
    issues.push_back({"input_ids", o.inputs ? "contradicts --inputs: give one of them" : "or --inputs is required"});
}

}  // namespace

extern const JobSpec spec_probe = {
    .name = "probe",
    .summary = "write logits, hidden states, loss and gradients for given token ids",
    .examples = "probe --model ./Qwen3-0.6B --input-ids '1,2,3;4,5' --output out.safetensors --hidden-states",
    .fields = kFields,
    .options = options_type<ProbeOptions>(),
    .check = check,
};

}  // namespace pmetal::jobs
