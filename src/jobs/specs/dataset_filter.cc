#include "jobs/specs/dataset_filter.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = DatasetFilterOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(input), .kind = kDataset, .short_flag = 'i', .group = "Data", .help = kDatasetHelp,
     .value_name = "PATH", .required = true},
    {PMETAL_FIELD(output), .kind = kPath, .short_flag = 'o', .group = "Output", .help = "file to write",
     .value_name = "FILE", .required = true, .is_output = true},
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Text", .help = kTextModelHelp,
     .value_name = "DIR"},
    {PMETAL_FIELD(min_tokens), .kind = kInteger, .group = "Filter", .help = "drop shorter samples; needs --model",
     .min = 0},
    {PMETAL_FIELD(max_tokens), .kind = kInteger, .group = "Filter",
     .help = "drop longer samples; needs --model; 0 = no limit", .min = 0},
    {PMETAL_FIELD(dedup), .kind = kToggle, .group = "Filter", .help = "drop repeated samples"},
    {PMETAL_FIELD(pattern), .kind = kText, .group = "Filter", .help = "keep samples whose text matches",
     .value_name = "REGEX"},
    {PMETAL_FIELD(invert), .kind = kToggle, .group = "Filter", .help = "keep what does not match"},
    {PMETAL_FIELD(complete_only), .kind = kToggle, .group = "Filter", .help = "drop samples without an answer"},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  const auto& o = job.as<DatasetFilterOptions>();
  if ((o.min_tokens > 0 || o.max_tokens > 0) && !o.model)
    issues.push_back({"model", "is required: token limits need a tokenizer"});
  if (o.invert && o.pattern.empty()) issues.push_back({"invert", "needs --pattern"});
}

}  // namespace

extern const JobSpec spec_dataset_filter = {
    .name = "dataset filter",
    .summary = "leave out rows",
    .examples = "dataset filter --input data.jsonl --output clean.jsonl --dedup --complete-only",
    .fields = kFields,
    .options = options_type<DatasetFilterOptions>(),
    .has_json = true,
    .check = check,
};

}  // namespace pmetal::jobs
