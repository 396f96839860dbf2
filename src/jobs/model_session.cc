#include "jobs/model_session.h"

#include "jobs/hub_names.h"
#include "jobs/machine.h"
#include "ops/device.h"

namespace pmetal::jobs {

DType to_dtype(ComputeDtype dtype) { return dtype == ComputeDtype::kF32 ? DType::kF32 : DType::kBF16; }

Device to_device(DeviceChoice choice) {
  if (choice == DeviceChoice::kCpu) return kCpu;
  if (choice == DeviceChoice::kAuto) return ops::cuda_state().n_devices > 0 ? Device{DeviceKind::kCuda, 0} : kCpu;
  return {DeviceKind::kCuda, static_cast<int>(choice) - static_cast<int>(DeviceChoice::kCuda0)};
}

std::string device_name(const Context& ctx) {
  if (!ctx.device().is_cuda()) return read_cpu_info().model;
  const GpuReport report = read_gpu_report(false);
  for (const GpuInfo& gpu : report.gpus)
    if (gpu.index == ctx.device().index) return gpu.name;
  return to_string(ctx.device());
}

namespace {

// Before anything is allocated: a config can ask for more than any machine has.
void check_memory(models::Model& model, const models::Checkpoint& checkpoint, DType dtype) {
  const int64_t bytes = models::count_parameters(model).total * size_of(dtype);
  const int64_t available = read_memory_info().available;
  if (available > 0 && bytes > available)
    fail(ErrorCode::kOutOfMemory,
         "{}: the weights take {:.1f} GB in {}, {:.1f} GB of memory are free; {}take a smaller model",
         checkpoint.source(), static_cast<double>(bytes) / 1e9, name_of(dtype), static_cast<double>(available) / 1e9,
         dtype == DType::kF32 ? "use --dtype bf16 or " : "");
}

}  // namespace

ModelSession open_session(const JobContext& job, const SessionOptions& o) {
  ModelSession s;
  job.phase("resolving_model", o.model);
  s.checkpoint = models::Checkpoint::open(local_model(job, o.model));
  s.threads = std::make_shared<ThreadPool>(static_cast<int>(o.threads));
  s.ctx = std::make_unique<Context>(ops::make_context(to_device(o.device), s.threads));
  job.phase("loading_model", o.model);
  s.model = models::build(s.checkpoint->config(), s.checkpoint->source());
  if (s.ctx->device().is_cpu()) check_memory(*s.model, *s.checkpoint, to_dtype(o.dtype));
  const int64_t weights = models::count_parameters(*s.model).total * size_of(to_dtype(o.dtype));
  s.ctx->allocator().set_plan(fmt::format("weights {:.2f} GB", static_cast<double>(weights) / 1e9));
  models::load_weights(
      *s.ctx, *s.model, *s.checkpoint,
      {.dtype = to_dtype(o.dtype), .seed = o.seed, .for_training = o.for_training, .scale_residual = o.scale_residual});
  if (o.adapter) {
    s.adapter = adapters::Adapter::load(*s.ctx, *s.model, local_model(job, *o.adapter));
    s.adapter->attach(*s.model, 0);
  }
  return s;
}

}  // namespace pmetal::jobs
