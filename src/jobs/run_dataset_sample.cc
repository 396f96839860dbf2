// pmetal dataset sample: draw rows at random.
#include <ostream>

#include <nlohmann/json.hpp>

#include "data/tools/tools.h"
#include "jobs/dataset_text.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/dataset_sample.h"

namespace pmetal::jobs {

void run_dataset_sample(const JobOptions& options, JobContext& context) {
  const auto& o = options.as<DatasetSampleOptions>();
  report_counts(context,
                data::sample({.input = local_dataset(context, o.input), .output = o.output, .n = o.n, .seed = o.seed}));
}

}  // namespace pmetal::jobs
