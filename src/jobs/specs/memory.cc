#include "jobs/specs/memory.h"

#include "jobs/describe.h"

namespace pmetal::jobs {

extern const JobSpec spec_memory = {
    .name = "memory",
    .summary = "show memory in use, of the machine and of each GPU",
    .examples = "memory\nmemory --json",
    .fields = {},
    .options = options_type<MemoryOptions>(),
    .has_json = true,
};

}  // namespace pmetal::jobs
