#include "jobs/specs/dataset_sample.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = DatasetSampleOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(input), .kind = kDataset, .short_flag = 'i', .group = "Data", .help = kDatasetHelp,
     .value_name = "PATH", .required = true},
    {PMETAL_FIELD(output), .kind = kPath, .short_flag = 'o', .group = "Output", .help = "file to write",
     .value_name = "FILE", .required = true, .is_output = true},
    {PMETAL_FIELD(n), .kind = kInteger, .flag = "--num", .short_flag = 'n', .group = "Data", .help = "rows drawn",
     .min = 1},
    {PMETAL_FIELD(seed), .kind = kInteger, .group = "Data", .help = kSeedHelp},
};

}  // namespace

extern const JobSpec spec_dataset_sample = {
    .name = "dataset sample",
    .summary = "draw rows at random",
    .examples = "dataset sample --input data.jsonl --output some.jsonl --num 100",
    .fields = kFields,
    .options = options_type<DatasetSampleOptions>(),
    .has_json = true,

};

}  // namespace pmetal::jobs
