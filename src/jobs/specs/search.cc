#include "jobs/specs/search.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
namespace {

using Options = SearchOptions;
using enum FieldKind;

constexpr FieldDescriptor kFields[] = {
    {PMETAL_FIELD(query), .kind = kText, .group = "Search", .help = "words of the name", .value_name = "QUERY",
     .required = true, .is_positional = true},
    {PMETAL_FIELD(limit), .kind = kInteger, .short_flag = 'l', .group = "Search", .help = "models to show", .min = 1,
     .max = 1000},
    {PMETAL_FIELD(detailed), .kind = kToggle, .group = "Output",
     .help = "also the parts of the estimate, training, likes and task"},
    {PMETAL_FIELD(download), .kind = kToggle, .group = "Output", .help = "download the first model that fits"},
};

}  // namespace

extern const JobSpec spec_search = {
    .name = "search",
    .summary = "find models on the hub, and whether they fit into this machine's memory",
    .examples = "search qwen3 --limit 5\nsearch 'smollm instruct' --download",
    .fields = kFields,
    .options = options_type<SearchOptions>(),
    .has_json = true,
};

}  // namespace pmetal::jobs
