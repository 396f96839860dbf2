#include "jobs/specs/tokenize.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = TokenizeJobOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(input), .kind = kDataset, .short_flag = 'i', .group = "Data",
     .help = "text: a file of any accepted kind, or a folder of shards", .value_name = "PATH", .required = true,
     .is_positional = true},
    {PMETAL_FIELD(text_column), .kind = kText, .group = "Data", .help = kTextColumnHelp, .value_name = "NAME"},
    {PMETAL_FIELD(tokenizer), .kind = kPath, .short_flag = 't', .group = "Data",
     .help = "tokenizer.json, or a folder with one", .value_name = "PATH", .required = true},
    {PMETAL_FIELD(eos_token_id), .kind = kInteger, .group = "Data",
     .help = "token that ends a document, noted in index.json; without it the one of the tokenizer's folder", .min = 0,
     .max = 1 << 30},
    {PMETAL_FIELD(threads), .kind = kInteger, .group = "Compute", .help = kThreadsHelp, .min = 0, .max = 4096},
    {PMETAL_FIELD(output_dir), .kind = kPath, .flag = "--output", .short_flag = 'o', .aliases = "--output-dir",
     .group = "Output", .help = "folder for shard_00000.bin ... and index.json", .value_name = "DIR", .required = true},
    {PMETAL_FIELD(docs_per_shard), .kind = kInteger, .group = "Output", .help = "documents in one shard", .min = 1,
     .max = 1000000},
    {PMETAL_FIELD(overwrite), .kind = kToggle, .group = "Output",
     .help = "replace shards made from other data or with another tokenizer"},
};

}  // namespace

extern const JobSpec spec_tokenize = {
    .name = "tokenize",
    .summary = "turn text into token shards for pretraining; resumes where it stopped",
    .examples = "tokenize --input corpus.jsonl --tokenizer ./tokenizer.json --output shards",
    .fields = kFields,
    .options = options_type<TokenizeJobOptions>(),
    .has_json = true,
};

}  // namespace pmetal::jobs
