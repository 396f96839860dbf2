#include "jobs/specs/fuse.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = FuseOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Model", .help = kModelHelp,
     .value_name = "MODEL", .required = true},
    {PMETAL_FIELD(lora), .kind = kPath, .short_flag = 'l', .aliases = "--adapter", .group = "Model",
     .help = "adapter folder", .value_name = "DIR", .required = true},
    {PMETAL_FIELD(alpha), .kind = kNumber, .group = "Model", .help = "use this alpha instead of the adapter's",
     .min = 0, .max = 1024},
    {PMETAL_FIELD(rank), .kind = kInteger, .group = "Model", .help = "use this rank for the scale alpha / rank",
     .min = 1, .max = 4096},
    {PMETAL_FIELD(accurate), .kind = kToggle, .group = "Compute", .help = "accumulate in f64"},
    {PMETAL_FIELD(threads), .kind = kInteger, .group = "Compute", .help = kThreadsHelp, .min = 0, .max = 4096},
    {PMETAL_FIELD(output_dir), .kind = kPath, .flag = "--output", .short_flag = 'o', .aliases = "--output-dir",
     .group = "Output", .help = "folder for the fused model", .value_name = "DIR", .required = true, .is_output = true},
};

constexpr RefusedFlag kRefused[] = {
    {"--low-memory", "weights are always streamed block by block: leave it out"},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  const auto& o = job.as<FuseOptions>();
  if (!o.output_dir.empty() && o.output_dir == o.model)
    issues.push_back({"output_dir", "is the model itself: give another folder"});
}

}  // namespace

extern const JobSpec spec_fuse = {
    .name = "fuse",
    .summary = "merge an adapter into its base model",
    .examples = "fuse --model ./Qwen3-0.6B --lora ./output --output ./fused",
    .fields = kFields,
    .options = options_type<FuseOptions>(),
    .refused = kRefused,
    .has_dry_run = true,
    .check = check,
};

}  // namespace pmetal::jobs
