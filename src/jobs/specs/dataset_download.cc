#include "jobs/specs/dataset_download.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = DatasetDownloadOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(dataset), .kind = kDataset, .short_flag = 'd', .group = "Data",
     .help = "name of a dataset on the hub, as in HuggingFaceH4/no_robots", .value_name = "ORG/NAME", .required = true,
     .is_positional = true},
    {PMETAL_FIELD(split), .kind = kText, .group = "Data", .help = "which split is written to --output",
     .value_name = "NAME"},
    {PMETAL_FIELD(revision), .kind = kText, .group = "Data", .help = "branch, tag or commit", .value_name = "REV"},
    {PMETAL_FIELD(output), .kind = kPath, .short_flag = 'o', .group = "Output",
     .help = "also write the rows of the split to this .jsonl, .json, .csv or .parquet file", .value_name = "FILE",
     .is_output = true},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  if (job.was_given("split") && !job.as<DatasetDownloadOptions>().output)
    issues.push_back({"split", "has no effect without --output: all files of a dataset are downloaded"});
}

}  // namespace

extern const JobSpec spec_dataset_download = {
    .name = "dataset download",
    .summary = "fetch a dataset from the hub into the cache; goes on where an earlier run stopped",
    .examples =
        "dataset download HuggingFaceH4/no_robots\n"
        "dataset download HuggingFaceH4/no_robots --split test --output test.jsonl",
    .fields = kFields,
    .options = options_type<DatasetDownloadOptions>(),
    .has_json = true,
    .check = check,
};

}  // namespace pmetal::jobs
