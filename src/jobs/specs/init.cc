#include "jobs/specs/init.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = InitOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(output), .kind = kPath, .short_flag = 'o', .group = "Output",
     .help = "file to write, or folder with --random-model", .value_name = "PATH", .is_output = true},
    {PMETAL_FIELD(force), .kind = kToggle, .group = "Output", .help = "replace a file that is there already"},
    {PMETAL_FIELD(random_model), .kind = kPath, .group = "Random weights",
     .help = "write a checkpoint of this config.json's shape with random weights instead", .value_name = "CONFIG"},
    {PMETAL_FIELD(dtype), .kind = kEnum, .group = "Random weights", .help = "type of the stored weights",
     .options = kComputeDtypes},
    {PMETAL_FIELD(seed), .kind = kInteger, .group = "Random weights", .help = kSeedHelp},
    {PMETAL_FIELD(threads), .kind = kInteger, .group = "Random weights", .help = kThreadsHelp, .min = 0, .max = 4096},
};

}  // namespace

extern const JobSpec spec_init = {
    .name = "init",
    .summary = "write a sample configuration for train, or a checkpoint of random weights",
    .examples =
        "init --output train.yaml\n"
        "init --random-model bench/shapes/qwen3-0.6b.json --output ./random-0.6b",
    .fields = kFields,
    .options = options_type<InitOptions>(),
};

}  // namespace pmetal::jobs
