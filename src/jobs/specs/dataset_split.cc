#include "jobs/specs/dataset_split.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = DatasetSplitOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(input), .kind = kDataset, .short_flag = 'i', .group = "Data", .help = kDatasetHelp,
     .value_name = "PATH", .required = true},
    {PMETAL_FIELD(output_dir), .kind = kPath, .flag = "--output-dir", .short_flag = 'o', .aliases = "--output",
     .group = "Output", .help = "folder for train.jsonl, validation.jsonl, test.jsonl", .value_name = "DIR",
     .required = true, .is_output = true},
    {PMETAL_FIELD(val_ratio), .kind = kNumber, .group = "Data", .help = "part that goes to validation", .min = 0,
     .max = 1},
    {PMETAL_FIELD(test_ratio), .kind = kNumber, .group = "Data", .help = "part that goes to test", .min = 0, .max = 1},
    {PMETAL_FIELD(seed), .kind = kInteger, .group = "Data", .help = kSeedHelp},
    {PMETAL_FIELD(stratify), .kind = kText, .group = "Data", .help = "column whose values keep their shares",
     .value_name = "NAME"},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  const auto& o = job.as<DatasetSplitOptions>();
  if (o.val_ratio + o.test_ratio >= 1) issues.push_back({"val_ratio", "and --test-ratio leave nothing to train on"});
}

}  // namespace

extern const JobSpec spec_dataset_split = {
    .name = "dataset split",
    .summary = "split into train, validation and test",
    .examples = "dataset split --input data.jsonl --output-dir parts --val-ratio 0.05",
    .fields = kFields,
    .options = options_type<DatasetSplitOptions>(),
    .has_json = true,
    .check = check,
};

}  // namespace pmetal::jobs
