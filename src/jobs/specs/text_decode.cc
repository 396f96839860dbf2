#include "jobs/specs/text_decode.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = TextDecodeOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(tokenizer), .kind = kPath, .short_flag = 't', .group = "Text",
     .help = "model folder, tokenizer.json or SentencePiece .model", .value_name = "PATH", .required = true},
    {PMETAL_FIELD(skip_special), .kind = kToggle, .group = "Text", .help = "leave out special tokens"},
};

}  // namespace

extern const JobSpec spec_text_decode = {
    .name = "text decode",
    .summary = "text of JSON lines {\"ids\"}",
    .examples = "text decode --tokenizer ./Qwen3-0.6B --skip-special < ids.jsonl",
    .fields = kFields,
    .options = options_type<TextDecodeOptions>(),

};

}  // namespace pmetal::jobs
