#include "jobs/specs/dataset_convert.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = DatasetConvertOptions;
using enum FieldKind;

constexpr EnumName kOutputFormats[] = {
    {"auto", static_cast<int>(OutputFormat::kAuto)},       {"jsonl", static_cast<int>(OutputFormat::kJsonl)},
    {"json", static_cast<int>(OutputFormat::kJson)},       {"csv", static_cast<int>(OutputFormat::kCsv)},
    {"parquet", static_cast<int>(OutputFormat::kParquet)}, {"share-gpt", static_cast<int>(OutputFormat::kShareGpt)},
    {"alpaca", static_cast<int>(OutputFormat::kAlpaca)},   {"sharegpt", static_cast<int>(OutputFormat::kShareGpt)}};

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(input), .kind = kDataset, .short_flag = 'i', .group = "Data", .help = kDatasetHelp,
     .value_name = "PATH", .required = true},
    {PMETAL_FIELD(output), .kind = kPath, .short_flag = 'o', .group = "Output", .help = "file to write",
     .value_name = "FILE", .required = true, .is_output = true},
    {PMETAL_FIELD(format), .kind = kEnum, .group = "Output",
     .help = "kind of file (auto = by its name), or share-gpt and alpaca: JSON lines of that layout",
     .options = kOutputFormats},
    {PMETAL_FIELD(columns), .kind = kText, .group = "Data", .help = "columns to rename", .value_name = "NEW=OLD,..."},
    {PMETAL_FIELD(shuffle), .kind = kToggle, .group = "Data", .help = "random order"},
    {PMETAL_FIELD(seed), .kind = kInteger, .group = "Data", .help = kSeedHelp},
};

}  // namespace

extern const JobSpec spec_dataset_convert = {
    .name = "dataset convert",
    .summary = "write a dataset in another format",
    .examples = "dataset convert --input data.parquet --output data.jsonl",
    .fields = kFields,
    .options = options_type<DatasetConvertOptions>(),
    .has_json = true,

};

}  // namespace pmetal::jobs
