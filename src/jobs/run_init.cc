// `pmetal init`: a commented sample configuration, generated from the description of train.
#include "base/file.h"
#include "jobs/context.h"
#include "jobs/spec.h"
#include "jobs/specs/init.h"

namespace pmetal::jobs {

extern const JobSpec spec_train;

void run_init(const JobOptions& job, JobContext& context) {
  const auto& options = job.as<InitOptions>();
  if (!options.force && fs::exists(options.output))
    fail(ErrorCode::kUsage, "{}: exists already: name another file with --output, or give --force", options.output);
  write_file_atomic(options.output, sample_yaml(spec_train));
  context.artefact(options.output, "config");
  context.summary.output_path = options.output;
}

}  // namespace pmetal::jobs
