// `pmetal memory`: memory in use, of the machine and of each GPU; with a model, the plans of its commands.
#include <ostream>

#include <nlohmann/json.hpp>

#include "jobs/context.h"
#include "jobs/hub_names.h"
#include "jobs/machine.h"
#include "jobs/memory_report.h"
#include "jobs/model_session.h"
#include "jobs/spec.h"
#include "jobs/specs/memory.h"
#include "jobs/training.h"

namespace pmetal::jobs {
namespace {

double gb(int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

struct NamedPlan {
  const char* name;
  train::MemoryPlan plan;
};

std::vector<NamedPlan> plans_of(const MemoryOptions& o, const models::Checkpoint& checkpoint, Device device,
                                int64_t tokens) {
  train::PlanRequest request;
  request.device = device;
  request.threads = std::make_shared<ThreadPool>(static_cast<int>(o.threads));
  request.load.dtype = to_dtype(o.dtype);
  request.tokens = tokens;
  request.sequences = o.batch_size;
  std::vector<NamedPlan> plans{{"generation", train::plan_inference(checkpoint, request)}};
  for (const bool full : {false, true}) {
    request.load.for_training = full;
    request.target = [&](Context& ctx, models::Model& model) -> std::unique_ptr<train::TrainTarget> {
      if (full) return train::make_model_target(model, checkpoint, checkpoint.folder(), to_dtype(o.dtype));
      adapters::PeftConfig config;
      config.r = o.lora_r;
      config.targets.all_linear = true;
      const auto adapter = adapters::Adapter::create(ctx, model, config, 0);
      adapter->attach(model, 0);
      adapters::prepare_training(ctx, model, *adapter, 0);
      return train::make_adapter_target(model, adapter);
    };
    for (const int64_t group : {0, 1}) {
      request.loss.recompute_group = group;
      plans.push_back({full    ? group ? "train --full, blocks recomputed" : "train --full"
                       : group ? "train LoRA, blocks recomputed"
                               : "train LoRA",
                       train::plan_training(checkpoint, request)});
    }
  }
  return plans;
}

void report_plans(const MemoryOptions& o, JobContext& job) {
  const auto checkpoint = models::Checkpoint::open(local_model(job, *o.model));
  const int64_t positions = models::build(checkpoint->config(), checkpoint->source())->info().max_positions;
  const int64_t tokens = std::min(o.context_length, positions);
  const Device device = to_device(o.device);
  const std::optional<int64_t> free = free_memory(device);
  const std::vector<NamedPlan> plans = plans_of(o, *checkpoint, device, tokens);
  if (job.json) {
    Json out{
        {"model", *o.model}, {"device", to_string(device)}, {"context_length", tokens}, {"batch_size", o.batch_size}};
    if (free) out["available_gb"] = gb(*free);
    out["plans"] = Json::array();
    for (const auto& [name, plan] : plans) {
      Json row{{"name", name},
               {"total_gb", gb(plan.total)},
               {"weights_gb", gb(plan.weights)},
               {"parameters_gb", gb(plan.parameters)},
               {"activations_gb", gb(plan.activations)}};
      if (free) row["fits"] = plan.total <= *free;
      out["plans"].push_back(row);
    }
    job.data() << out.dump(2) << "\n";
    return;
  }
  std::string text = fmt::format("{} on {}, {} of {} tokens{}\n", *o.model, to_string(device), o.batch_size, tokens,
                                 free ? fmt::format(", {:.2f} GB available", gb(*free)) : "");
  text += fmt::format("{:<34}{:>10} {:>10} {:>12} {:>12}\n", "GB", "total", "weights", "trained, KV", "activations");
  for (const auto& [name, plan] : plans)
    text += fmt::format("{:<34}{:>10.2f} {:>10.2f} {:>12.2f} {:>12.2f}{}\n", name, gb(plan.total), gb(plan.weights),
                        gb(plan.parameters), gb(plan.activations), free && plan.total > *free ? "  does not fit" : "");
  job.data() << text;
}

}  // namespace

void run_memory(const JobOptions& options, JobContext& context) {
  const MemoryOptions& o = options.as<MemoryOptions>();
  if (o.model) return report_plans(o, context);
  const MemoryInfo memory = read_memory_info();
  const GpuReport gpus = read_gpu_report(true);
  if (context.json) {
    Json out;
    out["total_gb"] = gb(memory.total);
    out["used_gb"] = gb(memory.total - memory.available);
    out["available_gb"] = gb(memory.available);
    out["peak_gb"] = gb(memory.process_peak);
    out["devices"] = Json::array();
    for (const GpuInfo& gpu : gpus.gpus) {
      Json device;
      device["index"] = gpu.index;
      device["name"] = gpu.name;
      device["total_gb"] = gb(gpu.memory_total);
      if (gpu.memory_free >= 0) {
        device["used_gb"] = gb(gpu.memory_total - gpu.memory_free);
        device["available_gb"] = gb(gpu.memory_free);
      }
      out["devices"].push_back(device);
    }
    context.data() << out.dump(2) << "\n";
    return;
  }
  std::string text = fmt::format("            {:>10} {:>10} {:>10}\n", "total", "used", "available");
  text += fmt::format("memory      {:>7.1f} GB {:>7.1f} GB {:>7.1f} GB\n", gb(memory.total),
                      gb(memory.total - memory.available), gb(memory.available));
  for (const GpuInfo& gpu : gpus.gpus) {
    text += fmt::format("GPU {:<7} {:>7.1f} GB", gpu.index, gb(gpu.memory_total));
    if (gpu.memory_free >= 0)
      text += fmt::format(" {:>7.1f} GB {:>7.1f} GB", gb(gpu.memory_total - gpu.memory_free), gb(gpu.memory_free));
    text += fmt::format("  {}\n", gpu.name);
  }
  text += fmt::format("this process used {:.3f} GB at most\n", gb(memory.process_peak));
  context.data() << text;
}

}  // namespace pmetal::jobs
