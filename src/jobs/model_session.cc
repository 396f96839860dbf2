#include "jobs/model_session.h"

namespace pmetal::jobs {

DType to_dtype(ComputeDtype dtype) { return dtype == ComputeDtype::kF32 ? DType::kF32 : DType::kBF16; }

ModelSession open_session(const JobContext& job, const SessionOptions& o) {
  ModelSession s;
  job.phase("resolving_model", o.model);
  s.checkpoint = models::Checkpoint::open(o.model);
  s.threads = std::make_shared<ThreadPool>(static_cast<int>(o.threads));
  s.ctx = std::make_unique<Context>(s.threads);
  job.phase("loading_model", o.model);
  s.model = models::build(s.checkpoint->config(), s.checkpoint->source());
  models::load_weights(
      *s.ctx, *s.model, *s.checkpoint,
      {.dtype = to_dtype(o.dtype), .seed = o.seed, .for_training = o.for_training, .scale_residual = o.scale_residual});
  if (o.adapter) {
    s.adapter = adapters::Adapter::load(*s.ctx, *s.model, *o.adapter);
    s.adapter->attach(*s.model, 0);
  }
  return s;
}

}  // namespace pmetal::jobs
