// `pmetal init`: a commented sample configuration, generated from the description of train.
#include "base/file.h"
#include "jobs/context.h"
#include "jobs/model_session.h"
#include "jobs/spec.h"
#include "jobs/specs/init.h"

namespace pmetal::jobs {

extern const JobSpec spec_train;

namespace {

// A folder in Hugging Face layout, replaced as a whole or not at all.
void write_random_model(const InitOptions& o, JobContext& context) {
  if (!o.force && fs::exists(o.output))
    fail(ErrorCode::kUsage, "{}: exists already: name another folder with --output, or give --force", o.output);
  const ModelSession s = open_session(
      context, {.model = "random:" + *o.random_model, .dtype = o.dtype, .threads = o.threads, .seed = o.seed});
  context.phase("saving_weights", o.output);
  AtomicDirectory folder(o.output);
  models::save_model(*s.model, s.checkpoint->config(), folder.temporary(), to_dtype(o.dtype));
  folder.commit();
  context.artefact(o.output, "model");
  context.summary.output_path = o.output;
}

}  // namespace

void run_init(const JobOptions& job, JobContext& context) {
  const auto& options = job.as<InitOptions>();
  if (options.random_model) return write_random_model(options, context);
  if (!options.force && fs::exists(options.output))
    fail(ErrorCode::kUsage, "{}: exists already: name another file with --output, or give --force", options.output);
  write_file_atomic(options.output, sample_yaml(spec_train));
  context.artefact(options.output, "config");
  context.summary.output_path = options.output;
}

}  // namespace pmetal::jobs
