#include "jobs/specs/dataset_template.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = DatasetTemplateOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(input), .kind = kDataset, .short_flag = 'i', .group = "Data", .help = kDatasetHelp,
     .value_name = "PATH", .required = true},
    {PMETAL_FIELD(output), .kind = kPath, .short_flag = 'o', .group = "Output", .help = "file to write",
     .value_name = "FILE", .required = true, .is_output = true},
    {PMETAL_FIELD(template_name), .kind = kText, .flag = "--template", .group = "Text",
     .help = "built-in chat format (chatml, llama3, ...), raw = text as it is, or auto = the one of --model",
     .value_name = "NAME"},
    {PMETAL_FIELD(system), .kind = kText, .group = "Text", .help = "system message for chats that have none",
     .value_name = "TEXT"},
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Text", .help = kTextModelHelp,
     .value_name = "DIR"},
    {PMETAL_FIELD(add_generation_prompt), .kind = kToggle, .group = "Text",
     .help = "end with the words that open the assistant's turn"},
    {PMETAL_FIELD(mask_prompt), .kind = kToggle, .group = "Text",
     .help = "write {prompt, completion} around the last answer"},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  const auto& o = job.as<DatasetTemplateOptions>();
  if (o.template_name == "auto" && !o.model)
    issues.push_back({"model", "is required: --template auto takes the model's own"});
  if (o.add_generation_prompt && o.template_name == "raw")
    issues.push_back({"add_generation_prompt", "has no meaning with --template raw, which writes no words of its own"});
  if (o.add_generation_prompt && o.mask_prompt)
    issues.push_back({"add_generation_prompt", "has no meaning with --mask-prompt, whose prompts end with it anyway"});
}

}  // namespace

extern const JobSpec spec_dataset_template = {
    .name = "dataset template",
    .summary = "render chats as text",
    .examples = "dataset template --input chats.jsonl --output text.jsonl --template chatml",
    .fields = kFields,
    .options = options_type<DatasetTemplateOptions>(),
    .has_json = true,
    .check = check,
};

}  // namespace pmetal::jobs
