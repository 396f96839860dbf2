#include "jobs/specs/text_encode.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = TextEncodeOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(tokenizer), .kind = kPath, .short_flag = 't', .group = "Text",
     .help = "model folder, tokenizer.json or SentencePiece .model", .value_name = "PATH", .required = true},
    {PMETAL_FIELD(offsets), .kind = kToggle, .group = "Text",
     .help = "also write the code points [begin, end) each token came from"},
    {PMETAL_FIELD(no_special), .kind = kToggle, .group = "Text",
     .help = "leave out the special tokens that the tokenizer adds around a text"},
    {PMETAL_FIELD(threads), .kind = kInteger, .group = "Compute", .help = kThreadsHelp, .min = 0, .max = 4096},
};

}  // namespace

extern const JobSpec spec_text_encode = {
    .name = "text encode",
    .summary = "token ids of JSON lines {\"text\", \"pair\"?}",
    .examples = "text encode --tokenizer ./Qwen3-0.6B --offsets < lines.jsonl > ids.jsonl",
    .fields = kFields,
    .options = options_type<TextEncodeOptions>(),

};

}  // namespace pmetal::jobs
