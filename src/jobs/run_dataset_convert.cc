// pmetal dataset convert: write a dataset in another format.
#include <ostream>

#include <nlohmann/json.hpp>

#include "data/tools/tools.h"
#include "jobs/dataset_text.h"
#include "jobs/hub_names.h"
#include "jobs/spec.h"
#include "jobs/specs/dataset_convert.h"

namespace pmetal::jobs {

void run_dataset_convert(const JobOptions& options, JobContext& context) {
  const auto& o = options.as<DatasetConvertOptions>();
  data::ConvertOptions c{.input = local_dataset(context, o.input),
                         .output = o.output,
                         .split = "train",
                         .format = data::FileFormat::kJsonl,
                         .layout = data::Layout::kKeep,
                         .renamed = data::parse_renames(o.columns),
                         .shuffle = o.shuffle,
                         .seed = o.seed};
  switch (o.format) {
    case OutputFormat::kAuto: c.format = data::file_format_of(o.output); break;
    case OutputFormat::kJsonl: break;
    case OutputFormat::kJson: c.format = data::FileFormat::kJson; break;
    case OutputFormat::kCsv: c.format = data::FileFormat::kCsv; break;
    case OutputFormat::kParquet: c.format = data::FileFormat::kParquet; break;
    case OutputFormat::kShareGpt: c.layout = data::Layout::kShareGpt; break;
    case OutputFormat::kAlpaca: c.layout = data::Layout::kAlpaca; break;
  }
  report_counts(context, data::convert(c));
}

}  // namespace pmetal::jobs
