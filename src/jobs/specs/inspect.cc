#include "jobs/specs/inspect.h"

#include "jobs/describe.h"
#include "jobs/specs/common.h"

namespace pmetal::jobs {
namespace {

using Options = InspectOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Model",
     .help = "checkpoint folder, adapter folder, safetensors file, or random:CONFIG.json", .value_name = "MODEL",
     .required = true, .is_positional = true},
    {PMETAL_FIELD(tensors), .kind = kToggle, .group = "Output", .help = "list every tensor"},
};

}  // namespace

extern const JobSpec spec_inspect = {
    .name = "inspect",
    .summary = "show what a checkpoint holds",
    .examples = "inspect ./Qwen3-0.6B --tensors",
    .fields = kFields,
    .options = options_type<InspectOptions>(),
    .has_json = true,
};

}  // namespace pmetal::jobs
