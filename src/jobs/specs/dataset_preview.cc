#include "jobs/specs/dataset_preview.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = DatasetPreviewOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(path), .kind = kDataset, .flag = "--path", .short_flag = 'p', .group = "Data", .help = kDatasetHelp,
     .value_name = "PATH", .required = true, .is_positional = true},
    {PMETAL_FIELD(split), .kind = kText, .group = "Data", .help = kSplitHelp, .value_name = "NAME"},
    {PMETAL_FIELD(n), .kind = kInteger, .short_flag = 'n', .group = "Data", .help = "rows shown", .min = 1,
     .max = 100000},
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Text", .help = kTextModelHelp,
     .value_name = "DIR"},
    {PMETAL_FIELD(max_seq_len), .kind = kInteger, .group = "Text", .help = kSampleTokensHelp, .min = 1, .max = 1 << 24},
    {PMETAL_FIELD(train_on), .kind = kEnum, .group = "Text", .help = kTrainOnHelp, .options = kTrainOnNames},
};

}  // namespace

extern const JobSpec spec_dataset_preview = {
    .name = "dataset preview",
    .summary = "show rows as they will be trained on",
    .examples = "dataset preview data.jsonl --model ./Qwen3-0.6B -n 3",
    .fields = kFields,
    .options = options_type<DatasetPreviewOptions>(),
    .has_json = true,

};

}  // namespace pmetal::jobs
