#include "jobs/specs/dataset_prepare.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = DatasetPrepareOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(input), .kind = kDataset, .short_flag = 'i', .group = "Data", .help = kDatasetHelp,
     .value_name = "PATH", .required = true, .is_positional = true},
    {PMETAL_FIELD(output_dir), .kind = kPath, .flag = "--output-dir", .short_flag = 'o', .aliases = "--output",
     .group = "Output", .help = "folder for train.jsonl, validation.jsonl, test.jsonl", .value_name = "DIR",
     .required = true, .is_output = true},
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Text", .help = kTextModelHelp,
     .value_name = "DIR", .required = true},
    {PMETAL_FIELD(template_name), .kind = kText, .flag = "--template", .group = "Text",
     .help = "built-in chat format (chatml, llama3, ...), raw = text as it is, or auto = the one of --model",
     .value_name = "NAME"},
    {PMETAL_FIELD(max_seq_len), .kind = kInteger, .group = "Text", .help = kSampleTokensHelp, .min = 1, .max = 1 << 24},
    {PMETAL_FIELD(val_ratio), .kind = kNumber, .group = "Data", .help = "part that goes to validation", .min = 0,
     .max = 1},
    {PMETAL_FIELD(seed), .kind = kInteger, .group = "Data", .help = kSeedHelp},
    {PMETAL_FIELD(no_dedup), .kind = kToggle, .group = "Filter", .help = "keep repeated samples"},
    {PMETAL_FIELD(columns), .kind = kText, .group = "Data", .help = "columns to rename", .value_name = "NEW=OLD,..."},
};

}  // namespace

extern const JobSpec spec_dataset_prepare = {
    .name = "dataset prepare",
    .summary = "convert, clean, render and split in one go",
    .examples = "dataset prepare raw.jsonl --output-dir ready --model ./Qwen3-0.6B",
    .fields = kFields,
    .options = options_type<DatasetPrepareOptions>(),
    .has_json = true,

};

}  // namespace pmetal::jobs
