#include "jobs/specs/text_render.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = TextRenderOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Text",
     .help = "model folder with a chat template", .value_name = "DIR"},
    {PMETAL_FIELD(template_file), .kind = kPath, .flag = "--template", .group = "Text", .help = "a Jinja file",
     .value_name = "FILE"},
};

void check(const JobOptions& job, std::vector<FieldIssue>& issues) {
  const auto& o = job.as<TextRenderOptions>();
  if (o.model.has_value() == o.template_file.has_value())
    issues.push_back({"model", "give either --model or --template"});
}

}  // namespace

extern const JobSpec spec_text_render = {
    .name = "text render",
    .summary = "conversations as text, by a model's chat template",
    .examples =
        "text render --model ./Qwen3-0.6B < conversations.jsonl\ntext render --template chat.jinja < "
        "conversations.jsonl",
    .fields = kFields,
    .options = options_type<TextRenderOptions>(),
    .check = check,
};

}  // namespace pmetal::jobs
