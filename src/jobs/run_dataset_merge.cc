// pmetal dataset merge: put datasets together.
#include <cstdlib>

#include <ostream>

#include <nlohmann/json.hpp>

#include "data/tools/tools.h"
#include "jobs/dataset_text.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/dataset_merge.h"

namespace pmetal::jobs {

void run_dataset_merge(const JobOptions& options, JobContext& context) {
  const auto& o = options.as<DatasetMergeOptions>();
  std::vector<fs::path> inputs;
  for (const std::string& name : o.input) inputs.push_back(local_dataset(context, name));
  data::MergeOptions m{.inputs = inputs,
                       .output = o.output,
                       .shuffle = o.shuffle,
                       .interleave = o.interleave,
                       .seed = o.seed,
                       .weights = {}};
  for (const std::string& w : o.weights) {
    char* end = nullptr;
    const double value = std::strtod(w.c_str(), &end);
    if (w.empty() || *end != 0 || !(value > 0))
      fail(ErrorCode::kUsage, "--weights: \"{}\" is not a positive number", w);
    m.weights.push_back(value);
  }
  report_counts(context, data::merge(m));
}

}  // namespace pmetal::jobs
