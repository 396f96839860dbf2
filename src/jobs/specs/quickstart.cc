#include "jobs/specs/quickstart.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = QuickstartOptions;
using enum FieldKind;

constexpr EnumName kRecipes[] = {{"auto", static_cast<int>(Recipe::kAuto)},
                                 {"small", static_cast<int>(Recipe::kSmall)},
                                 {"medium", static_cast<int>(Recipe::kMedium)},
                                 {"large", static_cast<int>(Recipe::kLarge)}};

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(output_dir), .kind = kPath, .flag = "--output", .short_flag = 'o', .group = "Output",
     .help = "folder for text, tokenizer, model and adapter", .value_name = "DIR", .is_output = true},
    {PMETAL_FIELD(recipe), .kind = kEnum, .group = "Training",
     .help = "size of model and run; auto = by a one-second speed test", .options = kRecipes},
    {PMETAL_FIELD(seed), .kind = kInteger, .group = "Training", .help = kSeedHelp},
    {PMETAL_FIELD(device), .kind = kEnum, .group = "Compute", .help = kDeviceHelp, .options = kDeviceChoices},
    {PMETAL_FIELD(threads), .kind = kInteger, .group = "Compute", .help = kThreadsHelp, .min = 0, .max = 4096},
};

}  // namespace

extern const JobSpec spec_quickstart = {
    .name = "quickstart",
    .summary = "train a small language model from nothing, fine-tune it, and ask it something",
    .examples = "quickstart\nquickstart --recipe small --output /tmp/first-model",
    .fields = kFields,
    .options = options_type<QuickstartOptions>(),
};

}  // namespace pmetal::jobs
