// pmetal dataset template: render chats as text.
#include <ostream>

#include <nlohmann/json.hpp>

#include "data/tools/tools.h"
#include "jobs/dataset_text.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/dataset_template.h"

namespace pmetal::jobs {

void run_dataset_template(const JobOptions& options, JobContext& context) {
  const auto& o = options.as<DatasetTemplateOptions>();
  report_counts(
      context, data::apply_template(
                   {.input = local_dataset(context, o.input),
                    .output = o.output,
                    .columns = {},
                    .render = renderer_for(o.template_name, local_tokenizer(context, o.model), o.add_generation_prompt),
                    .system = o.system,
                    .mask_prompt = o.mask_prompt}));
}

}  // namespace pmetal::jobs
