#include "jobs/specs/dataset_merge.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = DatasetMergeOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(input), .kind = kList, .short_flag = 'i', .group = "Data", .help = "files or folders, in order",
     .value_name = "A,B", .required = true, .is_positional = true},
    {PMETAL_FIELD(output), .kind = kPath, .short_flag = 'o', .group = "Output", .help = "file to write",
     .value_name = "FILE", .required = true, .is_output = true},
    {PMETAL_FIELD(shuffle), .kind = kToggle, .group = "Data", .help = "random order"},
    {PMETAL_FIELD(seed), .kind = kInteger, .group = "Data", .help = kSeedHelp},
    {PMETAL_FIELD(interleave), .kind = kToggle, .group = "Data", .help = "take rows from the inputs in turn"},
    {PMETAL_FIELD(weights), .kind = kList, .group = "Data", .help = "shares of the inputs, one each",
     .value_name = "W,W"},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  const auto& o = job.as<DatasetMergeOptions>();
  if (!o.weights.empty() && o.weights.size() != o.input.size())
    issues.push_back({"weights", "needs one share per input"});
}

}  // namespace

extern const JobSpec spec_dataset_merge = {
    .name = "dataset merge",
    .summary = "put datasets together",
    .examples = "dataset merge --input a.jsonl,b.jsonl --output all.jsonl --shuffle",
    .fields = kFields,
    .options = options_type<DatasetMergeOptions>(),
    .has_json = true,
    .check = check,
};

}  // namespace pmetal::jobs
