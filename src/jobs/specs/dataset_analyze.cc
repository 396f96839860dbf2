#include "jobs/specs/dataset_analyze.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = DatasetAnalyzeOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(path), .kind = kDataset, .flag = "--path", .short_flag = 'p', .group = "Data", .help = kDatasetHelp,
     .value_name = "PATH", .required = true, .is_positional = true},
    {PMETAL_FIELD(split), .kind = kText, .group = "Data", .help = kSplitHelp, .value_name = "NAME"},
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Text", .help = kTextModelHelp,
     .value_name = "DIR"},
    {PMETAL_FIELD(max_seq_len), .kind = kInteger, .group = "Text", .help = kSampleTokensHelp, .min = 1, .max = 1 << 24},
    {PMETAL_FIELD(train_on), .kind = kEnum, .group = "Text", .help = kTrainOnHelp, .options = kTrainOnNames},
    {PMETAL_FIELD(detailed), .kind = kToggle, .group = "Output", .help = "columns, roles and problems as well"},
};

}  // namespace

extern const JobSpec spec_dataset_analyze = {
    .name = "dataset analyze",
    .summary = "what is in a dataset: formats, lengths, packing",
    .examples = "dataset analyze data.jsonl --model ./Qwen3-0.6B",
    .fields = kFields,
    .options = options_type<DatasetAnalyzeOptions>(),
    .has_json = true,

};

}  // namespace pmetal::jobs
