#include "jobs/specs/dataset_formats.h"

#include "jobs/describe.h"

namespace pmetal::jobs {
extern const JobSpec spec_dataset_formats = {
    .name = "dataset formats",
    .summary = "the accepted record formats",
    .examples = "dataset formats",
    .fields = {},
    .options = options_type<DatasetFormatsOptions>(),
    .has_json = true,

};

}  // namespace pmetal::jobs
