// pmetal dataset validate: check every row of a dataset.
#include <ostream>

#include <nlohmann/json.hpp>

#include "data/tools/tools.h"
#include "jobs/dataset_text.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/dataset_validate.h"

namespace pmetal::jobs {

void run_dataset_validate(const JobOptions& options, JobContext& context) {
  const auto& o = options.as<DatasetValidateOptions>();
  const BuilderOfModel builder = builder_for(local_tokenizer(context, o.model), to_data(o.train_on), o.max_seq_len);
  const data::ValidateResult r = data::validate({.path = local_dataset(context, o.path),
                                                 .split = o.split,
                                                 .columns = {},
                                                 .builder = builder.get(),
                                                 .max_length = o.max_seq_len});
  Json j{{"rows", r.rows},
         {"valid", r.valid},
         {"malformed", r.malformed},
         {"too_long", r.too_long},
         {"nothing_learned", r.nothing_learned},
         {"empty_response", r.empty_response},
         {"problems", problems_json(r.problems)}};
  if (context.json)
    context.data() << j.dump(2) << "\n";
  else
    print_table(context, j);
  if (!r.is_valid())
    fail(ErrorCode::kInvalidInput, "{}",
         r.problems.empty() ? o.path + ": holds no rows" : r.problems[0].where + ": " + r.problems[0].message);
}

}  // namespace pmetal::jobs
