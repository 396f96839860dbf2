#include "jobs/specs/init.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = InitOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(output), .kind = kPath, .short_flag = 'o', .group = "Output", .help = "file to write",
     .value_name = "FILE", .is_output = true},
    {PMETAL_FIELD(force), .kind = kToggle, .group = "Output", .help = "replace a file that is there already"},
};

}  // namespace

extern const JobSpec spec_init = {
    .name = "init",
    .summary = "write a commented sample configuration for train",
    .examples = "init --output train.yaml",
    .fields = kFields,
    .options = options_type<InitOptions>(),
};

}  // namespace pmetal::jobs
