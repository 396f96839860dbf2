#include "jobs/specs/eval.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = EvalOptions;
using enum FieldKind;

constexpr EnumName kMetrics[] = {{"perplexity", static_cast<int>(EvalMetric::kPerplexity)},
                                 {"exact_match", static_cast<int>(EvalMetric::kExactMatch)}};

constexpr EnumName kAnswerParts[] = {{"stripped", static_cast<int>(AnswerPart::kStripped)},
                                     {"exact", static_cast<int>(AnswerPart::kExact)},
                                     {"last_number", static_cast<int>(AnswerPart::kLastNumber)}};

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Model", .help = kModelHelp,
     .value_name = "MODEL", .required = true},
    {PMETAL_FIELD(lora), .kind = kPath, .aliases = "--adapter", .group = "Model", .help = kAdapterHelp,
     .value_name = "DIR"},
    {PMETAL_FIELD(dtype), .kind = kEnum, .group = "Model", .help = kDtypeHelp, .options = kComputeDtypes},

    {PMETAL_FIELD(dataset), .kind = kDataset, .short_flag = 'd', .group = "Data",
     .help = "data: a plain text file, or JSONL", .value_name = "DATA", .required = true},
    {PMETAL_FIELD(document_separator), .kind = kText, .group = "Data",
     .help = "line that separates the documents of a plain text file", .value_name = "TEXT"},
    {PMETAL_FIELD(text_column), .kind = kText, .group = "Data", .help = kTextColumnHelp, .value_name = "NAME"},
    {PMETAL_FIELD(text_columns), .kind = kList, .group = "Data", .help = kTextColumnsHelp, .value_name = "A,B"},
    {PMETAL_FIELD(column_separator), .kind = kText, .group = "Data", .help = kColumnSeparatorHelp,
     .value_name = "TEXT"},
    {PMETAL_FIELD(prompt_column), .kind = kText, .group = "Data", .help = kPromptColumnHelp, .value_name = "NAME"},
    {PMETAL_FIELD(response_column), .kind = kText, .group = "Data", .help = kResponseColumnHelp, .value_name = "NAME"},
    {PMETAL_FIELD(num_samples), .kind = kInteger, .short_flag = 'n', .group = "Data",
     .help = "use only the first N rows; 0 = all", .min = 0},

    {PMETAL_FIELD(metric), .kind = kEnum, .group = "Method",
     .help = "perplexity of the text, or share of generated answers equal to the expected ones", .options = kMetrics},
    {PMETAL_FIELD(max_seq_len), .kind = kInteger, .group = "Method", .help = "tokens per window", .min = 2,
     .max = 1 << 20},
    {PMETAL_FIELD(stride), .kind = kInteger, .group = "Method",
     .help = "tokens between windows; each token is scored once. Without it windows do not overlap", .min = 1,
     .max = 1 << 20},
    {PMETAL_FIELD(completion_only), .kind = kToggle, .group = "Method", .help = "score only the answers"},
    {PMETAL_FIELD(compare), .kind = kEnum, .group = "Method",
     .help = "exact_match: the texts without white space at their ends, every byte, or the last number in each",
     .options = kAnswerParts},
    {PMETAL_FIELD(max_tokens), .kind = kInteger, .group = "Method", .help = "exact_match: longest answer", .min = 1,
     .max = 1 << 20},
    {PMETAL_FIELD(batch_size), .kind = kInteger, .group = "Method", .help = "sequences per forward pass", .min = 1,
     .max = 4096},

    {PMETAL_FIELD(device), .kind = kEnum, .group = "Compute", .help = kDeviceHelp, .options = kDeviceChoices},
    {PMETAL_FIELD(threads), .kind = kInteger, .group = "Compute", .help = kThreadsHelp, .min = 0, .max = 4096},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  const auto& o = job.as<EvalOptions>();
  if (o.stride && *o.stride > o.max_seq_len)
    issues.push_back({"stride", "is above --max-seq-len: tokens would be left out"});
  if (o.metric == EvalMetric::kExactMatch)
    for (const std::string_view name : {"stride", "completion_only", "document_separator", "max_seq_len"})
      if (job.was_asked_for(name)) issues.push_back({std::string(name), "has no effect with --metric exact_match"});
  if (o.metric == EvalMetric::kPerplexity)
    for (const std::string_view name : {"max_tokens", "compare"})
      if (job.was_asked_for(name)) issues.push_back({std::string(name), "has no effect without --metric exact_match"});
  if (o.stride && o.completion_only) issues.push_back({"stride", "contradicts --completion-only"});
  if (o.text_column && !o.text_columns.empty()) issues.push_back({"text_columns", "contradicts --text-column"});
  if (o.prompt_column.has_value() != o.response_column.has_value())
    issues.push_back(
        {o.prompt_column ? "response_column" : "prompt_column", "is needed: prompt and response go together"});
}

}  // namespace

extern const JobSpec spec_eval = {
    .name = "eval",
    .summary = "measure a model: perplexity, or exact match of its answers",
    .examples =
        "eval --model ./Qwen3-0.6B --dataset val.txt --max-seq-len 512\n"
        "eval --model ./Qwen3-0.6B --lora ./output --dataset test.jsonl --metric exact_match --json",
    .fields = kFields,
    .options = options_type<EvalOptions>(),
    .has_json = true,
    .check = check,
};

}  // namespace pmetal::jobs
