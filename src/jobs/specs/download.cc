#include "jobs/specs/download.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = DownloadOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(model), .kind = kModel, .short_flag = 'm', .group = "Model",
     .help = "name of a model on the hub, as in Qwen/Qwen3-0.6B", .value_name = "ORG/NAME", .required = true,
     .is_positional = true},
    {PMETAL_FIELD(revision), .kind = kText, .group = "Model", .help = "branch, tag or commit", .value_name = "REV"},
};

}  // namespace

extern const JobSpec spec_download = {
    .name = "download",
    .summary = "fetch a model from the hub into the cache; goes on where an earlier run stopped",
    .examples = "download Qwen/Qwen3-0.6B\ndownload Qwen/Qwen3-0.6B --revision main --json",
    .fields = kFields,
    .options = options_type<DownloadOptions>(),
    .has_json = true,
};

}  // namespace pmetal::jobs
