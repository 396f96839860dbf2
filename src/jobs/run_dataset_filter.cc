// pmetal dataset filter: leave out rows.
#include <ostream>

#include <nlohmann/json.hpp>

#include "data/tools/tools.h"
#include "jobs/dataset_text.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/dataset_filter.h"

namespace pmetal::jobs {

void run_dataset_filter(const JobOptions& options, JobContext& context) {
  const auto& o = options.as<DatasetFilterOptions>();
  const BuilderOfModel builder = builder_for(local_tokenizer(context, o.model), data::TrainOn::kAll, 0);
  report_counts(context, data::filter({.input = local_dataset(context, o.input),
                                       .output = o.output,
                                       .builder = builder.get(),
                                       .columns = {},
                                       .min_tokens = o.min_tokens,
                                       .max_tokens = o.max_tokens,
                                       .dedup = o.dedup,
                                       .pattern = o.pattern,
                                       .invert = o.invert,
                                       .complete_only = o.complete_only}));
}

}  // namespace pmetal::jobs
