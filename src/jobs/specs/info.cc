#include "jobs/specs/info.h"

#include "jobs/describe.h"

namespace pmetal::jobs {

extern const JobSpec spec_info = {
    .name = "info",
    .summary = "show the processor, memory and GPUs of this machine",
    .examples = "info\ninfo --json",
    .fields = {},
    .options = options_type<InfoOptions>(),
    .has_json = true,
};

}  // namespace pmetal::jobs
