// pmetal dataset split: split into train, validation and test.
#include <ostream>

#include <nlohmann/json.hpp>

#include "data/tools/tools.h"
#include "jobs/dataset_text.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/dataset_split.h"

namespace pmetal::jobs {

void run_dataset_split(const JobOptions& options, JobContext& context) {
  const auto& o = options.as<DatasetSplitOptions>();
  report_counts(context, data::split({.input = local_dataset(context, o.input),
                                      .output = o.output_dir,
                                      .val_ratio = o.val_ratio,
                                      .test_ratio = o.test_ratio,
                                      .seed = o.seed,
                                      .stratify = o.stratify}));
}

}  // namespace pmetal::jobs
