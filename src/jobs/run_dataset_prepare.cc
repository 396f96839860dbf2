// pmetal dataset prepare: convert, clean, render and split in one go.
#include <ostream>

#include <nlohmann/json.hpp>

#include "data/tools/tools.h"
#include "jobs/dataset_text.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/dataset_prepare.h"

namespace pmetal::jobs {

void run_dataset_prepare(const JobOptions& options, JobContext& context) {
  const auto& o = options.as<DatasetPrepareOptions>();
  const BuilderOfModel builder = builder_for(local_tokenizer(context, o.model), data::TrainOn::kAll, 0);
  report_counts(context, data::prepare({.input = local_dataset(context, o.input),
                                        .output = o.output_dir,
                                        .columns = {},
                                        .render = renderer_for(o.template_name, local_tokenizer(context, o.model)),
                                        .builder = builder.get(),
                                        .max_length = o.max_seq_len,
                                        .val_ratio = o.val_ratio,
                                        .seed = o.seed,
                                        .dedup = !o.no_dedup,
                                        .renamed = data::parse_renames(o.columns)}));
}

}  // namespace pmetal::jobs
